//! `Sync`: what is applied where.

use std::time::Duration;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Dependency, HealthCheck, Helm, LocalReference, ObjectReference, Overlay, Substitution};

/// Which folder of which Repository to apply, and how.
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
    doc = "A folder of a Repository that gitseal applies to the cluster. If others change or delete the applied objects, gitseal restores them.",
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
    /// The Repository with the manifests.
    pub repository: ObjectReference,
    /// Folder with the manifests, relative to the root of the repository and without `..`. Default: the root.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("!self.split('/').exists(part, part == '..')").message("the path must stay inside the repository: no '..'"),
        validation = Rule::new("!self.startsWith('/')").message("the path must be relative to the repository's root"))]
    pub path: String,
    /// Renders the folder as a Helm chart. The folder must have a `Chart.yaml`. Without this field, a folder with a
    /// chart is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helm: Option<Helm>,
    /// What is changed in the rendered objects before they are applied.
    #[serde(flatten)]
    pub overlay: Overlay,
    /// The variables that are replaced in the rendered objects.
    #[serde(flatten)]
    pub substitution: Substitution,
    /// How often the whole folder is compared with the cluster again when there is no new commit; also the longest
    /// pause between two tries after a failure. At least `10s`. Changes that others make to the objects are undone at
    /// once, whatever the interval.
    #[serde(default = "default_interval")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s')").message("the interval must be at least 10s"))]
    pub interval: String,
    /// If true, an object is deleted when it is no longer in the folder, and all objects are deleted with the Sync.
    #[serde(default = "default_true")]
    pub prune: bool,
    /// How many objects one revision may delete: a number, or a percentage of the Sync's objects (`50%`). If a revision
    /// would delete more, it deletes nothing until you confirm it with the annotation
    /// `gitseal.dev/confirm-prune: <status.pruneConfirmation>`.
    #[serde(default = "default_prune_limit")]
    #[schemars(regex(pattern = r"^([0-9]+|(100|[0-9]{1,2})%)$"))]
    pub prune_limit: String,
    /// Syncs that must be Ready, and objects that must be healthy, before this Sync is applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub depends_on: Vec<Dependency>,
    /// The namespace that every namespaced object is applied in. Default: the namespace in the manifest, or else the
    /// namespace of the Sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub target_namespace: Option<String>,
    /// A service account in the Sync's namespace. The objects are applied and deleted with its rights. Default: the
    /// service account of the controller's flag `--default-service-account`; if that is not set, the controller's own
    /// rights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub service_account_name: Option<String>,
    /// Applies the folder to another cluster. This is not supported yet: a Sync with this field is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_config: Option<KubeConfig>,
    /// If true, the Sync is Ready only when all its objects are healthy and its Jobs are complete. If false, it waits only
    /// for the hooks and tests of a chart, and for objects with the annotation `gitseal.dev/delete-when`.
    #[serde(default = "default_true")]
    pub wait: bool,
    /// When the objects of the next wave number are applied: `applied` means when all objects of the number before are
    /// applied, `healthy` means when these objects are also healthy and their Jobs are complete. With `applied`, the
    /// next number still waits until objects with the annotation `gitseal.dev/wait: healthy` are healthy.
    #[serde(default)]
    pub waves: Waves,
    /// How long objects may take to become healthy after they were applied. This holds for all objects if `wait` is
    /// true, for the objects that the next wave waits for, and for those that the Sync waits for even if `wait` is false.
    #[serde(default = "default_timeout")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub timeout: String,
    /// How to tell whether objects of some kinds are healthy. For these kinds, the built-in rules do not apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub health_checks: Vec<HealthCheck>,
    /// Fields in the manifests that gitseal does not apply, because others set them in the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub ignore_differences: Vec<Difference>,
    /// Whether workloads of the folder are restarted when a value changes that they use from a Secret or ConfigMap of the
    /// folder. The annotation `gitseal.dev/restart-on-secret-change` of a workload overrules this, with `"true"` or `"false"`.
    #[serde(default)]
    pub restart_on_secret_change: bool,
    /// If true, nothing is applied or deleted, and changes that others make are not undone. Applied objects stay.
    #[serde(default)]
    pub suspend: bool,
}

impl SyncSpec {
    /// The shortest [`SyncSpec::interval`]. A Sync that was created when older versions allowed a shorter interval is
    /// handled as if it had this one.
    pub const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);

    /// Whether the Sync is Ready only when all its objects are healthy. Tests of its chart run only then.
    pub fn waits_for_health(&self) -> bool {
        self.wait || self.helm.as_ref().is_some_and(|helm| helm.test)
    }
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

/// See [`SyncSpec::waves`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Waves {
    /// The next wave number begins when all objects of the number before are applied.
    #[default]
    Applied,
    /// The next wave number begins when all objects of the number before are healthy.
    Healthy,
}

/// Access to another cluster.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeConfig {
    /// A Secret in the Sync's namespace with a kubeconfig under the key `value`.
    pub secret_ref: LocalReference,
}

/// Fields that gitseal does not apply, and the objects in which it leaves them out.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.paths) || has(self.managers)").message("set paths, managers or both"))]
pub struct Difference {
    /// The objects whose fields are left out: those that match every field given in `target`. If no field is given, all
    /// objects.
    #[serde(default)]
    pub target: DifferenceTarget,
    /// The fields, as JSON pointers (RFC 6901), for example `/spec/replicas`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(regex(pattern = "^(/([^/~]|~[01])*)+$")))]
    pub paths: Vec<String>,
    /// Names of field managers, as `metadata.managedFields` has them. The fields that one of them owns in the cluster are
    /// left out, as long as it owns them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 128)))]
    pub managers: Vec<String>,
}

/// See [`Difference::target`].
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DifferenceTarget {
    /// API group of the objects. The core group (Service, ConfigMap and others) is the empty string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind of the objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Namespace of the objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What the controller last did for the Sync.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncStatus {
    /// The `metadata.generation` that the controller handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The last revision that changed the Sync's folder and that the controller tried to apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempted_revision: Option<String>,
    /// The last revision that changed the Sync's folder and was applied completely. Later commits that do not change
    /// the folder do not change this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_revision: Option<String>,
    /// Identifies the folder content and the settings that were applied, so that the controller does not apply them
    /// again after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_content: Option<String>,
    /// Number of objects in the last revision that was applied completely. A percentage in `pruneLimit` is a percentage
    /// of this number. A SealedSecret and its Secret count as one object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_objects: Option<i64>,
    /// If a prune waits because it is larger than `pruneLimit`: the value of the annotation `gitseal.dev/confirm-prune`
    /// that confirms this prune and no other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune_confirmation: Option<String>,
    /// How many confirmed prunes were carried out. Each of them needs a confirmation of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_prunes: Option<i64>,
    /// Whether the Sync was Ready before: its installation is complete, and what it applies later is an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<bool>,
    /// Whether the last revision has objects that are applied when the Sync is deleted, such as `pre-delete` hooks of Helm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks_on_delete: Option<bool>,
    /// While the Sync is being deleted: the step that the controller has reached. Only set if `hooksOnDelete` is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_step: Option<DeletionStep>,
    /// The value of the annotation `gitseal.dev/reconcile-requested-at` that the controller handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// The text of the chart's `NOTES.txt`, as rendered for the last revision that was applied completely. At most 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// The objects that the Sync has in the cluster. A new object is added to this list before it is applied. An object
    /// is removed from the list after it was deleted or when it no longer belongs to the Sync.
    #[serde(default)]
    pub inventory: Vec<InventoryEntry>,
    /// The last revisions, newest first. At most 10.
    #[serde(default)]
    pub history: Vec<HistoryEntry>,
    /// `Ready`. While the controller works or tries again, also `Reconciling`. While only a change by somebody can
    /// help, also `Stalled`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// One object of a Sync's inventory.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, KubeSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub struct InventoryEntry {
    /// The object, as `namespace_name_group_kind`. Namespace and group may be empty.
    pub id: String,
    /// API version without the group, for example `v1`.
    pub v: String,
    /// Digest of the manifest that was applied; for a Secret of a SealedSecret, the digest of the SealedSecret. Absent
    /// until the object was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub m: Option<String>,
    /// Digest of the fields that gitseal owned after the object was applied. If the object in the cluster has another
    /// digest, somebody changed the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f: Option<String>,
    /// For a workload with the annotation `gitseal.dev/restart-on-secret-change`, the digest in its Pod template. For a
    /// Secret whose SealedSecret was sealed again with the same values, the digest of the SealedSecret that first had
    /// these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub u: Option<String>,
    /// Number of the wave that the object is applied in. Absent for wave 0. Objects are deleted in the opposite order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub w: Option<i32>,
    /// Present if the object is deleted when it is healthy, or was deleted because it had failed (`gitseal.dev/delete-when`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub d: Option<Deletion>,
    /// Present if the object is a Job or a Pod that has failed, or failed and was deleted: why. At most 512 bytes. Empty if so
    /// many objects have failed that there is no room for the text. Absent again when the object is healthy or is made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
}

/// Whether an object that is deleted when it is healthy, or has failed, was deleted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Deletion {
    /// Not yet.
    Due,
    /// It was deleted, or is about to be. It is made again only when it changes in Git.
    Done,
    /// It failed, and was deleted, or is about to be. It is made again when it changes in Git, and when a sync is requested.
    Failed,
}

/// A step of the deletion of a Sync that has hooks for its deletion. The steps follow each other in this order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum DeletionStep {
    /// The hooks run that come before the prune.
    HooksBefore,
    /// All objects are pruned, with the hooks that came before.
    Prune,
    /// The hooks run that come after the prune.
    HooksAfter,
    /// These hooks are pruned.
    PruneHooks,
}

/// One revision in a Sync's history.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The revision, for example `main@sha1:4f1c…`.
    pub revision: String,
    /// When the controller first got this outcome for the revision (RFC 3339).
    pub time: String,
    /// `Applied`, or the reason of the failure.
    pub outcome: String,
    /// How many objects were created, changed and pruned, for example `4 created`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
}
