//! Starts the watches and the reconcilers, and waits for the end of running work.

use std::{sync::Arc, time::Duration};

use crds::{ObjectKey, Repository, SealedSecret, Sync};
use flags::Config;
use kube::runtime::reflector::store::Writer;

use super::{parts::Parts, requirements::Work};
use crate::{
    context::Context,
    passes, remotes, repository, sealed_secret, sync,
    watches::{self, Listed},
};

/// How long running work may take after a shutdown was requested.
const GRACE: Duration = Duration::from_secs(20);
/// How many Repositories are worked on at the same time. Most of them wait for their turn to fetch, which costs little.
const REPOSITORIES: usize = 10_000;
/// How many SealedSecrets are worked on at the same time. The number of decryptions at the same time is limited by the
/// number of processors.
const UNSEALS: usize = 32;
/// How many statuses of SealedSecrets are written at the same time.
const STATUSES: usize = 8;

/// The stores that the watches fill.
pub(super) struct Writers {
    pub(super) repositories: Writer<Repository>,
    pub(super) syncs: Writer<Sync>,
    pub(super) sealed_secrets: Writer<SealedSecret>,
}

/// Starts the watches, which fill the stores and, if this replica leads, the queues.
pub(super) fn start_watches(ctx: &Arc<Context>, writers: Writers, listed: &Listed, work: Work, parts: &mut Parts) {
    if work == Work::Everything {
        let repositories = watches::repositories(ctx.clone(), writers.repositories, listed.clone());
        parts.start("the watch on Repositories", repositories);
        parts.start("the watch on Syncs", watches::syncs(ctx.clone(), writers.syncs, listed.clone()));
    }
    let sealed_secrets = watches::sealed_secrets(ctx.clone(), writers.sealed_secrets, listed.clone());
    parts.start("the watch on SealedSecrets", sealed_secrets);
}

/// Starts the parts that write to the cluster.
pub(super) fn start_reconcilers(ctx: &Arc<Context>, config: &Config, work: Work, parts: &mut Parts) {
    let queues = &ctx.queues;
    if work == Work::Everything {
        let c = ctx.clone();
        let repositories = move |key| repository::reconcile(c.clone(), key);
        parts.start("the Repository reconciler", queues.repositories.clone().run(REPOSITORIES, repositories));
        let c = ctx.clone();
        let remotes = move |key| remotes::reconcile(c.clone(), key);
        parts.start("the fetches of remote bases", ctx.remotes.queue.clone().run(REPOSITORIES, remotes));
        let c = ctx.clone();
        let syncs = move |key: ObjectKey| passes::supervised(c.clone(), key.clone(), sync::reconcile(c.clone(), key));
        parts.start("the Sync reconciler", queues.syncs.clone().run(config.concurrent.into(), syncs));
    }
    parts.start("the search for objects that are in no inventory", sync::orphans::follow(ctx.clone()));
    let c = ctx.clone();
    let sealed = move |key| sealed_secret::reconcile(c.clone(), key);
    parts.start("the SealedSecret reconciler", queues.sealed_secrets.clone().run(UNSEALS, sealed));
    let c = ctx.clone();
    let statuses = move |key| sealed_secret::synced::report(c.clone(), key);
    parts.start("the writer of SealedSecrets' statuses", queues.sealed_statuses.clone().run(STATUSES, statuses));
}

/// Gives running work some time to end. Work that is still running after that can be stopped at any point without harm.
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
    ctx.remotes.queue.close();
    if tokio::time::timeout(GRACE, idle).await.is_err() {
        tracing::warn!("the process ends before all work is finished; the work is continued after the next start");
    }
}
