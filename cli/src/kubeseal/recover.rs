//! Unseals SealedSecrets with private keys that the user has.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use crds::{SealedSecretSpec, SecretTemplate};
use sealing::{FormatError, PrivateKey, SecretBytes, UnsealError};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use unsealing::SealedInput;
use zeroize::Zeroizing;

use super::errors::file_error;
use super::output::Format;
use super::read::{self, Body};
use crate::commands::keys_of;
use crate::edit::{self, own_scope};
use crate::output::warn;
use crate::templates;

const SKIP_OWNER: &str = "sealedsecrets.bitnami.com/skip-set-owner-references";

/// The private keys of all files: PEM, or key Secrets as YAML or JSON.
pub(super) fn keys(files: &[String]) -> anyhow::Result<Vec<PrivateKey>> {
    let mut keys = Vec::new();
    for file in files {
        let bytes = edit::read(file.as_ref()).map_err(|error| file_error(file, &error))?;
        keys.extend(keys_of(file.as_ref(), &bytes)?);
    }
    Ok(keys)
}

/// The Secret of the first SealedSecret in an input, as text.
pub(super) fn unseal(input: (&str, &[u8]), keys: &[PrivateKey], format: &str) -> anyhow::Result<Zeroizing<String>> {
    let (sealed, count) = read::sealed_secret(input.0, input.1)?;
    if count > 1 {
        warn(format_args!("{} holds {count} objects; only the first is unsealed, as kubeseal does", input.0));
    }
    if sealed["spec"].get("data").is_some() {
        bail!("using deprecated 'data' field, use 'encryptedData' or flip the feature flag");
    }
    let data = with_templates(&sealed, values(&sealed, keys)?)?;
    // Both the text and the values in it are wiped.
    let size: usize = data.iter().map(|(key, value)| key.len() + value.expose().len() * 4 / 3 + 16).sum();
    let head = secret(&sealed);
    let mut text =
        Zeroizing::new(String::with_capacity(size + 2 * Value::Object(head.clone()).to_string().len() + 4096));
    let body = Body(with_data(head, &data));
    Format::of(format)?.write(&mut text, &body.0)?;
    Ok(text)
}

fn values(sealed: &Map<String, Value>, keys: &[PrivateKey]) -> anyhow::Result<BTreeMap<String, SecretBytes>> {
    let metadata = sealed["metadata"].as_object().context("metadata is a mapping")?;
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default();
    let binding = |key| own_scope(metadata).binding(text("namespace"), text("name"), key);
    let values = sealed["spec"]["encryptedData"].as_object().into_iter().flatten();
    let mut data = BTreeMap::new();
    let mut failures: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (key, value) in values {
        match sealing::unseal(keys, binding(key), value.as_str().unwrap_or_default()) {
            Ok(plaintext) => drop(data.insert(key.clone(), plaintext)),
            Err(error) => failures.entry(reason(error)).or_default().push(key),
        }
    }
    if failures.is_empty() {
        return Ok(data);
    }
    let failures = failures.iter().map(|(reason, keys)| format!("{reason} ({})", keys.join(", ")));
    bail!(failures.collect::<Vec<_>>().join(", "))
}

fn reason(error: UnsealError) -> String {
    match error {
        UnsealError::Format(FormatError::NotBase64) => "illegal base64 data".to_owned(),
        UnsealError::Format(FormatError::Truncated | FormatError::Unknown)
        | UnsealError::NoKeys
        | UnsealError::Refused => "no key could decrypt secret".to_owned(),
        other => other.to_string(),
    }
}

/// The values together with those of `spec.template.data`, as the controller combines them.
fn with_templates(
    sealed: &Map<String, Value>,
    values: BTreeMap<String, SecretBytes>,
) -> anyhow::Result<BTreeMap<String, SecretBytes>> {
    let text = |field: &str| sealed["metadata"].get(field).and_then(Value::as_str).unwrap_or_default();
    let mut spec = SealedSecretSpec::deserialize(&sealed["spec"])?;
    // Here, only the template's `data` are needed. The other fields of the template are handled in the function
    // `secret`, as kubeseal does.
    if let Some(template) = &mut spec.template {
        *template = SecretTemplate { data: template.data.take(), ..SecretTemplate::default() };
    }
    let input = SealedInput {
        namespace: text("namespace"),
        name: text("name"),
        // Annotations are needed only for the scope, and the values are unsealed already.
        annotations: &BTreeMap::new(),
        spec: &spec,
        accept_deprecated_v1_data: false,
    };
    let secret = unsealing::assemble_for_key_holder(&input, values.into_values().collect());
    Ok(secret.map_err(templates::exact)?.into_values())
}

/// Everything except the values.
fn secret(sealed: &Map<String, Value>) -> Map<String, Value> {
    let template = &sealed["spec"]["template"];
    let own = &sealed["metadata"];
    let mut metadata = template["metadata"].as_object().cloned().unwrap_or_default();
    for field in ["name", "namespace"] {
        metadata.insert(field.to_owned(), own.get(field).cloned().unwrap_or_default());
    }
    if template["metadata"]["annotations"][SKIP_OWNER] != "true" {
        let owner = json!([{
            "apiVersion": sealed["apiVersion"], "kind": sealed["kind"], "name": own["name"],
            "uid": own.get("uid").cloned().unwrap_or_else(|| "".into()), "controller": true,
        }]);
        metadata.insert("ownerReferences".to_owned(), owner);
    }
    let mut body = Map::from_iter([
        ("kind".to_owned(), "Secret".into()),
        ("apiVersion".to_owned(), "v1".into()),
        ("metadata".to_owned(), Value::Object(metadata)),
    ]);
    for field in ["immutable", "type"] {
        body.extend(template.get(field).map(|value| (field.to_owned(), value.clone())));
    }
    super::shape::secret(body).unwrap_or_default()
}

/// As in kubeseal's output, the values come before the type, and empty ones are `null`.
fn with_data(head: Map<String, Value>, data: &BTreeMap<String, SecretBytes>) -> Map<String, Value> {
    let values = data.iter().map(|(key, value)| match value.expose() {
        [] => (key.clone(), Value::Null),
        bytes => (key.clone(), Value::String(STANDARD.encode(bytes))),
    });
    let values: Map<String, Value> = values.collect();
    let mut body = Map::new();
    let mut values = (!values.is_empty()).then_some(Value::Object(values));
    for (field, value) in head {
        if field == "type" {
            body.extend(values.take().map(|values| ("data".to_owned(), values)));
        }
        body.insert(field, value);
    }
    body.extend(values.take().map(|values| ("data".to_owned(), values)));
    body
}
