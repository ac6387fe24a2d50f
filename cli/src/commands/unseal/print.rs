//! Secrets as text. The values are written into one buffer that is wiped; no serialiser sees them.

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use unsealing::UnsealedSecret;
use zeroize::Zeroizing;

/// YAML documents.
pub(super) fn yaml(secrets: &[UnsealedSecret]) -> anyhow::Result<Zeroizing<String>> {
    let mut text = buffer(secrets);
    for (index, secret) in secrets.iter().enumerate() {
        if index > 0 {
            text.push_str("---\n");
        }
        for (key, value) in head(secret) {
            text.push_str(&yaml_of(&Map::from_iter([(key, value)]))?);
        }
        text.push_str(if secret.values().is_empty() { "data: {}\n" } else { "data:\n" });
        for (key, value) in secret.values() {
            // The key is written as the only key of a mapping, so that it is quoted if necessary.
            let key = yaml_of(&Map::from_iter([(key.clone(), Value::from(0))]))?;
            text.push_str("  ");
            text.push_str(key.trim_end().strip_suffix('0').context("a key as YAML")?);
            push_quoted_base64(&mut text, value.expose());
            text.push('\n');
        }
    }
    Ok(text)
}

/// One JSON object, or a list of them.
pub(super) fn json(secrets: &[UnsealedSecret]) -> anyhow::Result<Zeroizing<String>> {
    let mut text = buffer(secrets);
    let is_list = secrets.len() != 1;
    if is_list {
        text.push_str("{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[\n");
    }
    for (index, secret) in secrets.iter().enumerate() {
        if index > 0 {
            text.push_str(",\n");
        }
        let head = serde_json::to_string(&head(secret))?;
        text.push_str(head.strip_suffix('}').context("an object as JSON")?);
        text.push_str(",\"data\":{");
        for (index, (key, value)) in secret.values().iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(&serde_json::to_string(key)?);
            text.push(':');
            push_quoted_base64(&mut text, value.expose());
        }
        text.push_str("}}");
    }
    text.push_str(if is_list { "\n]}\n" } else { "\n" });
    Ok(text)
}

/// A buffer that is large enough for everything, so that it does not grow and leave copies behind.
fn buffer(secrets: &[UnsealedSecret]) -> Zeroizing<String> {
    let values = secrets.iter().flat_map(UnsealedSecret::values);
    let values: usize = values.map(|(key, value)| 2 * key.len() + value.expose().len() * 4 / 3 + 16).sum();
    let heads: usize = secrets.iter().map(|secret| 2 * Value::Object(head(secret)).to_string().len() + 256).sum();
    Zeroizing::new(String::with_capacity(values + heads + 256))
}

/// Everything except the values.
fn head(secret: &UnsealedSecret) -> Map<String, Value> {
    let mut metadata = Map::from_iter([("name".to_owned(), Value::from(secret.name()))]);
    // A SealedSecret that can be unsealed in every namespace may have no namespace.
    if !secret.namespace().is_empty() {
        metadata.insert("namespace".to_owned(), secret.namespace().into());
    }
    for (field, texts) in [("labels", texts(secret.labels())), ("annotations", texts(secret.annotations()))] {
        if !texts.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(texts));
        }
    }
    if !secret.finalizers().is_empty() {
        metadata.insert("finalizers".to_owned(), secret.finalizers().into());
    }
    let mut head = Map::from_iter([
        ("apiVersion".to_owned(), "v1".into()),
        ("kind".to_owned(), "Secret".into()),
        ("metadata".to_owned(), Value::Object(metadata)),
    ]);
    head.extend(secret.secret_type().map(|secret_type| ("type".to_owned(), secret_type.into())));
    head.extend(secret.immutable().map(|immutable| ("immutable".to_owned(), immutable.into())));
    head
}

fn texts<'a>(texts: impl Iterator<Item = (&'a String, &'a String)>) -> Map<String, Value> {
    texts.map(|(name, text)| (name.clone(), text.as_str().into())).collect()
}

fn yaml_of(map: &Map<String, Value>) -> anyhow::Result<String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut text = serde_saphyr::to_string_with_options(map, options).context("cannot write YAML")?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Appends a value in base64, in quotes because some base64 would be read as a number.
fn push_quoted_base64(text: &mut String, bytes: &[u8]) {
    let encoded = Zeroizing::new(STANDARD.encode(bytes));
    text.push('"');
    text.push_str(&encoded);
    text.push('"');
}
