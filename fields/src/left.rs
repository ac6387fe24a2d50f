//! Leaves the fields that some field managers own to these managers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::{Map, Value};

use crate::{is_ours, set, set_of};

/// The fields of an object that `managers` own, however they wrote them: with an apply or an update, or to a subresource
/// such as `scale`. The status, and the labels and annotations by which gitseal tells its objects, do not count.
pub fn owned_by(entries: &[ManagedFieldsEntry], managers: &[String]) -> Value {
    let mut owned = Value::Object(Map::new());
    let is_theirs = |entry: &&ManagedFieldsEntry| {
        !is_ours(entry) && entry.manager.as_ref().is_some_and(|manager| managers.contains(manager))
    };
    for fields in entries.iter().filter(is_theirs).filter_map(set_of) {
        set::unite(&mut owned, fields);
    }
    set::remove(&mut owned, &["f:status"]);
    for label in [crds::names::SYNC_NAME, crds::names::SYNC_NAMESPACE] {
        set::remove(&mut owned, &["f:metadata", "f:labels", &format!("f:{label}")]);
    }
    set::remove(&mut owned, &["f:metadata", "f:annotations", &format!("f:{}", crds::names::MADE_FROM)]);
    owned
}

/// `entries` without our ownership of the fields in `owned`, so that our next apply may leave them out without removing them.
/// `None` if we own none of them.
pub fn without_ours(entries: &[ManagedFieldsEntry], owned: &Value) -> Option<Vec<ManagedFieldsEntry>> {
    let mut entries = entries.to_vec();
    let ours = entries.iter_mut().find(|entry| is_ours(entry))?;
    let before = set_of(ours)?;
    let left = set::without(before, owned);
    if left == *before {
        return None;
    }
    ours.fields_v1 = Some(FieldsV1(left));
    Some(entries)
}

/// Removes the fields in `owned` from an object in Git, so that it can be applied without them. An item of a list keeps
/// the fields by which it is told as long as it has others.
pub fn leave_out(object: &mut Map<String, Value>, owned: &Value) {
    for (key, child) in owned.as_object().into_iter().flatten() {
        let Some(name) = key.strip_prefix("f:") else { continue };
        if object.get_mut(name).is_some_and(|field| is_left(field, child)) {
            object.shift_remove(name);
        }
    }
}

/// Removes everything in `owned` from `field`. Returns whether nothing of the field is left.
fn is_left(field: &mut Value, owned: &Value) -> bool {
    if set::is_empty(owned) {
        return true;
    }
    match field {
        Value::Object(map) => {
            leave_out(map, owned);
            map.is_empty()
        }
        Value::Array(items) => {
            for (key, child) in owned.as_object().into_iter().flatten() {
                items.retain_mut(|item| !(set::is_key_of(key, item) && is_left_item(item, key, child)));
            }
            items.is_empty()
        }
        _ => false,
    }
}

fn is_left_item(item: &mut Value, key: &str, owned: &Value) -> bool {
    let (Some(map), false) = (item.as_object_mut(), set::is_empty(owned)) else { return true };
    let keys: Map<String, Value> =
        key.strip_prefix("k:").and_then(|keys| serde_json::from_str(keys).ok()).unwrap_or_default();
    let told_by: Map<String, Value> = map.iter().filter(|(name, _)| keys.contains_key(*name)).map(owned_pair).collect();
    leave_out(map, owned);
    let has_others = map.keys().any(|name| !keys.contains_key(name));
    // An item of which they own only some fields is ours, too, as long as Git has it.
    let is_theirs = set::is_itself(owned);
    for (name, value) in told_by {
        map.entry(name).or_insert(value);
    }
    is_theirs && !has_others
}

fn owned_pair((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entries(value: Value) -> Vec<ManagedFieldsEntry> {
        serde_json::from_value(value).unwrap()
    }

    fn left(mut object: Value, owned: &Value) -> Value {
        leave_out(object.as_object_mut().unwrap(), owned);
        object
    }

    #[test]
    fn only_what_a_named_manager_wrote_into_the_object_is_theirs() {
        let entry = |manager: &str, operation: &str, part: &str, fields: Value| {
            json!({"manager": manager, "operation": operation,
            "subresource": part, "apiVersion": "apps/v1", "fieldsV1": fields})
        };
        let labels = json!({"f:gitseal.dev/sync-name": {}, "f:app": {}});
        let all = entries(json!([
            entry("scaler", "Update", "scale", json!({"f:spec": {"f:replicas": {}}})),
            entry("scaler", "Apply", "", json!({"f:metadata": {"f:labels": labels}})),
            entry("scaler", "Update", "status", json!({"f:status": {"f:replicas": {}}})),
            entry("kubectl", "Update", "", json!({"f:spec": {"f:paused": {}}})),
            entry("gitseal", "Apply", "", json!({"f:spec": {"f:replicas": {}, "f:template": {}}})),
        ]));
        let managers = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let owned = owned_by(&all, &managers(&["scaler", "nobody"]));
        assert_eq!(owned, json!({"f:spec": {"f:replicas": {}}, "f:metadata": {"f:labels": {"f:app": {}}}}));
        assert_eq!(owned_by(&all, &managers(&["gitseal"])), json!({}), "gitseal cannot leave fields to itself");

        let without = without_ours(&all, &owned).unwrap();
        assert_eq!(without[..4], all[..4]);
        assert_eq!(without[4].fields_v1.as_ref().unwrap().0, json!({"f:spec": {"f:template": {}}}));
        assert_eq!(without_ours(&without, &owned), None, "once is enough");
    }

    #[test]
    fn fields_of_maps_and_of_items_are_left_out() {
        let object = json!({"spec": {"replicas": 2, "paused": true, "selector": {"a": "b"}}, "data": {"one": "1"}});
        let owned =
            json!({"f:spec": {"f:replicas": {}, "f:selector": {}}, "f:data": {".": {}, "f:one": {}, "f:two": {}}});
        assert_eq!(left(object.clone(), &owned), json!({"spec": {"paused": true}}));
        assert_eq!(
            left(object.clone(), &json!({"f:data": {".": {}}})),
            object,
            "the map itself says nothing of its fields"
        );

        let item = |name: &str| format!("k:{{\"name\":\"{name}\"}}");
        let whole = json!({".": {}, "f:name": {}, "f:image": {}});
        let object = json!({"spec": {"containers": [{"name": "a", "image": "x", "args": ["1"]}, {"name": "b", "image": "y"}],
            "finalizers": ["one", "two"]}});
        let cases = [
            (json!({item("a"): {"f:image": {}}}), json!([{"name": "a", "args": ["1"]}, {"name": "b", "image": "y"}])),
            (json!({item("a"): whole}), json!([{"name": "a", "args": ["1"]}, {"name": "b", "image": "y"}])),
            (json!({item("b"): whole}), json!([{"name": "a", "image": "x", "args": ["1"]}])),
            (json!({item("b"): {"f:image": {}}}), json!([{"name": "a", "image": "x", "args": ["1"]}, {"name": "b"}])),
        ];
        for (owned, containers) in cases {
            let owned = json!({"f:spec": {"f:containers": owned, "f:finalizers": {"v:\"two\"": {}}}});
            assert_eq!(
                left(object.clone(), &owned),
                json!({"spec": {"containers": containers, "finalizers": ["one"]}}),
                "{owned}"
            );
        }
        // The key `protocol` has its default value in Git.
        let port = json!({"f:ports": {r#"k:{"port":80,"protocol":"TCP"}"#: {".": {}, "f:port": {}, "f:protocol": {}, "f:name": {}}}});
        assert_eq!(
            left(json!({"ports": [{"port": 80, "name": "http"}, {"port": 81}]}), &port),
            json!({"ports": [{"port": 81}]})
        );
    }
}
