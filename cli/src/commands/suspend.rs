use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;

use crate::{
    global::Global,
    suspension::{self, Which},
};

/// Suspend Repositories and Syncs, until `gitseal resume`
///
/// A suspended Sync applies nothing and puts nothing back; its objects stay. A suspended Repository is not fetched; its
/// Syncs keep using the last fetched revision. `gitseal status` shows the reason and the time of the suspension. What
/// the controller is already applying or fetching at this moment is not stopped.
#[derive(clap::Args)]
pub struct SuspendArgs {
    #[command(flatten)]
    which: Which,

    /// The reason, which `gitseal status` shows
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
}

pub async fn run(args: SuspendArgs, global: &Global) -> anyhow::Result<ExitCode> {
    suspension::set(&args.which, Some(&args.reason), global).await
}
