use std::fmt;
use std::sync::Arc;

use crate::text::{self, in_one_line};

/// A place in a file. Displayed as `file:line`, in one line whatever the file is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The file as it was named to [`parse`](crate::parse).
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
/// Carries no values of the text: only places, key paths and fixed words.
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

    /// Where.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// What; its `Display` is the message without the place.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What to do next.
    pub fn hint(&self) -> &'static str {
        self.kind.hint()
    }
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Not UTF-8, or with NUL or other control characters.
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
    /// The YAML parser's own words, which quote nothing of the text.
    #[error("not valid YAML: {0}")]
    Syntax(String),
    /// An alias to an anchor that is not there, or that it is part of.
    #[error("an alias (*) refers to no anchor (&) above it, or to one that contains it")]
    UnknownAlias,
    /// The path of a key that is there twice.
    #[error("duplicate key {0}")]
    DuplicateKey(String),
    /// Null, a mapping, a sequence, or a number beyond 64 bits as a key; the path of what contains it.
    #[error("{0} has a key that is neither text, number nor boolean")]
    InvalidKey(String),
    /// `.nan`, `.inf`: JSON has neither. The path of the value.
    #[error("{0} is not a finite number")]
    NotFinite(String),
    /// `!!binary` of what is no text in UTF-8, which JSON cannot hold. The path of the value.
    #[error("{0} is tagged !!binary, and its content is not text")]
    BinaryTag(String),
    /// `!!int x`. The path of the value.
    #[error("{0} does not fit its tag")]
    InvalidTag(String),
    /// `<<` with something else than a mapping or a sequence of mappings. The path of what contains it.
    #[error("{0}: << must be given a mapping or a sequence of mappings")]
    InvalidMerge(String),
    /// `<<` after a key that it sets to something else. The path of the key.
    #[error("<< below {0} sets it to another value")]
    AmbiguousMerge(String),
    /// The document, or an item of a list, is no mapping.
    #[error("not a Kubernetes object: expected a mapping with apiVersion, kind and metadata")]
    NotAnObject,
    /// A field that every object has.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field of the wrong type, or with characters that the API server refuses.
    #[error("{0} is not valid")]
    InvalidField(&'static str),
    /// A number or a boolean where every reader expects a string. The path of the value.
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
            Self::AliasExpansion => "write the values out",
            Self::Syntax(_) => "check the indentation and the quotes at this line and the one above",
            Self::UnknownAlias => "anchors do not reach over `---`",
            Self::DuplicateKey(_) => "keep one of them: which one would win depends on the tool",
            Self::InvalidKey(_) => "quote the key",
            Self::NotFinite(_) | Self::InvalidTag(_) => "quote the value, or write another one",
            Self::BinaryTag(_) => "write the base64 text without the tag",
            Self::InvalidMerge(_) => "write `<<: *anchor`",
            Self::AmbiguousMerge(_) => "put << first in its mapping: tools disagree on who wins otherwise",
            Self::Missing("metadata.name") => "give the object a name",
            Self::NotAnObject | Self::Missing(_) => "list files that are no manifests in .gitsealignore",
            Self::NotAString(_) => "quote it: in YAML, 123, true, yes, no, on, off, y and n are no text",
            Self::InvalidField("items") => "a list has its objects below items",
            Self::InvalidField("metadata") => "metadata is a mapping with a name",
            Self::InvalidField(_) => "check its spelling: it holds characters that the API server refuses",
            Self::GenerateName => "give the object a fixed metadata.name",
        }
    }
}
