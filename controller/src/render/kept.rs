//! Keeps the objects of folders in memory if they will probably be needed again: a folder in which objects drifted once
//! often drifts again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Content, Rendered};
use crate::memory::Spare;

/// The folders that were used last, as many as fit into a share of the memory budget.
pub(super) struct Kept {
    most: u64,
    /// The kept folders. The folder that was used last is at the end.
    folders: Mutex<Vec<Arc<Rendered>>>,
}

impl Kept {
    /// Keeps folders with at most `most` bytes together.
    pub(super) fn new(most: u64) -> Self {
        Self { most, folders: Mutex::default() }
    }

    pub(super) fn get(&self, content: &Content) -> Option<Arc<Rendered>> {
        let mut folders = self.lock();
        let place = folders.iter().position(|kept| kept.content == *content)?;
        let kept = folders.remove(place);
        folders.push(kept.clone());
        Some(kept)
    }

    pub(super) fn insert(&self, rendered: &Arc<Rendered>) {
        let mut folders = self.lock();
        folders.retain(|kept| kept.content != rendered.content);
        let mut bytes = rendered.bytes();
        // The sizes are added up from the end, so that the folders that were used last are kept.
        let first = folders.iter().rposition(|kept| {
            bytes = bytes.saturating_add(kept.bytes());
            bytes > self.most
        });
        let dropped: Vec<_> = folders.drain(..first.map_or(0, |place| place + 1)).collect();
        if rendered.bytes() <= self.most {
            folders.push(rendered.clone());
        }
        drop(folders);
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Rendered>>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spare for Kept {
    fn give_up(&self) -> bool {
        // The folders are dropped outside of the lock, because dropping them gives their memory to those who wait for
        // it.
        let folders = std::mem::take(&mut *self.lock());
        !folders.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use gitstore::ContentId;
    use pipeline::{Manifests, Room as _};

    use super::*;
    use crate::memory::Memory;

    const MIB: u64 = 1 << 20;

    fn content(name: &str) -> Content {
        Content { namespace: "team".into(), identity: ContentId::of_text(name) }
    }

    async fn rendered(memory: &Memory, name: &str, bytes: u64) -> Arc<Rendered> {
        let mut taken = memory.some("team").await;
        assert!(taken.reserve(bytes));
        taken.use_up(bytes);
        taken.shrink();
        Arc::new(Rendered {
            manifests: Manifests { objects: Vec::new() },
            notes: None,
            content: content(name),
            closure: None,
            is_stored: AtomicBool::new(false),
            memory: taken,
        })
    }

    #[tokio::test]
    async fn who_was_asked_for_last_stays() {
        let (memory, kept) = (Memory::new(100 * MIB), Kept::new(10 * MIB));
        for name in ["a", "b", "c"] {
            kept.insert(&rendered(&memory, name, 3 * MIB).await);
        }
        assert!(kept.get(&content("a")).is_some());
        kept.insert(&rendered(&memory, "d", 4 * MIB).await);
        let stays: Vec<_> =
            ["a", "b", "c", "d"].into_iter().filter(|name| kept.get(&content(name)).is_some()).collect();
        assert_eq!(stays, ["a", "c", "d"]);
        assert_eq!(memory.gate().taken(), 10 * MIB);
        kept.insert(&rendered(&memory, "large", 11 * MIB).await);
        assert!(kept.get(&content("large")).is_none(), "it is more than all that is kept");
    }

    #[tokio::test]
    async fn whoever_needs_the_memory_gets_it() {
        let (memory, kept) = (Memory::new(100 * MIB), Arc::new(Kept::new(30 * MIB)));
        memory.gives_up(kept.clone());
        kept.insert(&rendered(&memory, "a", 30 * MIB).await);
        let mut other = memory.most("team").await;
        assert!(other.is_most() && kept.get(&content("a")).is_none());
        drop(other);
        kept.insert(&rendered(&memory, "a", 30 * MIB).await);
        other = memory.some("team").await;
        assert!(other.reserve(30 * MIB), "it grows at the expense of what is kept");
    }
}
