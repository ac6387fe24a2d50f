//! `Sync`: what is applied where.

use std::time::Duration;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{Condition, LocalReference, ObjectReference};

/// What is applied where: a folder of a Repository, and how it is kept.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "gitseal.dev",
    version = "v1alpha1",
    kind = "Sync",
    plural = "syncs",
    category = "gitseal",
    namespaced,
    status = "SyncStatus",
    derive = "PartialEq",
    doc = "A folder of a Repository, applied to the cluster and kept so.",
    printcolumn(name = "Repository", type_ = "string", json_path = ".spec.repository.name"),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.path"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.lastAppliedRevision"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[kube(validation = Rule::new("self.metadata.name.size() <= 63")
    .message("the name of a Sync is a label of its objects: 63 characters at most"))]
#[serde(rename_all = "camelCase")]
pub struct SyncSpec {
    /// Where the manifests come from.
    pub repository: ObjectReference,
    /// Folder in the repository; its root when absent.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("!self.split('/').exists(part, part == '..')").message("the path must stay inside the repository: no '..'"),
        validation = Rule::new("!self.startsWith('/')").message("the path is relative to the repository's root"))]
    pub path: String,
    /// How often everything is looked at again, even without a commit; drift does not wait for it. Less than `10s` counts
    /// as `10s`.
    #[serde(default = "default_interval")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub interval: String,
    /// Deletes what leaves the folder.
    #[serde(default = "default_true")]
    pub prune: bool,
    /// A prune of more than this (`50%` of the inventory, or a count) waits for the annotation
    /// `gitseal.dev/confirm-prune: <revision>`.
    #[serde(default = "default_prune_limit")]
    #[schemars(regex(pattern = r"^([0-9]+|(100|[0-9]{1,2})%)$"))]
    pub prune_limit: String,
    /// Syncs that must be Ready first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub depends_on: Vec<ObjectReference>,
    /// Puts every namespaced object into this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub target_namespace: Option<String>,
    /// A service account of this namespace that every write is made as; the controller's own identity when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub service_account_name: Option<String>,
    /// Applies to another cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_config: Option<KubeConfig>,
    /// Ready only when every object is healthy.
    #[serde(default = "default_true")]
    pub wait: bool,
    /// How long one reconcile may take, waiting included.
    #[serde(default = "default_timeout")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub timeout: String,
    /// Fields that are left to others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub ignore_differences: Vec<Difference>,
    /// Stops applying and healing; what is applied stays.
    #[serde(default)]
    pub suspend: bool,
}

impl SyncSpec {
    /// The shortest [`SyncSpec::interval`] that counts. Objects with a shorter one are valid, since older versions allowed
    /// them.
    pub const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);
}

fn default_path() -> String {
    "./".into()
}
fn default_interval() -> String {
    "10m".into()
}
fn default_prune_limit() -> String {
    "50%".into()
}
fn default_timeout() -> String {
    "5m".into()
}
fn default_true() -> bool {
    true
}

/// How to reach another cluster.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeConfig {
    /// A Secret of the Sync's namespace with a kubeconfig under `value`.
    pub secret_ref: LocalReference,
}

/// Fields of some objects that gitseal leaves out of what it applies.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Which objects; every field given must fit.
    #[serde(default)]
    pub target: DifferenceTarget,
    /// JSON pointers (RFC 6901), for example `/spec/replicas`.
    #[schemars(length(min = 1, max = 64))]
    pub paths: Vec<String>,
}

/// See [`Difference::target`].
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DifferenceTarget {
    /// API group; the core group is the empty string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What the controller last did for the Sync.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncStatus {
    /// The generation that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The last revision that changed this Sync's folder and was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempted_revision: Option<String>,
    /// The last revision that changed this Sync's folder and was applied whole. Later commits that leave the folder
    /// alone do not touch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_revision: Option<String>,
    /// Identity of the content that was applied (Git tree and settings), so that a restart has nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_content: Option<String>,
    /// How many objects the last revision that was applied whole had: what a percentage in `pruneLimit` is of. A
    /// SealedSecret and its Secret count as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_objects: Option<i64>,
    /// The last value of the `gitseal.dev/reconcile-requested-at` annotation that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Every object that this Sync created and did not prune yet.
    #[serde(default)]
    pub inventory: Vec<InventoryEntry>,
    /// The last revisions, newest first; 10 at most.
    #[serde(default)]
    pub history: Vec<HistoryEntry>,
    /// Ready, Reconciling, Stalled.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// One object of a Sync's inventory.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, KubeSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub struct InventoryEntry {
    /// `namespace_name_group_kind`; namespace and group may be empty.
    pub id: String,
    /// API version without the group, for example `v1`.
    pub v: String,
    /// Digest of the manifest that was applied (of the sealed one for a Secret); absent until it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub m: Option<String>,
    /// Digest of the fields that gitseal owned after it was applied; a different one on the live object is drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f: Option<String>,
    /// Number of the wave that it is applied in; absent for 0. Pruning goes in the opposite order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub w: Option<i32>,
}

/// One revision in a Sync's history.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The revision.
    pub revision: String,
    /// When it was last tried, RFC 3339.
    pub time: String,
    /// How it ended: `Applied` or the reason of the failure.
    pub outcome: String,
    /// Objects created, changed and pruned, for example `4 created`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
}
