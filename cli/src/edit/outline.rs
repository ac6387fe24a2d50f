use granit_parser::{Event, Parser, Span, StructureStyle};

/// Where the parts of a block-style object are in its document, in lines counted from 0.
pub(super) struct Outline {
    /// Keys of the object.
    pub(super) keys: Vec<Key>,
    /// Keys of its `metadata`, if that is a block mapping.
    pub(super) metadata: Vec<Key>,
    /// Comments, in order.
    pub(super) comments: Vec<Comment>,
    /// Line of the last character that is neither white space nor in a comment.
    pub(super) last_line: usize,
}

pub(super) struct Key {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) column: usize,
}

pub(super) struct Comment {
    pub(super) line: usize,
    pub(super) column: usize,
    /// Whether the comment is alone on its line.
    pub(super) is_alone: bool,
}

/// A collection that is being read.
struct Frame {
    /// Whether the next node is a key; `None` in a sequence.
    awaits_key: Option<bool>,
    /// Which list of the outline gets the keys of this collection, if any.
    noted: Noted,
}

#[derive(Clone, Copy, PartialEq)]
enum Noted {
    Root,
    Metadata,
    Nothing,
}

impl Outline {
    /// Outlines a document; `None` if it is not a block mapping or not YAML.
    pub(super) fn of(source: &str) -> Option<Self> {
        let lines: Vec<&str> = source.split('\n').collect();
        let mut outline = Self { keys: Vec::new(), metadata: Vec::new(), comments: Vec::new(), last_line: 0 };
        let mut frames: Vec<Frame> = Vec::new();
        let options = granit_parser::options! { max_buffered_comment_events: 10_000 };
        for event in Parser::new_from_str_with_options(source, options) {
            let (event, span) = event.ok()?;
            outline.event(event, &span, &mut frames, &lines)?;
        }
        (!outline.keys.is_empty()).then_some(outline)
    }

    fn event(&mut self, event: Event<'_>, span: &Span, frames: &mut Vec<Frame>, lines: &[&str]) -> Option<()> {
        let (line, column) = (span.start.line().checked_sub(1)?, span.start.col());
        match event {
            Event::Comment(..) => {
                let before = lines.get(line)?.chars().take(column).collect::<String>();
                let is_alone = before.trim_start_matches('\u{feff}').trim().is_empty();
                self.comments.push(Comment { line, column, is_alone });
            }
            Event::Scalar(text, ..) => {
                self.extend_to(span);
                self.node(Some(&text), line, column, frames);
            }
            Event::Alias(_) => {
                self.extend_to(span);
                self.node(None, line, column, frames);
            }
            Event::MappingStart(style, ..) => {
                let is_block = style == StructureStyle::Block;
                let noted = match frames.last() {
                    None if is_block => Noted::Root,
                    None => return None,
                    Some(Frame { noted: Noted::Root, awaits_key: Some(false) })
                        if is_block && self.keys.last().is_some_and(|key| key.name == "metadata") =>
                    {
                        Noted::Metadata
                    }
                    Some(_) => Noted::Nothing,
                };
                frames.push(Frame { awaits_key: Some(true), noted });
            }
            Event::SequenceStart(..) => {
                frames.last()?;
                frames.push(Frame { awaits_key: None, noted: Noted::Nothing });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                frames.pop()?;
                // The parser puts the end of a block collection where the next node starts, with an empty span.
                if !span.is_empty() {
                    self.extend_to(span);
                }
                self.node(None, line, column, frames);
            }
            _ => {}
        }
        Some(())
    }

    /// Notes that a node of the innermost collection is complete.
    fn node(&mut self, text: Option<&str>, line: usize, column: usize, frames: &mut [Frame]) {
        let Some(frame) = frames.last_mut() else {
            return;
        };
        let Some(awaits_key) = &mut frame.awaits_key else {
            return;
        };
        if *awaits_key {
            let key = Key { name: text.unwrap_or_default().to_owned(), line, column };
            match frame.noted {
                Noted::Root => self.keys.push(key),
                Noted::Metadata => self.metadata.push(key),
                Noted::Nothing => {}
            }
        }
        *awaits_key = !*awaits_key;
    }

    /// Raises `last_line` to the line in which `span` ends, if that is later. The span of a block scalar ends at the
    /// start of the next line, which does not count.
    fn extend_to(&mut self, span: &Span) {
        let end = span.end.line().saturating_sub(if span.end.col() == 0 { 2 } else { 1 });
        self.last_line = self.last_line.max(end).max(span.start.line().saturating_sub(1));
    }
}
