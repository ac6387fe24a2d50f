use std::process::ExitCode;

use crate::{
    global::Global,
    suspension::{self, Which},
};

/// Let what was suspended go on
///
/// What changed in Git meanwhile is fetched and applied at once, and what was
/// changed in the cluster is put back. `gitseal sync` waits for the end of it.
#[derive(clap::Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    which: Which,
}

pub async fn run(args: ResumeArgs, global: &Global) -> anyhow::Result<ExitCode> {
    suspension::set(&args.which, None, global).await
}
