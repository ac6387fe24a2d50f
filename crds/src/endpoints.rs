//! JSON answers of the controller's HTTP endpoints that Sealed Secrets does not have. The CLI reads them.
//!
//! Nothing here is secret: names, public keys' fingerprints, dates and counts. A value is never part of an answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/keys`: every sealing key and how many values in the cluster's SealedSecrets need it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyReport {
    /// The keys, newest first.
    pub keys: Vec<KeyUse>,
    /// Sealed values of the cluster's SealedSecrets that no key unseals.
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
    /// Whether new values are sealed with it.
    pub seals: bool,
    /// Start of the certificate's validity, RFC 3339; none without a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// End of the certificate's validity, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// When the Secret was created, RFC 3339.
    pub created: String,
    /// Sealed values of the cluster's SealedSecrets that only this key unseals.
    pub values: usize,
    /// SealedSecrets that these values are in.
    pub sealed_secrets: usize,
}

/// Answer of `POST /v1/which`: for each SealedSecret that was sent, which key its values were sealed with.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Which {
    /// [`KeyUse::fingerprint`] of the key that seals now.
    pub newest: String,
    /// In the order in which they were sent.
    pub items: Vec<WhichItem>,
}

/// One SealedSecret of [`Which`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhichItem {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// [`KeyUse::fingerprint`] by the value's key in `spec.encryptedData`; none where no key unseals the value under the
    /// SealedSecret's scope, namespace and name.
    pub values: BTreeMap<String, Option<String>>,
}
