//! Reads objects from files, in every form in which kubectl and client libraries write Secrets.

use manifests::{Limits, printable};
use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

use crate::edit::LAST_APPLIED;
use crate::output::Hint;

/// An object of a file.
pub(in crate::commands) struct Document {
    /// Where it is in the file, and its name.
    pub(in crate::commands) place: String,
    pub(in crate::commands) body: Map<String, Value>,
}

impl Document {
    /// Whether it is a Secret. A Secret may have no kind, for example if a program took it out of a list.
    pub(in crate::commands) fn is_secret(&self) -> bool {
        let says = |field: &str, value: &str| self.body.get(field).is_none_or(|said| said == value);
        says("kind", "Secret") && says("apiVersion", "v1")
    }

    /// Removes kubectl's copy of an applied Secret, which includes the values.
    pub(in crate::commands) fn wipe_last_applied(&mut self) {
        let annotations = self.body.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"));
        let noted = annotations.and_then(|all| all.as_object_mut()?.shift_remove(LAST_APPLIED));
        if let Some(Value::String(mut noted)) = noted {
            noted.zeroize();
        }
    }
}

/// The objects of a file: YAML or JSON, several documents, lists of any kind (`List`, `SecretList`, a list without a
/// kind, a JSON array), and objects without a kind.
pub(in crate::commands) fn documents(name: &str, bytes: &[u8]) -> anyhow::Result<Vec<Document>> {
    let failed = |error: manifests::ParseError| Hint::error(error.to_string(), error.hint());
    let Ok(text) = std::str::from_utf8(bytes) else { anyhow::bail!("{name} is not text") };
    let text = text.trim_start_matches('\u{feff}');
    let mut list = Zeroizing::new(String::new());
    let text = if text.trim_start().starts_with('[') {
        list.reserve_exact(text.len() + 16);
        for part in ["{\"items\":", text, "}"] {
            list.push_str(part);
        }
        list.as_str()
    } else {
        text
    };
    let mut found = Vec::new();
    for document in manifests::split(text) {
        let body = manifests::parse_mapping(name, &document, &Limits::default()).map_err(failed)?;
        if let Some(body) = body {
            flatten(&format!("{name}:{}", document.line), body, &mut found);
        }
    }
    Ok(found)
}

/// Adds the object, or its items if it is a list.
fn flatten(place: &str, mut body: Map<String, Value>, found: &mut Vec<Document>) {
    if let Some(Value::Array(items)) = body.get_mut("items").map(Value::take) {
        for item in items {
            if let Value::Object(item) = item {
                flatten(place, item, found);
            }
        }
        return;
    }
    let text = |pointer: &str| body.get("metadata").and_then(|metadata| metadata.get(pointer)?.as_str());
    let name = [text("namespace"), text("name")].into_iter().flatten().collect::<Vec<_>>().join("/");
    let kind = body.get("kind").and_then(Value::as_str).unwrap_or("Secret");
    let place = format!("{place}: {}", printable(&format!("{kind} {name}")));
    found.push(Document { place, body });
}
