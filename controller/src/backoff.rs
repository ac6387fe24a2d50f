//! Pauses between tries, which double with each failure.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::ObjectKey;

/// Objects that fail, with the number of failures in a row.
#[derive(Default)]
pub struct Failing {
    failures: Mutex<HashMap<ObjectKey, Failure>>,
}

struct Failure {
    in_a_row: u32,
    /// What the attempt was for, for example a revision. An attempt for something else counts as the first attempt.
    tried: String,
    message: String,
}

impl Failing {
    /// Notes that an attempt of the object `key` failed. `tried` says what the attempt was for, for example a revision.
    /// Returns the number of failures in a row.
    pub fn note(&self, key: &ObjectKey, tried: &str, message: String) -> u32 {
        let mut failures = self.lock();
        let before = failures.remove(key).filter(|before| before.tried == tried).map_or(0, |before| before.in_a_row);
        let failure = Failure { in_a_row: before.saturating_add(1), tried: tried.into(), message };
        failures.entry(key.clone()).insert_entry(failure).get().in_a_row
    }

    /// Resets the count: `key` still fails, but its next failure counts as the first.
    pub fn start_over(&self, key: &ObjectKey) {
        if let Some(failure) = self.lock().get_mut(key) {
            failure.in_a_row = 0;
        }
    }

    /// Removes `key`, because it succeeded or no longer exists.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// The message of the last failure of `key`; `None` if the attempt that failed was not for `tries`.
    pub fn message(&self, key: &ObjectKey, tries: &str) -> Option<String> {
        self.lock().get(key).filter(|failure| failure.tried == tries).map(|failure| failure.message.clone())
    }

    /// Whether the last attempt of `key` failed.
    pub fn is_failing(&self, key: &ObjectKey) -> bool {
        self.lock().contains_key(key)
    }

    /// All objects whose last attempt failed.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Failure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause after `failures` in a row that happened because the API server did not answer. The pause is short, because
/// only another try shows whether the API server answers again.
pub(crate) fn outage(failures: u32) -> Duration {
    pause(failures, Duration::from_secs(1), Duration::from_secs(5))
}

/// The pause after `failures` in a row: `first` after one failure, twice as long after each further one, at most
/// `longest`. It is shortened at random by up to a quarter, so that many objects are not tried at the same moment.
pub(crate) fn pause(failures: u32, first: Duration, longest: Duration) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest.max(first));
    let random = RandomState::new().hash_one(failures).to_be_bytes()[0];
    let jitter = f64::from(random) / 1024.0;
    doubled.mul_f64(1.0 - jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(60));
        for (failures, expected) in [(1, 1.0), (2, 2.0), (4, 8.0), (7, 60.0), (400, 60.0)] {
            let pause = pause(failures, first, longest).as_secs_f64();
            assert!(pause <= expected && pause >= expected * 0.75, "{failures}: {pause}");
        }
    }

    #[test]
    fn a_failure_is_one_of_what_was_tried() {
        let (failing, key) = (Failing::default(), ObjectKey::new("a", "b"));
        assert_eq!(failing.note(&key, "first", "no".into()), 1);
        assert_eq!(failing.note(&key, "first", "still no".into()), 2);
        assert_eq!(failing.message(&key, "first").as_deref(), Some("still no"));
        assert_eq!(failing.message(&key, "second"), None, "it was not tried yet");
        assert_eq!(failing.note(&key, "second", "neither".into()), 1);
        assert_eq!(failing.message(&key, "first"), None);
        failing.forget(&key);
        assert_eq!(failing.message(&key, "second"), None);
    }
}
