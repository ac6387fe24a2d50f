//! The program of gitseal that runs in the cluster: it fetches Git repositories, unseals SealedSecrets and applies all
//! manifests.
//!
//! [`run`] starts all parts. The folder `sync/` has the pipeline that applies one revision, with one file per stage.
#![cfg_attr(test, allow(clippy::unwrap_used))]
// Other crates can use only what this file exports. `pub` in the modules marks what a module offers to the other
// modules.
#![allow(unreachable_pub)]

mod admission;
mod attempts;
mod backoff;
mod cluster;
mod context;
mod drift;
mod events;
mod expressions;
mod fair;
mod fetches;
mod http;
mod inputs;
mod keys;
mod leader;
pub mod logging;
mod memory;
mod metrics;
mod passes;
mod queue;
mod rate;
mod remotes;
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

/// If this process was started as a worker, does the work and returns the exit code. `main` must call this function
/// before anything else.
pub fn work_apart() -> Option<std::process::ExitCode> {
    worker::entry(&[gitstore::INDEX_TASK, pipeline::health::apart::TASK])
}

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
