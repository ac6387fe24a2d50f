//! Finds the position of every part of a document.

use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span};

/// A node of a YAML or JSON document.
pub struct Node {
    /// Line in the document, from 1.
    pub line: u32,
    pub kind: Kind,
}

pub enum Kind {
    Scalar(Scalar),
    /// Keys with their lines, in order.
    Mapping(Vec<(String, u32, Node)>),
    Sequence(Vec<Node>),
    /// `*anchor`
    Alias,
}

/// A scalar as it is written.
#[derive(Clone)]
pub struct Scalar {
    /// The range of its bytes in the document. For a quoted scalar, the quotes are included; for a block scalar, the
    /// range begins at the first character of content.
    pub range: Range<usize>,
    pub style: ScalarStyle,
    /// Column of the first character.
    pub column: usize,
}

/// A collection that is being read.
struct Frame {
    line: u32,
    kind: Kind,
    /// Key of a mapping whose value comes next.
    key: Option<(String, u32)>,
}

impl Node {
    /// The tree of a document that the parser of [`manifests`] accepts; `None` for any other document.
    pub fn of(document: &str) -> Option<Self> {
        let skipped = document.len() - document.trim_start_matches('\u{feff}').len();
        let mut frames: Vec<Frame> = Vec::new();
        let mut root = None;
        for event in Parser::new_from_str(&document[skipped..]) {
            let (event, span) = event.ok()?;
            let line = u32::try_from(span.start.line()).unwrap_or(u32::MAX);
            let node = match event {
                Event::MappingStart(..) => {
                    frames.push(Frame { line, kind: Kind::Mapping(Vec::new()), key: None });
                    continue;
                }
                Event::SequenceStart(..) => {
                    frames.push(Frame { line, kind: Kind::Sequence(Vec::new()), key: None });
                    continue;
                }
                Event::Scalar(text, style, ..) => {
                    if let Some(Frame { kind: Kind::Mapping(_), key: key @ None, .. }) = frames.last_mut() {
                        *key = Some((text.into_owned(), line));
                        continue;
                    }
                    Self { line, kind: Kind::Scalar(Scalar::at(&span, skipped, style)?) }
                }
                Event::Alias(_) => Self { line, kind: Kind::Alias },
                Event::MappingEnd | Event::SequenceEnd => {
                    let frame = frames.pop()?;
                    Self { line: frame.line, kind: frame.kind }
                }
                _ => continue,
            };
            match frames.last_mut() {
                None => root = Some(node),
                Some(Frame { kind: Kind::Mapping(entries), key, .. }) => match key.take() {
                    Some((key, line)) => entries.push((key, line, node)),
                    // This node is a key: an alias, whose text is at its anchor. The key counts as empty.
                    None => *key = Some((String::new(), node.line)),
                },
                Some(Frame { kind: Kind::Sequence(items), .. }) => items.push(node),
                Some(_) => return None,
            }
        }
        root
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, ..)| name == key).map(|(.., node)| node)
    }

    /// The line of a key; if there is no such key, the line of the mapping itself.
    pub fn line_of(&self, key: &str) -> u32 {
        self.entries().iter().find(|(name, ..)| name == key).map_or(self.line, |(_, line, _)| *line)
    }

    /// The line of the last key on the path `path` that exists in the document.
    pub fn line_at(&self, path: &[&str]) -> u32 {
        let (mut node, mut line) = (self, self.line);
        for key in path {
            line = node.line_of(key).max(line);
            match node.get(key) {
                Some(next) => node = next,
                None => break,
            }
        }
        line
    }

    /// The items of a sequence.
    pub fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The keys of a mapping as they are written, with their lines and values.
    pub fn entries(&self) -> &[(String, u32, Self)] {
        match &self.kind {
            Kind::Mapping(entries) => entries,
            _ => &[],
        }
    }
}

impl Scalar {
    fn at(span: &Span, skipped: usize, style: ScalarStyle) -> Option<Self> {
        let range = span.byte_range()?;
        Some(Self { range: range.start + skipped..range.end + skipped, style, column: span.start.col() })
    }

    /// The text that means `value` and can replace this scalar in `document`: in the same style, and with the same line
    /// breaks if it was a literal block.
    pub fn rewritten(&self, document: &str, value: &str) -> String {
        match self.style {
            ScalarStyle::SingleQuoted => format!("'{value}'"),
            ScalarStyle::DoubleQuoted => format!("\"{value}\""),
            ScalarStyle::Literal | ScalarStyle::Folded => self.rewritten_block(document, value),
            ScalarStyle::Plain => value.to_owned(),
        }
    }

    fn rewritten_block(&self, document: &str, value: &str) -> String {
        let old = &document[self.range.clone()];
        let (content, end) = old.split_at(old.trim_end().len());
        let lines: Vec<&str> = content.lines().collect();
        let width = lines.first().map_or(0, |line| line.trim_end().len());
        let is_wrapped = self.style == ScalarStyle::Literal && lines.len() > 1 && width > 0 && value.is_ascii();
        let mut text = String::with_capacity(value.len() * 2);
        let line_end = if content.contains("\r\n") { "\r\n" } else { "\n" };
        let mut rest = value;
        while is_wrapped && rest.len() > width {
            let (line, after) = rest.split_at(width);
            text.push_str(line);
            text.push_str(line_end);
            text.extend(std::iter::repeat_n(' ', self.column));
            rest = after;
        }
        text.push_str(rest);
        text.push_str(end);
        text
    }
}
