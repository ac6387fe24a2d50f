//! A manifest as the Sync would apply it.

use crds::{DifferenceTarget, Sync, names};
use kube::{ResourceExt, discovery::Scope};
use manifests::{Manifest, ObjectId};
use serde_json::{Map, Value, json};

/// Metadata that only the API server writes.
pub const SERVER_METADATA: [&str; 6] =
    ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"];

/// Puts in what the Sync adds (namespace, labels) and takes out what it leaves to others. `namespace` is for manifests
/// that name none; with a Sync that is the Sync's.
pub fn complete(manifest: &mut Manifest, scope: Option<Scope>, sync: Option<&Sync>, namespace: &str) {
    match scope {
        Some(Scope::Namespaced) => {
            let target = sync.and_then(|sync| sync.spec.target_namespace.as_deref());
            let namespace = target.or(manifest.id.namespace.as_deref()).unwrap_or(namespace).to_owned();
            manifest.id.namespace = Some(namespace);
        }
        Some(Scope::Cluster) => manifest.id.namespace = None,
        None => {}
    }
    let id = manifest.id.clone();
    manifest.body.remove("status");
    manifests::leave_to_control_plane(&id, &mut manifest.body);
    let Some(metadata) = object(&mut manifest.body, "metadata") else {
        return;
    };
    match &id.namespace {
        Some(namespace) => _ = metadata.insert("namespace".into(), json!(namespace)),
        None => _ = metadata.remove("namespace"),
    }
    for field in SERVER_METADATA {
        metadata.remove(field);
    }
    let Some(sync) = sync else { return };
    if let Some(labels) = object(metadata, "labels") {
        labels.insert(names::SYNC_NAME.into(), json!(sync.name_any()));
        labels.insert(names::SYNC_NAMESPACE.into(), json!(sync.namespace()));
    }
    let mut body = Value::Object(std::mem::take(&mut manifest.body));
    for difference in sync.spec.ignore_differences.iter().filter(|difference| fits(&difference.target, &id)) {
        for path in &difference.paths {
            remove(&mut body, path);
        }
    }
    if let Value::Object(body) = body {
        manifest.body = body;
    }
}

/// JSON pointers to the fields of the object that the Sync leaves to others.
pub fn left_to_others(sync: &Sync, id: &ObjectId) -> Vec<String> {
    let differences = sync.spec.ignore_differences.iter().filter(|difference| fits(&difference.target, id));
    differences.flat_map(|difference| difference.paths.clone()).collect()
}

/// The object at `key`, made if there is none; `None` if something else stands there, which the API server refuses.
fn object<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    let value = map.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

fn fits(target: &DifferenceTarget, id: &ObjectId) -> bool {
    let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
    fits(&target.group, &id.group)
        && fits(&target.kind, &id.kind)
        && fits(&target.namespace, id.namespace.as_deref().unwrap_or_default())
        && fits(&target.name, &id.name)
}

/// Removes what a JSON pointer points at, if it is there. What makes an object that object stays.
fn remove(body: &mut Value, pointer: &str) {
    if matches!(pointer, "/apiVersion" | "/kind" | "/metadata") {
        return;
    }
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        return;
    };
    let last = last.replace("~1", "/").replace("~0", "~");
    match body.pointer_mut(parent) {
        Some(Value::Object(map)) => _ = map.remove(&last),
        Some(Value::Array(items)) => {
            if let Some(index) = last.parse::<usize>().ok().filter(|index| *index < items.len()) {
                items.remove(index);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifests::{Limits, parse};

    fn manifest(text: &str) -> Manifest {
        parse("a.yaml", text.as_bytes(), &Limits::default()).unwrap().remove(0)
    }

    fn sync(spec: Value) -> Sync {
        let mut all = json!({"repository": {"name": "fleet"}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "team"}, "spec": all})).unwrap()
    }

    const DEPLOYMENT: &str =
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 3, paused: false}}";

    #[test]
    fn a_sync_adds_its_namespace_and_labels_and_leaves_fields_to_others() {
        let sync = sync(json!({"targetNamespace": "shop",
            "ignoreDifferences": [{"target": {"kind": "Deployment"}, "paths": ["/spec/replicas", "/kind", "/spec/none/x"]}]}));
        let mut deployment = manifest(DEPLOYMENT);
        complete(&mut deployment, Some(Scope::Namespaced), Some(&sync), "team");
        assert_eq!(deployment.id.namespace.as_deref(), Some("shop"));
        assert_eq!(
            Value::Object(deployment.body),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"paused": false}, "metadata": {
                "name": "web", "namespace": "shop",
                "labels": {"gitseal.dev/sync-name": "web", "gitseal.dev/sync-namespace": "team"}}})
        );
    }

    #[test]
    fn the_namespace_of_a_cluster_wide_object_is_dropped() {
        let mut role = manifest(
            "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: x, namespace: team, uid: '1'}}",
        );
        complete(&mut role, Some(Scope::Cluster), None, "team");
        assert_eq!(role.id.namespace, None);
        assert_eq!(role.body["metadata"], json!({"name": "x"}));
    }

    #[test]
    fn without_a_target_the_own_namespace_counts() {
        let mut own = manifest("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: own}}");
        complete(&mut own, Some(Scope::Namespaced), Some(&sync(json!({}))), "team");
        assert_eq!(own.id.namespace.as_deref(), Some("own"));
        let mut none = manifest("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}");
        complete(&mut none, Some(Scope::Namespaced), None, "team");
        assert_eq!(none.id.namespace.as_deref(), Some("team"));
    }
}
