//! The basis of the tests, the demo and the benchmarks: a real control plane, real servers with Git repositories and
//! charts, and the built programs.

pub mod cgroup;
pub mod chart_repository;
pub mod charts;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fake;
pub mod faults;
pub mod git;
pub mod gitea;
pub mod hostile;
pub mod hunt;
pub mod kubernetes;
pub mod network;
pub mod programs;
pub mod registry;
pub mod scene;
pub mod service;
mod skip;
pub mod ssh;
pub mod wait;
pub mod web;

pub use scene::{Plane, Scene};
pub use skip::skip;
pub use wait::{eventually, within};
