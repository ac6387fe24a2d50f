//! What every reconciler needs.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use crds::{Repository, SealedSecret, Sync};
use gitstore::GitStore;
use kube::runtime::reflector::Store;
use pipeline::Stage;

use crate::{
    backoff::Failing,
    cluster::{Api, Cluster, Namespaces},
    config::{Keys, SealedSecrets, Tenancy},
    drift::Drift,
    events::Events,
    fair::Places,
    fetches::Fetches,
    keys::Keyring,
    memory::Plaintexts,
    metrics::Metrics,
    passes,
    queue::Queue,
    render::Renderer,
    retries::Retries,
    sealed_secret::Marks,
    sources::Sources,
    sync::{Records, StageObserver, Wants},
};
use crds::ObjectKey;

/// Everything that the reconcilers share.
pub struct Context {
    /// What tenants may do.
    pub tenancy: Tenancy,
    /// How keys are made and values accepted.
    pub keys: Keys,
    /// Which SealedSecrets are unsealed, and how.
    pub unsealing: SealedSecrets,
    /// Where the controller works.
    pub namespaces: Namespaces,
    /// The API server of the controller's own objects: Repositories, Syncs, keys, events.
    pub api: Api,
    /// Where the objects of Syncs are applied.
    pub cluster: Cluster,
    /// Fetches under way, and whose turn is next.
    pub fetches: Fetches,
    /// Repositories whose fetch fails.
    pub failing_fetches: Failing,
    /// SealedSecrets that fail.
    pub failing_secrets: Failing,
    /// What Secrets were made of.
    pub(crate) marks: Marks,
    /// SealedSecrets whose Secret was written and not yet told about.
    pub unsealed: Mutex<HashSet<ObjectKey>>,
    /// Objects that drifted, and how often.
    pub drift: Drift,
    /// Room for what is unsealed.
    pub plaintexts: Plaintexts,
    /// What reads folders.
    pub renderer: Renderer,
    /// Git objects on disk.
    pub git: Arc<GitStore>,
    /// Current snapshots.
    pub sources: Arc<Sources>,
    /// Sealing keys.
    pub keyring: Keyring,
    /// Events.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
    /// Every Repository.
    pub repositories: Store<Repository>,
    /// Every Sync.
    pub syncs: Store<Sync>,
    /// Every SealedSecret.
    pub sealed_secrets: Store<SealedSecret>,
    /// What is known of every Sync besides its object.
    pub records: Records,
    /// Syncs that are to be tried at once.
    pub retries: Retries,
    /// What stands in the folders of Syncs that are still to apply it.
    pub wants: Wants,
    /// Work.
    pub queues: Queues,
    /// Places to write objects in; namespaces take turns.
    pub(crate) writes: Places,
    /// Places to look in at whole objects, for their health: each may take many times its size in memory.
    pub(crate) looks: Places,
    /// Told of every stage.
    pub observer: Arc<dyn StageObserver>,
}

/// Work by kind.
#[derive(Default)]
pub struct Queues {
    /// Repositories to fetch.
    pub repositories: Arc<Queue<ObjectKey>>,
    /// Syncs to reconcile.
    pub syncs: Arc<Queue<ObjectKey>>,
    /// SealedSecrets to unseal.
    pub sealed_secrets: Arc<Queue<ObjectKey>>,
    /// SealedSecrets whose status may be behind.
    pub sealed_statuses: Arc<Queue<ObjectKey>>,
}

impl Context {
    /// `stage` is about to begin; the guard measures how long it takes.
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
