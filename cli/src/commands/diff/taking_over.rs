//! Finds the fields that are removed from an object because a Sync takes it over from another tool.

use fields::{Managers, is_ours, set, take_over};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use pipeline::Inventory;
use serde_json::{Map, Value};

use super::{compare::InGit, shown::Comparable};

/// The field managers from which fields are taken over, and the objects from which they were taken over before.
pub struct TakingOver<'a> {
    managers: &'a Managers,
    /// The inventory of the Sync. Without a Sync, an object counts as applied if gitseal owns fields of it.
    inventory: Option<&'a Inventory>,
}

impl<'a> TakingOver<'a> {
    pub fn new(managers: &'a Managers, inventory: Option<&'a Inventory>) -> Self {
        Self { managers, inventory }
    }

    /// The object after the take-over, if anything is taken over. `applied` is the live object as the dry run of an apply
    /// would leave it.
    pub fn leaves<T: Comparable>(&self, object: InGit<'_>, live: &T, applied: &T) -> Option<Value> {
        let is_applied = match self.inventory {
            Some(inventory) => inventory.get(object.id).is_some_and(|known| known.manifest.is_some()),
            None => entries(live.object()?).iter().any(is_ours),
        };
        if is_applied {
            return None;
        }
        let whole = applied.object()?;
        let mut entries = entries(whole);
        let ours = entries.iter().find(|entry| is_ours(entry))?.fields_v1.clone()?.0;
        let mut goes = Value::Object(Map::new());
        // Each round of the loop takes over the fields that another manager owns in one API version.
        while let Some(taken) = take_over(&entries, self.managers, object.id, object.body, object.left_to_others) {
            set::unite(&mut goes, &taken.goes(&ours));
            entries = taken.entries;
        }
        if set::is_empty(&goes) {
            return None;
        }
        let mut left = Value::Object(whole.clone());
        set::take_out(&mut left, &goes);
        left.get_mut("metadata")?.as_object_mut()?.remove("managedFields");
        Some(left)
    }
}

/// The `managedFields` of an object.
pub fn entries(object: &Map<String, Value>) -> Vec<ManagedFieldsEntry> {
    let entries = object.get("metadata").and_then(|metadata| metadata.get("managedFields")).cloned();
    entries.and_then(|entries| serde_json::from_value(entries).ok()).unwrap_or_default()
}
