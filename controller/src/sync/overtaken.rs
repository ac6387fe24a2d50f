//! Gives a pass up if there is something newer to apply while the pass waits.
//!
//! A pass waits for many things that may never happen: for a process that renders, for a new kind to be served, for
//! the finalizers of an object that is replaced. Each of these waits is under [`Pass::unless_overtaken`], or ends when
//! [`Pass::overtaken`] does. No write is under either of them, so a write that has begun always ends, and the inventory has
//! everything that was written. The next pass begins at once, with the newest revision. The fetch of this revision need not
//! wait for the memory of passes that are stuck (`memory.rs`).

use std::{sync::Arc, time::Duration};

use crds::Sync;
use gitstore::Snapshot;
use pipeline::{Failure, Stage, StageError, Target, repository_of};
use tokio::time::{Instant, sleep_until};

use super::{
    Pass, Record,
    source::{Sourced, content_with_settings, source},
};
use crate::{backoff, context::InStore as _, inputs::Inputs, passes, status::Progress};

/// How long a pass may wait, at least, if the pass before was given up. This time doubles with each pass that is given up in
/// a row. So a folder is applied even if each commit to it comes sooner than its render ends.
const AT_LEAST: Duration = Duration::from_secs(1);
/// The longest such time. No pass waits longer for anything.
const AT_MOST: Duration = Duration::from_secs(300);
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
    /// The pass is not given up before this time.
    until: Instant,
}

impl Applies {
    /// `given_up` is the number of passes of the same Sync that were given up in a row, just before this pass.
    pub(super) fn new(sourced: &Sourced, given_up: u32) -> Self {
        let until = Instant::now() + waits_at_least(given_up);
        Self { snapshot: sourced.snapshot.clone(), inputs: sourced.inputs.clone(), until }
    }
}

fn waits_at_least(given_up: u32) -> Duration {
    if given_up == 0 { Duration::ZERO } else { backoff::pause(given_up, AT_LEAST, AT_MOST) }
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

    /// Waits until there is something newer to apply.
    pub(super) async fn overtaken(&self) {
        let Some(applies) = self.applies.get() else { return std::future::pending().await };
        sleep_until(applies.until).await;
        loop {
            let changed = self.ctx.newer.notified();
            if self.is_overtaken(applies) {
                return;
            }
            changed.await;
        }
    }

    /// Whether the Sync was edited, suspended or deleted after the pass began, or has another content now.
    fn is_overtaken(&self, applies: &Applies) -> bool {
        let is_edited = |now: &Sync| {
            now.metadata.generation > self.sync.metadata.generation || now.metadata.deletion_timestamp.is_some()
        };
        if self.ctx.syncs.get(&self.key.to_ref()).is_some_and(|now| is_edited(&now)) {
            return true;
        }
        let Ok(newest) = source(self.ctx, self.sync) else { return false };
        let is_same_snapshot = Arc::ptr_eq(&newest.snapshot, &applies.snapshot);
        if is_same_snapshot && newest.inputs.digest() == applies.inputs.digest() {
            return false;
        }
        let (repository, target) = (repository_of(self.sync), Target::of(self.sync));
        // As long as it is not known which files the folder depends on, any commit may change them.
        if !is_same_snapshot && !self.ctx.sources.knows(&repository, &target) {
            return true;
        }
        // What is known now about these files may be more than what was known when the pass began.
        let content = self.ctx.sources.content_in(&applies.snapshot, &repository, &target);
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
        assert_eq!(waits_at_least(0), Duration::ZERO);
        let times: Vec<_> = (1..10).map(waits_at_least).collect();
        assert!(times.is_sorted() && times[0] <= AT_LEAST && times[8] > Duration::from_secs(150), "{times:?}");
        assert!(waits_at_least(u32::MAX) <= AT_MOST);
    }
}
