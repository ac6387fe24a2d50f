//! Why a SealedSecret could not be unsealed. The messages are written into conditions and events. They name keys, never
//! values.

use std::fmt;

use manifests::printable;
use sealing::UnsealError as SealedError;

use crate::{MOST_VALUES, field};

/// Why one value could not be unsealed.
#[derive(Debug, thiserror::Error)]
pub enum UnsealValueError {
    /// The value is wrong, or no key unseals it.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// A shutdown stopped the decryption.
    #[error("the decryption was interrupted; it is tried again")]
    Interrupted,
}

/// Why the Secret could not be made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UnsealError {
    /// Some values could not be unsealed.
    #[error("{}", Failures(.0))]
    Values(Vec<ValueFailure>),
    /// Both forms are used at once.
    #[error("spec.encryptedData and the deprecated spec.data are both set: remove spec.data")]
    TwoForms,
    /// The deprecated form is used, and is switched off.
    #[error(
        "spec.data is the deprecated first form of a SealedSecret, and the controller runs with --accept-deprecated-v1-data=false: seal the values into spec.encryptedData"
    )]
    DeprecatedForm,
    /// The value of the deprecated form is not a Secret. The exact mistake depends on the plaintext, so the message does not
    /// say it.
    #[error(
        "spec.data does not hold a Secret in JSON, or holds one that no SealedSecret may make, such as a sealing key: \
         seal the right Secret"
    )]
    NotASecret,
    /// A template failed when it was rendered with the values.
    #[error("{0}")]
    Render(#[from] RenderFailure),
    /// A shutdown stopped the rendering.
    #[error("spec.template.data: rendering was interrupted; it is tried again")]
    Interrupted,
    /// The template sets a label that would make the Secret a sealing key.
    #[error(
        "spec.template.metadata.labels sets {0}, which would make the Secret a sealing key of the cluster: remove the label"
    )]
    ReservedLabel(&'static str),
    /// The SealedSecret has more values than the limit allows.
    #[error("{found} sealed values: a SealedSecret may have at most {MOST_VALUES}; split it into several")]
    TooManyValues {
        /// How many values there are.
        found: usize,
    },
    /// The Secret would have the name of one of the controller's own Secrets.
    #[error(
        "a Secret named {0} in this namespace would be read by the controller as one of its own keys: give the SealedSecret another name, and seal its values for that name"
    )]
    ReservedName(String),
}

impl UnsealError {
    /// Whether another try may be enough, because nothing is wrong with the SealedSecret or the keys.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Values(failures) => failures.iter().all(|failure| failure.transient),
            Self::Interrupted => true,
            _ => false,
        }
    }

    /// The values that failed; empty if the error is about the whole SealedSecret.
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
    /// The field, for example `spec.encryptedData.password`. A very long key is cut.
    pub field: String,
    /// What is wrong and what to do.
    pub reason: String,
    transient: bool,
}

impl ValueFailure {
    /// The failure of the value with this key in `encryptedData`; without a key, that of `spec.data`.
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

/// Templates that failed when they were rendered with the values.
///
/// The message is always the same. If it depended on the values, or said which template failed, where and why, somebody
/// who writes templates could find out a value letter by letter. Somebody who has the private keys may see more.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "spec.template.data: a template fails with the unsealed values; the error depends on the values, so it is not \
     shown here: somebody who has a private key can see it with `gitseal unseal`"
)]
pub struct RenderFailure(Vec<ValueFailure>);

impl RenderFailure {
    pub(crate) fn new(failures: Vec<ValueFailure>) -> Self {
        Self(failures)
    }

    /// Which templates failed, where and why. This is only for somebody who could read the values anyway.
    pub fn for_key_holders(&self) -> &[ValueFailure] {
        &self.0
    }
}

/// A SealedSecret may have hundreds of keys. Keys that fail in the same way share one text, and the list has a limit.
struct Failures<'a>(&'a [ValueFailure]);

const SHOWN: usize = 20;

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
