use std::process::ExitCode;

use crate::{
    global::Global,
    suspension::{self, Which},
};

/// Continue suspended Repositories and Syncs
///
/// Changes in Git are fetched and applied at once, and changes in the cluster
/// are put back. This does not wait; to wait for the end, run `gitseal sync` after it.
#[derive(clap::Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    which: Which,
}

pub async fn run(args: ResumeArgs, global: &Global) -> anyhow::Result<ExitCode> {
    suspension::set(&args.which, None, global).await
}
