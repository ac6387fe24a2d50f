use serde::de::IgnoredAny;

use crate::text::{BOM, is_json};

/// One document of a YAML text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// From its `---` line (if it has one) to the start of the next document, line ends included.
    pub text: &'a str,
    /// How many bytes of the whole text are before the document.
    pub start: usize,
    /// Line at which the document starts, from 1.
    pub line: u32,
}

impl Document<'_> {
    /// Whether it has only markers, blank lines, comments and directives.
    pub fn is_empty(&self) -> bool {
        !self.text.split_inclusive('\n').any(|line| matches!(classify(line), Line::Content | Line::StartWithContent))
    }
}

/// Splits a text into its documents at `---` lines and after `...` lines. If the text is [JSON](is_json), it is split
/// into its values.
///
/// The texts of all documents together are the whole text, so an editor can replace one and keep every other byte. No
/// scalar can contain a document marker (YAML 1.2, 9.1.2), so it is enough to look at lines.
pub fn split(text: &str) -> Documents<'_> {
    Documents { text, start: 0, line: 1, is_json: is_json(text) }
}

/// The iterator of [`split`].
#[derive(Clone, Debug)]
pub struct Documents<'a> {
    text: &'a str,
    start: usize,
    line: u32,
    is_json: bool,
}

impl<'a> Iterator for Documents<'a> {
    type Item = Document<'a>;

    fn next(&mut self) -> Option<Document<'a>> {
        let rest = &self.text[self.start..];
        if rest.is_empty() {
            return None;
        }
        let (bytes, lines) = if self.is_json { first_value(rest) } else { first_document(rest) };
        let document = Document { text: &rest[..bytes], start: self.start, line: self.line };
        self.start += bytes;
        self.line = self.line.saturating_add(lines);
        Some(document)
    }
}

/// Number of bytes and lines of the JSON value at the start of the text, and of the white space after it.
fn first_value(text: &str) -> (usize, u32) {
    let json = text.trim_start_matches(BOM);
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<IgnoredAny>();
    values.next();
    let value = text.len() - json.len() + values.byte_offset();
    let bytes = text.len() - text[value..].trim_start().len();
    let lines = text[..bytes].matches('\n').count();
    (bytes, u32::try_from(lines).unwrap_or(u32::MAX))
}

/// Number of bytes and lines of the document at the start of the text.
fn first_document(text: &str) -> (usize, u32) {
    let (mut bytes, mut lines) = (0, 0_u32);
    // Directives (`%YAML 1.2`) belong to the document whose `---` follows them.
    let (mut directives, mut begun) = (false, false);
    for line in text.split_inclusive('\n') {
        let class = classify(line);
        match class {
            Line::Start | Line::StartWithContent if bytes > 0 && (begun || !directives) => break,
            Line::Start | Line::StartWithContent | Line::Content => begun = true,
            Line::Directive => directives = true,
            Line::End | Line::Blank => {}
        }
        bytes += line.len();
        lines = lines.saturating_add(1);
        if class == Line::End {
            break;
        }
    }
    (bytes, lines)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// `---`, alone or with a comment.
    Start,
    /// `--- {…}`
    StartWithContent,
    /// `...`
    End,
    /// `%…` at the start of a line. It is a directive if no document has begun; inside a document, it is content.
    Directive,
    /// Nothing, or a comment.
    Blank,
    Content,
}

fn classify(line: &str) -> Line {
    let line = line.trim_start_matches(BOM);
    if let Some(rest) = marker(line, "---") {
        return if is_blank(rest) { Line::Start } else { Line::StartWithContent };
    }
    if marker(line, "...").is_some() {
        return Line::End;
    }
    match line {
        _ if is_blank(line) => Line::Blank,
        _ if line.starts_with('%') => Line::Directive,
        _ => Line::Content,
    }
}

/// The text after a document marker at the start of the line.
fn marker<'a>(line: &'a str, marker: &str) -> Option<&'a str> {
    line.strip_prefix(marker).filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_blank(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<(&str, u32)> {
        split(text).map(|document| (document.text, document.line)).collect()
    }

    #[test]
    fn splits_at_markers_and_counts_lines() {
        assert_eq!(texts(""), []);
        assert_eq!(texts("a: 1"), [("a: 1", 1)]);
        assert_eq!(texts("a: 1\n---\nb: 2\n"), [("a: 1\n", 1), ("---\nb: 2\n", 2)]);
        assert_eq!(texts("# c\n--- # d\r\nb: 2\r\n---"), [("# c\n", 1), ("--- # d\r\nb: 2\r\n", 2), ("---", 4)]);
        assert_eq!(texts("a: 1\n...\n# c\nb: 2\n"), [("a: 1\n...\n", 1), ("# c\nb: 2\n", 3)]);
        assert_eq!(texts("%YAML 1.2\n---\na: 1\n"), [("%YAML 1.2\n---\na: 1\n", 1)]);
        assert_eq!(texts("\u{feff}---\na: 1\n--- {b: 2}\n"), [("\u{feff}---\na: 1\n", 1), ("--- {b: 2}\n", 3)]);
    }

    #[test]
    fn splits_json_at_its_values() {
        assert_eq!(texts("{\"a\": 1}\n{\"b\":\n\"} {\"}\n"), [("{\"a\": 1}\n", 1), ("{\"b\":\n\"} {\"}\n", 2)]);
        assert_eq!(texts(" {}{} \n"), [(" {}", 1), ("{} \n", 1)]);
        assert_eq!(texts("\u{feff}{}\n\n{}"), [("\u{feff}{}\n\n", 1), ("{}", 3)]);
        // This is YAML in braces, and not JSON.
        assert_eq!(texts("{a: 1}\n---\n{}\n").len(), 2);
        assert_eq!(texts("{}\n---\n{}\n").len(), 2);
        assert_eq!(texts("{} {\n").len(), 1);
    }

    #[test]
    fn what_only_looks_like_a_marker_does_not_split() {
        for text in ["---a: 1\n----\n", "a: |\n  ---\n  b\n", "a: x\n ---\n", "-----BEGIN\n"] {
            assert_eq!(texts(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn knows_an_empty_document() {
        assert!(split("--- # only\n\n# comments\n...\n").all(|document| document.is_empty()));
        assert!(!split("--- {a: 1}\n").any(|document| document.is_empty()));
    }

    proptest! {
        #[test]
        fn covers_all_of_the_text(text in r"(?s)([a:#%. -]|---|\.\.\.|\r?\n|\PC){0,80}") {
            let (mut whole, mut lines) = (String::new(), 1);
            for document in split(&text) {
                prop_assert_eq!(document.start, whole.len());
                prop_assert_eq!(document.line, lines);
                whole.push_str(document.text);
                lines += u32::try_from(document.text.matches('\n').count()).unwrap();
            }
            prop_assert_eq!(whole, text);
        }
    }
}
