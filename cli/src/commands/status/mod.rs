//! `gitseal status`: the state of Repositories and Syncs, once or as it changes.

mod details;
mod drift;
mod row;
mod watch;

use std::process::ExitCode;

use crds::ObjectKey;
use jiff::Timestamp;

use crate::{
    found::Choice,
    global::Global,
    lease,
    managed::{self, Managed, State},
    output,
};
use details::Details;
use drift::Drifts;
use row::{Row, Rows};

/// Show the state of Repositories and Syncs
///
/// REVISION of a Sync is the last commit that changed its folder. If a Sync or Repository is not Ready or is
/// suspended, the reason is printed below its line. Below a Sync you also see which fields somebody changed in the
/// cluster, who it was, and that the fields were put back. This information comes from events, which the API server
/// keeps for an hour by default. If you name an object, details follow, such as the URL of a Repository,
/// or how many objects of each kind a Sync has. If no controller has worked for some minutes, there is a warning,
/// provided that you may read the controllers' lease.
#[derive(clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    choice: Choice,

    /// Follow: print what changes, until interrupted
    #[arg(short, long, conflicts_with = "check")]
    watch: bool,

    /// Exit with 1 if anything is not Ready (suspended objects do not count)
    #[arg(long)]
    check: bool,
}

pub async fn run(args: StatusArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let client = global.client().await?;
    let StatusArgs { choice, watch, check } = args;
    let (found, ()) = futures::join!(choice.read(&client, global), lease::warn_if_silent(&client, global));
    let found = found?;
    if watch {
        let watched = watch::Watched::new(&client, &choice, &found);
        return watched.follow(global.output).await.map(|()| ExitCode::SUCCESS);
    }
    match global.output {
        Some(format) => output::print(format.text(&managed::list(&found.repositories, &found.syncs)?)?)?,
        None if found.is_empty() => output::note(found.nothing()),
        None => {
            let now = Timestamp::now();
            let drifts = Drifts::read(&client, found.namespace.as_deref()).await.unwrap_or_default();
            let by_name = !choice.targets.is_empty();
            let sync = |sync| {
                let row = Row::of(sync).with_drift(drifts.of(&ObjectKey::of(sync)));
                if by_name { row.with_details(&Details::of_sync(sync)) } else { row }
            };
            let repository = |repository| {
                let row = Row::of(repository);
                if by_name { row.with_details(&Details::of_repository(repository)) } else { row }
            };
            let rows = found.repositories.iter().map(repository).chain(found.syncs.iter().map(sync));
            output::print(Rows::new(choice.all_namespaces, rows).table(now))?;
        }
    }
    let in_order = found.repositories.iter().all(is_in_order) && found.syncs.iter().all(is_in_order);
    Ok(if check && !in_order { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn is_in_order(object: &impl Managed) -> bool {
    matches!(State::of(object), State::Ready | State::Suspended)
}
