//! `gitseal sync`: now, and wait until it is done.

mod follow;
mod plan;
mod progress;
mod target;

use std::process::ExitCode;

use anyhow::Context;
use crds::{Repository, Sync, names};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    global::Global,
    managed::{self, Managed},
    output::Hint,
    time,
};
use follow::{follow, follow_syncs_of};
use plan::{Group, Name, Plan};
use progress::Progress;
use target::Target;

/// Field manager of the annotation that asks for a reconcile.
const MANAGER: &str = "gitseal-cli";

/// Fetch and apply now, and wait until it is done
///
/// For a Sync, its Repository is fetched first. For a Repository, the Syncs whose folder has changed follow by
/// themselves. Exits with 1, and the reason, if one does not become Ready.
#[derive(clap::Args)]
pub struct SyncArgs {
    /// What to sync: NAME (of a Sync, else of a Repository), sync/NAME or repository/NAME; may be left out when the
    /// namespace has one Sync
    #[arg(value_name = "TARGET", conflicts_with = "all")]
    targets: Vec<Target>,

    /// Every Repository and Sync of the namespace
    #[arg(long)]
    all: bool,

    /// Ask for it and do not wait
    #[arg(long)]
    no_wait: bool,

    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = time::parse_duration)]
    timeout: SignedDuration,
}

pub async fn run(args: SyncArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let client = global.client().await?;
    let plan = Plan::new(
        &client,
        &global.default_namespace(),
        &args.targets,
        args.all,
    )
    .await?;
    let session = Session {
        client,
        token: Timestamp::now().to_string(),
        progress: Progress::new(),
    };
    if args.no_wait {
        session.only_request(&plan).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let groups = join_all(plan.groups.iter().map(|group| session.sync_group(group)));
    let outcomes = tokio::time::timeout(args.timeout.unsigned_abs(), groups).await;
    let Ok(outcomes) = outcomes else {
        return Err(session.timed_out(args.timeout));
    };
    let ready = outcomes.into_iter().all(|ready| ready);
    if let Some(format) = global.output {
        let (repositories, syncs) = session.read_again(&plan).await?;
        crate::output::print(format.text(&managed::list(&repositories, &syncs)?)?)?;
    }
    Ok(if ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One run of the command.
struct Session {
    client: Client,
    /// The value of the annotation, which the controller repeats in the status once it has acted on it.
    token: String,
    progress: Progress,
}

impl Session {
    fn api<K: Managed>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn request<K: Managed>(&self, name: &Name) -> anyhow::Result<K> {
        let patch =
            json!({"metadata": {"annotations": {names::RECONCILE_REQUESTED_AT: self.token}}});
        let parameters = PatchParams {
            field_manager: Some(MANAGER.into()),
            ..PatchParams::default()
        };
        let object = self
            .api::<K>(&name.namespace)
            .patch(&name.name, &parameters, &Patch::Merge(patch))
            .await
            .with_context(|| format!("cannot ask for {}/{}", K::KIND, name.name))?;
        if object.is_suspended() {
            return Err(Hint::error(
                format!("{} is suspended", object.reference()),
                format!(
                    "kubectl --namespace {} patch {} {} --type merge --patch '{{\"spec\":{{\"suspend\":false}}}}'",
                    name.namespace,
                    K::KIND,
                    name.name
                ),
            ));
        }
        Ok(object)
    }

    async fn only_request(&self, plan: &Plan) -> anyhow::Result<()> {
        for group in &plan.groups {
            if let Some(repository) = &group.repository {
                self.request::<Repository>(repository).await?;
            }
            for sync in &group.syncs {
                self.request::<Sync>(sync).await?;
            }
        }
        Ok(())
    }

    /// Syncs a Repository and then its Syncs; tells how each went, and whether all are Ready.
    async fn sync_group(&self, group: &Group) -> bool {
        let mut revision = None;
        if let Some(repository) = &group.repository {
            let line = self.progress.line(Repository::KIND, repository);
            let fetched = async {
                self.request::<Repository>(repository).await?;
                follow(
                    self.api::<Repository>(&repository.namespace),
                    repository,
                    &self.token,
                    &line,
                )
                .await
            };
            match fetched.await {
                Ok(repository) => {
                    line.succeed(&repository);
                    revision = repository.revision().map(str::to_owned);
                }
                Err(error) => {
                    line.fail(&error);
                    return false;
                }
            }
        }
        match (&group.repository, revision) {
            (Some(repository), Some(revision)) if group.syncs.is_empty() => {
                let syncs = self.api::<Sync>(&repository.namespace);
                follow_syncs_of(syncs, repository, &revision, &self.progress).await
            }
            _ => join_all(group.syncs.iter().map(|sync| self.sync(sync)))
                .await
                .into_iter()
                .all(|ready| ready),
        }
    }

    async fn sync(&self, name: &Name) -> bool {
        let line = self.progress.line(Sync::KIND, name);
        let applied = async {
            self.request::<Sync>(name).await?;
            follow(self.api::<Sync>(&name.namespace), name, &self.token, &line).await
        };
        match applied.await {
            Ok(sync) => line.succeed(&sync),
            Err(error) => {
                line.fail(&error);
                return false;
            }
        }
        true
    }

    fn timed_out(&self, timeout: SignedDuration) -> anyhow::Error {
        self.progress.abandon();
        Hint::error(
            format!("not done within {}", time::short(timeout)),
            "it goes on in the cluster: `gitseal status --watch` follows it, --timeout waits longer; if nothing moves \
             at all, is the controller running?",
        )
    }

    async fn read_again(&self, plan: &Plan) -> anyhow::Result<(Vec<Repository>, Vec<Sync>)> {
        let (mut repositories, mut syncs) = (Vec::new(), Vec::new());
        for group in &plan.groups {
            if let Some(name) = &group.repository {
                repositories.push(
                    self.api::<Repository>(&name.namespace)
                        .get(&name.name)
                        .await?,
                );
            }
            for name in &group.syncs {
                syncs.push(self.api::<Sync>(&name.namespace).get(&name.name).await?);
            }
        }
        Ok((repositories, syncs))
    }
}
