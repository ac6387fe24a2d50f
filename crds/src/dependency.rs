//! What a Sync waits for before its folder is applied.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A Sync that must be Ready, or another object that must be healthy.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.apiVersion) == has(self.kind)").message("kind needs apiVersion, and apiVersion needs kind; without both, the name is that of a Sync"))]
#[x_kube(validation = Rule::new("!has(self.kind) || self.kind != 'Secret' || self.apiVersion != 'v1'").message("a Secret cannot be waited for, because its content must not get into an expression or a message"))]
pub struct Dependency {
    /// API version of the object. Without `apiVersion` and `kind`, `name` is the name of a Sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317), regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?v[a-z0-9]+$"))]
    pub api_version: Option<String>,
    /// Kind of the object. Any kind except Secret is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Z][A-Za-z0-9]*$"))]
    pub kind: Option<String>,
    /// Name of the Sync or object.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^/%]+$"))]
    pub name: String,
    /// Namespace of the Sync or object. Default: the namespace of this Sync. A Sync in another namespace is allowed
    /// only if the controller runs with `--allow-cross-namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[^/%]+$"))]
    pub namespace: Option<String>,
    /// A CEL expression that is true when this Sync may be applied. `dep` is the object, `self` is this Sync. The
    /// expression counts instead of the object's health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ready_expr: Option<String>,
}

impl Dependency {
    /// The API version and kind, if the dependency is an object and not a Sync. A Sync may also be given with its
    /// `apiVersion` and `kind`; the result is `None` for it, too, unless there is a
    /// [`Dependency::ready_expr`].
    pub fn kind(&self) -> Option<(&str, &str)> {
        const SYNC: (&str, &str) = ("gitseal.dev/v1alpha1", "Sync");
        let named = self.api_version.as_deref().zip(self.kind.as_deref()).unwrap_or(SYNC);
        (named != SYNC || self.ready_expr.is_some()).then_some(named)
    }

    /// Whether the dependency is a Sync, also one that is read as an object because of its [`Dependency::ready_expr`].
    pub fn is_sync(&self) -> bool {
        self.kind().is_none_or(|(api_version, kind)| api_version.starts_with("gitseal.dev/") && kind == "Sync")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_may_be_named_like_an_object() {
        let named = |json: serde_json::Value| serde_json::from_value::<Dependency>(json).unwrap();
        assert_eq!(named(serde_json::json!({"name": "a"})).kind(), None);
        let sync = serde_json::json!({"apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "name": "a"});
        assert_eq!(named(sync).kind(), None);
        let asked = serde_json::json!({"name": "a", "readyExpr": "true"});
        assert_eq!(named(asked).kind(), Some(("gitseal.dev/v1alpha1", "Sync")));
        let map = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "a"});
        assert_eq!(named(map).kind(), Some(("v1", "ConfigMap")));
    }
}
