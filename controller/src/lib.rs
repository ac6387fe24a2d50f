//! The program of gitseal that runs in the cluster: it fetches Git repositories, unseals SealedSecrets and applies all
//! manifests.
//!
//! [`run`] starts all parts. `sync/` has what happens to one revision, with one file per stage.
#![cfg_attr(test, allow(clippy::unwrap_used))]
// Only what this file exports can be reached from outside; `pub` below says what the modules offer each other.
#![allow(unreachable_pub)]

mod admission;
mod attempts;
mod backoff;
mod cluster;
mod context;
mod drift;
mod events;
mod fair;
mod fetches;
mod http;
mod keys;
mod leader;
pub mod logging;
mod memory;
mod metrics;
mod passes;
mod queue;
mod rate;
mod render;
mod repository;
mod retries;
mod sealed_secret;
mod sources;
mod start;
mod status;
pub mod sync;
mod unseal;
mod watches;

pub use flags::Config;
pub use passes::Patience;
pub use start::{StartError, run};

/// If this process was started as a worker, does the work and returns the exit code. Must be called first in `main`.
pub fn work_apart() -> Option<std::process::ExitCode> {
    worker::entry(&[gitstore::INDEX_TASK])
}

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
