//! Gives a pass up if there is something newer to apply while the pass waits.
//!
//! A pass waits for many things that may never happen: for a process that renders, for a new kind to be served, for
//! the finalizers of an object that is replaced. Each of these waits is under [`Pass::unless_overtaken`], or ends when
//! [`Pass::overtaken`] does. No write is under either of them, so a write that has begun always ends, and the inventory has
//! everything that was written. The next pass begins at once, with the newest revision. The fetch of this revision need not
//! wait for the memory of passes that are stuck (`memory.rs`).

use std::{sync::Arc, time::Duration};

use gitstore::Snapshot;
use pipeline::{Failure, Stage, StageError, Target, repository_of};
use tokio::time::{Instant, sleep};

use super::{
    Pass, Record,
    source::{Sourced, content_with_settings, source},
};
use crate::{backoff, context::InStore as _, inputs::Inputs, passes, status::Progress};

/// How long each wait of a pass may last, at least, before it ends for something newer. Most waits are shorter, so a commit does
/// not make the work of the commit before useless. This time doubles with each pass that is given up in a row. So a folder
/// is applied even if each commit to it comes sooner than its render ends.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest such time. No pass waits longer for anything.
const LONGEST_PATIENCE: Duration = Duration::from_secs(300);
/// How often a wait looks for something newer.
const LOOKS_EVERY: Duration = Duration::from_millis(250);
/// See [`StageError::reason`].
const REASON: &str = "Overtaken";

/// There is something newer to apply, so the pass is given up.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("there is something newer to apply")]
pub(crate) struct Overtaken;

impl StageError for Overtaken {
    const STAGE: Stage = Stage::Source;

    fn stage(&self) -> Stage {
        passes::stage().unwrap_or(Self::STAGE)
    }

    fn reason(&self) -> &'static str {
        REASON
    }

    fn is_terminal(&self) -> bool {
        false
    }
}

impl Overtaken {
    /// Whether a pass ended because it was given up.
    pub(super) fn is(failure: &Failure) -> bool {
        failure.reason == REASON
    }
}

/// What a pass applies.
pub(super) struct Applies {
    snapshot: Arc<Snapshot>,
    inputs: Inputs,
    patience: Duration,
}

impl Applies {
    /// `given_up` is the number of passes of the same Sync that were given up in a row, just before this pass.
    pub(super) fn new(sourced: &Sourced, given_up: u32) -> Self {
        Self { snapshot: sourced.snapshot.clone(), inputs: sourced.inputs.clone(), patience: patience(given_up) }
    }
}

fn patience(given_up: u32) -> Duration {
    backoff::pause(given_up.saturating_add(1), PATIENCE, LONGEST_PATIENCE)
}

impl Pass<'_> {
    /// The result of `wait`, which must write nothing. Fails if there is something newer to apply before `wait` ends.
    pub(super) async fn unless_overtaken<T>(&self, wait: impl Future<Output = T>) -> Result<T, Overtaken> {
        tokio::select! {
            biased;
            done = wait => Ok(done),
            () = self.overtaken() => Err(Overtaken),
        }
    }

    /// Waits until there is something newer to apply. A change of the Sync counts at once. A newer content of its folder counts
    /// when this wait has lasted as long as the pass has patience. Time in which the pass waits for its turn does not count,
    /// because the pass would lose the turn.
    pub(super) async fn overtaken(&self) {
        let patience = self.applies.get().map_or(PATIENCE, |applies| applies.patience);
        let mut since = Instant::now();
        loop {
            sleep(LOOKS_EVERY).await;
            if self.is_edited() {
                return;
            }
            if passes::waits_for().is_some() {
                since = Instant::now();
            } else if since.elapsed() >= patience && self.has_newer_content() {
                return;
            }
        }
    }

    /// Whether there is something newer to apply now.
    pub(super) fn is_overtaken(&self) -> bool {
        self.is_edited() || self.has_newer_content()
    }

    /// Whether the Sync was edited, suspended or deleted after the pass began.
    fn is_edited(&self) -> bool {
        let (seen, now) = (&self.sync.metadata, self.ctx.syncs.get(&self.key.to_ref()));
        now.is_none_or(|now| {
            now.metadata.uid != seen.uid
                || now.metadata.generation > seen.generation
                || now.metadata.deletion_timestamp.is_some() && seen.deletion_timestamp.is_none()
        })
    }

    /// Whether the Sync has another content now than the pass applies. What its folder depends on is known once the folder was
    /// rendered; before that, only a change of the folder itself counts.
    fn has_newer_content(&self) -> bool {
        let Ok(newest) = source(self.ctx, self.sync) else { return false };
        // A pass without content had no source, and now there is one.
        let Some(applies) = self.applies.get() else { return true };
        if Arc::ptr_eq(&newest.snapshot, &applies.snapshot) && newest.inputs.digest() == applies.inputs.digest() {
            return false;
        }
        // What is known now about the files that the folder depends on may be more than what was known when the pass began.
        let content = self.ctx.sources.content_in(&applies.snapshot, &repository_of(self.sync), &Target::of(self.sync));
        content.is_ok_and(|content| content_with_settings(content, self.sync, &applies.inputs) != newest.content)
    }

    /// Records that the pass was given up, as `given_up` passes before it. The next one begins at once.
    pub(super) async fn give_way(&self, record: &mut Record, failure: &Failure, given_up: u32, revision: &str) {
        tracing::info!(sync = %self.key, revision, stage = %failure.stage, "the pass is given up, because there is something newer to apply");
        record.given_up = given_up.saturating_add(1);
        record.content = None;
        record.failed_content = None;
        record.retry_at = None;
        // A suspended Sync has no next pass that would say what was done.
        if self.ctx.syncs.get(&self.key.to_ref()).is_some_and(|now| now.spec.suspend) {
            let stage = failure.stage;
            let message = format!(
                "the Sync was suspended while {revision} was being applied, at the stage {stage}; this goes on when the Sync is resumed"
            );
            self.state(record, Progress::Working, "Progressing", &message).await;
        }
        self.ctx.queues.syncs.add(self.key.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_that_is_given_up_again_and_again_gets_more_and_more_time() {
        let times: Vec<_> = (0..7).map(patience).collect();
        assert!(times.is_sorted() && times[0] <= PATIENCE && times[0] > PATIENCE / 2, "{times:?}");
        assert!(times[6] > Duration::from_secs(200) && patience(u32::MAX) <= LONGEST_PATIENCE, "{times:?}");
    }
}
