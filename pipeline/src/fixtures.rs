//! Objects for the tests of several stages of the pipeline.

use crds::Sync;
use manifests::ObjectId;
use serde_json::{Value, json};

use crate::Inventory;

/// The Sync `apps` in namespace `team`. `spec` is merged over the required fields.
pub(crate) fn sync(spec: Value) -> Sync {
    let mut all = json!({"repository": {"name": "main"}});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let sync = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync",
        "metadata": {"name": "apps", "namespace": "team"}, "spec": all,
    });
    serde_json::from_value(sync).unwrap()
}

/// An object in namespace `team`.
pub(crate) fn id(group: &str, kind: &str, name: &str) -> ObjectId {
    ObjectId { group: group.into(), kind: kind.into(), namespace: Some("team".into()), name: name.into() }
}

/// An inventory of objects that are about to be applied.
pub(crate) fn inventory(ids: &[ObjectId]) -> Inventory {
    let mut inventory = Inventory::default();
    for id in ids {
        inventory.widen(id.clone(), "v1");
    }
    inventory
}

/// ConfigMaps of namespace `team`.
pub(crate) fn config_maps(count: usize) -> Vec<ObjectId> {
    (0..count).map(|index| id("", "ConfigMap", &format!("c{index}"))).collect()
}
