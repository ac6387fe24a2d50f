//! Reads the objects of a folder from a snapshot, within the memory budget. Folders in which objects drift are kept in
//! memory, so that they are read only once. The results of kustomizations and charts are kept on disk, so that they are
//! rendered only once.

mod builds;
mod closure;
mod kept;
pub(crate) mod stored;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crds::{ObjectKey, Sync};
use gitstore::{ContentId, Folder, RemoteRepository, Snapshot, SnapshotError};
use manifests::{Location, ObjectId};
use pipeline::{
    Manifests, NotManifests, Render as _, Stage, StageError, Target, path_of,
    plan::possible_ids_of_hidden,
    render::{self as pure, Files, NotRendered, each_object},
    repository_of,
};
use renderer::{Applied, Capabilities, Changes, Names, Release};
use worker::Cancel;

#[cfg(test)]
pub(crate) use self::closure::Root;
pub(crate) use self::{builds::REMOTES, closure::Closure};
use self::{
    builds::{Builds, Processes},
    kept::Kept,
    stored::Identity,
};
use crate::{
    admission::Lease,
    attempts::{Attempts, Died},
    cluster::{ApiError, Served},
    inputs::Inputs,
    memory::{Memory, Spare as _, Taken},
    metrics::Metrics,
    passes,
    queue::Queue,
    remotes::Remotes,
    sources::Sources,
};

/// Reads and renders folders, and keeps the folders that will be needed again.
pub struct Renderer {
    memory: Memory,
    attempts: Attempts,
    metrics: Metrics,
    sources: Arc<Sources>,
    remotes: Arc<Remotes>,
    repositories: Arc<Queue<ObjectKey>>,
    processes: Arc<Processes>,
    served: Served,
    kept: Arc<Kept>,
}

/// The objects of a folder, with the memory that they take. The memory is given back when this value is dropped.
pub(crate) struct Rendered {
    /// The objects, with their values still sealed.
    pub(crate) manifests: Manifests,
    /// The notes of the chart, if it is one and has notes.
    pub(crate) notes: Option<Arc<str>>,
    /// The Sync's namespace, and the identity of the content.
    content: Content,
    /// What the folder depends on, if it is a chart or has kustomizations and was rendered just now.
    closure: Option<Arc<Closure>>,
    /// Whether the result is on disk, or is being written to it.
    is_stored: AtomicBool,
    memory: Taken,
}

/// The result of rendering a folder.
pub(crate) struct Rendering {
    /// The identity of everything in Git that the result depends on.
    pub(crate) content: ContentId,
    /// The objects, or why there are none.
    pub(crate) result: Result<Arc<Rendered>, RenderError>,
}

impl Rendered {
    /// How much of the memory budget the objects take.
    fn bytes(&self) -> u64 {
        self.memory.amount()
    }
}

/// The namespace of a Sync, and the identity of everything that the objects of its folder depend on. Namespaces do not
/// share rendered folders, because the memory of a folder counts against the share of its own namespace.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Content {
    namespace: String,
    identity: ContentId,
}

/// Why a folder could not be rendered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// The folder's files could not be read.
    #[error("{0}")]
    Files(#[from] SnapshotError),
    /// Files cannot be applied.
    #[error("{0}")]
    Parse(#[from] NotManifests),
    /// A kustomization or a chart was not rendered.
    #[error("{}", pure::RenderError::<SnapshotError>::NotRendered { folder: folder.clone(), why: why.clone() })]
    NotRendered {
        /// The folder of the kustomization or chart.
        folder: String,
        /// Why it was not rendered.
        why: NotRendered,
    },
    /// The objects of the folder take more memory than one folder may.
    #[error(
        "{path}: the objects of this file and of those before it need more than {} MiB of memory: split the folder, or raise --memory-budget", most >> 20
    )]
    TooMuchMemory {
        /// The file at which the lack of memory was noticed.
        path: String,
        /// The limit, in bytes.
        most: u64,
    },
    /// There is no free memory now, or no free process that renders.
    #[error("the memory of --memory-budget, or every process that renders, is in use now; the controller tries again")]
    NoMemoryNow,
    /// The controller's process died while it read this folder.
    #[error(
        "the controller's process ended while it read this folder at {revision} ({times} time{}), so the folder is not read again for a while; if this happens again, make the folder smaller", if *.times == 1 { "" } else { "s" }
    )]
    Died {
        /// The revision.
        revision: String,
        /// How often the process died.
        times: u32,
    },
    /// The folder has no manifests, but the Sync has objects.
    #[error(
        "'{path}' has no manifests, and an empty folder never prunes anything; to delete all objects of the Sync \
         ({inventory} object{}), delete the Sync", if *.inventory == 1 { "" } else { "s" }
    )]
    Nothing {
        /// The folder.
        path: String,
        /// How many objects the Sync has.
        inventory: usize,
    },
    /// A chart was not rendered, because the API server did not say what it serves.
    #[error("cannot ask the API server for its version and its kinds, which templates may use: {0}")]
    Capabilities(#[from] ApiError),
    /// The rendering panicked, or a shutdown stopped it.
    #[error("rendering was interrupted: {0}")]
    Interrupted(String),
}

impl StageError for RenderError {
    const STAGE: Stage = Stage::Render;

    fn reason(&self) -> &'static str {
        match self {
            Self::Files(error) => error.reason(),
            Self::Parse(error) => error.reason(),
            Self::NotRendered { why, .. } => why.reason,
            Self::TooMuchMemory { .. } => "TooLarge",
            Self::NoMemoryNow => "MemoryBusy",
            Self::Died { .. } => "ProcessDied",
            Self::Nothing { .. } => "NothingRendered",
            Self::Capabilities(_) => "DiscoveryFailed",
            Self::Interrupted(_) => "RenderInterrupted",
        }
    }

    /// Most errors are terminal: the same commit gives the same error again, so only another commit helps. A failure to
    /// read from the disk, for example, is not terminal.
    fn is_terminal(&self) -> bool {
        match self {
            Self::Files(error) => error.is_terminal(),
            Self::NotRendered { why, .. } => why.is_terminal,
            Self::Capabilities(_) | Self::Interrupted(_) | Self::NoMemoryNow | Self::Died { .. } => false,
            Self::Parse(_) | Self::TooMuchMemory { .. } | Self::Nothing { .. } => true,
        }
    }
}

/// Whether to wait for memory. A pass that already holds memory must not wait for more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Patience {
    /// Wait until memory is free.
    Waits,
    /// Fail at once with [`RenderError::NoMemoryNow`].
    HasNone,
}

/// What a [`Renderer`] works with.
pub struct Parts {
    /// The memory budget.
    pub memory: Memory,
    /// Notes which folders are being read, so that the next process knows at which folder this one died.
    pub attempts: Attempts,
    /// Metrics.
    pub metrics: Metrics,
    /// The current snapshots of the Repositories, with the identities of their folders.
    pub sources: Arc<Sources>,
    /// The remote repositories that kustomizations use.
    pub(crate) remotes: Arc<Remotes>,
    /// The Repositories to reconcile.
    pub repositories: Arc<Queue<ObjectKey>>,
    /// The path of the program that renders.
    pub program: PathBuf,
    /// How many bytes of memory each process of this program may use.
    pub process_memory: u64,
    /// What the API server of the cluster serves.
    pub served: Served,
}

impl Renderer {
    /// A renderer that works within the memory budget. It keeps rendered folders in memory, within a part of the
    /// budget, and drops them when the memory is needed for other work.
    pub fn new(parts: Parts) -> Self {
        let Parts { memory, attempts, metrics, sources, remotes, repositories, program, process_memory, served } =
            parts;
        let kept = Arc::new(Kept::new(memory.to_keep()));
        memory.gives_up(kept.clone());
        let processes = Arc::new(Processes::new(program, process_memory));
        Self { memory, attempts, metrics, sources, remotes, repositories, processes, served, kept }
    }

    /// All objects in the Sync's folder. They come from memory or from disk if they were kept there. `inventory` is the
    /// number of objects that the Sync has now.
    ///
    /// # Errors
    /// The folder is not in the snapshot. Other errors are in the [`Rendering`].
    pub(crate) async fn render(
        &self,
        snapshot: Arc<Snapshot>,
        sync: &Sync,
        inputs: &Inputs,
        inventory: usize,
        patience: Patience,
    ) -> Result<Rendering, RenderError> {
        let (target, repository) = (Target::of(sync), repository_of(sync));
        let namespace = sync.metadata.namespace.clone().unwrap_or_default();
        let chart = match sync.spec.helm {
            Some(_) => Some(Arc::new(ChartOfSync {
                sync: Sync { metadata: sync.metadata.clone(), spec: sync.spec.clone(), status: None },
                capabilities: self.served.get().await?,
            })),
            None => None,
        };
        let changes = Changes::of(sync);
        let (identity, inputs) = (identity_of(&target, chart.as_deref(), inputs), inputs.clone());
        let known = self.sources.closure(&repository, &target);
        let (folder, content) = blocking({
            let (snapshot, target, known) = (snapshot.clone(), target.clone(), known.clone());
            move || {
                let folder = snapshot.content_ids(&[&target.path]).pop().expect("one path, one identity")?;
                Ok::<_, SnapshotError>((folder, known.map_or(folder, |closure| closure.content(&snapshot, folder))))
            }
        })
        .await??;
        if let Some(kept) = self.kept.get(&Content { namespace: namespace.clone(), identity: identity(content) }) {
            self.metrics.folder_rendered(FROM_MEMORY);
            return Ok(Rendering { content, result: Ok(kept) });
        }
        let end = Arc::new(Mutex::new(None));
        let read = {
            let (snapshot, target, end, identity) = (snapshot.clone(), target.clone(), end.clone(), identity.clone());
            let before = self.sources.last_closure(&repository, &target);
            move |tree: &Folder, room: &mut Taken, processes: &Processes, has_turn: bool, cancel: &Cancel| {
                if let Some(stored) = stored::read(&snapshot, &target, folder, &identity, room) {
                    let closure = Some(Arc::new(stored.closure));
                    *lock(&end) = Some(End { from: FROM_DISK, content: stored.content, closure, missing: None });
                    return Ok(Applied { objects: stored.objects, notes: stored.notes });
                }
                let tool = if chart.is_some() { "Helm" } else { renderer::SUBSTITUTE };
                let inputs = inputs.read((tool, &target.path), room)?;
                let has_inputs = !inputs.is_empty();
                let release = chart.as_ref().map(|chart| chart.release(&inputs)).transpose()?.flatten();
                let changes = changes.as_ref().map(|changes| changes.with(inputs));
                let builds = Builds::new(processes, has_turn, &snapshot, cancel);
                let applied = match (&release, &changes) {
                    (Some(release), None) => builds.chart(release, room),
                    (Some(release), Some(changes)) => builds.changed_chart(changes, release, room),
                    (None, None) => Files(&builds).render(tree, room).map(|manifests| manifests.objects.into()),
                    (None, Some(changes)) => {
                        builds.changed_folder(changes, tree, &target.path, room).map(Applied::from)
                    }
                };
                let rendered = applied.map_err(|error| match release {
                    Some(_) => error,
                    None => maybe_chart(error, &snapshot, &target.path),
                });
                if builds.needs_turn() {
                    return Err(Unread::NeedsTurn);
                }
                let (is_built, missing) = (builds.has_begun(), builds.missing());
                let closure = builds.asked(has_inputs).map(|(folders, asked)| match release {
                    Some(_) => Closure::of_chart(&asked, changes.is_some()),
                    None => Closure::new(&target.path, &folders, &asked),
                });
                let is_complete = rendered.is_ok();
                let before = before.as_deref();
                let closure = closure.map(|closure| if is_complete { closure } else { closure.and_before(before) });
                *lock(&end) = Some(End {
                    from: match (is_built, &release) {
                        (true, Some(_)) => FROM_HELM,
                        (true, None) => FROM_KUSTOMIZE,
                        (false, _) => FROM_GIT,
                    },
                    content: closure.as_ref().map_or(folder, |closure| closure.content(&snapshot, folder)),
                    closure: closure.map(Arc::new),
                    missing: missing.clone(),
                });
                rendered.map_err(|error| if missing.is_some() { awaits_remote(error) } else { error }.into())
            }
        };
        let tree = || snapshot.folder(&target.path, gitstore::Limits::default());
        let read = self.read(&namespace, work_of(sync, &snapshot), tree, patience, read).await;
        // If reading the folder did not begin, `end` is still `None`.
        let end = lock(&end).take();
        let (mut content, mut closure) = (content, None);
        if let Some(end) = end {
            self.metrics.folder_rendered(end.from);
            // After a failure that may pass by itself, the paths that were asked for so far are not everything that the
            // folder depends on. A missing remote repository is among these paths.
            if end.missing.is_some() || read.as_ref().err().is_none_or(StageError::is_terminal) {
                content = end.content;
                self.sources.learn(&repository, &target, (&snapshot, content), end.closure.clone());
                closure = end.closure.filter(|_| end.from != FROM_DISK);
            }
            // Room is made only for what is known to be needed, so this comes after the closure was learned.
            if let Some(missing) = &end.missing {
                let is_in_use = |remote: &RemoteRepository| self.sources.uses(&repository, &remote.root());
                if self.remotes.want(&repository, missing, is_in_use) {
                    self.repositories.add(repository.clone());
                }
            }
        }
        let result = read.and_then(|(Applied { objects, notes }, memory)| {
            if objects.is_empty() && inventory > 0 {
                return Err(RenderError::Nothing { path: target.path, inventory });
            }
            let (content, is_stored) = (Content { namespace, identity: identity(content) }, AtomicBool::new(false));
            let (manifests, notes) = (Manifests { objects }, notes.map(Arc::from));
            Ok(Arc::new(Rendered { manifests, notes, content, closure, is_stored, memory }))
        });
        Ok(Rendering { content, result })
    }

    /// Keeps on disk what Kustomize or Helm rendered just now. Call this only for a folder without a plaintext Secret.
    pub(crate) async fn store(&self, snapshot: Arc<Snapshot>, sync: &Sync, rendered: &Arc<Rendered>) {
        let Some(closure) = rendered.closure.clone() else { return };
        // The result is stored only once, even if it is kept in memory and used again.
        if rendered.is_stored.swap(true, Ordering::Relaxed) {
            return;
        }
        let (target, rendered) = (Target::of(sync), rendered.clone());
        let written = blocking(move || {
            let identity = rendered.content.identity.to_string();
            let identity = Identity { closure: &closure, identity: &identity };
            stored::write(&snapshot, &target, identity, &rendered.manifests.objects, rendered.notes.as_deref())
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the rendered objects could not be stored; after a restart, the folder is rendered again");
            }
            Err(error) => tracing::warn!(%error, "the rendered objects could not be stored"),
        }
    }

    /// Keeps `rendered` in memory. Call this only for a folder that will be needed again soon and that has no plaintext
    /// Secret.
    pub(crate) fn keep(&self, rendered: &Arc<Rendered>) {
        if self.memory.is_waited_for() {
            return;
        }
        self.kept.insert(rendered);
        // Somebody may have begun to wait for memory just before the folder was kept, when there was nothing to give up
        // yet.
        if self.memory.is_waited_for() {
            self.kept.give_up();
        }
    }

    /// Which of the objects `wanted` are in hidden files of the Sync's folder, and where.
    pub(crate) async fn hidden(
        &self,
        snapshot: &Snapshot,
        sync: &Sync,
        inputs: &Inputs,
        wanted: Arc<BTreeSet<ObjectId>>,
    ) -> Result<BTreeMap<ObjectId, Location>, RenderError> {
        if sync.spec.helm.is_some() {
            // A chart has its own rules for hidden files.
            return Ok(BTreeMap::new());
        }
        let namespace = sync.metadata.namespace.clone().unwrap_or_default();
        let folder = || snapshot.folder(path_of(sync), gitstore::Limits::default()).hidden();
        let (revision, work) = work_of(sync, snapshot);
        let (sync, snapshot, inputs) = (sync.clone(), snapshot.clone(), inputs.clone());
        let read = move |folder: &Folder, room: &mut Taken, _: &Processes, _: bool, _: &Cancel| {
            let mut found = BTreeMap::new();
            let files = builds::Files::of(&snapshot);
            let names = match Changes::of(&sync) {
                Some(changes) => {
                    let inputs = inputs.read((renderer::SUBSTITUTE, path_of(&sync)), room)?;
                    changes.with(inputs).names(path_of(&sync), &files, room)?
                }
                None => Names::default(),
            };
            let mut names = names.of_folder();
            each_object(folder, room, |manifest| {
                let ids =
                    possible_ids_of_hidden(&sync, &names.of(manifest)).into_iter().filter(|id| wanted.contains(id));
                found.extend(ids.map(|id| (id, manifest.origin.clone())));
            })?;
            Ok(found)
        };
        // The caller holds memory, so reading must not wait for more.
        let work = (revision, format!("{work} hidden"));
        Ok(self.read(&namespace, work, folder, Patience::HasNone, read).await?.0)
    }

    /// Reads a folder with `read`, which takes memory when it needs some. The second argument is the revision and the
    /// name under which this work is noted in [`Attempts`].
    async fn read<T: Send + 'static>(
        &self,
        namespace: &str,
        (revision, what): (String, String),
        folder: impl Fn() -> Folder,
        patience: Patience,
        read: impl Fn(&Folder, &mut Taken, &Processes, bool, &Cancel) -> Result<T, Unread> + Clone + Send + 'static,
    ) -> Result<(T, Taken), RenderError> {
        let cancel = Cancel::new();
        // If the caller stops waiting, a process that renders is stopped.
        let _stop = CancelOnDrop(cancel.clone());
        let mut turn: Option<Arc<Lease>> = None;
        let mut taken = match patience {
            Patience::Waits => self.memory.some(namespace).await,
            Patience::HasNone => self.memory.try_some(namespace).ok_or(RenderError::NoMemoryNow)?,
        };
        loop {
            let (folder, attempts, what, read) = (folder(), self.attempts.clone(), what.clone(), read.clone());
            let (processes, has_turn, cancel) = (self.processes.clone(), turn.clone(), cancel.clone());
            let result = blocking(move || {
                let _attempt = attempts.begin(&what)?;
                // Everything that was read is dropped before the loop waits for more memory. The turn lasts as long as
                // the thread works, even if the caller no longer waits for the result.
                Ok::<_, Died>(read(&folder, &mut taken, &processes, has_turn.is_some(), &cancel).map(|read| {
                    taken.shrink();
                    (read, taken)
                }))
            });
            let died = |died: Died| RenderError::Died { revision: revision.clone(), times: died.times };
            let error = match result.await?.map_err(died)? {
                Ok(read) => return Ok(read),
                Err(Unread::NeedsTurn) => {
                    (turn, taken) = self.turn(namespace, patience).await?;
                    continue;
                }
                Err(Unread::Pure(error)) => error,
            };
            match error {
                pure::RenderError::NoRoom { path, had_most: true } => {
                    return Err(RenderError::TooMuchMemory { path, most: self.memory.of_a_folder() });
                }
                pure::RenderError::NoRoom { .. } if patience == Patience::HasNone => {
                    return Err(RenderError::NoMemoryNow);
                }
                pure::RenderError::NoRoom { .. } => taken = self.memory.most(namespace).await,
                pure::RenderError::Files(error) => return Err(error.into()),
                pure::RenderError::Parse(error) => return Err(error.into()),
                pure::RenderError::NotRendered { folder, why } => return Err(RenderError::NotRendered { folder, why }),
            }
        }
    }

    /// Takes a turn to use a renderer process, and then enough memory to begin to read. A pass that holds a turn may
    /// wait for memory, but a pass that holds memory never waits for a turn. So there are no deadlocks.
    async fn turn(&self, namespace: &str, patience: Patience) -> Result<(Option<Arc<Lease>>, Taken), RenderError> {
        Ok(match patience {
            Patience::Waits => {
                let turn = passes::in_turn(WAITS_FOR_PROCESS, self.processes.turn(namespace)).await;
                (Some(Arc::new(turn)), self.memory.some(namespace).await)
            }
            Patience::HasNone => {
                let turn = self.processes.try_turn(namespace).ok_or(RenderError::NoMemoryNow)?;
                (Some(Arc::new(turn)), self.memory.try_some(namespace).ok_or(RenderError::NoMemoryNow)?)
            }
        })
    }
}

/// What a pass waits for that needs a process to render.
const WAITS_FOR_PROCESS: &str =
    "a process that renders: all namespaces share a few, and each namespace uses at most one at a time";

/// Where the objects of a folder came from.
const FROM_GIT: &str = "git";
const FROM_MEMORY: &str = "memory";
const FROM_DISK: &str = "disk";
const FROM_KUSTOMIZE: &str = "kustomize";
const FROM_HELM: &str = "helm";

/// Returns a function that computes the identity of everything that the target's objects depend on. Its argument is
/// the identity of the target's content in Git. The objects of a chart also depend on the settings and the inputs of
/// the chart, and on the API versions of the cluster.
fn identity_of(
    target: &Target,
    chart: Option<&ChartOfSync>,
    inputs: &Inputs,
) -> impl Fn(ContentId) -> ContentId + Clone + use<> {
    let mut besides = chart.map(|ChartOfSync { capabilities, .. }| {
        let how = target.chart.as_deref().unwrap_or_default();
        let version = capabilities.kube_version.as_deref().unwrap_or_default();
        format!("{how} {version} {}", capabilities.api_versions.join(" "))
    });
    if let Some(inputs) = inputs.digest() {
        besides = Some(format!("{} inputs {inputs}", besides.unwrap_or_default()));
    }
    if let Some(changes) = &target.changes {
        besides = Some(format!("{} changed {changes}", besides.unwrap_or_default()));
    }
    move |content| besides.as_ref().map_or(content, |besides| ContentId::of_text(&format!("{content} {besides}")))
}

/// The chart of a Sync, and what its templates see of the cluster.
struct ChartOfSync {
    sync: Sync,
    capabilities: Arc<Capabilities>,
}

impl ChartOfSync {
    /// Makes the request to render.
    fn release(&self, inputs: &renderer::Inputs) -> Result<Option<Release>, pure::RenderError<SnapshotError>> {
        let Self { sync, capabilities } = self;
        let folder = || path_of(sync).to_owned();
        renderer::release_of(sync, capabilities, inputs)
            .map_err(|why| pure::RenderError::NotRendered { folder: folder(), why })
    }
}

/// If the folder could not be read because it is a chart, makes an error that says what to do.
fn maybe_chart(
    error: pure::RenderError<SnapshotError>,
    snapshot: &Snapshot,
    path: &str,
) -> pure::RenderError<SnapshotError> {
    let file = if path.is_empty() { "Chart.yaml".to_owned() } else { format!("{path}/Chart.yaml") };
    let is_chart = || matches!(snapshot.paths(gitstore::Limits::default()).at(&file), Ok(gitstore::At::File(_)));
    if !matches!(error, pure::RenderError::Parse(_)) || !is_chart() {
        return error;
    }
    let message = renderer::IS_CHART.to_owned();
    let why = NotRendered { tool: "Helm", reason: "IsChart", message, is_terminal: true };
    pure::RenderError::NotRendered { folder: path.to_owned(), why }
}

/// Where the objects of a folder came from, and what they depend on. This is known even if they could not be rendered.
struct End {
    from: &'static str,
    content: ContentId,
    closure: Option<Arc<Closure>>,
    missing: Option<RemoteRepository>,
}

/// If the folder was not rendered because a remote repository is not there yet, it is rendered again when it is.
fn awaits_remote(error: pure::RenderError<SnapshotError>) -> pure::RenderError<SnapshotError> {
    match error {
        pure::RenderError::NotRendered { folder, why } => {
            let why = NotRendered { reason: "RemoteNotFetched", is_terminal: false, ..why };
            pure::RenderError::NotRendered { folder, why }
        }
        error => error,
    }
}

/// Why a folder was not read.
enum Unread {
    Pure(pure::RenderError<SnapshotError>),
    /// The folder has a kustomization or a chart, and the caller has no turn to use a process that renders.
    NeedsTurn,
}

impl From<pure::RenderError<SnapshotError>> for Unread {
    fn from(error: pure::RenderError<SnapshotError>) -> Self {
        Self::Pure(error)
    }
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The revision, and the name under which the reading of the Sync's folder is noted in [`Attempts`].
fn work_of(sync: &Sync, snapshot: &Snapshot) -> (String, String) {
    let (meta, revision) = (&sync.metadata, snapshot.revision().to_string());
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    let what = format!("{namespace}/{name} {revision} {}", path_of(sync));
    (revision, what)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RenderError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| RenderError::Interrupted(error.to_string()))
}
