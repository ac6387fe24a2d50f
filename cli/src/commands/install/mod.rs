//! `gitseal install`: everything that a cluster needs, printed or applied.

mod apply;
mod bundle;

use crds::{GitReference, LocalReference, ObjectReference, Repository, RepositorySpec, Sync, SyncSpec};
use jiff::SignedDuration;
use kube::api::ObjectMeta;

use crate::{global::Global, output, time};

/// Print what a cluster needs, or apply it
///
/// Without --apply the manifests go to standard output, with comments that say
/// what each permission is for:
///
///     gitseal install > gitseal.yaml
///
/// With --apply they are applied to the current cluster, and the command waits
/// until the controller runs. With --git-url a first Repository and Sync are
/// added: from then on the cluster follows the repository.
///
/// A cluster that runs the Sealed Secrets controller keeps its keys, its
/// SealedSecrets and its scripts: install into that controller's namespace
/// (--controller-namespace) with the name of its Service (--controller-name), and
/// stop it afterwards. docs/migration.md has the steps, and the way back.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct InstallArgs {
    /// Apply to the cluster (server-side) instead of printing
    #[arg(long)]
    apply: bool,

    /// Image of the controller
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// Do not make the controller cluster-admin: each Sync names a service account whose rights it has
    #[arg(long)]
    multi_tenant: bool,

    /// Keep the Git store in an emptyDir: no volume is needed, but a restart without Git heals nothing
    #[arg(long)]
    ephemeral_storage: bool,

    /// How many controllers run: one of them works, the others stand by. Several keep their Git stores in emptyDirs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    replicas: u8,

    /// Repository that the cluster follows
    #[arg(long, value_name = "URL", help_heading = "First repository")]
    git_url: Option<String>,

    /// Branch to follow; the repository's default branch when absent
    #[arg(long, requires = "git_url", help_heading = "First repository")]
    branch: Option<String>,

    /// Folder of the repository that is applied
    #[arg(long, requires = "git_url", default_value = "./", help_heading = "First repository")]
    path: String,

    /// Secret with the repository's credentials, in the namespace of the Repository
    #[arg(long, requires = "git_url", value_name = "NAME", help_heading = "First repository")]
    secret_name: Option<String>,

    /// Name of the Repository and the Sync; they are made in --namespace, or beside the controller
    #[arg(
        long,
        requires = "git_url",
        value_name = "NAME",
        default_value = "cluster",
        help_heading = "First repository"
    )]
    sync_name: String,

    /// Do not wait for the controller to run
    #[arg(long, requires = "apply")]
    no_wait: bool,

    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = time::parse_duration)]
    timeout: SignedDuration,
}

pub async fn run(args: InstallArgs, global: &Global) -> anyhow::Result<()> {
    let bundle = bundle::Bundle {
        namespace: &global.controller_namespace,
        service: &global.controller_name,
        image: args.image.as_deref(),
        multi_tenant: args.multi_tenant,
        ephemeral_storage: args.ephemeral_storage,
        replicas: args.replicas,
    };
    let mut documents = bundle.documents();
    if let Some(url) = &args.git_url {
        documents.extend(first_repository(&args, url, global)?);
    }
    let text = documents.join("---\n");
    if !args.apply {
        return match global.output {
            // For programs: a List without comments.
            Some(format) => output::print(format.text(&bundle::list(&text)?)?),
            None => output::print(text),
        };
    }
    let wait = (!args.no_wait).then_some(args.timeout);
    apply::apply(&global.client().await?, &text, global, args.multi_tenant, wait).await
}

/// The Repository and the Sync of `--git-url`.
fn first_repository(args: &InstallArgs, url: &str, global: &Global) -> anyhow::Result<Vec<String>> {
    let metadata = ObjectMeta {
        name: Some(args.sync_name.clone()),
        namespace: Some(global.namespace().unwrap_or_else(|| global.controller_namespace.clone())),
        ..ObjectMeta::default()
    };
    // Through JSON, so that every field that is not given here has the API's own default.
    let mut repository: RepositorySpec = serde_json::from_value(serde_json::json!({ "url": url }))?;
    repository.reference =
        args.branch.clone().map(|branch| GitReference { branch: Some(branch), ..GitReference::default() });
    repository.secret_ref = args.secret_name.clone().map(|name| LocalReference { name });
    let mut sync: SyncSpec =
        serde_json::from_value(serde_json::json!({ "repository": { "name": args.sync_name }, "path": args.path }))?;
    sync.repository = ObjectReference { name: args.sync_name.clone(), namespace: None };
    let repository = Repository { metadata: metadata.clone(), spec: repository, status: None };
    let sync = Sync { metadata, spec: sync, status: None };
    let yaml = output::OutputFormat::Yaml;
    Ok(vec![yaml.text(&repository)?, yaml.text(&sync)?])
}
