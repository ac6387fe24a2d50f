//! A real Git server on a loopback address, and work trees to commit from.
//!
//! [`GitServer`] serves bare repositories over smart HTTP(S). It runs Git's own `git http-backend` behind a small HTTP
//! server in the test's process, so nothing keeps running when a test fails. [`WorkTree`] runs the `git` program with
//! its own environment, without any configuration of the user or the machine.

mod backend;
mod server;
mod work_tree;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use server::{GitServer, ServerOptions};
pub use work_tree::WorkTree;
