//! `SealedSecret`: the kind of the Sealed Secrets project, as published, so that existing objects need no change.

use std::collections::{BTreeMap, BTreeSet};

use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::ConditionStatus;

/// Values sealed against the cluster's public key, and the Secret to make of them.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "bitnami.com",
    version = "v1alpha1",
    kind = "SealedSecret",
    plural = "sealedsecrets",
    namespaced,
    status = "SealedSecretStatus",
    derive = "PartialEq",
    doc = "Values sealed against the cluster's public key, and the Secret to make of them.",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Synced\")].message"),
    printcolumn(name = "Synced", type_ = "string", json_path = ".status.conditions[?(@.type==\"Synced\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SealedSecretSpec {
    /// Sealed values by the key that they have in the Secret.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub encrypted_data: BTreeMap<String, String>,
    /// A whole Secret sealed as one value: the deprecated first form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// What the Secret looks like besides its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<SecretTemplate>,
}

impl SealedSecretSpec {
    /// Keys of the values that the Secret gets: the sealed ones and those of the template. Of the deprecated first form only
    /// the sealing key tells.
    pub fn keys(&self) -> BTreeSet<&str> {
        let templated = self.template.as_ref().and_then(|template| template.data.as_ref());
        let templated = templated.into_iter().flat_map(BTreeMap::keys);
        self.encrypted_data.keys().chain(templated).map(String::as_str).collect()
    }
}

/// kubeseal writes null where nothing is sealed. The API server takes it away; in Git it stands as it was written.
fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// See [`SealedSecretSpec::template`].
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretTemplate {
    /// Labels, annotations and finalizers of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub metadata: Option<TemplateMetadata>,
    /// The Secret's type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Makes the Secret immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
    /// Values that are templates over the unsealed ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<BTreeMap<String, String>>,
}

/// The part of a Secret's metadata that a template sets; what else stands there is accepted and left alone.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Name; the Secret always has that of its SealedSecret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace; the Secret is always in that of its SealedSecret.
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

/// The published CRD accepts anything here (`creationTimestamp: null` is in every file that kubeseal wrote).
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}

/// What the controller last did with the SealedSecret.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedSecretStatus {
    /// The generation that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Synced.
    #[serde(default)]
    pub conditions: Vec<SealedSecretCondition>,
    /// What the Secret was last made from, in digests that only the controller can make and read. A restart has nothing
    /// to do for a Secret that is as this says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_from: Option<String>,
}

impl SealedSecretStatus {
    /// The condition of type `type_`, if there is one.
    pub fn condition(&self, type_: &str) -> Option<&SealedSecretCondition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

/// One aspect of a SealedSecret's state, with the fields that Sealed Secrets publishes.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedSecretCondition {
    /// Which aspect: `Synced`.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// When the condition was last written, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_update_time: Option<String>,
    /// When `status` last changed, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: Option<String>,
    /// Not used, as in Sealed Secrets.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why it is not True; never holds a secret value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
