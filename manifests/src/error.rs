use std::fmt;
use std::sync::Arc;

use crate::text::{self, in_one_line};

/// A place in a file. Displayed as `file:line`, always in one line, even if the file's name has line breaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The file name that was given to [`parse`](crate::parse).
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", in_one_line(&self.file), self.line)
    }
}

/// Why a text is not a list of Kubernetes objects. Displayed as `file:line: what is wrong`.
///
/// The error contains no values of the text: only places, paths of keys, and fixed words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {kind}")]
pub struct ParseError {
    location: Location,
    kind: ErrorKind,
}

impl ParseError {
    pub(crate) fn new(file: &Arc<str>, line: u32, kind: ErrorKind) -> Self {
        Self { location: Location { file: Arc::clone(file), line }, kind }
    }

    /// The place.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// What is wrong. Its `Display` is the message without the place.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What to do about the mistake.
    pub fn hint(&self) -> &'static str {
        self.kind.hint()
    }
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not UTF-8, or has NUL or other control characters.
    #[error("not text: {0}")]
    NotText(&'static str),
    /// [`Limits::file_bytes`](crate::Limits).
    #[error("the file is larger than {0} bytes")]
    TooLarge(usize),
    /// [`Limits::depth`](crate::Limits).
    #[error("mappings and sequences are nested deeper than {0}")]
    TooDeep(usize),
    /// [`Limits::nodes`](crate::Limits).
    #[error("the file holds more than {0} values")]
    TooManyNodes(usize),
    /// [`Limits::memory`](crate::Limits).
    #[error("the objects take more than {0} bytes of memory")]
    TooMuchMemory(usize),
    /// [`Limits::documents`](crate::Limits).
    #[error("the file holds more than {0} documents")]
    TooManyDocuments(usize),
    /// [`Limits::alias_nodes`](crate::Limits), [`Limits::alias_bytes`](crate::Limits).
    #[error("anchors and aliases expand to too much")]
    AliasExpansion,
    /// The YAML parser's message, which quotes nothing of the text.
    #[error("not valid YAML: {0}")]
    Syntax(String),
    /// An alias to an anchor that does not exist, or that contains the alias.
    #[error("an alias (*) refers to no anchor (&) above it, or to one that contains it")]
    UnknownAlias,
    /// The path of a key that occurs twice.
    #[error("duplicate key {0}")]
    DuplicateKey(String),
    /// A key is null, a mapping, a sequence, or a number beyond 64 bits. Has the path of the key's mapping.
    #[error("{0} has a mapping key that is not a text, a number or a boolean")]
    InvalidKey(String),
    /// `.nan` or `.inf`, which JSON does not have. Has the path of the value.
    #[error("{0} is not a finite number")]
    NotFinite(String),
    /// `!!binary` with content that is not UTF-8 text, which JSON cannot have. Has the path of the value.
    #[error("{0} is tagged !!binary, and its content is not text")]
    BinaryTag(String),
    /// The value does not fit its tag, as in `!!int x`. Has the path of the value.
    #[error("{0} does not fit its YAML tag")]
    InvalidTag(String),
    /// `<<` with a value that is neither a mapping nor a sequence of mappings. Has the path of the mapping with the
    /// `<<`.
    #[error("{0}: << must be given a mapping or a sequence of mappings")]
    InvalidMerge(String),
    /// `<<` after a key that it would set to another value. Has the path of this key.
    #[error("{0} is set, and a << below it sets this key to another value")]
    AmbiguousMerge(String),
    /// The document, or an item of a list, is not a mapping.
    #[error("not a Kubernetes object: expected a mapping with apiVersion, kind and metadata")]
    NotAnObject,
    /// A field is missing that every object has.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field has the wrong type, or characters that the API server refuses.
    #[error("{0} is not valid")]
    InvalidField(&'static str),
    /// A value that is not a string, for example a number or a boolean, in a field that must be a string. Has the path
    /// of the value.
    #[error("{0} is not a string")]
    NotAString(String),
    /// `metadata.generateName` without `metadata.name`.
    #[error("metadata.generateName makes a new object at every apply")]
    GenerateName,
}

impl ErrorKind {
    fn hint(&self) -> &'static str {
        match self {
            Self::NotText(text::LINE_SEPARATOR) => "write it as an escape in double quotes, as \"\\u2028\"",
            Self::NotText(_) => "save the file as UTF-8, or list it in .gitsealignore",
            Self::TooLarge(_) | Self::TooManyNodes(_) | Self::TooMuchMemory(_) | Self::TooManyDocuments(_) => {
                "split the file"
            }
            Self::TooDeep(_) => "no Kubernetes object needs this: check the brackets",
            Self::AliasExpansion => "write the values out instead of using aliases",
            Self::Syntax(_) => "check the indentation and the quotes at this line and the one above",
            Self::UnknownAlias => "an anchor counts only in its own document, up to the next `---`",
            Self::DuplicateKey(_) => "keep one of them: which one would win depends on the tool",
            Self::InvalidKey(_) => "quote the key",
            Self::NotFinite(_) | Self::InvalidTag(_) => "quote the value, or write another one",
            Self::BinaryTag(_) => "write the base64 text without the tag",
            Self::InvalidMerge(_) => "write `<<: *anchor`",
            Self::AmbiguousMerge(_) => "put << first in its mapping: otherwise, tools read it in different ways",
            Self::Missing("metadata.name") => "give the object a name",
            Self::NotAnObject | Self::Missing(_) => "add files that are not manifests to .gitsealignore",
            Self::NotAString(_) => "quote it: in YAML, 123, true, yes, no, on, off, y and n are not text",
            Self::InvalidField("items") => "items must be a list of objects",
            Self::InvalidField("metadata") => "metadata must be a mapping with a name",
            Self::InvalidField(_) => "check its spelling: it contains characters that the API server refuses",
            Self::GenerateName => "give the object a fixed metadata.name",
        }
    }
}
