//! A real Kubernetes control plane on one machine, without containers and without root: etcd, kube-apiserver,
//! kube-controller-manager and, when wanted, kube-scheduler.
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
//! Any number of clusters run side by side. Nothing of a cluster survives its [`Cluster`]: not when that is dropped, and
//! not when its process is killed. [`spawn_supervised`] does the same for any other program a test needs.

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

/// The end of a program's output, which is where it says why it ended.
pub(crate) fn tail(output: &str) -> String {
    const LINES: usize = 25;
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// The end of a log; empty when there is none.
pub(crate) fn tail_of(log: &Path) -> String {
    tail(&String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()))
}
