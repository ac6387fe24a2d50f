//! Why a template is refused.

use std::{borrow::Cow, fmt};

/// Why a template is refused, and where.
///
/// The text names functions, variables and types of the template. It never contains a value or a part of one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Error {
    /// Line of the template, from 1.
    pub line: usize,
    /// The kind of failure.
    pub kind: ErrorKind,
    reason: String,
}

/// See [`Error::kind`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorKind {
    /// The text is not a template.
    Syntax,
    /// No function of this name exists.
    NotDefined,
    /// The function exists in Go's engine with sprig, and not here.
    NotSupported,
    /// Rendering failed.
    Failed,
    /// Rendering exceeds a limit.
    Limit,
}

impl Error {
    pub(crate) fn new(line: usize, kind: ErrorKind, reason: impl Into<String>) -> Self {
        Self { line, kind, reason: reason.into() }
    }

    /// What is wrong, without the line.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Why a function returns no value.
pub(crate) enum Failure {
    /// A message, which must not contain a value.
    Refused(Cow<'static, str>),
    /// A limit was reached.
    Limit(&'static str),
}

impl Failure {
    pub(crate) fn at(self, line: usize, function: &str) -> Error {
        match self {
            Self::Refused(reason) => Error::new(line, ErrorKind::Failed, format!("{function}: {reason}")),
            Self::Limit(reason) => Error::new(line, ErrorKind::Limit, reason),
        }
    }
}

impl From<&'static str> for Failure {
    fn from(reason: &'static str) -> Self {
        Self::Refused(reason.into())
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Refused(reason.into())
    }
}

/// A name from the template, in a form for messages.
pub(crate) struct Name<'a>(pub(crate) &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        let cut: String = self.0.chars().take(SHOWN).collect();
        write!(f, "{}", cut.escape_debug())?;
        if cut.len() < self.0.len() { f.write_str("…") } else { Ok(()) }
    }
}
