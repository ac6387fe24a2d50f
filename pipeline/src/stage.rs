//! The stages of the pipeline, and what the errors of all stages have in common.

use std::fmt;

use manifests::{Location, ObjectId};

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// Finds the snapshot of the repository, and the folder in it.
    Source,
    /// Reads files as objects.
    Render,
    /// Refuses objects that must not be applied.
    Guard,
    /// Decides what to do.
    Plan,
    /// Asks the API server which objects the Sync's identity may write, and claims these objects for the Sync.
    Allow,
    /// Adds new objects to the stored inventory, before the first one is written.
    Widen,
    /// Writes objects, wave after wave.
    Apply,
    /// Unseals the SealedSecrets that the API server accepted. This stage is a part of the stage apply.
    Unseal,
    /// Deletes objects that left Git.
    Prune,
    /// Finds out whether other Syncs want objects that left the folder, and hands these objects over.
    HandOver,
    /// Checks whether the objects are healthy.
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

/// What the error of each stage says about itself.
pub trait StageError: std::error::Error {
    /// The stage in which the error occurs.
    const STAGE: Stage;
    /// The stage that is reported with the error, usually [`StageError::STAGE`]. A reason is always reported with the
    /// same stage. So if two stages can find errors with the same reason, this method names the same stage for both.
    fn stage(&self) -> Stage {
        Self::STAGE
    }
    /// Condition reason, CamelCase.
    fn reason(&self) -> &'static str;
    /// Whether trying again can help only after Git or the cluster was changed.
    fn is_terminal(&self) -> bool;
    /// Whether the Sync only waits for something; see [`Failure::waits`].
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
    /// The stage that failed.
    pub stage: Stage,
    /// The reason of the condition.
    pub reason: &'static str,
    /// Whether trying again can help only after somebody changed something.
    pub terminal: bool,
    /// Whether the Sync only waits for something. Such a failure is reported as work in progress, without an event.
    pub waits: bool,
    /// Whether the cause may end at any moment without a notification. After such a failure, the Sync is tried again
    /// soon.
    pub may_pass: bool,
    /// Whether nothing is wrong with this Sync, and it will continue by itself. The event for such a failure is not a
    /// warning.
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

/// An object that is held back: it is neither applied nor pruned in this pass, so its last good version stays in the
/// cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// The object.
    pub id: ObjectId,
    /// Where it is in Git.
    pub origin: Location,
    /// The reason, for people.
    pub because: String,
    /// The failure that holds the object back; `None` if the object is held back only because it uses an object that
    /// could not be made.
    pub cause: Option<Cause>,
}

/// See [`Held::cause`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cause {
    /// The stage that holds the object back.
    pub stage: Stage,
    /// Condition reason, CamelCase.
    pub reason: &'static str,
    /// Whether trying again can help only after Git or the cluster was changed.
    pub terminal: bool,
}
