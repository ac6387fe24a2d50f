//! The watches and the reconcilers: how many of each, and their end.

use std::{sync::Arc, time::Duration};

use crds::{ObjectKey, Repository, SealedSecret, Sync};
use kube::runtime::reflector::store::Writer;

use super::{parts::Parts, requirements::Work};
use crate::{
    config::Config,
    context::Context,
    passes, repository, sealed_secret, sync,
    watches::{self, Listed},
};

/// How long work under way may take to end after a shutdown was asked for.
const GRACE: Duration = Duration::from_secs(20);
/// Repositories that are worked on at a time: most of them wait for their turn to fetch, which costs little.
const REPOSITORIES: usize = 10_000;
/// SealedSecrets that are worked on at a time; decryption itself is bounded by the processors.
const UNSEALS: usize = 32;
/// SealedSecret statuses that are written at a time.
const STATUSES: usize = 8;

/// What the watches fill.
pub(super) struct Writers {
    pub(super) repositories: Writer<Repository>,
    pub(super) syncs: Writer<Sync>,
    pub(super) sealed_secrets: Writer<SealedSecret>,
}

/// Starts what fills the stores and, when this replica leads, the queues.
pub(super) fn start_watches(ctx: &Arc<Context>, writers: Writers, listed: &Listed, work: Work, parts: &mut Parts) {
    if work == Work::Everything {
        let repositories = watches::repositories(ctx.clone(), writers.repositories, listed.clone());
        parts.start("the watch on Repositories", repositories);
        parts.start("the watch on Syncs", watches::syncs(ctx.clone(), writers.syncs, listed.clone()));
    }
    let sealed_secrets = watches::sealed_secrets(ctx.clone(), writers.sealed_secrets, listed.clone());
    parts.start("the watch on SealedSecrets", sealed_secrets);
}

/// Starts everything that writes.
pub(super) fn start_reconcilers(ctx: &Arc<Context>, config: &Config, work: Work, parts: &mut Parts) {
    let queues = &ctx.queues;
    if work == Work::Everything {
        let c = ctx.clone();
        let repositories = move |key| repository::reconcile(c.clone(), key);
        parts.start("the Repository reconciler", queues.repositories.clone().run(REPOSITORIES, repositories));
        let c = ctx.clone();
        let syncs = move |key: ObjectKey| passes::supervised(c.clone(), key.clone(), sync::reconcile(c.clone(), key));
        parts.start("the Sync reconciler", queues.syncs.clone().run(config.concurrent.into(), syncs));
    }
    parts.start("the look for orphans", sync::orphans::follow(ctx.clone()));
    let c = ctx.clone();
    let sealed = move |key| sealed_secret::reconcile(c.clone(), key);
    parts.start("the SealedSecret reconciler", queues.sealed_secrets.clone().run(UNSEALS, sealed));
    let c = ctx.clone();
    let statuses = move |key| sealed_secret::synced::report(c.clone(), key);
    parts.start("the SealedSecret reporter", queues.sealed_statuses.clone().run(STATUSES, statuses));
}

/// Work under way gets its time; what does not end by then is safe to cut anywhere.
pub(super) async fn finish(ctx: &Context) {
    let idle = async {
        tokio::join!(
            ctx.queues.syncs.drained(),
            ctx.queues.sealed_secrets.drained(),
            ctx.queues.sealed_statuses.drained()
        );
    };
    for queue in [&ctx.queues.repositories, &ctx.queues.syncs, &ctx.queues.sealed_secrets, &ctx.queues.sealed_statuses]
    {
        queue.close();
    }
    if tokio::time::timeout(GRACE, idle).await.is_err() {
        tracing::warn!("work under way is cut short; the next start takes it up");
    }
}
