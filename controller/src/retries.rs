//! Syncs that are tried again at once, because what they waited for is there now.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crds::ObjectKey;

/// The Syncs that are to be tried at their next look.
#[derive(Default)]
pub struct Retries(Mutex<HashSet<ObjectKey>>);

impl Retries {
    /// `sync` is tried at its next look; whoever calls this enqueues it, and one that is gone is forgotten then.
    pub fn wake(&self, sync: &ObjectKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(sync.clone());
    }

    /// Whether `sync` was woken since the last time.
    pub fn take(&self, sync: &ObjectKey) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(sync)
    }
}
