//! Changes the ownership in `managedFields`: we become the owner of fields that others wrote, or give up fields that
//! are left to others.

use ::fields::{is_ours, set};
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
/// or to a subresource. `None` if others wrote nothing with an update. Our next apply removes those fields that its
/// body does not contain.
pub(super) fn adopted(managed_fields: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let is_foreign = |entry: &&ManagedFieldsEntry| {
        entry.operation.as_deref() == Some("Update") && entry.subresource.as_deref().unwrap_or_default().is_empty()
    };
    let (foreign, others): (Vec<_>, Vec<_>) = managed_fields.iter().partition(is_foreign);
    let mut ours = (*foreign.first()?).clone();
    let (before, mut kept): (Vec<_>, Vec<_>) = others.into_iter().partition(|entry| is_ours(entry));
    let mut fields = Value::Null;
    for more in foreign.iter().chain(&before).filter_map(|entry| entry.fields_v1.as_ref()) {
        set::unite(&mut fields, &more.0);
    }
    ours.manager = Some(crds::FIELD_MANAGER.into());
    ours.operation = Some("Apply".into());
    ours.fields_v1 = Some(FieldsV1(fields));
    kept.push(&ours);
    Some(kept.into_iter().cloned().collect())
}

/// `managed_fields` without our ownership of the fields at the JSON `pointers`, so that our next apply may leave these
/// fields out without removing them. `None` if we own none of these fields. `managedFields` names the items of a list by
/// their keys, so pointers into lists need `whole`, the object that has these fields.
pub(super) fn released(
    managed_fields: &[ManagedFieldsEntry],
    pointers: &[String],
    whole: &Map<String, Value>,
) -> Option<Vec<ManagedFieldsEntry>> {
    let mut entries = managed_fields.to_vec();
    let ours = entries.iter_mut().find(|entry| is_ours(entry))?;
    let fields = &mut ours.fields_v1.as_mut()?.0;
    let before = fields.clone();
    for pointer in pointers {
        let path = set::path_of(pointer, fields, whole);
        set::remove(fields, &path.iter().map(String::as_str).collect::<Vec<_>>());
    }
    (*fields != before).then_some(entries)
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
        let after = released(&before, &["/spec/replicas".into(), "/data/a~1b".into()], &Map::new()).unwrap();
        assert_eq!(
            after.iter().find(|entry| is_ours(entry)).unwrap().fields_v1.as_ref().unwrap().0,
            json!({"f:spec": {"f:paused": {}}})
        );
        assert_eq!(after[0], before[0], "what others own is theirs");
        assert_eq!(released(&after, &["/spec/replicas".into(), "/spec/template/0".into()], &Map::new()), None);
    }

    #[test]
    fn an_item_of_a_list_is_found_by_its_keys() {
        let item = |name: &str| format!("k:{{\"name\":\"{name}\"}}");
        let port = r#"k:{"containerPort":80,"protocol":"TCP"}"#;
        let before = entries(ours(
            json!({"f:spec": {"f:containers": {
                item("one"): {".": {}, "f:image": {}, "f:name": {}},
                item("two"): {".": {}, "f:image": {}, "f:name": {}, "f:ports": {port: {".": {}, "f:containerPort": {}, "f:name": {}}}},
            }, "f:finalizers": {"v:\"a\"": {}, "v:\"b\"": {}}}}),
            "2026-01-01T00:00:00Z",
        ));
        let Value::Object(whole) = json!({"spec": {
            "containers": [{"name": "two", "image": "x", "ports": [{"containerPort": 80, "name": "http"}]}, {"name": "one"}],
            "finalizers": ["a", "b"],
        }}) else {
            panic!("an object")
        };
        let pointers = [
            "/spec/containers/0/image",
            "/spec/containers/0/ports/0/name",
            "/spec/finalizers/1",
            "/spec/containers/7/image",
        ];
        let after = released(&before, &pointers.map(str::to_owned), &whole).unwrap();
        let expected = json!({"f:spec": {"f:containers": {
            item("one"): {".": {}, "f:image": {}, "f:name": {}},
            item("two"): {".": {}, "f:name": {}, "f:ports": {port: {".": {}, "f:containerPort": {}}}},
        }, "f:finalizers": {"v:\"a\"": {}}}});
        let ours = after.iter().find(|entry| is_ours(entry)).unwrap();
        assert_eq!(ours.fields_v1.as_ref().unwrap().0, expected);
    }
}
