//! Tests that our controller behaves like that of Sealed Secrets. Each row of docs/compatibility.md names its tests. Where
//! possible, a test does the same to the real Sealed Secrets controller, in its own control plane, and compares the results.

mod annotations;
mod documentation;
mod events;
mod flags;
mod immutable;
mod marks;
mod memory;
mod metrics;
mod namespaces;
mod own;
mod recreation;
mod same_secret;
mod scope;
mod side;
mod status;
mod template;
mod whole;
