//! Behaviours on a real API server, one module each; every test has a namespace of its own.
#![allow(clippy::unwrap_used)]

mod claims;
mod cli;
mod contract;
mod control_plane;
mod crashes;
mod decryptions;
mod dependencies;
mod drift;
mod endpoints;
mod handover;
mod hostile;
mod hostile_secrets;
mod hygiene;
mod idle;
mod interop;
mod keys_cli;
mod kubeseal;
mod last_good;
mod lifecycle;
mod migration;
mod objects;
mod proxy;
mod prune;
mod remote;
mod rename;
mod renewal;
mod retries;
mod revisions;
mod standalone;
mod startup;
mod templates;
mod tenancy;
mod their_role;
mod traces;
mod undecryptable;
