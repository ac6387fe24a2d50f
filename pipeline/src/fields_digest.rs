//! Digest of the fields that gitseal owns on a live object, by which drift is noticed.
//!
//! For each object, the API server keeps one `managedFields` entry for our server-side applies. When somebody changes
//! or removes one of our fields, the API server removes the field from this entry. Writes to the status, or to labels
//! that others own, do not change the entry. So the digest of our entry changes if and only if one of our fields was
//! changed.

use std::fmt;

use fields::{is_ours, owned_by, set};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// 64 bits of a SHA-256 over our entry in an object's `managedFields`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FieldsDigest(u64);

impl FieldsDigest {
    /// A digest whose text is at least as long as the text of any other digest.
    pub(crate) const LONGEST: Self = Self(u64::MAX);

    /// A digest of these bits.
    pub fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The digest of our entry in `managed_fields`; `None` if we own no field of the object.
    pub fn of(managed_fields: Option<&[ManagedFieldsEntry]>) -> Option<Self> {
        let ours = managed_fields?.iter().find(|entry| is_ours(entry))?;
        let mut hasher = Sha256::new();
        hasher.update(ours.api_version.as_deref().unwrap_or_default());
        if let Some(fields) = &ours.fields_v1 {
            absorb(&mut hasher, &fields.0);
        }
        Some(Self::end(hasher))
    }

    /// Like [`FieldsDigest::of`], for an object in which everything that `managers` own is left to them. So the digest also
    /// changes when they own other fields than before.
    pub fn beside(managed_fields: Option<&[ManagedFieldsEntry]>, managers: &[String]) -> Option<Self> {
        let ours = Self::of(managed_fields)?;
        let theirs = if managers.is_empty() { Value::Null } else { owned_by(managed_fields?, managers) };
        if set::is_empty(&theirs) {
            return Some(ours);
        }
        let mut hasher = Sha256::new();
        hasher.update(ours.0.to_be_bytes());
        absorb(&mut hasher, &theirs);
        Some(Self::end(hasher))
    }

    fn end(hasher: Sha256) -> Self {
        Self(u64::from_be_bytes(hasher.finalize()[..8].try_into().expect("SHA-256 has 32 bytes")))
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self))?
    }
}

impl fmt::Display for FieldsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
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

    fn ours(fields: Value, time: &str) -> Option<FieldsDigest> {
        let entries = json!([
            {"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:x": {}}},
            {"manager": "gitseal", "operation": "Apply", "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1", "fieldsV1": fields},
        ]);
        FieldsDigest::of(Some(&serde_json::from_value::<Vec<_>>(entries).unwrap()))
    }

    #[test]
    fn only_our_own_fields_count() {
        let a = ours(json!({"f:a": {}, "f:b": {"f:c": {}}}), "2026-01-01T00:00:00Z");
        let later = ours(json!({"f:b": {"f:c": {}}, "f:a": {}}), "2026-02-01T00:00:00Z");
        let taken = ours(json!({"f:a": {}, "f:b": {}}), "2026-01-01T00:00:00Z");
        assert!(a.is_some());
        assert_eq!(a, later, "neither the time nor the order of keys matters");
        assert_ne!(a, taken, "a field that was taken away does");
        assert_eq!(FieldsDigest::of(Some(&[])), None);
    }

    #[test]
    fn nesting_is_part_of_the_digest() {
        let flat = ours(json!({"f:a": {}, "f:b": {}}), "2026-01-01T00:00:00Z");
        let nested = ours(json!({"f:a": {"f:b": {}}}), "2026-01-01T00:00:00Z");
        assert_ne!(flat, nested);
    }

    #[test]
    fn text_form_reads_back() {
        let digest = FieldsDigest::new(0x0123_4567_89ab_cdef);
        assert_eq!(FieldsDigest::parse(&digest.to_string()), Some(digest));
        assert_eq!(FieldsDigest::parse("zz"), None);
    }
}
