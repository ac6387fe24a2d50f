//! The stages, and what all their errors have in common.

use std::fmt;

use manifests::{Location, ObjectId};

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// Finds the snapshot and the folder.
    Source,
    /// Reads files as objects.
    Render,
    /// Refuses what must not be applied.
    Guard,
    /// Decides what to do.
    Plan,
    /// Asks what the identity may write, and claims these objects for the Sync.
    Allow,
    /// Adds new objects to the stored inventory, before the first one is written.
    Widen,
    /// Writes objects, wave after wave.
    Apply,
    /// Unseals SealedSecrets that the API server accepted. This is a step inside apply.
    Unseal,
    /// Deletes what left Git.
    Prune,
    /// Finds out whether other Syncs want the objects that left the folder, and hands these over.
    HandOver,
    /// Waits until objects are healthy.
    Health,
    /// Writes conditions, events and metrics.
    Report,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 12] = [
        Self::Source,
        Self::Render,
        Self::Guard,
        Self::Plan,
        Self::Allow,
        Self::Widen,
        Self::Apply,
        Self::Unseal,
        Self::Prune,
        Self::HandOver,
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
            Self::HandOver => "hand-over",
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

/// What the error of every stage provides.
pub trait StageError: std::error::Error {
    /// The stage in which the error occurs.
    const STAGE: Stage;
    /// The stage that is reported. It is [`StageError::STAGE`], unless the error is noticed in a later stage: a reason always
    /// has the same stage.
    fn stage(&self) -> Stage {
        Self::STAGE
    }
    /// Condition reason, CamelCase.
    fn reason(&self) -> &'static str;
    /// Whether trying again cannot help unless Git or the cluster changes.
    fn is_terminal(&self) -> bool;
    /// Whether it only waits for something; see [`Failure::waits`].
    fn waits(&self) -> bool {
        false
    }
    /// Whether nothing is wrong with this Sync; see [`Failure::expected`].
    fn is_expected(&self) -> bool {
        false
    }
    /// Whether the cause may end at any moment without a notification; see [`Failure::may_pass`].
    fn may_pass(&self) -> bool {
        false
    }
}

/// Why a pass ended early, or could not do everything.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The stage.
    pub stage: Stage,
    /// Condition reason.
    pub reason: &'static str,
    /// Somebody has to do something first.
    pub terminal: bool,
    /// It is only waiting for something: reported as progress, without an event.
    pub waits: bool,
    /// The cause may end at any moment without a notification: tried again soon.
    pub may_pass: bool,
    /// Nothing is wrong with this Sync, and it will continue by itself, so the event is not a warning.
    pub expected: bool,
    /// The message; never contains a secret value.
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

/// An object that is held back: in this pass it is neither applied nor pruned, so it keeps its last good version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// The object.
    pub id: ObjectId,
    /// Where it is in Git.
    pub origin: Location,
    /// The reason, for people.
    pub because: String,
    /// The failure that it belongs to; `None` for an object that only waits for another one.
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
