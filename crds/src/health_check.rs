//! How to tell whether objects of a kind are healthy.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// CEL expressions that say whether objects of a kind are healthy. In each, `self` is the object, and `status`, `spec`,
/// `metadata`, `data`, `kind` and `apiVersion` are its fields. They are tried in the order `inProgress`, `failed`, `current`; if
/// none is true, the object is not healthy yet.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.kind != 'Secret' || self.apiVersion != 'v1'").message("expressions about Secrets are not evaluated, because nothing of a Secret may come into a message"))]
pub struct HealthCheck {
    /// API version of the kind. The check applies to all versions of the kind.
    #[schemars(length(min = 1, max = 317), regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?v[a-z0-9]+$"))]
    pub api_version: String,
    /// The kind; any except Secret.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Z][A-Za-z0-9]*$"))]
    pub kind: String,
    /// True if the object is healthy.
    #[schemars(length(min = 1, max = 4096))]
    pub current: String,
    /// True if the object is not healthy yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub in_progress: Option<String>,
    /// True if the object failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub failed: Option<String>,
}
