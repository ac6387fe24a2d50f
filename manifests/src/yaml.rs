//! Reads one YAML document as one JSON value, from the events of the parser, without recursion.

mod budget;
mod merge;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag as YamlTag};
use serde_json::{Map, Value};

pub(crate) use self::budget::Budget;
use self::budget::{MAPPING_BYTES, SEQUENCE_BYTES, Size};
use self::merge::{Merge, merge};
use crate::error::ErrorKind;
use crate::scalar::{Scalar, Tag};

/// The value of one document.
pub(crate) struct Root {
    pub(crate) value: Value,
    /// Line of its first character in the given text, from 1.
    pub(crate) line: u32,
    /// Lines of the items of its top-level `items`, in order.
    pub(crate) item_lines: Vec<u32>,
}

/// Reads the single document of a text that [`split`](crate::split()) made. An error comes with the number of its line
/// in this text.
pub(crate) fn read(text: &str, budget: &mut Budget) -> Result<Option<Root>, (u32, ErrorKind)> {
    let depth = budget.limits.depth;
    let mut options = granit_parser::options! { flow_nesting_limit: depth, block_nesting_limit: depth };
    options.set_emit_comments(false);
    let mut builder = Builder::new(budget);
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| syntax(&error, depth))?;
        builder.event(event, &span).map_err(|kind| (line(span.start.line()), kind))?;
    }
    Ok(builder.root)
}

fn syntax(error: &ScanError, depth: usize) -> (u32, ErrorKind) {
    use granit_parser::ErrorKind as Scan;
    let kind = match error.kind() {
        Scan::RecursionLimitExceeded => ErrorKind::TooDeep(depth),
        Scan::UnknownAnchor => ErrorKind::UnknownAlias,
        // The parser's messages for the following errors quote the text, so they are replaced. No other message of the
        // parser quotes it.
        Scan::UnexpectedCharacter { .. } => ErrorKind::Syntax("unexpected character".to_owned()),
        Scan::MismatchedFlowCollectionEnd { .. } | Scan::UnclosedFlowCollection { .. } => {
            ErrorKind::Syntax("a bracket is not closed, or is closed by one of another kind".to_owned())
        }
        Scan::Custom(_) | Scan::InputIo { .. } | Scan::InputDecoding { .. } => {
            ErrorKind::Syntax("the text cannot be read".to_owned())
        }
        kind => ErrorKind::Syntax(kind.to_string()),
    };
    (line(error.marker().line()), kind)
}

fn line(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX).max(1)
}

/// A collection that is being read.
struct Frame {
    /// Anchor of the collection; 0 is none.
    anchor: usize,
    node: Node,
}

enum Node {
    Sequence(Vec<Value>),
    Mapping { map: Map<String, Value>, key: Option<Key>, merged: HashSet<String>, has_merge: bool },
}

enum Key {
    Text(String),
    Merge,
}

struct Builder<'b> {
    budget: &'b mut Budget,
    frames: Vec<Frame>,
    anchors: HashMap<usize, (Value, Size)>,
    root: Option<Root>,
    line: u32,
    item_lines: Vec<u32>,
}

impl<'b> Builder<'b> {
    fn new(budget: &'b mut Budget) -> Self {
        Self { budget, frames: Vec::new(), anchors: HashMap::new(), root: None, line: 1, item_lines: Vec::new() }
    }

    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), ErrorKind> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.begin(span)?;
                self.budget.hold(text.len())?;
                self.scalar(&text, style, anchor, tag.as_deref())
            }
            Event::Alias(anchor) => {
                self.begin(span)?;
                self.alias(anchor)
            }
            Event::MappingStart(_, anchor, _) => {
                let node = Node::Mapping { map: Map::new(), key: None, merged: HashSet::new(), has_merge: false };
                self.open(span, Frame { anchor, node })
            }
            Event::SequenceStart(_, anchor, _) => self.open(span, Frame { anchor, node: Node::Sequence(Vec::new()) }),
            Event::MappingEnd | Event::SequenceEnd => match self.frames.pop() {
                Some(Frame { anchor, node: Node::Mapping { map, .. } }) => self.value(Value::Object(map), anchor),
                Some(Frame { anchor, node: Node::Sequence(items) }) => self.value(Value::Array(items), anchor),
                None => Ok(()),
            },
            // The text was split into its documents before, so it has no second document. If the parser sees one
            // nevertheless, the text is refused, because the same text must never be read in two ways.
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(ErrorKind::Syntax("a document starts without --- on a line of its own".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Counts a node, and records where it starts if that is needed later.
    fn begin(&mut self, span: &Span) -> Result<(), ErrorKind> {
        self.budget.node(1)?;
        match self.frames.as_slice() {
            [] => self.line = line(span.start.line()),
            [
                Frame { node: Node::Mapping { key: Some(Key::Text(key)), .. }, .. },
                Frame { node: Node::Sequence(_), .. },
            ] if key == "items" => {
                self.item_lines.push(line(span.start.line()));
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, span: &Span, frame: Frame) -> Result<(), ErrorKind> {
        self.begin(span)?;
        if self.frames.len() >= self.budget.limits.depth {
            return Err(ErrorKind::TooDeep(self.budget.limits.depth));
        }
        if let Some(Frame { node: Node::Mapping { key: None, .. }, .. }) = self.frames.last() {
            return Err(ErrorKind::InvalidKey(self.path_of_parent()));
        }
        self.frames.push(frame);
        Ok(())
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&YamlTag>,
    ) -> Result<(), ErrorKind> {
        let scalar = match tag.map(known_tag) {
            None if style == ScalarStyle::Plain => Some(Scalar::plain(text)),
            // As in Kubernetes, a quoted scalar is text, and so is one with a tag that is not YAML's own.
            None | Some(None) => Some(Scalar::Text),
            Some(Some(Tag::Binary)) => {
                let decoded = self.binary(text)?;
                return self.scalar(&decoded, ScalarStyle::DoubleQuoted, anchor, None);
            }
            Some(Some(tag)) => Scalar::tagged(tag, text),
        };
        let Some(scalar) = scalar else {
            return Err(ErrorKind::InvalidTag(self.path()));
        };
        if let Some(Frame { node: Node::Mapping { key: key @ None, .. }, .. }) = self.frames.last_mut() {
            if text == "<<" && style == ScalarStyle::Plain && tag.is_none_or(|tag| tag.suffix() == "merge") {
                *key = Some(Key::Merge);
                return self.only_merge();
            }
            if anchor == 0 {
                return self.key(scalar.into_key(text));
            }
        }
        match scalar.into_value(text) {
            Some(value) => self.value(value, anchor),
            None => Err(ErrorKind::NotFinite(self.path())),
        }
    }

    /// Decodes the text of a `!!binary`. Line breaks in its base64 are ignored.
    fn binary(&self, text: &str) -> Result<String, ErrorKind> {
        let base64: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        let bytes = STANDARD.decode(base64).map_err(|_| ErrorKind::InvalidTag(self.path()))?;
        String::from_utf8(bytes).map_err(|_| ErrorKind::BinaryTag(self.path()))
    }

    fn alias(&mut self, anchor: usize) -> Result<(), ErrorKind> {
        let (value, size) = self.anchors.get(&anchor).ok_or(ErrorKind::UnknownAlias)?;
        if self.frames.len() + size.depth > self.budget.limits.depth {
            return Err(ErrorKind::TooDeep(self.budget.limits.depth));
        }
        self.budget.node(size.nodes)?;
        self.budget.copy(size)?;
        let value = value.clone();
        self.value(value, 0)
    }

    /// Adds a complete node to the list or map that contains it. If the node has an anchor, a copy is kept for its
    /// aliases.
    fn value(&mut self, value: Value, anchor: usize) -> Result<(), ErrorKind> {
        if anchor != 0 {
            let size = Size::of(&value);
            self.budget.copy(&size)?;
            self.anchors.insert(anchor, (value.clone(), size));
        }
        let Some(frame) = self.frames.last_mut() else {
            let item_lines = std::mem::take(&mut self.item_lines);
            self.root = Some(Root { value, line: self.line, item_lines });
            return Ok(());
        };
        match &mut frame.node {
            Node::Sequence(items) => {
                if items.is_empty() {
                    self.budget.hold(SEQUENCE_BYTES)?;
                }
                items.push(value);
                Ok(())
            }
            Node::Mapping { key: None, .. } => {
                let key = match value {
                    Value::String(text) => Some(text),
                    Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
                    _ => None,
                };
                self.key(key)
            }
            Node::Mapping { map, key, merged, .. } => match key.take() {
                Some(Key::Text(key)) => {
                    if merged.remove(&key) || !map.contains_key(&key) {
                        map.insert(key, value);
                        return Ok(());
                    }
                    Err(ErrorKind::DuplicateKey(self.path_to(&key)))
                }
                _ => match merge(map, merged, value) {
                    Ok(()) => Ok(()),
                    Err(Merge::NotMappings) => Err(ErrorKind::InvalidMerge(self.path_of_parent())),
                    Err(Merge::Overrides(key)) => Err(ErrorKind::AmbiguousMerge(self.path_to(&key))),
                },
            },
        }
    }

    fn key(&mut self, text: Option<String>) -> Result<(), ErrorKind> {
        let Some(text) = text else {
            return Err(ErrorKind::InvalidKey(self.path_of_parent()));
        };
        if let Some(Frame { node: Node::Mapping { key, map, merged, .. }, .. }) = self.frames.last_mut() {
            if map.contains_key(&text) && !merged.contains(&text) {
                return Err(ErrorKind::DuplicateKey(self.path_to(&text)));
            }
            if map.is_empty() {
                self.budget.hold(MAPPING_BYTES)?;
            }
            *key = Some(Key::Text(text));
        }
        Ok(())
    }

    fn only_merge(&mut self) -> Result<(), ErrorKind> {
        match self.frames.last_mut() {
            Some(Frame { node: Node::Mapping { has_merge, .. }, .. }) if !*has_merge => {
                *has_merge = true;
                Ok(())
            }
            _ => Err(ErrorKind::DuplicateKey(self.path_to("<<"))),
        }
    }

    /// Path of the value that is being read, for messages: `spec.containers[0].image`.
    fn path(&self) -> String {
        or_document(self.keys(self.frames.len()))
    }

    /// Path of the innermost collection.
    fn path_of_parent(&self) -> String {
        or_document(self.keys(self.frames.len().saturating_sub(1)))
    }

    /// Path of a key of the innermost mapping.
    fn path_to(&self, key: &str) -> String {
        let mut path = self.keys(self.frames.len().saturating_sub(1));
        push_key(&mut path, key);
        path
    }

    /// The path through the `depth` outermost collections.
    fn keys(&self, depth: usize) -> String {
        let mut path = String::new();
        for frame in &self.frames[..depth] {
            match &frame.node {
                Node::Sequence(items) => {
                    let _ = write!(path, "[{}]", items.len()); // writing to a String cannot fail
                }
                Node::Mapping { key: Some(Key::Text(key)), .. } => push_key(&mut path, key),
                Node::Mapping { key: Some(Key::Merge), .. } => push_key(&mut path, "<<"),
                Node::Mapping { key: None, .. } => {}
            }
        }
        path
    }
}

fn or_document(path: String) -> String {
    if path.is_empty() { "the document".to_owned() } else { path }
}

/// Keys are named in messages only if they look like field names. Any other key may be a value in the wrong place.
fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    let is_name = key.len() <= 80
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '<' | '$'));
    path.push_str(if is_name { key } else { "…" });
}

/// The scalar tags of YAML itself; `None` for any other.
fn known_tag(tag: &YamlTag) -> Option<Tag> {
    Some(match tag.suffix_in_namespace("tag:yaml.org,2002:")?.as_ref() {
        "str" => Tag::Str,
        "int" => Tag::Int,
        "float" => Tag::Float,
        "bool" => Tag::Bool,
        "null" => Tag::Null,
        "timestamp" => Tag::Timestamp,
        "binary" => Tag::Binary,
        _ => return None,
    })
}
