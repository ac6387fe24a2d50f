//! `gitseal sync`: fetches and applies now, and waits until this is done.

mod confirm;
mod follow;
mod plan;
mod progress;
mod tests_of_charts;

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Context;
use crds::{ObjectKey, Repository, Sync, names};
use futures::{StreamExt, future::try_join_all, stream};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::{
    completion,
    global::Global,
    lease,
    managed::{self, CLI_MANAGER, Managed},
    output::{self, Hint},
    target::Target,
    time,
};
use follow::follow;
use plan::{Group, Plan, refuse_suspended};
use progress::Progress;

/// How many requests are sent at the same time.
const CONCURRENCY: usize = 16;

/// Fetch and apply now, and wait until this is done
///
/// For a Sync, its Repository is fetched first, and so are the other Repositories that it gets values or variables from.
/// For a Repository, all its Syncs are applied. If a folder has not changed, there is nothing to apply, and the command ends
/// quickly. If a Sync or Repository does not become Ready, the command prints the reason and exits with 1.
#[derive(clap::Args)]
pub struct SyncArgs {
    /// What to sync: NAME (the Sync of this name or, if there is none, the Repository), sync/NAME or repository/NAME;
    /// may be left out when the namespace has exactly one Sync
    #[arg(value_name = "TARGET", conflicts_with = "all", add = completion::targets())]
    targets: Vec<Target>,

    /// Every Repository and Sync of the namespace
    #[arg(long)]
    all: bool,

    /// Let the Sync delete the objects that wait for a confirmation, even if they are more than pruneLimit allows
    ///
    /// `gitseal status NAME` shows which objects would be deleted, and the value that confirms exactly this deletion.
    /// After a newer revision, or a change of the Sync, another value is needed. The full hash of the commit whose
    /// deletions wait is accepted, too.
    #[arg(long, value_name = "VALUE", conflicts_with = "all")]
    confirm_prune: Option<String>,

    /// Run the tests of the charts again (objects with `helm.sh/hook: test`)
    ///
    /// Only for Syncs with `spec.helm.test: true`, which run them for each revision.
    #[arg(long)]
    test: bool,

    /// Do not wait until the work is done
    #[arg(long)]
    no_wait: bool,

    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = time::parse_duration)]
    timeout: SignedDuration,
}

pub async fn run(args: SyncArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let client = global.client().await?;
    let plan = Plan::new(&client, global, &args.targets, args.all);
    let (plan, ()) = futures::join!(plan, lease::warn_if_silent(&client, global));
    let plan = plan?;
    let fetches = plan.repositories().map(|key| (key.clone(), OnceCell::new())).collect();
    let session = Session { client, token: Timestamp::now().to_string(), progress: Progress::new(), fetches };
    if let Some(revision) = &args.confirm_prune {
        session.confirm_prune(&plan, revision).await?;
    }
    if args.test {
        session.run_tests(&plan).await?;
    }
    if args.no_wait {
        session.only_request(&plan).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let groups = try_join_all(plan.groups.iter().map(|group| session.sync_group(group)));
    let outcomes = match tokio::time::timeout(args.timeout.unsigned_abs(), groups).await {
        Ok(outcomes) => outcomes?,
        Err(_) => return Err(session.timed_out(args.timeout)),
    };
    let ready = outcomes.into_iter().all(|ready| ready);
    if let Some(format) = global.output {
        let (repositories, syncs) = session.read_again(&plan).await?;
        output::print(format.text(&managed::list(&repositories, &syncs)?)?)?;
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One run of the command.
struct Session {
    client: Client,
    /// The value of the annotation that requests a reconcile. The controller copies it to the status when it has
    /// handled the request.
    token: String,
    progress: Progress,
    /// Whether each Repository was fetched. Each one is fetched once, also if several groups need it.
    fetches: BTreeMap<ObjectKey, OnceCell<bool>>,
}

impl Session {
    fn api<K: Managed>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn request<K: Managed>(&self, name: &ObjectKey) -> anyhow::Result<()> {
        let object = self
            .annotate::<K>(name, names::RECONCILE_REQUESTED_AT, &self.token)
            .await
            .with_context(|| format!("cannot ask for {}/{}", K::KIND, name.name))?;
        refuse_suspended(&object)
    }

    async fn annotate<K: Managed>(&self, name: &ObjectKey, key: &str, value: &str) -> kube::Result<K> {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        let parameters = PatchParams { field_manager: Some(CLI_MANAGER.into()), ..PatchParams::default() };
        self.api::<K>(&name.namespace).patch(&name.name, &parameters, &Patch::Merge(patch)).await
    }

    async fn only_request(&self, plan: &Plan) -> anyhow::Result<()> {
        for repository in plan.repositories() {
            self.request::<Repository>(repository).await?;
            output::note(format_args!("{}/{}: requested", Repository::KIND, repository.name));
        }
        for group in &plan.groups {
            for sync in &group.syncs {
                self.request::<Sync>(sync).await?;
                output::note(format_args!("{}/{}: requested", Sync::KIND, sync.name));
            }
        }
        Ok(())
    }

    /// Fetches the Repositories of a group, then applies its Syncs. Returns whether all are Ready.
    async fn sync_group(&self, group: &Group) -> anyhow::Result<bool> {
        let repositories = group.values.iter().chain([&group.repository]);
        let fetched = try_join_all(repositories.map(|repository| self.fetch(repository))).await?;
        let fetched = fetched.into_iter().all(|fetched| fetched);
        Ok(fetched && (group.syncs.is_empty() || self.bring_up_to_date::<Sync>(&group.syncs).await?))
    }

    /// Fetches a Repository, unless that was already done. Returns whether it is Ready.
    async fn fetch(&self, repository: &ObjectKey) -> anyhow::Result<bool> {
        let fetch = || self.bring_up_to_date::<Repository>(std::slice::from_ref(repository));
        match self.fetches.get(repository) {
            Some(once) => once.get_or_try_init(fetch).await.copied(),
            None => fetch().await,
        }
    }

    /// Requests a reconcile of `objects`, which are in one namespace, and waits for its end. Returns whether all are
    /// Ready.
    async fn bring_up_to_date<K: Managed>(&self, objects: &[ObjectKey]) -> anyhow::Result<bool> {
        let Some(first) = objects.first() else {
            return Ok(true);
        };
        let requests = stream::iter(objects).map(|name| async move {
            let line = self.progress.line(K::KIND, name);
            match self.request::<K>(name).await {
                Ok(()) => {
                    line.say("requested");
                    Some((name.name.clone(), line))
                }
                Err(error) => {
                    line.fail(&error);
                    None
                }
            }
        });
        let requested: Vec<_> = requests.buffer_unordered(CONCURRENCY).collect().await;
        let all_requested = requested.iter().all(Option::is_some);
        let waiting = requested.into_iter().flatten().collect();
        Ok(follow(self.api::<K>(&first.namespace), waiting, &self.token).await? && all_requested)
    }

    fn timed_out(&self, timeout: SignedDuration) -> anyhow::Error {
        self.progress.abandon();
        Hint::error(
            format!("the work was not finished within {}", time::short(timeout)),
            "the work continues in the cluster: `gitseal status` shows what it waits for, and warns if no controller works; \
             --timeout waits longer",
        )
    }

    async fn read_again(&self, plan: &Plan) -> anyhow::Result<(Vec<Repository>, Vec<Sync>)> {
        let (mut repositories, mut syncs) = (Vec::new(), Vec::new());
        for repository in plan.repositories() {
            repositories.push(self.api::<Repository>(&repository.namespace).get(&repository.name).await?);
        }
        for Group { syncs: of_repository, .. } in &plan.groups {
            for name in of_repository {
                syncs.push(self.api::<Sync>(&name.namespace).get(&name.name).await?);
            }
        }
        Ok((repositories, syncs))
    }
}
