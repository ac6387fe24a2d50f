//! JSON answers of the controller's own HTTP endpoints, which the Sealed Secrets controller does not have. The CLI
//! reads these answers.
//!
//! Nothing in the answers is secret: they have names, fingerprints of public keys, dates and counts, and never a value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/keys`: every sealing key and how many values in the cluster's SealedSecrets need it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyReport {
    /// The keys, newest first.
    pub keys: Vec<KeyUse>,
    /// How many sealed values of the cluster's SealedSecrets no key unseals.
    pub undecryptable: usize,
    /// Key Secrets that could not be read, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub malformed: Vec<String>,
}

/// One sealing key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyUse {
    /// Name of the Secret in the controller's namespace.
    pub name: String,
    /// SHA-256 of the public key (SubjectPublicKeyInfo in DER), hexadecimal.
    pub fingerprint: String,
    /// The value of the label on the Secret: `active` or `compromised`.
    pub state: String,
    /// Whether new values are sealed with this key.
    pub seals: bool,
    /// Start of the certificate's validity, RFC 3339; none without a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// End of the certificate's validity, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// When the Secret was created, RFC 3339.
    pub created: String,
    /// How many sealed values of the cluster's SealedSecrets only this key unseals.
    pub values: usize,
    /// How many SealedSecrets have such values.
    pub sealed_secrets: usize,
}

/// Answer of `POST /v1/which`: for each SealedSecret in the request, which key its values were sealed with.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Which {
    /// [`KeyUse::fingerprint`] of the key that new values are sealed with.
    pub newest: String,
    /// The SealedSecrets of the request, in the same order.
    pub items: Vec<WhichItem>,
}

/// One SealedSecret of [`Which`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhichItem {
    /// Namespace of the SealedSecret.
    pub namespace: String,
    /// Name of the SealedSecret.
    pub name: String,
    /// For each value, by its key in `spec.encryptedData`: the [`KeyUse::fingerprint`] of the sealing key that unseals
    /// it under the SealedSecret's scope, namespace and name; `None` if there is no such key.
    pub values: BTreeMap<String, Option<String>>,
}
