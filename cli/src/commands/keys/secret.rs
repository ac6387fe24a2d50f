//! Key Secrets. Their values are in memory that is wiped.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use crds::names::SEALING_KEY;
use jiff::Timestamp;
use sealing::{Certificate, PrivateKey};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::PREFIX;
use crate::commands::unseal::documents::Document;
use crate::edit::{LAST_APPLIED, decode_base64};

const TYPE: &str = "kubernetes.io/tls";

/// A Secret with a sealing key, with the fields that a backup keeps.
#[derive(Deserialize)]
pub(super) struct KeySecret {
    pub(super) metadata: KeyMetadata,
    #[serde(default)]
    data: BTreeMap<String, Encoded>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyMetadata {
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: Option<String>,
    /// Only for the Secret of a new key.
    #[serde(skip)]
    generate_name: Option<String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) resource_version: Option<String>,
}

/// A value in base64.
struct Encoded(Zeroizing<String>);

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

/// What the text of a Secret is for.
#[derive(Clone, Copy)]
enum Written {
    ForCreation,
    ForBackup,
}

/// The facts about a valid key Secret.
pub(super) struct KeyFacts {
    /// SHA-256 of the public key, by which the controller's answers name the key.
    pub(super) fingerprint: String,
    /// The state of the key: the value of the label [`SEALING_KEY`].
    pub(super) state: String,
    /// The letters in the name of a key with this certificate: [`Certificate::name_letters`].
    pub(super) name_letters: String,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl KeySecret {
    /// The Secret of a new key, as the controller makes it.
    pub(super) fn new(name: String, prefix: &str, key: &PrivateKey, certificate: &Certificate) -> anyhow::Result<Self> {
        let encode = |text: &str| {
            use base64::Engine as _;
            Encoded(Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(text)))
        };
        let metadata = KeyMetadata {
            name,
            namespace: None,
            generate_name: Some(prefix.to_owned()),
            labels: BTreeMap::from([(SEALING_KEY.to_owned(), "active".to_owned())]),
            annotations: BTreeMap::new(),
            resource_version: None,
        };
        let data = BTreeMap::from([
            ("tls.crt".to_owned(), encode(&certificate.to_pem())),
            ("tls.key".to_owned(), encode(&key.to_pem()?)),
        ]);
        Ok(Self { metadata, data })
    }

    /// Takes the Secret out of a document, and wipes the document's values.
    ///
    /// # Errors
    /// The document is not a Secret, or its values are not base64.
    pub(super) fn take(mut document: Document) -> anyhow::Result<Self> {
        if !document.is_secret() {
            bail!("it is not a Secret");
        }
        let mut data = BTreeMap::new();
        if let Some(Value::Object(values)) = document.body.get_mut("data") {
            for (key, value) in values {
                if let Value::String(text) = value {
                    data.insert(key.clone(), Encoded(Zeroizing::new(std::mem::take(text))));
                }
            }
        }
        document.wipe_last_applied();
        let metadata = document.body.get_mut("metadata").map(Value::take).unwrap_or_default();
        let metadata = serde_json::from_value(metadata).ok().context("its metadata is not valid")?;
        Ok(Self { metadata, data })
    }

    /// The state of the key: the value of the label [`SEALING_KEY`]. The first releases of Sealed Secrets set no label;
    /// their keys are active.
    pub(super) fn state(&self) -> &str {
        self.metadata.labels.get(SEALING_KEY).map_or("active", String::as_str)
    }

    /// Checks that the Secret is a sealing key: the label (or the old name), a private key, and the certificate of
    /// this key.
    pub(super) fn check(&self, prefix: &str) -> anyhow::Result<KeyFacts> {
        let name = &self.metadata.name;
        if !self.metadata.labels.contains_key(SEALING_KEY) && name != prefix && name != PREFIX {
            bail!("it is not a sealing key: it lacks the label {SEALING_KEY}");
        }
        let bytes = |key: &str| {
            let text = &self.data.get(key).with_context(|| format!("there is no data['{key}']"))?.0;
            decode_base64(text.as_bytes()).with_context(|| format!("data['{key}'] is not base64"))
        };
        let key = PrivateKey::from_pem(bytes("tls.key")?.expose()).context("data['tls.key'] cannot be used")?;
        let certificate =
            Certificate::from_pem(bytes("tls.crt")?.expose()).context("data['tls.crt'] cannot be used")?;
        if certificate.public_key().fingerprint() != key.public_key().fingerprint() {
            bail!("data['tls.crt'] is the certificate of another key than data['tls.key']");
        }
        Ok(KeyFacts {
            fingerprint: key.public_key().fingerprint(),
            state: self.state().to_owned(),
            name_letters: certificate.name_letters(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
        })
    }

    /// Everything except the values, in the usual order of a manifest.
    fn head(&self, namespace: &str, written: Written) -> Map<String, Value> {
        let KeyMetadata { name, generate_name, labels, annotations, .. } = &self.metadata;
        let mut metadata = Map::from_iter([("name".to_owned(), Value::from(name.as_str()))]);
        metadata.insert("namespace".to_owned(), namespace.into());
        if let (Some(generate_name), Written::ForCreation) = (generate_name, written) {
            metadata.insert("generateName".to_owned(), generate_name.as_str().into());
        }
        let annotations: BTreeMap<_, _> = annotations.iter().filter(|(key, _)| *key != LAST_APPLIED).collect();
        for (field, texts) in [("labels", json!(labels)), ("annotations", json!(annotations))] {
            if texts.as_object().is_some_and(|texts| !texts.is_empty()) {
                metadata.insert(field.to_owned(), texts);
            }
        }
        Map::from_iter([
            ("apiVersion".to_owned(), "v1".into()),
            ("kind".to_owned(), "Secret".into()),
            ("metadata".to_owned(), metadata.into()),
            // The controller ignores key Secrets of any other type.
            ("type".to_owned(), TYPE.into()),
        ])
    }

    /// The Secret as JSON for the API server.
    pub(super) fn json(&self, namespace: &str) -> anyhow::Result<Zeroizing<String>> {
        let head = serde_json::to_string(&self.head(namespace, Written::ForCreation))?;
        let mut text = Zeroizing::new(String::with_capacity(head.len() + self.values_len() + 64));
        text.push_str(head.strip_suffix('}').context("an object as JSON")?);
        text.push_str(",\"data\":{");
        for (index, (key, value)) in self.data.iter().enumerate() {
            text.push_str(if index > 0 { "," } else { "" });
            text.push_str(&serde_json::to_string(key)?);
            for part in [":\"", value.0.trim_ascii(), "\""] {
                text.push_str(part);
            }
        }
        text.push_str("}}");
        Ok(text)
    }

    fn values_len(&self) -> usize {
        self.data.iter().map(|(key, value)| 2 * key.len() + value.0.len() + 32).sum()
    }
}

/// The Secrets as a `v1 List` in YAML: what `kubectl apply` and `kubeseal --recovery-private-key` take.
pub(super) fn list(secrets: &[KeySecret], namespace: &str) -> anyhow::Result<Zeroizing<String>> {
    let mut heads = Vec::new();
    for secret in secrets {
        let head = serde_saphyr::to_string(&secret.head(namespace, Written::ForBackup)).context("cannot write YAML")?;
        heads.push(head.trim_end().replace('\n', "\n  "));
    }
    // The buffer is large enough for everything, because a growing buffer would leave copies behind.
    let values: usize = secrets.iter().map(KeySecret::values_len).sum();
    let room = values + heads.iter().map(|head| head.len() + 64).sum::<usize>() + 64;
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str("apiVersion: v1\nkind: List\nitems:\n");
    for (secret, head) in secrets.iter().zip(&heads) {
        for part in ["- ", head, "\n  data:\n"] {
            text.push_str(part);
        }
        for (key, value) in &secret.data {
            let key = serde_json::to_string(key)?; // JSON strings are YAML, too
            for part in ["    ", &key, ": \"", value.0.trim_ascii(), "\"\n"] {
                text.push_str(part);
            }
        }
    }
    Ok(text)
}
