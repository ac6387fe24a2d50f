//! `gitseal adopt`: hands over to a Sync what another tool installed.

mod finish;
mod release;
mod secrets;
mod sync;

use std::path::PathBuf;

use crate::{certificate::CertificateTrust, global::Global};

/// Hand over to a Sync what another tool installed
#[derive(clap::Args)]
pub struct AdoptArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Helm(HelmArgs),
}

/// Hand a Helm release over to a Sync
///
/// Prints a Sync that renders the chart in --path with the values of the release, and says which objects would differ
/// from those of the release. Values that are in Secrets of the release are sealed into the file of --seal, and are
/// not printed. Nothing is changed in the cluster. Commit the files and apply the Sync: the Sync takes the objects
/// over, and recreates none of them. When the Sync is Ready, run the command with --finish. It removes what Helm stores
/// about the release, so that `helm uninstall` can no longer delete the objects.
///
///     gitseal adopt helm shop -n shop --path charts/shop \
///       --seal secrets/shop.yaml > clusters/shop.yaml
///     gitseal adopt helm shop -n shop --finish
///
/// Between the two commands, nobody should run `helm upgrade` for the release.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct HelmArgs {
    /// Name of the release
    #[arg(value_name = "RELEASE")]
    release: String,

    /// Folder with the chart of the release, in a clone of the repository
    #[arg(long, value_name = "FOLDER", required_unless_present = "finish", conflicts_with = "finish")]
    path: Option<PathBuf>,

    /// The Repository of the Sync [default: the only one in the namespace]
    #[arg(long, value_name = "NAME", conflicts_with = "finish")]
    repository: Option<String>,

    /// File to write the sealed values to, in the clone of the repository. The file must not exist yet
    #[arg(long, value_name = "FILE", conflicts_with = "finish")]
    seal: Option<PathBuf>,

    /// Seal with this certificate, a file or an http(s) URL [default: that of the controller]
    #[arg(long, value_name = "FILE-OR-URL", env = "SEALED_SECRETS_CERT")]
    cert: Option<String>,

    #[command(flatten)]
    trust: CertificateTrust,

    /// Remove what Helm stores about the release; the Sync must be Ready
    #[arg(long)]
    finish: bool,

    /// Do not ask before something is removed
    #[arg(short, long, requires = "finish")]
    yes: bool,
}

pub async fn run(args: AdoptArgs, global: &Global) -> anyhow::Result<()> {
    let What::Helm(args) = args.what;
    if args.finish { finish::run(&args, global).await } else { sync::run(&args, global).await }
}
