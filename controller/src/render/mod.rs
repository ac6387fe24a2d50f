//! Snapshot → objects, within the memory budget. Folders that drift are kept in memory, so that they are read only
//! once.

mod kept;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::Sync;
use gitstore::{Folder, Snapshot, SnapshotError};
use manifests::{Location, ObjectId};
use pipeline::{
    Manifests, NotManifests, Plain, Render as _, Stage, StageError, path_of,
    plan::possible_ids,
    render::{self as pure, each_object},
};

use self::kept::Kept;
use crate::{
    attempts::{Attempts, Died},
    memory::{Memory, Spare as _, Taken},
    metrics::Metrics,
};

/// Reads folders, and keeps those that will be needed again.
pub struct Renderer {
    memory: Memory,
    attempts: Attempts,
    metrics: Metrics,
    kept: Arc<Kept>,
}

/// The objects of a folder, and the memory that they take until nobody uses them.
pub(crate) struct Rendered {
    /// The objects. SealedSecrets are still sealed.
    pub(crate) manifests: Manifests,
    /// The Sync's namespace, and the identity of the content.
    content: Content,
    memory: Taken,
}

impl Rendered {
    /// How much of the budget it takes.
    fn bytes(&self) -> u64 {
        self.memory.amount()
    }
}

/// The content of a folder in one namespace. Namespaces do not share rendered folders, because each pays for its own.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Content {
    namespace: String,
    identity: String,
}

/// Why a folder could not be rendered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// The folder's files could not be read.
    #[error("{0}")]
    Files(#[from] SnapshotError),
    /// Kubernetes could not read a file.
    #[error("{0}")]
    Parse(#[from] NotManifests),
    /// The folder has a file of Kustomize.
    #[error("{}", pure::RenderError::<SnapshotError>::Kustomize(.0.clone()))]
    Kustomize(String),
    /// The objects of the folder take more memory than one folder may.
    #[error(
        "{path}: the objects up to here take more than {} MiB of memory: split the folder, or raise --memory-budget", most >> 20
    )]
    TooMuchMemory {
        /// The file at which this was noticed.
        path: String,
        /// The limit, in bytes.
        most: u64,
    },
    /// There is no free memory now.
    #[error("the memory of --memory-budget is in use now; it is tried again")]
    NoMemoryNow,
    /// The controller's process died while it read this folder.
    #[error(
        "the controller's process ended while it read this folder at {revision} ({times} time{}), so it is not tried for a while; if this happens again, make the folder smaller", if *.times == 1 { "" } else { "s" }
    )]
    Died {
        /// The revision.
        revision: String,
        /// How often.
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
    /// The rendering panicked, or a shutdown stopped it.
    #[error("rendering was interrupted: {0}")]
    Interrupted(String),
}

impl StageError for RenderError {
    const STAGE: Stage = Stage::Render;

    fn reason(&self) -> &'static str {
        match self {
            Self::Files(error) => error.reason(),
            Self::Parse(_) => "InvalidManifest",
            Self::Kustomize(_) => "KustomizeNotSupported",
            Self::TooMuchMemory { .. } => "TooLarge",
            Self::NoMemoryNow => "MemoryBusy",
            Self::Died { .. } => "ProcessDied",
            Self::Nothing { .. } => "NothingRendered",
            Self::Interrupted(_) => "RenderInterrupted",
        }
    }

    /// The same commit gives the same error again, so only another commit helps. There is an exception: reading from
    /// the disk failed.
    fn is_terminal(&self) -> bool {
        match self {
            Self::Files(error) => error.is_terminal(),
            Self::Interrupted(_) | Self::NoMemoryNow | Self::Died { .. } => false,
            Self::Parse(_) | Self::Kustomize(_) | Self::TooMuchMemory { .. } | Self::Nothing { .. } => true,
        }
    }
}

/// Whether to wait for memory. A pass that already holds some must not wait for more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Patience {
    /// Waits until memory is free.
    Waits,
    /// Fails at once with [`RenderError::NoMemoryNow`].
    HasNone,
}

impl Renderer {
    /// Renders within `memory`, and keeps a part of it that is given up when somebody needs it.
    pub fn new(memory: Memory, attempts: Attempts, metrics: Metrics) -> Self {
        let kept = Arc::new(Kept::new(memory.to_keep()));
        memory.gives_up(kept.clone());
        Self { memory, attempts, metrics, kept }
    }

    /// All objects in the Sync's folder, from memory if they were kept. `inventory` is the number of objects that the
    /// Sync has now.
    pub(crate) async fn render(
        &self,
        snapshot: Arc<Snapshot>,
        sync: &Sync,
        inventory: usize,
        patience: Patience,
    ) -> Result<Arc<Rendered>, RenderError> {
        let path = path_of(sync);
        let folder = || snapshot.folder(path, gitstore::Limits::default());
        let identity = blocking({
            let folder = folder();
            move || folder.identity()
        });
        let content =
            Content { namespace: sync.metadata.namespace.clone().unwrap_or_default(), identity: identity.await?? };
        if let Some(kept) = self.kept.get(&content) {
            self.metrics.folder_rendered("memory");
            return Ok(kept);
        }
        self.metrics.folder_rendered("git");
        let work = work_of(sync, &snapshot);
        let read = |folder: &Folder, room: &mut Taken| Plain.render(folder, room);
        let (manifests, memory) = self.read(&content.namespace, work, folder, patience, read).await?;
        if manifests.objects.is_empty() && inventory > 0 {
            return Err(RenderError::Nothing { path: path.to_owned(), inventory });
        }
        Ok(Arc::new(Rendered { manifests, content, memory }))
    }

    /// Keeps `rendered` in memory. Call this only for a folder that will be needed again soon and that contains no
    /// plaintext Secret.
    pub(crate) fn keep(&self, rendered: &Arc<Rendered>) {
        if self.memory.is_waited_for() {
            return;
        }
        self.kept.insert(rendered);
        // Somebody may have begun to wait before it was kept, and could not have it given up.
        if self.memory.is_waited_for() {
            self.kept.give_up();
        }
    }

    /// Which of the objects `wanted` are in hidden files of the Sync's folder, and where.
    pub(crate) async fn hidden(
        &self,
        snapshot: &Snapshot,
        sync: &Sync,
        wanted: Arc<BTreeSet<ObjectId>>,
    ) -> Result<BTreeMap<ObjectId, Location>, RenderError> {
        let namespace = sync.metadata.namespace.clone().unwrap_or_default();
        let folder = || snapshot.folder(path_of(sync), gitstore::Limits::default()).hidden();
        let (revision, work) = work_of(sync, snapshot);
        let sync = sync.clone();
        let read = move |folder: &Folder, room: &mut Taken| {
            let mut found = BTreeMap::new();
            each_object(folder, room, |manifest| {
                let ids = possible_ids(&sync, manifest).into_iter().filter(|id| wanted.contains(id));
                found.extend(ids.map(|id| (id, manifest.origin.clone())));
            })?;
            Ok(found)
        };
        // The caller holds memory.
        let work = (revision, format!("{work} hidden"));
        Ok(self.read(&namespace, work, folder, Patience::HasNone, read).await?.0)
    }

    /// Reads a folder with `read`, which takes memory as it needs it. `work` is the revision, and a name for this work.
    async fn read<T: Send + 'static>(
        &self,
        namespace: &str,
        (revision, what): (String, String),
        folder: impl Fn() -> Folder,
        patience: Patience,
        read: impl Fn(&Folder, &mut Taken) -> Result<T, pure::RenderError<SnapshotError>> + Clone + Send + 'static,
    ) -> Result<(T, Taken), RenderError> {
        let mut taken = match patience {
            Patience::Waits => self.memory.some(namespace).await,
            Patience::HasNone => self.memory.try_some(namespace).ok_or(RenderError::NoMemoryNow)?,
        };
        loop {
            let (folder, attempts, what, read) = (folder(), self.attempts.clone(), what.clone(), read.clone());
            let result = blocking(move || {
                let _attempt = attempts.begin(&what)?;
                // Everything that was read is dropped before waiting for more memory.
                Ok::<_, Died>(read(&folder, &mut taken).map(|read| {
                    taken.shrink();
                    (read, taken)
                }))
            });
            let died = |died: Died| RenderError::Died { revision: revision.clone(), times: died.times };
            match result.await?.map_err(died)? {
                Ok(read) => return Ok(read),
                Err(pure::RenderError::NoRoom { path, had_most: true }) => {
                    return Err(RenderError::TooMuchMemory { path, most: self.memory.of_a_folder() });
                }
                Err(pure::RenderError::NoRoom { .. }) if patience == Patience::HasNone => {
                    return Err(RenderError::NoMemoryNow);
                }
                Err(pure::RenderError::NoRoom { .. }) => taken = self.memory.most(namespace).await,
                Err(pure::RenderError::Files(error)) => return Err(error.into()),
                Err(pure::RenderError::Parse(error)) => return Err(error.into()),
                Err(pure::RenderError::Kustomize(path)) => return Err(RenderError::Kustomize(path)),
            }
        }
    }
}

/// The revision, and the name under which reading the Sync's folder is noted.
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
