//! From a Git revision to a cluster that looks like it: one stage per file, in the order in which data flows.
//!
//! ```text
//! source   Sync                → Sourced      which snapshot of which folder
//! render   Sourced             → Manifests    plain YAML and JSON
//! unseal   Manifests           → Opened       every SealedSecret → its Secret, beside the object it came from
//! guard    Opened              → Opened       plaintext Secrets, duplicates, impossible names: refused with file:line
//! plan     Opened + live       → Plan         what to apply, in waves; what to prune
//! apply    Plan                → Applied      server-side apply, concurrent inside a wave
//! prune    Applied             → Applied
//! health   Applied             → Health
//! report   Outcome             → the world    (reconcile/status.rs: conditions, events, metrics)
//! ```
//!
//! A stage has its own error enum; [`StageError`] gives its condition reason and whether trying again can help.

pub mod apply;
pub mod guard;
pub mod health;
pub mod inventory;
pub mod plan;
pub mod prune;
pub mod references;
pub mod render;
pub mod source;
pub mod unseal;

#[cfg(test)]
mod fake_server;

use std::fmt;

use manifests::{Location, Manifest, ObjectId};

use crate::opened::OpenedSecret;

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// Which snapshot.
    Source,
    /// Files to objects.
    Render,
    /// SealedSecrets to Secrets.
    Unseal,
    /// What may not be applied.
    Guard,
    /// What is to be done.
    Plan,
    /// The inventory is widened: written before the first object.
    Widen,
    /// Objects are written.
    Apply,
    /// What left Git is deleted.
    Prune,
    /// Objects are looked at until they are healthy.
    Health,
    /// Conditions, events, metrics.
    Report,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 10] = [
        Self::Source,
        Self::Render,
        Self::Unseal,
        Self::Guard,
        Self::Plan,
        Self::Widen,
        Self::Apply,
        Self::Prune,
        Self::Health,
        Self::Report,
    ];

    /// Name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Render => "render",
            Self::Unseal => "unseal",
            Self::Guard => "guard",
            Self::Plan => "plan",
            Self::Widen => "widen",
            Self::Apply => "apply",
            Self::Prune => "prune",
            Self::Health => "health",
            Self::Report => "report",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Told of every stage that begins; for measurements, and for tests that end the process at a given point.
pub trait StageObserver: Send + Sync {
    /// `stage` is about to begin for the Sync `namespace/name`.
    fn begins(&self, stage: Stage, sync: &crate::key::ObjectKey);
}

/// Observes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl StageObserver for Unobserved {
    fn begins(&self, _: Stage, _: &crate::key::ObjectKey) {}
}

/// What every stage's error says about itself.
pub trait StageError: std::error::Error {
    /// The stage that it is an error of.
    const STAGE: Stage;
    /// Condition reason, CamelCase.
    fn reason(&self) -> &'static str;
    /// Trying again without a change in Git or in the cluster cannot help.
    fn is_terminal(&self) -> bool;
}

/// Why a reconcile ended early.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// Condition reason.
    pub reason: &'static str,
    /// Somebody has to do something first.
    pub terminal: bool,
    /// For people; never holds a secret value.
    pub message: String,
}

impl<E: StageError> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { stage: E::STAGE, reason: error.reason(), terminal: error.is_terminal(), message: error.to_string() }
    }
}

/// Objects as the folder holds them, secrets still sealed.
pub struct Manifests {
    /// The objects, in the order of their files.
    pub objects: Vec<Manifest>,
}

/// Objects with every secret opened that can be.
pub struct Opened {
    /// The objects to apply.
    pub objects: Vec<Object>,
    /// The objects that keep their last good version, and why.
    pub held: Vec<Held>,
}

/// One object to apply.
pub enum Object {
    /// As it stands in Git.
    Plain(Manifest),
    /// A SealedSecret and the Secret that it stands for.
    Sealed {
        /// The SealedSecret.
        manifest: Manifest,
        /// Its Secret.
        secret: Unsealed,
    },
}

impl Object {
    /// The manifest in Git.
    pub fn manifest(&self) -> &Manifest {
        match self {
            Self::Plain(manifest) | Self::Sealed { manifest, .. } => manifest,
        }
    }
}

/// The Secret of a SealedSecret.
pub enum Unsealed {
    /// Opened in this pass.
    Opened {
        /// The Secret.
        secret: Box<OpenedSecret>,
        /// Digest of the sealed input.
        digest: String,
    },
    /// The cluster has it already, made of the same sealed input and untouched since: nothing was decrypted.
    Current {
        /// Digest of the sealed input.
        digest: String,
    },
}

/// An object that is held back: it is neither applied nor pruned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// The object.
    pub id: ObjectId,
    /// Where it stands in Git.
    pub origin: Location,
    /// Why, for people.
    pub because: String,
    /// It is the cause itself, not an object that depends on one.
    pub is_cause: bool,
}
