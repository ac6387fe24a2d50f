//! `gitseal adopt`: hands over to a Sync what another tool installed.

mod finish;
mod release;
mod secrets;
mod sync;

use std::path::PathBuf;

use anyhow::Context as _;
use crds::Sync;
use kube::{Api, Client, api::ListParams};
use pipeline::release_name;

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
/// The command is run twice. The first time, it prints a Sync that renders the chart in --path with the values of the
/// release, and says what would differ from the release, and what to do next. Values that are in Secrets of the release are
/// sealed into the file of --seal, and are not printed. Nothing is changed in the cluster.
///
/// Then commit both files and apply the Sync: it takes the objects over, and recreates none of them. When it is Ready, run
/// the command with --finish. It removes what Helm stores about the release, so that `helm uninstall` can no longer delete
/// the objects.
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

/// The Sync that renders a chart with the name of the release, if there is one.
async fn sync_of(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Option<Sync>> {
    let api: Api<Sync> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default()).await;
    let found = list.with_context(|| format!("cannot list the Syncs in the namespace {namespace}"))?.items;
    Ok(found.into_iter().find(|sync| sync.spec.helm.is_some() && release_name(sync) == name))
}
