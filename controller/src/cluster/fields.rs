//! Changes the ownership in `managedFields`: we become the owner of fields that others wrote, or give up fields that
//! are left to others.

use ::fields::is_ours;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::{Map, Value};

/// The field `stringData` of a Secret. If others write a value in `stringData`, the API server stores the value in
/// `data`, where we stay the owner. It records the others only as owners of `stringData`, a field that is never stored.
const STRING_DATA: &str = "f:stringData";

/// `managed_fields` without the ownership that others have of `stringData`; `None` if others own nothing of this field.
/// A write to the Secret cannot remove this ownership, because the field is not stored.
pub(super) fn without_string_data(managed_fields: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let mut entries = managed_fields.to_vec();
    let mut is_found = false;
    for fields in entries.iter_mut().filter(|entry| !is_ours(entry)).filter_map(|entry| entry.fields_v1.as_mut()) {
        is_found |= fields.0.as_object_mut().is_some_and(|fields| fields.remove(STRING_DATA).is_some());
    }
    entries.retain(|entry| entry.fields_v1.as_ref().is_none_or(|fields| fields.0 != Value::Object(Map::new())));
    is_found.then_some(entries)
}

/// `managed_fields` in which we own everything that others wrote with an update, but not what they wrote with an apply
/// or to a subresource. `None` if others own nothing of this kind. Our next apply removes those fields that its body
/// does not contain.
pub(super) fn adopted(managed_fields: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let is_foreign = |entry: &&ManagedFieldsEntry| {
        entry.operation.as_deref() == Some("Update") && entry.subresource.as_deref().unwrap_or_default().is_empty()
    };
    let (foreign, others): (Vec<_>, Vec<_>) = managed_fields.iter().partition(is_foreign);
    let mut ours = (*foreign.first()?).clone();
    let (before, mut kept): (Vec<_>, Vec<_>) = others.into_iter().partition(|entry| is_ours(entry));
    let mut fields = Value::Null;
    for more in foreign.iter().chain(&before).filter_map(|entry| entry.fields_v1.as_ref()) {
        unite(&mut fields, &more.0);
    }
    ours.manager = Some(crds::FIELD_MANAGER.into());
    ours.operation = Some("Apply".into());
    ours.fields_v1 = Some(FieldsV1(fields));
    kept.push(&ours);
    Some(kept.into_iter().cloned().collect())
}

/// `managed_fields` without our ownership of the fields at the JSON `pointers`, so that our next apply may leave these
/// fields out without removing them. `None` if we own none of these fields. Pointers into lists are ignored, because
/// `managedFields` names list items by keys and not by indices.
pub(super) fn released(managed_fields: &[ManagedFieldsEntry], pointers: &[String]) -> Option<Vec<ManagedFieldsEntry>> {
    let mut entries = managed_fields.to_vec();
    let ours = entries.iter_mut().find(|entry| is_ours(entry))?;
    let fields = &mut ours.fields_v1.as_mut()?.0;
    let mut is_released = false;
    for pointer in pointers {
        let parts: Vec<_> = pointer
            .split('/')
            .skip(1)
            .map(|part| format!("f:{}", part.replace("~1", "/").replace("~0", "~")))
            .collect();
        is_released |= release(fields, &parts);
    }
    is_released.then_some(entries)
}

/// Removes a path, and the parents that become empty: an empty parent would mean that we own the parent itself. Returns
/// whether there was such a path.
fn release(fields: &mut Value, path: &[String]) -> bool {
    let (Some((first, rest)), Some(map)) = (path.split_first(), fields.as_object_mut()) else { return false };
    if rest.is_empty() {
        return map.remove(first).is_some();
    }
    let Some(child) = map.get_mut(first) else { return false };
    let is_released = release(child, rest);
    if is_released && child.as_object().is_some_and(serde_json::Map::is_empty) {
        map.remove(first);
    }
    is_released
}

fn unite(fields: &mut Value, more: &Value) {
    match (fields, more) {
        (Value::Object(fields), Value::Object(more)) => {
            for (key, child) in more {
                unite(fields.entry(key).or_insert(Value::Null), child);
            }
        }
        (fields, more) => *fields = more.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entries(value: Value) -> Vec<ManagedFieldsEntry> {
        serde_json::from_value(value).unwrap()
    }

    fn ours(fields: Value, time: &str) -> Value {
        json!([
            {"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:x": {}}},
            {"manager": "gitseal", "operation": "Apply", "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1", "fieldsV1": fields},
        ])
    }

    #[test]
    fn what_others_wrote_becomes_ours() {
        let before = entries(json!([
            {"manager": "controller", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:data": {".": {}, "f:a": {}}}},
            {"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:b": {}}, "f:type": {}}},
            {"manager": "kubelet", "operation": "Update", "subresource": "status", "apiVersion": "v1", "fieldsV1": {"f:status": {}}},
            {"manager": "somebody", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:c": {}}}},
        ]));
        let after = adopted(&before).unwrap();
        assert_eq!(after.len(), 3);
        let ours = after.iter().find(|entry| is_ours(entry)).unwrap();
        let fields = &ours.fields_v1.as_ref().unwrap().0;
        assert_eq!(*fields, json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}, "f:type": {}}));
        assert_eq!(adopted(&after), None, "once is enough");
    }

    #[test]
    fn an_entry_that_owns_nothing_goes() {
        let mut all = entries(json!([
            {"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:a": {}}}},
        ]));
        assert_eq!(without_string_data(&all), None);
        all.extend(entries(json!([
            {"manager": "text", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:stringData": {"f:a": {}}}},
        ])));
        let without = without_string_data(&all).unwrap();
        assert_eq!(without.len(), all.len() - 1);
    }

    #[test]
    fn what_is_left_to_others_is_owned_no_more() {
        let before = entries(ours(
            json!({"f:spec": {"f:replicas": {}, "f:paused": {}}, "f:data": {"f:a/b": {}}}),
            "2026-01-01T00:00:00Z",
        ));
        let after = released(&before, &["/spec/replicas".into(), "/data/a~1b".into()]).unwrap();
        assert_eq!(
            after.iter().find(|entry| is_ours(entry)).unwrap().fields_v1.as_ref().unwrap().0,
            json!({"f:spec": {"f:paused": {}}})
        );
        assert_eq!(after[0], before[0], "what others own is theirs");
        assert_eq!(released(&after, &["/spec/replicas".into(), "/spec/template/0".into()]), None);
    }
}
