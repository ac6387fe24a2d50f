//! The API of gitseal: [`Repository`], [`Sync`] and the Sealed Secrets project's [`SealedSecret`].
//!
//! The CustomResourceDefinitions in `crds/yaml/` are generated from the Rust types of this crate (`cargo run -p
//! gitseal-crds`). A test checks that these files are up to date.

// The derive macro for schemas makes public helper types in private modules.
#![allow(unreachable_pub)]
// Every printer column has an attribute for its type; clippy takes this repetition for a mistake.
#![allow(clippy::duplicated_attributes)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod condition;
mod dependency;
pub mod endpoints;
mod generate;
mod health_check;
mod helm;
mod key;
mod overlay;
mod repository;
mod sealed_secret;
mod substitution;
mod sync;

pub use condition::{Condition, ConditionStatus, conditions, find as find_condition, set as set_condition};
pub use dependency::Dependency;
pub use generate::{custom_resource_definitions, file_name, file_text, to_yaml};
pub use health_check::HealthCheck;
pub use helm::{ChartCrds, Helm, Lookup, ValuesFrom};
pub use key::ObjectKey;
pub use overlay::{Image, Overlay, Patch, PatchTarget};
pub use repository::{
    AllowedRemote, GitReference, RemoteRevision, Repository, RepositorySpec, RepositoryStatus, Verification,
    VerificationMode, VersionDigest,
};
pub use sealed_secret::{
    SealedSecret, SealedSecretCondition, SealedSecretSpec, SealedSecretStatus, SecretTemplate, TemplateMetadata,
};
pub use substitution::{SubstituteFrom, Substitution};
pub use sync::{
    Deletion, DeletionStep, Difference, DifferenceTarget, HistoryEntry, InventoryEntry, KubeConfig, Sync, SyncSpec,
    SyncStatus, Waves,
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
    /// Annotation on a Sync: the value of `status.pruneConfirmation`, to confirm the large prune that waits.
    pub const CONFIRM_PRUNE: &str = "gitseal.dev/confirm-prune";
    /// Annotation on a Repository: values of `moved` in `status.remotes`, separated by commas, to use what is there now.
    pub const ACCEPT_MOVED: &str = "gitseal.dev/accept-moved";
    /// Annotation on a suspended Repository or Sync: why, in the words of who suspended it.
    pub const SUSPEND_REASON: &str = "gitseal.dev/suspend-reason";
    /// Annotation on an applied object: with the value `disabled`, the object is not deleted when it leaves Git.
    pub const PRUNE: &str = "gitseal.dev/prune";
    /// The only value of [`PRUNE`] that has an effect.
    pub const PRUNE_DISABLED: &str = "disabled";
    /// Annotation in Git: with the value `disabled`, the object is made if it does not exist, and never changed.
    pub const CHANGE: &str = "gitseal.dev/change";
    /// The only value of [`CHANGE`] that has an effect.
    pub const CHANGE_DISABLED: &str = "disabled";
    /// Annotation in Git: the object may be deleted and made again if the API server refuses to change the existing
    /// object.
    pub const REPLACE: &str = "gitseal.dev/replace";
    /// The only value of [`REPLACE`] that has an effect.
    pub const REPLACE_ALLOWED: &str = "allowed";
    /// Annotation or label in Git: with the value `disabled`, variables in the object are not replaced.
    pub const SUBSTITUTE: &str = "gitseal.dev/substitute";
    /// The annotation or label of Flux with the same meaning as [`SUBSTITUTE`].
    pub const FLUX_SUBSTITUTE: &str = "kustomize.toolkit.fluxcd.io/substitute";
    /// The only value of [`SUBSTITUTE`] that has an effect.
    pub const SUBSTITUTE_DISABLED: &str = "disabled";
    /// Annotation in Git: the number of the wave that the object is applied in.
    pub const WAVE: &str = "gitseal.dev/wave";
    /// Annotation in Git, on an object of a wave below 0: the number of a later wave, above 0, in which the object is made again. It is
    /// deleted in between.
    pub const WAVE_AGAIN: &str = "gitseal.dev/wave-again";
    /// Annotation in Git: the object must be healthy before the next waves begin.
    pub const WAIT: &str = "gitseal.dev/wait";
    /// The only allowed value of [`WAIT`].
    pub const WAIT_HEALTHY: &str = "healthy";
    /// Annotation in Git: the object is deleted when it is healthy, or when it has failed, and made again only when it changes. The
    /// value is one of the two values below, or both, separated by a comma.
    pub const DELETE_WHEN: &str = "gitseal.dev/delete-when";
    /// Part of the value of [`DELETE_WHEN`].
    pub const DELETE_WHEN_HEALTHY: &str = "healthy";
    /// Part of the value of [`DELETE_WHEN`].
    pub const DELETE_WHEN_FAILED: &str = "failed";
    /// Annotation in Git: the object is applied when its Sync is deleted. The value has some of the values below, separated by commas.
    pub const ON_DELETE: &str = "gitseal.dev/on-delete";
    /// Part of the value of [`ON_DELETE`]: the object is applied before the other objects are pruned.
    pub const ON_DELETE_BEFORE: &str = "before";
    /// Part of the value of [`ON_DELETE`]: the object is applied after the other objects were pruned.
    pub const ON_DELETE_AFTER: &str = "after";
    /// Part of the value of [`ON_DELETE`]: the object is applied with the other objects, too.
    pub const ON_DELETE_ALSO: &str = "also";
    /// Annotation in Git: the object is a test. It is applied when all other objects of its Sync are healthy, and made again for each
    /// change of them.
    pub const RUN_WHEN: &str = "gitseal.dev/run-when";
    /// The only allowed value of [`RUN_WHEN`].
    pub const RUN_WHEN_HEALTHY: &str = "healthy";
    /// Annotation in Git: the object is applied only in the installation of its Sync, or only in upgrades. Otherwise, what is there stays.
    pub const ONLY_ON: &str = "gitseal.dev/only-on";
    /// Value of [`ONLY_ON`]: until the Sync is Ready for the first time.
    pub const ONLY_ON_INSTALLATION: &str = "installation";
    /// Value of [`ONLY_ON`]: after that.
    pub const ONLY_ON_UPGRADE: &str = "upgrade";
    /// Annotation on a Sync: with the value `true`, what it applies was installed before, by something else.
    pub const INSTALLED: &str = "gitseal.dev/installed";
    /// The only value of [`INSTALLED`] that has an effect.
    pub const INSTALLED_TRUE: &str = "true";
    /// Annotation on a test in the cluster: a digest of the manifests that it tests.
    pub const TESTED: &str = "gitseal.dev/tested";
    /// Annotation on a Sync: with the value of [`RECONCILE_REQUESTED_AT`], the request also runs the tests of the Sync.
    pub const RUN_TESTS: &str = "gitseal.dev/run-tests";
    /// Annotation on a Sync: with the value `skip`, what its folder has for its deletion is not applied.
    pub const DELETE_HOOKS: &str = "gitseal.dev/delete-hooks";
    /// The only value of [`DELETE_HOOKS`] that has an effect.
    pub const DELETE_HOOKS_SKIP: &str = "skip";
    /// Annotation on a hook in the cluster that is a Job or a Pod: a digest of the manifest that it was made from.
    pub const MADE_FROM: &str = "gitseal.dev/made-from";
    /// Annotation of Helm: the object is a hook of these events.
    pub const HELM_HOOK: &str = "helm.sh/hook";
    /// Annotation in Git, on a Deployment, StatefulSet or DaemonSet: with the value `true`, its Pods are restarted when
    /// a value in a ConfigMap or Secret that they use changes.
    pub const RESTART_ON_SECRET_CHANGE: &str = "gitseal.dev/restart-on-secret-change";
    /// Annotation on the Pod template of a workload with [`RESTART_ON_SECRET_CHANGE`]: a digest of the values that its
    /// Pods use. Only the cluster's controller can make this digest.
    pub const VALUES_DIGEST: &str = "gitseal.dev/values-digest";
    /// Finalizer on a Sync: the objects of the Sync are pruned before the Sync is deleted.
    pub const FINALIZER: &str = "gitseal.dev/prune";
    /// Annotation on a Sync: the inventory of its first pass, with a digest that only the controller can make. The
    /// controller reads this annotation until the Sync's status has an inventory.
    pub const FIRST_INVENTORY: &str = "gitseal.dev/first-inventory";
    /// Annotation on a SealedSecret: its values can be unsealed under any name in any namespace.
    pub const CLUSTER_WIDE: &str = "sealedsecrets.bitnami.com/cluster-wide";
    /// Annotation on a SealedSecret: its values can be unsealed under any name in the same namespace.
    pub const NAMESPACE_WIDE: &str = "sealedsecrets.bitnami.com/namespace-wide";
    /// Annotation on an existing Secret: a SealedSecret of the same name may take it over.
    pub const MANAGED: &str = "sealedsecrets.bitnami.com/managed";
    /// Annotation on an existing Secret: a SealedSecret of the same name may merge into it.
    pub const PATCH: &str = "sealedsecrets.bitnami.com/patch";
    /// Annotation in the template of a SealedSecret: the Secret is not deleted together with the SealedSecret.
    pub const SKIP_SET_OWNER_REFERENCES: &str = "sealedsecrets.bitnami.com/skip-set-owner-references";
    /// Annotation that older versions left on an unsealed Secret: a digest of the sealed values and the template that
    /// the Secret was made from, never of a plaintext. This version writes
    /// [`SealedSecretStatus::made_from`](crate::SealedSecretStatus::made_from) instead.
    pub const SEALED_DIGEST: &str = "gitseal.dev/sealed-digest";
    /// Annotation on a SealedSecret: the keys, separated by commas, of sealed values that only its templates use. The
    /// Secret does not get these values.
    pub const TEMPLATE_INPUTS: &str = "gitseal.dev/template-inputs";
    /// Label on a Secret that holds a sealing key pair: `active` or `compromised`.
    pub const SEALING_KEY: &str = "sealedsecrets.bitnami.com/sealed-secrets-key";
    /// Label that is reserved for Secrets with sealing keys of a new kind. No version reads such keys yet.
    pub const OTHER_SEALING_KEY: &str = "gitseal.dev/sealing-key";
    /// Default prefix of the names of the Secrets that hold sealing keys.
    pub const KEY_PREFIX: &str = "sealed-secrets-key";
    /// Name of the Secret with the key that the controller makes keyed digests with.
    pub const DIGEST_KEY: &str = "gitseal-digest-key";
    /// Name of the Secret that exists while a replica of the controller makes a sealing key, so that no other replica
    /// makes one.
    pub const KEY_CLAIM: &str = "gitseal-new-key";
    /// The labels that mark a Secret as a sealing key. The controller makes no Secret with one of these labels from a
    /// SealedSecret.
    pub const KEY_LABELS: [&str; 2] = [SEALING_KEY, OTHER_SEALING_KEY];
}

/// Names an object in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct LocalReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Names an object. The object may be in another namespace only if the controller runs with `--allow-cross-namespace`.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct ObjectReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the object. Default: the namespace of the object that has this reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
