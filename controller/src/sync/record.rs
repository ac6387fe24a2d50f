//! What is known of a Sync besides its object: what the next reconcile starts from.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use crds::{ObjectKey, Sync, SyncStatus, conditions, find_condition};
use manifests::{Location, ObjectId};
use pipeline::{Inventory, Resource};
use tokio::time::Instant;

use super::first_inventory;
use crate::{
    cluster::{Api, ApiError},
    keys::Keyring,
    status,
};

/// What is known of one Sync.
#[derive(Default)]
pub struct Record {
    /// UID of the Sync: one that was deleted and made anew is another one.
    pub uid: Option<String>,
    /// The status as the API server has it.
    pub status: Arc<SyncStatus>,
    /// Fields of it whose last write did not succeed: it may be there all the same, or still come.
    pub unsure: BTreeSet<String>,
    /// The status as it should be; [`Record::write`] sends the difference. Where there is none, it is the same one.
    pub next: Arc<SyncStatus>,
    /// The inventory, ahead of the status only while a pass is under way.
    pub inventory: Inventory,
    /// The content that is applied; anything else is work.
    pub content: Option<String>,
    /// The content whose last pass failed: tried again when `retry_at` is reached.
    pub failed_content: Option<String>,
    /// Failures in a row.
    pub failures: u32,
    /// Times in a row that the status could not be written.
    pub unstored: u32,
    /// When the next try is due.
    pub retry_at: Option<Instant>,
    /// Values could not be unsealed: a new sealing key is a reason to try again.
    pub holds: bool,
    /// A prune waits for a confirmation.
    pub prune_waits: bool,
    /// Since when it is let go of everything.
    pub finalizing_since: Option<Instant>,
    /// Since when a prune waits for the folder of another Sync.
    pub prune_delayed_since: Option<Instant>,
    /// Since when objects are on their way to Syncs that may take them.
    pub handing_over_since: Option<Instant>,
    /// Since when objects are expected that other Syncs are going to hand over.
    pub expects_since: Option<Instant>,
    /// What left the folder and stays for a Sync that does not take it now.
    pub left_for: Option<String>,
    /// What left the folder and stays because its file is only hidden.
    pub hidden: Option<String>,
    /// What drifted and is put back after a pause, as the status says it.
    pub put_off: Option<String>,
    /// Objects whose health is awaited.
    pub pending: BTreeMap<ObjectId, Pending>,
    /// When the wait for health began.
    pub pending_since: Option<Instant>,
    /// What was last seen of the Pods of an object that is not healthy.
    pub pods: Option<SeenPods>,
    /// When the folder was last looked at as a whole.
    pub looked_at: Option<Instant>,
    /// Generation of the Sync that the last pass saw.
    pub seen_generation: Option<i64>,
}

/// An object whose health is awaited.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Its kind.
    pub resource: Arc<Resource>,
    /// Where it stands in Git.
    pub origin: Option<Location>,
}

/// What was wrong with the Pods of an object.
#[derive(Clone, Debug)]
pub struct SeenPods {
    /// The object.
    pub of: ObjectId,
    /// When they were looked at.
    pub at: Instant,
    /// What was wrong.
    pub trouble: Option<String>,
}

impl Record {
    /// Starts from what the last process, or the last leader, left in the status, or beside the finalizer.
    pub fn load(keyring: &Keyring, sync: &Sync) -> Result<Self, String> {
        let status = Arc::new(sync.status.clone().unwrap_or_default());
        let next = first_inventory::with_status(keyring, sync).map_or_else(|| status.clone(), Arc::new);
        let inventory = Inventory::read(&next.inventory)?;
        let ready = find_condition(&status.conditions, conditions::READY);
        let is_ready = ready.is_some_and(|ready| ready.status == crds::ConditionStatus::True);
        // Anything but a clean end is looked at again from the start; objects that are as they should be cost nothing.
        let content = status.applied_content.clone().filter(|_| is_ready);
        let seen_generation = status.observed_generation;
        Ok(Self {
            uid: sync.metadata.uid.clone(),
            next,
            status,
            inventory,
            content,
            seen_generation,
            ..Self::default()
        })
    }

    /// Writes what `next` says and the API server does not know yet; no request when there is nothing new.
    pub async fn write(&mut self, api: &Api, key: &ObjectKey) -> Result<(), ApiError> {
        if Arc::ptr_eq(&self.status, &self.next) && self.unsure.is_empty() {
            return Ok(());
        }
        // A copy takes no more room than it needs.
        let (status, next) = (Arc::make_mut(&mut self.status), SyncStatus::clone(&self.next));
        status::write(api, &status::resource_of::<Sync>(), key, status, &mut self.unsure, next).await?;
        self.next = self.status.clone();
        Ok(())
    }
}

/// The records of all Syncs.
#[derive(Default)]
pub struct Records {
    records: Mutex<HashMap<ObjectKey, Arc<tokio::sync::Mutex<Record>>>>,
    doubted: Mutex<HashSet<ObjectKey>>,
}

impl Records {
    /// The record of `key`, if there is one.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<tokio::sync::Mutex<Record>>> {
        self.lock().get(key).cloned()
    }

    /// The record of `key`; `make` makes it at first.
    pub fn get_or_load<E>(
        &self,
        key: &ObjectKey,
        make: impl FnOnce() -> Result<Record, E>,
    ) -> Result<Arc<tokio::sync::Mutex<Record>>, E> {
        if let Some(record) = self.get(key) {
            return Ok(record);
        }
        let record = Arc::new(tokio::sync::Mutex::new(make()?));
        Ok(self.lock().entry(key.clone()).or_insert(record).clone())
    }

    /// What is known of `key` may be wrong: it is compared with the API server before anything is done with it.
    pub fn doubt(&self, key: ObjectKey) {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    /// Whether what is known of `key` may be wrong. Whoever asks has to compare it.
    pub fn take_doubt(&self, key: &ObjectKey) -> bool {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner).remove(key)
    }

    /// The Sync is gone.
    pub fn remove(&self, key: &ObjectKey) -> Option<Arc<tokio::sync::Mutex<Record>>> {
        self.lock().remove(key)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectKey, Arc<tokio::sync::Mutex<Record>>>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{keys::tests::keyring_of_vectors, sync::fake_server::FakeServer};

    const STATUS: &str = "PATCH /apis/gitseal.dev/v1alpha1/namespaces/team/syncs/web/status";

    #[tokio::test]
    async fn a_status_that_is_stored_is_in_memory_once_and_not_written_again() {
        let (server, client) = FakeServer::start().await;
        let key = ObjectKey::new("team", "web");
        let sync = json!({"metadata": {}, "spec": {"repository": {"name": "repo"}, "path": "web"}});
        let mut record = Record::load(&keyring_of_vectors().await, &serde_json::from_value(sync).unwrap()).unwrap();
        let is_shared = |record: &Record| Arc::ptr_eq(&record.status, &record.next);
        assert!(is_shared(&record));

        server.answer(STATUS, 422, json!({"kind": "Status", "status": "Failure", "code": 422}));
        Arc::make_mut(&mut record.next).last_applied_revision = Some("a".into());
        record.write(&client.api, &key).await.unwrap_err();
        assert_eq!(record.status.last_applied_revision, None, "the API server does not have it");

        server.answer(STATUS, 200, json!({"metadata": {"name": "web"}}));
        record.write(&client.api, &key).await.unwrap();
        assert_eq!(record.status.last_applied_revision.as_deref(), Some("a"));
        assert!(is_shared(&record));
        let written = server.bodies(STATUS);
        record.write(&client.api, &key).await.unwrap();
        assert_eq!(server.bodies(STATUS), written);
    }
}
