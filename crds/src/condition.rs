//! Conditions as kstatus and `kubectl wait` understand them.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Condition types that gitseal sets on its own kinds.
pub mod conditions {
    /// The last revision is applied and, with `wait`, healthy.
    pub const READY: &str = "Ready";
    /// Work is in progress.
    pub const RECONCILING: &str = "Reconciling";
    /// There is no progress until somebody changes something.
    pub const STALLED: &str = "Stalled";
    /// The Secret of a SealedSecret was made from the current SealedSecret.
    pub const SYNCED: &str = "Synced";
}

/// State of a [`Condition`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// It is not known whether the condition holds.
    Unknown,
}

impl ConditionStatus {
    /// The status as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition of the object, with the fields of `metav1.Condition`.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition, for example `Ready`.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// One word in CamelCase that says why the condition has this status, for example `PathNotFound`.
    #[serde(default)]
    pub reason: String,
    /// Explains the condition to a person. It never contains a secret value.
    #[serde(default)]
    pub message: String,
    /// When `status` last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    /// The `metadata.generation` of the object when this condition was determined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// The condition of type `type_`, if there is one.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Puts `new` into `conditions`, keeping `last_transition_time` while the status stays the same. The caller sets
/// `new.last_transition_time` to the current time.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status && old.last_transition_time.is_some() {
                new.last_transition_time = old.last_transition_time.take();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}
