//! Why a SealedSecret could not be unsealed. The texts go into conditions and events: they name keys, never values.

use std::fmt;

use manifests::printable;
use sealing::UnsealError as SealedError;

use crate::{MOST_VALUES, field};

/// Why one value could not be unsealed.
#[derive(Debug, thiserror::Error)]
pub enum UnsealValueError {
    /// The value is wrong, or no key fits.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// The decryption was cut short by a shutdown.
    #[error("the decryption was interrupted; it is tried again")]
    Interrupted,
}

/// Why there is no Secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UnsealError {
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
    /// The deprecated form was unsealed and is not a Secret. Where and why depends on the plaintext, so it is not said.
    #[error("spec.data holds something else than a Secret in JSON that may be made here: seal the Secret again")]
    NotASecret,
    /// A template failed when it was rendered over the values.
    #[error("{0}")]
    Render(#[from] RenderFailure),
    /// Rendering was cut short by a shutdown.
    #[error("spec.template.data: rendering was interrupted; it is tried again")]
    Interrupted,
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

impl UnsealError {
    /// Whether another try is enough, because nothing is wrong with the SealedSecret or the keys.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Values(failures) => failures.iter().all(|failure| failure.transient),
            Self::Interrupted => true,
            _ => false,
        }
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
    /// A value of `encryptedData`; without a key, that of `spec.data`.
    pub(crate) fn sealed(key: Option<&str>, error: &UnsealValueError) -> Self {
        Self { field: field(key), reason: error.to_string(), transient: matches!(error, UnsealValueError::Interrupted) }
    }

    pub(crate) fn template(key: &str, error: &gotemplate::Error) -> Self {
        Self { field: format!("spec.template.data.{}", printable(key)), reason: error.to_string(), transient: false }
    }
}

impl fmt::Display for ValueFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// Templates that failed when they were rendered over the values.
///
/// Its text is always the same. If it depended on the values, or said which template failed, where and why, whoever writes
/// templates could find out a value letter by letter. Whoever has the private keys may see more.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "spec.template.data: a template fails on the unsealed values; how it fails depends on them, so it is not told here: \
     whoever has a private key sees it with `gitseal unseal`"
)]
pub struct RenderFailure(Vec<ValueFailure>);

impl RenderFailure {
    pub(crate) fn new(failures: Vec<ValueFailure>) -> Self {
        Self(failures)
    }

    /// Which templates failed, where and why: only for somebody who could read the values as well.
    pub fn for_key_holders(&self) -> &[ValueFailure] {
        &self.0
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
