//! The pure part of the pipeline: its functions get everything that they need as arguments, and make no requests.
//!
//! ```text
//! render   Tree                → Manifests    plain YAML and JSON
//! guard    Manifests           → nothing      refuses, with file:line: plaintext Secrets, duplicates, impossible names,
//!                                             waves that are no numbers
//! plan     Manifests + live    → Plan         what to apply, in waves; what is held back; what to prune
//! allow    Plan                → Allowed      what the identity may write, and what it may not
//! apply    Allowed             → Applied      wave after wave; SealedSecrets are unsealed once they were accepted
//! prune    Applied             → Applied      what left Git is deleted, after a verdict on each object
//! health   Applied             → Health
//! report   Outcome             → the world
//! ```
//!
//! Render, guard and plan are in this crate. The stages from allow on make requests, so they are in the controller. But
//! the rules by which these stages decide are here: what may be pruned, what is healthy, what may be replaced. `gitseal
//! diff` uses the same code. Each stage has an error enum of its own. With the trait [`StageError`], an error says
//! which reason the condition gets, and whether trying again can help.
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
pub use ownership::{Made, OldMark, Unmanaged, may_write};
pub use plan::{Plan, plan};
pub use render::{Manifests, NotManifests, Render, Room};
pub use resource::{Kinds, Resource, escape_segment, versions_instead};
pub use secret_facts::SecretFacts;
pub use settings::{
    Entry, InputMap, Looked, OtherFile, Target, has_inputs, input_maps, lookups, namespace_for, other_files, path_of,
    release_name, repository_of, settings_digest,
};
pub use stage::{Cause, Failure, Held, Stage, StageError};
