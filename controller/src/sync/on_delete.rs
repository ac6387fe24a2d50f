//! Applies what a folder has for the deletion of its Sync, such as `pre-delete` hooks of Helm, and waits until it is healthy.
//!
//! Each time when the Sync is looked at, the hooks of the current step are planned like other objects, and later waves wait for
//! earlier ones. When all of them are healthy, the next step is stored in the status of the Sync, and only then begins. So a new
//! leader neither ends a hook that still runs, nor runs one again.

use std::sync::Arc;

use crds::DeletionStep;
use manifests::ObjectId;
use pipeline::{Failure, Inventory, Stage, health::Health, plan::OnDelete};

use super::{
    Pass, Record,
    carry_out::Outcome,
    finalize::NotAll,
    poll_health::{Facts, Unhealthy, ended},
    prune::Pruner,
    record::Healthy,
};
use tokio::time::Instant;

use crate::fair::Asker;

/// The reason while hooks are awaited.
pub(super) const RUNNING: &str = "DeleteHooksRunning";
/// The reason if a hook failed, or cannot be found out.
pub(super) const FAILED: &str = "DeleteHookFailed";

impl Pass<'_> {
    /// Whether there may be something to apply, and nobody has said that it is to be skipped. The hooks are those of the last
    /// revision that was applied as a whole.
    pub(super) fn has_hooks_on_delete(&self, record: &Record) -> bool {
        let annotations = self.sync.metadata.annotations.as_ref();
        let skips = annotations.and_then(|all| all.get(crds::names::DELETE_HOOKS));
        let is_possible = record.next.hooks_on_delete == Some(true) && record.next.last_applied_revision.is_some();
        is_possible && skips.is_none_or(|value| value != crds::names::DELETE_HOOKS_SKIP)
    }

    /// Forgets what was awaited before the deletion.
    pub(super) fn begin_deletion(&self, record: &mut Record) {
        for id in record.pending.keys() {
            self.ctx.cluster.live.await_health(id, false);
        }
        record.pending.clear();
        record.pending_since = None;
        record.barrier = None;
        record.healthy = Healthy::None;
    }

    /// Runs the hooks, and prunes all objects, step by step.
    ///
    /// # Errors
    /// A step is not done yet, or it failed.
    pub(super) async fn let_go_with_hooks(&self, pruner: &Pruner<'_>, record: &mut Record) -> Result<(), NotAll> {
        loop {
            let next = match record.next.deletion_step.unwrap_or(DeletionStep::HooksBefore) {
                DeletionStep::HooksBefore => {
                    self.hooks_on_delete(record, OnDelete::Before).await?;
                    DeletionStep::Prune
                }
                DeletionStep::Prune => {
                    self.let_go_of_all(pruner, record).await?;
                    DeletionStep::HooksAfter
                }
                DeletionStep::HooksAfter => {
                    self.hooks_on_delete(record, OnDelete::After).await?;
                    DeletionStep::PruneHooks
                }
                // Also what could not be pruned before, because its kind was not served.
                DeletionStep::PruneHooks => return self.let_go_of_all(pruner, record).await,
            };
            self.begin_step(record, next).await?;
        }
    }

    /// Stores the step that is about to begin.
    async fn begin_step(&self, record: &mut Record, step: DeletionStep) -> Result<(), Failure> {
        let before = record.next.deletion_step;
        let next = Arc::make_mut(&mut record.next);
        next.deletion_step = Some(step);
        next.inventory = record.inventory.write();
        record.write(&self.ctx.api, self.key).await.map_err(|error| {
            Arc::make_mut(&mut record.next).deletion_step = before;
            let message =
                format!("the status could not be stored, so the deletion of the Sync does not go on: {error}");
            Failure { message, ..Failure::new(Stage::Prune, "PruneFailed") }
        })?;
        if matches!(step, DeletionStep::Prune | DeletionStep::PruneHooks) {
            // The hooks may have run for long. The Syncs that take over objects get their time nevertheless.
            record.finalizing_since = Some(Instant::now());
        }
        Ok(())
    }

    /// Applies the hooks of this time.
    ///
    /// # Errors
    /// They are not done yet, or one of them failed.
    async fn hooks_on_delete(&self, record: &mut Record, when: OnDelete) -> Result<(), Failure> {
        self.check_hooks(record).await?;
        // A chart may need the values in ConfigMaps that the Sync names.
        self.read_inputs(record).await;
        let Some(sourced) = self.last_good(record).await else {
            return Err(self.failed("the revision that has them is not stored any more, or its Repository is gone"));
        };
        let prepare = async |inventory: &Inventory| {
            self.prepare_on_delete(&sourced, inventory, when).await.map_err(|failure| self.hinted(failure))
        };
        let api = self.identity();
        let (mut plan, again) = prepare(&record.inventory).await?;
        if record.next.deletion_step.is_none() {
            if !again.is_empty() {
                self.pruner(&api).prune(&again, &mut record.inventory, &mut Vec::new()).await?;
                (plan, _) = prepare(&record.inventory).await?;
            }
            self.begin_step(record, DeletionStep::HooksBefore).await?;
        }
        let mut outcome = Outcome::default();
        let revision = sourced.revision.to_string();
        let applied = self.apply_and_prune(record, plan, (&sourced.snapshot, &revision), &mut outcome, &api).await;
        applied.map_err(|failure| self.hinted(failure))?;
        match record.pending.keys().next() {
            Some(first) => Err(self.waits_for(record, &first.to_string())),
            None if record.barrier.is_some() => Err(more_begin()),
            None => Ok(()),
        }
    }

    /// Checks the health of the hooks that are awaited.
    async fn check_hooks(&self, record: &mut Record) -> Result<(), Failure> {
        let (api, live) = (self.identity(), &self.ctx.cluster.live);
        let mut first = None;
        for (id, pending) in record.pending.clone() {
            let turn = self.turn_for(&id).await;
            let place = self.ctx.health_reads.take(Asker::Namespace(&self.key.namespace)).await;
            let read = api.get(&pending.resource, id.namespace.as_deref(), &id.name).await;
            drop(place);
            let why = record.inventory.why_failed(&id);
            let mut facts = Facts::default();
            let health = match (turn, read) {
                (Err(health), _) => health,
                (Ok(turn), Ok(object)) => {
                    facts = Facts::of(&id, &object);
                    self.assess(&id, object, &turn).await
                }
                (_, Err(error)) if error.is_not_found() && record.inventory.has_failed(&id) => {
                    Health::Failed(why.unwrap_or("it has failed, and was deleted").into())
                }
                (_, Err(error)) if error.is_not_found() => {
                    let Some(how) = live.expired(&id) else {
                        // Somebody deleted it, so the next plan makes it again.
                        record.pending.remove(&id);
                        record.healthy = Healthy::None;
                        continue;
                    };
                    ended(how, why)
                }
                (_, Err(error)) => Health::InProgress(error.to_string()),
            };
            match health {
                Health::Current => {
                    record.became_healthy(&id);
                    live.await_health(&id, false);
                }
                Health::InProgress(why) => {
                    live.await_health(&id, true);
                    first.get_or_insert(Unhealthy { id, why, facts });
                }
                Health::Failed(why) => {
                    record.has_become_failed(&id, &why, live.expired(&id).is_some());
                    let again = if record.inventory.has_failed(&id) { String::new() } else { runs_again(&id) };
                    return Err(self.failed(&format!("{id}: {why}{again}")));
                }
            }
        }
        let Some(first) = first else { return Ok(()) };
        let trouble = self.trouble_elsewhere(record, &api, &first, false).await;
        let trouble = trouble.map(|trouble| format!(" ({trouble})")).unwrap_or_default();
        Err(self.waits_for(record, &format!("{}: {}{trouble}", first.id, first.why)))
    }

    /// The Sync waits for hooks; `first` names one of them and says why.
    fn waits_for(&self, record: &Record, first: &str) -> Failure {
        for id in record.pending.keys() {
            self.ctx.cluster.live.await_health(id, true);
        }
        let message = format!("the Sync is being deleted, and waits for the hook {first}; {}", self.skips());
        Failure { waits: true, message, ..Failure::new(Stage::Prune, RUNNING) }
    }

    fn failed(&self, why: &str) -> Failure {
        let message = format!(
            "the Sync is being deleted, and its hooks for that did not succeed, so nothing more is deleted: {why}; {}",
            self.skips()
        );
        Failure { message, ..Failure::new(Stage::Prune, FAILED) }
    }

    /// The failure, with a hint how to go on.
    fn hinted(&self, failure: Failure) -> Failure {
        Failure { message: format!("{}; {}", failure.message, self.skips()), ..failure }
    }

    fn skips(&self) -> String {
        let (namespace, name) = (&self.key.namespace, &self.key.name);
        format!(
            "to go on without them: kubectl annotate sync -n {namespace} {name} {}={}",
            crds::names::DELETE_HOOKS,
            crds::names::DELETE_HOOKS_SKIP
        )
    }
}

/// What to do to run a hook again that has failed and still exists.
fn runs_again(id: &ObjectId) -> String {
    let kind = id.kind.to_lowercase();
    let kind = if id.group.is_empty() { kind } else { format!("{kind}.{}", id.group) };
    let namespace = id.namespace.as_ref().map(|namespace| format!("-n {namespace} ")).unwrap_or_default();
    format!("; delete it to run it again: kubectl delete {kind} {namespace}{}", id.name)
}

fn more_begin() -> Failure {
    let message = "the Sync is being deleted, and more hooks begin".to_owned();
    Failure { waits: true, message, ..Failure::new(Stage::Prune, RUNNING) }
}
