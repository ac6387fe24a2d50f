//! What every reconciler needs.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use crds::{ObjectKey, Repository, SealedSecret, Sync};
use flags::{Keys, SealedSecrets, Tenancy};
use gitstore::GitStore;
use kube::{
    Resource,
    runtime::reflector::{ObjectRef, Store},
};
use pipeline::Stage;

use crate::{
    backoff::Failing,
    cluster::{Api, Cluster, Namespaces},
    drift::Drift,
    events::Events,
    expressions::Expressions,
    fair::Places,
    fetches::Fetches,
    inputs::Texts,
    keys::Keyring,
    memory::Plaintexts,
    metrics::Metrics,
    passes,
    queue::Queue,
    remotes::Remotes,
    render::Renderer,
    retries::Retries,
    sealed_secret::Marks,
    sources::Sources,
    sync::{ReadInputs, Records, StageObserver, Wants},
};

/// Converts a key into the form in which a store of watched objects names an object.
pub(crate) trait InStore {
    /// The name of the object in a store of objects of the kind `K`.
    fn to_ref<K>(&self) -> ObjectRef<K>
    where
        K: Resource,
        K::DynamicType: Default + Eq + std::hash::Hash;
}

impl InStore for ObjectKey {
    fn to_ref<K>(&self) -> ObjectRef<K>
    where
        K: Resource,
        K::DynamicType: Default + Eq + std::hash::Hash,
    {
        ObjectRef::new(&self.name).within(&self.namespace)
    }
}

/// Everything that the reconcilers share.
pub struct Context {
    /// The settings for tenants.
    pub tenancy: Tenancy,
    /// How sealing keys are made, and which forms of sealed values are accepted.
    pub keys: Keys,
    /// Which SealedSecrets are unsealed, and how.
    pub unsealing: SealedSecrets,
    /// The namespaces that the controller works in.
    pub namespaces: Namespaces,
    /// The API for the controller's own objects: Repositories, Syncs, sealing keys, events.
    pub api: Api,
    /// The cluster that the objects of Syncs are applied to.
    pub cluster: Cluster,
    /// Running and waiting fetches.
    pub fetches: Fetches,
    /// Repositories whose fetch fails.
    pub failing_fetches: Failing,
    /// SealedSecrets that could not be unsealed.
    pub failing_secrets: Failing,
    /// The marks, which record from which SealedSecret and with which key each Secret was made.
    pub(crate) marks: Marks,
    /// SealedSecrets whose Secret was written, but without an event about it yet.
    pub unsealed: Mutex<HashSet<ObjectKey>>,
    /// Objects that drifted, with the history of their heals.
    pub drift: Drift,
    /// Limits the memory for plaintexts.
    pub plaintexts: Plaintexts,
    /// Reads folders.
    pub renderer: Renderer,
    /// Git objects on disk.
    pub git: Arc<GitStore>,
    /// The remote repositories that kustomizations use.
    pub(crate) remotes: Arc<Remotes>,
    /// The current snapshots.
    pub sources: Arc<Sources>,
    /// Sealing keys.
    pub keyring: Keyring,
    /// Writes events.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
    /// Every Repository.
    pub repositories: Store<Repository>,
    /// Every Sync.
    pub syncs: Store<Sync>,
    /// Every SealedSecret.
    pub sealed_secrets: Store<SealedSecret>,
    /// What the controller keeps in memory for each Sync from one reconcile to the next.
    pub records: Records,
    /// Which Syncs are to be tried again at once.
    pub retries: Retries,
    /// For Syncs that still have to apply their folders: the objects in these folders.
    pub wants: Wants,
    /// What Syncs get from the cluster: values, variables, and what charts look up.
    pub inputs: ReadInputs,
    /// The memory for it.
    pub(crate) input_texts: Arc<Texts>,
    /// The queues of work.
    pub queues: Queues,
    /// Limits how many writes of objects run at the same time. Namespaces take turns.
    pub(crate) writes: Places,
    /// Limits how many reads of whole objects, which the health checks need, run at the same time, because such an
    /// object may take much more memory than its JSON has bytes.
    pub(crate) health_reads: Places,
    /// Evaluates expressions.
    pub(crate) expressions: Expressions,
    /// Called when a stage begins.
    pub observer: Arc<dyn StageObserver>,
}

/// The queues of work.
#[derive(Default)]
pub struct Queues {
    /// Repositories to fetch.
    pub repositories: Arc<Queue<ObjectKey>>,
    /// Syncs to reconcile.
    pub syncs: Arc<Queue<ObjectKey>>,
    /// SealedSecrets to unseal.
    pub sealed_secrets: Arc<Queue<ObjectKey>>,
    /// SealedSecrets whose status may have to be updated.
    pub sealed_statuses: Arc<Queue<ObjectKey>>,
}

impl Context {
    /// Notes that `stage` is about to begin. The returned timer measures how long the stage takes.
    pub fn begin(&self, stage: Stage, sync: &ObjectKey) -> StageTimer<'_> {
        passes::begins(stage);
        self.observer.begins(stage, sync);
        StageTimer { metrics: &self.metrics, stage, started: std::time::Instant::now() }
    }
}

/// Measures one stage; see [`Context::begin`].
pub struct StageTimer<'a> {
    metrics: &'a Metrics,
    stage: Stage,
    started: std::time::Instant,
}

impl Drop for StageTimer<'_> {
    fn drop(&mut self) {
        self.metrics.stage(self.stage.as_str(), self.started.elapsed());
    }
}
