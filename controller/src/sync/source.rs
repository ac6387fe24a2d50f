//! Finds the snapshot and the folder of a Sync, and the files in other Repositories that its chart gets values from.

use std::sync::Arc;

use crds::{ObjectKey, Sync};
use gitstore::{ContentId, Revision, Snapshot, SnapshotError};
use pipeline::{OtherFile, Stage, StageError, Target, other_files, repository_of, settings_digest};

use super::inputs::{InputError, reads_cluster};
use crate::{
    context::Context,
    inputs::{Content, Inputs, OneInput, SEPARATOR},
    sources::{FirstFetch, Lookup},
};

/// The snapshot and revision that a Sync is rendered from.
#[derive(Clone)]
pub(super) struct Sourced {
    /// The snapshot.
    pub(super) snapshot: Arc<Snapshot>,
    /// The revision of the snapshot.
    pub(super) revision: Revision,
    /// Identifies the content of the folder and the settings that it is applied with. If this text is unchanged, there
    /// is nothing to apply. Which files a kustomization reads is known only after its first render, so this text
    /// changes then.
    pub(super) content: String,
    /// What the chart gets from outside of its repository.
    pub(super) inputs: Inputs,
    /// The notes of the chart, as soon as it is rendered.
    pub(super) notes: Option<Arc<str>>,
}

/// Why there is nothing to render.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// The Repository is in another namespace.
    #[error("Repository {0} is in another namespace, and the controller was started without --allow-cross-namespace")]
    CrossNamespace(ObjectKey),
    /// The Repository does not exist.
    #[error("there is no Repository {repository}; create it, or correct {field}")]
    NoRepository {
        /// The Repository.
        repository: ObjectKey,
        /// The field of the Sync that names it.
        field: String,
    },
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
    /// What the chart gets from the cluster has not been read yet. This is not reported: it is read in the next reconcile.
    #[error("the ConfigMaps and what the chart looks up have not been read yet")]
    Unread,
    /// Something could not be read from the cluster.
    #[error("{0}")]
    Cluster(Arc<InputError>),
    /// What the chart gets from another Repository or from the cluster cannot be had; the error inside says why.
    #[error("{0}")]
    Values(Box<Self>),
    /// Another Repository does not have the file with values.
    #[error(
        "{file}: there is no such file at {revision}: push it, or correct {field}; nothing is applied or deleted until it can be read"
    )]
    NoFile {
        /// The Repository and the path of the file.
        file: String,
        /// The revision of that Repository.
        revision: String,
        /// The field of the Sync that names the file.
        field: String,
    },
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
            Self::NoRepository { .. } => "RepositoryNotFound",
            Self::NoFile { .. } => "ValuesNotFound",
            Self::Values(error) => error.reason(),
            Self::Unread => "ValuesNotRead",
            Self::Cluster(error) => error.reason(),
            Self::NotFetched(_) | Self::Slow(_) | Self::Pending(_) => "RepositoryNotReady",
            Self::Unsupported(_) => "Unsupported",
            Self::Path { reason, .. } => reason,
        }
    }

    /// Most of these errors last until an event that also puts the Sync into the queue: an edit, a new Repository, or a
    /// new revision.
    fn is_terminal(&self) -> bool {
        match self {
            Self::NotFetched(_) | Self::Slow(_) | Self::Pending(_) | Self::Unread => false,
            Self::Cluster(error) => error.is_terminal(),
            Self::Path { terminal, .. } => *terminal,
            Self::Values(error) => error.is_terminal(),
            Self::CrossNamespace(_) | Self::NoRepository { .. } | Self::NoFile { .. } | Self::Unsupported(_) => true,
        }
    }
}

impl SourceError {
    /// The error without the information whether it concerns the folder or the values of the Sync.
    pub(super) fn itself(&self) -> &Self {
        match self {
            Self::Values(error) => error.itself(),
            error => error,
        }
    }
}

/// Finds the current snapshot of the Sync's folder, and of its values in other Repositories. Makes no requests.
pub(super) fn source(ctx: &Context, sync: &Sync) -> Result<Sourced, SourceError> {
    find(ctx, ctx.tenancy.allow_cross_namespace, sync)
}

fn find(ctx: &Context, allow_cross_namespace: bool, sync: &Sync) -> Result<Sourced, SourceError> {
    let repository = repository_of(sync);
    if !may_name(sync, &repository, allow_cross_namespace) {
        return Err(SourceError::CrossNamespace(repository));
    }
    if sync.spec.kube_config.is_some() {
        return Err(SourceError::Unsupported("spec.kubeConfig (applying to another cluster)"));
    }
    let (snapshot, content) =
        found(ctx.sources.lookup(&repository, &Target::of(sync)), &repository, || "spec.repository".to_owned())?;
    let content = content.map_err(|error| SourceError::of_folder(&error))?;
    let files = other_files(sync).map(|file| {
        let repository = file.repository();
        if !may_name(sync, &repository, allow_cross_namespace) {
            return Err(SourceError::CrossNamespace(repository));
        }
        input(ctx, file)
    });
    let of_values = |error| SourceError::Values(Box::new(error));
    let mut values = files.collect::<Result<Vec<_>, _>>().map_err(of_values)?;
    if reads_cluster(sync) {
        let read = ctx.inputs.of(sync).ok_or_else(|| of_values(SourceError::Unread))?;
        values.extend(read.map_err(|error| of_values(SourceError::Cluster(error)))?.iter().cloned());
    }
    let inputs = Inputs::new(&ctx.keyring, values);
    let (revision, content) = (snapshot.revision().clone(), content_with_settings(content, sync, &inputs));
    Ok(Sourced { snapshot, revision, content, inputs, notes: None })
}

/// Whether a Sync may name this Repository: one of its own namespace, or any if the controller was started with
/// `--allow-cross-namespace`.
fn may_name(sync: &Sync, repository: &ObjectKey, allow_cross_namespace: bool) -> bool {
    allow_cross_namespace || sync.metadata.namespace.as_deref() == Some(repository.namespace.as_str())
}

fn found<C>(
    lookup: Lookup<C>,
    repository: &ObjectKey,
    field: impl FnOnce() -> String,
) -> Result<(Arc<Snapshot>, C), SourceError> {
    let repository = repository.clone();
    match lookup {
        Lookup::NoRepository => Err(SourceError::NoRepository { repository, field: field() }),
        Lookup::NotFetched(FirstFetch::Failed) => Err(SourceError::NotFetched(repository)),
        Lookup::NotFetched(FirstFetch::Slow) => Err(SourceError::Slow(repository)),
        Lookup::NotFetched(FirstFetch::Begun) => Err(SourceError::Pending(repository)),
        Lookup::Found { snapshot, content } => Ok((snapshot, content)),
    }
}

/// A file in another Repository.
fn input(ctx: &Context, file: OtherFile<'_>) -> Result<OneInput, SourceError> {
    let repository = file.repository();
    let (snapshot, id) = found(ctx.sources.file(&repository, file.path), &repository, || file.entry.to_string())?;
    match id {
        Ok(Some(id)) => {
            let content = Content::File { snapshot, path: file.path.to_owned(), id };
            Ok(OneInput { entry: file.entry, name: file.name(), content })
        }
        Ok(None) => {
            let revision = snapshot.revision().to_string();
            Err(SourceError::NoFile { file: file.name(), revision, field: file.entry.to_string() })
        }
        Err(error) => Err(SourceError::Path {
            reason: error.reason(),
            message: format!("{}: {error}", file.name()),
            terminal: error.is_terminal(),
        }),
    }
}

/// Identifies the content of a folder, the settings that it is applied with, and the inputs of its chart.
pub(super) fn content_with_settings(content: ContentId, sync: &Sync, inputs: &Inputs) -> String {
    let settings = settings_digest(sync);
    match inputs.digest() {
        None => format!("{content}{SEPARATOR}{settings}"),
        Some(inputs) => format!("{content}{SEPARATOR}{settings}{SEPARATOR}{inputs}"),
    }
}

/// Identifies the content and settings that `sync` would be applied with now; `None` if there is no snapshot, no
/// readable folder, or no readable file with values.
pub fn content_of(ctx: &Context, sync: &Sync) -> Option<String> {
    find(ctx, true, sync).ok().map(|sourced| sourced.content)
}
