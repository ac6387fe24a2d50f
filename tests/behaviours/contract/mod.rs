//! The contract of Sealed Secrets, row by row: docs/compatibility.md names the tests. Where it is cheap, the same is
//! done to the real controller, in a control plane of its own, and the outcome compared.

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
