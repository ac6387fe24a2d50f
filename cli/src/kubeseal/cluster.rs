//! The cluster that kubeseal's flags name, and the controller in it behind the API server's service proxy.

mod client;
mod config;

pub(super) use self::client::Controller;
pub(super) use self::config::ClusterFlags;
