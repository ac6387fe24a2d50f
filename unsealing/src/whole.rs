//! `spec.data`: a whole Secret sealed as one value, the form of the first releases of Sealed Secrets.
//!
//! # Caveats
//! A `stringData` value with escapes passes through the JSON parser's own buffer, which is not wiped. Values in base64,
//! which is what Sealed Secrets wrote, have no escapes.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::TemplateMetadata;
use sealing::SecretBytes;
use serde::{Deserialize, Deserializer, de::Visitor};

use crate::{Assembly, SealedInput, Templates, UnsealError, UnsealValueError, UnsealedSecret, ValueFailure, is_owned};

/// Reads the Secret in the plaintext. Everything in it is secret, so all errors are the same.
pub(crate) fn assemble(
    sealed: &SealedInput<'_>,
    mut unsealed: Vec<Result<SecretBytes, UnsealValueError>>,
) -> Result<Assembly, UnsealError> {
    let whole = unsealed.pop().unwrap_or(Err(UnsealValueError::Interrupted));
    let plaintext = whole.map_err(|error| UnsealError::Values(vec![ValueFailure::sealed(None, &error)]))?;
    let secret: WholeSecret = serde_json::from_slice(plaintext.expose()).map_err(|_| UnsealError::NotASecret)?;
    let mut values: BTreeMap<String, SecretBytes> =
        secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect();
    values.extend(secret.string_data.into_iter().flatten().map(|(key, text)| (key, text.0)));
    let secret = UnsealedSecret {
        namespace: sealed.namespace.into(),
        name: sealed.name.into(),
        metadata: secret.metadata.unwrap_or_default(),
        type_: secret.type_,
        immutable: secret.immutable,
        owned: is_owned(sealed.spec),
        values,
    };
    if secret.key_label().is_some() {
        return Err(UnsealError::NotASecret);
    }
    Ok(Assembly { secret, templates: Templates::of(sealed, BTreeMap::new()), inputs: Vec::new() })
}

/// A `v1 Secret`. Its values are copied from the plaintext directly into memory that is wiped.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WholeSecret {
    metadata: Option<TemplateMetadata>,
    data: Option<BTreeMap<String, Encoded>>,
    string_data: Option<BTreeMap<String, Text>>,
    #[serde(rename = "type")]
    type_: Option<String>,
    immutable: Option<bool>,
}

/// A value in base64.
struct Encoded(SecretBytes);
/// A value in plain text.
struct Text(SecretBytes);

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let decode = |text: &str| STANDARD.decode(text).ok().map(SecretBytes::new);
        deserializer.deserialize_any(Bytes(decode)).map(Self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let copy = |text: &str| Some(SecretBytes::new(text.as_bytes().to_vec()));
        deserializer.deserialize_any(Bytes(copy)).map(Self)
    }
}

struct Bytes<F>(F);

impl<F: Fn(&str) -> Option<SecretBytes>> Visitor<'_> for Bytes<F> {
    type Value = SecretBytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a Secret")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SecretBytes, E> {
        (self.0)(text).ok_or_else(|| E::custom("not base64"))
    }

    // Kubernetes reads null as an empty value.
    fn visit_unit<E: serde::de::Error>(self) -> Result<SecretBytes, E> {
        Ok(SecretBytes::new(Vec::new()))
    }
}
