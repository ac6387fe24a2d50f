//! `SealedSecret`: the kind of the Sealed Secrets project, as published, so that existing objects need no change.

use std::collections::{BTreeMap, BTreeSet};

use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::ConditionStatus;

/// The sealed values, and what the Secret that is made from them looks like.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "bitnami.com",
    version = "v1alpha1",
    kind = "SealedSecret",
    plural = "sealedsecrets",
    namespaced,
    status = "SealedSecretStatus",
    derive = "PartialEq",
    doc = "Values that are encrypted (sealed) with the cluster's public key. The controller makes a Secret from them.",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Synced\")].message"),
    printcolumn(name = "Synced", type_ = "string", json_path = ".status.conditions[?(@.type==\"Synced\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SealedSecretSpec {
    /// The sealed values, each under the key that the value has in the Secret.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub encrypted_data: BTreeMap<String, String>,
    /// Deprecated: a whole Secret, sealed as one value. Use `encryptedData`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Type, labels, annotations and templated values of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<SecretTemplate>,
}

impl SealedSecretSpec {
    /// Keys of the values that the Secret gets: the sealed values and the values of the template. The keys in the
    /// deprecated field `spec.data` are not included, because this field is a whole Secret that was sealed, keys
    /// included.
    pub fn keys(&self) -> BTreeSet<&str> {
        let templated = self.template.as_ref().and_then(|template| template.data.as_ref());
        let templated = templated.into_iter().flat_map(BTreeMap::keys);
        self.encrypted_data.keys().chain(templated).map(String::as_str).collect()
    }
}

/// Reads null as an empty map: kubeseal writes null if nothing is sealed. The API server removes a null, but a file in
/// Git still has it.
fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// See [`SealedSecretSpec::template`].
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretTemplate {
    /// `labels`, `annotations` and `finalizers` of the Secret. Other fields are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub metadata: Option<TemplateMetadata>,
    /// Type of the Secret, for example `kubernetes.io/tls`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// If true, the Secret is immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
    /// Values of the Secret that are made from the unsealed values by Go templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<BTreeMap<String, String>>,
}

/// The part of a Secret's metadata that a template sets. Other fields are accepted and ignored.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// A name, which is ignored: the Secret has the name of its SealedSecret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A namespace, which is ignored: the Secret is in the namespace of its SealedSecret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Finalizers of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalizers: Option<Vec<String>>,
}

/// The schema of `spec.template.metadata`: like the CRD of Sealed Secrets, it accepts any fields. kubeseal writes
/// `creationTimestamp: null` there.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}

/// What the controller last did for the SealedSecret.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedSecretStatus {
    /// The `metadata.generation` that the controller handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Synced`: whether the Secret was made from the current SealedSecret.
    #[serde(default)]
    pub conditions: Vec<SealedSecretCondition>,
    /// What the Secret was last made from, as digests that only the controller can compute. After a restart, the
    /// controller does not unseal the values again if these digests show that nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_from: Option<String>,
}

impl SealedSecretStatus {
    /// The condition of type `type_`, if there is one.
    pub fn condition(&self, type_: &str) -> Option<&SealedSecretCondition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

/// One condition of a SealedSecret, with the fields that Sealed Secrets defines.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedSecretCondition {
    /// Type of the condition: `Synced`.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// When the condition was last written (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_update_time: Option<String>,
    /// When `status` last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: Option<String>,
    /// Not used, as in Sealed Secrets.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why the status is not True. It never contains a secret value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
