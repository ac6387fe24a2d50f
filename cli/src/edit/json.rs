//! Writes JSON documents, with the indentation and the last line end of the text that was read. JSON has no comments
//! that would have to be kept.

use anyhow::Context;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value};

/// Whether a document is JSON (and not just YAML in braces).
pub fn is_json(source: &str) -> bool {
    let text = source.trim_start_matches('\u{feff}');
    text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The body as JSON, with the indentation of the source.
pub fn write(source: &str, body: &Map<String, Value>) -> anyhow::Result<String> {
    let mut text = match indentation(source) {
        Some(indent) => {
            let mut bytes = Vec::new();
            body.serialize(&mut Serializer::with_formatter(
                &mut bytes,
                PrettyFormatter::with_indent(indent.as_bytes()),
            ))?;
            String::from_utf8(bytes).context("JSON is UTF-8")?
        }
        None => serde_json::to_string(body)?,
    };
    let end = &source[source.trim_end().len()..];
    if source.contains("\r\n") {
        text = text.replace('\n', "\r\n");
    }
    Ok(text + end)
}

/// The white space at the beginning of the second line; `None` for JSON on one line.
fn indentation(source: &str) -> Option<&str> {
    let line = source.trim_end().lines().nth(1)?;
    let indent = &line[..line.len() - line.trim_start().len()];
    Some(if indent.is_empty() { "  " } else { indent })
}
