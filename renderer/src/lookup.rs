//! What templates find when they look something up in the cluster.

use pipeline::Looked;
use serde::Serialize;
use serde_json::Value;

/// How many objects a lookup of all objects of a kind may find.
pub const MOST_LOOKED_UP: usize = 100;

/// The content of the [`Input`](crate::Input) of an entry of `spec.helm.lookup`: the objects that exist, sorted by namespace and
/// name.
/// `go/lookups.go` reads it.
pub fn looked_up(looked: &Looked<'_>, is_namespaced: bool, mut objects: Vec<Value>) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        api_version: &'a str,
        kind: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'a str>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        all_namespaces: bool,
        objects: Vec<Value>,
    }
    for object in &mut objects {
        trim(object);
        // The API server leaves these out in a list.
        if let Value::Object(fields) = object {
            fields.insert("apiVersion".to_owned(), looked.api_version.into());
            fields.insert("kind".to_owned(), looked.kind.into());
        }
    }
    objects.sort_by(|a, b| place_of(a).cmp(&place_of(b)));
    let &Looked { api_version, kind, name, .. } = looked;
    let namespace = looked.namespace.filter(|_| is_namespaced);
    let all_namespaces = is_namespaced && namespace.is_none();
    let answer = Answer { api_version, kind, namespace, name, all_namespaces, objects };
    serde_json::to_string(&answer).expect("an object can be written as JSON")
}

fn place_of(object: &Value) -> (&str, &str) {
    let part = |path| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    (part("/metadata/namespace"), part("/metadata/name"))
}

/// Removes what changes although the object stays the same for a chart. Otherwise, the chart would be rendered again each time.
fn trim(object: &mut Value) {
    let table = |value: Option<&mut Value>, names: &[&str]| {
        if let Some(Value::Object(fields)) = value {
            fields.retain(|name, _| !names.contains(&name.as_str()));
        }
    };
    table(object.get_mut("metadata"), &["managedFields", "resourceVersion"]);
    // kubectl keeps the whole object in this annotation.
    table(object.pointer_mut("/metadata/annotations"), &["kubectl.kubernetes.io/last-applied-configuration"]);
    if let Some(Value::Array(conditions)) = object.pointer_mut("/status/conditions") {
        for condition in conditions {
            table(Some(condition), &["lastHeartbeatTime", "lastProbeTime", "lastUpdateTime"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use pipeline::Entry;
    use serde_json::json;

    use super::*;

    fn looked(name: Option<&'static str>) -> Looked<'static> {
        Looked { entry: Entry::Lookup(0), api_version: "v1", kind: "Node", namespace: Some("shop"), name }
    }

    fn node(name: &str, version: &str, heartbeat: &str) -> Value {
        json!({
            "metadata": {
                "name": name, "uid": "1", "resourceVersion": version, "managedFields": [{"time": heartbeat}],
                "annotations": {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
            },
            "spec": {"podCIDR": "10.0.0.0/24"},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat}]},
        })
    }

    #[test]
    fn what_changes_at_every_write_is_left_out_and_the_rest_stays() {
        let text = looked_up(&looked(Some("a")), false, vec![node("a", "1", "12:00")]);
        assert_eq!(text, looked_up(&looked(Some("a")), false, vec![node("a", "2", "12:05")]));
        let answer: Value = serde_json::from_str(&text).unwrap();
        let wanted = json!({
            "metadata": {"name": "a", "uid": "1", "annotations": {"a": "b"}}, "spec": {"podCIDR": "10.0.0.0/24"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}, "apiVersion": "v1", "kind": "Node",
        });
        assert_eq!(answer, json!({"apiVersion": "v1", "kind": "Node", "name": "a", "objects": [wanted]}));
    }

    #[test]
    fn a_list_is_sorted_and_has_the_namespace_if_the_kind_has_namespaces() {
        let text = looked_up(&looked(None), true, vec![node("b", "1", ""), node("a", "1", "")]);
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&answer["namespace"], answer.get("name")), (&json!("shop"), None));
        assert_eq!(answer["objects"][0]["metadata"]["name"], "a");
        assert_eq!(answer.get("allNamespaces"), None);
    }

    #[test]
    fn a_list_of_all_namespaces_is_sorted_by_namespace() {
        let service = |namespace: &str, name: &str| json!({"metadata": {"name": name, "namespace": namespace}});
        let all = Looked { kind: "Service", namespace: None, ..looked(None) };
        let text = looked_up(&all, true, vec![service("b", "a"), service("a", "b"), service("a", "a")]);
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&answer["allNamespaces"], answer.get("namespace")), (&json!(true), None));
        let names = answer["objects"].as_array().unwrap().iter().map(|one| one["metadata"].clone());
        assert_eq!(
            names.collect::<Vec<_>>(),
            [("a", "a"), ("a", "b"), ("b", "a")]
                .map(|(namespace, name)| { json!({"name": name, "namespace": namespace}) })
        );
        // A kind without namespaces has no list for each namespace.
        let answer: Value = serde_json::from_str(&looked_up(&all, false, Vec::new())).unwrap();
        assert_eq!(answer.get("allNamespaces"), None);
    }
}
