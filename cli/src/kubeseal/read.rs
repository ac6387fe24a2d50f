//! The documents of an input: YAML, JSON, or several JSON objects in a row.

use anyhow::{Context, bail};
use manifests::{Limits, ParseError};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::errors::file_error;
use crate::edit::{self, wipe};

/// What kubeseal says when it finds nothing to read.
const NOTHING: &str = "no secrets found. Ensure the input is valid and UTF-8 encoded";

/// An object that may hold plaintexts; its texts are wiped when it is dropped.
pub(super) struct Body(pub(super) Map<String, Value>);

impl Drop for Body {
    fn drop(&mut self) {
        self.0.values_mut().for_each(wipe);
    }
}

/// All bytes of a file or of standard input, wiped when dropped.
pub(super) fn bytes(file: Option<&str>) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    match file {
        Some(file) => edit::read(file.as_ref()).map_err(|error| file_error(file, &error)),
        None => edit::read_stdin().context("read /dev/stdin"),
    }
}

/// The objects of a text, in order.
///
/// # Errors
/// There are no objects, or one of them cannot be read. kubeseal skips an object that it cannot read if there is
/// another one; for gitseal this is an error.
pub(super) fn objects(name: &str, bytes: &[u8]) -> anyhow::Result<Vec<Body>> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        bail!(NOTHING);
    };
    let (objects, unreadable) = parse(name, text);
    match unreadable {
        None if objects.is_empty() => bail!(NOTHING),
        None => Ok(objects),
        Some(error) if objects.is_empty() => bail!("{NOTHING}\n{error}"),
        Some(error) => bail!(error),
    }
}

/// The first object of a text, which must be a SealedSecret, and how many objects there are.
pub(super) fn sealed_secret(name: &str, bytes: &[u8]) -> anyhow::Result<(Map<String, Value>, usize)> {
    let text = std::str::from_utf8(bytes).ok().with_context(|| format!("{name} is not text in UTF-8"))?;
    let (mut objects, unreadable) = parse(name, text);
    if let Some(error) = unreadable {
        bail!(error);
    }
    let count = objects.len();
    let mut first = objects.drain(..).next().with_context(|| format!("{name} holds no SealedSecret"))?;
    let field = |name: &str| first.0.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (field("apiVersion"), field("kind"));
    if !kind.is_empty() && (api_version, kind) != (super::API_VERSION, super::KIND) {
        bail!("{name} holds an object of the kind {kind:?} ({api_version:?}) instead of a SealedSecret");
    }
    let body = super::shape::sealed_secret(std::mem::take(&mut first.0)).with_context(|| name.to_owned())?;
    Ok((body, count))
}

/// The objects that can be read, and the error of the first document that cannot be read.
fn parse(name: &str, text: &str) -> (Vec<Body>, Option<ParseError>) {
    if let Some(objects) = json_objects(text) {
        return (objects, None);
    }
    let mut objects = Vec::new();
    let mut unreadable = None;
    for document in manifests::split(text) {
        match manifests::parse_mapping(name, &document, &Limits::default()) {
            Ok(body) => objects.extend(body.map(Body)),
            Err(error) => unreadable = unreadable.or(Some(error)),
        }
    }
    (objects, unreadable)
}

/// The objects of a text that consists only of JSON objects; `None` for any other text.
fn json_objects(text: &str) -> Option<Vec<Body>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let objects = serde_json::Deserializer::from_str(text).into_iter::<Map<String, Value>>();
    objects.map(|object| object.map(Body)).collect::<Result<_, _>>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>, String> {
        let objects = objects("input", text.as_bytes()).map_err(|error| error.to_string())?;
        Ok(objects.iter().map(|body| body.0["a"].to_string()).collect())
    }

    #[test]
    fn documents_are_read_however_they_are_written() {
        for text in [
            "a: 1\n---\na: 2\n",
            "{\"a\": 1}{\"a\": 2}\n",
            "{\"a\": 1}\n---\n{\"a\": 2}",
            "# c\n---\n---\na: 1\n--- # d\na: 2\n---\n",
        ] {
            assert_eq!(names(text), Ok(vec!["1".to_owned(), "2".to_owned()]), "{text:?}");
        }
    }

    #[test]
    fn nothing_is_said_as_kubeseal_says_it() {
        for text in ["", "---\n", "# nothing\n", "foo", "a: [", "{\"a\": 1"] {
            assert!(names(text).unwrap_err().starts_with("no secrets found. Ensure the input is valid"), "{text:?}");
        }
        assert!(objects("input", b"a: \xff\n").is_err());
    }

    #[test]
    fn a_broken_document_is_not_left_out() {
        assert!(names("a: 1\n---\nb: [\n").unwrap_err().starts_with("input:"));
        assert!(names("a: 1\n---\ntext\n").unwrap_err().starts_with("input:3: "));
    }
}
