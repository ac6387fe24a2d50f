//! Errors of a store, of a fetch, or of reading a snapshot.
//!
//! No message contains a credential: URLs are shown without their user part, and texts of a server are shortened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::index::is_full;
use crate::transport::ssh::SshError;
use crate::url::Serves;

/// The folder of the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", told(.action, .path, .source))]
pub struct StoreError {
    action: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

impl StoreError {
    pub(super) fn new(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }

    /// The CamelCase reason for a condition.
    pub fn reason(&self) -> &'static str {
        if self.is_full_disk() { "DiskFull" } else { "StoreError" }
    }

    /// Whether the disk is full.
    pub fn is_full_disk(&self) -> bool {
        is_full(&self.source)
    }
}

fn told(action: &str, path: &Path, source: &std::io::Error) -> String {
    let path = path.display();
    if is_full(source) {
        return format!(
            "the disk of the Git store is full: cannot {action} {path}: enlarge the volume, or delete Repositories that are not needed"
        );
    }
    format!("cannot {action} {path}: {source}")
}

/// Why a fetch failed. Revisions that were fetched before can still be used.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The Repository's namespace or name cannot be the name of a folder.
    #[error("{0:?} is not a Kubernetes name, so no folder is made for it")]
    InvalidKey(String),
    /// The URL cannot be used.
    #[error("the URL {url:?} cannot be used: {why}")]
    InvalidUrl {
        /// Without user and password.
        url: String,
        /// What is wrong with the URL.
        why: String,
    },
    /// This release does not support the transport.
    #[error("{scheme} is not supported: use an https:// URL, or ssh:// or git@host:path")]
    SchemeNotSupported {
        /// For example `git://`.
        scheme: String,
    },
    /// A `file://` URL, and the controller was not told to allow them.
    #[error("file:// URLs are refused: start the controller with --allow-file-urls to allow them")]
    FileUrlNotAllowed,
    /// Credentials would be sent unencrypted.
    #[error("credentials are not sent over plain http: use https, or remove spec.secretRef")]
    CredentialsOverHttp,
    /// A URL of Git over SSH, and no Secret.
    #[error("Git over SSH needs a private key and known_hosts: name a Secret with them in spec.secretRef")]
    SshNeedsKey,
    /// The content of the Secret cannot be used.
    #[error("the credentials cannot be used: {0}")]
    InvalidCredentials(String),
    /// The server asks for credentials, or refuses those that were sent.
    #[error("{}{}", authentication(.host, .refusal.status, *.with_credentials), .refusal)]
    AuthenticationFailed {
        /// The host that refused.
        host: String,
        /// Status 401 or 403.
        refusal: Refusal,
        /// Whether credentials were sent.
        with_credentials: bool,
    },
    /// The server knows no such repository, or hides it.
    #[error("{url} was not found: check spec.url{}", if *.with_credentials { ", and that the credentials may read it" } else { "; a private repository needs spec.secretRef" })]
    RepositoryNotFound {
        /// Without user and password.
        url: String,
        /// Whether credentials were sent.
        with_credentials: bool,
    },
    /// The server refuses the request, for some time or permanently.
    #[error("{}{}", unwilling(.host, .refusal.status), .refusal)]
    Refused {
        /// The host that refused.
        host: String,
        /// Its answer.
        refusal: Refusal,
    },
    /// The repository does not identify its objects by SHA-1.
    #[error(
        "{url} identifies its objects by {format}, and only SHA-1 is supported: use a repository that was made with \
         --object-format=sha1"
    )]
    ObjectFormat {
        /// Without user and password.
        url: String,
        /// For example `sha256`.
        format: String,
    },
    /// The name cannot be that of a branch or tag.
    #[error("{reference} cannot be used: {why}")]
    InvalidReference {
        /// For example `branch "a..b"`.
        reference: String,
        /// What is wrong with the reference.
        why: String,
    },
    /// The repository has no such branch or tag.
    #[error("{reference} was not found; {there_are}")]
    ReferenceNotFound {
        /// For example `branch "mian"`.
        reference: String,
        /// The existing names, shortened.
        there_are: String,
    },
    /// The repository had no such branch or tag at first, and has it now.
    #[error("{reference} was not found at first, and is there now; the fetch is tried again")]
    ReferenceAppeared {
        /// For example `branch "main"`.
        reference: String,
    },
    /// A version has another digest than `spec.ref.digest`.
    #[error(
        "{version:?} has {found} now, and spec.ref.digest asks for sha256:{pinned}: correct the digest if you \
         trust the new content; otherwise ask who changed it"
    )]
    OtherDigest {
        /// The tag or version.
        version: String,
        /// The digest in `spec.ref.digest`.
        pinned: String,
        /// The digest of the version on the server.
        found: FoundDigest,
    },
    /// A version that was fetched before has another digest now.
    #[error(
        "version {version} has {found} now, but {}: a version keeps its content, so the new content is not used. Publish it as \
         another version; or, if you trust it, set spec.ref.tag to {version:?} and spec.ref.digest to its digest",
        fetched_before(.fetched, .since.as_deref())
    )]
    DigestChanged {
        /// The version.
        version: String,
        /// The digest with which it was fetched.
        fetched: String,
        /// When it was fetched with that digest, if that is known.
        since: Option<String>,
        /// The digest of the version on the server.
        found: FoundDigest,
    },
    /// The received bytes do not have the digest with which they were requested.
    #[error(
        "{host} sent wrong bytes, which are not used: {what} should have the digest sha256:{expected}, and has {found}"
    )]
    WrongBytes {
        /// The host of the server.
        host: String,
        /// For example `the archive of 6.5.0`.
        what: String,
        /// The digest with which the bytes were requested.
        expected: String,
        /// The digest of the received bytes.
        found: FoundDigest,
    },
    /// A manifest names an archive that does not exist.
    #[error("{host} has no archive sha256:{digest}, although {reference} names it: push the archive again")]
    ArchiveNotFound {
        /// The host of the server.
        host: String,
        /// SHA-256 of the archive.
        digest: String,
        /// The revision that names it.
        reference: String,
    },
    /// A tag leads to something that has no usable archive.
    #[error(
        "{reference} has no archive that can be unpacked: {detail}; push a chart with `helm push`, or an artifact with one layer \
         that is a gzipped tar"
    )]
    ArtifactNotSupported {
        /// The tag or digest.
        reference: String,
        /// What it is.
        detail: String,
    },
    /// The Secret with the trusted keys cannot be used.
    #[error("the trusted keys (spec.verify.secretRef) cannot be used: {0}")]
    InvalidTrustedKeys(String),
    /// Signatures of this kind are checked only of what is there.
    #[error(
        "spec.verify.mode {}: use one, or set mode None to trust everything that is fetched",
        if *.0 == Serves::Charts { "Provenance is for charts of chart repositories (spec.chart)" } else { "Cosign is for oci:// URLs" }
    )]
    NoSignaturesThere(Serves),
    /// A chart has no provenance file.
    #[error(
        "the chart {revision} has no provenance file in {host}, and is not used: package it with `helm package --sign`, and upload \
         the .prov file beside the archive; it is looked for again"
    )]
    NoProvenance {
        /// The host of the server.
        host: String,
        /// The revision.
        revision: String,
    },
    /// The provenance file of a chart does not prove anything.
    #[error(
        "the provenance file of the chart {revision} in {host} is not valid for a trusted key (spec.verify.secretRef), and the chart is \
         not used: {why}"
    )]
    ProvenanceUntrusted {
        /// The host of the server.
        host: String,
        /// The revision.
        revision: String,
        /// What is wrong.
        why: String,
    },
    /// An artifact of a registry has no signature.
    #[error(
        "{revision} has no signature of cosign in {host}, and is not used: sign it with `cosign sign --key …`; the \
         signature is looked for again"
    )]
    Unsigned {
        /// The host of the registry.
        host: String,
        /// The revision.
        revision: String,
    },
    /// An artifact of a registry has signatures, and none is by a trusted key.
    #[error(
        "{revision} has {found} signature(s) in {host}, but none that is valid for a trusted key (spec.verify.secretRef), and is \
         not used: ask who signed it, and add the public key of the signer if you trust it"
    )]
    SignatureUntrusted {
        /// The host of the registry.
        host: String,
        /// The revision.
        revision: String,
        /// How many signatures there are.
        found: usize,
    },
    /// An archive is broken, or contains something that is refused, for example a link.
    #[error("the archive cannot be used: {0}")]
    InvalidArchive(String),
    /// The repository has no commit at all.
    #[error("the repository is empty: push a first commit")]
    EmptyRepository,
    /// The server does not send this commit.
    #[error(
        "{host} did not send commit {commit} (spec.ref.commit): the repository does not have it, or the server sends only \
         commits that a branch or tag leads to. Check the hash, and that a branch or tag with this commit was pushed"
    )]
    CommitNotFound {
        /// The host of the server.
        host: String,
        /// The requested hash.
        commit: String,
    },
    /// The fetch took longer than `spec.timeout`, or a connection took longer than its own limit.
    #[error("no answer from {host} within {seconds} s ({limit})")]
    Timeout {
        /// The host of the server.
        host: String,
        /// The allowed time.
        seconds: u64,
        /// What limits the time.
        limit: &'static str,
    },
    /// The fetch is no longer needed, because the Repository was edited or deleted.
    #[error("the fetch was cancelled: the Repository was edited or deleted meanwhile")]
    Cancelled,
    /// A login over SSH failed.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The server could not be reached, or failed.
    #[error("cannot fetch from {host}: {detail}")]
    Network {
        /// The host of the server.
        host: String,
        /// The innermost cause that is known.
        detail: String,
    },
    /// The server does not speak the expected protocol: for a Git repository, smart HTTP with shallow fetches.
    #[error("{url} {serves}: {detail}")]
    WrongServer {
        /// Without user and password.
        url: String,
        /// What was expected.
        serves: Serves,
        /// What is missing.
        detail: String,
    },
    /// The repository is larger than the limits for disk and memory allow.
    #[error("the repository is too large: {0}")]
    TooLarge(String),
    /// The server did not send a usable commit: it sent an error message of Git, or a pack that is broken or
    /// incomplete.
    #[error("{host} did not send a usable commit: {detail}")]
    Transfer {
        /// The host of the server.
        host: String,
        /// What is wrong.
        detail: String,
    },
    /// There was no free memory to unpack the commit.
    #[error("for {seconds} s, there was not enough memory to unpack the commit: other work uses it (--memory-budget)")]
    MemoryBusy {
        /// How long the fetch waited.
        seconds: u64,
    },
    /// The process that indexes the commit ended unexpectedly.
    #[error(
        "the commit could not be unpacked: {detail}; it is tried again after {minutes} minutes; another commit is tried at once"
    )]
    IndexingFailed {
        /// How it ended.
        detail: String,
        /// For how long the commit is not tried again.
        minutes: u64,
    },
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FetchError {
    /// The CamelCase reason for a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidKey(_) => "InvalidName",
            Self::InvalidUrl { .. } => "InvalidUrl",
            Self::SchemeNotSupported { .. } => "SchemeNotSupported",
            Self::FileUrlNotAllowed => "FileUrlNotAllowed",
            Self::CredentialsOverHttp => "CredentialsOverHttp",
            Self::InvalidCredentials(_) | Self::SshNeedsKey => "InvalidCredentials",
            Self::AuthenticationFailed { .. } => "AuthenticationFailed",
            Self::RepositoryNotFound { .. } => "RepositoryNotFound",
            Self::Refused { refusal: Refusal { status: 429, .. }, .. } => "TooManyRequests",
            Self::ObjectFormat { .. } => "ObjectFormatNotSupported",
            Self::InvalidReference { .. } => "InvalidReference",
            Self::ReferenceNotFound { .. } | Self::ReferenceAppeared { .. } => "ReferenceNotFound",
            Self::OtherDigest { .. } | Self::WrongBytes { .. } => "DigestMismatch",
            Self::DigestChanged { .. } => "DigestChanged",
            Self::ArchiveNotFound { .. } => "ArchiveNotFound",
            Self::ArtifactNotSupported { .. } => "ArtifactNotSupported",
            Self::InvalidTrustedKeys(_) => "InvalidTrustedKeys",
            Self::NoSignaturesThere(_) => "Unsupported",
            Self::Unsigned { .. } | Self::NoProvenance { .. } => "Unsigned",
            Self::SignatureUntrusted { .. } | Self::ProvenanceUntrusted { .. } => "SignatureUntrusted",
            Self::InvalidArchive(_) => "InvalidArchive",
            Self::EmptyRepository => "EmptyRepository",
            Self::CommitNotFound { .. } => "CommitNotFound",
            Self::Timeout { .. } => "Timeout",
            Self::Ssh(error) => error.reason(),
            Self::Cancelled => "FetchCancelled",
            Self::Network { .. } | Self::Refused { .. } => "NetworkError",
            Self::WrongServer { serves, .. } => serves.denial(),
            Self::TooLarge(_) => "TooLarge",
            Self::Transfer { .. } => "TransferFailed",
            Self::MemoryBusy { .. } => "MemoryBusy",
            Self::IndexingFailed { .. } => "IndexingFailed",
            Self::Store(error) => error.reason(),
        }
    }

    /// How long the server asks to wait before the next request; an hour at most.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::AuthenticationFailed { refusal, .. } | Self::Refused { refusal, .. } => refusal.retry_after,
            Self::Ssh(error) => error.retry_after(),
            _ => None,
        }
    }

    /// Whether only a change of the Repository's `spec` or of the controller's flags can help.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::InvalidKey(_)
                | Self::InvalidUrl { .. }
                | Self::SchemeNotSupported { .. }
                | Self::FileUrlNotAllowed
                | Self::CredentialsOverHttp
                | Self::SshNeedsKey
                | Self::InvalidReference { .. }
                | Self::NoSignaturesThere(_)
        )
    }
}

/// The digest of something that a server sent: 64 hex digits of SHA-256. `None` if the server is not that of the Repository: who chose
/// the Repository's URL must not learn from a digest what other servers serve.
#[derive(Clone, Debug)]
pub struct FoundDigest(pub Option<String>);

impl FoundDigest {
    /// The digest of something that the server of the Repository itself sent, if `is_own`, or another server.
    pub(crate) fn of(digest: String, is_own: bool) -> Self {
        Self(is_own.then_some(digest))
    }
}

impl fmt::Display for FoundDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(digest) => write!(f, "the digest sha256:{digest}"),
            None => f.write_str("another digest"),
        }
    }
}

/// The answer of a server with an error status. Its `Display` is the text that follows the status in an error message.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The server's text, shortened and without credentials; empty if it must not be repeated.
    pub said: String,
    /// How long the server asks to wait before the next request; an hour at most.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.said.is_empty() {
            write!(f, "; it says {:?}", self.said)?;
        }
        match self.retry_after {
            Some(pause) => write!(f, "; it asks for a pause of {} s", pause.as_secs()),
            None => Ok(()),
        }
    }
}

fn fetched_before(digest: &str, since: Option<&str>) -> String {
    let since = since.map(|since| format!(" at {since}")).unwrap_or_default();
    format!("it was fetched with the digest sha256:{digest}{since}")
}

fn unwilling(host: &str, status: u16) -> String {
    match status {
        429 => format!("{host} refuses because of too many requests (status 429)"),
        _ => format!("cannot fetch from {host}: the server answers with status {status}"),
    }
}

fn authentication(host: &str, status: u16, with_credentials: bool) -> String {
    match (with_credentials, status) {
        (false, _) => {
            format!("{host} asks for credentials (status {status}): name a Secret with them in spec.secretRef")
        }
        (true, 403) => format!(
            "{host} knows the credentials in spec.secretRef but does not let them read this repository (status 403)"
        ),
        (true, _) => {
            format!("{host} does not accept the credentials in spec.secretRef (status {status})")
        }
    }
}

/// A folder of a snapshot cannot be read, or has something that cannot be applied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The path could lead out of the repository.
    #[error("the path {0:?} is refused: a path must be relative to the repository's root, without '..'")]
    PathRefused(String),
    /// There is no such folder.
    #[error(
        "the folder {path:?} does not exist at {revision}: set spec.path to a folder that exists, or push this one; \
         {there_is}"
    )]
    PathNotFound {
        /// The requested path.
        path: String,
        /// The revision in which the path was looked for.
        revision: String,
        /// The existing names, shortened.
        there_is: String,
    },
    /// The path names a file, a link or a submodule.
    #[error(
        "{path:?} is a {kind} at {revision}, not a folder: spec.path must name a folder, or, with spec.helm, the archive of a chart (.tgz)"
    )]
    NotAFolder {
        /// The path, or the part of it that is not a folder.
        path: String,
        /// `file`, `symbolic link` or `submodule`.
        kind: &'static str,
        /// The revision in which the path was looked for.
        revision: String,
    },
    /// A `.gitsealignore` file excludes the folder.
    #[error("the folder {0:?} is ignored by a .gitsealignore above it: remove that rule, or change spec.path")]
    FolderIgnored(String),
    /// A symbolic link. Links are not followed, because they may lead anywhere.
    #[error(
        "{0} is a symbolic link, and links are not followed: replace it by what it leads to, or list it in .gitsealignore"
    )]
    Symlink(String),
    /// A symbolic link that a render would have to follow out of the repository, or without an end.
    #[error(
        "the path {0} leads out of the repository, or through links back to itself: only files of the repository are \
         read"
    )]
    LinkOutside(String),
    /// A submodule: a commit of another repository.
    #[error(
        "{0} is a submodule, and submodules are not fetched: make it a Repository of its own, or list it in .gitsealignore"
    )]
    Submodule(String),
    /// A Git LFS pointer. The content of the file is stored elsewhere.
    #[error(
        "{0} is a Git LFS pointer, and LFS files are not fetched: store the manifest itself in Git, or list it in .gitsealignore"
    )]
    LfsPointer(String),
    /// A manifest whose name is not UTF-8.
    #[error("the file name {0:?} is not UTF-8: rename it")]
    FileName(String),
    /// A limit was exceeded.
    #[error("{path}: {what}: split it, or exclude files that are not manifests with .gitsealignore")]
    TooLarge {
        /// The file or folder at which this was noticed.
        path: String,
        /// Which limit.
        what: String,
    },
    /// `.gitsealignore` cannot be read.
    #[error("{path}: {detail}")]
    IgnoreFile {
        /// The ignore file.
        path: String,
        /// What is wrong with the file.
        detail: String,
    },
    /// The revision is not (or no longer) on disk.
    #[error("revision {0} is not on disk: it comes back with the next successful fetch")]
    NotStored(String),
    /// Stored objects are missing or cannot be read; the next fetch fetches everything again.
    #[error("the stored objects are damaged and will be fetched again: {0}")]
    Corrupt(String),
}

impl SnapshotError {
    /// The CamelCase reason for a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PathRefused(_) => "InvalidPath",
            Self::PathNotFound { .. } => "PathNotFound",
            Self::NotAFolder { .. } => "NotAFolder",
            Self::FolderIgnored(_) => "FolderIgnored",
            Self::Symlink(_) | Self::LinkOutside(_) => "SymlinkRefused",
            Self::Submodule(_) => "SubmoduleRefused",
            Self::LfsPointer(_) => "LfsNotSupported",
            Self::FileName(_) => "InvalidFileName",
            Self::TooLarge { .. } => "TooLarge",
            Self::IgnoreFile { .. } => "InvalidIgnoreFile",
            Self::NotStored(_) => "RevisionNotStored",
            Self::Corrupt(_) => "StoreCorrupt",
        }
    }

    /// Whether only another commit or a change of the Sync's `spec` can help.
    pub fn is_terminal(&self) -> bool {
        !matches!(self, Self::NotStored(_) | Self::Corrupt(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_again_if_only_the_disk_is_at_fault() {
        let text = || "a".to_owned();
        let not_found = SnapshotError::PathNotFound { path: text(), revision: text(), there_is: text() };
        let table = [
            (SnapshotError::PathRefused(text()), "InvalidPath", true),
            (not_found, "PathNotFound", true),
            (SnapshotError::NotAFolder { path: text(), kind: "file", revision: text() }, "NotAFolder", true),
            (SnapshotError::FolderIgnored(text()), "FolderIgnored", true),
            (SnapshotError::Symlink(text()), "SymlinkRefused", true),
            (SnapshotError::Submodule(text()), "SubmoduleRefused", true),
            (SnapshotError::LfsPointer(text()), "LfsNotSupported", true),
            (SnapshotError::FileName(text()), "InvalidFileName", true),
            (SnapshotError::TooLarge { path: text(), what: text() }, "TooLarge", true),
            (SnapshotError::IgnoreFile { path: text(), detail: text() }, "InvalidIgnoreFile", true),
            (SnapshotError::NotStored(text()), "RevisionNotStored", false),
            (SnapshotError::Corrupt(text()), "StoreCorrupt", false),
        ];
        for (error, reason, terminal) in table {
            assert_eq!((error.reason(), error.is_terminal()), (reason, terminal), "{error}");
        }
    }
}
