//! The end of a Sync: what it created is pruned before it goes.

use crds::Sync;
use kube::ResourceExt;
use serde_json::json;

use super::{
    Record, report,
    status::resource_of,
    sync::{Pass, identity},
};
use crate::{
    backoff,
    cluster::ApiError,
    context::Context,
    key::ObjectKey,
    pipeline::{Failure, Stage, prune::Pruner},
};

const FIRST_RETRY: std::time::Duration = std::time::Duration::from_secs(1);
const LONGEST_RETRY: std::time::Duration = std::time::Duration::from_secs(60);

/// Without the finalizer a deleted Sync would leave its objects behind, so it comes before the first object.
pub(super) async fn ensure_finalizer(ctx: &Context, sync: &Sync, key: &ObjectKey) -> Result<(), ApiError> {
    if sync.finalizers().iter().any(|finalizer| finalizer == crds::names::FINALIZER) {
        return Ok(());
    }
    let mut finalizers = sync.finalizers().to_vec();
    finalizers.push(crds::names::FINALIZER.to_owned());
    set_finalizers(ctx, sync, key, &finalizers).await
}

/// Prunes everything, then lets the Sync go.
pub(super) async fn finalize(ctx: &Context, sync: &Sync, key: &ObjectKey, record: &mut Record) {
    if !sync.finalizers().iter().any(|finalizer| finalizer == crds::names::FINALIZER) {
        return;
    }
    if sync.spec.prune && !sync.spec.suspend {
        let _timer = ctx.begin(Stage::Prune, key);
        let api = identity(ctx, sync);
        let pruner = Pruner { api: &api, discovery: &ctx.discovery, live: &ctx.live, sync: key };
        let all = record.inventory.iter().map(|(id, _)| id.clone()).collect();
        if let Err(error) = pruner.prune(&all, &mut record.inventory).await {
            record.failures += 1;
            report::failure(ctx, sync, key, record, None, &Failure::from(error), &Pass::default()).await;
            ctx.queues.syncs.add_after(key.clone(), backoff::pause(record.failures, FIRST_RETRY, LONGEST_RETRY));
            return;
        }
    }
    let others: Vec<_> =
        sync.finalizers().iter().filter(|finalizer| *finalizer != crds::names::FINALIZER).cloned().collect();
    match set_finalizers(ctx, sync, key, &others).await {
        Ok(()) => tracing::info!(sync = %key, "deleted"),
        Err(error) if error.is_not_found() => {}
        Err(error) => {
            tracing::warn!(sync = %key, %error, "the finalizer could not be removed");
            ctx.queues.syncs.add_after(key.clone(), FIRST_RETRY);
        }
    }
}

/// The Sync is gone: nobody owns its objects any more.
pub(super) async fn forget(ctx: &Context, key: &ObjectKey) {
    ctx.queues.syncs.forget(key);
    ctx.drift.forget(key);
    ctx.metrics.forget_sync(&key.namespace, &key.name);
    if let Some(record) = ctx.records.remove(key) {
        for (id, _) in record.lock().await.inventory.iter() {
            ctx.live.release(key, id);
        }
    }
    super::sync::retry_refused(ctx);
}

async fn set_finalizers(ctx: &Context, sync: &Sync, key: &ObjectKey, finalizers: &[String]) -> Result<(), ApiError> {
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": sync.metadata.resource_version}});
    ctx.api.merge(&resource_of::<Sync>(), Some(&key.namespace), &key.name, None, &patch).await.map(|_| ())
}
