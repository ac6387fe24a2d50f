//! Snapshot → objects: plain YAML and JSON, parsed in Rust within bounds.

use std::sync::Arc;

use crds::Sync;
use manifests::{Limits, Manifest, ParseError};
use pipeline::{Stage, StageError, path_of};

use gitstore::{Snapshot, SnapshotError};

/// Why a folder could not be rendered.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenderError {
    /// The folder's files could not be read.
    #[error("{0}")]
    Files(#[from] SnapshotError),
    /// A file is not what Kubernetes reads.
    #[error("{0}")]
    Parse(#[from] ParseError),
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
            Self::Nothing { .. } => "NothingRendered",
            Self::Interrupted(_) => "RenderInterrupted",
        }
    }

    /// The same commit renders the same: only another one helps.
    fn is_terminal(&self) -> bool {
        !matches!(self, Self::Interrupted(_))
    }
}

/// Objects as the folder holds them, secrets still sealed.
pub(super) struct Manifests {
    /// The objects, in the order of their files.
    pub(super) objects: Vec<Manifest>,
}

/// Reads and parses every manifest of the Sync's folder. `inventory` is the number of objects that it has now.
pub(super) async fn render(snapshot: Arc<Snapshot>, sync: &Sync, inventory: usize) -> Result<Manifests, RenderError> {
    let path = path_of(sync).to_owned();
    let folder = path.clone();
    let parsed = tokio::task::spawn_blocking(move || read(&snapshot, &path))
        .await
        .map_err(|error| RenderError::Interrupted(error.to_string()))??;
    if parsed.objects.is_empty() && inventory > 0 {
        return Err(RenderError::Nothing { path: folder, inventory });
    }
    Ok(parsed)
}

fn read(snapshot: &Snapshot, path: &str) -> Result<Manifests, RenderError> {
    let limits = Limits::default();
    let mut objects = Vec::new();
    for file in snapshot.files(path, &gitstore::Limits::default())? {
        objects.extend(manifests::parse(&file.path, &file.bytes, &limits)?);
    }
    Ok(Manifests { objects })
}
