//! Watches over running passes: one that makes no progress is stopped.
//!
//! Every request of a pass has a deadline, and a pass that waits for its turn gets it at some time. This is for everything
//! else that could make a pass hang: a pass without progress for [`Patience::cut_after`] is stopped, as by a crash, and begins
//! again with what is in the cluster.

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
    /// A pass in which nothing happens for so long is cut: no stage begins, no request is answered, and no turn is
    /// waited for.
    pub cut_after: Duration,
}

impl Default for Patience {
    /// The longest that a stage may wait for something else, turns aside, is the first list of a kind, and a new kind to
    /// be served: 30 s each.
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
    /// Turns that are waited for.
    waits: u32,
}

impl Meter {
    fn new() -> Self {
        Self(Mutex::new(State { stage: None, got_on: Instant::now(), unanswered: 0, waits: 0 }))
    }

    /// For how long it has not got on. Whoever waits for a turn gets on.
    fn stands_still(&self) -> Duration {
        let mut state = self.lock();
        if state.waits > 0 {
            state.got_on = Instant::now();
        }
        state.got_on.elapsed()
    }

    fn stage(&self) -> &'static str {
        self.lock().stage.map_or("begin", Stage::as_str)
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
        // A request that failed is progress too: the next one follows.
        state.got_on = Instant::now();
    });
}

/// Waits for a turn, or for room, that others have now: what they do has an end, however many there are.
pub(crate) async fn in_turn<T>(turn: impl Future<Output = T>) -> T {
    let _waits = Waits::begin();
    turn.await
}

/// A turn is waited for until this is dropped.
struct Waits(Option<Arc<Meter>>);

impl Waits {
    fn begin() -> Self {
        let meter = CURRENT.try_with(Arc::clone).ok();
        if let Some(meter) = &meter {
            meter.lock().waits += 1;
        }
        Self(meter)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if let Some(meter) = &self.0 {
            let mut state = meter.lock();
            state.waits -= 1;
            state.got_on = Instant::now();
        }
    }
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
    let began = Instant::now();
    let late = |stage, still| {
        tracing::warn!(sync = %key, stage, took = ?began.elapsed(), ?still, "the pass takes long");
        ctx.metrics.overdue_pass()
    };
    if let Err(Cut { stage, still }) = until_cut(ctx.observer.patience(), pass, late).await {
        tracing::error!(sync = %key, stage, took = ?began.elapsed(), "the pass makes no progress; it is stopped and begins again");
        sync::cut(&ctx, &key, stage, still).await;
        ctx.queues.syncs.add_after(key, AGAIN);
    }
}

/// A pass that did not get on.
#[derive(Debug)]
struct Cut {
    stage: &'static str,
    still: Duration,
}

/// Runs a pass. When it takes long, `late` is told the stage and how long it has stood still, once; what it answers is
/// kept until the end.
async fn until_cut<L>(
    patience: Patience,
    pass: impl Future<Output = ()>,
    late: impl Fn(&'static str, Duration) -> L,
) -> Result<(), Cut> {
    let meter = Arc::new(Meter::new());
    let Patience { told_after, cut_after } = patience;
    let began = Instant::now();
    let mut pass = Box::pin(CURRENT.scope(meter.clone(), pass));
    let mut told = None;
    loop {
        let next = Instant::now() + cut_after.saturating_sub(meter.stands_still());
        let next = if told.is_none() { next.min(began + told_after) } else { next };
        tokio::select! {
            biased;
            () = &mut pass => return Ok(()),
            () = sleep_until(next) => {}
        }
        let (stage, still) = (meter.stage(), meter.stands_still());
        if still >= cut_after {
            return Err(Cut { stage, still });
        }
        if told.is_none() && began.elapsed() >= told_after {
            told = Some(late(stage, still));
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

    const IMPATIENT: Patience =
        Patience { told_after: Duration::from_millis(10), cut_after: Duration::from_millis(20) };

    #[tokio::test]
    async fn who_waits_for_a_turn_is_told_of_and_not_cut() {
        let told = std::cell::Cell::new(0);
        let turn = tokio::time::sleep(IMPATIENT.cut_after * 10);
        until_cut(IMPATIENT, in_turn(turn), |_, _| told.set(told.get() + 1)).await.unwrap();
        assert_eq!(told.get(), 1);
    }

    #[tokio::test]
    async fn what_comes_after_a_turn_is_measured_from_there() {
        let pass = async {
            begins(Stage::Render);
            in_turn(tokio::time::sleep(IMPATIENT.cut_after * 2)).await;
            std::future::pending::<()>().await;
        };
        let cut = until_cut(IMPATIENT, pass, |_, _| ()).await.unwrap_err();
        assert!(cut.stage == "render" && cut.still >= IMPATIENT.cut_after, "{cut:?}");
    }
}
