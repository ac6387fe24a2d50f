//! Deletes objects that left Git, from the last wave to the first, and the objects of a wave concurrently. An object is
//! removed from the inventory only after its deletion was accepted. The prune does not wait for finalizers of others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::{ObjectKey, conditions};
use futures::{StreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use manifests::ObjectId;
use pipeline::{
    Inventory, Resource, SecretFacts, Stage, StageError,
    plan::{Plan, Tier, Wave},
    prune::{is_of, made_by, verdict},
};

use serde_json::Value;

use super::{account::FORBIDDEN, apply::WRITES_OF_ONE, hand_over::WAITS_FOR, on_delete};
use crate::{
    cluster::{Api, ApiError, Discovery, DiscoveryError, Live},
    fair::{Asker, Places},
    keys::Keyring,
};

/// How many times the deletion of one object is tried if somebody writes to the object each time. After that, it is
/// left to the next prune.
const READS: usize = 5;

/// Prunes objects of one Sync.
pub(super) struct Pruner<'a> {
    /// The API, with the rights of the Sync's identity.
    pub(super) api: &'a Api,
    /// The kinds that are served.
    pub(super) discovery: &'a Discovery,
    /// The index of live objects.
    pub(super) live: &'a Live,
    /// The Sync whose objects are pruned.
    pub(super) sync: &'a ObjectKey,
    /// The turns to write.
    pub(super) writes: &'a Places,
    /// The sealing keys, to recognise the controller's own Secrets.
    pub(super) keyring: &'a Keyring,
}

/// The result for one object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pruned {
    /// The object was deleted, or did not exist.
    Gone,
    /// The object stays: it no longer belongs to the Sync, has the annotation that keeps it, or is one of the
    /// controller's own Secrets.
    LetGo,
    /// The kind of the object cannot be read now, so the object stays in the inventory.
    Unreadable,
    /// The object is a Sync that prunes its own objects first. It stays in the inventory until it is gone.
    Going,
}

/// Why not everything was pruned.
#[derive(Debug, thiserror::Error)]
pub(super) enum PruneError {
    /// At least one object could not be deleted.
    #[error(
        "{id} could not be pruned: {source}{}{}",
        if *.more > 0 { format!("; and {more} more could not be pruned either") } else { String::new() },
        remedy(id, source)
    )]
    Failed {
        /// The first object that could not be deleted.
        id: ObjectId,
        /// Why it could not be deleted.
        source: ApiError,
        /// How many more objects could not be deleted.
        more: usize,
        /// Whether another try may help for any of these objects.
        transient: bool,
    },
    /// One of the objects is a Sync, which prunes its own objects first. Objects that it may need for this are pruned
    /// only after that Sync is gone.
    #[error(
        "{0} is being deleted and first prunes its own objects; the objects of earlier waves are deleted when it is \
         gone"
    )]
    Waits(ObjectId),
}

/// What to do about an object that the identity may not delete.
fn remedy(id: &ObjectId, error: &ApiError) -> String {
    if error.code() != Some(403) {
        return String::new();
    }
    let keep = format!("keep it with the annotation {}: disabled", crds::names::PRUNE);
    // The message about a Secret already names the missing right. If a policy refused the deletion, no right is
    // missing.
    if id.is_secret() || error.to_string().contains("denied the request") {
        return format!("; or {keep}");
    }
    format!("; give the service account that the Sync uses the right to delete it, or {keep}")
}

impl PruneError {
    /// Whether another try may succeed although nobody changes anything.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Failed { transient, .. } => *transient,
            Self::Waits(_) => true,
        }
    }
}

impl StageError for PruneError {
    const STAGE: Stage = Stage::Prune;

    fn reason(&self) -> &'static str {
        match self {
            Self::Failed { source, .. } if source.code() == Some(403) => FORBIDDEN,
            Self::Failed { .. } => "PruneFailed",
            Self::Waits(_) => "PruneWaitsForSync",
        }
    }

    fn is_terminal(&self) -> bool {
        false
    }

    fn waits(&self) -> bool {
        matches!(self, Self::Waits(_))
    }
}

impl Pruner<'_> {
    /// Deletes webhooks and admission policies that left Git, before anything is applied. This order is needed because
    /// a webhook whose server is gone would refuse the objects of the commit that removes the webhook. Objects that
    /// were deleted are removed from `plan`. If objects could not be deleted, this is tried again when the other
    /// objects are pruned.
    pub(super) async fn open_gates(&self, plan: &mut Plan, deleted: &mut Vec<ObjectId>) {
        let gates: BTreeSet<_> = plan.prune.iter().filter(|id| Tier::of(id) == Tier::Admission).cloned().collect();
        if gates.is_empty() {
            return;
        }
        let pruned = self.prune(&gates, &mut plan.inventory, deleted).await;
        plan.prune.retain(|id| plan.inventory.contains(id));
        if let Err(error) = pruned {
            tracing::warn!(sync = %self.sync, "{error}; the deletion is tried again when everything else is applied");
        }
    }

    /// Deletes `ids`, the last wave first, and removes from `inventory` the objects that no longer exist. The deleted
    /// objects are added to `deleted`, even if there is an error.
    pub(super) async fn prune(
        &self,
        ids: &BTreeSet<ObjectId>,
        inventory: &mut Inventory,
        deleted: &mut Vec<ObjectId>,
    ) -> Result<(), PruneError> {
        let mut waves: BTreeMap<Wave, Vec<&ObjectId>> = BTreeMap::new();
        for id in ids {
            if inventory.is_skipped(id) {
                inventory.remove(id);
                self.live.release(self.sync, id);
                continue;
            }
            waves.entry(inventory.wave_of(id)).or_default().push(id);
        }
        let (mut failed, mut going) = (Vec::new(), None);
        for (_, ids) in waves.into_iter().rev() {
            let reads: Vec<_> = ids
                .into_iter()
                .map(|id| {
                    let version = inventory.get(id).map(|record| record.version.clone()).unwrap_or_default();
                    (id.clone(), version, inventory.is_derived(id))
                })
                .collect();
            let mut results = stream::iter(reads)
                .map(|(id, version, is_derived)| async move {
                    let _place = self.writes.take(Asker::Namespace(&self.sync.namespace)).await;
                    let pruned = self.one(&id, &version, is_derived).await;
                    (id, pruned)
                })
                .buffer_unordered(WRITES_OF_ONE);
            while let Some((id, result)) = results.next().await {
                match result {
                    Ok(Pruned::Gone) => {
                        inventory.remove(&id);
                        self.live.release(self.sync, &id);
                        deleted.push(id);
                    }
                    Ok(Pruned::LetGo) => {
                        inventory.remove(&id);
                        self.live.release(self.sync, &id);
                    }
                    Ok(Pruned::Unreadable) => {
                        tracing::warn!(sync = %self.sync, object = %id, "the API server does not serve the kind of the object in any version now; the object stays in the inventory");
                    }
                    Ok(Pruned::Going) => going = Some(id),
                    Err(error) => failed.push((id, error)),
                }
            }
            if going.is_some() {
                break;
            }
        }
        failed.sort_by(|(a, _), (b, _)| a.cmp(b));
        let (more, transient) = (failed.len().saturating_sub(1), failed.iter().any(|(_, error)| error.is_transient()));
        match (failed.into_iter().next(), going) {
            (Some((id, source)), _) => Err(PruneError::Failed { id, source, more, transient }),
            (None, Some(id)) => Err(PruneError::Waits(id)),
            (None, None) => Ok(()),
        }
    }

    /// Whether the object exists and its labels say that it belongs to this Sync.
    pub(super) async fn is_ours(&self, id: &ObjectId, inventory: &Inventory) -> Result<bool, ApiError> {
        let version = inventory.get(id).map(|record| record.version.clone()).unwrap_or_default();
        let resource = match self.discovery.find_in_any_version(&id.group, &version, &id.kind).await {
            Ok(resource) => resource,
            Err(DiscoveryError::UnknownKind { .. }) => return Ok(true),
            Err(DiscoveryError::Request { source, .. }) => return Err(source),
        };
        match self.api.get_metadata(&resource, id.namespace.as_deref(), &id.name).await {
            Ok(meta) => Ok(is_of(self.sync, id, &meta, self.sealed(id, &meta).await?.as_ref())),
            Err(error) if error.is_gone() || self.is_not_to_be_seen(id, &error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The metadata of the SealedSecret that owns the object, if the object is a Secret with such an owner and the
    /// SealedSecret exists.
    async fn sealed(&self, id: &ObjectId, meta: &ObjectMeta) -> Result<Option<ObjectMeta>, ApiError> {
        if made_by(id, meta).is_none() {
            return Ok(None);
        }
        match self.api.get_metadata(&Resource::sealed_secrets(), id.namespace.as_deref(), &id.name).await {
            Ok(sealed) => Ok(Some(sealed)),
            Err(error) if error.is_not_found() || self.is_not_to_be_seen(&id.sealed_secret(), &error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the identity may not even read the object, and the watches show that the object does not belong to this
    /// Sync. Such an object never belonged to the Sync, or the Sync has lost its rights to it.
    fn is_not_to_be_seen(&self, id: &ObjectId, error: &ApiError) -> bool {
        error.code() == Some(403) && self.live.is_seen_not_to_be_of(self.sync, id)
    }

    /// Reads the object and deletes it, if it did not change between the two requests. If somebody wrote to the object,
    /// it may have been handed over or may have the annotation that keeps it, so it is read again.
    async fn one(&self, id: &ObjectId, version: &str, is_derived: bool) -> Result<Pruned, ApiError> {
        for _ in 0..READS {
            match self.look_and_delete(id, version, is_derived).await {
                Err(error) if error.is_conflict() => {}
                result => return result,
            }
        }
        Err(ApiError::Busy)
    }

    async fn look_and_delete(&self, id: &ObjectId, version: &str, is_derived: bool) -> Result<Pruned, ApiError> {
        let resource = match self.discovery.find_in_any_version(&id.group, version, &id.kind).await {
            Ok(resource) => resource,
            Err(DiscoveryError::UnknownKind { .. }) => return Ok(Pruned::Unreadable),
            Err(DiscoveryError::Request { source, .. }) => return Err(source),
        };
        let namespace = id.namespace.as_deref();
        let meta = match self.api.get_metadata(&resource, namespace, &id.name).await {
            Ok(meta) => meta,
            Err(error) if error.is_gone() => return Ok(Pruned::Gone),
            Err(error) if self.is_not_to_be_seen(id, &error) => return Ok(Pruned::LetGo),
            Err(error) if error.is_not_found() => {
                self.discovery.forget(&id.group);
                return Ok(Pruned::Unreadable);
            }
            Err(error) => return Err(error),
        };
        if self.keyring.has_as_its_own(id, SecretFacts::of(&meta).is_sealing_key) {
            tracing::warn!(sync = %self.sync, object = %id, "the object is one of the controller's own Secrets, and is not pruned");
            return Ok(Pruned::LetGo);
        }
        let sealed = self.sealed(id, &meta).await?;
        if verdict(self.sync, id, &meta, is_derived, sealed.as_ref()).is_err() {
            return Ok(Pruned::LetGo);
        }
        let writing = self.live.begin(id);
        match self.api.delete(&resource, namespace, &id.name, &meta).await {
            Ok(()) => {}
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
        if is_pruning(id, &meta) && (is_new(&meta) || self.has_hooks(&resource, id).await?) {
            return Ok(Pruned::Going);
        }
        writing.deleted();
        if id.kind == "CustomResourceDefinition" && id.group == "apiextensions.k8s.io" {
            self.forget_kind(&id.name);
        }
        Ok(Pruned::Gone)
    }

    /// Whether the Sync, which is being deleted, waits for its hooks, or one of them failed.
    async fn has_hooks(&self, resource: &Resource, id: &ObjectId) -> Result<bool, ApiError> {
        let sync = match self.api.get(resource, id.namespace.as_deref(), &id.name).await {
            Err(error) if error.is_not_found() => return Ok(false),
            found => found?,
        };
        let conditions = sync.pointer("/status/conditions").and_then(Value::as_array);
        Ok(conditions.into_iter().flatten().any(|condition| {
            let has = |field: &str, values: &[&str]| condition[field].as_str().is_some_and(|is| values.contains(&is));
            has("type", &[conditions::READY]) && has("reason", &[on_delete::RUNNING, on_delete::FAILED])
        }))
    }

    /// Ends the watch of a kind whose CustomResourceDefinition was deleted; `name` is `plural.group`.
    fn forget_kind(&self, name: &str) {
        if let Some((plural, group)) = name.split_once('.') {
            self.discovery.forget(group);
            self.live.forget_kind(group, plural);
        }
    }
}

/// Whether the object is a Sync that prunes its own objects before it is deleted. To prune them, the Sync needs its
/// service account, the rights of this account, and its namespace, so these are pruned only after the Sync.
fn is_pruning(id: &ObjectId, meta: &ObjectMeta) -> bool {
    let is_sync = id.group == "gitseal.dev" && id.kind == "Sync";
    let holds = meta.finalizers.iter().flatten().any(|finalizer| finalizer == crds::names::FINALIZER);
    is_sync && holds
}

/// Whether the deletion of the object began a short time ago. A prune does not wait longer for a Sync that has no hooks for its
/// deletion, because this Sync may itself wait for something that is pruned next.
fn is_new(meta: &ObjectMeta) -> bool {
    let since = meta.deletion_timestamp.as_ref().map(|time| jiff::Timestamp::now().duration_since(time.0));
    since.and_then(|since| Duration::try_from(since).ok()).unwrap_or_default() < WAITS_FOR
}

#[cfg(test)]
mod tests;
