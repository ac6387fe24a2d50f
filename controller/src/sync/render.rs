//! Snapshot → objects: plain YAML and JSON, parsed in Rust within bounds.

use std::{cell::RefCell, sync::Arc};

use crds::Sync;
use gitstore::{Snapshot, SnapshotError};
use manifests::{ErrorKind, Limits, Manifest, ParseError, Tree, TreeFile};
use pipeline::{Stage, StageError, path_of};

use crate::{
    attempts::Attempts,
    memory::{Memory, Taken},
};

/// What reading a folder may take, and what was seen to end this process.
#[derive(Clone)]
pub struct Bounds {
    /// Memory.
    pub memory: Memory,
    /// Begun work.
    pub attempts: Attempts,
}

/// Why a folder could not be rendered.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenderError {
    /// The folder's files could not be read.
    #[error("{0}")]
    Files(#[from] SnapshotError),
    /// A file is not what Kubernetes reads.
    #[error("{0}")]
    Parse(#[from] ParseError),
    /// A file that asks for Kustomize.
    #[error(
        "{0}: Kustomize comes with the renderer in a later release: render it first, or list the folder in .gitsealignore"
    )]
    Kustomize(String),
    /// The objects of the folder take more memory than one folder may.
    #[error(
        "{path}: the objects up to here take more than {} MiB of memory: split the folder, or raise --memory-budget", most >> 20
    )]
    TooMuchMemory {
        /// Where it was noticed.
        path: String,
        /// How much there is, in bytes.
        most: u64,
    },
    /// Others use the memory now.
    #[error("there is no memory for another folder now; it is tried again")]
    NoMemoryNow,
    /// The controller ended while it read this very folder.
    #[error(
        "the controller's process ended while it read this folder at {revision} ({times} time{}), so it is left alone for a while: if that was not by chance, make the folder smaller", if *.times == 1 { "" } else { "s" }
    )]
    Died {
        /// The revision.
        revision: String,
        /// How often.
        times: u32,
    },
    /// There are no manifests where there were some before.
    #[error(
        "'{path}' holds no manifests, and an empty folder never prunes; delete the Sync if its {inventory} objects are to go"
    )]
    Nothing {
        /// The folder.
        path: String,
        /// How many objects the Sync has.
        inventory: usize,
    },
    /// The renderer itself broke.
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

    /// The same commit renders the same: only another one helps, unless the reading failed and not what was read.
    fn is_terminal(&self) -> bool {
        match self {
            Self::Files(error) => error.is_terminal(),
            Self::Interrupted(_) | Self::NoMemoryNow | Self::Died { .. } => false,
            Self::Parse(_) | Self::Kustomize(_) | Self::TooMuchMemory { .. } | Self::Nothing { .. } => true,
        }
    }
}

/// Objects as the folder holds them, secrets still sealed.
pub(super) struct Manifests {
    /// The objects, in the order of their files.
    pub(super) objects: Vec<Manifest>,
}

/// Reads and parses every manifest of the Sync's folder. `inventory` is the number of objects that it has now. What the
/// objects take of the budget is to be kept as long as they are.
pub(super) async fn render(
    bounds: &Bounds,
    snapshot: Arc<Snapshot>,
    sync: &Sync,
    inventory: usize,
    patience: Patience,
) -> Result<(Manifests, Taken), RenderError> {
    let path = path_of(sync);
    let namespace = sync.metadata.namespace.as_deref().unwrap_or_default();
    let revision = snapshot.revision().to_string();
    let what = format!("{namespace}/{} {revision} {path}", sync.metadata.name.as_deref().unwrap_or_default());
    let mut taken = match patience {
        Patience::Waits => bounds.memory.some(namespace).await,
        Patience::HasNone => bounds.memory.try_some(namespace).ok_or(RenderError::NoMemoryNow)?,
    };
    let parsed = loop {
        let died = |died: crate::attempts::Died| RenderError::Died { revision: revision.clone(), times: died.times };
        let attempt = bounds.attempts.begin(&what).map_err(died)?;
        let folder = snapshot.folder(path, gitstore::Limits::default());
        let read = tokio::task::spawn_blocking(move || {
            let _attempt = attempt;
            read(&folder, taken)
        });
        match read.await.map_err(|error| RenderError::Interrupted(error.to_string()))? {
            Ok(parsed) => break parsed,
            Err(Unread::Error(error)) => return Err(error),
            // All that was read is dropped before more is waited for.
            Err(Unread::NoMemory { path, had_most: true }) => {
                return Err(RenderError::TooMuchMemory { path, most: bounds.memory.of_a_folder() });
            }
            Err(Unread::NoMemory { .. }) if patience == Patience::HasNone => return Err(RenderError::NoMemoryNow),
            Err(Unread::NoMemory { .. }) => taken = bounds.memory.most(namespace).await,
        }
    };
    if parsed.0.objects.is_empty() && inventory > 0 {
        return Err(RenderError::Nothing { path: path.to_owned(), inventory });
    }
    Ok(parsed)
}

/// Whether memory is waited for: not by who holds some.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Patience {
    /// It is.
    Waits,
    /// It is not.
    HasNone,
}

/// Why a folder is not read to its end.
enum Unread {
    Error(RenderError),
    /// It takes more than is to be had now, or ever.
    NoMemory {
        path: String,
        had_most: bool,
    },
}

impl From<SnapshotError> for Unread {
    fn from(error: SnapshotError) -> Self {
        Self::Error(error.into())
    }
}

fn read<T: Tree>(folder: &T, taken: Taken) -> Result<(Manifests, Taken), Unread>
where
    Unread: From<T::Error>,
{
    let taken = RefCell::new(taken);
    let mut objects = Vec::new();
    let measured = |path: &str, bytes: u64| {
        let mut taken = taken.borrow_mut();
        let is_there = taken.reserve(in_memory(bytes)) || taken.reserve_all() && taken.left() >= in_memory(bytes);
        if is_there { Ok(()) } else { Err(Unread::NoMemory { path: path.to_owned(), had_most: taken.is_most() }) }
    };
    folder.each_file(measured, |file| {
        if manifests::is_kustomization(file.path) {
            return Err(Unread::Error(RenderError::Kustomize(file.path.to_owned())));
        }
        objects.extend(parse(file, &mut taken.borrow_mut())?);
        Ok(())
    })?;
    Ok((Manifests { objects }, taken.into_inner()))
}

/// What a file takes while it is read: itself, and its text.
fn in_memory(bytes: u64) -> u64 {
    bytes.saturating_mul(2)
}

/// Parses one file within what is left of the budget, and takes more as long as there is.
fn parse(file: TreeFile<'_>, taken: &mut Taken) -> Result<Vec<Manifest>, Unread> {
    let text = in_memory(file.bytes.len() as u64);
    // What most files take; the first try of others ends early.
    let _ = taken.reserve(text.saturating_mul(6)) || taken.reserve_all();
    loop {
        let left = taken.left().saturating_sub(text);
        let limits = Limits { memory: usize::try_from(left).unwrap_or(usize::MAX), ..Limits::default() };
        match manifests::parse_measured(file.path, file.bytes, &limits) {
            Ok(parsed) => {
                taken.use_up(parsed.memory as u64);
                return Ok(parsed.manifests);
            }
            Err(error) if matches!(error.kind(), ErrorKind::TooMuchMemory(_)) => {
                let (had_most, more) = (taken.is_most(), taken.left().saturating_mul(2).max(text));
                if had_most || !(taken.reserve(more) || taken.reserve_all()) {
                    return Err(Unread::NoMemory { path: file.path.to_owned(), had_most });
                }
            }
            Err(error) => return Err(Unread::Error(error.into())),
        }
    }
}
