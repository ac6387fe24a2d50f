//! Whether the API server answers.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Whether requests are answered. Clones share it. Any answer of the API server itself counts, also an error. An answer that
/// it cannot reach its store, or has too much to do, does not count.
#[derive(Clone, Debug, Default)]
pub struct Reach(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Since when no request was answered.
    away_since: Option<Instant>,
    /// Whether a write waits too long for its answer or did not get one, and no later write was answered.
    doubts_writes: bool,
}

impl Reach {
    /// A request was answered.
    pub fn answered(&self, is_write: bool) {
        let mut state = self.lock();
        state.away_since = None;
        state.doubts_writes &= !is_write;
    }

    /// A request that was sent at `since` was not answered.
    pub fn unanswered(&self, is_write: bool, since: Instant) {
        let mut state = self.lock();
        state.away_since.get_or_insert(since);
        state.doubts_writes |= is_write;
    }

    /// A write has been waiting too long for its answer.
    pub fn doubt_writes(&self) {
        self.lock().doubts_writes = true;
    }

    /// Whether the last write with a known outcome was not answered.
    pub fn doubts_writes(&self) -> bool {
        self.lock().doubts_writes
    }

    /// How long no request has been answered; `None` if the last one was.
    pub fn away_for(&self) -> Option<Duration> {
        self.lock().away_since.map(|since| since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_ends_an_absence_and_only_a_write_clears_writes() {
        let reach = Reach::default();
        assert!(reach.away_for().is_none() && !reach.doubts_writes());
        let now = Instant::now();
        reach.unanswered(true, now.checked_sub(Duration::from_secs(40)).unwrap_or(now));
        reach.unanswered(false, now);
        assert!(reach.away_for().is_some_and(|away| away >= Duration::from_secs(40)));
        reach.answered(false);
        assert!(reach.away_for().is_none() && reach.doubts_writes());
        reach.answered(true);
        assert!(!reach.doubts_writes());
        reach.doubt_writes();
        assert!(reach.doubts_writes());
    }
}
