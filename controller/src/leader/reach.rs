//! Whether the API server answers.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Whether requests get answers; clones share it. An answer is one that the API server gave itself, whatever it says;
/// that it has no store, or too much to do, is none.
#[derive(Clone, Debug, Default)]
pub struct Reach(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Since when no request got an answer.
    away_since: Option<Instant>,
    /// Whether a write waits for its answer for too long, or never got it, and none since got one.
    doubts_writes: bool,
}

impl Reach {
    /// A request got an answer.
    pub fn answered(&self, is_write: bool) {
        let mut state = self.lock();
        state.away_since = None;
        state.doubts_writes &= !is_write;
    }

    /// A request that was sent `since` got no answer.
    pub fn unanswered(&self, is_write: bool, since: Instant) {
        let mut state = self.lock();
        state.away_since.get_or_insert(since);
        state.doubts_writes |= is_write;
    }

    /// A write still waits for its answer.
    pub fn doubt_writes(&self) {
        self.lock().doubts_writes = true;
    }

    /// Whether the last thing that is known of writes is that one got no answer.
    pub fn doubts_writes(&self) -> bool {
        self.lock().doubts_writes
    }

    /// For how long no request got an answer; nothing when the last one did.
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
