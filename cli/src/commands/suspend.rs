use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;

use crate::{
    global::Global,
    suspension::{self, Which},
};

/// Stop fetching or applying, until `gitseal resume`
///
/// A suspended Sync applies nothing and puts nothing back; its objects stay. A
/// suspended Repository is not fetched; its Syncs go on with the revision that
/// they have. `gitseal status` shows the reason and since when. Work that has begun is
/// finished.
#[derive(clap::Args)]
pub struct SuspendArgs {
    #[command(flatten)]
    which: Which,

    /// Why, shown by `gitseal status`
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
}

pub async fn run(args: SuspendArgs, global: &Global) -> anyhow::Result<ExitCode> {
    suspension::set(&args.which, Some(&args.reason), global).await
}
