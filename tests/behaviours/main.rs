//! Behaviours on a real API server, one module each; every test has a namespace of its own.
#![allow(clippy::unwrap_used)]

mod claims;
mod crashes;
mod dependencies;
mod drift;
mod hostile;
mod idle;
mod interop;
mod lifecycle;
mod objects;
mod prune;
mod remote;
mod rename;
mod revisions;
mod standalone;
mod traces;
mod undecryptable;
