//! A process of its own for work on what strangers wrote: bytes in, bytes out, within bounds of memory and time.
//!
//! A worker is the program itself, started once more with `worker <task>`: nothing has to be installed beside it. Its
//! environment is empty, it has no file of its parent's open, and it leaves no core dump. When it needs more memory than
//! it may have, it dies, and its parent does not.
//!
//! # Flow
//! The parent calls [`Worker::run`], which starts the process, sends the request, and waits for the answer. The child's
//! `main` calls [`entry`] before anything else, which limits the process, reads the request, and runs the task.
//!
//! # Guarantees
//! - The parent's end, whatever its cause, ends the worker: its standard input is a pipe that then closes.
//! - A worker that takes too long, and one that is not wanted any more ([`Cancel`]), is killed.
//! - When memory runs short for the whole group of processes, the kernel takes the worker first, not the parent.
//!
//! # Caveats
//! Linux only. [`Worker::run`] blocks. A worker can reach what its user can reach: a task is code of this project, and
//! what it may not do it has to leave alone.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cancel;
mod child;
mod parent;

pub use cancel::{Cancel, OnCancel};
pub use child::{Task, entry};
pub use parent::{Limits, Worker, WorkerError};

/// The first argument of a worker.
const SUBCOMMAND: &str = "worker";
