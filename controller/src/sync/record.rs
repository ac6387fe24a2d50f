//! The data that the controller keeps in memory for each Sync, and that the next reconcile begins with.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use crds::{Deletion, HealthCheck, ObjectKey, Sync, SyncStatus, conditions, find_condition};
use manifests::{Location, ObjectId};
use pipeline::{
    Inventory, Resource,
    plan::{Barrier, runs_once},
};
use tokio::time::Instant;

use super::{dependencies::LastRead, finished::is_any_due, first_inventory, report::Counts, requests::Requests};
use crate::{
    cluster::{Api, ApiError},
    keys::Keyring,
    status,
};

/// The data that the controller keeps in memory for one Sync.
#[derive(Default)]
pub struct Record {
    /// UID of the Sync. A Sync that was deleted and created again has another UID.
    pub uid: Option<String>,
    /// The status as the API server has it.
    pub status: Arc<SyncStatus>,
    /// Fields of the status whose last write failed. The API server may have stored these fields nevertheless, or may
    /// still store them.
    pub unsure: BTreeSet<String>,
    /// The status as it should be. [`Record::write`] sends the difference to `status`. If there is no difference,
    /// `next` and `status` share the same value.
    pub next: Arc<SyncStatus>,
    /// The inventory. It differs from the inventory in the status only during a pass.
    pub inventory: Inventory,
    /// The content that was applied, completely or up to the waves that wait for health. Any other content has to be
    /// applied.
    pub content: Option<String>,
    /// The content whose last pass failed. It is tried again at `retry_at`.
    pub failed_content: Option<String>,
    /// Number of failures in a row.
    pub failures: u32,
    /// How many passes in a row were given up, because there was something newer to apply.
    pub given_up: u32,
    /// How many times in a row the status could not be written.
    pub unstored: u32,
    /// When the next try is due.
    pub retry_at: Option<Instant>,
    /// Whether values could not be unsealed, so that a new sealing key is a reason to try again.
    pub holds: bool,
    /// When the deletion of the Sync began.
    pub finalizing_since: Option<Instant>,
    /// When a prune began to wait because it is not known what another Sync wants.
    pub prune_delayed_since: Option<Instant>,
    /// When the Sync began to wait for Syncs that take over its objects.
    pub handing_over_since: Option<Instant>,
    /// When the Sync began to wait for objects that other Syncs are going to hand over.
    pub expects_since: Option<Instant>,
    /// The text about objects that left the folder and stay in the cluster, because another Sync has them in its folder
    /// and does not take them over now.
    pub left_for: Option<String>,
    /// The text about objects that left the folder and stay in the cluster, because their file was not deleted, but is
    /// now a hidden file, such as `.db.yaml`.
    pub hidden: Option<String>,
    /// The text in the status about objects that drifted and are put back after a pause.
    pub put_off: Option<String>,
    /// The text in the status about an input that changes after every render.
    pub unsettled: Option<String>,
    /// Objects whose health is awaited.
    pub pending: BTreeMap<ObjectId, Pending>,
    /// Which of the other applied objects are known to be healthy. The next pass checks the rest.
    pub healthy: Healthy,
    /// What the later waves wait for. When everything that they wait for is healthy, the next pass applies them.
    pub barrier: Option<Barrier>,
    /// What the earlier passes did for the same content, if it is applied in several passes because waves wait.
    pub done: Counts,
    /// When the wait for health began.
    pub pending_since: Option<Instant>,
    /// The generation of the Sync whose expressions are known to be correct.
    pub checked_generation: Option<i64>,
    /// The `healthChecks` with which the health of the Sync's objects was last determined.
    pub health_checks: Vec<HealthCheck>,
    /// The last answer about an object of `spec.dependsOn` that the Sync waits for.
    pub last_read: Option<LastRead>,
    /// The last known problem of the Pods of an object that is not healthy.
    pub pods: Option<SeenPods>,
    /// The last request that ended the pauses of the Sync: see [`Requests`].
    pub requests: Requests,
    /// When the whole folder was last compared with the cluster.
    pub compared_at: Option<Instant>,
    /// Generation of the Sync that the last pass saw.
    pub seen_generation: Option<i64>,
}

/// Which of the applied objects that are not awaited are known to be healthy.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Healthy {
    /// None of them.
    #[default]
    None,
    /// Those that a Sync waits for even with `wait: false`, such as hooks.
    AlwaysAwaited,
    /// All of them.
    All,
}

/// An object whose health is awaited.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The kind of the object.
    pub resource: Arc<Resource>,
    /// Where the object is in Git, if this is known.
    pub origin: Option<Location>,
    /// Whether the Sync waits for the object even with `wait: false`.
    pub is_always_awaited: bool,
    /// Whether the object is deleted when it has failed.
    pub deleted_when_failed: bool,
}

/// What a read showed about the Pods of an object.
#[derive(Clone, Debug)]
pub struct SeenPods {
    /// The object.
    pub of: ObjectId,
    /// When the Pods were read.
    pub at: Instant,
    /// Whether the object had failed then.
    pub failed: bool,
    /// The text about a problem of the Pods, if there is one.
    pub trouble: Option<String>,
}

impl Record {
    /// Makes the record from the status of the Sync, or from its annotation with the first inventory, as the last
    /// process or the last leader left them.
    pub fn load(keyring: &Keyring, sync: &Sync) -> Result<Self, String> {
        let status = Arc::new(sync.status.clone().unwrap_or_default());
        let next = first_inventory::with_status(keyring, sync).map_or_else(|| status.clone(), Arc::new);
        let inventory = Inventory::read(&next.inventory)?;
        let ready = find_condition(&status.conditions, conditions::READY);
        let is_ready = ready.is_some_and(|ready| ready.status == crds::ConditionStatus::True);
        // If the last pass did not end well, everything is compared again. Objects that are as in Git are not written
        // again.
        let content = status.applied_content.clone().filter(|_| is_ready);
        let seen_generation = status.observed_generation;
        // Older versions did not wait for what is deleted when it is healthy, if the Sync had `wait: false`.
        let is_left = is_any_due(&inventory);
        let healthy = match is_ready && !is_left {
            false => Healthy::None,
            true if sync.spec.waits_for_health() => Healthy::All,
            true => Healthy::AlwaysAwaited,
        };
        Ok(Self {
            uid: sync.metadata.uid.clone(),
            next,
            status,
            inventory,
            content,
            healthy,
            seen_generation,
            // If the Sync was edited after the last pass, the health of all objects is determined again.
            health_checks: if seen_generation == sync.metadata.generation {
                sync.spec.health_checks.clone()
            } else {
                Vec::new()
            },
            ..Self::default()
        })
    }

    /// Whether this content was applied completely, with all its waves.
    pub(super) fn has_applied(&self, content: &str) -> bool {
        self.content.as_deref() == Some(content) && self.barrier.is_none()
    }

    /// Whether later waves wait for objects whose health is awaited.
    pub(super) fn next_wave_waits(&self) -> bool {
        self.barrier.as_ref().is_some_and(|barrier| !barrier.awaited.is_empty())
    }

    /// Records that `id` is healthy.
    pub(super) fn became_healthy(&mut self, id: &ObjectId) {
        self.pending.remove(id);
        self.inventory.set_failed(id, None);
        if let Some(barrier) = &mut self.barrier {
            barrier.awaited.remove(id);
        }
    }

    /// Records that the object has failed. A Job that failed and was then deleted by Kubernetes (`is_gone`) is made again in the same
    /// cases as an object that gitseal deleted because it failed.
    pub(super) fn has_become_failed(&mut self, id: &ObjectId, why: &str, is_gone: bool) {
        if runs_once(id) {
            self.inventory.set_failed(id, Some(why));
        }
        if is_gone {
            self.inventory.set_deletion(id, Some(Deletion::Failed));
        }
    }

    /// Forgets the objects that failed and were deleted, so that they are made again.
    pub(super) fn run_failed_again(&mut self) {
        let failed = self.inventory.iter().map(|(id, _)| id).filter(|id| self.inventory.has_failed(id));
        for id in failed.cloned().collect::<Vec<_>>() {
            self.inventory.remove(&id);
            self.pending.remove(&id);
        }
    }

    /// Whether an object failed and was deleted.
    pub(super) fn has_failed(&self) -> bool {
        self.inventory.iter().any(|(id, _)| self.inventory.has_failed(id))
    }

    /// Writes the fields of `next` that the API server does not have yet. Makes no request if there are no such fields.
    pub async fn write(&mut self, api: &Api, key: &ObjectKey) -> Result<(), ApiError> {
        if Arc::ptr_eq(&self.status, &self.next) && self.unsure.is_empty() {
            return Ok(());
        }
        // `next` is cloned and not moved, because a clone takes only as much memory as its content needs.
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

    /// The record of `key`. If there is none, `make` makes it.
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

    /// Marks the record of `key` as possibly wrong, so that it is compared with the API server before it is used.
    pub fn doubt(&self, key: ObjectKey) {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    /// Whether the record of `key` was marked as possibly wrong. Removes the mark, so the caller must compare the
    /// record with the API server.
    pub fn take_doubt(&self, key: &ObjectKey) -> bool {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner).remove(key)
    }

    /// Removes the record of a Sync that no longer exists.
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
