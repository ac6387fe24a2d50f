//! SealedSecrets in requests: JSON, as kubeseal sends it, or YAML.
//!
//! Only the metadata, `encryptedData` and `data` are read, because they show the values and what the values are bound
//! to. The template is passed through unchanged.

use std::collections::BTreeMap;

use manifests::{Limits, printable};
use sealing::Scope;
use serde::Deserialize;
use serde_json::{Map, Value};
use unsealing::SealedTexts;

/// The most bytes that the body of a request may have.
pub(super) const MAX_BYTES: usize = 8 << 20;
/// The most values that a request may have. This is more than an object in the API server can have.
const MAX_VALUES: usize = 10_000;

/// A SealedSecret in a request.
pub(super) struct SentSecret {
    /// The whole object.
    pub(super) body: Map<String, Value>,
    pub(super) namespace: String,
    pub(super) name: String,
    /// The scope in the metadata of the SealedSecret itself, not in its template.
    pub(super) scope: Scope,
    pub(super) form: Form,
    /// The sealed values by their keys in `encryptedData`, or the single value of `spec.data`.
    pub(super) values: BTreeMap<String, String>,
}

/// How the values are sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// Each value separately, in `encryptedData`.
    EncryptedData,
    /// A whole Secret as one value in `spec.data`, the deprecated first form.
    Data,
    /// The request has both `encryptedData` and `spec.data`, which is refused.
    Both,
}

/// Why a request cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The body is neither JSON nor YAML of objects.
    #[error("the request is neither JSON nor YAML of Kubernetes objects: {0}")]
    Syntax(String),
    /// The body is an object of another kind.
    #[error("{0} is not a SealedSecret of bitnami.com/v1alpha1")]
    Kind(String),
    /// A field has the wrong type.
    #[error(
        "the SealedSecret is malformed: metadata.name, metadata.namespace, the annotations and the values must be strings"
    )]
    Malformed,
    /// The body does not have exactly one object.
    #[error("expected one SealedSecret, not {0}")]
    Number(usize),
    /// The SealedSecrets in the body have too many values.
    #[error("the request has more than {MAX_VALUES} values: send fewer at a time")]
    TooMany,
}

/// The SealedSecret of a request that must have exactly one.
pub(super) fn one(bytes: &[u8]) -> Result<SentSecret, RequestError> {
    let mut all = all(bytes)?;
    match all.pop() {
        Some(sealed) if all.is_empty() => Ok(sealed),
        last => Err(RequestError::Number(all.len() + usize::from(last.is_some()))),
    }
}

/// All SealedSecrets of a request: one object, a `List`, or several YAML documents.
pub(super) fn all(bytes: &[u8]) -> Result<Vec<SentSecret>, RequestError> {
    let objects = match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => items(object),
        Ok(_) => return Err(RequestError::Syntax("it is JSON, but not an object".into())),
        Err(_) => {
            let limits = Limits { file_bytes: MAX_BYTES, ..Limits::default() };
            let manifests = manifests::parse("request", bytes, &limits);
            let manifests = manifests.map_err(|error| RequestError::Syntax(error.to_string()))?;
            manifests.into_iter().map(|manifest| manifest.body).collect()
        }
    };
    let mut left = MAX_VALUES;
    let mut sent = Vec::with_capacity(objects.len());
    for object in objects {
        let secret = read(object)?;
        left = left.checked_sub(secret.values.len().max(1)).ok_or(RequestError::TooMany)?;
        sent.push(secret);
    }
    Ok(sent)
}

impl SentSecret {
    /// The values of the SealedSecret, and the scope, namespace and name that they were sealed for.
    pub(super) fn sealed(&self) -> SealedTexts {
        let key = |key: &String| (self.form != Form::Data).then(|| key.clone());
        SealedTexts {
            scope: self.scope,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            texts: self.values.iter().map(|(name, value)| (key(name), value.clone())).collect(),
        }
    }

    /// The object with `values` instead of its old values, in the same order, and without the fields that an API server
    /// adds.
    pub(super) fn with_values(mut self, values: Vec<String>) -> Map<String, Value> {
        let mut new: BTreeMap<&str, String> = self.values.keys().map(String::as_str).zip(values).collect();
        let spec = self.body.get_mut("spec").and_then(Value::as_object_mut);
        match (self.form, spec) {
            (Form::Data, Some(spec)) => {
                if let (Some(data), Some((_, value))) = (spec.get_mut("data"), new.pop_first()) {
                    *data = value.into();
                }
            }
            (_, Some(spec)) => {
                let data = spec.get_mut("encryptedData").and_then(Value::as_object_mut);
                for (key, old) in data.into_iter().flatten() {
                    if let Some(value) = new.remove(key.as_str()) {
                        *old = value.into();
                    }
                }
            }
            (_, None) => {}
        }
        self.body.shift_remove("status");
        if let Some(metadata) = self.body.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !OF_THE_API_SERVER.contains(&field.as_str()));
        }
        self.body
    }
}

const OF_THE_API_SERVER: [&str; 8] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The items of a list, or the object itself if it is not a list.
fn items(mut object: Map<String, Value>) -> Vec<Map<String, Value>> {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !kind.ends_with("List") {
        return vec![object];
    }
    // In a `SealedSecretList`, the items need not have a kind.
    let implied = kind == "SealedSecretList";
    let items = object.get_mut("items").map(Value::take);
    let items = items.into_iter().filter_map(|items| if let Value::Array(items) = items { Some(items) } else { None });
    let with_kind = |item| match item {
        Value::Object(mut item) => {
            if implied {
                item.entry("apiVersion").or_insert_with(|| API_VERSION.into());
                item.entry("kind").or_insert_with(|| KIND.into());
            }
            item
        }
        // An empty object leads to the error that the item is not a SealedSecret.
        _ => Map::new(),
    };
    items.flatten().map(with_kind).collect()
}

const API_VERSION: &str = "bitnami.com/v1alpha1";
const KIND: &str = "SealedSecret";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Sealed {
    metadata: Option<Metadata>,
    spec: Option<Spec>,
}

/// Texts by their keys. As in Go, `null` means an empty text.
type Texts = Option<BTreeMap<String, Option<String>>>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    annotations: Texts,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    encrypted_data: Texts,
    data: Option<String>,
}

fn read(body: Map<String, Value>) -> Result<SentSecret, RequestError> {
    let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if (api_version, kind) != (API_VERSION, KIND) {
        return Err(RequestError::Kind(format!("'{}' of '{}'", printable(kind), printable(api_version))));
    }
    // The parser's own message would quote a value.
    let Sealed { metadata, spec } = Sealed::deserialize(&body).map_err(|_| RequestError::Malformed)?;
    let (metadata, spec) = (metadata.unwrap_or_default(), spec.unwrap_or_default());
    let annotations = metadata.annotations.unwrap_or_default();
    let scope = Scope::from_annotations(|name| annotations.get(name).and_then(Option::as_deref));
    let mut values: BTreeMap<String, String> =
        spec.encrypted_data.into_iter().flatten().map(|(key, value)| (key, value.unwrap_or_default())).collect();
    let form = match spec.data {
        None => Form::EncryptedData,
        Some(_) if !values.is_empty() => Form::Both,
        Some(data) => {
            values.insert("spec.data".into(), data);
            Form::Data
        }
    };
    let (namespace, name) = (metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
    Ok(SentSecret { body, namespace, name, scope, form, values })
}
