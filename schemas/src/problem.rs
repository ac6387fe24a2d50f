//! What is wrong with an object.

use serde::Serialize;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The API server refuses the object, or drops a field of it.
    Error,
    /// The API server accepts the object for now.
    Warning,
}

/// Which check found a problem.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The version of Kubernetes has no such kind.
    UnknownKind,
    /// The kind is not served in this API version.
    NotServed,
    /// The API version of the kind will be removed.
    Deprecated,
    /// The kind has no such field.
    UnknownField,
    /// A required field is missing.
    MissingField,
    /// A field has a value of the wrong type, or another value that its schema does not allow.
    WrongValue,
}

impl Check {
    /// Its name, as in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownKind => "unknown-kind",
            Self::NotServed => "not-served",
            Self::Deprecated => "deprecated",
            Self::UnknownField => "unknown-field",
            Self::MissingField => "missing-field",
            Self::WrongValue => "wrong-value",
        }
    }
}

/// What is wrong with an object.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Which check found it.
    pub check: Check,
    /// The field that it is about, for example `spec.template.spec.containers[0].image`. Empty for the whole object.
    pub field: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Problem {
    pub(crate) fn error(check: Check, field: String, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, check, field, message: message.into() }
    }

    pub(crate) fn warning(check: Check, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, check, field: String::new(), message: message.into() }
    }
}
