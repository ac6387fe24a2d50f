//! `gitseal uninstall`: removes the controller and its rights. Objects that people created are kept.

mod left;
mod prune;
mod release;
mod remove;
mod undone;

use anyhow::{Context, bail};
use crds::{SealedSecret, Sync};
use jiff::SignedDuration;
use kube::{Api, Client, api::ListParams};

use self::{left::Left, undone::Undone};
use super::install::{again, live::Live};
use crate::{
    global::Global,
    output::{self, GOOD, Hint, counted, styled},
    time,
};

/// Remove the controller and its rights; all other objects stay
///
/// These stay: every object that was applied, Secrets, SealedSecrets, the sealing keys, Repositories, Syncs, and the
/// CustomResourceDefinitions. Two things are changed, so that nothing is deleted later by accident:
///
///     each Sync is suspended, and its objects stay if you delete the Sync
///     each Secret loses its owner, and stays if you delete its SealedSecret
///
/// The command lists what it will do, and asks. `gitseal install --apply` installs the controller again; docs/uninstall.md
/// has the steps for this.
///
/// More is deleted only if you say so, and type a word when you are asked:
///
///     --prune   everything that the Syncs applied
///     --crds    the CustomResourceDefinitions, and with them every Sync,
///               Repository and SealedSecret
///
/// If a step fails, for example because others keep changing an object, the command goes on with the other steps. At
/// the end it lists what was not done.
///
/// The sealing keys always stay. Back them up before you delete them by hand:
/// `gitseal keys backup`.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct UninstallArgs {
    /// Also delete the objects that the Syncs applied. The controller deletes them, so it has to run
    #[arg(long)]
    prune: bool,

    /// Also delete the CustomResourceDefinitions, with all Syncs, Repositories and SealedSecrets. Secrets stay
    #[arg(long)]
    crds: bool,

    /// Do not ask, except for --prune and --crds
    #[arg(short, long)]
    yes: bool,

    /// How long to wait for each object to be deleted
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = time::parse_duration)]
    timeout: SignedDuration,
}

/// What `gitseal uninstall` finds in the cluster before it changes anything.
struct Found {
    syncs: Vec<Sync>,
    sealed_secrets: usize,
    /// Secrets that would be deleted with a SealedSecret.
    owned: Vec<release::Owned>,
    /// The controller and its rights.
    parts: Vec<remove::Part>,
    /// Whether the cluster has any of our CustomResourceDefinitions.
    has_kinds: bool,
}

pub async fn run(args: UninstallArgs, global: &Global) -> anyhow::Result<()> {
    let client = global.client().await?;
    let live = Live::read(&client, global).await?;
    let found = Found::read(&client, &live, global).await.context("nothing was changed")?;
    if found.is_nothing(&args) {
        output::note("gitseal is not installed: there is nothing to remove");
        return Ok(());
    }
    let back = again::command(&live);
    found.show(&args, &live);
    if !args.yes && !args.prune && !args.crds {
        let sure = output::confirm("Remove the controller?", "--yes removes it without a question")?;
        anyhow::ensure!(sure, "nothing was changed");
    }
    if args.prune {
        let objects = counted(prune::going(&found.syncs), "object");
        typed("prune", &format!("{objects} that Syncs applied will be deleted"))?;
    }
    if args.crds {
        typed(
            "crds",
            &format!(
                "{} and {} will be deleted",
                counted(found.sealed_secrets, "SealedSecret"),
                counted(found.syncs.len(), "Sync")
            ),
        )?;
    }
    if args.prune {
        prune::all(&client, &found.syncs, args.timeout).await?;
    }
    // First the Syncs are suspended and the controller is removed. Finalizers and owners are removed only after that,
    // because the controller would set them again.
    for sync in all::<Sync>(&client).await? {
        if let Err(error) = release::suspend(&client, &sync).await {
            output::warn(format_args!("{}; it is tried again", output::one_line(&error)));
        }
    }
    remove::controller(&client, &live, args.timeout).await?;
    let mut undone = Undone::default();
    for sync in all::<Sync>(&client).await? {
        // A Sync may be active again here: it was created or resumed while the controller still ran, or another Sync,
        // which applies this Sync, has undone its suspension.
        undone.note(release::suspend(&client, &sync).await);
        undone.note(release::let_go(&client, &sync).await);
    }
    for secret in release::owned(&client).await? {
        undone.note(secret.release(&client).await);
    }
    for part in &found.parts {
        undone.note(part.remove().await);
    }
    let left =
        Left::read(&client, &live).await.context("the controller is gone; run the command again for the rest")?;
    if args.crds && undone.is_empty() {
        remove::definitions(&client, args.timeout, &mut undone).await?;
    } else if args.crds && found.has_kinds {
        // If the kind SealedSecret were deleted, Kubernetes would delete all SealedSecrets, and with them the Secrets
        // that they still own.
        undone.add("the CustomResourceDefinitions are not deleted before everything else is done".into());
    }
    if undone.is_empty() {
        output::note(format_args!("{} gitseal is uninstalled", styled(GOOD, "done")));
    }
    left.show((!args.crds || !undone.is_empty()) && found.has_kinds);
    undone.report("the controller is removed", "when the causes are fixed, run the command again for the rest")?;
    if !args.crds {
        output::note(format_args!("to install gitseal again: {back}, then gitseal resume for each Sync"));
    }
    Ok(())
}

impl Found {
    async fn read(client: &Client, live: &Live, global: &Global) -> anyhow::Result<Self> {
        Ok(Self {
            syncs: all::<Sync>(client).await?,
            sealed_secrets: all::<SealedSecret>(client).await?.len(),
            owned: release::owned(client).await?,
            parts: remove::parts(client, live, global).await?,
            has_kinds: remove::has_definitions(client).await?,
        })
    }

    /// Whether nothing is left to do.
    fn is_nothing(&self, args: &UninstallArgs) -> bool {
        let prunes = args.prune && self.syncs.iter().any(prune::goes);
        let kinds = args.crds && self.has_kinds;
        let concerned = self.syncs.iter().any(release::concerns);
        self.parts.is_empty() && self.owned.is_empty() && !concerned && !prunes && !kinds
    }

    fn show(&self, args: &UninstallArgs, live: &Live) {
        for part in &self.parts {
            output::note(format_args!("remove {part}"));
        }
        if args.prune {
            prune::show(&self.syncs);
        }
        let left =
            self.syncs.iter().filter(|sync| release::concerns(sync) && !(args.prune && prune::goes(sync))).count();
        if left > 0 {
            let whose = if left == 1 { "its finalizer" } else { "their finalizers" };
            output::note(format_args!("suspend {} and remove {whose}", counted(left, "Sync")));
        }
        if !self.owned.is_empty() {
            let of = if self.owned.len() == 1 { "its SealedSecret" } else { "their SealedSecrets" };
            let which = if args.prune { ", if the Secret stays" } else { "" };
            output::note(format_args!("make {} independent of {of}{which}", counted(self.owned.len(), "Secret")));
        }
        if args.crds && self.has_kinds {
            output::note(format_args!(
                "DELETE the CustomResourceDefinitions, with {}, {} and all Repositories",
                counted(self.sealed_secrets, "SealedSecret"),
                counted(self.syncs.len(), "Sync")
            ));
        }
        let mut stays = vec![format!("the sealing keys in {}", live.namespace)];
        if args.prune {
            let kept = prune::applied(&self.syncs) - prune::going(&self.syncs);
            stays.extend(["every Secret that no Sync applied".to_owned(), counted(kept, "applied object")]);
        } else {
            stays.extend(["every Secret".to_owned(), counted(prune::applied(&self.syncs), "applied object")]);
        }
        if !args.crds && self.has_kinds {
            stays.push(counted(self.sealed_secrets, "SealedSecret"));
            stays.push("the CustomResourceDefinitions".to_owned());
        }
        output::note(format_args!("keep {}", stays.join(", ")));
    }
}

/// Asks the user to type a word, so that nobody deletes by habit.
fn typed(word: &str, what: &str) -> anyhow::Result<()> {
    let instead =
        format!("run the command in a terminal, leave --{word} out, or delete the objects by hand (docs/uninstall.md)");
    let question = format!("{what}, for good. Type {word} to go on:");
    if output::type_word(&question, word, &instead)? {
        return Ok(());
    }
    bail!("nothing was changed: the typed word was not {word}")
}

/// All objects of a kind; none if the cluster does not serve it.
async fn all<K>(client: &Client) -> anyhow::Result<Vec<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match Api::<K>::all(client.clone()).list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| {
            Hint::new(format!("cannot list {}", K::plural(&())), "you need the rights of a cluster administrator")
        }),
    }
}
