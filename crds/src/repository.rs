//! `Repository`: where manifests come from.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, LocalReference};

/// A Git repository and the reference to follow in it.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "gitseal.dev",
    version = "v1alpha1",
    kind = "Repository",
    plural = "repositories",
    shortname = "repo",
    category = "gitseal",
    namespaced,
    status = "RepositoryStatus",
    derive = "PartialEq",
    doc = "A Git repository whose manifests gitseal applies.",
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.url.startsWith('http://') || !has(self.secretRef)")
    .message("credentials are not sent over plain http: use https, or remove secretRef"))]
pub struct RepositorySpec {
    /// `https://`, `http://`, `ssh://`, `git@host:path`, or `file://` (only when the controller allows it).
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^(https?://|ssh://|file:///|[^@/\s]+@[^:/\s]+:)\S+$"))]
    #[x_kube(validation = Rule::new("!self.matches('^[a-z]+://[^/@]*:[^/@]*@')")
        .message("a password in the URL would be stored in plain sight: use secretRef"))]
    pub url: String,
    /// What to follow; the remote's default branch when absent.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<GitReference>,
    /// How often the remote is asked for news, for example `1m`; `1s` at the least.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("the interval is 1s at the least"))]
    pub interval: String,
    /// How long one fetch may take: between `1s` and `10m`.
    #[serde(default = "default_timeout")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('10m')")
        .message("the timeout is between 1s and 10m: a fetch that hangs keeps others waiting"))]
    pub timeout: String,
    /// A Secret with `username` and `password`, or `bearerToken`, or `identity` and `known_hosts`; optionally `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
    /// Which commits are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verification>,
    /// Stops fetching; what is applied stays and is still healed.
    #[serde(default)]
    pub suspend: bool,
}

fn default_interval() -> String {
    "1m".into()
}

fn default_timeout() -> String {
    "60s".into()
}

/// What to follow in a repository: exactly one of the fields.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.branch), has(self.tag), has(self.semver), has(self.commit)].filter(x, x).size() == 1")
    .message("exactly one of branch, tag, semver and commit"))]
pub struct GitReference {
    /// A branch by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub branch: Option<String>,
    /// A tag by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub tag: Option<String>,
    /// The highest tag that fits a range, for example `>=1.2 <2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub semver: Option<String>,
    /// One commit by its full hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{40}$"))]
    pub commit: Option<String>,
}

/// Which commits are trusted.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.mode == 'None' || has(self.secretRef)")
    .message("mode Head needs secretRef: a Secret with the trusted keys"))]
pub struct Verification {
    /// `None` trusts every commit; `Head` asks for a valid signature on the fetched commit.
    #[serde(default)]
    pub mode: VerificationMode,
    /// A Secret with trusted SSH signing keys or OpenPGP keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
}

/// See [`Verification::mode`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum VerificationMode {
    /// Every commit is trusted.
    #[default]
    None,
    /// The fetched commit carries a valid signature by a trusted key.
    Head,
}

/// What the controller last saw of the repository.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// The generation that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `reference@sha1:hash` of the fetched commit, for example `main@sha1:4f1c…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// When `revision` was fetched, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<String>,
    /// The last value of the `gitseal.dev/reconcile-requested-at` annotation that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Ready, Reconciling, Stalled.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
