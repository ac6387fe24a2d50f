//! Sync → the cluster looks like the folder: the pipeline, from top to bottom.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crds::{Sync, SyncSpec, conditions, find_condition};
use manifests::ObjectId;
use tokio::time::Instant;

use super::{
    Record, finalize, heal,
    health::{await_health, kinds_to_judge, look},
    report, restored,
    status::{Progress, requested_at, set_progress},
    telling,
};
use crate::{
    backoff,
    cluster::Api,
    config::duration,
    context::Context,
    key::ObjectKey,
    metrics::UnsealFailure,
    passes,
    pipeline::{
        Failure, Held, Manifests, Object, Opened, Stage, StageError, Unsealed,
        apply::{Applied, Applier},
        guard::guard,
        inventory::Inventory,
        plan::{self, Plan, PlanError},
        prune::Pruner,
        render,
        source::{self, SourceError, Sourced},
        unseal,
    },
};

/// The pause after a first failure; it doubles up to the Sync's interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// An API server that did not answer for so long is waited for.
const AWAY: Duration = Duration::from_secs(10);

/// What one pass did, also when it ended early.
#[derive(Default)]
pub(super) struct Pass {
    /// What was written.
    pub(super) applied: Applied,
    /// What was deleted.
    pub(super) pruned: Vec<ObjectId>,
    /// What keeps its last good version.
    pub(super) held: Vec<Held>,
    /// Why a prune waits.
    pub(super) prune_waits: Option<String>,
}

/// Brings one Sync up to date, if there is anything to do.
pub async fn reconcile(ctx: Arc<Context>, key: ObjectKey) {
    let Some(sync) = ctx.syncs.get(&key.to_ref()) else {
        return finalize::forget(&ctx, &key).await;
    };
    if ctx.api.leadership().reach().away_for().is_some_and(|away| away > AWAY) {
        // Somebody asks for it all the time; a folder need not be rendered for that.
        return ctx.queues.syncs.add_after(key, FIRST_RETRY);
    }
    let record = match ctx.records.get_or_load(&key, || Record::load(&sync)) {
        Ok(record) => record,
        Err(entry) => {
            tracing::error!(sync = %key, entry, "the inventory in the status is not understood; nothing is done");
            return;
        }
    };
    let mut record = record.lock().await;
    let sync = if ctx.records.take_doubt(&key) {
        match restored::rebuild(&ctx, &key, &mut record).await {
            Ok(Some(stored)) => stored,
            // The watch says so in a moment.
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(sync = %key, %error, "what is stored could not be read");
                ctx.records.doubt(key.clone());
                return ctx.queues.syncs.add_after(key, FIRST_RETRY);
            }
        }
    } else {
        sync
    };
    if sync.metadata.deletion_timestamp.is_some() {
        return finalize::finalize(&ctx, &sync, &key, &mut record).await;
    }
    if sync.spec.suspend {
        // What drifted meanwhile is found again by the pass after the resume.
        ctx.drift.forget(&key);
        return report::acknowledge(&ctx, &sync, &key, &mut record, None).await;
    }
    if let Err(error) = finalize::ensure_finalizer(&ctx, &sync, &key).await {
        tracing::warn!(sync = %key, %error, "the finalizer could not be set");
        ctx.queues.syncs.add_after(key, FIRST_RETRY);
        return;
    }
    let sourced = {
        let _timer = ctx.begin(Stage::Source, &key);
        source::source(&ctx.sources, ctx.tenancy.allow_cross_namespace, &sync)
    };
    let sourced = match sourced {
        Ok(sourced) => known_as(sourced, &record),
        Err(SourceError::Pending(_)) => return,
        Err(error) => {
            let is_news = is_news(&record, error.reason(), &error.to_string()) || has_request(&sync, &record);
            // When the folder is there again, that is reported, whether or not it changed.
            record.content = None;
            record.failed_content = None;
            if matches!(error, SourceError::Path { .. }) {
                heal::from_last_good(&ctx, &sync, &key, &mut record).await;
            }
            if is_news {
                report::failure(&ctx, &sync, &key, &mut record, None, &error.into(), &Pass::default()).await;
            }
            return;
        }
    };
    // Not before: what drifted while there was no source is put back when there is one.
    let (drifted, next_heal) = ctx.drift.take(&key, Instant::now());
    if let Some(at) = next_heal {
        ctx.queues.syncs.add_after(key.clone(), at.saturating_duration_since(Instant::now()));
    }
    if needs_pass(&sync, &record, &sourced, &drifted) {
        return pass(&ctx, &sync, &key, &mut record, sourced).await;
    }
    // The queue may have woken us for a try that was put off further since then.
    if let Some(due) = next_pass(&sync, &mut record, &sourced) {
        let pause = due.saturating_duration_since(Instant::now());
        ctx.queues.syncs.add_after(key.clone(), pause + Duration::from_millis(1));
    }
    // As long as the content is not applied, healthy objects say nothing about it.
    if record.content.as_ref() == Some(&sourced.content) && !record.pending.is_empty() {
        look(&ctx, &sync, &key, &mut record, &sourced.revision.to_string()).await;
    } else {
        report::acknowledge(&ctx, &sync, &key, &mut record, Some(&sourced)).await;
    }
}

/// When the next pass is due that nothing but time brings: a retry, or the full look of every interval.
fn next_pass(sync: &Sync, record: &mut Record, sourced: &Sourced) -> Option<Instant> {
    if record.content.as_ref() != Some(&sourced.content) {
        return record.retry_at;
    }
    let interval = interval(sync);
    Some(*record.looked_at.get_or_insert_with(Instant::now) + interval)
}

/// How often a Sync looks at everything.
pub(super) fn interval(sync: &Sync) -> Duration {
    let interval = duration(&sync.spec.interval).unwrap_or(Duration::from_secs(600));
    interval.max(SyncSpec::SHORTEST_INTERVAL)
}

/// A content that failed keeps the name of the revision that brought it: commits to other folders do not change what
/// has to be confirmed.
fn known_as(mut sourced: Sourced, record: &Record) -> Sourced {
    if record.failed_content.as_ref() == Some(&sourced.content)
        && let Some(Ok(revision)) = record.next.last_attempted_revision.as_deref().map(str::parse)
    {
        sourced.revision = revision;
    }
    sourced
}

/// Whether there is anything to do but to look at health.
fn needs_pass(sync: &Sync, record: &Record, sourced: &Sourced, drifted: &BTreeSet<ObjectId>) -> bool {
    let is_edited = sync.metadata.generation != record.seen_generation;
    if is_edited || !drifted.is_empty() || has_request(sync, record) && record.content.is_none() {
        return true;
    }
    if record.prune_waits && is_confirmed(sync, &sourced.revision.to_string()) {
        return true;
    }
    if record.content.as_ref() != Some(&sourced.content) {
        let failed_already = record.failed_content.as_ref() == Some(&sourced.content);
        return !failed_already || record.retry_at.is_some_and(|due| due <= Instant::now());
    }
    let interval = interval(sync);
    record.looked_at.is_some_and(|at| at.elapsed() >= interval)
}

fn is_confirmed(sync: &Sync, revision: &str) -> bool {
    let annotations = sync.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(crds::names::CONFIRM_PRUNE)).is_some_and(|confirmed| confirmed == revision)
}

fn has_request(sync: &Sync, record: &Record) -> bool {
    let requested = requested_at(sync);
    requested.is_some() && requested != record.status.last_handled_reconcile_at.as_deref()
}

fn is_news(record: &Record, reason: &str, message: &str) -> bool {
    find_condition(&record.status.conditions, conditions::READY)
        .is_none_or(|ready| ready.reason != reason || ready.message != message)
}

/// One pass through the pipeline, and its report.
async fn pass(ctx: &Context, sync: &Sync, key: &ObjectKey, record: &mut Record, sourced: Sourced) {
    let started = std::time::Instant::now();
    let mut pass = Pass::default();
    record.seen_generation = sync.metadata.generation;
    record.looked_at = Some(Instant::now());
    let was_content = record.content.clone();
    let revision = sourced.revision.to_string();
    let before = record.status.conditions.clone();
    let run = run(ctx, sync, key, record, &sourced, &mut pass);
    let (result, told) = telling::while_it_runs(ctx, sync, key, &revision, before, run).await;
    if let Some(told) = told {
        record.status.conditions = told;
        record.status.observed_generation = sync.metadata.generation;
    }
    report::healed(ctx, sync, &pass);
    super::synced::tell(ctx, &pass.applied, &key.namespace);
    ctx.metrics.objects_tracked(ctx.live.owned());
    let outcome = result.as_ref().err().map_or("ok", |failure| failure.reason);
    ctx.metrics.reconciled("Sync", outcome);
    tracing::debug!(sync = %key, revision = %sourced.revision, outcome, took = ?started.elapsed(), "pass");
    match result {
        Ok(()) => {
            record.failures = 0;
            record.retry_at = None;
            record.failed_content = None;
            record.content = Some(sourced.content.clone());
            if was_content != record.content {
                record.pending_since = Some(Instant::now());
            }
            if !sync.spec.wait {
                record.pending.clear();
            }
            report::remember(record, &sourced, &pass);
            if record.pending.is_empty() {
                report::ready(ctx, sync, key, record, &sourced.revision.to_string()).await;
            } else {
                await_health(ctx, record);
                look(ctx, sync, key, record, &sourced.revision.to_string()).await;
            }
        }
        Err(failure) => {
            if failure.stage < Stage::Widen {
                heal::from_last_good(ctx, sync, key, record).await;
            }
            record.content = None;
            record.failed_content = Some(sourced.content.clone());
            record.failures += 1;
            let longest = interval(sync);
            let pause = match failure.terminal {
                true => longest,
                // It is not Git's fault, and may be over at any moment.
                false if passes::unanswered_so_far() > 0 => backoff::outage(record.failures),
                false => backoff::pause(record.failures, FIRST_RETRY, longest),
            };
            record.retry_at = Some(Instant::now() + pause);
            report::failure(ctx, sync, key, record, Some(&sourced), &failure, &pass).await;
            ctx.queues.syncs.add_after(key.clone(), pause + Duration::from_millis(1));
        }
    }
}

/// A pass that did not get on was cut at `stage`: what is remembered of the Sync is forgotten, as by a restart, and its
/// status says what happened.
pub(crate) async fn cut(ctx: &Context, key: &ObjectKey, stage: &str, after: Duration) {
    ctx.metrics.reconciled("Sync", "PassOverran");
    // Nobody holds it any more. What it had is still claimed, and in the status.
    ctx.records.remove(key);
    let Some(sync) = ctx.syncs.get(&key.to_ref()) else { return };
    let Ok(record) = ctx.records.get_or_load(key, || Record::load(&sync)) else { return };
    let mut record = record.lock().await;
    record.content = None;
    let message = format!(
        "the pass did not get on at the stage {stage} for {} s; it was cut and begins anew, which is a fault of the \
         controller's: its log says more",
        after.as_secs()
    );
    report::state(ctx, &sync, key, &mut record, Progress::Retrying, "PassOverran", &message).await;
}

/// The pipeline.
async fn run(
    ctx: &Context,
    sync: &Sync,
    key: &ObjectKey,
    record: &mut Record,
    sourced: &Sourced,
    pass: &mut Pass,
) -> Result<(), Failure> {
    let revision = sourced.revision.to_string();
    pass.applied.inventory = record.inventory.clone();
    super::dependencies::check(ctx, sync)?;

    let timer = ctx.begin(Stage::Render, key);
    let manifests = render::render(sourced.snapshot.clone(), sync, record.inventory.len_in_git()).await?;
    drop(timer);

    let timer = ctx.begin(Stage::Unseal, key);
    let opened = open(ctx, sync, record, manifests).await;
    count(ctx, &opened, &key.namespace);
    drop(timer);

    let timer = ctx.begin(Stage::Guard, key);
    let opened = guard(sync, opened)?;
    drop(timer);

    let timer = ctx.begin(Stage::Plan, key);
    let mut plan = plan::plan(&ctx.discovery, &ctx.live, sync, key, opened, &record.inventory).await?;
    pass.held.clone_from(&plan.held);
    let whole = record.next.applied_objects.map(|count| usize::try_from(count).unwrap_or(0));
    pass.prune_waits = plan::waits_for_confirmation(sync, &revision, &record.inventory, whole, &plan.prune);
    let pending_kinds = kinds_to_judge(record, &plan);
    drop(timer);

    let timer = ctx.begin(Stage::Widen, key);
    let before = record.inventory.clone();
    widen(ctx, sync, key, record, &plan, &revision).await?;
    drop(timer);

    let timer = ctx.begin(Stage::Apply, key);
    let api = identity(ctx, sync);
    let pruner = Pruner { api: &api, discovery: &ctx.discovery, live: &ctx.live, sync: key };
    if pass.prune_waits.is_none() {
        pass.pruned = pruner.open_gates(&mut plan).await;
        record.inventory.clone_from(&plan.inventory);
    }
    let applier = Applier { api: &api, discovery: &ctx.discovery, live: &ctx.live, writes: &ctx.writes };
    let applied = applier.apply(plan, &mut pass.applied).await;
    give_up(ctx, key, &before, &mut pass.applied);
    record.inventory.clone_from(&pass.applied.inventory);
    applied?;
    drop(timer);

    let timer = ctx.begin(Stage::Prune, key);
    if pass.prune_waits.is_none() {
        let prune = std::mem::take(&mut pass.applied.prune);
        let pruned = pruner.prune(&prune, &mut record.inventory).await;
        if !prune.is_empty() {
            retry_refused(ctx);
        }
        record.pending.retain(|id, _| record.inventory.contains(id));
        pass.pruned.extend(pruned?);
    }
    drop(timer);

    record.prune_waits = pass.prune_waits.is_some();
    record.holds = !pass.held.is_empty();
    record.pending.extend(pending_kinds);
    match (pass.held.iter().find(|held| held.is_cause), &pass.prune_waits) {
        (Some(cause), _) => Err(held_failure(cause, &pass.held)),
        (None, Some(message)) => Err(Failure {
            stage: Stage::Prune,
            reason: "PruneNeedsConfirmation",
            terminal: true,
            message: message.clone(),
        }),
        (None, None) => Ok(()),
    }
}

/// Opens every SealedSecret whose Secret the cluster does not have already, made of the same sealed input.
pub(super) async fn open(ctx: &Context, sync: &Sync, record: &Record, manifests: Manifests) -> Opened {
    let is_current = |secret: &ObjectId, digest: &str| {
        let applied = record.inventory.get(secret).and_then(|known| known.manifest.as_deref());
        applied == Some(digest) && ctx.live.is_untouched(secret)
    };
    unseal::unseal(&ctx.keyring, sync, manifests, ctx.keys.accept_deprecated_v1_data, is_current).await
}

/// What is new in the inventory and was certainly not written is nobody's: what a Sync may not write stays free for
/// whoever may, and is not counted as something to prune.
fn give_up(ctx: &Context, key: &ObjectKey, before: &Inventory, applied: &mut Applied) {
    for id in std::mem::take(&mut applied.not_written) {
        if !before.contains(&id) {
            applied.inventory.remove(&id);
            ctx.live.release(key, &id);
        }
    }
}

/// SealedSecrets that a Sync brings count like those that it does not, but in the Sync's namespace: what Git says may be
/// anything, and every namespace is a time series.
fn count(ctx: &Context, opened: &Opened, namespace: &str) {
    let unsealed = |object: &&Object| matches!(object, Object::Sealed { secret: Unsealed::Opened { .. }, .. });
    for _ in opened.objects.iter().filter(unsealed) {
        ctx.metrics.unseal_request();
    }
    for _ in &opened.held {
        ctx.metrics.unseal_request();
        ctx.metrics.unseal_error(UnsealFailure::Unseal, namespace);
    }
}

/// The API with the rights that the Sync writes with.
pub(super) fn identity(ctx: &Context, sync: &Sync) -> Api {
    let account = sync.spec.service_account_name.as_ref().or(ctx.tenancy.default_service_account.as_ref());
    match account {
        Some(account) => ctx.api.acting_as(sync.metadata.namespace.as_deref().unwrap_or_default(), account),
        None => ctx.api.clone(),
    }
}

fn held_failure(cause: &Held, all: &[Held]) -> Failure {
    let waiting = all.iter().filter(|held| !held.is_cause).count();
    let more = all.len() - waiting - 1;
    let mut message = format!("{}: {}: {}", cause.origin, cause.id, cause.because);
    if more > 0 {
        message.push_str(&format!("; and {more} more"));
    }
    if waiting > 0 {
        message.push_str(&format!("; {waiting} objects that use it keep their last version"));
    }
    message.push_str("; everything else is applied");
    Failure { stage: Stage::Unseal, reason: "UnsealFailed", terminal: true, message }
}

/// Stores what is about to exist before anything of it does: a crash from here on leaves nothing untracked.
async fn widen(
    ctx: &Context,
    sync: &Sync,
    key: &ObjectKey,
    record: &mut Record,
    plan: &Plan,
    revision: &str,
) -> Result<(), WidenError> {
    let is_wider = plan
        .inventory
        .iter()
        .any(|(id, known)| record.inventory.get(id).is_none_or(|old| old.version != known.version));
    if !is_wider {
        return Ok(());
    }
    record.next.inventory = plan.inventory.write();
    record.next.last_attempted_revision = Some(revision.to_owned());
    let message = format!("applying {revision}");
    set_progress(&mut record.next.conditions, Progress::Working, "Progressing", &message, sync.metadata.generation);
    if let Err(error) = record.write(&ctx.api, key).await {
        plan::abandon(&ctx.live, key, &plan.inventory, &record.inventory);
        return Err(WidenError(error));
    }
    record.inventory.clone_from(&plan.inventory);
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("the inventory could not be stored, so nothing was applied: {0}")]
struct WidenError(crate::cluster::ApiError);

impl StageError for WidenError {
    const STAGE: Stage = Stage::Widen;

    fn reason(&self) -> &'static str {
        "InventoryNotStored"
    }

    fn is_terminal(&self) -> bool {
        false
    }
}

/// The sealing keys changed: what was held back for want of a key is tried again.
pub(crate) async fn retry_held(ctx: &Context) {
    for sync in ctx.syncs.state() {
        let key = ObjectKey::of(&*sync);
        let Some(record) = ctx.records.get(&key) else {
            continue;
        };
        let mut record = record.lock().await;
        if record.holds {
            record.retry_at = Some(Instant::now());
            ctx.queues.syncs.add(key);
        }
    }
}

/// Somebody let go of objects: Syncs that were refused one can have it now.
pub(super) fn retry_refused(ctx: &Context) {
    for sync in ctx.syncs.state() {
        let key = ObjectKey::of(&*sync);
        // One that is being worked on right now comes back by itself.
        if let Some(record) = ctx.records.get(&key)
            && let Ok(mut record) = record.try_lock()
            && record.content.is_none()
            && find_condition(&record.status.conditions, conditions::READY)
                .is_some_and(|ready| ready.reason == PlanError::OWNED_BY_ANOTHER)
        {
            record.retry_at = Some(Instant::now());
            ctx.queues.syncs.add(key);
        }
    }
}
