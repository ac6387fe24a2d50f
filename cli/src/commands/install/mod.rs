//! `gitseal install`: prints or applies everything that a cluster needs. Earlier choices are kept.

pub(super) mod again;
mod apply;
mod arguments;
pub(super) mod bundle;
mod changes;
pub(super) mod choices;
mod first_sync;
mod image;
pub(super) mod live;
mod memory;
pub(super) mod plan;
mod removal;
mod rights;
mod wait;

use std::time::Duration;

use jiff::SignedDuration;
use kube::Client;

use self::{
    choices::{Choices, Tenancy},
    first_sync::Known,
    live::Live,
    removal::Removal,
};
use crate::{
    global::Global,
    output::{self, Hint, counted},
    time,
};

/// Install or upgrade gitseal, or print its manifests
///
/// With --apply, the manifests are applied to the current cluster, and the command waits until
/// the controller runs:
///
///     gitseal install --apply --image registry.example/gitseal-controller:0.1.0
///
/// If gitseal is installed already, the same command upgrades it. It keeps what was chosen before: image, replicas,
/// arguments, rights, storage, the Service's name, and fields that somebody edited. Only a flag changes these
/// settings. If the tag of the image is the old version, the tag becomes the new version. The command lists what will
/// change, and asks before the controller gets more rights. If the API server would refuse one of the objects,
/// nothing is applied.
///
/// With --git-url it also creates a first Repository and Sync. From then on, the controller applies that Git repository.
///
/// Without --apply the controller and its rights are printed, with comments that
/// say what each permission is for. --crds prints what has to be applied first:
///
///     gitseal install --crds | kubectl apply --server-side -f -
///     gitseal install | kubectl apply --server-side -f -
///
/// If the cluster runs the Sealed Secrets controller, its keys, SealedSecrets and scripts still work: install into that
/// controller's namespace (--controller-namespace) with the name of its Service (--controller-name), and stop that
/// controller afterwards. docs/migration.md has all steps, also for going back.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct InstallArgs {
    /// Apply to the cluster (server-side) instead of printing
    #[arg(long)]
    apply: bool,

    /// Print only the CustomResourceDefinitions and namespaces. Deleting these deletes every SealedSecret and its Secret
    #[arg(long, conflicts_with = "apply")]
    crds: bool,

    /// Image of the controller
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// Do not make the controller cluster-admin: each Sync has the rights of a service account. --multi-tenant=false
    /// makes it cluster-admin again
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        hide_possible_values = true)]
    multi_tenant: Option<bool>,

    /// Keep the fetched repositories in an emptyDir instead of a PersistentVolumeClaim: a new Pod applies nothing until the Git server answers
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        hide_possible_values = true)]
    ephemeral_storage: Option<bool>,

    /// How many controllers run, by default 1: one works, the others stand by. With more than one, each keeps the fetched repositories in an emptyDir
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    replicas: Option<u8>,

    /// Arguments of the controller to add or change: `-- --memory-budget=512Mi`
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,

    /// Git repository that the cluster follows: https://…, ssh://… or git@host:path
    #[arg(long, value_name = "URL", help_heading = "First repository")]
    git_url: Option<String>,

    /// Branch to follow, by default the repository's default branch
    #[arg(long, requires = "git_url", help_heading = "First repository")]
    branch: Option<String>,

    /// Folder of the repository that is applied, by default its root
    #[arg(long, requires = "git_url", help_heading = "First repository")]
    path: Option<String>,

    /// An existing Secret with the credentials for --git-url, in the namespace of the Repository. For SSH: identity and known_hosts
    #[arg(long, requires = "git_url", value_name = "NAME", help_heading = "First repository")]
    secret_name: Option<String>,

    /// Service account that the Sync writes as. If it does not exist, it is made, and may change everything in --namespace
    #[arg(long, requires = "git_url", value_name = "NAME", help_heading = "First repository")]
    service_account: Option<String>,

    /// Name of the Repository and the Sync; they are made in --namespace, by default that of the controller
    #[arg(
        long,
        requires = "git_url",
        value_name = "NAME",
        default_value = "cluster",
        help_heading = "First repository"
    )]
    sync_name: String,

    /// Do not ask before the controller gets more rights than it has
    #[arg(short, long, requires = "apply")]
    yes: bool,

    /// Do not wait for the controller to run
    #[arg(long, requires = "apply")]
    no_wait: bool,

    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = time::parse_duration)]
    timeout: SignedDuration,
}

/// Without --apply, if the cluster does not answer within this time, the manifests are printed as for a new cluster.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

pub async fn run(args: InstallArgs, global: &Global) -> anyhow::Result<()> {
    first_sync::check(&args)?;
    if !args.apply {
        return print(&args, global).await;
    }
    let client = global.client().await?;
    let live = Live::read(&client, global).await?;
    Choices::refuse_without_image(&args, &live)?;
    let choices = Choices::decide(&args, global, &live)?;
    let namespace = first_sync::namespace(global, &choices);
    let known = Known::read(&client, &args, &namespace).await?;
    let first = first_sync::documents(&args, global, &choices, &known)?;
    // An existing namespace is also used by others, so it stays as it is.
    let mut namespaces = Vec::new();
    if !apply::has_namespace(&client, &choices.namespace).await? {
        namespaces.push(choices.namespace.as_str());
    }
    if args.git_url.is_some() && !known.has_namespace && namespace != choices.namespace {
        namespaces.push(&namespace);
    }
    let mut documents = bundle::foundation(namespaces);
    documents.extend(bundle::documents(&choices));
    documents.extend(first);
    let steps = plan::plan(&client, &documents.join("---\n")).await?;
    let removals = Removal::find(&live, &choices);
    if let Some(warning) = choices.stale_image(&args, &live) {
        output::warn(warning);
    }
    if live.tenancy.is_some_and(|tenancy| tenancy.cluster_admin && tenancy.watch) && args.multi_tenant.is_none() {
        output::warn(
            "the cluster has both the rights for a single owner and those for several teams, and both stay: the controller is cluster-admin; --multi-tenant removes this role",
        );
    }
    if choices.tenancy == Tenancy::MULTI_TENANT && !choices.people_edit_syncs() {
        output::warn(
            "a Sync without a service account has the controller's own rights, which allow access to every Secret, so people with the role `edit` in a namespace do not get the right to create Syncs there: --multi-tenant adds --default-service-account=default",
        );
    }
    let deployment = steps.iter().find(|step| step.object.id.kind == "Deployment");
    let too_low = deployment.and_then(|step| memory::warning(&step.after, &choices.arguments));
    match too_low {
        Some(warning) => output::warn(warning),
        None => memory::note(&choices.arguments).into_iter().for_each(output::note),
    }
    apply::show(&steps, &removals);
    let mut growth = if live.is_installed() { rights::growth(&steps, &live, &choices) } else { Vec::new() };
    growth.extend(apply::of_the_syncs(&client, &live, &choices).await?);
    apply::ask(&growth, args.yes)?;
    apply::apply(&client, &steps, &choices, &live).await?;
    apply::warn_of_second_controller(&client, &choices).await;
    let waits = waits(&args, &choices);
    if waits {
        wait::for_controller(&client, &choices.namespace, args.timeout).await?;
    }
    let old = old_controller(&client, &choices, &live, &args).await?;
    apply::finish(&client, &steps, &removals, &choices, old.is_none()).await?;
    if !args.no_wait && choices.replicas == 0 {
        output::note(format_args!(
            "no controller runs: the Deployment {} has 0 replicas, as before; --replicas 1 starts one",
            choices.deployment()
        ));
    }
    let Some(old) = old else { return Ok(()) };
    let what = format!(
        "ClusterRole {} is not a part of `edit` yet: {old}, and it may apply Syncs without a service account with its \
         own rights",
        bundle::EDIT_ROLE
    );
    let next = "run the command again when only the new controller runs";
    if waits {
        return Err(Hint::error(what, next));
    }
    output::warn(format_args!("{what}; {next}"));
    Ok(())
}

/// Returns why people do not get rights on Syncs yet: an old controller may still apply Syncs with its own rights.
async fn old_controller(
    client: &Client,
    choices: &Choices,
    live: &Live,
    args: &InstallArgs,
) -> anyhow::Result<Option<String>> {
    if !choices.people_edit_syncs() || live.is_widened() {
        return Ok(None);
    }
    let waits = waits(args, choices);
    if !waits && !live.is_bound() {
        return Ok(Some("the controller that was installed before may still be running".to_owned()));
    }
    let timeout = if waits { args.timeout } else { SignedDuration::ZERO };
    let pod = wait::for_old_pods(client, &choices.namespace, timeout).await?;
    Ok(pod.map(|pod| format!("the old Pod {}/{pod} is still being deleted", choices.namespace)))
}

/// Whether the command waits for the controller.
fn waits(args: &InstallArgs, choices: &Choices) -> bool {
    !args.no_wait && choices.replicas > 0
}

async fn print(args: &InstallArgs, global: &Global) -> anyhow::Result<()> {
    let (live, known) = what_is_there(args, global).await?;
    let choices = Choices::decide(args, global, &live)?;
    let mut documents = if args.crds {
        let namespace = first_sync::namespace(global, &choices);
        let is_own = args.git_url.is_some() && namespace != choices.namespace;
        bundle::foundation([Some(choices.namespace.as_str()), is_own.then_some(&namespace)].into_iter().flatten())
    } else {
        bundle::documents(&choices)
    };
    if !args.crds {
        documents.extend(first_sync::documents(args, global, &choices, &known)?);
        if live.is_installed() {
            output::note(format_args!(
                "the manifests are printed with the settings of the installed controller: image {}, {}, arguments, \
                 rights, Service {}; use flags to change these settings",
                choices.image,
                counted(usize::try_from(choices.replicas).unwrap_or_default(), "replica"),
                choices.service
            ));
        } else if args.image.is_none() {
            output::warn(format_args!(
                "the image {} is in no public registry: use --image to name the image that you built",
                choices.image
            ));
        }
        memory::note(&choices.arguments).into_iter().for_each(output::note);
        output::note(
            "install the CustomResourceDefinitions first: gitseal install --crds | kubectl apply --server-side -f -",
        );
    }
    let text = documents.join("---\n");
    match global.output {
        // For programs: a List without comments.
        Some(format) => output::print(format.text(&bundle::list(&text)?)?),
        None => output::print(bundle::header(args.crds) + &text),
    }
}

/// The existing installation, if there is a cluster. Otherwise the manifests are printed as for a new cluster.
async fn what_is_there(args: &InstallArgs, global: &Global) -> anyhow::Result<(Live, Known)> {
    let Ok(client) = global.client().await else { return Ok((Live::nothing(global), Known::default())) };
    let read = async {
        let live = Live::read(&client, global).await?;
        let namespace = global.namespace().unwrap_or_else(|| live.namespace.clone());
        let known = Known::read(&client, args, &namespace).await?;
        anyhow::Ok((live, known))
    };
    let why = match tokio::time::timeout(ANSWERS_WITHIN, read).await {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(error)) if error.downcast_ref::<output::Hint>().is_some() => return Err(error),
        Ok(Err(error)) => output::one_line(&error),
        Err(_) => "the API server does not answer".to_owned(),
    };
    output::warn(format_args!(
        "the cluster did not say what is installed, so the manifests are those of a new installation: {why}"
    ));
    Ok((Live::nothing(global), Known::default()))
}
