//! What left Git is deleted; the inventory is narrowed only by what is gone.

use std::collections::BTreeSet;

use crds::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use manifests::ObjectId;
use pipeline::{
    Inventory, Stage, StageError,
    plan::{Plan, Wave},
};

use crate::cluster::{Api, ApiError, Discovery, DiscoveryError, Live};

/// What pruning needs.
pub(super) struct Pruner<'a> {
    /// The API, as the identity that the Sync writes with.
    pub(super) api: &'a Api,
    /// Kinds.
    pub(super) discovery: &'a Discovery,
    /// Live objects.
    pub(super) live: &'a Live,
    /// The Sync.
    pub(super) sync: &'a ObjectKey,
}

/// How pruning one object ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pruned {
    /// It was deleted, or was not there.
    Gone,
    /// It is no longer ours, or asks to be kept.
    LetGo,
    /// Its kind cannot be read now: it stays in the inventory.
    Unreadable,
}

/// Objects that could not be deleted.
#[derive(Debug, thiserror::Error)]
#[error("{id} could not be pruned: {source}{}", if *.more > 0 { format!("; nor could {more} more") } else { String::new() })]
pub(super) struct PruneError {
    id: ObjectId,
    source: ApiError,
    more: usize,
}

impl StageError for PruneError {
    const STAGE: Stage = Stage::Prune;

    fn reason(&self) -> &'static str {
        if self.source.code() == Some(403) { "Forbidden" } else { "PruneFailed" }
    }

    fn is_terminal(&self) -> bool {
        false
    }
}

impl Pruner<'_> {
    /// Deletes those of the objects to prune that can refuse others, before anything is applied: a webhook whose server
    /// is gone refuses the very commit that takes it away. They are out of `plan` then; what could not be deleted is
    /// tried again with the others.
    pub(super) async fn open_gates(&self, plan: &mut Plan) -> Vec<ObjectId> {
        let gates: BTreeSet<_> = plan.prune.iter().filter(|id| Wave::of(id) == Wave::Admission).cloned().collect();
        if gates.is_empty() {
            return Vec::new();
        }
        let pruned = self.prune(&gates, &mut plan.inventory).await;
        plan.prune.retain(|id| plan.inventory.contains(id));
        pruned.unwrap_or_else(|error| {
            tracing::warn!(sync = %self.sync, "{error}; it is tried again when everything else is applied");
            Vec::new()
        })
    }

    /// Deletes `ids`, last wave first, and takes out of `inventory` what is gone. Returns what was deleted.
    pub(super) async fn prune(
        &self,
        ids: &BTreeSet<ObjectId>,
        inventory: &mut Inventory,
    ) -> Result<Vec<ObjectId>, PruneError> {
        let mut ordered: Vec<_> = ids.iter().collect();
        ordered.sort_by_key(|id| std::cmp::Reverse(Wave::of(id)));
        let (mut deleted, mut failed) = (Vec::new(), Vec::new());
        for id in ordered {
            let version = inventory.get(id).map(|record| record.version.clone()).unwrap_or_default();
            match self.one(id, &version, inventory.is_derived(id)).await {
                Ok(Pruned::Gone) => {
                    deleted.push(id.clone());
                    inventory.remove(id);
                    self.live.release(self.sync, id);
                }
                Ok(Pruned::LetGo) => {
                    inventory.remove(id);
                    self.live.release(self.sync, id);
                }
                Ok(Pruned::Unreadable) => {
                    tracing::warn!(sync = %self.sync, object = %id, "its kind is not served now; it stays in the inventory");
                }
                Err(error) => failed.push((id.clone(), error)),
            }
        }
        let more = failed.len().saturating_sub(1);
        match failed.into_iter().next() {
            None => Ok(deleted),
            Some((id, source)) => Err(PruneError { id, source, more }),
        }
    }

    /// Whether the object is there and carries the labels of this Sync.
    pub(super) async fn is_ours(&self, id: &ObjectId, inventory: &Inventory) -> Result<bool, ApiError> {
        let version = inventory.get(id).map(|record| record.version.clone()).unwrap_or_default();
        let resource = match self.discovery.find(&id.group, &version, &id.kind).await {
            Ok(resource) => resource,
            Err(DiscoveryError::UnknownKind { .. }) => return Ok(true),
            Err(DiscoveryError::Request { source, .. }) => return Err(source),
        };
        match self.api.get_metadata(&resource, id.namespace.as_deref(), &id.name).await {
            Ok(meta) => Ok(carries_labels_of(&meta, self.sync)),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn one(&self, id: &ObjectId, version: &str, is_derived: bool) -> Result<Pruned, ApiError> {
        let resource = match self.discovery.find(&id.group, version, &id.kind).await {
            Ok(resource) => resource,
            Err(DiscoveryError::UnknownKind { .. }) => return Ok(Pruned::Unreadable),
            Err(DiscoveryError::Request { source, .. }) => return Err(source),
        };
        let namespace = id.namespace.as_deref();
        let meta = match self.api.get_metadata(&resource, namespace, &id.name).await {
            Ok(meta) => meta,
            Err(error) if is_gone(&error) => return Ok(Pruned::Gone),
            Err(error) if error.is_not_found() => {
                self.discovery.forget(&id.group);
                return Ok(Pruned::Unreadable);
            }
            Err(error) => return Err(error),
        };
        let ours = carries_labels_of(&meta, self.sync);
        let annotation = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key));
        let kept = annotation(crds::names::PRUNE);
        if !ours || kept.is_some_and(|value| value == "disabled") {
            return Ok(Pruned::LetGo);
        }
        let is_unsealed =
            is_derived || annotation(crds::names::SEALED_DIGEST).is_some() || annotation(crds::names::PATCH).is_some();
        let has_owner = meta.owner_references.iter().flatten().next().is_some();
        if id.is_secret() && is_unsealed && !has_owner {
            // Without an owner it was unsealed to outlive its SealedSecret, or to be merged into somebody's Secret.
            return Ok(Pruned::LetGo);
        }
        let writing = self.live.begin(id);
        match self.api.delete(&resource, namespace, &id.name, meta.uid.as_deref()).await {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        writing.deleted();
        if id.kind == "CustomResourceDefinition" && id.group == "apiextensions.k8s.io" {
            self.forget_kind(&id.name);
        }
        Ok(Pruned::Gone)
    }

    /// `name` of a CustomResourceDefinition is `plural.group`.
    fn forget_kind(&self, name: &str) {
        if let Some((plural, group)) = name.split_once('.') {
            self.discovery.forget(group);
            self.live.forget_kind(group, plural);
        }
    }
}

fn carries_labels_of(meta: &ObjectMeta, sync: &ObjectKey) -> bool {
    let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key));
    label(crds::names::SYNC_NAME) == Some(&sync.name) && label(crds::names::SYNC_NAMESPACE) == Some(&sync.namespace)
}

/// The API server knows the kind and has no such object. Of a kind or version that it does not serve it says "404" too,
/// but without a reason: that says nothing about the object.
fn is_gone(error: &ApiError) -> bool {
    matches!(error, ApiError::Refused { code: 404, reason, .. } if reason == "NotFound")
}

#[cfg(test)]
mod tests;
