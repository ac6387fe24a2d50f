//! Secrets in the form in which the API server sends them: those with keys, and those that Syncs put values of into other Secrets.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pipeline::SecretFacts;
use sealing::{Certificate, PrivateKey};
use serde::{Deserialize, Deserializer};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::set::{Harm, KeySet, MalformedSecret, Purpose, SealingKey};

/// The usable keys among `secrets`, and the malformed key Secrets.
pub(super) async fn parse(
    secrets: Vec<StoredSecret>,
    known: Option<&KeySet>,
) -> (Vec<Arc<SealingKey>>, Vec<MalformedSecret>) {
    let mut keys = Vec::with_capacity(secrets.len());
    let mut malformed = Vec::new();
    for secret in secrets.into_iter().map(Arc::new) {
        if let Some(key) = known.and_then(|set| set.find(secret.name(), secret.resource_version())) {
            keys.push(Arc::clone(key));
            let is_this = |malformed: &&MalformedSecret| {
                malformed.name == secret.name() && malformed.resource_version == secret.resource_version()
            };
            malformed.extend(known.and_then(|set| set.malformed().iter().find(is_this)).cloned());
            continue;
        }
        let about = |reason, harm| MalformedSecret {
            name: secret.name().into(),
            uid: secret.metadata.uid.clone(),
            resource_version: secret.resource_version().into(),
            reason,
            harm,
        };
        // Checking a private key takes a few milliseconds of computation. A panic in the check ends only this task.
        let job = spawn_blocking({
            let secret = Arc::clone(&secret);
            move || secret.sealing_key()
        });
        match job.await.unwrap_or_else(|error| Err(Malformed::Key(error.to_string()))) {
            Ok(Some((key, problem))) => {
                keys.push(Arc::new(key));
                malformed.extend(problem.map(|reason| about(reason, Harm::UnsealsOnly)));
            }
            Ok(None) => {}
            Err(reason) => malformed.push(about(reason.to_string(), Harm::LeftOut)),
        }
    }
    (keys, malformed)
}

/// Why a key Secret is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("data['tls.key'] is missing or is not base64")]
    NoKey,
    #[error("data['tls.key'] is not an RSA private key in PEM form: {0}")]
    Key(String),
    #[error(
        "the type of the Secret is {0} and not {KEY_TYPE}: a type cannot be changed, so delete the Secret and create it again with the type {KEY_TYPE}"
    )]
    Type(String),
    #[error(
        "the Secret was made from a SealedSecret, so the person who sealed it knows the key: delete both the Secret and \
         the SealedSecret"
    )]
    MadeByUnsealing,
}

/// The type of a sealing key's Secret.
pub(super) const KEY_TYPE: &str = "kubernetes.io/tls";

/// The answer to a list request.
#[derive(Deserialize)]
pub(super) struct SecretList {
    pub(super) items: Vec<StoredSecret>,
}

/// A Secret in the form in which the API server sends it. Its values are in memory that is wiped afterwards.
#[derive(Deserialize)]
pub(crate) struct StoredSecret {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, rename = "type")]
    type_: String,
    #[serde(default)]
    data: BTreeMap<String, Encoded>,
}

/// Types of Secrets with which somebody can act as a service account, or join a node to the cluster.
const TOKEN_TYPES: [&str; 2] = ["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token"];

struct Encoded(Zeroizing<String>);

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl StoredSecret {
    pub(super) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The type of the Secret, if the Secret holds a token of Kubernetes itself.
    pub(crate) fn token_type(&self) -> Option<&'static str> {
        TOKEN_TYPES.into_iter().find(|type_| *type_ == self.type_)
    }

    pub(crate) fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    /// The keys of the values, sorted.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.data.keys().map(String::as_str)
    }

    fn resource_version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or_default()
    }

    /// The value of the label that makes a Secret a sealing key.
    pub(super) fn label(&self) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(crds::names::SEALING_KEY).map(String::as_str)
    }

    /// Whether a SealedSecret owns the Secret, or values of a SealedSecret were written into it. If so, the person who
    /// sealed the SealedSecret knows the content of the Secret.
    pub(super) fn is_made_by_unsealing(&self) -> bool {
        let owners = self.metadata.owner_references.iter().flatten();
        let is_sealed = |kind: &str, version: &str| kind == "SealedSecret" && version.starts_with("bitnami.com/");
        let annotations = self.metadata.annotations.as_ref();
        owners.into_iter().any(|owner| is_sealed(&owner.kind, &owner.api_version))
            || annotations.is_some_and(|all| all.contains_key(crds::names::SEALED_DIGEST))
            || SecretFacts::of(&self.metadata).owned_values > 0
    }

    /// The decoded bytes of a value under `data`.
    pub(crate) fn value(&self, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        let encoded = &self.data.get(name)?.0;
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(encoded.len())]);
        let length = STANDARD.decode_slice(encoded.as_bytes(), &mut bytes).ok()?;
        bytes.truncate(length);
        Some(bytes)
    }

    /// The key in the Secret, and what is wrong with its certificate; `None` if the label says that the key is not
    /// used.
    fn sealing_key(&self) -> Result<Option<(SealingKey, Option<String>)>, Malformed> {
        let purpose = match self.label() {
            None | Some("active") => Purpose::Seal,
            Some("compromised") => Purpose::UnsealOnly,
            Some(_) => return Ok(None),
        };
        if self.is_made_by_unsealing() {
            return Err(Malformed::MadeByUnsealing);
        }
        if self.type_ != KEY_TYPE {
            let type_ = if self.type_.is_empty() { "Opaque" } else { &self.type_ };
            return Err(Malformed::Type(manifests::printable(type_)));
        }
        let pem = self.value("tls.key").ok_or(Malformed::NoKey)?;
        let private = PrivateKey::from_pem(&pem).map_err(|error| Malformed::Key(error.to_string()))?;
        let (certificate, problem) = match self.certificate(&private) {
            Ok(certificate) => (Some(certificate), None),
            Err(problem) => (None, Some(problem)),
        };
        let key = SealingKey {
            name: self.name().into(),
            resource_version: self.resource_version().into(),
            created: self.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            purpose,
            certificate,
            fingerprint: private.public_key().fingerprint().into(),
            private,
        };
        Ok(Some((key, problem)))
    }

    /// The certificate of the key. If it is wrong, the key still unseals values, but it must not be used for sealing.
    fn certificate(&self, private: &PrivateKey) -> Result<Certificate, String> {
        let pem = self.value("tls.crt").ok_or("data['tls.crt'] is missing or is not base64")?;
        let found = Certificate::from_pem(&pem);
        let found = found.map_err(|error| format!("data['tls.crt'] is not a certificate: {error}"))?;
        if found.public_key().fingerprint() != private.public_key().fingerprint() {
            return Err("data['tls.crt'] is the certificate of another key".into());
        }
        Ok(found)
    }
}
