//! Drift while the newest revision cannot be applied: put back from the last good one.

use crds::Sync;
use gitstore::{RepositoryKey, Revision, Snapshot};

use super::{
    Record, report,
    sync::{Pass, identity, open},
    synced,
};
use crate::{
    context::Context,
    key::ObjectKey,
    pipeline::{Failure, apply::Applier, guard::guard, plan, render, source},
};

/// Puts back what drifted since the last good revision was applied. Nothing is created, changed or pruned that this
/// revision did not apply; what cannot be put back waits for the next try.
pub(super) async fn from_last_good(ctx: &Context, sync: &Sync, key: &ObjectKey, record: &mut Record) {
    if !has_drifted(ctx, record) {
        return;
    }
    let Some(snapshot) = last_good(ctx, sync, record).await else { return };
    let revision = snapshot.revision().to_string();
    let mut pass = Pass::default();
    if let Err(failure) = put_back(ctx, sync, key, record, snapshot, &mut pass).await {
        tracing::warn!(sync = %key, revision, stage = %failure.stage, "drift is not healed: {}", failure.message);
    }
    report::healed(ctx, sync, &pass);
    synced::tell(ctx, &pass.applied, &key.namespace);
}

fn has_drifted(ctx: &Context, record: &Record) -> bool {
    record.inventory.iter().any(|(id, known)| known.manifest.is_some() && !ctx.live.is_untouched(id))
}

async fn last_good(ctx: &Context, sync: &Sync, record: &Record) -> Option<Snapshot> {
    let revision: Revision = record.status.last_applied_revision.as_deref()?.parse().ok()?;
    let repository = source::repository_of(sync);
    let url = ctx.repositories.get(&repository.to_ref())?.spec.url.clone();
    let git = ctx.git.clone();
    let key = RepositoryKey { namespace: repository.namespace, name: repository.name };
    tokio::task::spawn_blocking(move || git.snapshot(&key, &url, &revision).ok()).await.ok().flatten()
}

async fn put_back(
    ctx: &Context,
    sync: &Sync,
    key: &ObjectKey,
    record: &mut Record,
    snapshot: Snapshot,
    pass: &mut Pass,
) -> Result<(), Failure> {
    let count = record.inventory.len_in_git();
    let manifests = render::render(std::sync::Arc::new(snapshot), sync, count).await?;
    let opened = open(ctx, sync, record, manifests).await;
    let opened = guard(sync, opened)?;
    let mut plan = plan::plan(&ctx.discovery, &ctx.live, sync, key, opened, &record.inventory).await?;
    plan::abandon(&ctx.live, key, &plan.inventory, &record.inventory);
    plan.inventory.clone_from(&record.inventory);
    plan.prune.clear();
    for steps in plan.waves.values_mut() {
        // Only what stands as it was applied: anything else belongs to a revision that waits.
        steps.retain(|step| {
            let known = record.inventory.get(&step.id).and_then(|known| known.manifest.as_deref());
            known == Some(step.digest.as_str())
        });
    }
    let api = identity(ctx, sync);
    let applier = Applier { api: &api, discovery: &ctx.discovery, live: &ctx.live, writes: &ctx.writes };
    let applied = applier.apply(plan, &mut pass.applied).await;
    record.inventory.clone_from(&pass.applied.inventory);
    Ok(applied?)
}
