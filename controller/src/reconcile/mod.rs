//! The reconcilers: one per kind, each working off its queue.

pub mod changes;
mod dependencies;
mod finalize;
mod heal;
mod health;
pub mod orphans;
mod record;
mod report;
pub mod repository;
mod restored;
pub mod sealed_secret;
mod status;
pub mod sync;
pub mod synced;
mod telling;
pub(crate) mod unopened;

pub use dependencies::depends_on;
pub use record::{Record, Records};
