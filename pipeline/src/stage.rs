//! The stages, and what all their errors have in common.

use std::fmt;

use manifests::{Location, ObjectId};

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// Which snapshot.
    Source,
    /// Files to objects.
    Render,
    /// What may not be applied.
    Guard,
    /// What is to be done.
    Plan,
    /// What the identity may write is claimed for the Sync.
    Allow,
    /// The inventory is widened: written before the first object.
    Widen,
    /// Objects are written, wave after wave.
    Apply,
    /// SealedSecrets that were accepted become Secrets: a step inside of apply.
    Unseal,
    /// What left Git is deleted.
    Prune,
    /// Objects are looked at until they are healthy.
    Health,
    /// Conditions, events, metrics.
    Report,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 11] = [
        Self::Source,
        Self::Render,
        Self::Guard,
        Self::Plan,
        Self::Allow,
        Self::Widen,
        Self::Apply,
        Self::Unseal,
        Self::Prune,
        Self::Health,
        Self::Report,
    ];

    /// Name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Render => "render",
            Self::Guard => "guard",
            Self::Plan => "plan",
            Self::Allow => "allow",
            Self::Widen => "widen",
            Self::Apply => "apply",
            Self::Unseal => "unseal",
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

/// What every stage's error says about itself.
pub trait StageError: std::error::Error {
    /// The stage that it is an error of.
    const STAGE: Stage;
    /// The stage that is told, so that a reason always has the same one: [`StageError::STAGE`] but for what is noticed later.
    fn stage(&self) -> Stage {
        Self::STAGE
    }
    /// Condition reason, CamelCase.
    fn reason(&self) -> &'static str;
    /// Trying again without a change in Git or in the cluster cannot help.
    fn is_terminal(&self) -> bool;
    /// It is under way, and nobody has to look; see [`Failure::waits`].
    fn waits(&self) -> bool {
        false
    }
    /// Nothing is wrong with this Sync; see [`Failure::expected`].
    fn is_expected(&self) -> bool {
        false
    }
    /// It may be over at any moment, and nobody tells; see [`Failure::may_pass`].
    fn may_pass(&self) -> bool {
        false
    }
}

/// Why a reconcile ended early, or without everything done.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// Condition reason.
    pub reason: &'static str,
    /// Somebody has to do something first.
    pub terminal: bool,
    /// It is under way, and nobody has to look: told as progress, without an event.
    pub waits: bool,
    /// It may be over at any moment, and nobody tells: tried again before long.
    pub may_pass: bool,
    /// Nothing is wrong with this Sync, which goes on by itself: no warning.
    pub expected: bool,
    /// For people; never holds a secret value.
    pub message: String,
}

impl Failure {
    /// A failure that is tried again, with an empty message.
    pub fn new(stage: Stage, reason: &'static str) -> Self {
        Self { stage, reason, terminal: false, waits: false, may_pass: false, expected: false, message: String::new() }
    }
}

impl<E: StageError> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            terminal: error.is_terminal(),
            waits: error.waits(),
            may_pass: error.may_pass(),
            expected: error.is_expected(),
            message: error.to_string(),
            ..Self::new(error.stage(), error.reason())
        }
    }
}

/// An object that is held back: it is neither applied nor pruned, and keeps its last good version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// The object.
    pub id: ObjectId,
    /// Where it stands in Git.
    pub origin: Location,
    /// Why, for people.
    pub because: String,
    /// What it is a case of; nothing for an object that only waits for another one.
    pub cause: Option<Cause>,
}

/// See [`Held::cause`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cause {
    /// The stage that holds it back.
    pub stage: Stage,
    /// Condition reason, CamelCase.
    pub reason: &'static str,
    /// Trying again without a change in Git or in the cluster cannot help.
    pub terminal: bool,
}
