//! Reconciles Syncs: brings the cluster to the state that the folder of a Sync describes. These are the steps for one
//! Sync, in their order:
//!
//! ```text
//! source      which snapshot of which folder
//! decide      is there anything to do?
//! prepare     render → guard → plan            nothing is written
//! carry_out   allow → widen → apply → prune    a pass and a heal alike
//! poll_health until everything is healthy, or the objects that the next wave waits for: then another pass
//! report      conditions, events, metrics
//! ```

mod account;
mod allow;
mod apply;
mod assess;
mod awaited;
mod carry_out;
pub mod changes;
mod decide;
mod dependencies;
#[cfg(test)]
mod ends;
#[cfg(test)]
pub(crate) mod fake_server;
mod finalize;
mod finished;
mod first_inventory;
mod hand_over;
mod hidden;
mod inputs;
mod last_good;
mod observer;
mod on_delete;
pub(crate) mod orphans;
mod overtaken;
mod poll_health;
mod prepare;
mod prune;
mod record;
mod report;
mod requests;
mod restored;
mod source;
mod telling;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use crds::{ObjectKey, Sync, SyncSpec, conditions, find_condition};
use flags::duration;
use manifests::ObjectId;
use pipeline::{Failure, Held, Stage, plan::Scope, prune::is_confirmed};
use tokio::time::Instant;

pub(crate) use self::{
    apply::{Applied, Drifted},
    dependencies::{depends_on, is_waiting},
    finished::is_left,
    hand_over::Wants,
    inputs::ReadInputs,
    record::{Record, Records},
};
use self::{
    carry_out::Outcome,
    decide::{Decision, Situation, decide},
    overtaken::{Applies, Overtaken},
    record::Healthy,
    report::{Stored, not_understood},
    restored::RebuildError,
    source::{SourceError, Sourced},
};
pub use self::{
    observer::{StageObserver, Unobserved},
    source::content_of,
};
use crate::{
    backoff,
    context::InStore as _,
    context::{Context, StageTimer},
    events::EventType,
    passes,
    render::Rendered,
    status::{Progress, reference, requested_at},
};

/// The pause after the first failure. The pause doubles with each further failure, up to the Sync's interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest pause if the cause of a failure may be gone at any moment. The pause and the next pass together take
/// less than 15 s.
const MAY_PASS: Duration = Duration::from_secs(10);
/// How long a Sync counts as new. While it is new, a missing Repository is not reported, because it may be created
/// together with the Sync.
const IS_NEW: Duration = Duration::from_secs(3);
/// [`IS_NEW`] as a signed duration, for comparisons of timestamps.
const IS_NEW_FOR: jiff::SignedDuration = jiff::SignedDuration::from_secs(3);
/// If the API server has not answered for this long, passes wait until it answers.
const AWAY: Duration = Duration::from_secs(10);

/// One reconcile of one Sync.
struct Pass<'a> {
    ctx: &'a Arc<Context>,
    sync: &'a Sync,
    key: &'a ObjectKey,
    /// The objects of the plan, with the memory that they take from the budget. The memory is given back at the end of
    /// the pass.
    memory: Mutex<Option<Arc<Rendered>>>,
    /// What the pass applies, as soon as it has begun to do so.
    applies: OnceLock<Applies>,
}

/// Brings one Sync up to date, if there is anything to do.
pub async fn reconcile(ctx: Arc<Context>, key: ObjectKey) {
    let Some(sync) = ctx.syncs.get(&key.to_ref()) else {
        return finalize::forget(&ctx, &key).await;
    };
    if ctx.api.leadership().reach().away_for().is_some_and(|away| away > AWAY) {
        // `start/outage.rs` asks the API server until it answers. As long as it does not answer, nothing is rendered.
        return ctx.queues.syncs.add_after(key, FIRST_RETRY);
    }
    let record = match ctx.records.get_or_load(&key, || Record::load(&ctx.keyring, &sync)) {
        Ok(record) => record,
        Err(entry) => return not_understood(&ctx, &sync, &key, &entry).await,
    };
    let mut record = record.lock().await;
    if record.uid != sync.metadata.uid {
        // The record is that of a deleted Sync with the same name: the watch showed the deletion and the new Sync at
        // the same time.
        drop(record);
        finalize::forget(&ctx, &key).await;
        return ctx.queues.syncs.add(key);
    }
    let sync = if ctx.records.take_doubt(&key) {
        match restored::rebuild(&ctx, &key, &mut record).await {
            Ok(Some(stored)) => stored,
            // The Sync no longer exists, as the watch will show in a moment.
            Ok(None) => return,
            Err(RebuildError::NotUnderstood(entry)) => {
                ctx.records.doubt(key.clone());
                return not_understood(&ctx, &sync, &key, &entry).await;
            }
            Err(RebuildError::Api(error)) => {
                tracing::warn!(sync = %key, %error, "the stored Sync could not be read");
                ctx.records.doubt(key.clone());
                return ctx.queues.syncs.add_after(key, FIRST_RETRY);
            }
        }
    } else {
        sync
    };
    Pass::new(&ctx, &sync, &key).reconcile(&mut record).await;
}

impl<'a> Pass<'a> {
    fn new(ctx: &'a Arc<Context>, sync: &'a Sync, key: &'a ObjectKey) -> Self {
        Self { ctx, sync, key, memory: Mutex::default(), applies: OnceLock::new() }
    }
}

impl Pass<'_> {
    /// A pass for another Sync, only to find out facts about that Sync, such as its rights.
    fn like<'p>(&'p self, sync: &'p Sync, key: &'p ObjectKey) -> Pass<'p> {
        Pass::new(self.ctx, sync, key)
    }

    /// Holds the memory of `rendered` until the pass ends, instead of the memory that was held before.
    fn holds(&self, rendered: Option<Arc<Rendered>>) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = rendered;
    }

    fn holds_memory(&self) -> bool {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    async fn reconcile(&self, record: &mut Record) {
        let Self { ctx, sync, key, .. } = *self;
        if sync.metadata.deletion_timestamp.is_some() {
            return self.finalize(record).await;
        }
        if sync.spec.suspend {
            // When the Sync is resumed, a pass finds everything that drifted in the meantime.
            ctx.drift.forget(key);
            ctx.cluster.live.stop_looking_out(key);
            if ctx.inputs.forget(key) {
                ctx.cluster.live.stop_looking_out_for_inputs(key, |_| false);
            }
            return self.acknowledge(record, None).await;
        }
        self.read_inputs(record).await;
        let sourced = {
            let _timer = self.begin(Stage::Source);
            source::source(ctx, sync)
        };
        let sourced = match sourced {
            Ok(sourced) => known_as(sourced, record),
            Err(error) => match error.itself() {
                SourceError::Pending(_) | SourceError::Unread => return,
                // The watches may show a new Sync before the Repository that was created together with it. So a missing
                // Repository is not reported at once.
                SourceError::NoRepository { .. } if self.is_new() => {
                    return self.come_back(Some(Instant::now() + IS_NEW));
                }
                _ => return self.without_source(record, error).await,
            },
        };
        self.admit_request(record);
        // Drift is noted in `ctx.drift`, and is taken from there only if there is a source. Objects that drift while
        // there is no source stay noted and are put back later.
        let (drifted, next_heal) = if self.ends_pauses(record) {
            (ctx.drift.take_all(key), None)
        } else {
            ctx.drift.take(key, Instant::now())
        };
        self.come_back(next_heal);
        let situation = self.situation(record, &sourced, &drifted);
        match decide(&situation) {
            // The futures are boxed, because most reconciles have no pass and need no space for one.
            Decision::Pass => Box::pin(self.pass(record, sourced, Scope::Folder)).await,
            Decision::Heal => Box::pin(self.pass(record, sourced, Scope::Drifted(&drifted))).await,
            Decision::PollHealth { next } => {
                self.come_back(next);
                let waits = self.request_waits(record);
                self.come_back(waits);
                // A status that is written now would say that the request was handled.
                if waits.is_none() || !self.asks_to_run(record) {
                    self.poll_health(record, &sourced.revision.to_string()).await;
                }
            }
            Decision::Rest { next } => {
                self.come_back(next);
                match self.request_waits(record) {
                    Some(due) => self.come_back(Some(due)),
                    None => self.acknowledge(record, Some(&sourced)).await,
                }
                self.tell_what_waits(record).await;
                self.drop_first_inventory(record).await;
            }
        }
    }

    /// Whether the Sync was created a moment ago.
    fn is_new(&self) -> bool {
        let created = self.sync.metadata.creation_timestamp.as_ref();
        created.is_some_and(|created| jiff::Timestamp::now().duration_since(created.0).abs() < IS_NEW_FOR)
    }

    /// Puts the Sync into the queue for the time `next`. This is needed even if `next` did not change: as soon as the
    /// time of a Sync has come, the queue forgets the Sync, whether or not the Sync is then worked on.
    fn come_back(&self, next: Option<Instant>) {
        if let Some(due) = next {
            let pause = due.saturating_duration_since(Instant::now());
            self.ctx.queues.syncs.add_after(self.key.clone(), pause + Duration::from_millis(1));
        }
    }

    /// Reports that there is no snapshot to render. The objects that were last applied stay as they are.
    async fn without_source(&self, record: &mut Record, error: SourceError) {
        let has_last_good = matches!(error, SourceError::Path { .. } | SourceError::Values(_));
        let failure = self.for_want_of_account(Failure::from(error)).await;
        let is_news = is_news(record, &failure) || self.has_request(record);
        // The content is forgotten, so that a pass runs and reports success when the folder can be read again, even if
        // the folder did not change.
        record.content = None;
        record.failed_content = None;
        if has_last_good {
            self.heal_from_last_good(record).await;
        }
        if is_news {
            self.failure(record, None, &failure, &Outcome::default()).await;
        }
    }

    fn situation<'s>(
        &self,
        record: &'s mut Record,
        sourced: &'s Sourced,
        drifted: &BTreeSet<ObjectId>,
    ) -> Situation<'s> {
        let compared_at = *record.compared_at.get_or_insert_with(Instant::now);
        Situation {
            now: Instant::now(),
            is_edited: self.sync.metadata.generation != record.seen_generation,
            has_drift: !drifted.is_empty(),
            is_asked: self.ends_pauses(record),
            is_woken: self.ctx.retries.take(self.key) || self.ends_pauses(record) && self.asks_to_run(record),
            is_confirmed: record.next.prune_confirmation.as_ref().is_some_and(|prune| is_confirmed(self.sync, prune)),
            wanted: &sourced.content,
            applied: record.content.as_deref(),
            failed: record.failed_content.as_deref(),
            retry_at: record.retry_at,
            compare_at: compared_at + self.interval(),
            awaits_health: !record.pending.is_empty(),
            next_wave_waits: record.next_wave_waits(),
        }
    }

    fn interval(&self) -> Duration {
        interval(&self.sync.spec)
    }

    /// Whether there is a request that was not handled yet. A request counts as handled even if the status that shows
    /// this could not be stored. Otherwise, a Sync whose status is too large to be stored would have an open request
    /// for ever, and this request would end every pause.
    fn has_request(&self, record: &Record) -> bool {
        let requested = requested_at(self.sync);
        requested.is_some() && requested != record.next.last_handled_reconcile_at.as_deref()
    }

    /// If there is a request that was not handled yet, it ends the pauses, unless another request did so a moment ago.
    fn admit_request(&self, record: &mut Record) {
        if let Some(request) = requested_at(self.sync).filter(|_| self.has_request(record)) {
            record.requests.admit(request, Instant::now());
        }
    }

    /// Whether there is a request that ends the pauses.
    fn ends_pauses(&self, record: &Record) -> bool {
        self.has_request(record) && requested_at(self.sync).is_some_and(|request| record.requests.is_admitted(request))
    }

    /// Whether a request makes objects again that do their work once: those that failed and were deleted, or tests.
    fn asks_to_run(&self, record: &Record) -> bool {
        let tests = self.sync.metadata.annotations.as_ref().and_then(|all| all.get(crds::names::RUN_TESTS));
        record.has_failed() || tests.is_some() && tests.map(String::as_str) == requested_at(self.sync)
    }

    /// When a request will be handled that came too soon after another one. `None` if there is no such request, or no
    /// pause that it would end.
    fn request_waits(&self, record: &Record) -> Option<Instant> {
        let is_too_soon = self.has_request(record) && !self.ends_pauses(record);
        let has_pause = || {
            record.content.is_none()
                || self.asks_to_run(record)
                || !self.ctx.drift.put_off(self.key, [], Instant::now()).is_empty()
        };
        record.requests.due().filter(|_| is_too_soon && has_pause())
    }

    /// The objects that are put back later, because somebody keeps changing them. `drifted` are objects that are
    /// already known to have drifted. If somebody requested this pass, nothing is put back later.
    fn put_off<'i>(&self, record: &Record, drifted: impl IntoIterator<Item = &'i ObjectId>) -> BTreeSet<ObjectId> {
        if self.ends_pauses(record) {
            return BTreeSet::new();
        }
        self.ctx.drift.put_off(self.key, drifted, Instant::now())
    }

    /// Runs one pass through the pipeline, over the whole folder or over the objects that drifted, and reports it.
    async fn pass(&self, record: &mut Record, mut sourced: Sourced, scope: Scope<'_>) {
        let (ctx, started) = (self.ctx, std::time::Instant::now());
        let mut outcome = Outcome::default();
        outcome.applied.inventory = record.inventory.clone();
        ctx.cluster.live.leaves(self.key, &self.sync.spec.ignore_differences);
        let is_edited = record.seen_generation != self.sync.metadata.generation;
        let is_new = is_edited || record.content.as_ref() != Some(&sourced.content);
        if is_edited && self.checks_anew(record) {
            record.healthy = Healthy::None;
        }
        if scope == Scope::Folder {
            record.seen_generation = self.sync.metadata.generation;
            record.compared_at = Some(Instant::now());
            record.barrier = None;
        }
        let is_asked = self.ends_pauses(record);
        if is_asked {
            ctx.cluster.reviews.forget_refusals(&self.identity());
            if self.asks_to_run(record) {
                record.run_failed_again();
                record.pending_since = None;
            }
        }
        let revision = sourced.revision.to_string();
        let given_up = record.given_up;
        // A pass that ends makes the next one less patient, but not at once as impatient as the first one.
        record.given_up /= 2;
        self.applies.get_or_init(|| Applies::new(&sourced, given_up));
        let before = record.status.conditions.clone();
        let run = self.run(record, &mut sourced, (scope, is_new), &mut outcome);
        let (result, told) = telling::while_it_runs(ctx, self.sync, self.key, &revision, before, run).await;
        let result = match result {
            Err(failure) => Err(self.for_want_of_account(failure).await),
            done => done,
        };
        if let Some((told, stored)) = told {
            let status = Arc::make_mut(&mut record.status);
            status.conditions = told;
            status.observed_generation = self.sync.metadata.generation;
            if stored == Stored::No {
                record.unsure.extend(["conditions", "observedGeneration"].map(str::to_owned));
            }
        }
        let is_overtaken = result.as_ref().is_err_and(Overtaken::is);
        if scope == Scope::Folder && !is_overtaken {
            Arc::make_mut(&mut record.next).prune_confirmation =
                outcome.prune_waits.as_ref().map(|prune| prune.confirmation.clone());
            record.holds = outcome.held.iter().any(Held::is_undecryptable);
            record.left_for = outcome.left_for.take();
            if outcome.hidden != record.hidden
                && let Some(hidden) = &outcome.hidden
            {
                tracing::warn!(sync = %self.key, "{hidden}");
                ctx.events.publish(&reference(self.sync), EventType::Warning, "NotPruned", hidden.clone());
            }
            record.hidden = outcome.hidden.take();
        }
        self.healed(&outcome);
        crate::sealed_secret::synced::tell(ctx, &outcome.applied, &self.key.namespace);
        ctx.metrics.objects_tracked(ctx.cluster.live.owned());
        let reason = result.as_ref().err().map_or("ok", |failure| failure.reason);
        ctx.metrics.reconciled("Sync", reason);
        tracing::debug!(sync = %self.key, revision = %sourced.revision, outcome = reason, took = ?started.elapsed(), "pass");
        match result {
            Ok(()) => self.went_well(record, &sourced, scope, &outcome).await,
            Err(failure) if is_overtaken => self.give_way(record, &failure, given_up, &revision).await,
            Err(failure) => {
                let is_in_part = failure.stage <= Stage::Widen || record.barrier.is_some();
                if scope == Scope::Folder && is_in_part {
                    self.heal_from_last_good(record).await;
                }
                record.content = None;
                record.failed_content = Some(sourced.content.clone());
                // If somebody requested this try, its failure does not make the next automatic try later.
                record.failures = if is_asked { record.failures.max(1) } else { record.failures + 1 };
                let longest = self.interval();
                let pause = match failure.terminal {
                    true => longest,
                    // A request got no answer. So the cause of the failure is the API server and not Git, and the API
                    // server may answer again at any moment.
                    false if passes::unanswered_so_far() > 0 => backoff::outage(record.failures),
                    false if failure.may_pass => backoff::pause(record.failures, FIRST_RETRY, longest.min(MAY_PASS)),
                    false => backoff::pause(record.failures, FIRST_RETRY, longest),
                };
                record.retry_at = Some(Instant::now() + pause);
                if failure.waits {
                    Arc::make_mut(&mut record.next).last_attempted_revision = Some(sourced.revision.to_string());
                    self.state(record, Progress::Working, failure.reason, &failure.message).await;
                } else {
                    self.failure(record, Some(&sourced), &failure, &outcome).await;
                }
                if record.next_wave_waits() {
                    self.await_health(record);
                    self.poll_health(record, &revision).await;
                }
                ctx.queues.syncs.add_after(self.key.clone(), pause + Duration::from_millis(1));
            }
        }
        // What the folder depends on may have become known only during the pass. A commit may have changed some of it
        // before that moment.
        if content_of(ctx, self.sync).is_some_and(|now| now != sourced.content) {
            ctx.queues.syncs.add(self.key.clone());
        }
    }

    /// Records and reports a pass that applied everything that it could: the whole folder, or everything before the
    /// waves that wait for health.
    async fn went_well(&self, record: &mut Record, sourced: &Sourced, scope: Scope<'_>, outcome: &Outcome) {
        let revision = sourced.revision.to_string();
        record.failures = 0;
        record.retry_at = None;
        record.failed_content = None;
        if record.content.as_ref() != Some(&sourced.content) {
            record.content = Some(sourced.content.clone());
            record.pending_since = Some(Instant::now());
            record.done = report::Counts::default();
        }
        if scope == Scope::Folder && record.left_for.is_none() {
            record.handing_over_since = None;
        }
        if record.barrier.is_some() {
            if scope == Scope::Folder {
                report::remember_part(record, sourced, outcome);
            }
            // Of the objects that drifted, the pass put back only those that this revision does not change. The others
            // are put back from the last good revision.
            self.heal_from_last_good(record).await;
        } else {
            self.ctx.wants.forget(self.key);
            // As long as objects are to be deleted when they are healthy, also those count that later waves wait for.
            if !self.sync.spec.waits_for_health() && !finished::is_any_due(&record.inventory) {
                record.pending.retain(|_, pending| pending.is_always_awaited);
                record.healthy = Healthy::AlwaysAwaited;
            }
            report::remember(record, sourced, outcome);
            if record.pending.is_empty() {
                record.pending_since = None;
                return self.ready(record, &revision).await;
            }
        }
        self.await_health(record);
        self.poll_health(record, &revision).await;
    }

    /// Runs the stages of the pipeline, from the check of `spec.dependsOn` to the prune.
    async fn run(
        &self,
        record: &mut Record,
        sourced: &mut Sourced,
        (scope, is_new): (Scope<'_>, bool),
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let prepared = Box::pin(async {
            if scope == Scope::Folder {
                self.check_expressions(record).await?;
                self.check_dependencies(record, is_new).await?;
            }
            self.read_what_was_put_off().await;
            self.prepare(sourced, &record.inventory, scope).await
        });
        let mut plan = self.unless_overtaken(prepared).await??;
        // If an object is put back only after a pause, a commit that changes other objects does not end that pause.
        let later = self.put_off(record, plan.heals());
        plan = plan.put_off(&later);
        if scope != Scope::Folder {
            plan = plan.heal_only(&record.inventory);
        }
        let revision = sourced.revision.to_string();
        Box::pin(self.carry_out(record, plan, (&sourced.snapshot, &revision), outcome)).await
    }

    /// Notes that `stage` is about to begin. The returned timer measures how long the stage takes.
    fn begin(&self, stage: Stage) -> StageTimer<'_> {
        self.ctx.begin(stage, self.key)
    }
}

/// Handles a pass that made no progress and was stopped at `stage`. The record of the Sync is dropped, as at a restart,
/// and the status of the Sync says what happened.
pub(crate) async fn cut(ctx: &Arc<Context>, key: &ObjectKey, stage: &str, after: Duration) {
    ctx.metrics.reconciled("Sync", "PassOverran");
    // The stopped pass no longer holds the lock of the record. The Sync still claims its objects, and its stored status
    // lists them, but the watch may not have shown this status yet.
    ctx.records.remove(key);
    ctx.records.doubt(key.clone());
    let Some(sync) = ctx.syncs.get(&key.to_ref()) else { return };
    let Ok(record) = ctx.records.get_or_load(key, || Record::load(&ctx.keyring, &sync)) else { return };
    let mut record = record.lock().await;
    record.content = None;
    let message = format!(
        "the pass made no progress at the stage {stage} for {} s; it was stopped and begins again. This is a fault of the \
         controller; its log says more",
        after.as_secs()
    );
    Pass::new(ctx, &sync, key).state(&mut record, Progress::Retrying, "PassOverran", &message).await;
}

/// If the content of a folder failed, or was applied only in part, it keeps the revision in which it first appeared,
/// even when there are later revisions. So commits to other folders do not change which revision has to be confirmed.
fn known_as(mut sourced: Sourced, record: &Record) -> Sourced {
    let is_in_part = record.content.as_ref() == Some(&sourced.content) && record.barrier.is_some();
    if (is_in_part || record.failed_content.as_ref() == Some(&sourced.content))
        && let Some(Ok(revision)) = record.next.last_attempted_revision.as_deref().map(str::parse)
    {
        sourced.revision = revision;
    }
    sourced
}

fn is_news(record: &Record, failure: &Failure) -> bool {
    find_condition(&record.status.conditions, conditions::READY)
        .is_none_or(|ready| ready.reason != failure.reason || ready.message != failure.message)
}

/// Makes Syncs try again after the sealing keys changed, if they held something back because a key was missing.
pub(crate) fn retry_held(ctx: &Context) {
    for sync in ctx.syncs.state() {
        let key = ObjectKey::of(&*sync);
        let Some(record) = ctx.records.get(&key) else {
            continue;
        };
        // A pass that is running may have begun before the new key was read, and it is not known yet whether it will
        // hold something back. So the Sync of such a pass tries again, too.
        if record.try_lock().map_or(true, |record| record.holds) {
            ctx.retries.wake(&key);
            ctx.queues.syncs.add(key);
        }
    }
}

/// How often the whole folder of a Sync is compared with the cluster when nothing changes.
fn interval(spec: &SyncSpec) -> Duration {
    duration(&spec.interval).unwrap_or(Duration::from_secs(600)).max(SyncSpec::SHORTEST_INTERVAL)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_interval_is_as_written_but_never_shorter_than_ten_seconds() {
        for (written, seconds) in [("1ms", 10), ("9s", 10), ("11s", 11), ("1h", 3600), ("1h30m", 5400)] {
            let spec = json!({"repository": {"name": "repo"}, "path": "./app", "interval": written});
            let spec: SyncSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(interval(&spec), Duration::from_secs(seconds), "{written}");
        }
    }
}
