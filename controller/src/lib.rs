//! The in-cluster program of gitseal: one loop that pulls Git, unseals SealedSecrets and applies every manifest.
//!
//! [`run`] wires it; [`pipeline`] is what happens to one revision, a file per stage; [`reconcile`] decides when.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backoff;
pub mod cluster;
pub mod config;
pub mod context;
mod drift;
pub mod events;
mod fair;
pub mod http;
pub mod key;
pub mod keys;
pub mod leader;
pub mod logging;
pub mod metrics;
pub mod opened;
mod passes;
pub mod pipeline;
mod queue;
mod rate;
pub mod reconcile;
mod sources;
mod start;
mod watches;

pub use config::Config;
pub use start::{StartError, run};

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
