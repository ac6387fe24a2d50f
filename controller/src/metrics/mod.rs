//! The metrics of the controller, in the text format of Prometheus or of OpenMetrics.
//!
//! Metrics named `sealed_secrets_controller_…` have the names and labels of the Sealed Secrets controller, so that its
//! dashboards and alerts still work. All other metrics are named `gitseal_…`. No metric contains a value, a digest of a
//! value, or the name of a key inside a Secret.

mod fetches;
mod labels;
mod process;
mod ready;
mod text;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use crds::{ConditionStatus, ObjectKey};
use prometheus_client::{
    encoding,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use self::labels::{
    BuildLabels, ConditionLabels, FromLabels, HttpDurationLabels, HttpLabels, KindLabels, OutcomeLabels, ReasonLabels,
    ReconcileLabels, StageLabels, StateLabels, UnsealErrorLabels, VerbLabels,
};

use crate::{admission::Gate, inputs::Texts};

/// Content type of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of [`Metrics::encode_text`]'s text.
pub const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why the Secret of a SealedSecret could not be made: the label `reason` of
/// `sealed_secrets_controller_unseal_errors_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UnsealFailure {
    /// The SealedSecret could not be read from the API server.
    Fetch,
    /// The status of the SealedSecret could not be written.
    Status,
    /// A value could not be unsealed.
    Unseal,
    /// A Secret of the same name belongs to somebody else.
    Unmanaged,
    /// The Secret could not be written.
    Update,
}

impl UnsealFailure {
    /// Reason of the event about the failure, as in Sealed Secrets.
    pub(crate) fn event_reason(self) -> &'static str {
        match self {
            Self::Unseal => "ErrUnsealFailed",
            _ => "ErrUpdateFailed",
        }
    }

    /// The note of the event about `error`, with the same beginning as in Sealed Secrets.
    pub(crate) fn event_note(self, error: &dyn fmt::Display) -> String {
        match self {
            Self::Unseal => format!("Failed to unseal: {error}"),
            _ => error.to_string(),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Status => "status",
            Self::Unseal => "unseal",
            Self::Unmanaged => "unmanaged",
            Self::Update => "update",
        }
    }
}

/// Numbers of sealing keys by what they can be used for: the label `state` of `gitseal_sealing_keys`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KeyCounts {
    /// Keys that seal and unseal.
    pub active: usize,
    /// Keys that only unseal.
    pub compromised: usize,
    /// Key Secrets that are malformed, so that they cannot be used at all, or at least not for sealing.
    pub malformed: usize,
}

/// All metrics of the controller. Clones share the metrics.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Counter>,
    durations: Family<StageLabels, Histogram>,
    folders_rendered: Family<FromLabels, Counter>,
    drift_healed: Family<KindLabels, Counter>,
    api_requests: Family<VerbLabels, Counter>,
    api_unanswered: Counter,
    overdue_passes: Gauge,
    went_back: Counter,
    objects_orphaned: Gauge,
    git_fetches: Family<OutcomeLabels, Counter>,
    fetches: fetches::Fetches,
    leader: Gauge,
    objects_tracked: Gauge,
    watch_interruptions: Family<KindLabels, Counter>,
    sync_ready: ready::Ready,
    repository_ready: ready::Ready,
    health_failures: Family<ReasonLabels, Counter>,
    sealing_keys: Family<StateLabels, Gauge>,
    events: Family<OutcomeLabels, Counter>,
    values_tried: Counter,
    undecryptable_values: Gauge,
    unseal_requests: Counter,
    unseal_errors: Family<UnsealErrorLabels, Counter>,
    conditions: Family<ConditionLabels, Gauge>,
    http_requests: Family<HttpLabels, Counter>,
    http_durations: Family<HttpDurationLabels, Histogram>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All metrics at zero. `revision` is the controller's version, for `build_info`.
    pub fn new(revision: &str) -> Self {
        let mut inner = Inner::empty();
        let mut registry = Registry::default();
        inner.register_own(&mut registry);
        inner.register_sealed_secrets(registry.sub_registry_with_prefix("sealed_secrets_controller"), revision);
        registry.register_collector(Box::new(process::Process));
        registry.register_collector(Box::new(inner.fetches.clone()));
        inner.registry = registry;
        Self(Arc::new(inner))
    }

    /// All metrics as text of the type [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut out = String::new();
        encoding::text::encode(&mut out, &self.0.registry).expect("writing to a string does not fail");
        out
    }

    /// All metrics as text of the type [`TEXT_CONTENT_TYPE`], the only type in which the Sealed Secrets controller
    /// shows its metrics.
    pub fn encode_text(&self) -> String {
        text::from_openmetrics(&self.encode())
    }

    /// Counts a reconcile of a `kind` that ended with `outcome`, for example `Applied` or the reason of its failure.
    pub fn reconciled(&self, kind: &str, outcome: &str) {
        let labels = ReconcileLabels { kind: kind.into(), outcome: outcome.into() };
        self.0.reconciles.get_or_create(&labels).inc();
    }

    /// Records that a stage of the pipeline took `duration`.
    pub fn stage(&self, stage: &'static str, duration: Duration) {
        self.0.durations.get_or_create(&StageLabels { stage }).observe(duration.as_secs_f64());
    }

    /// Counts that a pass needed the objects of a folder. `from` says where the objects came from, for example `git`,
    /// or `memory` if they were kept there.
    pub fn folder_rendered(&self, from: &'static str) {
        self.0.folders_rendered.get_or_create(&FromLabels { from }).inc();
    }

    /// Counts an object of `kind` that was put back after somebody else changed it.
    pub fn drift_healed(&self, kind: &str) {
        self.0.drift_healed.get_or_create(&KindLabels { kind: kind.into() }).inc();
    }

    /// Counts a request that was sent to the API server; `verb` is its HTTP method.
    pub fn api_request(&self, verb: &str) {
        self.0.api_requests.get_or_create(&VerbLabels { verb: verb.into() }).inc();
    }

    /// Counts a request that the API server did not answer.
    pub fn api_unanswered(&self) {
        self.0.api_unanswered.inc();
    }

    /// Counts that the API server showed an earlier state than before.
    pub fn went_back(&self) {
        self.0.went_back.inc();
    }

    /// Sets the number of objects that have the labels of a Sync, but are not in the inventory of this Sync.
    pub fn objects_orphaned(&self, count: usize) {
        self.0.objects_orphaned.set(saturating(count));
    }

    /// Counts a pass that takes long, until the returned value is dropped.
    pub fn overdue_pass(&self) -> OverduePass {
        self.0.overdue_passes.inc();
        OverduePass(self.0.overdue_passes.clone())
    }

    /// Counts a fetch from a Git repository. `outcome` is, for example, `Fetched`, `Unchanged` or the reason of its
    /// failure.
    pub fn git_fetch(&self, outcome: &str) {
        self.0.git_fetches.get_or_create(&OutcomeLabels { outcome: outcome.into() }).inc();
    }

    /// Sets the gate that fetches wait at. The metrics show how many run and wait.
    pub(crate) fn show_fetches(&self, gate: Gate) {
        self.0.fetches.show(gate);
    }

    /// Sets the gate of the memory budget, and what Syncs have read from the cluster, which has a share of the budget for
    /// itself. The metrics show how much of the budget is used.
    pub(crate) fn show_memory(&self, gate: Gate, inputs: Arc<Texts>) {
        self.0.fetches.show_memory(gate, inputs);
    }

    /// Sets whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.0.leader.set(i64::from(leads));
    }

    /// Sets the number of objects that the Syncs have.
    pub fn objects_tracked(&self, count: usize) {
        self.0.objects_tracked.set(saturating(count));
    }

    /// Counts that the watch on a kind ended with an error and begins again.
    pub fn watch_interrupted(&self, kind: &str) {
        self.0.watch_interruptions.get_or_create(&KindLabels { kind: kind.into() }).inc();
    }

    /// Sets whether a Sync is Ready, and the reason of its condition.
    pub fn sync_ready(&self, sync: &ObjectKey, ready: ConditionStatus, reason: &str) {
        self.0.sync_ready.set(sync, ready, reason);
    }

    /// Removes the metrics of a Sync that no longer exists.
    pub fn forget_sync(&self, sync: &ObjectKey) {
        self.0.sync_ready.forget(sync);
    }

    /// Sets whether a Repository is Ready, and the reason of its condition.
    pub fn repository_ready(&self, repository: &ObjectKey, ready: ConditionStatus, reason: &str) {
        self.0.repository_ready.set(repository, ready, reason);
    }

    /// Removes the metrics of a Repository that no longer exists.
    pub fn forget_repository(&self, repository: &ObjectKey) {
        self.0.repository_ready.forget(repository);
    }

    /// Counts that objects of a Sync are not healthy. `reason` is one of only a few texts.
    pub fn health_failed(&self, reason: &'static str) {
        self.0.health_failures.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Sets how many sealing keys are in each state.
    pub fn sealing_keys(&self, counts: KeyCounts) {
        let states = [("active", counts.active), ("compromised", counts.compromised), ("malformed", counts.malformed)];
        for (state, count) in states {
            self.0.sealing_keys.get_or_create(&StateLabels { state }).set(saturating(count));
        }
    }

    /// Counts a sealed value on which the controller tries its private keys.
    pub fn value_tried(&self) {
        self.0.values_tried.inc();
    }

    /// Sets the number of sealed values in the cluster that no key unseals, as far as this is known.
    pub fn undecryptable_values(&self, count: usize) {
        self.0.undecryptable_values.set(saturating(count));
    }

    /// Counts an event that was `written`, `aggregated` into an earlier event, or `dropped`, or that `failed` to be
    /// written.
    pub fn event(&self, outcome: &str) {
        self.0.events.get_or_create(&OutcomeLabels { outcome: outcome.into() }).inc();
    }

    /// Counts an attempt to unseal a SealedSecret.
    pub fn unseal_request(&self) {
        self.0.unseal_requests.inc();
    }

    /// Counts a SealedSecret of `namespace` whose Secret could not be made.
    pub fn unseal_error(&self, reason: UnsealFailure, namespace: &str) {
        let labels = UnsealErrorLabels { reason: reason.as_str(), namespace: namespace.into() };
        self.0.unseal_errors.get_or_create(&labels).inc();
    }

    /// Sets the metric of a SealedSecret's condition. `instance` is the value of the SealedSecret's label
    /// `app.kubernetes.io/instance`; empty without this label.
    pub fn sealed_secret_condition(
        &self,
        namespace: &str,
        name: &str,
        instance: &str,
        condition: &str,
        status: ConditionStatus,
    ) {
        let value = match status {
            ConditionStatus::True => 1,
            ConditionStatus::Unknown => 0,
            ConditionStatus::False => -1,
        };
        let labels = ConditionLabels::new(namespace, name, instance, condition);
        self.0.conditions.get_or_create(&labels).set(value);
    }

    /// Removes the gauge of a condition, for a SealedSecret that no longer exists or whose label
    /// `app.kubernetes.io/instance` changed.
    pub fn forget_sealed_secret(&self, namespace: &str, name: &str, instance: &str, condition: &str) {
        self.0.conditions.remove(&ConditionLabels::new(namespace, name, instance, condition));
    }

    /// Counts a request that an HTTP endpoint of the controller answered; `path` is a known path or `other`.
    pub fn http_request(&self, path: &'static str, method: &'static str, code: u16, duration: Duration) {
        self.0.http_requests.get_or_create(&HttpLabels { path, code, method }).inc();
        self.0.http_durations.get_or_create(&HttpDurationLabels { path, method }).observe(duration.as_secs_f64());
    }
}

/// A pass that takes long, see [`Metrics::overdue_pass`].
pub struct OverduePass(Gauge);

impl Drop for OverduePass {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Inner {
    fn empty() -> Self {
        Self {
            registry: Registry::default(),
            reconciles: Family::default(),
            durations: Family::new_with_constructor(stage_histogram),
            folders_rendered: Family::default(),
            drift_healed: Family::default(),
            api_requests: Family::default(),
            api_unanswered: Counter::default(),
            overdue_passes: Gauge::default(),
            went_back: Counter::default(),
            objects_orphaned: Gauge::default(),
            git_fetches: Family::default(),
            fetches: fetches::Fetches::default(),
            leader: Gauge::default(),
            objects_tracked: Gauge::default(),
            watch_interruptions: Family::default(),
            sync_ready: ready::Ready::default(),
            repository_ready: ready::Ready::default(),
            health_failures: Family::default(),
            sealing_keys: Family::default(),
            events: Family::default(),
            values_tried: Counter::default(),
            undecryptable_values: Gauge::default(),
            unseal_requests: Counter::default(),
            unseal_errors: Family::default(),
            conditions: Family::default(),
            http_requests: Family::default(),
            http_durations: Family::new_with_constructor(http_histogram),
        }
    }

    // Counters are registered without the ending `_total`, because the encoder adds this ending.
    fn register_own(&self, all: &mut Registry) {
        let own = all.sub_registry_with_prefix("gitseal");
        own.register("reconcile", "Reconciles by kind and outcome", self.reconciles.clone());
        own.register("reconcile_duration_seconds", "Duration of a stage of a pass", self.durations.clone());
        own.register(
            "folders_rendered",
            "Times that a pass needed the objects of a folder, by where the objects came from",
            self.folders_rendered.clone(),
        );
        own.register("drift_healed", "Objects put back after a change by others", self.drift_healed.clone());
        own.register("api_requests", "Requests to the API server by HTTP method", self.api_requests.clone());
        own.register("api_unanswered", "Requests that the API server did not answer", self.api_unanswered.clone());
        own.register("passes_overdue", "Passes that take longer than a minute", self.overdue_passes.clone());
        own.register(
            "store_went_back",
            "Times that the API server showed an earlier state than before",
            self.went_back.clone(),
        );
        own.register(
            "objects_orphaned",
            "Objects with the labels of a Sync that does not have them in its inventory",
            self.objects_orphaned.clone(),
        );
        own.register("git_fetch", "Fetches from Git by outcome", self.git_fetches.clone());
        own.register("leader", "Whether this replica leads (1) or stands by (0)", self.leader.clone());
        own.register("objects_tracked", "Objects in the cluster that belong to Syncs", self.objects_tracked.clone());
        own.register(
            "watch_interruptions",
            "Watches that were interrupted and had to begin again",
            self.watch_interruptions.clone(),
        );
        own.register(
            "sync_ready",
            "Whether a Sync is Ready: 1 if it is, 0 if not, -1 while this is unknown",
            self.sync_ready.family(),
        );
        own.register(
            "repository_ready",
            "Whether a Repository is Ready: 1 if it is, 0 if not, -1 while this is unknown",
            self.repository_ready.family(),
        );
        own.register("health_failures", "Times that a Sync became unhealthy", self.health_failures.clone());
        own.register("sealing_keys", "Sealing keys by state", self.sealing_keys.clone());
        own.register("values_tried", "Sealed values that the controller tried to decrypt", self.values_tried.clone());
        own.register(
            "undecryptable_values",
            "Sealed values that no sealing key unseals",
            self.undecryptable_values.clone(),
        );
        own.register("events", "Kubernetes events by outcome", self.events.clone());
    }

    fn register_sealed_secrets(&self, compatible: &mut Registry, revision: &str) {
        let build: Family<BuildLabels, Gauge> = Family::default();
        build.get_or_create(&BuildLabels { revision: revision.into() }).set(1);
        compatible.register("build_info", "Build information", build);
        compatible.register("unseal_requests", "Attempts to unseal a SealedSecret", self.unseal_requests.clone());
        compatible.register("unseal_errors", "Failed attempts to unseal a SealedSecret", self.unseal_errors.clone());
        compatible.register(
            "condition_info",
            "Condition of a SealedSecret: -1 false, 0 unknown, 1 true",
            self.conditions.clone(),
        );
        compatible.register("http_requests", "Answers of the HTTP endpoints", self.http_requests.clone());
        compatible.register(
            "http_request_duration_seconds",
            "Time until a request was answered",
            self.http_durations.clone(),
        );
    }
}

/// A histogram whose buckets reach from one millisecond (a stage without work takes less) to five minutes, which is the
/// timeout.
fn stage_histogram() -> Histogram {
    Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0])
}

fn http_histogram() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

fn saturating(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
