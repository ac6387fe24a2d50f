use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::error::{ErrorKind, Location, ParseError};
use crate::id::ObjectId;
use crate::limits::Limits;
use crate::split::{Document, split};
use crate::text::{self, BOM};
use crate::yaml::{self, Budget};

/// One Kubernetes object, and where it is.
///
/// Its `Debug` leaves the body out, because that may be a plaintext Secret.
#[derive(Clone, PartialEq)]
pub struct Manifest {
    /// What it is.
    pub id: ObjectId,
    /// API version without the group, for example `v1`.
    pub version: String,
    /// The file and the line at which the object starts.
    pub origin: Location,
    /// The whole object, keys in the order of the file.
    pub body: Map<String, Value>,
}

impl Manifest {
    /// `group/version`, or `version` for the core group.
    pub fn api_version(&self) -> String {
        match self.id.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// Reads the id and the version from the body again, after a change of the body.
    ///
    /// # Errors
    /// The body has no valid `apiVersion`, `kind` or name any more.
    pub fn identify(&mut self) -> Result<(), ParseError> {
        let at = |kind| ParseError::new(&self.origin.file, self.origin.line, kind);
        (self.id, self.version) = identify(&self.body).map_err(at)?;
        Ok(())
    }

    /// 16 hexadecimal digits of the SHA-256 of the body as JSON with sorted keys. Equal objects have the same digest.
    ///
    /// The digest is not keyed. So the digest of an object with a plaintext must not leave memory.
    pub fn digest(&self) -> String {
        let mut hash = HashWriter(Sha256::new());
        write_sorted_object(&mut hash, &self.body).expect("writing to a hash never fails");
        let digest = hash.0.finalize();
        let (half, _) = digest.split_at(8);
        half.iter().fold(String::with_capacity(16), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}"); // writing to a String cannot fail
            hex
        })
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("id", &self.id)
            .field("version", &self.version)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Reads the objects of a YAML or JSON file, in order. `file` is its name for messages.
///
/// Empty documents are skipped, and a `List` is replaced by its items. Every object must have `apiVersion`, `kind` and
/// `metadata.name`, with characters that an API server accepts in a URL.
///
/// Scalars are read as by `kubectl` (`sigs.k8s.io/yaml`): `yes`, `on` and `y` are booleans, `0644` and `0o644` are 420,
/// `1_000` is 1000, `1.0` and `1e3` are integers, and dates are text. A quoted scalar is text. Keys that are numbers or
/// booleans become text. `!!binary` is decoded. A text in JSON may have several objects. Texts that not all programs
/// read in the same way are refused: duplicate keys, a `<<` after a key that it would set to another value, and in YAML
/// the line separators U+0085, U+2028 and U+2029, which end a line in YAML 1.1 and are part of the text in YAML 1.2.
pub fn parse(file: &str, bytes: &[u8], limits: &Limits) -> Result<Vec<Manifest>, ParseError> {
    parse_measured(file, bytes, limits).map(|parsed| parsed.manifests)
}

/// The result of [`parse_measured`].
pub struct Parsed {
    /// The objects.
    pub manifests: Vec<Manifest>,
    /// How many bytes of memory the objects take: an estimate, which is too high rather than too low, and at most
    /// [`Limits::memory`].
    pub memory: usize,
}

/// Like [`parse`], but also returns how much memory the objects take.
pub fn parse_measured(file: &str, bytes: &[u8], limits: &Limits) -> Result<Parsed, ParseError> {
    let file: Arc<str> = file.into();
    let refuse = |line, kind| ParseError::new(&file, line, kind);
    if bytes.len() > limits.file_bytes {
        return Err(refuse(1, ErrorKind::TooLarge(limits.file_bytes)));
    }
    let text = text::decode(bytes).map_err(|(line, kind)| refuse(line, kind))?;
    let text = text.strip_prefix(BOM).unwrap_or(text);
    let mut budget = Budget::new(limits);
    let mut manifests = Vec::new();
    for (count, document) in split(text).enumerate() {
        if count >= limits.documents {
            return Err(refuse(document.line, ErrorKind::TooManyDocuments(limits.documents)));
        }
        match content(&file, &document, &mut budget)? {
            Content::Nothing => {}
            Content::Object(manifest) => manifests.push(*manifest),
            Content::List(items) => manifests.extend(items),
        }
    }
    Ok(Parsed { manifests, memory: budget.memory() })
}

/// The content of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Nothing, or only comments.
    Nothing,
    /// One object.
    Object(Box<Manifest>),
    /// The items of a `List`.
    List(Vec<Manifest>),
}

/// Reads one document of a text that was [`split`], by the rules of [`parse`]. This is for code that edits a file and
/// must know what each document contains. Line numbers are those of the whole text.
pub fn parse_document(file: &str, document: &Document<'_>, limits: &Limits) -> Result<Content, ParseError> {
    let file: Arc<str> = file.into();
    let refuse = |line: u32, kind| ParseError::new(&file, line_in_file(document, line), kind);
    if document.text.len() > limits.file_bytes {
        return Err(refuse(1, ErrorKind::TooLarge(limits.file_bytes)));
    }
    let text = text::decode(document.text.as_bytes()).map_err(|(line, kind)| refuse(line, kind))?;
    let document = Document { text: text.strip_prefix(BOM).unwrap_or(text), ..*document };
    content(&file, &document, &mut Budget::new(limits))
}

/// Reads one document of a [`split`] text as a mapping. The mapping need not be a Kubernetes object. `None` if the document
/// is empty or has only comments.
pub fn parse_mapping(
    file: &str,
    document: &Document<'_>,
    limits: &Limits,
) -> Result<Option<Map<String, Value>>, ParseError> {
    let file: Arc<str> = file.into();
    let refuse = |line: u32, kind| ParseError::new(&file, line_in_file(document, line), kind);
    if document.text.len() > limits.file_bytes {
        return Err(refuse(1, ErrorKind::TooLarge(limits.file_bytes)));
    }
    let text = text::decode(document.text.as_bytes()).map_err(|(line, kind)| refuse(line, kind))?;
    let text = text.strip_prefix(BOM).unwrap_or(text);
    let root = yaml::read(text, &mut Budget::new(limits)).map_err(|(line, kind)| refuse(line, kind))?;
    match root.map(|root| (root.value, root.line)) {
        None | Some((Value::Null, _)) => Ok(None),
        Some((Value::Object(body), _)) => Ok(Some(body)),
        Some((_, line)) => Err(refuse(line, ErrorKind::NotAnObject)),
    }
}

fn content(file: &Arc<str>, document: &Document<'_>, budget: &mut Budget) -> Result<Content, ParseError> {
    let at = |line| line_in_file(document, line);
    if document.is_empty() {
        return Ok(Content::Nothing);
    }
    let root = yaml::read(document.text, budget).map_err(|(line, kind)| ParseError::new(file, at(line), kind))?;
    let Some(root) = root else {
        return Ok(Content::Nothing);
    };
    let body = match root.value {
        Value::Null => return Ok(Content::Nothing),
        Value::Object(body) => body,
        _ => return Err(ParseError::new(file, at(root.line), ErrorKind::NotAnObject)),
    };
    if is_list(&body) {
        let lines = root.item_lines.into_iter().map(at);
        return items(file, at(root.line), lines, body).map(Content::List);
    }
    manifest(file, at(root.line), body).map(|manifest| Content::Object(Box::new(manifest)))
}

fn line_in_file(document: &Document<'_>, line: u32) -> u32 {
    line.saturating_add(document.line - 1)
}

/// Whether a file may contain manifests, by its name: `.yaml`, `.yml`, `.json`.
pub fn is_manifest_file(path: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

/// The items of a list as separate objects.
fn items(
    file: &Arc<str>,
    line: u32,
    mut lines: impl Iterator<Item = u32>,
    mut body: Map<String, Value>,
) -> Result<Vec<Manifest>, ParseError> {
    let refuse = |line, kind| ParseError::new(file, line, kind);
    let items = match body.remove("items") {
        Some(Value::Array(items)) => items,
        Some(Value::Null) | None => Vec::new(),
        Some(_) => return Err(refuse(line, ErrorKind::InvalidField("items"))),
    };
    // In a typed list (`ConfigMapList`), the API server leaves out `apiVersion` and `kind` of the items.
    let api_version = body.remove("apiVersion");
    let kind = body.get("kind").and_then(Value::as_str).and_then(|kind| kind.strip_suffix("List"));
    let mut manifests = Vec::with_capacity(items.len());
    for item in items {
        let line = lines.next().unwrap_or(line);
        let Value::Object(mut item) = item else {
            return Err(refuse(line, ErrorKind::NotAnObject));
        };
        if let (Some(kind), Some(api_version), false) = (kind, &api_version, item.contains_key("kind"))
            && !kind.is_empty()
            && !item.contains_key("apiVersion")
        {
            item.insert("apiVersion".to_owned(), api_version.clone());
            item.insert("kind".to_owned(), kind.into());
        }
        manifests.push(manifest(file, line, item)?);
    }
    Ok(manifests)
}

/// `kubectl` reads an object of a kind `…List` with items and without a name as a list.
fn is_list(body: &Map<String, Value>) -> bool {
    let kind = body.get("kind").and_then(Value::as_str).unwrap_or_default();
    let is_named = body.get("metadata").and_then(|metadata| metadata.get("name")).is_some();
    kind.ends_with("List") && !is_named && (body.contains_key("items") || kind == "List")
}

fn manifest(file: &Arc<str>, line: u32, body: Map<String, Value>) -> Result<Manifest, ParseError> {
    let (id, version) = identify(&body).map_err(|kind| ParseError::new(file, line, kind))?;
    Ok(Manifest { id, version, origin: Location { file: Arc::clone(file), line }, body })
}

fn identify(body: &Map<String, Value>) -> Result<(ObjectId, String), ErrorKind> {
    let api_version = text_field(body, "apiVersion", "apiVersion")?.ok_or(ErrorKind::Missing("apiVersion"))?;
    let kind = text_field(body, "kind", "kind")?.ok_or(ErrorKind::Missing("kind"))?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if version.is_empty() || version.contains('/') || (group.is_empty() && api_version.contains('/')) {
        return Err(ErrorKind::InvalidField("apiVersion"));
    }
    let metadata = match body.get("metadata") {
        Some(Value::Object(metadata)) => metadata,
        Some(Value::Null) | None => return Err(ErrorKind::Missing("metadata")),
        Some(_) => return Err(ErrorKind::InvalidField("metadata")),
    };
    let Some(name) = text_field(metadata, "name", "metadata.name")? else {
        let is_generated = metadata.contains_key("generateName");
        return Err(if is_generated { ErrorKind::GenerateName } else { ErrorKind::Missing("metadata.name") });
    };
    let namespace = text_field(metadata, "namespace", "metadata.namespace")?.map(str::to_owned);
    let id = ObjectId { group: group.to_owned(), kind: kind.to_owned(), namespace, name: name.to_owned() };
    let name_fits = is_segment(name) && !name.contains('/');
    let namespace_fits =
        id.namespace.as_deref().is_none_or(|namespace| is_segment(namespace) && !namespace.contains('/'));
    for (fits, field) in [
        (is_api_version(group, version), "apiVersion"),
        (is_segment(kind) && !kind.contains('/'), "kind"),
        (name_fits, "metadata.name"),
        (namespace_fits, "metadata.namespace"),
    ] {
        if !fits {
            return Err(ErrorKind::InvalidField(field));
        }
    }
    Ok((id, version.to_owned()))
}

/// A field that must be a string. Empty and null count as missing, as for the API server.
fn text_field<'a>(map: &'a Map<String, Value>, key: &str, field: &'static str) -> Result<Option<&'a str>, ErrorKind> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok((!text.is_empty()).then_some(text)),
        Some(_) => Err(ErrorKind::NotAString(field.to_owned())),
    }
}

/// Whether both parts are DNS names, so that they can be in the path of a URL: no `..`, no `?`.
fn is_api_version(group: &str, version: &str) -> bool {
    let is_name = |text: &str| {
        is_segment(text) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
    };
    is_name(version) && (group.is_empty() || is_name(group))
}

/// Whether a text can be in the path of a URL, in a log line and in an inventory without escaping.
fn is_segment(text: &str) -> bool {
    text.len() <= 253 && text != "." && text != ".." && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%')
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_sorted_object(out: &mut impl io::Write, map: &Map<String, Value>) -> io::Result<()> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    out.write_all(b"{")?;
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        serde_json::to_writer(&mut *out, key)?;
        out.write_all(b":")?;
        write_sorted(out, value)?;
    }
    out.write_all(b"}")
}

/// Recurses no deeper than [`Limits::depth`].
fn write_sorted(out: &mut impl io::Write, value: &Value) -> io::Result<()> {
    match value {
        Value::Object(map) => write_sorted_object(out, map),
        Value::Array(items) => {
            out.write_all(b"[")?;
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.write_all(b",")?;
                }
                write_sorted(out, item)?;
            }
            out.write_all(b"]")
        }
        scalar => Ok(serde_json::to_writer(out, scalar)?),
    }
}

#[cfg(test)]
mod tests;
