//! The in-cluster program of gitseal: one loop that pulls Git, unseals SealedSecrets and applies every manifest.
//!
//! [`run`] wires it; `sync/` is what happens to one revision, a file per stage.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backoff;
pub mod cluster;
pub mod config;
pub mod context;
mod drift;
pub mod events;
mod fair;
pub mod http;
pub mod keys;
pub mod leader;
pub mod logging;
pub mod metrics;
mod passes;
mod queue;
mod rate;
mod repository;
mod retries;
mod sealed_secret;
mod sources;
mod start;
mod status;
pub mod sync;
pub mod unseal;
mod watches;

pub use config::Config;
pub use start::{StartError, run};

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
