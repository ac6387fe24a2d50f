//! A real Git server on loopback, and work trees to commit from.
//!
//! [`GitServer`] serves bare repositories over smart HTTP(S): Git's own `git http-backend` behind a small HTTP server
//! that lives in the test's process, so nothing stays behind when a test fails. [`WorkTree`] runs the `git` program with
//! an environment of its own: no configuration of the user or the machine has a say.

mod backend;
mod server;
mod work_tree;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use server::{Access, GitServer, LoggedRequest, ServerOptions};
pub use work_tree::WorkTree;
