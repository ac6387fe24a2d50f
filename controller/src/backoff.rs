//! Pauses that double from failure to failure.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::key::ObjectKey;

/// Objects that fail, and how often in a row.
#[derive(Default)]
pub struct Failing {
    failures: Mutex<HashMap<ObjectKey, (u32, String)>>,
}

impl Failing {
    /// `key` failed: how often in a row now.
    pub fn note(&self, key: &ObjectKey, message: String) -> u32 {
        let mut failures = self.lock();
        let entry = failures.entry(key.clone()).or_default();
        entry.0 += 1;
        entry.1 = message;
        entry.0
    }

    /// `key` still fails, and its next failure counts as the first.
    pub fn start_over(&self, key: &ObjectKey) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.0 = 0;
        }
    }

    /// `key` is fine, or gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// Why `key` fails, if it does.
    pub fn message(&self, key: &ObjectKey) -> Option<String> {
        self.lock().get(key).map(|(_, message)| message.clone())
    }

    /// Everything that fails.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, (u32, String)>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause after `failures` in a row: doubling, with a quarter of jitter so that many do not come back at once.
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
}
