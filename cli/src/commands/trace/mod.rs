//! `gitseal trace`: from an object in the cluster back to its line in Git.

mod commit;
mod object;
mod origin;
mod place;

use std::{fmt::Write as _, path::Path, process::ExitCode};

use anyhow::Context;
use crds::{ObjectKey, Repository, Sync, conditions, find_condition, names};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::{Api, Client};
use manifests::{ObjectId, in_one_line};
use pipeline::{FieldsDigest, Inventory, health::Health, plan::left_to_managers};
use renderer::Capabilities;
use serde::Serialize;

use crate::{
    chart_inputs::{Clones, InputArgs, Surroundings},
    commands::capabilities,
    completion, folder,
    global::Global,
    managed::{Managed, State, short_revision, with_short_revisions},
    output::{self, BAD, FAINT, GOOD, Hint, Style, WARN, styled},
    time,
};
use object::{Kinds, Object};
use origin::Origin;
use place::Search;

/// How many owners are followed, one after the other: for example from a Pod to its ReplicaSet and its Deployment.
const OWNERS: usize = 10;

/// Show where an object of the cluster comes from
///
/// Shows what made the object, its Sync, its Repository, the commit that was applied, and the line in Git; also its health,
/// and who wrote it last. Works for objects that are in Git, and for objects that were made by them, such as the Pod of a
/// Deployment or the Secret of a SealedSecret. The cluster does not store files and lines: to see them, run this inside a
/// clone of the repository. If the Sync gets values or variables from another Repository, name a clone of it with
/// --remote.
#[derive(clap::Args)]
pub struct TraceArgs {
    /// The object. KIND is as in kubectl. KIND NAME, as two words, works, too
    #[arg(value_name = "KIND/NAME", add = completion::from_cluster(object::names))]
    object: String,

    /// Name of the object, if the first word is only its kind
    #[arg(value_name = "NAME", hide = true)]
    name: Option<String>,

    #[command(flatten)]
    inputs: InputArgs,
}

pub async fn run(args: TraceArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let (kind, name) = named(&args.object, args.name.as_deref())?;
    let client = global.client().await?;
    let kinds = Kinds::read(&client).await?;
    let first = Object::read(&client, &kinds, global, kind, name).await?;
    let (chain, owner) = Owner::of(first, &client, &kinds).await?;
    let origin = match &owner {
        Some(owner) => owner.origin(&client, chain.last().expect("it is never empty"), args.inputs.clones()?).await,
        None => Origin::default(),
    };
    let trace = Trace::new(&chain, owner.as_ref(), origin);
    match global.output {
        Some(format) => output::print(format.text(&trace)?)?,
        None => output::print(trace.text(Timestamp::now()))?,
    }
    Ok(if owner.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn named<'w>(object: &'w str, name: Option<&'w str>) -> anyhow::Result<(&'w str, &'w str)> {
    let pair = name.map_or_else(|| object.split_once('/'), |name| Some((object, name)));
    let is_name = |text: &str| !text.is_empty() && !text.contains('/');
    pair.filter(|(kind, name)| is_name(kind) && is_name(name)).ok_or_else(|| {
        Hint::wrong_usage(
            "cannot tell which object is meant",
            "write KIND/NAME, for example deployment/web or secret/db",
        )
    })
}

/// The Sync whose inventory has an object, and the Sync's Repository, if the user may read it.
struct Owner {
    sync: Sync,
    repository: Option<Repository>,
    /// What the Sync gets values and variables from, besides its own repository.
    values: Vec<OfValues>,
    /// The digest of the fields that the Sync applied.
    applied: pipeline::inventory::Tracked,
}

impl Owner {
    /// The object, and the objects that made it, up to the one that is in the inventory of a Sync.
    async fn of(object: Object, client: &Client, kinds: &Kinds) -> anyhow::Result<(Vec<Object>, Option<Self>)> {
        let mut chain = vec![object];
        loop {
            let last = chain.last().expect("it is never empty");
            if let Some(owner) = Self::by_labels(last, client).await? {
                return Ok((chain, Some(owner)));
            }
            match last.owner(client, kinds).await? {
                Some(owner) if chain.len() < OWNERS => chain.push(owner),
                _ => return Ok((chain, None)),
            }
        }
    }

    /// The Sync that the object's labels name, if the Sync's inventory has the object. This is checked, because
    /// Kubernetes also copies labels to objects that nobody applied.
    async fn by_labels(object: &Object, client: &Client) -> anyhow::Result<Option<Self>> {
        let labels = (object.label(names::SYNC_NAMESPACE), object.label(names::SYNC_NAME));
        let (Some(namespace), Some(name)) = labels else { return Ok(None) };
        let syncs: Api<Sync> = Api::namespaced(client.clone(), namespace);
        let sync = syncs.get_opt(name).await.with_context(|| format!("cannot read Sync {namespace}/{name}"))?;
        let Some(sync) = sync else { return Ok(None) };
        let entries = sync.status.as_ref().map(|status| status.inventory.as_slice()).unwrap_or_default();
        let inventory = Inventory::read(entries).unwrap_or_default();
        let Some(applied) = inventory.get(&object.id).cloned() else { return Ok(None) };
        let key = pipeline::repository_of(&sync);
        let repositories: Api<Repository> = Api::namespaced(client.clone(), &key.namespace);
        // If the user may not read the Repository, only its URL is missing.
        let repository = repositories.get_opt(&key.name).await.ok().flatten();
        let values = OfValues::of(&sync, client).await;
        Ok(Some(Self { sync, repository, values, applied }))
    }

    /// Where the object is from, as far as the clone around the working directory knows.
    async fn origin(&self, client: &Client, object: &Object, mut clones: Clones) -> Origin {
        // If the API server does not say which kinds it serves, a chart is rendered without this list, which often
        // makes the same objects.
        let capabilities = match self.sync.spec.helm {
            Some(_) => capabilities(client).await.unwrap_or_default(),
            None => Capabilities::default(),
        };
        let (folder, renderer) = (Path::new("."), &folder::renderer());
        // If the user may not read an object that the chart needs, the message about the file says that it is missing.
        let _ = clones.read_cluster(client, &self.sync).await;
        let surroundings = Surroundings { capabilities, clones };
        let search = Search { folder, sync: &self.sync, id: &object.id, surroundings: &surroundings, renderer };
        Origin::find(&search, &self.applied)
    }
}

/// The result. Its fields are also those of the machine-readable output.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    object: Named,
    /// The objects that made the object, one after another, up to the one that is in Git.
    made_by: Vec<Named>,
    health: Condition,
    last_writer: Option<Writer>,
    /// Writers without a recorded time. Each of them may have written later than `last_writer`.
    undated_writers: Vec<Writer>,
    /// Whether the object in the cluster is still as it was applied from Git.
    as_applied: Option<bool>,
    sync: Option<OfSync>,
    repository: Option<OfRepository>,
    values: Vec<OfValues>,
    revision: Option<String>,
    commit: Option<String>,
    file: Option<File>,
    /// The revisions that the object may come from. There are several if it is not known which one it is.
    #[serde(skip)]
    revisions: Vec<String>,
    #[serde(skip)]
    why_no_file: Option<place::Unknown>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    api_version: String,
    kind: String,
    namespace: Option<String>,
    name: String,
    #[serde(skip)]
    shown: String,
}

#[derive(Serialize)]
struct Condition {
    state: &'static str,
    message: Option<String>,
}

#[derive(Serialize)]
struct Writer {
    manager: String,
    operation: String,
    subresource: Option<String>,
    time: Option<String>,
}

#[derive(Serialize)]
struct OfSync {
    namespace: String,
    name: String,
    state: &'static str,
    message: String,
}

#[derive(Serialize)]
struct OfRepository {
    namespace: String,
    name: String,
    url: Option<String>,
}

/// Values or variables that are not in the repository of the Sync.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfValues {
    /// The field of the Sync that names them.
    field: String,
    /// The Repository and the file, or the ConfigMap and the key.
    from: String,
    /// The revision that was last fetched of the Repository, if it may be read.
    revision: Option<String>,
}

#[derive(Serialize)]
struct File {
    path: String,
    line: u32,
}

impl Trace {
    fn new(chain: &[Object], owner: Option<&Owner>, Origin { revisions, place }: Origin) -> Self {
        let (first, last) = (&chain[0], chain.last().expect("it is never empty"));
        let revision = if let [revision] = revisions.as_slice() { Some(revision.clone()) } else { None };
        let (file, why_no_file) = match place {
            Some(Ok(place)) => (Some(File { path: place.file.to_string(), line: place.line }), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        let left = |owner: &Owner| left_to_managers(&owner.sync.spec.ignore_differences, &last.id);
        let live = FieldsDigest::beside(Some(last.managed_fields()), &owner.map(left).unwrap_or_default());
        Self {
            object: Named::of(first),
            made_by: chain.iter().skip(1).map(Named::of).collect(),
            health: first.health().into(),
            last_writer: first.last_writer().map(Writer::of),
            undated_writers: first.undated_writers().map(Writer::of).collect(),
            as_applied: owner.and_then(|owner| owner.applied.fields).map(|applied| live == Some(applied)),
            sync: owner.map(|owner| OfSync::of(&owner.sync)),
            repository: owner.map(OfRepository::of),
            values: owner.map(|owner| owner.values.clone()).unwrap_or_default(),
            commit: revision.as_deref().and_then(place::commit_of).map(str::to_owned),
            revision,
            revisions,
            file,
            why_no_file,
        }
    }

    fn text(&self, now: Timestamp) -> String {
        let mut lines = vec![("Object", self.object.shown.clone())];
        lines.extend(self.made_by.iter().map(|made_by| ("Made by", made_by.shown.clone())));
        let health = self
            .health
            .message
            .as_ref()
            .map_or(self.health.state.to_owned(), |message| format!("{}: {message}", self.health.state));
        lines.push(("Health", styled(self.health.style(), health)));
        let mut name = "Last writer";
        if let Some(writer) = &self.last_writer {
            let at = writer.time.as_ref().and_then(|time| time.parse::<Timestamp>().ok());
            let ago = at.map(|at| format!(", {} ago", time::short(now.duration_since(at)))).unwrap_or_default();
            lines.push((name, format!("{}{ago}", writer.shown())));
            name = "";
        }
        for writer in &self.undated_writers {
            let or = if name.is_empty() { "or " } else { "" };
            lines.push((name, format!("{or}{}: Kubernetes did not record when", writer.shown())));
            name = "";
        }
        let Some(sync) = &self.sync else {
            lines.push(("Sync", styled(WARN, "none: the object is not from Git, or no longer belongs to a Sync")));
            return lines_text(&lines);
        };
        lines.push(("Sync", format!("{}/{}", sync.namespace, sync.name)));
        let message = with_short_revisions(&sync.message);
        lines.push(("", styled(sync.style(), format!("{}: {message}", sync.state))));
        if self.as_applied == Some(false) {
            let changed = "since the object was applied, somebody changed fields in the cluster that are in Git";
            lines.push(("", styled(WARN, changed)));
        }
        if let Some(repository) = &self.repository {
            let url = repository.url.as_ref().map(|url| format!(", {url}")).unwrap_or_default();
            lines.push(("Repository", format!("{}/{}{url}", repository.namespace, repository.name)));
        }
        for (index, OfValues { from, revision, .. }) in self.values.iter().enumerate() {
            let revision = revision.as_ref().map(|revision| format!(", {}", short_revision(revision)));
            let name = if index == 0 { "Values" } else { "" };
            lines.push((name, format!("{from}{}", revision.unwrap_or_default())));
        }
        let revisions: Vec<_> = self.revisions.iter().map(|revision| short_revision(revision)).collect();
        lines.push((
            "Revision",
            match revisions.as_slice() {
                [] => styled(FAINT, "none was applied yet"),
                [one] => one.clone(),
                several => styled(
                    WARN,
                    format!(
                        "{}: it is not known which one, because at least one of them was applied only in part",
                        several.join(" or ")
                    ),
                ),
            },
        ));
        lines.extend(self.commit.clone().map(|commit| ("Commit", commit)));
        let digest = self.revision.as_deref().and_then(place::digest_of);
        lines.extend(digest.map(|digest| ("Digest", digest.to_owned())));
        lines.extend(self.file.as_ref().map(|file| ("File", format!("{}:{}", file.path, file.line))));
        lines.extend(self.why_no_file.as_ref().map(|why| ("File", styled(FAINT, why.to_string()))));
        lines_text(&lines)
    }
}

fn lines_text(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len() + 1).max().unwrap_or_default();
    let mut text = String::new();
    for (name, value) in lines {
        let name = if name.is_empty() { String::new() } else { format!("{name}:") };
        writeln!(text, "{name:width$}  {}", in_one_line(value)).expect("text grows");
    }
    text
}

impl Named {
    fn of(object: &Object) -> Self {
        let ObjectId { kind, namespace, name, .. } = object.id.clone();
        Self { shown: object.id.to_string(), api_version: object.api_version.clone(), kind, namespace, name }
    }
}

impl Writer {
    fn of(entry: &ManagedFieldsEntry) -> Self {
        Self {
            manager: entry.manager.clone().unwrap_or_default(),
            operation: entry.operation.clone().unwrap_or_default(),
            subresource: entry.subresource.clone().filter(|subresource| !subresource.is_empty()),
            time: entry.time.as_ref().map(|time| time.0.to_string()),
        }
    }

    fn shown(&self) -> String {
        let of = self.subresource.as_ref().map(|name| format!(" of subresource {name}")).unwrap_or_default();
        format!("{} ({}{of})", self.manager, self.operation)
    }
}

impl From<Health> for Condition {
    fn from(health: Health) -> Self {
        match health {
            Health::Current => Self { state: "healthy", message: None },
            Health::InProgress(why) => Self { state: "in progress", message: Some(why) },
            Health::Failed(why) => Self { state: "failed", message: Some(why) },
        }
    }
}

impl Condition {
    fn style(&self) -> Style {
        match self.state {
            "healthy" => GOOD,
            "failed" => BAD,
            _ => WARN,
        }
    }
}

impl OfSync {
    fn of(sync: &Sync) -> Self {
        let ObjectKey { namespace, name } = ObjectKey::of(sync);
        let ready = || find_condition(sync.conditions(), conditions::READY).map(|ready| ready.message.clone());
        let (state, message) = match State::of(sync) {
            State::Ready => ("ready", ready().unwrap_or_default()),
            State::Suspended => ("suspended", sync.suspend_reason().unwrap_or("no reason was given").to_owned()),
            State::Working { message } => ("working", message),
            State::Failed { reason, message, .. } => ("failed", format!("{reason}: {message}")),
        };
        Self { namespace, name, state, message }
    }

    fn style(&self) -> Style {
        match self.state {
            "ready" => GOOD,
            "failed" => BAD,
            _ => WARN,
        }
    }
}

impl OfValues {
    async fn of(sync: &Sync, client: &Client) -> Vec<Self> {
        let mut values = Vec::new();
        for file in pipeline::other_files(sync) {
            let key = file.repository();
            let repositories: Api<Repository> = Api::namespaced(client.clone(), &key.namespace);
            let repository = repositories.get_opt(&key.name).await.ok().flatten();
            let revision = repository.and_then(|repository| repository.status?.revision);
            values.push((file.entry, Self { field: file.entry.to_string(), from: file.name(), revision }));
        }
        for map in pipeline::input_maps(sync) {
            values.push((map.entry, Self { field: map.entry.to_string(), from: map.place(), revision: None }));
        }
        values.sort_by_key(|(entry, _)| *entry);
        values.into_iter().map(|(_, one)| one).collect()
    }
}

impl OfRepository {
    fn of(owner: &Owner) -> Self {
        let ObjectKey { namespace, name } = pipeline::repository_of(&owner.sync);
        Self { namespace, name, url: owner.repository.as_ref().map(|repository| repository.spec.url.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_in_kubectl() {
        let named = |line: &'static str| {
            let (object, name) = line.split_once(' ').map_or((line, None), |(object, name)| (object, Some(name)));
            named(object, name)
        };
        for line in ["deployment/web", "deployment web"] {
            assert_eq!(named(line).unwrap(), ("deployment", "web"));
        }
        for wrong in ["web", "deployment/", "/web", "deployment/a/b", "deployment a/b"] {
            assert!(named(wrong).is_err(), "{wrong} was read");
        }
    }
}
