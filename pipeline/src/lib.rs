//! The pure stages of the pipeline: what they need is in their arguments, and they ask nobody.
//!
//! ```text
//! render   Tree                → Manifests    plain YAML and JSON
//! guard    Manifests           → Manifests    plaintext Secrets, duplicates, impossible names: refused with file:line
//! plan     Manifests + live    → Plan         what to apply, in waves; what is held back; what to prune
//! allow    Plan                → Plan         may this identity write this?
//! apply    Plan                → Applied      wave after wave; SealedSecrets are unsealed once they were accepted
//! prune    Applied             → Applied      what left Git is deleted, after a verdict on each object
//! health   Applied             → Health
//! report   Outcome             → the world
//! ```
//!
//! The stages that write are the controller's; what they decide is decided here. `gitseal diff` renders and decides by the
//! same code.
//! A stage has its own error enum; [`StageError`] gives its condition reason and whether trying again can help.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod fields_digest;
#[cfg(test)]
mod fixtures;
pub mod guard;
pub mod health;
pub mod inventory;
mod ownership;
pub mod plan;
pub mod prune;
pub mod references;
pub mod refusal;
pub mod render;
pub mod replacement;
mod resource;
mod secret_facts;
mod settings;
mod stage;

pub use fields_digest::FieldsDigest;
pub use guard::guard;
pub use inventory::Inventory;
pub use ownership::{Mark, Unmanaged, may_write, was_merged};
pub use plan::{Plan, plan};
pub use render::{Manifests, Plain, Render, Room};
pub use resource::{Kinds, Resource, escape_segment};
pub use secret_facts::SecretFacts;
pub use settings::{namespace_for, path_of, repository_of, settings_digest};
pub use stage::{Cause, Failure, Held, Stage, StageError};
