//! Git repositories on disk: one per Repository, bare and without history. They have all that is needed to work without
//! the remote.
//!
//! # Flow
//! [`GitStore::fetch`] asks the remote which commit a [`Reference`] stands for. If that commit is new, it is transferred without
//! its history and without objects that are stored already. A remote may also be an OCI registry or a chart repository: then the
//! reference stands for an archive, which is unpacked to a commit. [`GitStore::snapshot`] opens a revision. [`Snapshot::content_ids`]
//! says which folders changed, without reading a file. [`Snapshot::folder`] reads the manifests of one folder, one at a time.
//!
//! # Guarantees
//! - A revision is recorded only when all its objects are on disk. If the process is killed at any moment, the last good
//!   revision stays usable ([`GitStore::last`]), also without network.
//! - Credentials go to the host in the Repository's URL only, over TLS only, and never into an error or a log. Private keys for SSH go
//!   only to a process that cannot do more than speak with this host.
//! - An archive is used only if its bytes have the digest by which the registry or index names them. If keys are trusted
//!   ([`TrustedKeys`]), an artifact of a registry, or a chart of a chart repository, is used only if one of them signed it.
//! - An archive of a semantic version keeps its digest: another digest for a version that was fetched before is refused, unless
//!   the request names this digest.
//! - A pack is indexed (unpacked) in a process of its own, with a memory limit ([`Indexing`]). If that fails, the same commit is
//!   not tried again at once.
//! - A fetch ends when its timeout is over, or soon after it was cancelled. Packs are written to disk as they arrive. The size of
//!   a file is checked before it is read.
//! - Damaged objects are noticed, and everything is fetched again.
//!
//! # Assumptions
//! One process uses a store at a time. The remote speaks Git's smart HTTP protocol, or Git over SSH, and can send a single commit.
//!
//! # Caveats
//! Everything here blocks: call it where blocking is allowed. `file://` URLs need the `git` program, and Git over SSH the program
//! `gitseal-ssh` (`ssh/`).
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod archive;
mod chart_repository;
mod credentials;
mod deprecation;
mod error;
mod files;
mod generation;
mod index;
mod integrity;
mod paths;
mod range;
mod registry;
mod remote;
mod remote_bases;
mod snapshot;
mod store;
mod transport;
mod url;
mod verify;

#[cfg(test)]
mod tests;

pub use credentials::Credentials;
pub use error::{FetchError, FoundDigest, Refusal, SnapshotError, StoreError};
pub use files::{Folder, Limits};
pub use index::{Admission, INDEX_TASK, Indexing};
pub use paths::{At, Paths};
pub use remote_bases::{RemoteRepositories, RemoteState};
pub use remotes::{
    InvalidRevision, Reference, RemoteRepository, Revision, RevisionId, chart_url, remote_base, remote_chart,
};
pub use snapshot::{ContentId, Snapshot};
pub use store::{Damaged, FetchRequest, FetchedVersion, GitStore, RepositoryKey, StoreOptions};
pub use transport::ssh::SshError;
pub use url::{Serves, host_of};
pub use verify::TrustedKeys;
pub use worker::Cancel;
