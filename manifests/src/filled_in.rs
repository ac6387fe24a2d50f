//! Fields that the control plane always sets itself, even if a manifest has other values.

use serde_json::{Map, Value};

use crate::id::ObjectId;

/// Fields of `metadata` that only the API server writes.
pub const SERVER_METADATA: [&str; 6] =
    ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"];

/// Removes from the body of `id` what a controller of Kubernetes itself sets: the `rules` of an aggregated ClusterRole.
/// Many projects have `rules: []` in their manifests. To apply this would empty the role, and the aggregator would set
/// the rules again.
pub fn leave_to_control_plane(id: &ObjectId, body: &mut Map<String, Value>) {
    let is_cluster_role = id.group == "rbac.authorization.k8s.io" && id.kind == "ClusterRole";
    if is_cluster_role && body.get("aggregationRule").is_some_and(|rule| !rule.is_null()) {
        body.remove("rules");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Limits, parse};

    fn left(text: &str) -> Value {
        let mut role = parse("a.yaml", text.as_bytes(), &Limits::default()).unwrap().remove(0);
        leave_to_control_plane(&role.id, &mut role.body);
        Value::Object(role.body)
    }

    #[test]
    fn the_rules_of_an_aggregated_role_are_its_aggregators() {
        let role = |more: &str| {
            left(&format!(
                "{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {{name: a}}, rules: []{more}}}"
            ))
        };
        let aggregated = role(", aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}]}");
        assert_eq!(aggregated.get("rules"), None);
        assert!(aggregated.get("aggregationRule").is_some());
        assert_eq!(role("")["rules"], json!([]), "a role without rules is one");
        assert_eq!(role(", aggregationRule: null")["rules"], json!([]));
        let other =
            left("{apiVersion: x.dev/v1, kind: ClusterRole, metadata: {name: a}, rules: [], aggregationRule: {}}");
        assert_eq!(other["rules"], json!([]), "somebody else's kind");
    }
}
