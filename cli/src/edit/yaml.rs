//! Writes YAML documents, and decides which parts of the source's layout and comments a SealedSecret keeps.
//!
//! Comments before and after the object stay, and so do those of its `metadata`, which is copied line by line. Comments
//! above and among the values are left out, because a value that was commented out is still a secret. The result is
//! used only if exactly the intended object results when it is parsed; otherwise a simpler layout is tried.

use std::ops::Range;

use anyhow::Context;
use manifests::{Content, Limits};
use serde_json::{Map, Value};

use super::Written;
use super::outline::{Comment, Key, Outline};

/// Writes `body` as YAML that replaces the document `source`, and keeps the comments of `source`.
pub(super) fn write(source: &str, body: &Map<String, Value>) -> anyhow::Result<Written> {
    let lf = source.replace("\r\n", "\n");
    if let Some(outline) = Outline::of(&lf) {
        let layout = Layout::new(&lf, &outline);
        for keeps in [Keeps::AllMetadata, Keeps::MetadataWithoutAnnotations, Keeps::Frame] {
            if let Some(text) = layout.write(body, keeps)?.filter(|text| says(text, body)) {
                let comments_left_out = layout.comments_among_values().count();
                return Ok(Written { text: with_line_ends_of(source, text), comments_left_out });
            }
        }
    }
    Ok(Written { text: write_framed(source, body)?, comments_left_out: 0 })
}

/// The body as YAML, after the lines at the beginning of the source that have no content, for example comments.
pub(super) fn write_framed(source: &str, body: &Map<String, Value>) -> anyhow::Result<String> {
    let lf = source.replace("\r\n", "\n");
    let before: String = lf.split_inclusive('\n').take_while(|line| is_blank(line)).collect();
    let marker = if before.is_empty() && lf.starts_with("---") { "---\n" } else { "" };
    let end = if lf.trim_end().ends_with("\n...") { "...\n" } else { "" };
    let text = format!("{before}{marker}{}{end}", plain(body)?);
    Ok(with_line_ends_of(source, text))
}

/// The body as a YAML document, without the layout and the comments of the source.
pub(super) fn plain(body: &Map<String, Value>) -> anyhow::Result<String> {
    let text = fragment(&Value::Object(body.clone()), false)?;
    if says(&text, body) {
        return Ok(text);
    }
    let text = fragment(&Value::Object(body.clone()), true)?;
    if says(&text, body) {
        return Ok(text);
    }
    anyhow::bail!("cannot write this object as YAML");
}

fn fragment(value: &Value, quote_all: bool) -> anyhow::Result<String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false, quote_all: quote_all };
    let mut text = serde_saphyr::to_string_with_options(value, options).context("cannot write YAML")?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Whether exactly `body` results if `text` is parsed.
fn says(text: &str, body: &Map<String, Value>) -> bool {
    let mut documents = manifests::split(text).filter(|document| !document.is_empty());
    let (Some(document), None) = (documents.next(), documents.next()) else {
        return false;
    };
    match manifests::parse_document("", &document, &Limits::default()) {
        Ok(Content::Object(manifest)) => manifest.body == *body,
        Ok(Content::List(items)) => body
            .get("items")
            .and_then(Value::as_array)
            .is_some_and(|meant| meant.iter().map(Value::as_object).eq(items.iter().map(|item| Some(&item.body)))),
        _ => false,
    }
}

fn with_line_ends_of(source: &str, text: String) -> String {
    if source.contains("\r\n") { text.replace('\n', "\r\n") } else { text }
}

/// Whether a line is a document marker, a directive, a comment or blank.
fn is_blank(line: &str) -> bool {
    let line = line.trim_start_matches('\u{feff}').trim_end();
    let is_marker = line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.trim_start().starts_with('#'));
    is_marker || line.starts_with('%') || line.trim_start().is_empty() || line.trim_start().starts_with('#')
}

/// How much of the source's layout is kept.
#[derive(Clone, Copy, PartialEq)]
enum Keeps {
    AllMetadata,
    MetadataWithoutAnnotations,
    Frame,
}

struct Layout<'a> {
    lines: Vec<&'a str>,
    outline: &'a Outline,
}

impl<'a> Layout<'a> {
    fn new(source: &'a str, outline: &'a Outline) -> Self {
        Self { lines: source.split_inclusive('\n').collect(), outline }
    }

    /// The whole document; `None` if the parts of the source's layout that `keeps` names cannot be kept.
    fn write(&self, body: &Map<String, Value>, keeps: Keeps) -> anyhow::Result<Option<String>> {
        let (Some(first), Some(Value::Object(spec))) = (self.outline.keys.first(), body.get("spec")) else {
            return Ok(None);
        };
        let above = if is_values(first) { self.start_of(first) } else { first.line };
        let mut text = self.lines[..above].concat();
        // The first key may stand in the line of a document marker, after a tag. The layout of such a document cannot
        // be kept.
        if first.column != 0 {
            return Ok(None);
        }
        for key in ["apiVersion", "kind"] {
            text += &fragment(&Value::Object(pick(body, &[key])), false)?;
        }
        let (metadata, template_metadata) = if keeps == Keeps::Frame {
            let metadata = fragment(&Value::Object(pick(body, &["metadata"])), false)?;
            (metadata, None)
        } else {
            match self.metadata(body, keeps)? {
                Some((own, template)) => (own, Some(template)),
                None => return Ok(None),
            }
        };
        text += &self.comments_above_metadata();
        text += &metadata;
        text += &self.comments_above_the_rest();
        text += &write_spec(spec, template_metadata)?;
        text += &self.after();
        Ok(Some(text))
    }

    /// The lines of the object's own metadata, and those of the template's metadata, which are indented by six columns.
    fn metadata(&self, body: &Map<String, Value>, keeps: Keeps) -> anyhow::Result<Option<(String, String)>> {
        let Some(region) = self.region("metadata") else {
            return Ok(None);
        };
        let (Some(column), Some(own_body), Some(template_body)) = (
            self.outline.metadata.first().map(|key| key.column).filter(|column| *column > 0),
            body.get("metadata").and_then(Value::as_object),
            body.get("spec").and_then(|spec| spec.pointer("/template/metadata")?.as_object()),
        ) else {
            return Ok(None);
        };
        let mut own = self.lines[region.start].to_owned();
        let mut template = indent(&fragment(&Value::Object(pick(template_body, &["name", "namespace"])), false)?, 6);
        let (mut has_namespace, mut has_annotations) = (false, false);
        for (key, lines) in self.segments(region) {
            match key.name.as_str() {
                "name" => own += &lines,
                "namespace" => {
                    has_namespace = true;
                    if own_body.contains_key("namespace") {
                        own += &lines;
                    }
                }
                "annotations" if keeps == Keeps::MetadataWithoutAnnotations => {}
                name if !template_body.contains_key(name) => {}
                name => {
                    has_annotations |= name == "annotations";
                    let Some(moved) = reindent(&lines, key.column, 6) else {
                        return Ok(None);
                    };
                    template += &moved;
                }
            }
        }
        let mut rest = pick(own_body, if has_namespace { &["annotations"] } else { &["namespace", "annotations"] });
        if !rest.is_empty() {
            own += &indent(&fragment(&Value::Object(std::mem::take(&mut rest)), false)?, column);
        }
        if !has_annotations && template_body.contains_key("annotations") {
            template += &indent(&fragment(&Value::Object(pick(template_body, &["annotations"])), false)?, 6);
        }
        Ok(Some((own, template)))
    }

    /// The lines of each key of the metadata, with the comments above it.
    fn segments(&self, region: Range<usize>) -> Vec<(&'a Key, String)> {
        let keys = &self.outline.metadata;
        let mut start = region.start + 1;
        keys.iter()
            .enumerate()
            .map(|(index, key)| {
                let end = keys.get(index + 1).map_or(region.end, |next| self.with_comments_above(next.line));
                let end = end.max(start);
                let mut lines = self.lines[start..end].concat();
                if !lines.ends_with('\n') {
                    lines.push('\n');
                }
                start = end;
                (key, lines)
            })
            .collect()
    }

    /// The lines of a key of the object, up to the comments above the next key.
    fn region(&self, name: &str) -> Option<Range<usize>> {
        let index = self.outline.keys.iter().position(|key| key.name == name)?;
        let start = self.outline.keys[index].line;
        let end = match self.outline.keys.get(index + 1) {
            Some(next) => self.start_of(next),
            None => self.outline.last_line + 1,
        };
        (start < end).then_some(start..end)
    }

    /// The first of the comment and blank lines directly above a line.
    fn with_comments_above(&self, line: usize) -> usize {
        self.above(line, |comment| comment.is_alone)
    }

    /// Where a key begins, including unindented comments above it. Comments above `data` and `stringData` belong to
    /// the values, however they are indented.
    fn start_of(&self, key: &Key) -> usize {
        if is_values(key) { self.with_comments_above(key.line) } else { self.margin_comments_above(key.line) }
    }

    fn margin_comments_above(&self, line: usize) -> usize {
        self.above(line, |comment| comment.is_alone && comment.column == 0)
    }

    fn above(&self, line: usize, counts: impl Fn(&Comment) -> bool) -> usize {
        let is_above = |line: usize| {
            self.lines[line].trim().is_empty()
                || self.outline.comments.iter().any(|comment| comment.line == line && counts(comment))
        };
        (0..line).rev().take_while(|line| is_above(*line)).last().unwrap_or(line)
    }

    fn comments_above_metadata(&self) -> String {
        let Some(region) = self.region("metadata") else {
            return String::new();
        };
        let Some(first) = self.outline.keys.first().filter(|first| first.line < region.start) else {
            return String::new();
        };
        self.margin_comments(first.line..region.start)
    }

    /// Unindented comments after the metadata, except those among the values.
    fn comments_above_the_rest(&self) -> String {
        let after_metadata = self.region("metadata").map_or(0, |region| region.end);
        self.margin_comments(after_metadata..self.outline.last_line + 1)
    }

    fn margin_comments(&self, range: Range<usize>) -> String {
        let values: Vec<_> = self.value_regions().collect();
        let is_among_values = |line| values.iter().any(|region| region.contains(&line));
        self.outline
            .comments
            .iter()
            .filter(|comment| comment.is_alone && comment.column == 0)
            .filter(|comment| range.contains(&comment.line) && !is_among_values(comment.line))
            .map(|comment| self.lines[comment.line])
            .collect()
    }

    /// Lines from which no comment is kept: from the comments above `data` or `stringData` to those above the next key.
    fn value_regions(&self) -> impl Iterator<Item = Range<usize>> {
        let keys = &self.outline.keys;
        keys.iter().enumerate().filter(|(_, key)| is_values(key)).map(|(index, key)| {
            let end = keys.get(index + 1).map_or(self.end_of_values(), |next| self.start_of(next));
            self.start_of(key)..end.max(key.line + 1)
        })
    }

    /// Where the values end if no key follows them: at a blank line, or at the end of the document.
    fn end_of_values(&self) -> usize {
        let behind = self.outline.last_line + 1;
        (behind..self.lines.len())
            .find(|line| self.lines[*line].trim().is_empty() || !is_blank(self.lines[*line]))
            .unwrap_or(self.lines.len())
    }

    fn comments_among_values(&self) -> impl Iterator<Item = &'a Comment> {
        let regions: Vec<_> = self.value_regions().collect();
        self.outline.comments.iter().filter(move |comment| regions.iter().any(|region| region.contains(&comment.line)))
    }

    /// What follows the object: blank lines, unindented comments, an end marker.
    fn after(&self) -> String {
        let end = match self.outline.keys.last() {
            Some(last) if is_values(last) => self.end_of_values(),
            _ => self.outline.last_line + 1,
        };
        self.lines[end.min(self.lines.len())..]
            .iter()
            .copied()
            .filter(|line| !line.starts_with([' ', '\t']) || line.trim().is_empty())
            .filter(|line| is_blank(line) || line.starts_with("..."))
            .collect()
    }
}

fn is_values(key: &Key) -> bool {
    matches!(key.name.as_str(), "data" | "stringData")
}

fn write_spec(spec: &Map<String, Value>, template_metadata: Option<String>) -> anyhow::Result<String> {
    let Some(metadata) = template_metadata else {
        return fragment(&Value::Object(Map::from_iter([("spec".to_owned(), spec.clone().into())])), false);
    };
    let mut text = "spec:\n".to_owned();
    text += &indent(&fragment(&Value::Object(pick(spec, &["encryptedData"])), false)?, 2);
    text += "  template:\n    metadata:\n";
    text += &metadata;
    if let Some(Value::Object(template)) = spec.get("template") {
        let rest = pick(template, &["type", "immutable"]);
        if !rest.is_empty() {
            text += &indent(&fragment(&Value::Object(rest), false)?, 4);
        }
    }
    Ok(text)
}

fn pick(map: &Map<String, Value>, keys: &[&str]) -> Map<String, Value> {
    keys.iter().filter_map(|key| map.get_key_value(*key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn indent(text: &str, by: usize) -> String {
    reindent(text, 0, by).unwrap_or_default()
}

/// Moves lines from one column to another; `None` if there is too little indentation to remove.
fn reindent(text: &str, from: usize, to: usize) -> Option<String> {
    text.split_inclusive('\n')
        .map(|line| {
            if line.trim().is_empty() {
                return Some(line.to_owned());
            }
            let spaces = line.len() - line.trim_start_matches(' ').len();
            let spaces_left = (spaces + to).checked_sub(from)?;
            Some(" ".repeat(spaces_left) + &line[spaces..])
        })
        .collect()
}
