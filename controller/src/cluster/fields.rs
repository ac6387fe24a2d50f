//! Field ownership as a digest: what drift is told by.
//!
//! The API server keeps, per object, one `managedFields` entry for our server-side applies. A writer that changes or
//! removes one of our fields takes it out of that entry; status writers and foreign labels leave it alone. So the
//! digest of our own entry changes if and only if one of our fields was touched.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use pipeline::FieldsDigest;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The digest of our entry in `managed_fields`; `None` when we own nothing on the object.
pub(super) fn digest(managed_fields: Option<&[ManagedFieldsEntry]>) -> Option<FieldsDigest> {
    let ours = our_entry(managed_fields)?;
    let mut hasher = Sha256::new();
    hasher.update(ours.api_version.as_deref().unwrap_or_default());
    if let Some(fields) = &ours.fields_v1 {
        absorb(&mut hasher, &fields.0);
    }
    let bytes = hasher.finalize();
    Some(FieldsDigest::new(u64::from_be_bytes(bytes[..8].try_into().expect("SHA-256 has 32 bytes"))))
}

/// How many entries of a Secret's `data` are ours, and which others wrote: those that are theirs only, and all that they
/// applied as `stringData`, which takes the place of ours without taking its ownership. Of a Secret of which nothing is
/// ours nobody asks for those of others, and they are left out.
pub(super) fn values(managed_fields: Option<&[ManagedFieldsEntry]>) -> (usize, BTreeSet<&str>) {
    let Some(ours) = our_entry(managed_fields) else { return Default::default() };
    let ours: BTreeSet<_> = keys(ours, "f:data").collect();
    let others = || managed_fields.into_iter().flatten().filter(|entry| !is_ours(entry));
    let only_theirs = others().flat_map(|entry| keys(entry, "f:data")).filter(|key| !ours.contains(key));
    let foreign = only_theirs.chain(others().flat_map(|entry| keys(entry, STRING_DATA))).collect();
    (ours.len(), foreign)
}

const STRING_DATA: &str = "f:stringData";

/// The keys below a field of one entry.
fn keys<'a>(entry: &'a ManagedFieldsEntry, field: &str) -> impl Iterator<Item = &'a str> {
    let below = entry.fields_v1.as_ref().and_then(|fields| fields.0.get(field)?.as_object());
    below.into_iter().flat_map(|data| data.keys().filter_map(|key| key.strip_prefix("f:")))
}

/// `managed_fields` without what others own of `stringData`, which nobody can write away: it is not stored. `None` when
/// they own none.
pub(super) fn without_string_data(managed_fields: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let mut entries = managed_fields.to_vec();
    let mut is_found = false;
    for fields in entries.iter_mut().filter(|entry| !is_ours(entry)).filter_map(|entry| entry.fields_v1.as_mut()) {
        is_found |= fields.0.as_object_mut().is_some_and(|fields| fields.remove(STRING_DATA).is_some());
    }
    entries.retain(|entry| entry.fields_v1.as_ref().is_none_or(|fields| fields.0 != Value::Object(Map::new())));
    is_found.then_some(entries)
}

/// `managed_fields` with everything that others wrote (not applied, and not to a subresource) as if we had applied it:
/// our next apply then takes away what it does not hold. `None` when there is nothing of others.
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

/// `managed_fields` without our ownership of what the JSON `pointers` point at, so that our next apply may leave it out
/// without taking it away. `None` when we own none of it. Items of lists are told by keys, not by indices, in there:
/// pointers into lists are passed over.
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

/// Removes a path, and the parents that it leaves empty: an empty field set would be ownership of the parent itself.
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

fn our_entry(managed_fields: Option<&[ManagedFieldsEntry]>) -> Option<&ManagedFieldsEntry> {
    managed_fields?.iter().find(|entry| is_ours(entry))
}

fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(crds::FIELD_MANAGER)
        && entry.operation.as_deref() == Some("Apply")
        && entry.subresource.as_deref().unwrap_or_default().is_empty()
}

/// Feeds a field set into the hash, independent of the order of its keys. Leaves of a field set are empty objects.
fn absorb(hasher: &mut Sha256, value: &Value) {
    if let Value::Object(map) = value {
        let mut keys: Vec<_> = map.iter().collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        for (key, child) in keys {
            hasher.update((key.len() as u64).to_be_bytes());
            hasher.update(key);
            hasher.update(b"{");
            absorb(hasher, child);
            hasher.update(b"}");
        }
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
    fn only_our_own_fields_count() {
        let a = digest(Some(&entries(ours(json!({"f:a": {}, "f:b": {"f:c": {}}}), "2026-01-01T00:00:00Z"))));
        let later = digest(Some(&entries(ours(json!({"f:b": {"f:c": {}}, "f:a": {}}), "2026-02-01T00:00:00Z"))));
        let taken = digest(Some(&entries(ours(json!({"f:a": {}, "f:b": {}}), "2026-01-01T00:00:00Z"))));
        assert!(a.is_some());
        assert_eq!(a, later, "neither the time nor the order of keys matters");
        assert_ne!(a, taken, "a field that was taken away does");
        assert_eq!(digest(Some(&[])), None);
    }

    #[test]
    fn nesting_is_part_of_the_digest() {
        let flat = digest(Some(&entries(ours(json!({"f:a": {}, "f:b": {}}), "2026-01-01T00:00:00Z"))));
        let nested = digest(Some(&entries(ours(json!({"f:a": {"f:b": {}}}), "2026-01-01T00:00:00Z"))));
        assert_ne!(flat, nested);
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
        let ours = our_entry(Some(&after)).unwrap();
        let fields = &ours.fields_v1.as_ref().unwrap().0;
        assert_eq!(*fields, json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}, "f:type": {}}));
        assert_eq!(adopted(&after), None, "once is enough");
    }

    #[test]
    fn values_of_others_are_told_from_ours() {
        let mut all = entries(json!([
            {"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:data": {".": {}, "f:a": {}, "f:by-hand": {}}}},
            {"manager": "somebody", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:applied": {}}}},
        ]));
        assert_eq!(values(Some(&all)), (0, BTreeSet::new()), "a Secret that is not ours is not looked into");
        all.extend(entries(json!([
            {"manager": "gitseal", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:a": {}, "f:b": {}}}},
        ])));
        assert_eq!(values(Some(&all)), (2, BTreeSet::from(["applied", "by-hand"])));
        assert_eq!(without_string_data(&all), None);
        all.extend(entries(json!([
            {"manager": "text", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:stringData": {"f:a": {}}}},
        ])));
        assert_eq!(values(Some(&all)).1, BTreeSet::from(["a", "applied", "by-hand"]), "ours is overwritten");
        let without = without_string_data(&all).unwrap();
        assert_eq!(without.len(), all.len() - 1, "an entry that owns nothing goes");
    }

    #[test]
    fn text_form_reads_back() {
        let digest = FieldsDigest::new(0x0123_4567_89ab_cdef);
        assert_eq!(FieldsDigest::parse(&digest.to_string()), Some(digest));
        assert_eq!(FieldsDigest::parse("zz"), None);
    }

    #[test]
    fn what_is_left_to_others_is_owned_no_more() {
        let before = entries(ours(
            json!({"f:spec": {"f:replicas": {}, "f:paused": {}}, "f:data": {"f:a/b": {}}}),
            "2026-01-01T00:00:00Z",
        ));
        let after = released(&before, &["/spec/replicas".into(), "/data/a~1b".into()]).unwrap();
        assert_eq!(our_entry(Some(&after)).unwrap().fields_v1.as_ref().unwrap().0, json!({"f:spec": {"f:paused": {}}}));
        assert_eq!(after[0], before[0], "what others own is theirs");
        assert_eq!(released(&after, &["/spec/replicas".into(), "/spec/template/0".into()]), None);
    }
}
