//! Remembers which objects are in the folders of Syncs that have not applied these objects yet.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crds::ObjectKey;
use manifests::ObjectId;

/// Remembers which objects are in the folders of Syncs that still have to apply them, so that each content of a folder
/// is read only once.
#[derive(Default)]
pub struct Wants(Mutex<State>);

#[derive(Default)]
struct State {
    folders: HashMap<ObjectKey, (String, Read)>,
    /// For each Sync: the other Syncs whose folders could not be read for it, because there was no memory.
    put_off: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
}

/// The objects in a folder, or why the folder can never be read with this content.
pub(super) type Read = Result<Arc<BTreeSet<ObjectId>>, Arc<str>>;

impl Wants {
    pub(super) fn of(&self, sync: &ObjectKey, content: &str) -> Option<Read> {
        let state = self.lock();
        state.folders.get(sync).filter(|(known, _)| known == content).map(|(_, read)| read.clone())
    }

    pub(super) fn remember(&self, sync: &ObjectKey, content: &str, read: Read) {
        self.lock().folders.insert(sync.clone(), (content.to_owned(), read));
    }

    pub(super) fn put_off(&self, who: &ObjectKey, sync: &ObjectKey) {
        self.lock().put_off.entry(who.clone()).or_default().insert(sync.clone());
    }

    pub(super) fn take_put_off(&self, who: &ObjectKey) -> BTreeSet<ObjectKey> {
        self.lock().put_off.remove(who).unwrap_or_default()
    }

    /// Forgets a Sync that has applied its folder or no longer exists.
    pub(in crate::sync) fn forget(&self, sync: &ObjectKey) {
        let mut state = self.lock();
        state.folders.remove(sync);
        state.put_off.remove(sync);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_once_whether_or_not_that_can_be_done() {
        let (wants, sync, who) = (Wants::default(), ObjectKey::new("ns", "other"), ObjectKey::new("ns", "who"));
        wants.remember(&sync, "one", Err("it is too large".into()));
        assert!(wants.of(&sync, "one").is_some_and(|read| read.is_err()));
        assert!(wants.of(&sync, "two").is_none(), "another content may be better");
        wants.remember(&sync, "two", Ok(Arc::default()));
        assert!(wants.of(&sync, "two").is_some_and(|read| read.is_ok()));
        wants.put_off(&who, &sync);
        assert_eq!(wants.take_put_off(&who), BTreeSet::from([sync.clone()]));
        assert_eq!(wants.take_put_off(&who), BTreeSet::new());
        wants.forget(&sync);
        assert!(wants.of(&sync, "two").is_none());
    }
}
