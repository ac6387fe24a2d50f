//! Facts about a Secret that its metadata show. So the controller need not read the values of a Secret.

use std::collections::BTreeSet;

use crds::names::SKIP_SET_OWNER_REFERENCES;
use fields::is_ours;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference};

use crate::{Made, OldMark};

/// What must be known about an existing Secret before values are unsealed for it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SecretFacts {
    /// UID of the SealedSecret that owns the Secret as its controller.
    pub sealed_secret: Option<Box<str>>,
    /// Whether an object that is no SealedSecret owns the Secret.
    pub owned_by_others: bool,
    /// Annotation `sealedsecrets.bitnami.com/managed: "true"`.
    pub managed: bool,
    /// Annotation `sealedsecrets.bitnami.com/patch: "true"`.
    pub patch: bool,
    /// Whether we wrote the annotation `skip-set-owner-references: "true"`. We write it only to a Secret that belongs
    /// completely to a SealedSecret.
    pub skips_owner: bool,
    /// Whether its labels mark the Secret as a sealing key, active or not.
    pub is_sealing_key: bool,
    /// The mark that an older version left on the Secret: an [`OldMark`].
    pub old_mark: Option<Box<str>>,
    /// When our entry in `managedFields` last changed, in seconds since 1970, as the API server recorded it.
    pub applied_at: Option<i64>,
    /// How many of the Secret's values gitseal owns. If somebody changed or removed a value, gitseal owns fewer values
    /// than it applied.
    pub owned_values: usize,
    /// Keys of the values that others added to a Secret made from a SealedSecret. Empty if the Secret was not made from
    /// a SealedSecret, but is itself in Git, without values.
    pub foreign_values: Box<[Box<str>]>,
}

impl SecretFacts {
    /// Reads the facts from the metadata of a Secret.
    pub fn of(meta: &ObjectMeta) -> Self {
        let annotation = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
        let owners = || meta.owner_references.iter().flatten();
        let labels = meta.labels.as_ref();
        let controller = sealed_secret_of(meta);
        let old_mark = annotation(crds::names::SEALED_DIGEST);
        let (owned, mut foreign) = values(meta.managed_fields.as_deref());
        // We own no value if the Secret was not made from a SealedSecret, or if somebody changed all our values. The
        // owner or the mark of the Secret shows which of the two is the case.
        if owned == 0 && controller.is_none() && old_mark.is_none() {
            foreign.clear();
        }
        Self {
            sealed_secret: controller.map(|owner| owner.uid.as_str().into()),
            owned_by_others: owners().any(|owner| !is_sealed_secret(owner)),
            managed: annotation(crds::names::MANAGED) == Some("true"),
            patch: annotation(crds::names::PATCH) == Some("true"),
            skips_owner: annotation(SKIP_SET_OWNER_REFERENCES) == Some("true")
                && wrote_annotation(meta.managed_fields.as_deref(), SKIP_SET_OWNER_REFERENCES),
            is_sealing_key: crds::names::KEY_LABELS
                .iter()
                .any(|label| labels.is_some_and(|all| all.contains_key(*label))),
            old_mark: old_mark.map(Into::into),
            applied_at: applied_at(meta.managed_fields.as_deref()),
            owned_values: owned,
            foreign_values: foreign.into_iter().map(Into::into).collect(),
        }
    }

    /// The mark that an older version left on the Secret.
    pub fn old_mark(&self) -> Option<OldMark<'_>> {
        self.old_mark.as_deref().map(OldMark::read)
    }

    /// How the controller last wrote the Secret: `told`, if the status of its SealedSecret says it, or else what the
    /// metadata of the Secret show. After a crash, the status may be behind, and everybody who may write the status can
    /// remove the mark in it. If the metadata show only that gitseal owns values, the result is `None`: the values may
    /// have been merged into a Secret of somebody else.
    pub fn made(&self, told: Option<Made>) -> Option<Made> {
        let has_mark = self.skips_owner || self.sealed_secret.is_some();
        let seems_whole = has_mark && self.owned_values > 0 && self.foreign_values.is_empty();
        told.or(self.old_mark().map(|mark| mark.made)).or(seems_whole.then_some(Made::Whole))
    }

    /// Whether others added values to a Secret that belongs completely to a SealedSecret.
    pub fn is_mixed(&self) -> bool {
        !self.patch && !self.foreign_values.is_empty()
    }
}

/// The SealedSecret that owns an object as its controller.
pub(crate) fn sealed_secret_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| is_sealed_secret(owner))
}

fn is_sealed_secret(owner: &OwnerReference) -> bool {
    owner.controller == Some(true) && owner.kind == "SealedSecret" && owner.api_version.starts_with("bitnami.com/")
}

/// When our entry last changed. This time does not change when others take over fields from us.
fn applied_at(managed_fields: Option<&[ManagedFieldsEntry]>) -> Option<i64> {
    Some(managed_fields?.iter().find(|entry| is_ours(entry))?.time.as_ref()?.0.as_second())
}

/// Whether our entry has the annotation.
fn wrote_annotation(managed_fields: Option<&[ManagedFieldsEntry]>, name: &str) -> bool {
    let ours = managed_fields.into_iter().flatten().find(|entry| is_ours(entry));
    let fields = ours.and_then(|entry| entry.fields_v1.as_ref());
    fields.is_some_and(|fields| fields.0["f:metadata"]["f:annotations"].get(format!("f:{name}")).is_some())
}

/// How many values in a Secret's `data` are ours, and the keys of the values of others. A value belongs to others if
/// only they own it, or if they applied it as `stringData`: a value in `stringData` replaces ours although we still own
/// the key in `data`. If none of our applies wrote the Secret, the keys of others are not needed, so they are left out.
fn values(managed_fields: Option<&[ManagedFieldsEntry]>) -> (usize, BTreeSet<&str>) {
    let ours = managed_fields.into_iter().flatten().find(|entry| is_ours(entry));
    let Some(ours) = ours else { return Default::default() };
    let ours: BTreeSet<_> = keys(ours, "f:data").collect();
    let others = || managed_fields.into_iter().flatten().filter(|entry| !is_ours(entry));
    let only_theirs = others().flat_map(|entry| keys(entry, "f:data")).filter(|key| !ours.contains(key));
    let foreign = only_theirs.chain(others().flat_map(|entry| keys(entry, "f:stringData"))).collect();
    (ours.len(), foreign)
}

/// The keys below `field` in one entry of `managedFields`.
fn keys<'a>(entry: &'a ManagedFieldsEntry, field: &str) -> impl Iterator<Item = &'a str> {
    let below = entry.fields_v1.as_ref().and_then(|fields| fields.0.get(field)?.as_object());
    below.into_iter().flat_map(|data| data.keys().filter_map(|key| key.strip_prefix("f:")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entries(value: Value) -> Vec<ManagedFieldsEntry> {
        serde_json::from_value(value).unwrap()
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
        all.extend(entries(json!([
            {"manager": "text", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:stringData": {"f:a": {}}}},
        ])));
        assert_eq!(values(Some(&all)).1, BTreeSet::from(["a", "applied", "by-hand"]), "ours is overwritten");
    }

    /// The facts about a Secret in which we own `ours` and somebody else owns `theirs`.
    fn facts(mut metadata: Value, ours: Value, theirs: Value) -> SecretFacts {
        let entry = |manager: &str, operation: &str, fields: Value| json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields});
        let fields = [entry("gitseal", "Apply", ours), entry("somebody", "Update", theirs)];
        metadata["managedFields"] = fields.into();
        SecretFacts::of(&serde_json::from_value(metadata).unwrap())
    }

    #[test]
    fn how_a_secret_was_written_is_told_or_seen() {
        let ours = json!({
            "f:data": {"f:a": {}}, "f:metadata": {"f:annotations": {format!("f:{SKIP_SET_OWNER_REFERENCES}"): {}}},
        });
        let (theirs, skips) =
            (json!({"f:data": {"f:b": {}}}), json!({"annotations": {SKIP_SET_OWNER_REFERENCES: "true"}}));
        let (whole, mixed) = (facts(skips.clone(), ours.clone(), json!({})), facts(skips.clone(), ours, theirs));
        assert_eq!((whole.made(None), mixed.made(None)), (Some(Made::Whole), None));
        let values = json!({"f:data": {"f:a": {}}});
        assert_eq!(facts(json!({}), values.clone(), json!({})).made(None), None, "merged into it, perhaps");
        assert_eq!(facts(skips, values, json!({})).made(None), None, "somebody else says so");
        assert_eq!(whole.made(Some(Made::Merged)), Some(Made::Merged), "what is told counts more");
        assert_eq!(mixed.made(Some(Made::Whole)), Some(Made::Whole));
        let old = json!({"annotations": {crds::names::SEALED_DIGEST: "merged-d"}});
        assert_eq!(facts(old, json!({}), json!({})).made(None), Some(Made::Merged));
        assert_eq!(SecretFacts::default().made(None), None);
    }

    #[test]
    fn what_others_put_into_an_unsealed_secret_is_known_though_no_value_of_ours_is_left() {
        let (labels, theirs) = (json!({"f:metadata": {}}), json!({"f:data": {"f:password": {}, "f:theirs": {}}}));
        let owner = json!([{"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "name": "db", "uid": "1", "controller": true}]);
        for more in [json!({"ownerReferences": owner}), json!({"annotations": {crds::names::SEALED_DIGEST: "d"}})] {
            let unsealed = facts(more, labels.clone(), theirs.clone());
            assert_eq!(&*unsealed.foreign_values, ["password".into(), "theirs".into()]);
            assert!(unsealed.is_mixed() && unsealed.owned_values == 0);
        }
        // A token of a service account, which is in Git without values: a controller of Kubernetes adds the values.
        assert!(!facts(json!({}), labels, theirs).is_mixed());
    }
}
