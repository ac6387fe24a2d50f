//! `gitseal status`: everything at a glance, once or as it changes.

mod drift;
mod row;
mod watch;

use std::process::ExitCode;

use anyhow::{Context, bail};
use crds::{Repository, Sync};
use jiff::Timestamp;
use kube::{Api, Client, api::ListParams};

use crate::{
    global::Global,
    managed::{self, Managed, State},
    output,
};
use drift::Drifts;
use row::{Row, Rows};

/// Show all Repositories and Syncs at a glance
///
/// REVISION of a Sync is the last one that changed its folder: commits that leave the folder alone leave the Sync alone.
/// What is not Ready says why, in full, below its line. Below a Sync is also what was changed outside of Git and put back,
/// with the fields and who wrote them, as long as the API server keeps its events (an hour, if nothing else is set).
#[derive(clap::Args)]
pub struct StatusArgs {
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,

    /// Follow: print what changes, until interrupted
    #[arg(short, long, conflicts_with = "check")]
    watch: bool,

    /// Exit with 1 if anything is not Ready (what is suspended does not count)
    #[arg(long)]
    check: bool,
}

pub async fn run(args: StatusArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let client = global.client().await?;
    let namespace = (!args.all_namespaces).then(|| global.default_namespace());
    let (repositories, syncs) =
        (api::<Repository>(&client, namespace.as_deref()), api::<Sync>(&client, namespace.as_deref()));
    if args.watch {
        if global.output.is_some() {
            bail!("--watch prints lines for people: leave out --output");
        }
        return watch::follow(repositories, syncs, args.all_namespaces).await.map(|()| ExitCode::SUCCESS);
    }

    let all = ListParams::default();
    let (repositories, syncs) =
        futures::try_join!(repositories.list(&all), syncs.list(&all)).context("cannot list Repositories and Syncs")?;
    let (repositories, syncs) = (repositories.items, syncs.items);
    match global.output {
        Some(format) => output::print(format.text(&managed::list(&repositories, &syncs)?)?)?,
        None if repositories.is_empty() && syncs.is_empty() => {
            output::note(match namespace {
                Some(name) => {
                    format!("No Repository and no Sync in namespace {name}; --all-namespaces looks everywhere.")
                }
                None => "No Repository and no Sync in the cluster.".into(),
            });
        }
        None => {
            let now = Timestamp::now();
            let drifts = Drifts::read(&client, namespace.as_deref()).await;
            let rows = syncs.iter().map(|sync| Row::of(sync).with_drift(drifts.of(sync)));
            let rows = repositories.iter().map(Row::of).chain(rows);
            output::print(Rows::new(args.all_namespaces, rows).table(now))?;
        }
    }
    let in_order = repositories.iter().all(is_in_order) && syncs.iter().all(is_in_order);
    Ok(if args.check && !in_order { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn api<K: Managed>(client: &Client, namespace: Option<&str>) -> Api<K> {
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn is_in_order(object: &impl Managed) -> bool {
    matches!(State::of(object), State::Ready | State::Suspended)
}
