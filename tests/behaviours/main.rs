//! Behaviours on a real API server, one module each; every test has a namespace of its own.
#![allow(clippy::unwrap_used)]

mod lifecycle;
