use std::{io, path::PathBuf};

/// Why a part could not be built, or a control plane could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Go toolchain is not there.
    #[error(
        "`go` was not found, and {part} has to be built from source ({folder}); install Go 1.26 or later, or put \
         etcd and kube-apiserver into a directory named by KUBEBUILDER_ASSETS"
    )]
    GoMissing {
        /// What was to be built.
        part: &'static str,
        /// The Go module's folder.
        folder: PathBuf,
    },

    /// The Go build failed.
    #[error("building {part} in {folder} failed ({status}); its last lines:\n{output}")]
    Build {
        /// What was to be built.
        part: &'static str,
        /// The Go module's folder.
        folder: PathBuf,
        /// How `go build` ended.
        status: std::process::ExitStatus,
        /// The last lines of what it printed.
        output: String,
    },

    /// `KUBEBUILDER_ASSETS` names a directory without the programs.
    #[error(
        "KUBEBUILDER_ASSETS is {folder}, which has no {program}; put it there, or unset KUBEBUILDER_ASSETS to have it \
         built"
    )]
    Assets {
        /// The directory.
        folder: PathBuf,
        /// What is missing in it.
        program: &'static str,
    },

    /// A file, a pipe or a process failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was attempted, for instance `cannot write`.
        action: &'static str,
        /// What it was attempted on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A program ended before it did its job.
    #[error("{program} ended with exit code {code}; the end of its log {log}:\n{tail}")]
    Exited {
        /// The program.
        program: String,
        /// Its exit code, or 128 + the signal that ended it.
        code: i32,
        /// Its log; gone with the cluster when the cluster did not start.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },

    /// A program runs, but did not become ready in time.
    #[error("{program} was not ready after {seconds} s ({last}); the end of its log {log}:\n{tail}")]
    NotReady {
        /// The program.
        program: String,
        /// How long it was waited for.
        seconds: u64,
        /// The last answer, or the last failure to get one.
        last: String,
        /// Its log; gone with the cluster when the cluster did not start.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },

    /// No port was free.
    #[error("no free port on 127.0.0.1 between {from} and {to}")]
    NoFreePort {
        /// The first one tried.
        from: u16,
        /// The last one tried.
        to: u16,
    },

    /// A certificate or key could not be made.
    #[error("cannot make the {what}: {reason}")]
    Certificate {
        /// Whose certificate.
        what: String,
        /// What the library said.
        reason: String,
    },

    /// The Kubernetes client could not be made from a kubeconfig of ours.
    #[error("cannot make a Kubernetes client from {path}: {reason}")]
    Client {
        /// The kubeconfig.
        path: PathBuf,
        /// What the client said.
        reason: String,
    },

    /// A line of the audit log is not what the API server writes.
    #[error("{path}:{line}: not an audit event: {source}")]
    Audit {
        /// The audit log.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what was attempted on which path, where the system only says what went wrong.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.into(), source })
    }
}
