//! Watches over running passes, and stops a pass that makes no progress.
//!
//! Every request of a pass has a deadline, and a pass that waits for its turn gets the turn at some time. This module
//! is for everything else that could make a pass hang: a pass without progress for [`Patience::cut_after`] is stopped,
//! as if the process had crashed, and begins again with what is in the cluster.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crds::ObjectKey;
use pipeline::Stage;

use crate::{context::Context, sync};

/// How long a pass may take, and how long it may make no progress.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A pass that takes longer than this is reported.
    pub told_after: Duration,
    /// A pass without progress for this long is stopped. Progress means: a stage begins, a request is answered or
    /// fails, or the pass waits for its turn.
    pub cut_after: Duration,
}

impl Default for Patience {
    /// Apart from waits for a turn, the longest waits of a stage are two: until a kind is listed for the first time,
    /// and until a new kind is served. Each takes 30 s at most.
    fn default() -> Self {
        Self { told_after: Duration::from_secs(60), cut_after: Duration::from_secs(300) }
    }
}

/// The time after which a stopped pass is tried again.
const AGAIN: Duration = Duration::from_secs(5);

tokio::task_local! {
    static CURRENT: Arc<Meter>;
}

/// The progress of a pass.
struct Meter(Mutex<State>);

struct State {
    stage: Option<Stage>,
    got_on: Instant,
    unanswered: u32,
    /// What the parts of the pass wait for that are waiting for a turn, as the end of "it waits for …".
    waits: Vec<&'static str>,
}

impl Meter {
    fn new() -> Self {
        Self(Mutex::new(State { stage: None, got_on: Instant::now(), unanswered: 0, waits: Vec::new() }))
    }

    /// How long the pass has made no progress. Waiting for a turn counts as progress.
    fn stands_still(&self) -> Duration {
        let mut state = self.lock();
        if !state.waits.is_empty() {
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
    // Outside of a pass, nothing is measured.
    let _ = CURRENT.try_with(|meter| what(&mut meter.lock()));
}

/// Notes that a stage begins.
pub(crate) fn begins(stage: Stage) {
    note(|state| {
        state.stage = Some(stage);
        state.got_on = Instant::now();
    });
}

/// Notes that the API server answered a request.
pub(crate) fn answered() {
    note(|state| state.got_on = Instant::now());
}

/// Notes that the API server did not answer a request, or that it could not process the request.
pub(crate) fn unanswered() {
    note(|state| {
        state.unanswered += 1;
        // A failed request is progress, too, because the pass goes on after it.
        state.got_on = Instant::now();
    });
}

/// Waits for `turn`, which gives a turn, or memory that others use now. Such a wait always ends, because the work of
/// the others ends. `what` is what the pass waits for, as the end of "it waits for …".
pub(crate) async fn in_turn<T>(what: &'static str, turn: impl Future<Output = T>) -> T {
    let _waits = Waits::begin(what);
    turn.await
}

/// A pass waits for a turn until this value is dropped.
struct Waits {
    meter: Option<Arc<Meter>>,
    what: &'static str,
}

impl Waits {
    fn begin(what: &'static str) -> Self {
        let meter = CURRENT.try_with(Arc::clone).ok();
        if let Some(meter) = &meter {
            meter.lock().waits.push(what);
        }
        Self { meter, what }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            let mut state = meter.lock();
            let place = state.waits.iter().position(|what| *what == self.what);
            place.map(|place| state.waits.swap_remove(place));
            state.got_on = Instant::now();
        }
    }
}

/// What this pass waits for, if it waits for a turn, as the end of "it waits for …".
pub(crate) fn waits_for() -> Option<&'static str> {
    CURRENT.try_with(|meter| meter.lock().waits.first().copied()).ok().flatten()
}

/// How many requests of this pass the API server has not answered so far. If there are any, a failure of the pass may
/// have its cause in them and not in Git.
pub(crate) fn unanswered_so_far() -> u32 {
    CURRENT.try_with(|meter| meter.lock().unanswered).unwrap_or_default()
}

/// The stage that this pass is in.
pub(crate) fn stage() -> Option<Stage> {
    CURRENT.try_with(|meter| meter.lock().stage).ok().flatten()
}

/// Runs the pass of the Sync `key` until it ends, or until it is stopped because it makes no progress.
pub(crate) async fn supervised(ctx: Arc<Context>, key: ObjectKey, pass: impl Future<Output = ()>) {
    let began = Instant::now();
    let late = |stage, still| {
        tracing::warn!(sync = %key, stage, took = ?began.elapsed(), ?still, "the pass takes long");
        ctx.metrics.overdue_pass()
    };
    if let Err(Cut { stage, still }) = until_cut(ctx.observer.patience(), pass, late).await {
        tracing::error!(sync = %key, stage, took = ?began.elapsed(), "the pass makes no progress, so it is stopped and begins again");
        sync::cut(&ctx, &key, stage, still).await;
        ctx.queues.syncs.add_after(key, AGAIN);
    }
}

/// A pass that was stopped.
#[derive(Debug)]
struct Cut {
    stage: &'static str,
    still: Duration,
}

/// Runs a pass. If the pass takes long, calls `late` once with the stage and the time without progress. The value that
/// `late` returns is kept until the pass ends.
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
        until_cut(IMPATIENT, in_turn("its turn", turn), |_, _| told.set(told.get() + 1)).await.unwrap();
        assert_eq!(told.get(), 1);
    }

    #[tokio::test]
    async fn what_a_pass_waits_for_is_known_while_it_waits() {
        assert_eq!(waits_for(), None);
        CURRENT
            .scope(Arc::new(Meter::new()), async {
                assert_eq!(waits_for(), None);
                let first = in_turn("memory", async {
                    tokio::task::yield_now().await;
                    waits_for()
                });
                let (told, ()) = tokio::join!(first, in_turn("a place", async {}));
                assert_eq!((told, waits_for()), (Some("memory"), None));
            })
            .await;
    }

    #[tokio::test]
    async fn what_comes_after_a_turn_is_measured_from_there() {
        let pass = async {
            begins(Stage::Render);
            in_turn("its turn", tokio::time::sleep(IMPATIENT.cut_after * 2)).await;
            std::future::pending::<()>().await;
        };
        let cut = until_cut(IMPATIENT, pass, |_, _| ()).await.unwrap_err();
        assert!(cut.stage == "render" && cut.still >= IMPATIENT.cut_after, "{cut:?}");
    }
}
