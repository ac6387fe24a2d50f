//! The Syncs that are tried again at once, because what they waited for has happened.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crds::ObjectKey;

/// The Syncs that are to be tried at their next reconcile, even if the pause after a failure is not over.
#[derive(Default)]
pub struct Retries(Mutex<HashSet<ObjectKey>>);

impl Retries {
    /// Notes that `sync` is to be tried at its next reconcile. The caller also puts it into the queue. If the Sync does
    /// not exist, the reconcile removes this note.
    pub fn wake(&self, sync: &ObjectKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(sync.clone());
    }

    /// Whether [`Retries::wake`] was called for `sync` since the last call of this function.
    pub fn take(&self, sync: &ObjectKey) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(sync)
    }
}
