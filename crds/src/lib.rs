//! The API of gitseal: [`Repository`], [`Sync`] and the Sealed Secrets project's [`SealedSecret`].
//!
//! The Rust types here are the source; `crds/yaml/` holds the CustomResourceDefinitions generated from them
//! (`cargo run -p gitseal-crds`), and a test keeps the two in step.

// The schema derive makes helper types in private modules.
#![allow(unreachable_pub)]
// Every printer column has a type; clippy takes the repetition for a mistake.
#![allow(clippy::duplicated_attributes)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod condition;
pub mod endpoints;
mod generate;
mod helm;
mod key;
mod repository;
mod sealed_secret;
mod sync;

pub use condition::{Condition, ConditionStatus, conditions, find as find_condition, set as set_condition};
pub use generate::{custom_resource_definitions, file_name, file_text, to_yaml};
pub use helm::{ChartCrds, Helm, ValuesFrom};
pub use key::ObjectKey;
pub use repository::{GitReference, Repository, RepositorySpec, RepositoryStatus, Verification, VerificationMode};
pub use sealed_secret::{
    SealedSecret, SealedSecretCondition, SealedSecretSpec, SealedSecretStatus, SecretTemplate, TemplateMetadata,
};
pub use sync::{
    Difference, DifferenceTarget, HistoryEntry, InventoryEntry, KubeConfig, Sync, SyncSpec, SyncStatus, Waves,
};

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The field manager under which gitseal applies objects.
pub const FIELD_MANAGER: &str = "gitseal";

/// Names of labels, annotations and finalizers.
pub mod names {
    /// Label on an applied object: the name of the Sync that owns it.
    pub const SYNC_NAME: &str = "gitseal.dev/sync-name";
    /// Label on an applied object: the namespace of the Sync that owns it.
    pub const SYNC_NAMESPACE: &str = "gitseal.dev/sync-namespace";
    /// Annotation on a Repository or Sync: a new value asks for a reconcile now.
    pub const RECONCILE_REQUESTED_AT: &str = "gitseal.dev/reconcile-requested-at";
    /// Annotation on a Sync: the revision whose large prune is confirmed.
    pub const CONFIRM_PRUNE: &str = "gitseal.dev/confirm-prune";
    /// Annotation on a suspended Repository or Sync: why, in the words of who suspended it.
    pub const SUSPEND_REASON: &str = "gitseal.dev/suspend-reason";
    /// Annotation on an applied object: `disabled` keeps it when it leaves Git.
    pub const PRUNE: &str = "gitseal.dev/prune";
    /// The value of [`PRUNE`] that counts.
    pub const PRUNE_DISABLED: &str = "disabled";
    /// Annotation in Git, on an object that may be deleted and made again if a change in Git cannot be made to the existing
    /// object.
    pub const REPLACE: &str = "gitseal.dev/replace";
    /// The value of [`REPLACE`] that counts.
    pub const REPLACE_ALLOWED: &str = "allowed";
    /// Annotation in Git: the number of the wave that the object is applied in.
    pub const WAVE: &str = "gitseal.dev/wave";
    /// Annotation in Git, on an object that must be healthy before the next waves begin.
    pub const WAIT: &str = "gitseal.dev/wait";
    /// The only value of [`WAIT`].
    pub const WAIT_HEALTHY: &str = "healthy";
    /// Annotation in Git, on a Deployment, StatefulSet or DaemonSet: with the value `true`, its Pods are restarted when a value
    /// that they use changes.
    pub const RESTART_ON_SECRET_CHANGE: &str = "gitseal.dev/restart-on-secret-change";
    /// Annotation on the Pod template of such a workload: a digest of these values, which only the cluster's controller can make.
    pub const VALUES_DIGEST: &str = "gitseal.dev/values-digest";
    /// Finalizer on a Sync: its objects are pruned before it goes.
    pub const FINALIZER: &str = "gitseal.dev/prune";
    /// Annotation on a Sync: the inventory of its first pass, with a digest that only the controller can make. It is
    /// used until the status of the Sync has the inventory.
    pub const FIRST_INVENTORY: &str = "gitseal.dev/first-inventory";
    /// Annotation: unsealed by any name in any namespace.
    pub const CLUSTER_WIDE: &str = "sealedsecrets.bitnami.com/cluster-wide";
    /// Annotation: unsealed by any name in its namespace.
    pub const NAMESPACE_WIDE: &str = "sealedsecrets.bitnami.com/namespace-wide";
    /// Annotation on an existing Secret: a SealedSecret of the same name may take it over.
    pub const MANAGED: &str = "sealedsecrets.bitnami.com/managed";
    /// Annotation on an existing Secret: a SealedSecret of the same name may merge into it.
    pub const PATCH: &str = "sealedsecrets.bitnami.com/patch";
    /// Annotation on a template: the Secret outlives its SealedSecret.
    pub const SKIP_SET_OWNER_REFERENCES: &str = "sealedsecrets.bitnami.com/skip-set-owner-references";
    /// Annotation that older versions left on an unsealed Secret: a digest of the sealed values and the template that it was
    /// made from, never of a plaintext. [`SealedSecretStatus::made_from`](crate::SealedSecretStatus::made_from) took its
    /// place.
    pub const SEALED_DIGEST: &str = "gitseal.dev/sealed-digest";
    /// Annotation on a SealedSecret: keys of sealed values, separated by commas, that only its templates use. The Secret does
    /// not get them.
    pub const TEMPLATE_INPUTS: &str = "gitseal.dev/template-inputs";
    /// Label on a Secret that holds a sealing key pair: `active` or `compromised`.
    pub const SEALING_KEY: &str = "sealedsecrets.bitnami.com/sealed-secrets-key";
    /// Label on a Secret that holds a sealing key of another kind; no version reads it yet.
    pub const OTHER_SEALING_KEY: &str = "gitseal.dev/sealing-key";
    /// Prefix of the names of sealing keys' Secrets, unless the controller was told another.
    pub const KEY_PREFIX: &str = "sealed-secrets-key";
    /// Name of the Secret with the controller's key for digests.
    pub const DIGEST_KEY: &str = "gitseal-digest-key";
    /// Name of the Secret that is there while the controller makes a sealing key.
    pub const KEY_CLAIM: &str = "gitseal-new-key";
    /// The labels that make a Secret a sealing key: unsealing makes no Secret that has one.
    pub const KEY_LABELS: [&str; 2] = [SEALING_KEY, OTHER_SEALING_KEY];
}

/// Names an object in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct LocalReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Names an object. It may be in another namespace only if the controller runs with `--allow-cross-namespace`.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct ObjectReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the object. Default: the namespace of the object that names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
