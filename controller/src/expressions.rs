//! Evaluates the expressions of Syncs (`spec.healthChecks`, `readyExpr`) in worker processes.
//!
//! # Guarantees
//! - An expression takes at most [`TIME`] and [`MEMORY`]. If it needs more, its process is killed, and this Sync
//!   evaluates nothing again before a pause has passed. The pause doubles each time.
//! - Namespaces take turns, and each has at most one process at a time. So a namespace waits for at most one turn of
//!   each other namespace, and it does not wait at all if only one other namespace is busy.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::ObjectKey;
use pipeline::health::{
    Health,
    apart::{Answer, Question, TASK, read},
};
use tokio::time::Instant;
use worker::{Cancel, Limits, Worker, WorkerError};

use crate::{
    admission::{Claim, Gate, Group, Lease},
    backoff,
};

/// How many processes evaluate at the same time.
const PROCESSES: u64 = 2;
/// How long one evaluation may take.
const TIME: Duration = Duration::from_secs(3);
/// How much memory one evaluation may take: enough for the largest object that a cluster stores.
const MEMORY: u64 = 128 << 20;
/// The pause after the first evaluation that took too much time or memory.
const FIRST_PAUSE: Duration = Duration::from_secs(20);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// See the module.
pub(crate) struct Expressions {
    worker: Worker,
    turns: Gate,
    overran: Mutex<HashMap<ObjectKey, Overrun>>,
}

/// A Sync whose expressions took too much time or memory.
struct Overrun {
    /// The generation of the Sync with these expressions.
    generation: Option<i64>,
    times: u32,
    until: Instant,
    why: String,
}

/// Why an expression has no result.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Unanswered {
    /// It took too much time or memory.
    Overran {
        /// Which limit it exceeded.
        why: String,
        /// When it may be evaluated again.
        until: Instant,
    },
    /// No process could be started, or it gave no answer, which is not the fault of the expression.
    Failed(String),
}

impl Expressions {
    /// Evaluates expressions in worker processes, which run this same program.
    pub(crate) fn new() -> Self {
        Self { worker: Worker::default(), turns: Gate::new(PROCESSES), overran: Mutex::default() }
    }

    /// Waits for a turn. It is needed for [`Expressions::ask`], and should also be held while the object is read, so that few
    /// objects are in memory.
    pub(crate) async fn turn(&self, namespace: &str) -> Lease {
        let group = Group { name: format!("namespace {namespace}"), most: 1 };
        let claim = Claim { namespace: namespace.to_owned(), amount: 1, groups: vec![group] };
        crate::passes::in_turn("a process that evaluates expressions", self.turns.admit(claim)).await
    }

    /// The last overrun of `sync` in this generation, if its pause is not over.
    pub(crate) fn pauses(&self, sync: &ObjectKey, generation: Option<i64>) -> Option<Unanswered> {
        let overran = self.overran();
        let last = overran.get(sync).filter(|last| last.generation == generation && last.until > Instant::now())?;
        Some(Unanswered::Overran { why: last.why.clone(), until: last.until })
    }

    /// Lets a worker process answer `question`. The caller must hold a turn.
    pub(crate) async fn ask(
        &self,
        sync: &ObjectKey,
        generation: Option<i64>,
        question: Question,
        _turn: &Lease,
    ) -> Result<Answer, Unanswered> {
        let worker = self.worker.clone();
        let work = move || {
            let request = serde_json::to_vec(&question).map_err(|error| WorkerError::Died(error.to_string()))?;
            drop(question);
            let limits = Limits { memory: MEMORY, file: 0, time: TIME, answer: 64 << 10 };
            worker.run(TASK.0, &request, &limits, &Cancel::new())
        };
        let answer = tokio::task::spawn_blocking(work).await.map_err(|error| Unanswered::Failed(error.to_string()))?;
        match answer {
            Ok(answer) => {
                let answer = read(&answer).map_err(Unanswered::Failed)?;
                // This answer does not end the Sync's pause, because another expression of the Sync may have taken too
                // much time or memory. Only an edit of the Sync ends the pause early.
                let mut overran = self.overran();
                if overran.get(sync).is_some_and(|last| last.generation != generation) {
                    overran.remove(sync);
                }
                Ok(answer)
            }
            Err(
                error @ (WorkerError::TimedOut(_)
                | WorkerError::Memory(_)
                | WorkerError::Size(_)
                | WorkerError::Died(_)),
            ) => Err(self.overrun(sync, generation, error.to_string())),
            Err(error @ (WorkerError::Start(_) | WorkerError::Cancelled | WorkerError::Failed(_))) => {
                Err(Unanswered::Failed(error.to_string()))
            }
        }
    }

    fn overrun(&self, sync: &ObjectKey, generation: Option<i64>, why: String) -> Unanswered {
        let mut overran = self.overran();
        let before = overran.get(sync).filter(|last| last.generation == generation);
        let times = before.map_or(1, |last| last.times.saturating_add(1));
        let until = Instant::now() + backoff::pause(times, FIRST_PAUSE, LONGEST_PAUSE);
        tracing::warn!(
            %sync, why,
            "an expression of the Sync took too much time or memory; the Sync's expressions are evaluated again after \
             a pause"
        );
        overran.insert(sync.clone(), Overrun { generation, times, until, why: why.clone() });
        Unanswered::Overran { why, until }
    }

    /// Forgets `sync`, which no longer exists.
    pub(crate) fn forget(&self, sync: &ObjectKey) {
        self.overran().remove(sync);
    }

    fn overran(&self) -> MutexGuard<'_, HashMap<ObjectKey, Overrun>> {
        self.overran.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unanswered {
    /// The health of an object whose expressions have no result. `place` is the field of the Sync that has these
    /// expressions.
    pub(crate) fn as_health(&self, place: &str) -> Health {
        match self {
            Self::Overran { why, .. } => {
                Health::Failed(format!("{place} could not be evaluated: {why}; make the expression simpler"))
            }
            Self::Failed(why) => {
                Health::InProgress(format!("{place} could not be evaluated: {why}; it is tried again"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_namespace_has_one_process_at_a_time_and_leaves_one_to_others() {
        let expressions = Expressions::new();
        let hostile = expressions.turn("hostile").await;
        let second = tokio::time::timeout(Duration::from_millis(50), expressions.turn("hostile"));
        assert!(second.await.is_err(), "it has to wait for its own");
        let other = tokio::time::timeout(Duration::from_secs(5), expressions.turn("other"));
        assert!(other.await.is_ok());
        drop(hostile);
    }

    #[test]
    fn the_pauses_of_a_sync_double_until_it_is_edited() {
        let (expressions, sync) = (Expressions::new(), ObjectKey::new("team", "app"));
        let times = |expressions: &Expressions, generation| {
            expressions.overrun(&sync, generation, "too long".into());
            let overran = expressions.overran();
            let last = &overran[&sync];
            let pause = last.until - Instant::now();
            assert!(pause <= FIRST_PAUSE * 2_u32.pow(last.times - 1) && pause > FIRST_PAUSE / 2, "{pause:?}");
            last.times
        };
        assert_eq!((times(&expressions, Some(1)), times(&expressions, Some(1))), (1, 2));
        assert!(expressions.pauses(&sync, Some(1)).is_some());
        assert!(expressions.pauses(&sync, Some(2)).is_none());
        assert_eq!(times(&expressions, Some(2)), 1);
        expressions.forget(&sync);
        assert!(expressions.pauses(&sync, Some(2)).is_none());
    }
}
