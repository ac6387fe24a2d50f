//! Makes the object to apply from a manifest in Git.

use std::collections::BTreeSet;

use crds::{Difference, ObjectKey, Sync};
use manifests::{Manifest, ObjectId, SERVER_METADATA};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::Sealed;

/// The digest that an inventory has for `id` after it was applied from `manifest`. The manifest is that of the object
/// itself or, if `id` is the Secret of a SealedSecret, that of the SealedSecret. `None` if that SealedSecret cannot be
/// parsed.
pub fn digest_as_applied(sync: &Sync, mut manifest: Manifest, id: &ObjectId) -> Option<String> {
    if id.is_secret() && manifest.id.is_sealed_secret() {
        let sealed = Sealed::deserialize(Value::Object(manifest.body)).ok()?;
        return Some(sealed.digest(&id.sealed_secret()));
    }
    manifest.id.clone_from(id);
    let managers = left_to_managers(&sync.spec.ignore_differences, id);
    Some(digest(&complete(sync, &ObjectKey::of(sync), manifest), &managers))
}

/// The digest of what is applied. `managers` own fields that are left to them. Which fields these are is known only when the
/// object is applied.
pub(super) fn digest(manifest: &Manifest, managers: &[String]) -> String {
    let digest = manifest.digest();
    if managers.is_empty() {
        return digest;
    }
    let both = Sha256::digest(format!("{digest} {managers:?}"));
    both.iter().take(digest.len() / 2).map(|byte| format!("{byte:02x}")).collect()
}

/// The field managers to which `differences` (those of a Sync) leave the fields that they own in the object. There are none
/// for SealedSecrets and their Secrets.
pub fn left_to_managers(differences: &[Difference], id: &ObjectId) -> Vec<String> {
    if id.is_secret() || id.is_sealed_secret() {
        return Vec::new();
    }
    let managers = differences.iter().filter(|difference| fits(&difference.target, id)).flat_map(|one| &one.managers);
    managers.cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// The fields of the object that the Sync leaves to others.
pub(super) fn left_to_others<'a>(sync: &'a Sync, id: &ObjectId) -> impl Iterator<Item = &'a String> {
    let differences = sync.spec.ignore_differences.iter();
    differences.filter(|difference| fits(&difference.target, id)).flat_map(|difference| &difference.paths)
}

/// Adds the labels that every object of a Sync has, and removes the fields that the Sync leaves to others.
pub(super) fn complete(sync: &Sync, key: &ObjectKey, mut manifest: Manifest) -> Manifest {
    for path in left_to_others(sync, &manifest.id) {
        remove_pointer(&mut manifest.body, path);
    }
    whole(key, manifest)
}

/// Adds the labels that every object of a Sync has. Fields that the Sync leaves to others stay, because an object that
/// does not exist yet is made with them.
pub(super) fn whole(key: &ObjectKey, mut manifest: Manifest) -> Manifest {
    manifest.body.remove("status");
    manifests::leave_to_control_plane(&manifest.id, &mut manifest.body);
    drop_empty_maps(&mut manifest.body);
    let metadata = object_at(&mut manifest.body, "metadata");
    for field in SERVER_METADATA {
        metadata.remove(field);
    }
    // These fields identify the object. They are written last, so that `ignoreDifferences` cannot remove them.
    metadata.insert("name".into(), json!(manifest.id.name));
    match &manifest.id.namespace {
        Some(namespace) => metadata.insert("namespace".into(), json!(namespace)),
        None => metadata.remove("namespace"),
    };
    let labels = object_at(metadata, "labels");
    labels.insert(crds::names::SYNC_NAME.into(), json!(key.name));
    labels.insert(crds::names::SYNC_NAMESPACE.into(), json!(key.namespace));
    manifest
}

/// Removes empty labels and annotations. Otherwise, whoever adds the first label or annotation would become the owner
/// of the empty map instead of us, and this would count as drift.
fn drop_empty_maps(body: &mut Map<String, Value>) {
    let template = body.get_mut("spec").and_then(|spec| spec.pointer_mut("/template/metadata"));
    for metadata in template.into_iter().filter_map(Value::as_object_mut) {
        drop_empty(metadata, &["labels", "annotations"]);
    }
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        drop_empty(metadata, &["labels", "annotations"]);
    }
}

fn drop_empty(map: &mut Map<String, Value>, names: &[&str]) {
    let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
    map.retain(|name, value| !(names.contains(&name.as_str()) && is_empty(value)));
}

/// The JSON object at `key` of `map`. If `map` has no object there, an empty one is put there.
pub(super) fn object_at<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("just made one")
}

fn fits(target: &crds::DifferenceTarget, id: &ObjectId) -> bool {
    let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
    fits(&target.group, &id.group)
        && fits(&target.kind, &id.kind)
        && fits(&target.namespace, id.namespace.as_deref().unwrap_or_default())
        && fits(&target.name, &id.name)
}

/// Removes the field that an RFC 6901 pointer points to, if it exists.
pub(super) fn remove_pointer(body: &mut Map<String, Value>, pointer: &str) {
    let unescape = |part: &str| part.replace("~1", "/").replace("~0", "~");
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        return;
    };
    let last = unescape(last);
    if parent.is_empty() {
        // Fields that identify the object cannot be left to others.
        if !matches!(last.as_str(), "apiVersion" | "kind" | "metadata") {
            body.remove(&last);
        }
        return;
    }
    let Some(tokens) = parent.strip_prefix('/') else {
        return;
    };
    let (first, deeper) = tokens.split_at(tokens.find('/').unwrap_or(tokens.len()));
    match body.get_mut(&unescape(first)).and_then(|value| value.pointer_mut(deeper)) {
        Some(Value::Object(map)) => {
            map.remove(&last);
        }
        Some(Value::Array(items)) => {
            if let Some(index) = last.parse().ok().filter(|index| *index < items.len()) {
                items.remove(index);
            }
        }
        _ => {}
    }
}
