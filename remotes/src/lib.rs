//! The names of things in other repositories, registries and chart repositories: references, revisions, and the URLs of remote bases and
//! charts. No I/O.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod remote;
mod revision;
mod url;

pub use remote::{RemoteRepository, allowed_path, remote_base, remote_chart};
pub use revision::{InvalidRevision, Reference, Revision, RevisionId, is_commit_id, is_digest, version};
pub use url::{CHARTS, OCI, chart_url, is_chart_name, redact, scheme_of};
