use serde_json::json;

use crate::{global::Global, output};

/// Print the version of this program
#[derive(clap::Args)]
pub struct VersionArgs {}

pub fn run(_: &VersionArgs, global: &Global) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    match global.output {
        Some(format) => output::print(format.text(&json!({ "version": version }))?),
        None => output::print(format_args!("gitseal {version}\n")),
    }
}
