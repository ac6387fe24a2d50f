//! Stores the first inventory of a Sync in the same write as the finalizer of the Sync.
//!
//! Before the first object is applied, the finalizer and the inventory must be stored. The finalizer is in the metadata
//! and the inventory in the status, and the API server does not accept both in one write. So the first inventory is
//! stored in an annotation, together with the finalizer, as `DIGEST.JSON`. `JSON` is the inventory, with the revision
//! that the first pass applies. `DIGEST` is a digest of `JSON` and of the UID of the Sync, made with the cluster's key
//! for digests. So only the controller can make this annotation, and the annotation is valid only for this Sync.
//!
//! The controller reads the annotation until the status says which revision was attempted. After that, the annotation
//! is removed as soon as no Sync waits for a worker.

use std::time::Duration;

use crds::{InventoryEntry, Sync, SyncStatus, names::FIRST_INVENTORY};
use kube::ResourceExt;
use pipeline::Inventory;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::{Pass, Record};
use crate::{cluster::ApiError, keys::Keyring};

/// The longest annotation. The API server accepts only 256 KiB of annotations, so a longer inventory is stored in the
/// status, which has more space.
const MOST_BYTES: usize = 64 * 1024;
/// How long the removal of the annotation is put off while Syncs wait for a worker, or after the removal failed.
const LATER: Duration = Duration::from_secs(2);

/// The work that a first pass is about to do.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
struct First {
    /// The revision that the pass applies.
    revision: String,
    /// The inventory, in the form that it has in the status.
    inventory: Vec<InventoryEntry>,
}

impl First {
    /// The value of the annotation; `None` if the inventory is too long for an annotation.
    fn write(&self, keyring: &Keyring, uid: &str) -> Option<String> {
        let json = serde_json::to_string(self).expect("its keys are strings");
        (json.len() <= MOST_BYTES).then(|| format!("{}.{json}", digest(keyring, uid, &json)))
    }

    /// Reads the annotation, if there is one that the controller made, and if the status of the Sync does not mention a
    /// pass yet.
    fn read(keyring: &Keyring, sync: &Sync) -> Option<Self> {
        let is_in_status = sync.status.as_ref().is_some_and(|status| status.last_attempted_revision.is_some());
        if is_in_status {
            return None;
        }
        let (told, json) = sync.annotations().get(FIRST_INVENTORY)?.split_once('.')?;
        if told != digest(keyring, sync.metadata.uid.as_deref()?, json) {
            return None;
        }
        serde_json::from_str(json).ok()
    }
}

/// The stored status with the content of the annotation, which is the status to write next. `None` if there is no such
/// annotation, or if it is no longer needed.
pub(super) fn with_status(keyring: &Keyring, sync: &Sync) -> Option<SyncStatus> {
    let First { revision, inventory } = First::read(keyring, sync)?;
    let stored = sync.status.clone().unwrap_or_default();
    Some(SyncStatus { last_attempted_revision: Some(revision), inventory, ..stored })
}

fn digest(keyring: &Keyring, uid: &str, json: &str) -> String {
    keyring.digest("first inventory", [uid.as_bytes(), json.as_bytes()])
}

impl Pass<'_> {
    /// Stores `inventory` together with the finalizer, if the Sync has neither yet. Returns whether they were stored.
    pub(super) async fn store_first_inventory(
        &self,
        record: &Record,
        inventory: &Inventory,
        revision: &str,
    ) -> Result<bool, ApiError> {
        let status = &record.status;
        let is_first =
            status.last_attempted_revision.is_none() && status.inventory.is_empty() && record.unsure.is_empty();
        let uid = self.sync.metadata.uid.as_deref().filter(|_| is_first && self.lacks_finalizer());
        let Some(uid) = uid else { return Ok(false) };
        let first = First { revision: revision.to_owned(), inventory: inventory.write() };
        let Some(text) = first.write(&self.ctx.keyring, uid) else { return Ok(false) };
        self.add_finalizer(json!({ FIRST_INVENTORY: text })).await?;
        Ok(true)
    }

    /// Removes the annotation if the status has its content. Nothing waits for this removal.
    pub(super) async fn drop_first_inventory(&self, record: &Record) {
        let is_there = self.sync.annotations().contains_key(FIRST_INVENTORY);
        if !is_there || record.status.last_attempted_revision.is_none() {
            return;
        }
        if self.ctx.queues.syncs.is_behind() {
            return self.come_back(Some(Instant::now() + LATER));
        }
        if let Err(error) = self.patch_metadata(json!({"annotations": {FIRST_INVENTORY: null}})).await {
            tracing::debug!(sync = %self.key, %error, "the annotation with the first inventory could not be removed");
            self.come_back(Some(Instant::now() + LATER));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::keys::tests::keyring_of_vectors;

    fn sync(uid: &str, annotation: Option<&str>, status: Value) -> Sync {
        let annotations = annotation.map(|text| json!({ FIRST_INVENTORY: text }));
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "team", "uid": uid, "annotations": annotations},
            "spec": {"repository": {"name": "repo"}, "path": "web"},
            "status": status,
        }))
        .unwrap()
    }

    fn first(count: usize) -> First {
        let entry = |number| InventoryEntry {
            id: format!("team_settings-{number}__ConfigMap"),
            v: "v1".into(),
            ..InventoryEntry::default()
        };
        First { revision: "main@sha1:1".into(), inventory: (0..count).map(entry).collect() }
    }

    #[tokio::test]
    async fn it_counts_for_this_sync_until_the_status_says_what_was_tried() {
        let keyring = keyring_of_vectors().await;
        let text = first(2).write(&keyring, "uid-1").unwrap();
        let read = |sync: &Sync| First::read(&keyring, sync);
        assert_eq!(read(&sync("uid-1", Some(&text), Value::Null)), Some(first(2)));
        // A status with only conditions does not say what was applied, so the annotation is still read.
        let told = json!({"conditions": [], "observedGeneration": 1});
        assert_eq!(read(&sync("uid-1", Some(&text), told)), Some(first(2)));
        let stored = json!({"lastAttemptedRevision": "main@sha1:1"});
        assert_eq!(read(&sync("uid-1", Some(&text), stored)), None, "the status tells more");
        assert_eq!(read(&sync("uid-2", Some(&text), Value::Null)), None, "another Sync of this name");
        assert_eq!(read(&sync("uid-1", None, Value::Null)), None);

        let next = with_status(&keyring, &sync("uid-1", Some(&text), Value::Null)).unwrap();
        assert_eq!((next.last_attempted_revision.as_deref(), next.inventory.len()), (Some("main@sha1:1"), 2));
    }

    #[tokio::test]
    async fn nobody_else_can_make_or_change_one() {
        let keyring = keyring_of_vectors().await;
        let text = first(1).write(&keyring, "uid-1").unwrap();
        let (digest, json) = text.split_once('.').unwrap();
        for forged in [
            text.replace("settings-0", "settings-1"),
            text.replace("sha1:1", "sha1:2"),
            format!("{digest}.{{}}"),
            format!(".{json}"),
            json.to_owned(),
            digest.to_owned(),
            String::new(),
        ] {
            assert_eq!(First::read(&keyring, &sync("uid-1", Some(&forged), Value::Null)), None, "{forged}");
        }
    }

    #[tokio::test]
    async fn a_long_one_goes_into_the_status() {
        let keyring = keyring_of_vectors().await;
        assert!(first(500).write(&keyring, "uid-1").is_some());
        assert_eq!(first(5000).write(&keyring, "uid-1"), None);
    }
}
