//! Syncs that are tried again at once, because what they waited for has happened.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crds::ObjectKey;

/// The Syncs that are to be tried at their next reconcile.
#[derive(Default)]
pub struct Retries(Mutex<HashSet<ObjectKey>>);

impl Retries {
    /// `sync` is tried at its next reconcile. The caller puts it into the queue. A Sync that does not exist is
    /// forgotten then.
    pub fn wake(&self, sync: &ObjectKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(sync.clone());
    }

    /// Whether `sync` was woken since the last call.
    pub fn take(&self, sync: &ObjectKey) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(sync)
    }
}
