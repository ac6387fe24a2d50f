//! What goes from an object because a Sync takes it over from the tool that made it.

use std::collections::BTreeSet;

use crds::Sync;
use fields::{Managers, is_ours, set, take_over};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use manifests::{Manifest, ObjectId};
use serde_json::{Map, Value};

use super::{desired::left_to_others, shown::Comparable};

/// From whom objects are taken over, and which are not any more.
pub struct TakingOver<'a> {
    managers: &'a Managers,
    sync: Option<&'a Sync>,
    /// What the Sync applied already; without a Sync, that is what gitseal owns fields of.
    applied: Option<BTreeSet<ObjectId>>,
}

impl<'a> TakingOver<'a> {
    pub fn new(managers: &'a Managers, sync: Option<&'a Sync>) -> Self {
        let applied = sync.map(|sync| {
            let inventory = sync.status.iter().flat_map(|status| &status.inventory);
            inventory
                .filter(|entry| entry.m.is_some())
                .filter_map(|entry| ObjectId::from_inventory(&entry.id))
                .collect()
        });
        Self { managers, sync, applied }
    }

    /// What the take-over leaves of the object, when it takes anything: of `applied`, the live object as the dry run of
    /// an apply would leave it.
    pub fn leaves<T: Comparable>(&self, manifest: &Manifest, live: &T, applied: &T) -> Option<Value> {
        let is_applied = match &self.applied {
            Some(applied) => applied.contains(&manifest.id),
            None => entries(live.object()?).iter().any(is_ours),
        };
        if is_applied {
            return None;
        }
        let object = applied.object()?;
        let mut entries = entries(object);
        let left = self.sync.map(|sync| left_to_others(sync, &manifest.id)).unwrap_or_default();
        let ours = entries.iter().find(|entry| is_ours(entry))?.fields_v1.clone()?.0;
        let mut goes = Value::Object(Map::new());
        // Once for every version in which somebody owns fields.
        while let Some(taken) = take_over(&entries, self.managers, &manifest.id, &manifest.body, &left) {
            set::unite(&mut goes, &taken.goes(&ours));
            entries = taken.entries;
        }
        if set::is_empty(&goes) {
            return None;
        }
        let mut left = Value::Object(object.clone());
        set::take_out(&mut left, &goes);
        left.get_mut("metadata")?.as_object_mut()?.remove("managedFields");
        Some(left)
    }
}

fn entries(object: &Map<String, Value>) -> Vec<ManagedFieldsEntry> {
    let entries = object.get("metadata").and_then(|metadata| metadata.get("managedFields")).cloned();
    entries.and_then(|entries| serde_json::from_value(entries).ok()).unwrap_or_default()
}
