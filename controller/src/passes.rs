//! Passes under way: whether they get on, and what becomes of one that does not.
//!
//! Every request of a pass has its own deadline. This is the second net, for whatever else may be waited for: a pass
//! that does not get on for [`Patience::cut_after`] is cut, as a crash would, and begins anew with what is in the cluster.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crds::ObjectKey;
use pipeline::Stage;

use crate::{context::Context, sync};

/// How long a pass may take, and how long it may stand still.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A pass that takes longer is told of.
    pub told_after: Duration,
    /// A pass in which nothing happens for so long is cut: no stage begins, and no request is answered.
    pub cut_after: Duration,
}

impl Default for Patience {
    /// The longest that a stage may wait for something else is the first list of a kind, and a new kind to be served:
    /// 30 s each.
    fn default() -> Self {
        Self { told_after: Duration::from_secs(60), cut_after: Duration::from_secs(300) }
    }
}

/// When a pass that was cut is tried again.
const AGAIN: Duration = Duration::from_secs(5);

tokio::task_local! {
    static CURRENT: Arc<Meter>;
}

/// How far a pass is.
struct Meter(Mutex<State>);

struct State {
    stage: Option<Stage>,
    got_on: Instant,
    unanswered: u32,
}

impl Meter {
    fn new() -> Self {
        Self(Mutex::new(State { stage: None, got_on: Instant::now(), unanswered: 0 }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(what: impl FnOnce(&mut State)) {
    // Whoever is in no pass is measured by nobody.
    let _ = CURRENT.try_with(|meter| what(&mut meter.lock()));
}

/// A stage begins.
pub(crate) fn begins(stage: Stage) {
    note(|state| {
        state.stage = Some(stage);
        state.got_on = Instant::now();
    });
}

/// The API server answered a request.
pub(crate) fn answered() {
    note(|state| state.got_on = Instant::now());
}

/// The API server did not answer a request, or only that it cannot.
pub(crate) fn unanswered() {
    note(|state| {
        state.unanswered += 1;
        // It got an end; what follows is another try.
        state.got_on = Instant::now();
    });
}

/// How many requests of this pass the API server did not answer so far: it fails for want of it, not for what is in Git.
pub(crate) fn unanswered_so_far() -> u32 {
    CURRENT.try_with(|meter| meter.lock().unanswered).unwrap_or_default()
}

/// The stage that this pass is in.
pub(crate) fn stage() -> Option<Stage> {
    CURRENT.try_with(|meter| meter.lock().stage).ok().flatten()
}

/// Runs the pass of the Sync `key` to its end, or until it does not get on.
pub(crate) async fn supervised(ctx: Arc<Context>, key: ObjectKey, pass: impl Future<Output = ()>) {
    let meter = Arc::new(Meter::new());
    let Patience { told_after, cut_after } = ctx.observer.patience();
    let began = Instant::now();
    let mut pass = Box::pin(CURRENT.scope(meter.clone(), pass));
    let mut overdue = None;
    loop {
        let got_on = meter.lock().got_on;
        let next = got_on + cut_after;
        let next = if overdue.is_none() { next.min(began + told_after) } else { next };
        tokio::select! {
            biased;
            () = &mut pass => return,
            () = sleep_until(next) => {}
        }
        let stage = meter.lock().stage.map_or("begin", Stage::as_str);
        let stands_still = meter.lock().got_on.elapsed();
        if stands_still >= cut_after {
            tracing::error!(sync = %key, stage, took = ?began.elapsed(), "the pass does not get on; it is cut, and begins anew");
            drop(pass);
            sync::cut(&ctx, &key, stage, stands_still).await;
            return ctx.queues.syncs.add_after(key, AGAIN);
        }
        if overdue.is_none() && began.elapsed() >= told_after {
            tracing::warn!(sync = %key, stage, took = ?began.elapsed(), still = ?stands_still, "the pass takes long");
            overdue = Some(ctx.metrics.overdue_pass());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pass_is_measured_and_what_is_outside_of_one_is_not() {
        unanswered();
        assert_eq!((unanswered_so_far(), stage()), (0, None));
        let meter = Arc::new(Meter::new());
        CURRENT
            .scope(meter, async {
                begins(Stage::Apply);
                unanswered();
                answered();
                assert_eq!((unanswered_so_far(), stage()), (1, Some(Stage::Apply)));
            })
            .await;
    }
}
