use std::process::ExitCode;

use crate::{
    global::Global,
    suspension::{self, Which},
};

/// Continue suspended Repositories and Syncs
///
/// Changes in Git are fetched and applied at once, and changes in the cluster
/// are put back. The command does not wait until this is done; `gitseal sync` waits.
#[derive(clap::Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    which: Which,
}

pub async fn run(args: ResumeArgs, global: &Global) -> anyhow::Result<ExitCode> {
    suspension::set(&args.which, None, global).await
}
