//! Runs work on untrusted data in a separate process, with limits of memory and time.
//!
//! A worker is the same program, started again as `worker <task>`, so nothing else has to be installed. Its environment is
//! empty, it has none of its parent's open files, and it leaves no core dump. If it needs more memory than it may have, only
//! the worker dies, not its parent.
//!
//! # Flow
//! The parent calls [`Worker::run`], which starts the process, sends the request, and waits for the answer. The `main`
//! of the child calls [`entry`] first. `entry` sets the limits of the process, reads the request, and runs the task.
//!
//! # Guarantees
//! - The worker ends when its parent ends for any reason: the worker's standard input is a pipe from the parent, which
//!   then closes.
//! - A worker that takes too long, or is no longer needed ([`Cancel`]), is killed.
//! - If the control group of both processes has no memory left, the kernel kills the worker first, not the parent.
//!
//! # Caveats
//! Linux only. [`Worker::run`] blocks. A worker has all the rights of its user. Nothing but the task's own code, which
//! is part of this project, keeps the worker from using these rights.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cancel;
mod child;
mod parent;

pub use cancel::{Cancel, OnCancel};
pub use child::{Task, entry};
pub use parent::{Limits, Worker, WorkerError};

/// The first argument of a worker.
const SUBCOMMAND: &str = "worker";
