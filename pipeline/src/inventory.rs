//! The inventory of a Sync: every object that the Sync applied and has not pruned yet, with digests of what was
//! applied.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crds::{Deletion, InventoryEntry};
use manifests::ObjectId;

use crate::{
    FieldsDigest,
    plan::{Wave, runs_once},
};

/// A Sync's inventory. Clones share their entries.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Inventory {
    entries: BTreeMap<Arc<ObjectId>, Arc<Tracked>>,
}

/// The entry for one object of an inventory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tracked {
    /// API version without the group.
    pub version: String,
    /// Digest of the manifest that was applied; `None` if the object was not applied yet.
    pub manifest: Option<String>,
    /// Digest of the fields that we owned after the object was applied.
    pub fields: Option<FieldsDigest>,
    /// See [`InventoryEntry::u`].
    pub values: Option<String>,
    /// Number of the wave that the object is applied in.
    pub wave: i32,
    /// See [`InventoryEntry::d`].
    pub deletion: Option<Deletion>,
    /// Why the object has failed; see [`InventoryEntry::e`].
    pub failed: Option<String>,
}

/// How many bytes the text has at most that says why an object has failed.
const WHY_BYTES: usize = 512;
/// How many bytes of JSON these texts have at most, all together. If there are more, only the first ones are stored.
pub const ALL_WHY_BYTES: usize = 16 * 1024;
/// The text for an object that has failed, if its own text was not stored.
const NOT_STORED: &str = "it has failed; why is not stored, because many objects have failed";

impl Tracked {
    /// The entry in the form that it has in a Sync's status.
    fn entry(&self, id: &ObjectId) -> InventoryEntry {
        InventoryEntry {
            id: id.to_inventory(),
            v: self.version.clone(),
            m: self.manifest.clone(),
            f: self.fields.map(|fields| fields.to_string()),
            u: self.values.clone(),
            w: (self.wave != 0).then_some(self.wave),
            d: self.deletion,
            e: self.failed.clone(),
        }
    }
}

/// What the digest of an object ends with that was never made.
const SKIPPED: &str = "-skipped";

impl Inventory {
    /// Reads the inventory in a Sync's status. An entry that cannot be read is an error. It is not ignored, because it
    /// may be the only record of an object in the cluster.
    pub fn read(entries: &[InventoryEntry]) -> Result<Self, String> {
        let entries = entries
            .iter()
            .map(|entry| {
                let id = ObjectId::from_inventory(&entry.id).ok_or_else(|| entry.id.clone())?;
                let record = Tracked {
                    version: entry.v.clone(),
                    manifest: entry.m.clone(),
                    fields: entry.f.as_deref().and_then(FieldsDigest::parse),
                    values: entry.u.clone(),
                    wave: entry.w.unwrap_or(0),
                    deletion: entry.d,
                    failed: entry.e.clone(),
                };
                Ok((Arc::new(id), Arc::new(record)))
            })
            .collect::<Result<_, String>>()?;
        Ok(Self { entries })
    }

    /// The entries for a status, in the order of the ids.
    pub fn write(&self) -> Vec<InventoryEntry> {
        let mut room = ALL_WHY_BYTES;
        let entries = self.entries.iter().map(|(id, record)| {
            let mut entry = record.entry(id);
            if let Some(why) = &mut entry.e {
                match room.checked_sub(json_bytes(why)) {
                    Some(left) => room = left,
                    None => why.clear(),
                }
            }
            entry
        });
        entries.collect()
    }

    /// The size that the inventory will have in a status, in bytes of JSON, when the objects of `digests` are applied.
    /// For each object, `digests` has the digest of its manifest and the length of the digest of its values. The texts that say why
    /// objects have failed are not counted: see [`ALL_WHY_BYTES`].
    pub fn bytes_when_applied(&self, digests: &HashMap<&ObjectId, (&str, usize)>) -> usize {
        let entries = self.entries.iter().map(|(id, record)| {
            let mut entry = record.entry(id);
            if let Some((digest, values)) = digests.get(&**id) {
                entry.m = Some((*digest).to_owned());
                entry.u = (*values > 0).then(|| "0".repeat(*values));
                entry.f = Some(entry.f.unwrap_or_else(|| FieldsDigest::LONGEST.to_string()));
            }
            entry.e = (runs_once(id) || entry.e.is_some()).then(String::new);
            // One byte more for the comma after the entry.
            json_bytes(&entry) + 1
        });
        entries.sum()
    }

    /// Number of objects as Git has them: a SealedSecret and its Secret count as one.
    pub fn len_in_git(&self) -> usize {
        self.entries.keys().filter(|id| !self.is_derived(id)).count()
    }

    /// Whether `id` is the Secret of a SealedSecret of this inventory.
    pub fn is_derived(&self, id: &ObjectId) -> bool {
        id.is_secret() && self.entries.contains_key(&id.sealed_secret())
    }

    /// Whether the inventory has no objects.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The objects with their entries, in the order of the ids.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectId, &Tracked)> {
        self.entries.iter().map(|(id, record)| (&**id, &**record))
    }

    /// The entry for `id`.
    pub fn get(&self, id: &ObjectId) -> Option<&Tracked> {
        self.entries.get(id).map(|record| &**record)
    }

    /// Whether the inventory has `id`.
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.entries.contains_key(id)
    }

    /// The wave that `id` was applied in.
    pub fn wave_of(&self, id: &ObjectId) -> Wave {
        Wave::new(self.get(id).map_or(0, |record| record.wave), id)
    }

    /// Adds the object `id`, which is about to be created. If the inventory has the object already, its digests are
    /// kept.
    pub fn widen(&mut self, id: ObjectId, version: &str) {
        let record = self.entries.entry(Arc::new(id)).or_default();
        if record.version != version {
            version.clone_into(&mut Arc::make_mut(record).version);
        }
    }

    /// Sets the number of the wave that `id` is applied in.
    pub fn set_wave(&mut self, id: &ObjectId, number: i32) {
        if let Some(record) = self.entries.get_mut(id).filter(|record| record.wave != number) {
            Arc::make_mut(record).wave = number;
        }
    }

    /// Sets whether `id` is deleted when it is healthy, and whether it was deleted for this reason or because it had failed.
    pub fn set_deletion(&mut self, id: &ObjectId, deletion: Option<Deletion>) {
        if let Some(record) = self.entries.get_mut(id).filter(|record| record.deletion != deletion) {
            let record = Arc::make_mut(record);
            record.deletion = deletion;
            if matches!(deletion, Some(Deletion::Done | Deletion::Failed)) {
                // An object that is gone has no fields.
                record.fields = None;
            }
        }
    }

    /// Records that `id` has failed, and why; `None` if it has not failed.
    pub fn set_failed(&mut self, id: &ObjectId, why: Option<&str>) {
        let why = why.map(|why| cut(why, WHY_BYTES));
        if let Some(record) = self.entries.get_mut(id).filter(|record| record.failed.as_deref() != why.as_deref()) {
            Arc::make_mut(record).failed = why.map(Cow::into_owned);
        }
    }

    /// If `id` is known to have failed: why.
    pub fn why_failed(&self, id: &ObjectId) -> Option<&str> {
        let why = self.get(id)?.failed.as_deref()?;
        Some(if why.is_empty() { NOT_STORED } else { why })
    }

    /// Whether `id` was deleted because it was healthy.
    pub fn is_done(&self, id: &ObjectId) -> bool {
        self.get(id).is_some_and(|record| record.deletion == Some(Deletion::Done))
    }

    /// Whether `id` failed and was deleted therefore.
    pub fn has_failed(&self, id: &ObjectId) -> bool {
        self.get(id).is_some_and(|record| record.deletion == Some(Deletion::Failed))
    }

    /// Whether `id` was deleted, because it was healthy or had failed.
    pub fn is_over(&self, id: &ObjectId) -> bool {
        self.is_done(id) || self.has_failed(id)
    }

    /// Records an object that is not made in an installation, although it is in Git with this digest.
    pub fn skip(&mut self, id: &ObjectId, version: &str, digest: &str, wave: i32) {
        self.widen(id.clone(), version);
        self.applied(id, format!("{digest}{SKIPPED}"), None);
        self.set_wave(id, wave);
        self.set_deletion(id, Some(Deletion::Done));
    }

    /// Whether the object was never made: see [`skip`](Self::skip).
    pub fn is_skipped(&self, id: &ObjectId) -> bool {
        self.get(id).is_some_and(|known| known.manifest.as_deref().is_some_and(|digest| digest.ends_with(SKIPPED)))
    }

    /// Whether the object was never made, and is in Git with this digest as it was in the installation.
    pub fn is_skipped_as(&self, id: &ObjectId, digest: &str) -> bool {
        self.get(id).and_then(|known| known.manifest.as_deref()?.strip_suffix(SKIPPED)) == Some(digest)
    }

    /// Records that `id` was applied, with the digests of its manifest and its fields.
    pub fn applied(&mut self, id: &ObjectId, manifest: String, fields: Option<FieldsDigest>) {
        if let Some(record) = self.entries.get_mut(id) {
            let record = Arc::make_mut(record);
            record.manifest = Some(manifest);
            record.fields = fields;
            record.failed = None;
        }
    }

    /// Replaces the entry for `id` by the one in `other`. If `other` has none, the entry is removed.
    pub fn reset(&mut self, id: &ObjectId, other: &Self) {
        match other.entries.get_key_value(id) {
            Some((id, record)) => drop(self.entries.insert(id.clone(), record.clone())),
            None => self.remove(id),
        }
    }

    /// Records the digest of the values that the applied object `id` uses, if it has such a digest.
    pub fn set_values(&mut self, id: &ObjectId, values: Option<String>) {
        if let Some(record) = self.entries.get_mut(id).filter(|record| record.values != values) {
            Arc::make_mut(record).values = values;
        }
    }

    /// Removes `id`, which the Sync no longer has.
    pub fn remove(&mut self, id: &ObjectId) {
        self.entries.remove(id);
    }
}

/// The text, or its beginning with `…` if it has more bytes than `most`.
fn cut(text: &str, most: usize) -> Cow<'_, str> {
    const MORE: &str = "…";
    if text.len() <= most {
        return text.into();
    }
    let end = (0..=most - MORE.len()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}{MORE}", &text[..end]).into()
}

fn json_bytes(value: &impl serde::Serialize) -> usize {
    serde_json::to_string(value).map_or(0, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(group: &str, kind: &str, name: &str) -> ObjectId {
        ObjectId { group: group.into(), kind: kind.into(), namespace: Some("ns".into()), name: name.into() }
    }

    #[test]
    fn a_status_reads_back() {
        let mut inventory = Inventory::default();
        inventory.widen(id("apps", "Deployment", "web"), "v1");
        inventory.widen(id("", "ConfigMap", "settings"), "v1");
        inventory.applied(&id("", "ConfigMap", "settings"), "abc".into(), FieldsDigest::parse("00000000000000ff"));
        inventory.set_wave(&id("apps", "Deployment", "web"), -7);
        inventory.set_deletion(&id("", "ConfigMap", "settings"), Some(Deletion::Due));
        inventory.set_values(&id("apps", "Deployment", "web"), Some("def".into()));
        inventory.set_failed(&id("apps", "Deployment", "web"), Some("no node fits"));
        assert_eq!(Inventory::read(&inventory.write()).unwrap(), inventory);
    }

    #[test]
    fn why_objects_failed_is_known_until_they_are_applied_again_and_takes_little_room() {
        let mut inventory = Inventory::default();
        let job = |number: usize| id("batch", "Job", &format!("job-{number:03}"));
        for number in 0..100 {
            inventory.widen(job(number), "v1");
        }
        let sizes = HashMap::new();
        let before = inventory.bytes_when_applied(&sizes);
        for number in 0..100 {
            inventory.set_failed(&job(number), Some(&"é\"".repeat(500)));
        }
        let text = inventory.why_failed(&job(0)).unwrap();
        assert!(text.len() <= WHY_BYTES && text.starts_with("é\"é") && text.ends_with('…'), "{text}");
        let written = inventory.write();
        let bytes = serde_json::to_string(&written).unwrap().len();
        assert!(bytes <= before + 1 + ALL_WHY_BYTES, "{bytes} {before}");
        assert_eq!(inventory.bytes_when_applied(&sizes), before);
        let read = Inventory::read(&written).unwrap();
        assert_eq!(read.why_failed(&job(0)), Some(text));
        assert_eq!(read.why_failed(&job(99)), Some(NOT_STORED));

        inventory.applied(&job(0), "digest".into(), None);
        inventory.set_failed(&job(1), None);
        assert_eq!((inventory.why_failed(&job(0)), inventory.why_failed(&job(1))), (None, None));
    }

    #[test]
    fn an_entry_that_is_not_understood_is_an_error() {
        let entry = InventoryEntry { id: "nonsense".into(), v: "v1".into(), ..InventoryEntry::default() };
        assert!(Inventory::read(&[entry]).is_err());
    }

    #[test]
    fn its_size_is_known_before_anything_is_applied() {
        let (web, settings) = (id("apps", "Deployment", "web"), id("", "ConfigMap", "settings"));
        let mut inventory = Inventory::default();
        inventory.widen(web.clone(), "v1");
        inventory.widen(settings.clone(), "v1");
        let bytes = inventory.bytes_when_applied(&HashMap::from([(&web, ("abc", 4)), (&settings, ("defg", 0))]));
        inventory.applied(&web, "abc".into(), FieldsDigest::parse("00000000000000ff"));
        inventory.applied(&settings, "defg".into(), FieldsDigest::parse("00000000000000ff"));
        inventory.set_values(&web, Some("hijk".into()));
        // The JSON has two brackets, and one comma between two entries.
        assert_eq!(bytes + 1, serde_json::to_string(&inventory.write()).unwrap().len());
        assert_eq!(bytes, inventory.bytes_when_applied(&HashMap::new()));
    }

    #[test]
    fn widening_keeps_what_was_applied() {
        let mut inventory = Inventory::default();
        inventory.widen(id("", "ConfigMap", "a"), "v1");
        inventory.applied(&id("", "ConfigMap", "a"), "abc".into(), None);
        inventory.widen(id("", "ConfigMap", "a"), "v1");
        assert_eq!(inventory.get(&id("", "ConfigMap", "a")).unwrap().manifest.as_deref(), Some("abc"));
    }

    #[test]
    fn a_copy_shares_what_did_not_change() {
        let (web, settings) = (id("apps", "Deployment", "web"), id("", "ConfigMap", "settings"));
        let mut inventory = Inventory::default();
        inventory.widen(web.clone(), "v1");
        inventory.widen(settings.clone(), "v1");
        let mut copy = inventory.clone();
        copy.widen(web.clone(), "v1");
        copy.set_wave(&web, 0);
        copy.applied(&settings, "abc".into(), None);
        let is_shared = |id| std::ptr::eq(inventory.get(id).unwrap(), copy.get(id).unwrap());
        assert!(is_shared(&web) && !is_shared(&settings));
        assert_eq!(inventory.get(&settings).unwrap().manifest, None);
        assert!(inventory.iter().zip(copy.iter()).all(|((id, _), (copied, _))| std::ptr::eq(id, copied)));
    }

    #[test]
    fn a_sealed_secret_and_its_secret_count_as_one() {
        let mut inventory = Inventory::default();
        inventory.widen(id("bitnami.com", "SealedSecret", "db"), "v1alpha1");
        inventory.widen(id("", "Secret", "db"), "v1");
        inventory.widen(id("", "Secret", "other"), "v1");
        assert_eq!(inventory.len_in_git(), 2);
    }
}
