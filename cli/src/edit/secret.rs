use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use manifests::{Location, Manifest, printable};
use schemas::nearest;
use sealing::SecretBytes;
use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

use super::tree::Node;
use crate::output::Hint;

/// The annotation in which `kubectl apply` keeps the whole object, plaintext included.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Fields that only a server sets, or that have no meaning in another cluster.
const SERVER_FIELDS: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Base64 that requires padding and ignores the unused bits of the last character, as Go's decoder does.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(true),
);

/// A Secret before it is sealed; its values are wiped when it is dropped.
pub struct PlainSecret {
    pub name: String,
    pub namespace: Option<String>,
    /// Labels, annotations and the rest, without `name`, `namespace` and fields that a server sets.
    pub metadata: Map<String, Value>,
    pub secret_type: Option<String>,
    pub immutable: Option<bool>,
    pub data: BTreeMap<String, SecretBytes>,
    /// The file and line of the Secret; `None` if it was made from flags.
    pub origin: Option<Location>,
}

impl PlainSecret {
    /// Takes a Secret apart. `stringData` is merged over `data`, as the API server does. `node` is the Secret's node
    /// in a document that begins at line `first_line` of the file.
    ///
    /// # Errors
    /// All mistakes: a value is not base64 or not text, a key has characters that are not allowed, a field is not one
    /// of a Secret. The errors name keys, not values.
    pub fn take(manifest: Manifest, node: Option<&Node>, first_line: u32) -> Result<Self, Vec<anyhow::Error>> {
        let Manifest { id, mut body, origin, .. } = manifest;
        let mut secret = Self {
            name: id.name,
            namespace: id.namespace,
            metadata: Map::new(),
            secret_type: None,
            immutable: None,
            data: BTreeMap::new(),
            origin: Some(origin),
        };
        let mut mistakes = Mistakes::default();
        if let Err(error) = check_name(&secret.name) {
            mistakes.note(&["metadata", "name"], error);
        }
        check_fields(&body, &mut mistakes);
        check_words(&body, node, &mut mistakes);
        secret.fill(&mut body, &mut mistakes);
        body.values_mut().for_each(wipe);
        if mistakes.0.is_empty() {
            return Ok(secret);
        }
        let place = |path: &[&str]| {
            let mut origin = secret.origin.clone();
            if let (Some(origin), Some(node)) = (&mut origin, node) {
                origin.line = node.line_at(path).saturating_add(first_line) - 1;
            }
            secret.place_at(origin.as_ref())
        };
        let tell = |(path, error): (Vec<String>, anyhow::Error)| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            error.context(place(&path))
        };
        Err(mistakes.0.into_iter().map(tell).collect())
    }

    /// `file:line: Secret namespace/name`.
    pub fn place(&self) -> String {
        self.place_at(self.origin.as_ref())
    }

    fn place_at(&self, origin: Option<&Location>) -> String {
        let origin = origin.map(|origin| format!("{origin}: ")).unwrap_or_default();
        match &self.namespace {
            Some(namespace) => format!("{origin}Secret {namespace}/{}", self.name),
            None => format!("{origin}Secret {}", self.name),
        }
    }

    fn fill(&mut self, body: &mut Map<String, Value>, mistakes: &mut Mistakes) {
        for field in ["data", "stringData"] {
            let values = match body.get_mut(field) {
                None | Some(Value::Null) => continue,
                Some(Value::Object(values)) => values,
                Some(_) => {
                    mistakes.note(&[field], anyhow::anyhow!("{field} is not a mapping"));
                    continue;
                }
            };
            for (key, value) in values {
                match check_key(field, key).and_then(|()| bytes(field, key, value)) {
                    Ok(value) => drop(self.data.insert(key.clone(), value)),
                    Err(error) => mistakes.note(&[field, key], error),
                }
            }
        }
        match body.get("type") {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => self.secret_type = Some(text.clone()).filter(|text| !text.is_empty()),
            Some(_) => mistakes.note(&["type"], Hint::error("type is not a string", QUOTE)),
        }
        match body.get("immutable") {
            None | Some(Value::Null) => {}
            Some(Value::Bool(immutable)) => self.immutable = Some(*immutable),
            Some(_) => mistakes.note(&["immutable"], anyhow::anyhow!("immutable is neither true nor false")),
        }
        if let Some(Value::Object(metadata)) = body.get_mut("metadata") {
            self.metadata = template_metadata(metadata);
        }
        check_texts(&self.metadata, mistakes);
    }
}

/// The fields of a Secret. The field `sops` is not in the list, because a Secret that SOPS encrypted is not sealed.
const FIELDS: [&str; 7] = ["apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData"];

/// Refuses fields that a Secret does not have. The values in such a field would be lost.
fn check_fields(body: &Map<String, Value>, mistakes: &mut Mistakes) {
    for field in body.keys().filter(|field| !FIELDS.contains(&field.as_str())) {
        // What looks like a field may be a value in the wrong place, which a message must not show.
        let name = if is_field_name(field) { field } else { "one of its fields" };
        let hint = match nearest(field, FIELDS) {
            Some(meant) => format!("{meant} is probably meant"),
            None => "values must be under data or stringData; remove the field".to_owned(),
        };
        mistakes.note(&[field], Hint::error(format!("{name} is not a field of a Secret"), hint));
    }
}

/// Whether a word looks like the name of a field and not like a value.
pub fn is_field_name(word: &str) -> bool {
    word.len() <= 63 && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Refuses unquoted keys that YAML does not read as text: `y` would become `true`.
fn check_words(body: &Map<String, Value>, node: Option<&Node>, mistakes: &mut Mistakes) {
    for field in ["data", "stringData"] {
        let Some(Value::Object(values)) = body.get(field) else { continue };
        let written = node.and_then(|node| node.get(field)).map(Node::entries).unwrap_or_default();
        // Merge keys, and keys that are aliases, are left out.
        let words = written.iter().map(|(word, ..)| word).filter(|word| !matches!(word.as_str(), "" | "<<"));
        for word in words.filter(|word| !values.contains_key(*word)) {
            let error =
                Hint::error(format!("{field}.{} is a key that YAML does not read as text", printable(word)), QUOTE);
            mistakes.note(&[field, word], error);
        }
    }
}

/// The mistakes in a Secret, each with the path of its field.
#[derive(Default)]
struct Mistakes(Vec<(Vec<String>, anyhow::Error)>);

impl Mistakes {
    fn note(&mut self, path: &[&str], error: anyhow::Error) {
        self.0.push((path.iter().map(|&key| key.to_owned()).collect(), error));
    }
}

const QUOTE: &str = "quote it: unquoted numbers and words like yes, on and true are not text in YAML";

fn template_metadata(metadata: &mut Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations")
        && let Some(mut applied) = annotations.shift_remove(LAST_APPLIED)
    {
        wipe(&mut applied);
    }
    std::mem::take(metadata)
        .into_iter()
        .filter(|(key, value)| {
            let is_own = key == "name" || key == "namespace" || SERVER_FIELDS.contains(&key.as_str());
            let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
            !is_own && !is_empty
        })
        .collect()
}

/// Labels and annotations must be strings. Otherwise the API server would refuse the SealedSecret.
fn check_texts(metadata: &Map<String, Value>, mistakes: &mut Mistakes) {
    for field in ["labels", "annotations"] {
        let texts = match metadata.get(field) {
            None => continue,
            Some(Value::Object(texts)) => texts,
            Some(_) => {
                mistakes.note(&["metadata", field], anyhow::anyhow!("metadata.{field} is not a mapping"));
                continue;
            }
        };
        for (key, value) in texts {
            if !value.is_string() {
                let error = Hint::error(format!("metadata.{field}.{key} is not a string"), QUOTE);
                mistakes.note(&["metadata", field, key], error);
            }
        }
    }
}

/// Checks the name of a Secret, or of the SealedSecret that it is made from.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    let is_valid = (1..=253).contains(&name.len())
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        });
    if is_valid {
        return Ok(());
    }
    Err(Hint::error(
        format!("{name:?} is not a name for a Secret"),
        "a name consists of lower-case letters, digits, `-` and `.`, and starts and ends with a letter or digit",
    ))
}

/// Checks a key of a Secret. Keys become file names in a volume, so only some characters are allowed.
pub fn check_key(field: &str, key: &str) -> anyhow::Result<()> {
    let is_valid = (1..=253).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && key != "."
        && !key.starts_with("..");
    if is_valid {
        return Ok(());
    }
    // The key may be a value in the wrong place, so the message does not show it.
    Err(Hint::error(
        format!("{field} has a key that a Secret cannot have"),
        "a key has letters, digits, `-`, `_` and `.`, at most 253 characters",
    ))
}

fn bytes(field: &str, key: &str, value: &mut Value) -> anyhow::Result<SecretBytes> {
    let text = match value {
        Value::String(text) => Zeroizing::new(std::mem::take(text)),
        Value::Null => return Ok(SecretBytes::new(Vec::new())),
        _ => {
            return Err(Hint::error(format!("{field}.{key} is not a string"), QUOTE));
        }
    };
    if field == "stringData" {
        return Ok(SecretBytes::new(text.as_bytes().to_vec()));
    }
    decode_base64(text.as_bytes()).ok_or_else(|| {
        Hint::error(
            format!("{field}.{key} is not base64"),
            "encode the value (base64 -w0), or move it to stringData, which takes plain text",
        )
    })
}

/// Decodes standard base64. Line breaks are ignored, as by the API server.
pub fn decode_base64(text: &[u8]) -> Option<SecretBytes> {
    let mut compact = Zeroizing::new(Vec::with_capacity(text.len()));
    compact.extend(text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')));
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(compact.len())]);
    let length = BASE64.decode_slice(compact.as_slice(), &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes.into())
}

/// Overwrites every string in a value.
pub fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        _ => {}
    }
}
