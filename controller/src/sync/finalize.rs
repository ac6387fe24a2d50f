//! The end of a Sync: what it created is pruned before it goes.

use std::collections::BTreeSet;

use crds::{ObjectKey, Sync};
use kube::ResourceExt;
use pipeline::{Failure, Stage};
use serde_json::json;
use tokio::time::Instant;

use super::{Pass, Record, carry_out::Outcome, hand_over::WAITS_FOR, prune::Pruner};
use crate::{
    backoff,
    cluster::ApiError,
    context::Context,
    passes,
    status::{Progress, resource_of},
};

const FIRST_RETRY: std::time::Duration = std::time::Duration::from_secs(1);
const LONGEST_RETRY: std::time::Duration = std::time::Duration::from_secs(60);

impl Pass<'_> {
    /// Without the finalizer a deleted Sync would leave its objects behind, so it comes before the first object.
    pub(super) async fn ensure_finalizer(&self) -> Result<(), ApiError> {
        let sync = self.sync;
        if sync.finalizers().iter().any(|finalizer| finalizer == crds::names::FINALIZER) {
            return Ok(());
        }
        let mut finalizers = sync.finalizers().to_vec();
        finalizers.push(crds::names::FINALIZER.to_owned());
        self.set_finalizers(&finalizers).await
    }

    /// Prunes everything, then lets the Sync go.
    pub(super) async fn finalize(&self, record: &mut Record) {
        let Self { ctx, sync, key, .. } = *self;
        if !sync.finalizers().iter().any(|finalizer| finalizer == crds::names::FINALIZER) {
            return;
        }
        if sync.spec.prune && !sync.spec.suspend {
            let _timer = self.begin(Stage::Prune);
            let api = self.identity();
            let pruner = Pruner { api: &api, discovery: &ctx.discovery, live: &ctx.live, sync: key };
            if let Err(failure) = self.let_go_of_all(&pruner, record).await {
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
        match self.set_finalizers(&others).await {
            Ok(()) => tracing::info!(sync = %key, "deleted"),
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                tracing::warn!(sync = %key, %error, "the finalizer could not be removed");
                ctx.queues.syncs.add_after(key.clone(), FIRST_RETRY);
            }
        }
    }

    /// Hands over what other Syncs want, and deletes the rest.
    async fn let_go_of_all(&self, pruner: &Pruner<'_>, record: &mut Record) -> Result<(), Failure> {
        let mut all: BTreeSet<_> = record.inventory.iter().map(|(id, _)| id.clone()).collect();
        let wanted = self.wanted_by_others(&all, &record.inventory).await?;
        all.retain(|id| !wanted.by.contains_key(id));
        if let Some(delay) = wanted.delay(&mut record.prune_delayed_since).filter(|_| !all.is_empty()) {
            return Err(delay);
        }
        let pruned = pruner.prune(&all, &mut record.inventory).await;
        let began = *record.finalizing_since.get_or_insert_with(Instant::now);
        match self.hand_over(pruner, &wanted.by, &mut record.inventory).await {
            // They stay as they are: whoever wants them takes them when it can.
            Err(failure) if failure.waits && began.elapsed() > WAITS_FOR => {
                tracing::warn!(sync = %self.key, "{}; it was not taken in time and is left as it is", failure.message);
            }
            handed_over => handed_over?,
        }
        pruned?;
        Ok(())
    }

    async fn set_finalizers(&self, finalizers: &[String]) -> Result<(), ApiError> {
        let Self { ctx, sync, key, .. } = *self;
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": sync.metadata.resource_version}});
        ctx.api.merge(&resource_of::<Sync>(), Some(&key.namespace), &key.name, None, &patch).await.map(|_| ())
    }
}

/// The Sync is gone: nobody owns its objects any more.
pub(super) async fn forget(ctx: &Context, key: &ObjectKey) {
    ctx.queues.syncs.forget(key);
    ctx.drift.forget(key);
    ctx.live.stop_waiting(key);
    ctx.wants.forget(key);
    ctx.metrics.forget_sync(&key.namespace, &key.name);
    if let Some(record) = ctx.records.remove(key) {
        for (id, _) in record.lock().await.inventory.iter() {
            ctx.live.release(key, id);
        }
    }
}
