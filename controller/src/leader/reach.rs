//! Records whether the API server answers.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Whether the API server answers requests. Clones share this state. A request counts as answered even if the answer is
/// an error. But a read does not count as answered if the answer only says that the API server cannot reach its store
/// or has too much to do.
#[derive(Clone, Debug, Default)]
pub struct Reach(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// When the last request was answered.
    answered_at: Option<Instant>,
    /// The time since which no request was answered; `None` if the last request was answered.
    away_since: Option<Instant>,
    /// Whether the answer to a write is late or never came, and no later write was answered.
    doubts_writes: bool,
    /// When the API server last gave a sign that it works.
    worked_at: Option<Instant>,
    /// The time since which the API server answers with errors of its own (5xx), without a sign that it works; `None`
    /// if it works.
    failing_since: Option<Instant>,
}

impl Reach {
    /// Records that a request was answered.
    pub fn answered(&self, is_write: bool) {
        let mut state = self.lock();
        state.answered();
        state.doubts_writes &= !is_write;
        if is_write {
            state.works();
        }
    }

    /// Records that a request, which was sent at `since`, was answered with an error of the API server itself. A single
    /// request may fail in this way although the API server works, for example because of an admission webhook.
    pub fn failed(&self, is_write: bool, since: Instant) {
        let mut state = self.lock();
        // The request may be older than the last sign that the API server works.
        let since = state.worked_at.map_or(since, |worked| worked.max(since));
        state.failing_since.get_or_insert(since);
        if is_write {
            // Although the write failed, the API server answers.
            state.answered();
            state.doubts_writes = false;
        }
    }

    /// Records that the API server says that it works.
    pub fn healthy(&self) {
        self.lock().works();
    }

    /// How long the API server has answered with errors of its own, without a sign that it works; `None` if it works.
    pub fn failing_for(&self) -> Option<Duration> {
        self.lock().failing_since.map(|since| since.elapsed())
    }

    /// Records that a request, which was sent at `since`, was not answered.
    pub fn unanswered(&self, is_write: bool, since: Instant) {
        let mut state = self.lock();
        // Other requests may have been answered since this one was sent.
        let since = state.answered_at.map_or(since, |answered| answered.max(since));
        state.away_since.get_or_insert(since);
        state.doubts_writes |= is_write;
    }

    /// Records that a write has been waiting too long for its answer.
    pub fn doubt_writes(&self) {
        self.lock().doubts_writes = true;
    }

    /// Whether the answer to a write is late or never came, and no later write was answered.
    pub fn doubts_writes(&self) -> bool {
        self.lock().doubts_writes
    }

    /// How long no request has been answered; `None` if the last request was answered.
    pub fn away_for(&self) -> Option<Duration> {
        self.lock().away_since.map(|since| since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn answered(&mut self) {
        self.answered_at = Some(Instant::now());
        self.away_since = None;
    }

    fn works(&mut self) {
        self.worked_at = Some(Instant::now());
        self.failing_since = None;
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

    #[test]
    fn errors_of_the_api_server_count_until_something_works() {
        let reach = Reach::default();
        let now = Instant::now();
        let before = now.checked_sub(Duration::from_secs(40)).unwrap_or(now);
        reach.failed(true, before);
        reach.failed(false, now);
        reach.answered(false);
        assert!(reach.failing_for().is_some_and(|failing| failing >= Duration::from_secs(40)));
        assert!(reach.away_for().is_none() && !reach.doubts_writes(), "it answers");
        reach.healthy();
        assert!(reach.failing_for().is_none());
        reach.failed(false, now);
        reach.answered(true);
        assert!(reach.failing_for().is_none(), "a write needs the store");
    }

    #[test]
    fn what_was_sent_before_the_last_good_answer_tells_of_no_longer_outage() {
        let reach = Reach::default();
        let now = Instant::now();
        let before = now.checked_sub(Duration::from_secs(40)).unwrap_or(now);
        reach.healthy();
        reach.failed(false, before);
        assert!(reach.failing_for().is_some_and(|failing| failing < Duration::from_secs(30)));
        reach.answered(false);
        reach.unanswered(false, before);
        assert!(reach.away_for().is_some_and(|away| away < Duration::from_secs(30)));
    }
}
