//! Git repositories on disk: shallow, bare, one per Repository, and enough to work without the remote.
//!
//! # Flow
//! [`GitStore::fetch`] asks the remote what a [`Reference`] stands for and, when that is news, transfers one commit
//! without its history, less what is stored already. [`GitStore::snapshot`] opens a revision; [`Snapshot::content_ids`]
//! tells which folders changed without reading a file, [`Snapshot::folder`] hands out the manifests of one folder, one at a time.
//!
//! # Guarantees
//! - A revision is recorded only once all its objects are on disk. A process killed at any moment leaves the last good
//!   revision usable ([`GitStore::last`]), without network.
//! - Credentials go to the host in the Repository's URL only, over TLS only, and never into an error or a log.
//! - A pack is indexed in a process of its own, under a limit of memory ([`Indexing`]); the same commit is not tried
//!   again at once when that failed.
//! - A fetch ends when its timeout has passed, and soon after it is cancelled; packs go to disk as they arrive; a tenant's files are measured before
//!   they are read.
//! - Damaged objects are noticed and fetched again from scratch.
//!
//! # Assumptions
//! One process uses a store at a time. The remote speaks Git's smart HTTP protocol and can send a single commit.
//!
//! # Caveats
//! Everything here blocks: call it where blocking is allowed. `file://` URLs need the `git` program. SSH is not
//! supported yet.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod credentials;
mod error;
mod files;
mod generation;
mod index;
mod integrity;
mod range;
mod revision;
mod snapshot;
mod store;
mod transport;
mod url;

#[cfg(test)]
mod tests;

pub use credentials::Credentials;
pub use error::{FetchError, Refusal, SnapshotError, StoreError};
pub use files::{Folder, Limits};
pub use index::{Admission, INDEX_TASK, Indexing};
pub use revision::{InvalidRevision, Reference, Revision};
pub use snapshot::{ContentId, Snapshot};
pub use store::{Damaged, FetchRequest, GitStore, RepositoryKey, StoreOptions};
pub use url::host_of;
pub use worker::Cancel;
