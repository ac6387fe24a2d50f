//! Which Sync has which object, who waits for it, and how it passes from one to the other.

use std::collections::{BTreeMap, BTreeSet};

use crds::ObjectKey;
use manifests::ObjectId;
use pipeline::FieldsDigest;

use super::{Change, Entry, Live};

/// Who has one object, and who wants it.
#[derive(Default)]
pub(super) struct Claim {
    /// The Sync that has it.
    pub(super) owner: Option<ObjectKey>,
    /// Syncs that were refused the object; told of when the owner lets go of it.
    pub(super) waiting: Vec<ObjectKey>,
    /// The Sync that gave it up for another one, and is told when that one has applied it.
    pub(super) leaving: Option<ObjectKey>,
}

impl Entry {
    /// The object is `sync`'s from now on, whatever its labels say.
    fn own(&mut self, sync: &ObjectKey) {
        self.claim.owner = Some(sync.clone());
        self.object.says = self.object.says.take().filter(|says| **says != *sync);
    }
}

impl Live {
    /// Takes `id` for `sync`; the owner if it is another Sync's.
    pub fn claim(&self, sync: &ObjectKey, id: &ObjectId) -> Result<(), ObjectKey> {
        let mut index = self.index();
        let entry = index.entries.entry(id.clone()).or_default();
        match &entry.claim.owner {
            Some(owner) if owner != sync => Err(owner.clone()),
            _ => {
                entry.own(sync);
                Ok(())
            }
        }
    }

    /// Takes `id` for `sync` as a stored inventory says, with the fields that it owned.
    pub fn restore(&self, sync: &ObjectKey, id: &ObjectId, expected: Option<FieldsDigest>) {
        let is_listed = self.is_listed(id);
        let mut index = self.index();
        let entry = index.entries.entry(id.clone()).or_default();
        if let Some(owner) = &entry.claim.owner {
            // Two inventories hold it: a hand-over was under way. Whoever has it now learns that the other one may want it.
            if owner != sync && !entry.claim.waiting.contains(sync) {
                entry.claim.waiting.push(sync.clone());
                index.waits.entry(sync.clone()).or_default().push(id.clone());
            }
            return;
        }
        entry.own(sync);
        entry.object.expected = expected;
        // Before the first list nothing is live, and that says nothing; the list will.
        let change = (is_listed || entry.object.live.is_some()).then(|| entry.judge(id)).flatten();
        drop(index);
        if let Some(change) = change {
            self.send(change);
        }
    }

    /// `sync` was refused `id`: it is told when the owner lets go of it.
    pub fn wait_for(&self, sync: &ObjectKey, id: &ObjectId) {
        let mut index = self.index();
        let entry = index.entries.entry(id.clone()).or_default();
        let waits = entry.claim.owner.is_some() && !entry.claim.waiting.contains(sync);
        if waits {
            entry.claim.waiting.push(sync.clone());
        }
        // The owner may have let go since.
        let is_free = entry.claim.owner.is_none();
        if entry.is_nothing() {
            index.entries.remove(id);
        }
        if waits {
            index.waits.entry(sync.clone()).or_default().push(id.clone());
        }
        drop(index);
        if is_free {
            self.send(Change::Released { id: id.clone(), waiting: vec![sync.clone()] });
        }
    }

    /// `sync` waits for nothing any more.
    pub fn stop_waiting(&self, sync: &ObjectKey) {
        let mut index = self.index();
        for id in index.waits.remove(sync).unwrap_or_default() {
            if let Some(entry) = index.entries.get_mut(&id) {
                entry.claim.waiting.retain(|waiting| waiting != sync);
            }
        }
    }

    /// The Syncs that were refused `id` and wait for it.
    pub fn waiting(&self, id: &ObjectId) -> Vec<ObjectKey> {
        self.index().entries.get(id).map(|entry| entry.claim.waiting.clone()).unwrap_or_default()
    }

    /// Gives `id` up for the Sync `to`, which is told now; `sync` is told when it was applied there.
    pub fn hand_over(&self, sync: &ObjectKey, id: &ObjectId, to: &ObjectKey) {
        let mut index = self.index();
        let entry = index.entries.entry(id.clone()).or_default();
        if entry.claim.owner.as_ref().is_some_and(|owner| owner != sync) {
            return;
        }
        entry.claim.owner = None;
        entry.object.let_go();
        entry.claim.leaving = Some(sync.clone());
        let mut waiting = std::mem::take(&mut entry.claim.waiting);
        waiting.retain(|sync| sync != to);
        waiting.insert(0, to.clone());
        drop(index);
        self.send(Change::Released { id: id.clone(), waiting });
    }

    /// Gives `id` up, and tells who was refused it.
    pub fn release(&self, sync: &ObjectKey, id: &ObjectId) {
        let mut index = self.index();
        let Some(entry) = index.entries.get_mut(id).filter(|entry| entry.claim.owner.as_ref() == Some(sync)) else {
            return;
        };
        entry.claim.owner = None;
        entry.object.let_go();
        let waiting = std::mem::take(&mut entry.claim.waiting);
        if entry.is_nothing() {
            index.entries.remove(id);
        }
        drop(index);
        if !waiting.is_empty() || id.is_sealed_secret() {
            self.send(Change::Released { id: id.clone(), waiting });
        }
    }

    /// Objects that were applied for a Sync, by what they say, and that no Sync has: nobody will ever prune them.
    pub fn orphans(&self) -> BTreeMap<ObjectKey, BTreeSet<ObjectId>> {
        let mut orphans: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (id, entry) in &self.index().entries {
            if let (None, Some(_), Some(says)) = (&entry.claim.owner, &entry.object.live, &entry.object.says) {
                orphans.entry((**says).clone()).or_default().insert(id.clone());
            }
        }
        orphans
    }

    /// Number of objects that belong to a Sync.
    pub fn owned(&self) -> usize {
        self.index().entries.values().filter(|entry| entry.claim.owner.is_some()).count()
    }
}
