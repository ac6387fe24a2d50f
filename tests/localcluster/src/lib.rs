//! A real Kubernetes control plane on one machine, without containers and without root: etcd, kube-apiserver,
//! kube-controller-manager, and kube-scheduler if requested.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use localcluster::{Cluster, ClusterOptions};
//!
//! let cluster = Cluster::start(ClusterOptions::default())?;
//! let client = cluster.client().await?;
//! # Ok(()) }
//! ```
//!
//! Any number of clusters can run at the same time. A cluster ends when its [`Cluster`] is dropped, and also when the
//! process is killed. A program that [`spawn_supervised`] starts ends when its [`ChildGuard`] is dropped, and also when
//! the process is killed.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::path::Path;

mod audit;
mod cluster;
mod error;
mod kubeconfig;
pub mod parts;
mod pki;
mod ports;
mod progress;
mod run_dir;
mod supervised;

pub use audit::AuditEvent;
pub use cluster::{Backup, Cluster, ClusterOptions, Program};
pub use error::{Error, Result};
pub use ports::ReservedPort;
pub use supervised::{ChildGuard, Output, Signal, spawn_supervised};

/// The last lines of a program's output, which usually say why it ended.
pub(crate) fn tail(output: &str) -> String {
    const LINES: usize = 25;
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// The last lines of a log, or nothing if there is no log.
pub(crate) fn tail_of(log: &Path) -> String {
    tail(&String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()))
}
