//! Reports what happened in conditions, the history, events and metrics. A report that fails never makes a reconcile
//! fail.

use std::{fmt, sync::Arc, time::Duration};

use crds::{ConditionStatus, HistoryEntry, ObjectKey, Sync, SyncStatus, conditions, find_condition};
use pipeline::{Failure, Stage, plan::LiveView as _};
use serde_json::json;
use tokio::time::Instant;

use super::{Pass, Record, apply::Healed, carry_out::Outcome, changes, source::Sourced};
use crate::{
    backoff,
    context::Context,
    events::EventType,
    status::{self, Progress, reference, requested_at, resource_of, set_progress},
};

/// How many revisions the history of a Sync has.
const HISTORY: usize = 10;
/// The first pause before a status that could not be written is written again.
const AGAIN: Duration = Duration::from_secs(2);
/// The longest pause before a status is written again, if the API server refuses it repeatedly.
const LONGEST_AGAIN: Duration = Duration::from_secs(60);
/// The reason in the condition of a Sync that is Ready, and the outcome of an applied revision in the history.
const APPLIED: &str = "Applied";
/// The reason in the condition of a Sync that waits until objects are healthy. Also the outcome, in the history, of a
/// revision whose later waves wait for this.
pub(super) const WAITING_FOR_HEALTH: &str = "WaitingForHealth";
/// The reason in the condition of a Sync whose inventory in the status cannot be read.
const NOT_UNDERSTOOD: &str = "InventoryNotUnderstood";

/// Whether the API server has stored the status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stored {
    /// The API server has stored it.
    Yes,
    /// The API server refused the write or did not answer. The write is tried again.
    No,
}

impl Pass<'_> {
    /// Reports that everything is applied and healthy.
    pub(super) async fn ready(&self, record: &mut Record, revision: &str) {
        let Self { ctx, sync, key, .. } = *self;
        record.put_off = self.what_waits();
        let changes = self.what_changes(record);
        self.note_what_changes(record, changes);
        let message = applied(record, revision);
        let was_ready = is_ready(record);
        let old_revision = record.status.last_applied_revision.clone();
        amend_outcome(&mut record.next, APPLIED);
        if self.state(record, Progress::Ready, APPLIED, &message).await == Stored::No {
            return;
        }
        if !was_ready || old_revision != record.next.last_applied_revision {
            tracing::info!(sync = %key, revision, objects = record.inventory.len_in_git(), "ready");
            ctx.events.publish(&reference(sync), EventType::Normal, APPLIED, message);
        }
        ctx.queues.syncs.add_after(key.clone(), self.interval());
    }

    /// Reports that a stage failed.
    pub(super) async fn failure(
        &self,
        record: &mut Record,
        sourced: Option<&Sourced>,
        failure: &Failure,
        outcome: &Outcome,
    ) {
        let Self { ctx, sync, key, .. } = *self;
        let message = match failure.stage {
            Stage::Source | Stage::Health => failure.message.clone(),
            stage => format!("{stage}: {}", failure.message),
        };
        let (stage, reason) = (failure.stage, failure.reason);
        if status::says(&record.status.conditions, reason, &message) {
            tracing::debug!(sync = %key, %stage, reason, "again: {}", failure.message);
        } else if failure.expected {
            tracing::info!(sync = %key, %stage, reason, "{}", failure.message);
        } else {
            tracing::warn!(sync = %key, %stage, reason, "{}", failure.message);
        }
        if let Some(sourced) = sourced {
            let revision = sourced.revision.to_string();
            let next = Arc::make_mut(&mut record.next);
            next.last_attempted_revision = Some(revision.clone());
            remember_outcome(&mut next.history, &revision, failure.reason, &Counts::of(outcome).to_string());
        } else if stage == Stage::Health {
            amend_outcome(&mut record.next, reason);
        }
        let type_ = if failure.expected { EventType::Normal } else { EventType::Warning };
        ctx.events.publish(&reference(sync), type_, failure.reason, failure.message.clone());
        self.state(record, progress_of(failure), failure.reason, &message).await;
    }

    /// If somebody requested a reconcile, and nothing has to be done, notes in the status that the request was handled.
    pub(super) async fn acknowledge(&self, record: &mut Record, sourced: Option<&Sourced>) {
        let Self { sync, .. } = *self;
        let requested = requested_at(sync);
        if requested.is_none() || requested == record.status.last_handled_reconcile_at.as_deref() {
            return;
        }
        let sourced = sourced.filter(|sourced| record.has_applied(&sourced.content));
        let next = Arc::make_mut(&mut record.next);
        next.last_handled_reconcile_at = requested.map(str::to_owned);
        if let Some(sourced) = sourced {
            // The folder is the same in the newest revision as in the applied one, so after a request, the status names
            // the newest revision as applied.
            let revision = sourced.revision.to_string();
            next.last_attempted_revision = Some(revision.clone());
            next.last_applied_revision = Some(revision.clone());
            if is_ready(record) {
                let (message, generation) = (applied(record, &revision), sync.metadata.generation);
                let conditions = &mut Arc::make_mut(&mut record.next).conditions;
                set_progress(conditions, Progress::Ready, APPLIED, &message, generation);
            }
        }
        self.write(record).await;
    }

    /// Says in the condition of a Ready Sync which objects differ from Git until a pause is over, and which input changes
    /// after every render. Removes these sentences when they no longer hold.
    pub(super) async fn tell_what_waits(&self, record: &mut Record) {
        let (waits, changes) = (self.what_waits(), self.what_changes(record));
        if (&waits, &changes) == (&record.put_off, &record.unsettled) || !is_ready(record) {
            return;
        }
        record.put_off = waits;
        self.note_what_changes(record, changes);
        let Some(revision) = record.next.last_applied_revision.clone() else { return };
        let message = applied(record, &revision);
        self.state(record, Progress::Ready, APPLIED, &message).await;
    }

    /// Notes the sentence about an input that changes after every render, and publishes it as an event if it is new.
    fn note_what_changes(&self, record: &mut Record, changes: Option<String>) {
        if let Some(changes) = changes.as_ref().filter(|changes| record.unsettled.as_ref() != Some(changes)) {
            tracing::warn!(sync = %self.key, "{changes}");
            self.ctx.events.publish(&reference(self.sync), EventType::Warning, "Unsettled", changes.clone());
        }
        record.unsettled = changes;
    }

    /// The sentence about objects that drifted and are put back after a pause.
    fn what_waits(&self) -> Option<String> {
        let later = self.ctx.drift.put_off(self.key, [], Instant::now());
        let first = later.first()?;
        Some(match later.len() - 1 {
            0 => format!("{first} differs from Git, because somebody keeps changing it; it is put back after a pause"),
            more => format!(
                "{first} and {more} more differ from Git, because somebody keeps changing them; they are put back after a pause"
            ),
        })
    }

    /// Writes the conditions, and everything else that changed in the status.
    pub(super) async fn state(&self, record: &mut Record, progress: Progress, reason: &str, message: &str) -> Stored {
        let Self { ctx, sync, key, .. } = *self;
        let _timer = self.begin(Stage::Report);
        let generation = sync.metadata.generation;
        let next = Arc::make_mut(&mut record.next);
        next.observed_generation = generation;
        next.inventory = record.inventory.write();
        if let Some(requested) = requested_at(sync) {
            next.last_handled_reconcile_at = Some(requested.to_owned());
        }
        set_progress(&mut next.conditions, progress, reason, message, generation);
        if progress == Progress::Ready {
            next.installed = Some(true);
        }
        let stored = self.write(record).await;
        let status = match progress {
            // If the status could not be stored, the Sync does not count as Ready.
            Progress::Ready if stored == Stored::No => ConditionStatus::Unknown,
            Progress::Ready => ConditionStatus::True,
            Progress::Working => ConditionStatus::Unknown,
            Progress::Retrying | Progress::Stalled => ConditionStatus::False,
        };
        ctx.metrics.sync_ready(key, status, reason);
        stored
    }

    async fn write(&self, record: &mut Record) -> Stored {
        let Self { ctx, key, .. } = *self;
        let Err(error) = record.write(&ctx.api, key).await else {
            record.unstored = 0;
            return Stored::Yes;
        };
        tracing::warn!(sync = %key, %error, "the status could not be written");
        // Forget which content was applied. So the next pass applies the revision again, which does no harm, and then
        // reports it.
        record.content = None;
        record.unstored += 1;
        let longest = if error.code().is_none() { AGAIN } else { LONGEST_AGAIN };
        ctx.queues.syncs.add_after(key.clone(), backoff::pause(record.unstored, AGAIN, longest));
        Stored::No
    }

    /// Reports the objects that drifted and were put back in this pass.
    pub(super) fn healed(&self, outcome: &Outcome) {
        let Self { ctx, sync, key, .. } = *self;
        for Healed { id, drifted, is_put_back } in &outcome.applied.healed {
            let times = ctx.drift.healed(Some(key), id, Instant::now());
            if *is_put_back {
                ctx.metrics.drift_healed(&id.kind);
                let again =
                    if times > 1 { format!(" ({times} times now; who keeps changing it?)") } else { String::new() };
                let drifted = drifted.outside_of("Git");
                let note = format!("{id} {drifted} and is put back{again}");
                tracing::info!(object = %id, times, drifted, "drift healed");
                ctx.events.publish(&reference(sync), EventType::Warning, "Drifted", note);
            }
            if ctx.cluster.live.is_touched(id) {
                // Somebody changed the object again during the pass.
                changes::drifted(ctx, key.clone(), id.clone());
            }
        }
    }
}

/// Reports that the inventory in the status has the entry `entry`, which cannot be read. If the controller ignored this
/// entry, it would forget an object. So nothing is applied, only the conditions are written, and the rest of the status
/// stays as it is.
pub(super) async fn not_understood(ctx: &Context, sync: &Sync, key: &ObjectKey, entry: &str) {
    let message = format!(
        "status.inventory has the entry {entry:?}, which cannot be read, so nothing is applied or pruned; correct it \
         to the form namespace_name_group_kind, or remove it (then its object is no longer tracked): kubectl edit \
         sync -n {} {} --subresource=status",
        key.namespace, key.name
    );
    ctx.metrics.sync_ready(key, ConditionStatus::False, NOT_UNDERSTOOD);
    let status = sync.status.as_ref();
    let before = status.map(|status| status.conditions.clone()).unwrap_or_default();
    let generation = sync.metadata.generation;
    let mut conditions = before.clone();
    set_progress(&mut conditions, Progress::Stalled, NOT_UNDERSTOOD, &message, generation);
    if conditions == before && status.and_then(|status| status.observed_generation) == generation {
        return;
    }
    tracing::error!(sync = %key, "{message}");
    ctx.events.publish(&reference(sync), EventType::Warning, NOT_UNDERSTOOD, message);
    let patch = json!({"status": {"conditions": conditions, "observedGeneration": generation}});
    let resource = resource_of::<Sync>();
    if let Err(error) = ctx.api.merge(&resource, Some(&key.namespace), &key.name, Some("status"), &patch).await {
        tracing::warn!(sync = %key, %error, "the status could not be written");
        ctx.queues.syncs.add_after(key.clone(), AGAIN);
    }
}

/// How a failure is reported. A failure after which the controller tries again by itself is never Stalled.
pub(super) fn progress_of(failure: &Failure) -> Progress {
    if failure.terminal { Progress::Stalled } else { Progress::Retrying }
}

/// After a pass that left out waiting waves: puts its result into the status that is written next.
pub(super) fn remember_part(record: &mut Record, sourced: &Sourced, outcome: &Outcome) {
    let revision = sourced.revision.to_string();
    record.done = Counts::of(outcome).after(record.done);
    let next = Arc::make_mut(&mut record.next);
    next.last_attempted_revision = Some(revision.clone());
    remember_outcome(&mut next.history, &revision, WAITING_FOR_HEALTH, &record.done.to_string());
}

/// Puts the result of a complete pass into the status that is written next.
pub(super) fn remember(record: &mut Record, sourced: &Sourced, outcome: &Outcome) {
    let revision = sourced.revision.to_string();
    let done = Counts::of(outcome).after(std::mem::take(&mut record.done));
    let next = Arc::make_mut(&mut record.next);
    next.applied_objects = i64::try_from(record.inventory.len_in_git()).ok();
    next.notes = sourced.notes.as_deref().map(str::to_owned);
    next.hooks_on_delete = outcome.has_hooks_on_delete.then_some(true);
    // A commit that reverts a failed commit has the content that was applied before, but it is a new revision.
    let is_back = next.last_attempted_revision != next.last_applied_revision;
    let is_new = is_back || next.applied_content.as_ref() != Some(&sourced.content);
    if is_new {
        next.last_attempted_revision = Some(revision.clone());
        next.last_applied_revision = Some(revision.clone());
        next.applied_content = Some(sourced.content.clone());
        remember_outcome(&mut next.history, &revision, APPLIED, &done.to_string());
    }
}

/// The message of a Sync that is Ready.
fn applied(record: &Record, revision: &str) -> String {
    let count = record.inventory.len_in_git();
    // The message does not name later commits that do not change the folder. So if a comparison of the whole folder
    // finds no difference, the status is not written.
    let applied = record.next.last_applied_revision.as_deref().unwrap_or(revision);
    let mut message = format!("applied {applied}: {count} object{}", if count == 1 { "" } else { "s" });
    for more in [&record.left_for, &record.hidden, &record.put_off, &record.unsettled].into_iter().flatten() {
        message.push_str("; ");
        message.push_str(more);
    }
    message
}

fn is_ready(record: &Record) -> bool {
    let ready = find_condition(&record.status.conditions, conditions::READY);
    ready.is_some_and(|ready| ready.status == ConditionStatus::True)
}

/// How many objects were created, changed, pruned and held back, in one or several passes. As text:
/// `2 created, 1 changed, 1 pruned`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    created: usize,
    changed: usize,
    pruned: usize,
    held: usize,
}

impl Counts {
    fn of(outcome: &Outcome) -> Self {
        Self {
            created: outcome.applied.created.len(),
            changed: outcome.applied.changed.len(),
            pruned: outcome.pruned.len(),
            held: outcome.held.len(),
        }
    }

    /// These counts together with those of an earlier pass. Objects that are held back are not added up, because this
    /// pass has counted them again.
    fn after(self, earlier: Self) -> Self {
        Self {
            created: earlier.created + self.created,
            changed: earlier.changed + self.changed,
            pruned: earlier.pruned + self.pruned,
            held: self.held,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts =
            [(self.created, "created"), (self.changed, "changed"), (self.pruned, "pruned"), (self.held, "held")];
        let parts: Vec<_> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, verb)| format!("{count} {verb}")).collect();
        f.write_str(&parts.join(", "))
    }
}

/// Corrects the outcome of the newest revision in the history, because its objects were applied but did not become
/// healthy, or because a later pass succeeded.
fn amend_outcome(next: &mut Arc<SyncStatus>, outcome: &str) {
    if next.history.first().is_some_and(|last| last.outcome != outcome)
        && let Some(last) = Arc::make_mut(next).history.first_mut()
    {
        last.time = status::now();
        outcome.clone_into(&mut last.outcome);
    }
}

fn remember_outcome(history: &mut Vec<HistoryEntry>, revision: &str, outcome: &str, summary: &str) {
    if let Some(last) = history.first_mut().filter(|last| last.revision == revision) {
        if last.outcome != outcome {
            last.time = status::now();
            outcome.clone_into(&mut last.outcome);
            if !summary.is_empty() {
                summary.clone_into(&mut last.summary);
            }
        } else if last.summary.is_empty() {
            // The last try changed nothing, so the summary is that of this try.
            summary.clone_into(&mut last.summary);
        }
        return;
    }
    let entry = HistoryEntry {
        revision: revision.to_owned(),
        time: status::now(),
        outcome: outcome.to_owned(),
        summary: summary.to_owned(),
    };
    history.insert(0, entry);
    history.truncate(HISTORY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_passes_did_is_counted_together() {
        let first = Counts { created: 2, held: 1, ..Counts::default() };
        let last = Counts { created: 1, changed: 1, pruned: 1, held: 1 };
        assert_eq!(first.to_string(), "2 created, 1 held");
        assert_eq!(last.after(first).to_string(), "3 created, 1 changed, 1 pruned, 1 held");
        assert_eq!(Counts::default().to_string(), "");
    }

    #[test]
    fn the_history_says_what_came_of_each_revision() {
        let mut next = Arc::new(SyncStatus::default());
        let told = |next: &SyncStatus| {
            let entries = next.history.iter();
            entries.map(|e| format!("{} {} {}", e.revision, e.outcome, e.summary)).collect::<Vec<_>>()
        };
        amend_outcome(&mut next, "Applied");
        assert_eq!(told(&next), [""; 0], "nothing was tried yet");
        remember_outcome(&mut Arc::make_mut(&mut next).history, "1", "Applied", "1 created");
        amend_outcome(&mut next, "HealthCheckTimedOut");
        assert_eq!(told(&next), ["1 HealthCheckTimedOut 1 created"]);
        amend_outcome(&mut next, "Applied");
        let history = &mut Arc::make_mut(&mut next).history;
        remember_outcome(history, "2", "ApplyFailed", "");
        remember_outcome(history, "2", "ApplyFailed", "1 changed");
        remember_outcome(history, "2", "ApplyFailed", "");
        assert_eq!(told(&next), ["2 ApplyFailed 1 changed", "1 Applied 1 created"], "a later try did something");
    }
}
