//! Replaces the Secrets in a text by SealedSecrets. Every other byte stays as it is.

mod file;
mod json;
mod outline;
mod sealed;
mod secret;
pub mod tree;
mod typed;
mod uninterrupted;
mod values;
mod yaml;

pub use file::{create, create_private, read, read_rules, read_stdin, replace};
pub use sealed::{Sealer, own_scope};
pub use secret::{LAST_APPLIED, PlainSecret, check_key, check_name, decode_base64, is_field_name, wipe};
pub use values::{Replacement, SealedObject, SealedText, ValueInText, names_kind};

use anyhow::Context;
use manifests::{Content, Document, ErrorKind, Limits, Manifest, ParseError};
use serde_json::{Map, Value};

use self::tree::Node;

/// A text that was split into its documents and searched for plaintext Secrets.
pub struct Text<'a> {
    file: &'a str,
    parts: Vec<Part<'a>>,
    /// Documents that cannot be read and name the kind Secret.
    pub unreadable: Vec<ParseError>,
    /// The first document that is neither YAML nor JSON, among those that do not name the kind Secret.
    pub broken: Option<ParseError>,
    /// Secrets that are encrypted in another way (SOPS) and were not changed.
    pub foreign: Vec<Manifest>,
    /// The number of SealedSecrets in the text before anything was sealed.
    pub sealed_before: usize,
}

struct Part<'a> {
    text: &'a str,
    /// Line of the file at which the document starts.
    line: u32,
    content: Holds,
}

enum Holds {
    /// A document without a plaintext Secret.
    Other,
    Secret(Box<Manifest>),
    /// A list with a Secret in it.
    List(Vec<Manifest>),
}

/// A Secret that was sealed; for the summary.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sealed {
    /// The file, as the user named it.
    pub file: String,
    /// Line at which the Secret started.
    pub line: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
    pub scope: String,
    /// Whether the namespace is that of the kubeconfig's context, because neither the file nor a flag names one.
    #[serde(skip)]
    pub namespace_of_kubeconfig: bool,
    /// Names of the values.
    pub keys: Vec<String>,
    /// How many lines of comments among the values were left out.
    pub comments_left_out: usize,
}

impl<'a> Text<'a> {
    /// Reads a text. Documents that are not manifests are not changed; those that may be Secrets are in
    /// [`Text::unreadable`].
    pub fn read(file: &'a str, text: &'a str) -> Self {
        let mut read = Self {
            file,
            parts: Vec::new(),
            unreadable: Vec::new(),
            broken: None,
            foreign: Vec::new(),
            sealed_before: 0,
        };
        for document in manifests::split(text) {
            let content = read.look_at(&document);
            read.parts.push(Part { text: document.text, line: document.line, content });
        }
        read
    }

    fn look_at(&mut self, document: &Document<'_>) -> Holds {
        match manifests::parse_document(self.file, document, &Limits::default()) {
            Ok(Content::Object(manifest)) if self.is_to_seal(&manifest) => Holds::Secret(manifest),
            Ok(Content::Object(_) | Content::Nothing) => Holds::Other,
            Ok(Content::List(items)) => {
                let secrets = items.iter().filter(|item| self.is_to_seal(item)).count();
                if secrets > 0 { Holds::List(items) } else { Holds::Other }
            }
            Err(error) => {
                if names_kind(document.text, "Secret") {
                    self.unreadable.push(error);
                } else if matches!(error.kind(), ErrorKind::Syntax { .. }) {
                    self.broken.get_or_insert(error);
                }
                Holds::Other
            }
        }
    }

    fn is_to_seal(&mut self, manifest: &Manifest) -> bool {
        self.sealed_before += usize::from(manifest.id.is_sealed_secret());
        let is_plain = is_plain_secret(manifest);
        if manifest.id.is_secret() && !is_plain {
            self.foreign.push(manifest.clone());
        }
        is_plain
    }

    /// The number of plaintext Secrets that were found.
    pub fn secrets(&self) -> usize {
        self.parts
            .iter()
            .map(|part| match &part.content {
                Holds::Other => 0,
                Holds::Secret(_) => 1,
                Holds::List(items) => items.iter().filter(|item| is_plain_secret(item)).count(),
            })
            .sum()
    }

    /// The text with its Secrets sealed, and what was sealed.
    ///
    /// # Errors
    /// All mistakes in the Secrets, each with its line.
    pub fn seal(self, sealer: &Sealer<'_>) -> anyhow::Result<(String, Vec<Sealed>)> {
        let (mut text, mut summary, mut mistakes) = (String::new(), Vec::new(), Vec::new());
        for part in self.parts {
            match part.content {
                Holds::Other => text.push_str(part.text),
                Holds::Secret(manifest) => {
                    let secret = match PlainSecret::take(*manifest, Node::of(part.text).as_ref(), part.line) {
                        Ok(secret) => secret,
                        Err(found) => {
                            mistakes.extend(found);
                            continue;
                        }
                    };
                    let (body, mut entry) = sealer.seal(&secret)?;
                    let written = write(part.text, &body).with_context(|| secret.place())?;
                    entry.comments_left_out = written.comments_left_out;
                    text.push_str(&written.text);
                    summary.push(entry);
                }
                Holds::List(items) => {
                    let list = Node::of(part.text);
                    let nodes = list.as_ref().and_then(|list| list.get("items")).map(Node::items).unwrap_or_default();
                    let body = match seal_list(items, sealer, nodes, part.line, &mut summary) {
                        Ok(body) => body,
                        Err(found) => {
                            mistakes.extend(found);
                            continue;
                        }
                    };
                    text.push_str(&write_anew(part.text, &body)?);
                }
            }
        }
        match crate::output::all("this from being sealed", mistakes) {
            Some(error) => Err(error),
            None => Ok((text, summary)),
        }
    }
}

/// The new text of a document.
struct Written {
    text: String,
    comments_left_out: usize,
}

fn write(source: &str, body: &Map<String, Value>) -> anyhow::Result<Written> {
    if json::is_json(source) {
        return Ok(Written { text: json::write(source, body)?, comments_left_out: 0 });
    }
    yaml::write(source, body)
}

/// Writes the whole document of a list again, so a Kubernetes List loses its comments.
fn write_anew(source: &str, body: &Map<String, Value>) -> anyhow::Result<String> {
    if json::is_json(source) {
        return json::write(source, body);
    }
    yaml::write_framed(source, body)
}

fn seal_list(
    items: Vec<Manifest>,
    sealer: &Sealer<'_>,
    nodes: &[Node],
    first_line: u32,
    summary: &mut Vec<Sealed>,
) -> Result<Map<String, Value>, Vec<anyhow::Error>> {
    let (mut sealed, mut mistakes): (Vec<Value>, Vec<anyhow::Error>) = (Vec::new(), Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        if !is_plain_secret(&item) {
            sealed.push(Value::Object(item.body));
            continue;
        }
        let secret = PlainSecret::take(item, nodes.get(index), first_line);
        match secret.and_then(|secret| sealer.seal(&secret).map_err(|error| vec![error])) {
            Ok((body, entry)) => {
                summary.push(entry);
                sealed.push(Value::Object(body));
            }
            Err(found) => mistakes.extend(found),
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    Ok(Map::from_iter([
        ("apiVersion".to_owned(), "v1".into()),
        ("kind".to_owned(), "List".into()),
        ("items".to_owned(), sealed.into()),
    ]))
}

/// A SealedSecret as a YAML document of its own.
pub fn new_document(body: &Map<String, Value>) -> anyhow::Result<String> {
    yaml::plain(body)
}

fn is_plain_secret(manifest: &Manifest) -> bool {
    manifest.id.is_secret() && !manifest.body.contains_key("sops")
}

/// The field of the first value in a Secret that SOPS did not encrypt; `None` if everything is encrypted.
pub fn left_plain_by_sops(manifest: &Manifest) -> Option<String> {
    // An empty text counts as encrypted, because SOPS leaves it as it is.
    let is_encrypted = |value: &Value| value.as_str().is_some_and(|text| text.is_empty() || text.starts_with("ENC["));
    ["data", "stringData"].iter().find_map(|field| match manifest.body.get(*field)? {
        Value::Null => None,
        Value::Object(values) => {
            values.iter().find(|(_, value)| !is_encrypted(value)).map(|(key, _)| format!("{field}.{key}"))
        }
        value => (!is_encrypted(value)).then(|| (*field).to_owned()),
    })
}

#[cfg(test)]
mod tests;
