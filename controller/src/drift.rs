//! Objects that drifted: healed at once, and slower and slower when somebody keeps changing them back.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use manifests::ObjectId;
use tokio::time::Instant;

use crate::key::ObjectKey;

/// After this long without drift, an object is trusted again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// Heals in a row that are not put off.
const FREE_HEALS: u32 = 3;
/// The longest pause between two heals of one object.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Objects that drifted, by Sync.
#[derive(Default)]
pub struct Drift {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<ObjectKey, BTreeSet<ObjectId>>,
    history: HashMap<ObjectId, Heals>,
}

struct Heals {
    count: u32,
    last: Instant,
}

impl Drift {
    /// `id` drifted: how long to wait before it is healed.
    pub fn note(&self, sync: &ObjectKey, id: ObjectId, now: Instant) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = match state.history.get(&id) {
            Some(heals) if now - heals.last < FORGIVEN_AFTER => pause_after(heals.count),
            _ => Duration::ZERO,
        };
        state.waiting.entry(sync.clone()).or_default().insert(id);
        pause
    }

    /// How long to wait yet before `id` is healed once more.
    pub fn pause(&self, id: &ObjectId, now: Instant) -> Duration {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.history.get(id) {
            Some(heals) if now - heals.last < FORGIVEN_AFTER => {
                pause_after(heals.count).saturating_sub(now - heals.last)
            }
            _ => Duration::ZERO,
        }
    }

    /// The objects of `sync` that are to be healed now.
    pub fn take(&self, sync: &ObjectKey) -> BTreeSet<ObjectId> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(sync).unwrap_or_default()
    }

    /// `id` was healed: how many times in a row now.
    pub fn healed(&self, id: &ObjectId, now: Instant) -> u32 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.history.retain(|_, heals| now - heals.last < FORGIVEN_AFTER);
        let heals = state.history.entry(id.clone()).or_insert(Heals { count: 0, last: now });
        heals.count += 1;
        heals.last = now;
        heals.count
    }
}

fn pause_after(heals: u32) -> Duration {
    match heals.checked_sub(FREE_HEALS) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(1 << more.min(9)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ObjectId {
        ObjectId { group: String::new(), kind: "ConfigMap".into(), namespace: Some("ns".into()), name: name.into() }
    }

    #[test]
    fn two_writers_that_fight_slow_down_and_are_forgiven_later() {
        let (drift, sync) = (Drift::default(), ObjectKey::new("ns", "sync"));
        let now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pauses.push(drift.note(&sync, id("a"), now).as_secs());
            drift.healed(&id("a"), now);
        }
        assert_eq!(pauses, [0, 0, 0, 1, 2, 4, 8, 16]);
        assert_eq!(drift.note(&sync, id("b"), now), Duration::ZERO, "others are not held up");
        let later = now + FORGIVEN_AFTER + Duration::from_secs(1);
        assert_eq!(drift.note(&sync, id("a"), later), Duration::ZERO);
        assert_eq!(drift.take(&sync), BTreeSet::from([id("a"), id("b")]));
        assert!(drift.take(&sync).is_empty());
    }

    #[test]
    fn a_pause_passes() {
        let (drift, now) = (Drift::default(), Instant::now());
        for _ in 0..4 {
            assert_eq!(drift.pause(&id("b"), now), Duration::ZERO);
            drift.healed(&id("a"), now);
        }
        let pause = drift.pause(&id("a"), now);
        assert_eq!(pause, Duration::from_secs(2));
        assert_eq!(drift.pause(&id("a"), now + Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(drift.pause(&id("a"), now + pause), Duration::ZERO);
    }
}
