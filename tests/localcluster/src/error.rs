use std::{io, path::PathBuf};

/// Why a program could not be built, or a control plane could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Go toolchain is not installed.
    #[error(
        "`go` was not found, and {part} has to be built from source ({folder}); install Go 1.26 or later, or put \
         etcd and kube-apiserver into a directory named by KUBEBUILDER_ASSETS"
    )]
    GoMissing {
        /// What should have been built.
        part: &'static str,
        /// The Go module's folder.
        folder: PathBuf,
    },

    /// The Go build failed.
    #[error("building {part} in {folder} failed ({status}); its last lines:\n{output}")]
    Build {
        /// What should have been built.
        part: &'static str,
        /// The Go module's folder.
        folder: PathBuf,
        /// How `go build` ended.
        status: std::process::ExitStatus,
        /// The last lines of what it printed.
        output: String,
    },

    /// The directory in `KUBEBUILDER_ASSETS` lacks a program.
    #[error(
        "KUBEBUILDER_ASSETS is {folder}, which has no {program}; put it there, or unset KUBEBUILDER_ASSETS to have it \
         built"
    )]
    Assets {
        /// The directory.
        folder: PathBuf,
        /// The program that is missing.
        program: &'static str,
    },

    /// An operation on a file, a pipe or a process failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What failed, for example `cannot write`.
        action: &'static str,
        /// The path that the operation failed for.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },

    /// A program ended too early.
    #[error("{program} ended with exit code {code}; the end of its log {log}:\n{tail}")]
    Exited {
        /// The program.
        program: String,
        /// The exit code of the program, or 128 + the signal that ended it.
        code: i32,
        /// The program's log. The log is deleted with the cluster if the cluster did not start.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// A program runs, but did not become ready in time.
    #[error("{program} was not ready after {seconds} s ({last}); the end of its log {log}:\n{tail}")]
    NotReady {
        /// The program.
        program: String,
        /// How long we waited for the program.
        seconds: u64,
        /// The last answer, or why there was none.
        last: String,
        /// The program's log. The log is deleted with the cluster if the cluster did not start.
        log: PathBuf,
        /// The last lines of the log.
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
        /// The certificate or key that could not be made.
        what: String,
        /// The error of the library.
        reason: String,
    },

    /// A Kubernetes client could not be made from the cluster's kubeconfig.
    #[error("cannot make a Kubernetes client from {path}: {reason}")]
    Client {
        /// The kubeconfig.
        path: PathBuf,
        /// Why it could not be made.
        reason: String,
    },

    /// A line of the audit log cannot be read.
    #[error("{path}:{line}: not an audit event: {source}")]
    Audit {
        /// The audit log.
        path: PathBuf,
        /// The line number. The first line is 1.
        line: usize,
        /// What is wrong with the line.
        source: serde_json::Error,
    },
}

/// The result of the functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds to an error of the operating system which action failed, and on which path.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.into(), source })
    }
}
