//! `gitseal diff`: what a local folder would change in the cluster.

mod compare;
mod kinds;
mod live;
mod moves;
mod prune;
mod shown;
mod taking_over;
mod text;

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, anyhow};
use crds::{ObjectKey, Repository, Sync};
use fields::{LeftToOthers, Managers};
use futures::{StreamExt, stream};
use kube::{Api, Client};
use manifests::{Manifest, ObjectId, in_one_line};
use pipeline::{
    Inventory, Plan, Resource, SecretFacts, Unmanaged, guard, may_write, path_of,
    plan::{Content, Scope, Sealed, Step, hold_users, ids_in_cluster, plan, secret_place, stamp_of},
    repository_of,
};
use remotes::OCI;
use renderer::{Capabilities, ServedKinds};
use serde_json::{Value, json};

use self::{
    compare::{InGit, Outcome, compare},
    kinds::Found,
    live::{Live, Syncs, Unknown},
    prune::Pruning,
    taking_over::TakingOver,
};
use crate::{
    chart_inputs::{InputArgs, Surroundings},
    completion,
    copies::{Copies, no_copy},
    folder::{self, Folder, GIT},
    global::Global,
    output::{self, Hint},
    sync_file::{self, SyncFile},
};

/// How many objects are compared at the same time.
const CONCURRENCY: usize = 8;

/// Show what a local folder would change in the cluster
///
/// Every manifest of the folder (.yaml, .yml, .json, except hidden names and what .gitsealignore excludes) is applied
/// as a server-side dry run and compared with the live object. Nothing is written. The values of Secrets are never
/// shown, only which keys differ.
///
/// With --sync, the command decides as the controller does for that Sync. It renders a chart with the values of the
/// Sync. It respects the Sync's targetNamespace and ignoreDifferences. It shows which Secrets would be unsealed again,
/// and which objects would be replaced, pruned, handed over to another Sync, or kept. It also shows objects that would
/// not be applied, because they belong to another Sync. The rights of the Sync's service account are not checked. No
/// value is unsealed: for sealed values, too, only the keys that differ are shown.
///
/// If --sync is the path of a file in the clone, the Sync is read from this file. What the Sync has applied so far is
/// read from the cluster. So, before you commit a changed or a new Sync, the diff shows what it would change or create.
///
///     gitseal diff apps/shop
///     gitseal diff --sync shop
///     gitseal diff --sync clusters/production/shop.yaml
///
/// If another tool made an object and a Sync applies it for the first time, the diff includes the fields that this tool
/// set and that will be removed because they are not in the folder.
///
/// The exit code is 0 if nothing would change, 1 if something would change, and 2 after an error or if an object is
/// held back, that is, would not be applied.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct DiffArgs {
    /// Folder or file with manifests. Default with --sync: the folder that the Sync applies
    #[arg(value_name = "PATH", required_unless_present = "sync")]
    path: Option<PathBuf>,

    /// The Sync that applies the folder: its name in the cluster, or the path of the file that contains it
    #[arg(long, value_name = "NAME|FILE", add = completion::syncs())]
    sync: Option<String>,

    /// Field managers (such as helm) whose objects the Sync takes over, as with the controller's flag of this name
    #[arg(long, value_name = "NAMES", default_value = Managers::DEFAULT, hide_default_value = true)]
    take_over_from: Managers,

    #[command(flatten)]
    inputs: InputArgs,
}

/// The result of the comparison for one object.
struct Entry {
    id: ObjectId,
    /// `file:line`; empty for an object that is only in the cluster.
    origin: String,
    outcome: anyhow::Result<Outcome>,
}

pub async fn run(args: DiffArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let (client, sync, folder) = if let Some(given) = &args.sync {
        let client = global.client().await?;
        let mut clones = args.inputs.clones()?;
        let Chosen { sync, root, path } =
            find_sync(&client, global, given, args.path.as_deref(), &clones.copies).await?;
        // The capabilities are also read if this Sync renders no chart, because other Syncs may render charts.
        let capabilities = capabilities(&client).await.context("cannot ask the API server which kinds it serves")?;
        clones.read_cluster(&client, &sync).await?;
        let surroundings = Surroundings { capabilities, clones };
        let folder = match root {
            Some(root) => folder::read_in(&root, &path, &sync, surroundings, Arc::new(folder::renderer()))?,
            None => folder::read_for(&path, &sync, surroundings)?,
        };
        (client, sync, folder)
    } else {
        let path = args.path.as_deref().unwrap_or(Path::new("."));
        let folder = folder::read(path).map_err(|error| as_chart(error, path))?;
        (global.client().await?, nobodys(&global.default_namespace()), folder)
    };
    if folder.manifests.is_empty() {
        return Err(Hint::error(
            format!("{} holds no manifests", folder.path.display()),
            "an empty folder never prunes anything; to delete the objects of the Sync, delete the Sync",
        ));
    }
    if sync.spec.suspend {
        let key = ObjectKey::of(&sync);
        output::warn(format_args!("Sync {key} is suspended: nothing is applied until it is resumed"));
    }
    if args.sync.is_some() {
        warn_of_another_folder(&sync, &folder);
    }
    match guard(&sync, &folder.manifests) {
        // Without a Sync, a plaintext Secret is only a reason for a warning, because no controller applies this folder.
        Err(error) if args.sync.is_none() && error.are_plaintext_secrets() => {
            output::warn(format_args!("the controller refuses this folder: {}", in_one_line(&error.to_string())));
        }
        checked => checked.map_err(|error| anyhow!(in_one_line(&error.to_string()).into_owned()))?,
    }
    let mut found = kinds::find(&client, &folder.manifests).await?;
    let entries = if args.sync.is_some() {
        let syncs = Syncs::read(&client, &ObjectKey::of(&sync).namespace).await?;
        let inventory = inventory_of(&sync)?;
        let mut live = Live::new(&sync, inventory.clone(), &syncs);
        let objects = objects(&sync, &folder.manifests, &found);
        let places: Vec<_> = objects.iter().map(|(id, resource, _)| (id.clone(), resource.clone())).collect();
        live.read_metadata(&client, places.clone()).await;
        live.weigh_claims(&client, &syncs, &places).await;
        let wanted: Vec<_> = places.into_iter().map(|(id, _)| id).collect();
        for (id, from) in moves::arriving(&sync, &syncs, &folder, &live, &wanted) {
            output::note(format_args!("{id} left the folder of Sync {from}, which would hand it over to this Sync"));
            live.let_go(&id);
        }
        let plan = plan(&sync, &folder.manifests, &found.kinds, &inventory, &live, Scope::Folder, None)?;
        prune::look_at_what_left(&client, &mut found, &mut live, &syncs, &inventory, &plan).await;
        let pruning = Pruning {
            client: &client,
            found: &found,
            sync: &sync,
            inventory: &inventory,
            live: &live,
            syncs: &syncs,
            folder: &folder,
        };
        let pruned = pruning.entries(&plan).await;
        let taking_over = TakingOver::new(&args.take_over_from, Some(&inventory));
        let comparison = Comparison { client: &client, found: &found, taking_over, live: Some(&live) };
        let mut entries = comparison.entries(&objects, plan).await;
        entries.extend(pruned);
        entries
    } else {
        let nothing = Inventory::default();
        let plan = plan(&sync, &folder.manifests, &found.kinds, &nothing, &Unknown, Scope::Folder, None)?;
        let taking_over = TakingOver::new(&args.take_over_from, None);
        let comparison = Comparison { client: &client, found: &found, taking_over, live: None };
        let mut objects = objects(&sync, &folder.manifests, &found);
        objects.retain(|(id, _, manifest)| !id.is_secret() || manifest.id.is_secret());
        comparison.entries(&objects, plan).await
    };
    match global.output {
        Some(format) => output::print(format.text(&list(&entries))?)?,
        None => output::print(text::report(&entries))?,
    }
    Ok(exit_code(&entries))
}

/// What templates of charts see of the cluster.
///
/// # Errors
/// The API server does not answer, or its answer is no list of the kinds that it serves.
pub async fn capabilities(client: &Client) -> anyhow::Result<Capabilities> {
    let version = client.apiserver_version().await?;
    let mut served: Vec<ServedKinds> = Vec::new();
    for path in ["/api", "/apis"] {
        let request = http::Request::get(path).header(http::header::ACCEPT, ServedKinds::ACCEPT).body(Vec::new())?;
        served.push(client.request(request).await?);
    }
    Ok(Capabilities::new(version.git_version, served))
}

/// Says what to do if a folder cannot be read because it is a chart.
fn as_chart(error: anyhow::Error, path: &Path) -> anyhow::Error {
    if !path.join("Chart.yaml").is_file() {
        return error;
    }
    Hint::error(
        format!("{} is a chart, and how it is rendered depends on the Sync", path.display()),
        "use --sync to name the Sync that applies the chart; `gitseal build` prints the objects without a cluster",
    )
}

/// A Sync, and the folder to compare.
struct Chosen {
    sync: Sync,
    /// The top folder of a local copy of the Sync's Repository, if the folder is in this copy.
    root: Option<PathBuf>,
    path: PathBuf,
}

impl Chosen {
    /// The folder to compare: the one that was given, or that of the Sync, in a local copy of its Repository or in a clone.
    async fn new(
        client: &Client,
        sync: Sync,
        given: Option<&Path>,
        copies: &Copies,
        in_clone: impl FnOnce(&Sync) -> anyhow::Result<PathBuf>,
    ) -> anyhow::Result<Self> {
        if let Some(given) = given {
            return Ok(Self { sync, root: None, path: given.to_owned() });
        }
        if let Some(copy) = copies.of_repository(&repository_of(&sync), sync.metadata.namespace.as_deref()) {
            let path = folder::of_sync(&copy.root, &sync)?;
            return Ok(Self { sync, root: Some(copy.root.clone()), path });
        }
        refuse_registry(client, &sync).await?;
        let path = in_clone(&sync)?;
        Ok(Self { sync, root: None, path })
    }
}

/// Finds the Sync that `given` names, and the folder to compare.
async fn find_sync(
    client: &Client,
    global: &Global,
    given: &str,
    path: Option<&Path>,
    copies: &Copies,
) -> anyhow::Result<Chosen> {
    if sync_file::is_file(given) {
        let file = SyncFile::read(Path::new(given), &global.default_namespace())?;
        let in_clone = |sync: &Sync| folder::of_sync(&file.root, sync).map(folder::from_here);
        let key = ObjectKey::of(&file.sync);
        let sync = if let Some(live) = live_sync(client, &key).await? {
            Sync { spec: file.sync.spec.clone(), ..live }
        } else {
            output::note(format_args!("Sync {key} is not in the cluster yet"));
            file.sync.clone()
        };
        return Chosen::new(client, sync, path, copies, in_clone).await;
    }
    let key = ObjectKey { namespace: global.default_namespace(), name: given.to_owned() };
    let sync = live_sync(client, &key).await?.ok_or_else(|| {
        Hint::error(
            format!("{} has no Sync {given}", global.told_namespace()),
            "use --namespace for another namespace; `gitseal status --all-namespaces` shows all Syncs",
        )
    })?;
    Chosen::new(client, sync, path, copies, own_folder).await
}

/// Refuses a Sync whose Repository in the cluster is a registry or a chart repository. If the Repository cannot be
/// read, the Sync is not refused.
async fn refuse_registry(client: &Client, sync: &Sync) -> anyhow::Result<()> {
    let key = repository_of(sync);
    let api: Api<Repository> = Api::namespaced(client.clone(), &key.namespace);
    match api.get_opt(&key.name).await {
        Ok(Some(repository)) if repository.spec.chart.is_some() || repository.spec.url.starts_with(OCI) => {
            Err(no_copy(&format!("what Sync {} applies", ObjectKey::of(sync)), &key, Some(&repository)))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn live_sync(client: &Client, key: &ObjectKey) -> anyhow::Result<Option<Sync>> {
    let api: Api<Sync> = Api::namespaced(client.clone(), &key.namespace);
    api.get_opt(&key.name).await.with_context(|| format!("cannot read Sync {key}"))
}

/// The folder of a Sync in the clone that contains the working directory.
fn own_folder(sync: &Sync) -> anyhow::Result<PathBuf> {
    let (root, _) = folder::place(Path::new("."))?;
    if !root.join(GIT).exists() {
        return Err(Hint::wrong_usage(
            "PATH is missing, and the working directory is in no clone of a repository",
            "name the folder that the Sync applies, or run the command in a clone of its repository",
        ));
    }
    folder::of_sync(&root, sync).map(folder::from_here)
}

/// Warns if the given folder is not the one that the Sync applies: then all objects of the Sync look as if they had
/// left Git.
fn warn_of_another_folder(sync: &Sync, folder: &Folder) {
    if !folder.is_in_repository() || folder.inside == path_of(sync) {
        return;
    }
    let named = |path: &str| if path.is_empty() { "the top folder".to_owned() } else { format!("`{path}`") };
    output::warn(format_args!(
        "Sync {} applies {} of its repository (spec.path), and you gave {}: the diff shows what would change if \
        spec.path named the folder that you gave",
        ObjectKey::of(sync),
        named(path_of(sync)),
        named(&folder.inside),
    ));
}

/// A made-up Sync in this namespace, for a folder that no Sync applies. It has no objects yet, and leaves no fields to
/// others.
pub(super) fn nobodys(namespace: &str) -> Sync {
    let spec = json!({"repository": {"name": ""}});
    let sync = json!({"metadata": {"name": "nobodys", "namespace": namespace}, "spec": spec});
    serde_json::from_value(sync).expect("these are all fields that a Sync must have")
}

fn inventory_of(sync: &Sync) -> anyhow::Result<Inventory> {
    let entries = sync.status.as_ref().map(|status| status.inventory.as_slice()).unwrap_or_default();
    Inventory::read(entries).map_err(|entry| {
        let key = ObjectKey::of(sync);
        anyhow!("the inventory of Sync {key} has the entry '{}', which cannot be read", in_one_line(&entry))
    })
}

/// The objects that the manifests become in the cluster, including the Secrets of SealedSecrets.
fn objects<'a>(sync: &Sync, manifests: &'a [Manifest], found: &Found) -> Vec<(ObjectId, Arc<Resource>, &'a Manifest)> {
    let known = manifests.iter().filter_map(|manifest| Some((manifest, found.kinds.of(manifest)?)));
    let objects = known.flat_map(|(manifest, resource)| {
        ids_in_cluster(sync, manifest, resource).into_iter().map(move |id| {
            let resource = if id.is_secret() { Arc::new(Resource::secrets()) } else { resource.clone() };
            (id, resource, manifest)
        })
    });
    objects.collect()
}

/// Everything that is needed to carry out a plan as a dry run.
struct Comparison<'a> {
    client: &'a Client,
    found: &'a Found,
    taking_over: TakingOver<'a>,
    /// The cluster as the Sync would find it; `None` without a Sync.
    live: Option<&'a Live>,
}

impl Comparison<'_> {
    /// An entry for each of `objects`, in the same order.
    async fn entries(&self, objects: &[(ObjectId, Arc<Resource>, &Manifest)], plan: Plan) -> Vec<Entry> {
        let in_folder: BTreeSet<ObjectId> = objects.iter().map(|(id, ..)| id.clone()).collect();
        let mut missing = plan.missing();
        let mut outcomes: HashMap<ObjectId, anyhow::Result<Outcome>> = HashMap::new();
        let is_held: BTreeSet<ObjectId> = plan.held.iter().map(|held| held.id.clone()).collect();
        let mut held = plan.held;
        let mut steps = Vec::new();
        for (wave, all) in plan.waves {
            let (kept, users) = hold_users(all, &missing);
            held.extend(users);
            for step in kept {
                match (&step.content, self.live) {
                    (Content::Manifest(_), _) => steps.push((wave, step)),
                    (Content::Sealed(sealed), Some(live)) => {
                        let outcome = unsealed(live, &step, sealed).unwrap_or_else(|unmanaged| {
                            missing.insert(secret_place(&step.id));
                            Outcome::Held(unmanaged.to_string())
                        });
                        outcomes.insert(step.id, Ok(outcome));
                    }
                    (Content::Sealed(_), None) => {}
                }
            }
        }
        outcomes.extend(held.into_iter().map(|held| (held.id, Ok(Outcome::Held(held.because)))));
        let results = stream::iter(&steps).map(|(wave, step)| async {
            let Content::Manifest(body) = &step.content else { return None };
            let (id, resource) = (&step.id, &*step.resource);
            let left_to_others = LeftToOthers { paths: &step.left_to_others, managers: &step.left_to_managers };
            let stamp = if self.live.is_none() { stamp_of(id, body) } else { None };
            let object = InGit { id, resource, body, left_to_others, first: step.first.as_deref(), stamp };
            Some((*wave, id, compare(self.client, self.found, &in_folder, &self.taking_over, object).await))
        });
        let results: Vec<_> = results.buffered(CONCURRENCY).filter_map(std::future::ready).collect().await;
        let failed = results.iter().filter(|(.., result)| result.is_err()).map(|(wave, ..)| *wave).min();
        if failed.is_some_and(|failed| results.iter().any(|(wave, ..)| *wave > failed)) {
            output::warn("while an object cannot be applied, the controller does not apply the objects of later waves");
        }
        outcomes.extend(results.into_iter().map(|(_, id, result)| (id.clone(), result)));
        let entries = objects.iter().filter_map(|(id, _, manifest)| {
            let outcome = match outcomes.remove(id) {
                Some(outcome) => outcome,
                // A SealedSecret and its Secret are held back together.
                None if id.is_sealed_secret() && is_held.contains(&id.secret()) => return None,
                None if id.is_secret() && is_held.contains(&id.sealed_secret()) => return None,
                None => Ok(Outcome::Unchanged),
            };
            Some(Entry { id: id.clone(), origin: manifest.origin.to_string(), outcome })
        });
        entries.collect()
    }
}

/// What would happen to the Secret of a SealedSecret, as far as its metadata show.
fn unsealed(live: &Live, step: &Step, sealed: &Sealed) -> Result<Outcome, Unmanaged> {
    let owner = step.id.sealed_secret();
    if live.is_gone(&step.id) {
        let input = sealed.input(&owner, true);
        return Ok(Outcome::Created { keys: input.keys().into_iter().map(|key| format!("data.{key}")).collect() });
    }
    let uid = live.meta(&owner).and_then(|meta| meta.uid.as_deref()).unwrap_or_default();
    match live.meta(&step.id).map(SecretFacts::of) {
        Some(facts) if may_write(Some(&facts), facts.made(None), uid).is_none() => Err(Unmanaged::of(&step.id)),
        _ => Ok(Outcome::Unsealed),
    }
}

fn exit_code(entries: &[Entry]) -> ExitCode {
    let is_stopped = |entry: &Entry| matches!(entry.outcome, Err(_) | Ok(Outcome::Held(_)));
    if entries.iter().any(is_stopped) {
        ExitCode::from(2)
    } else if entries.iter().any(|entry| entry.outcome.as_ref().is_ok_and(Outcome::is_change)) {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    }
}

fn list(entries: &[Entry]) -> Value {
    let entries = entries.iter().map(|entry| {
        let mut item = json!({
            "group": entry.id.group,
            "kind": entry.id.kind,
            "namespace": entry.id.namespace,
            "name": entry.id.name,
            "origin": (!entry.origin.is_empty()).then_some(&entry.origin),
        });
        match &entry.outcome {
            Ok(outcome) => {
                item["outcome"] = outcome.name().into();
                if let Some(because) = outcome.because() {
                    item["because"] = because.into();
                }
                if let Outcome::Changed { diff, keys } = outcome {
                    item["diff"] = diff.clone().into();
                    item["keys"] = json!(
                        keys.iter().map(|(k, c)| (k.clone(), c.name().into())).collect::<serde_json::Map<_, Value>>()
                    );
                }
            }
            Err(error) => {
                item["outcome"] = "failed".into();
                item["error"] = output::one_line(error).into();
            }
        }
        item
    });
    Value::Array(entries.collect())
}
