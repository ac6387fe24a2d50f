//! Deletes a Sync: its objects are pruned first.
//!
//! There are two exceptions. If the kind Sync itself is deleted, gitseal is being removed, and nothing is pruned. If
//! the namespace of the Sync is deleted, Kubernetes deletes the objects in this namespace, and the rights to prune
//! objects in other namespaces may have been deleted already. A Sync must not keep a namespace from being deleted, so
//! objects that cannot be pruned stay, and an event names them.

use std::{borrow::Cow, collections::BTreeSet};

use crds::{ObjectKey, Sync};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::ResourceExt;
use manifests::ObjectId;
use pipeline::{Failure, Resource, Stage, StageError, prune::asks_to_be_kept};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{FIRST_RETRY, Pass, Record, carry_out::Outcome, hand_over::WAITS_FOR, prune::Pruner};
use crate::{
    backoff,
    cluster::ApiError,
    context::Context,
    events::EventType,
    passes,
    status::{Progress, reference, resource_of},
};

const LONGEST_RETRY: std::time::Duration = std::time::Duration::from_secs(60);

/// If objects stay, an event names at most this number of them.
const NAMED: usize = 5;
/// How often the write of the finalizer is tried if others write at the same time.
const FINALIZER_TRIES: u32 = 4;

/// What else is being deleted together with a Sync.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum GoesWith {
    /// Nothing.
    Nothing,
    /// The namespace of the Sync.
    Namespace,
    /// The kind Sync, with all Syncs.
    Kind,
}

/// The API server did not say what else is being deleted together with the Sync.
#[derive(Debug, thiserror::Error)]
#[error(
    "nothing is pruned yet, because the API server did not say whether the namespace or the kind Sync is being \
     deleted: {0}"
)]
pub(super) struct GoesWithError(#[from] pub(super) ApiError);

impl StageError for GoesWithError {
    const STAGE: Stage = Stage::Prune;

    fn reason(&self) -> &'static str {
        "PruneFailed"
    }

    fn is_terminal(&self) -> bool {
        false
    }
}

/// Why not all objects were pruned or handed over.
pub(super) struct NotAll {
    failure: Failure,
    /// Whether another try may help.
    transient: bool,
}

impl From<Failure> for NotAll {
    fn from(failure: Failure) -> Self {
        Self { failure, transient: true }
    }
}

impl Pass<'_> {
    /// Whether the finalizer still has to be added to the Sync. This must be done before the first object is applied:
    /// without the finalizer, a deleted Sync would leave its objects behind.
    pub(super) fn lacks_finalizer(&self) -> bool {
        !keeps_its_objects(self.sync) && !has_finalizer(self.sync.finalizers())
    }

    /// Adds the finalizer and these annotations in one write. If somebody else wrote to the Sync in the meantime, the
    /// Sync is read again, and the write is tried again a few times.
    pub(super) async fn add_finalizer(&self, annotations: Value) -> Result<(), ApiError> {
        let (resource, key) = (resource_of::<Sync>(), self.key);
        let mut seen = Cow::Borrowed(&self.sync.metadata);
        for tries_left in (0..FINALIZER_TRIES).rev() {
            let mut finalizers = seen.finalizers.clone().unwrap_or_default();
            finalizers.push(crds::names::FINALIZER.to_owned());
            let mut metadata = json!({"finalizers": finalizers, "resourceVersion": seen.resource_version});
            if annotations.is_object() {
                metadata["annotations"].clone_from(&annotations);
            }
            match self.patch_metadata(metadata).await {
                Err(error) if error.is_conflict() && tries_left > 0 => {}
                result => return result,
            }
            seen = Cow::Owned(self.ctx.api.get_metadata(&resource, Some(&key.namespace), &key.name).await?);
            if seen.uid != self.sync.metadata.uid || has_finalizer(seen.finalizers.as_deref().unwrap_or_default()) {
                break;
            }
        }
        // The watch will show the Sync's current state, and the Sync will be reconciled again.
        Err(ApiError::Answer("the Sync was changed meanwhile".into()))
    }

    /// Prunes all objects of the Sync, then removes the finalizer.
    pub(super) async fn finalize(&self, record: &mut Record) {
        let Self { ctx, sync, key, .. } = *self;
        if !has_finalizer(sync.finalizers()) {
            return;
        }
        if sync.spec.prune && !sync.spec.suspend && !keeps_its_objects(sync) {
            let _timer = self.begin(Stage::Prune);
            if let Err(failure) = self.end(record).await {
                record.failures += 1;
                if failure.waits {
                    self.state(record, Progress::Working, failure.reason, &failure.message).await;
                } else {
                    self.failure(record, None, &failure, &Outcome::default()).await;
                }
                let pause = match passes::unanswered_so_far() {
                    0 => backoff::pause(record.failures, FIRST_RETRY, LONGEST_RETRY),
                    _ => backoff::outage(record.failures),
                };
                ctx.queues.syncs.add_after(key.clone(), pause);
                return;
            }
        }
        let others: Vec<_> =
            sync.finalizers().iter().filter(|finalizer| *finalizer != crds::names::FINALIZER).cloned().collect();
        let metadata = json!({"finalizers": others, "resourceVersion": sync.metadata.resource_version});
        match self.patch_metadata(metadata).await {
            Ok(()) => tracing::info!(sync = %key, "deleted"),
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                tracing::warn!(sync = %key, %error, "the finalizer could not be removed");
                ctx.queues.syncs.add_after(key.clone(), FIRST_RETRY);
            }
        }
    }

    /// Prunes the objects that are to be deleted with the Sync.
    async fn end(&self, record: &mut Record) -> Result<(), Failure> {
        let Self { ctx, sync, key, .. } = *self;
        let goes_with = self.goes_with().await?;
        if goes_with == GoesWith::Kind {
            let note = format!(
                "the kind Sync is being deleted, and all Syncs with it; nothing is pruned: {} stay in the cluster",
                named(record)
            );
            tracing::warn!(sync = %key, "{note}");
            ctx.events.publish(&reference(sync), EventType::Warning, "NotPruned", note);
            return Ok(());
        }
        if goes_with == GoesWith::Namespace {
            let is_within = |id: &&ObjectId| match &id.namespace {
                Some(namespace) => *namespace == key.namespace,
                None => id.group.is_empty() && id.kind == "Namespace" && id.name == key.namespace,
            };
            let within: Vec<_> = record.inventory.iter().map(|(id, _)| id).filter(is_within).cloned().collect();
            for id in within {
                record.inventory.remove(&id);
                ctx.cluster.live.release(key, &id);
            }
        }
        let api = self.identity();
        if record.finalizing_since.is_none() {
            self.begin_deletion(record);
        }
        let began = *record.finalizing_since.get_or_insert_with(Instant::now);
        // In a namespace that is being deleted, nothing can be made.
        let has_hooks = goes_with == GoesWith::Nothing && self.has_hooks_on_delete(record);
        let pruner = self.pruner(&api);
        let result = if has_hooks {
            self.let_go_with_hooks(&pruner, record).await
        } else {
            self.let_go_of_all(&pruner, record).await
        };
        match result {
            Ok(()) => {
                if !record.inventory.is_empty() {
                    let note = format!(
                        "could not prune {}, because their kinds are not served now; if their \
                         CustomResourceDefinition was deleted, they were deleted with it",
                        named(record)
                    );
                    tracing::warn!(sync = %key, "{note}");
                    ctx.events.publish(&reference(sync), EventType::Warning, "NotPruned", note);
                }
                Ok(())
            }
            Err(NotAll { failure, transient }) => {
                if goes_with != GoesWith::Namespace || transient && began.elapsed() < WAITS_FOR {
                    return Err(failure);
                }
                self.leave(record, &failure);
                Ok(())
            }
        }
    }

    /// Reports the objects that stay, because the deletion of the namespace must not wait for them. In a namespace that
    /// is being deleted, no event can be created, so the event is about the Namespace itself.
    fn leave(&self, record: &Record, failure: &Failure) {
        let Self { ctx, key, .. } = *self;
        let note = format!(
            "Sync {key} is deleted with its namespace and could not prune {}, which stay in the cluster; delete those \
             that you do not want ({}={}, {}={}): {}",
            named(record),
            crds::names::SYNC_NAMESPACE,
            key.namespace,
            crds::names::SYNC_NAME,
            key.name,
            failure.message
        );
        tracing::warn!(sync = %key, "{note}");
        let namespace = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Namespace".into()),
            name: Some(key.namespace.clone()),
            ..ObjectReference::default()
        };
        ctx.events.publish(&namespace, EventType::Warning, "NotPruned", note);
    }

    /// Finds out what else is being deleted together with the Sync. The controller asks with its own rights. If it may
    /// not ask, it logs this, and the result is [`GoesWith::Nothing`].
    async fn goes_with(&self) -> Result<GoesWith, GoesWithError> {
        let Self { ctx, key, .. } = *self;
        let of_sync = resource_of::<Sync>();
        let kind = cluster_wide("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions");
        let name = format!("{}.{}", of_sync.plural, of_sync.group);
        if is_going(ctx.api.get_metadata(&kind, None, &name).await)? {
            return Ok(GoesWith::Kind);
        }
        let namespaces = cluster_wide("", "Namespace", "namespaces");
        let goes = is_going(ctx.api.get_metadata(&namespaces, None, &key.namespace).await)?;
        Ok(if goes { GoesWith::Namespace } else { GoesWith::Nothing })
    }

    /// Hands objects over to the Syncs that want them, and deletes the other objects.
    pub(super) async fn let_go_of_all(&self, pruner: &Pruner<'_>, record: &mut Record) -> Result<(), NotAll> {
        let mut all: BTreeSet<_> = record.inventory.iter().map(|(id, _)| id.clone()).collect();
        let wanted = self.wanted_by_others(&all, &record.inventory, None).await;
        all.retain(|id| !wanted.by.contains_key(id));
        if let Some(delay) = wanted.delay(&mut record.prune_delayed_since).filter(|_| !all.is_empty()) {
            return Err(delay.into());
        }
        let pruned = pruner.prune(&all, &mut record.inventory, &mut Vec::new()).await;
        let began = *record.finalizing_since.get_or_insert_with(Instant::now);
        match self.hand_over(pruner, &wanted.by, &mut record.inventory).await.failure() {
            // After this time, the objects stay as they are. The Syncs that want these objects take them when they can.
            Some(failure) if began.elapsed() > WAITS_FOR => {
                tracing::warn!(sync = %self.key, "{}; no Sync took it in time, so it stays as it is", failure.message);
            }
            Some(failure) => return Err(failure.into()),
            None => {}
        }
        pruned.map_err(|error| NotAll { transient: error.is_transient(), failure: error.into() })
    }

    /// Merges `metadata` into the metadata of the Sync.
    pub(super) async fn patch_metadata(&self, metadata: Value) -> Result<(), ApiError> {
        let (resource, key) = (resource_of::<Sync>(), self.key);
        let patch = json!({ "metadata": metadata });
        self.ctx.api.merge(&resource, Some(&key.namespace), &key.name, None, &patch).await.map(|_| ())
    }
}

fn has_finalizer(finalizers: &[String]) -> bool {
    finalizers.iter().any(|finalizer| finalizer == crds::names::FINALIZER)
}

/// Whether the annotation of the Sync says that its objects stay when it is deleted. Such a Sync needs no finalizer.
fn keeps_its_objects(sync: &Sync) -> bool {
    asks_to_be_kept(&sync.metadata)
}

/// Whether an object is being deleted, or no longer exists.
fn is_going(found: Result<ObjectMeta, ApiError>) -> Result<bool, ApiError> {
    match found {
        Ok(meta) => Ok(meta.deletion_timestamp.is_some()),
        Err(error) if error.is_not_found() => Ok(true),
        Err(error) if error.code() == Some(403) => {
            tracing::warn!(%error, "the API server did not say whether the CustomResourceDefinition of Syncs or the \
                namespace of this Sync is being deleted; the objects of the Sync are pruned");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn cluster_wide(group: &str, kind: &str, plural: &str) -> Resource {
    Resource {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        plural: plural.into(),
        namespaced: false,
        watchable: true,
    }
}

/// The names of some objects in the inventory.
fn named(record: &Record) -> String {
    let all: Vec<_> = record.inventory.iter().map(|(id, _)| id.to_string()).collect();
    match all.len() {
        0 => "no objects".to_owned(),
        count if count <= NAMED => all.join(", "),
        count => format!("{} and {} more", all[..NAMED].join(", "), count - NAMED),
    }
}

/// Forgets a Sync that no longer exists. Its objects belong to no Sync from now on.
pub(super) async fn forget(ctx: &Context, key: &ObjectKey) {
    ctx.queues.syncs.forget(key);
    ctx.drift.forget(key);
    ctx.cluster.live.stop_waiting(key);
    ctx.cluster.live.stop_looking_out(key);
    ctx.cluster.live.stop_looking_out_for_inputs(key, |_| false);
    ctx.cluster.live.leaves(key, &[]);
    ctx.inputs.forget(key);
    ctx.expressions.forget(key);
    ctx.wants.forget(key);
    ctx.retries.take(key);
    ctx.records.take_doubt(key);
    ctx.metrics.forget_sync(key);
    if let Some(record) = ctx.records.remove(key) {
        for (id, _) in record.lock().await.inventory.iter() {
            ctx.cluster.live.release(key, id);
        }
    }
}
