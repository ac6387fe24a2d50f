//! Finds the snapshot and the folder of a Sync.

use std::sync::Arc;

use crds::{ObjectKey, Sync};
use gitstore::{ContentId, Revision, Snapshot, SnapshotError};
use pipeline::{Stage, StageError, Target, repository_of, settings_digest};

use crate::sources::{FirstFetch, Lookup, Sources};

/// The snapshot and revision that a Sync is rendered from.
#[derive(Clone)]
pub(super) struct Sourced {
    /// The snapshot.
    pub(super) snapshot: Arc<Snapshot>,
    /// The revision of the snapshot.
    pub(super) revision: Revision,
    /// Identifies the content of the folder and the settings that it is applied with. If this text is unchanged, there
    /// is nothing to apply. What kustomizations depend on is known only after they were rendered once, so this text
    /// changes after the first render.
    pub(super) content: String,
}

/// Why there is nothing to render.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// The Repository is in another namespace.
    #[error("Repository {0} is in another namespace, and the controller was started without --allow-cross-namespace")]
    CrossNamespace(ObjectKey),
    /// The Repository does not exist.
    #[error("there is no Repository {0}; create it, or correct spec.repository")]
    NoRepository(ObjectKey),
    /// The Repository has not been fetched yet. This is not reported: the end of the first fetch puts the Sync into the
    /// queue.
    #[error("Repository {0} is being fetched for the first time")]
    Pending(ObjectKey),
    /// The first fetch of the Repository waits for its turn or takes long, which is reported.
    #[error("Repository {0} has not been fetched yet: its first fetch takes long; its own status says why")]
    Slow(ObjectKey),
    /// The Repository could not be fetched yet.
    #[error("Repository {0} has not been fetched yet; its own status says why")]
    NotFetched(ObjectKey),
    /// The Sync has a setting that this release does not support. Such a setting is refused, not ignored.
    #[error("{0} is not supported yet; remove it")]
    Unsupported(&'static str),
    /// The folder cannot be read. Nothing is pruned in this case.
    #[error("{message}; nothing is applied or deleted until the folder can be read")]
    Path {
        /// Condition reason.
        reason: &'static str,
        /// What is wrong with the folder.
        message: String,
        /// Whether only another commit or an edit can help.
        terminal: bool,
    },
}

impl SourceError {
    /// The error for a folder that cannot be read.
    pub(super) fn of_folder(error: &SnapshotError) -> Self {
        Self::Path { reason: error.reason(), message: error.to_string(), terminal: error.is_terminal() }
    }
}

impl StageError for SourceError {
    const STAGE: Stage = Stage::Source;

    fn reason(&self) -> &'static str {
        match self {
            Self::CrossNamespace(_) => "AccessDenied",
            Self::NoRepository(_) => "RepositoryNotFound",
            Self::NotFetched(_) | Self::Slow(_) | Self::Pending(_) => "RepositoryNotReady",
            Self::Unsupported(_) => "Unsupported",
            Self::Path { reason, .. } => reason,
        }
    }

    /// Most of these errors end with an event that puts the Sync into the queue again: an edit, a new Repository, or a
    /// new revision.
    fn is_terminal(&self) -> bool {
        match self {
            Self::NotFetched(_) | Self::Slow(_) | Self::Pending(_) => false,
            Self::Path { terminal, .. } => *terminal,
            Self::CrossNamespace(_) | Self::NoRepository(_) | Self::Unsupported(_) => true,
        }
    }
}

/// Finds the current snapshot of the Sync's folder. Makes no requests.
pub(super) fn source(sources: &Sources, allow_cross_namespace: bool, sync: &Sync) -> Result<Sourced, SourceError> {
    let repository = repository_of(sync);
    if !allow_cross_namespace && sync.metadata.namespace.as_deref() != Some(repository.namespace.as_str()) {
        return Err(SourceError::CrossNamespace(repository));
    }
    if sync.spec.kube_config.is_some() {
        return Err(SourceError::Unsupported("spec.kubeConfig (applying to another cluster)"));
    }
    match sources.lookup(&repository, &Target::of(sync)) {
        Lookup::NoRepository => Err(SourceError::NoRepository(repository)),
        Lookup::NotFetched(FirstFetch::Failed) => Err(SourceError::NotFetched(repository)),
        Lookup::NotFetched(FirstFetch::Slow) => Err(SourceError::Slow(repository)),
        Lookup::NotFetched(FirstFetch::Begun) => Err(SourceError::Pending(repository)),
        Lookup::Found { snapshot, content } => {
            let content = content.map_err(|error| SourceError::of_folder(&error))?;
            let revision = snapshot.revision().clone();
            Ok(Sourced { snapshot, revision, content: content_with_settings(content, sync) })
        }
    }
}

/// Identifies the content of a folder and the settings that it is applied with.
pub(super) fn content_with_settings(content: ContentId, sync: &Sync) -> String {
    format!("{content}+{}", settings_digest(sync))
}

/// Identifies the content and settings that `sync` would be applied with now; `None` if there is no snapshot or no
/// readable folder.
pub fn content_of(sources: &Sources, sync: &Sync) -> Option<String> {
    source(sources, true, sync).ok().map(|sourced| sourced.content)
}
