//! Why a SealedSecret stayed closed. Texts go into conditions and events: they name keys, never values.

use std::fmt;

use manifests::printable;

use super::MOST_VALUES;
use crate::keys::UnsealValueError;

/// Why there is no Secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// Some values could not be unsealed.
    #[error("{}", Failures(.0))]
    Values(Vec<ValueFailure>),
    /// Both forms at once.
    #[error("spec.encryptedData and the deprecated spec.data are both set: remove spec.data")]
    TwoForms,
    /// The deprecated form, switched off.
    #[error(
        "spec.data is the deprecated first form, and the controller runs with --accept-deprecated-v1-data=false: seal the values into spec.encryptedData"
    )]
    DeprecatedForm,
    /// The deprecated form, opened, is no Secret.
    #[error(
        "spec.data holds something else than a Secret in JSON (line {line}, column {column}): seal the Secret again"
    )]
    NotASecret {
        /// Line in the plaintext, from 1.
        line: usize,
        /// Column in the plaintext, from 1.
        column: usize,
    },
    /// The template asks for a label that has a meaning to the controller.
    #[error(
        "spec.template.metadata.labels sets {0}, which would make the Secret a sealing key of the cluster: remove the label"
    )]
    ReservedLabel(&'static str),
    /// More values than one SealedSecret may have.
    #[error("{found} sealed values: a SealedSecret may have {MOST_VALUES}; split it into several")]
    TooManyValues {
        /// How many there are.
        found: usize,
    },
    /// The Secret's name has a meaning to the controller.
    #[error(
        "a Secret named {0} in this namespace would be read by the controller as one of its own keys: give the SealedSecret another name, and seal its values for it"
    )]
    ReservedName(String),
}

impl OpenError {
    /// Whether nothing is wrong with the SealedSecret or the keys and another try is all that it takes.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Values(failures) if failures.iter().all(|failure| failure.transient))
    }

    /// The values that failed; none when the error is about the SealedSecret as a whole.
    pub fn failures(&self) -> &[ValueFailure] {
        match self {
            Self::Values(failures) => failures,
            _ => &[],
        }
    }
}

/// One value that could not be unsealed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ValueFailure {
    /// The field, for example `spec.encryptedData.password`; cut where the key is very long.
    pub field: String,
    /// What is wrong and what to do.
    pub reason: String,
    transient: bool,
}

impl ValueFailure {
    pub(super) fn sealed(key: &str, error: &UnsealValueError) -> Self {
        Self {
            field: format!("spec.encryptedData.{}", printable(key)),
            reason: error.to_string(),
            transient: matches!(error, UnsealValueError::Interrupted),
        }
    }

    pub(super) fn whole(error: &UnsealValueError) -> Self {
        Self {
            field: "spec.data".into(),
            reason: error.to_string(),
            transient: matches!(error, UnsealValueError::Interrupted),
        }
    }

    pub(super) fn interrupted() -> Self {
        Self { field: "spec.template.data".into(), reason: "rendering was interrupted".into(), transient: true }
    }

    pub(super) fn template(key: &str, error: &gotemplate::Error) -> Self {
        Self { field: format!("spec.template.data.{}", printable(key)), reason: error.to_string(), transient: false }
    }
}

impl fmt::Display for ValueFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// A SealedSecret may have hundreds of keys: those that fail in the same way share one text, and the list ends somewhere.
struct Failures<'a>(&'a [ValueFailure]);

const SHOWN: usize = 10;

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for failure in self.0.iter().take(SHOWN) {
            match reasons.iter_mut().find(|(reason, _)| *reason == failure.reason) {
                Some((_, fields)) => fields.push(&failure.field),
                None => reasons.push((&failure.reason, vec![&failure.field])),
            }
        }
        for (index, (reason, fields)) in reasons.iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(f, "{separator}{}: {reason}", fields.join(", "))?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
