//! Behaviours on a real API server, one module each; every test has a namespace of its own.
#![allow(clippy::unwrap_used)]

mod claims;
mod drift;
mod idle;
mod lifecycle;
mod prune;
mod rename;
mod traces;
