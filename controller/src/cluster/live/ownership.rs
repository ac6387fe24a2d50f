//! Which Sync has which object, which Syncs wait for it, and how an object passes from one Sync to another.

use std::collections::{BTreeMap, BTreeSet};

use crds::ObjectKey;
use manifests::ObjectId;
use pipeline::FieldsDigest;

use super::{Change, Entry, Index, Live};

/// Which Sync has an object, and which Syncs want it.
#[derive(Default)]
pub(super) struct Claim {
    /// The Sync that has the object.
    pub(super) owner: Option<ObjectKey>,
    /// Syncs that want the object while another Sync has it. They are notified when the owner gives the object up.
    pub(super) waiting: Vec<ObjectKey>,
    /// The Sync that gave the object up for another Sync. It is notified when the other Sync has applied the object.
    pub(super) leaving: Option<Box<ObjectKey>>,
}

impl Entry {
    /// Makes `sync` the owner of the object, even if the object's labels name another Sync.
    fn own(&mut self, sync: &ObjectKey) {
        if self.claim.owner.as_ref() == Some(sync) {
            return;
        }
        self.disown();
        self.object.is_confirmed = self.object.says.as_deref() == Some(sync);
        self.object.says = self.object.says.take().filter(|_| !self.object.is_confirmed);
        self.claim.owner = Some(sync.clone());
    }

    /// Makes the object belong to no Sync.
    fn disown(&mut self) {
        let owner = self.claim.owner.take();
        if std::mem::take(&mut self.object.is_confirmed) {
            self.object.says = owner.map(Box::new);
        }
        self.object.let_go();
    }
}

impl Index {
    /// The Sync that the object's labels name; `None` if the object was not seen. A Secret that a SealedSecret owns
    /// belongs to the Sync that has the SealedSecret.
    fn said(&self, id: &ObjectId) -> Option<ObjectKey> {
        let live = |id: &ObjectId| {
            let entry = self.entries.get(id)?;
            Some((entry, entry.object.live.as_ref()?))
        };
        let (mut entry, object) = live(id)?;
        if let Some(uid) = object.secret.as_ref().and_then(|facts| facts.sealed_secret.as_deref()) {
            let (sealed, _) = live(&id.sealed_secret()).filter(|(_, sealed)| *sealed.uid == *uid)?;
            entry = sealed;
        }
        if entry.object.is_confirmed { entry.claim.owner.clone() } else { entry.object.says.as_deref().cloned() }
    }
}

impl Live {
    /// Makes `sync` the owner of `id`. If another Sync is the owner, the error is this other Sync.
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

    /// Makes `sync` the owner of `id`, because the stored inventory of `sync` has the object. `expected` is the digest
    /// of the fields that gitseal owned. If two inventories have the object, the owner is the Sync that the object's
    /// labels name, or if no such labels were seen, the Sync that was restored first. Returns whether `sync` is the
    /// owner.
    pub fn restore(&self, sync: &ObjectKey, id: &ObjectId, expected: Option<FieldsDigest>) -> bool {
        let is_listed = self.is_listed(id);
        let mut index = self.index();
        let said = index.said(id);
        let entry = index.entries.entry(id.clone()).or_default();
        // If two inventories have the object, a hand-over was in progress, or one of the statuses was forged. The Sync
        // that is not the owner is recorded as waiting for the object, because it may want the object.
        let waits = match entry.claim.owner.clone() {
            Some(owner) if owner == *sync => return true,
            Some(owner) if said.as_ref() == Some(sync) => {
                entry.claim.waiting.retain(|waiting| waiting != sync);
                Some(owner)
            }
            Some(_) => Some(sync.clone()),
            None => None,
        };
        let is_given = waits.as_ref() != Some(sync);
        let mut change = None;
        if is_given {
            entry.own(sync);
            entry.object.expected = expected;
            // Until the first list has arrived, no object is known to exist, so nothing is reported.
            change = (is_listed || entry.object.live.is_some()).then(|| entry.judge(id)).flatten();
        }
        if let Some(waits) = waits.filter(|waits| !entry.claim.waiting.contains(waits)) {
            entry.claim.waiting.push(waits.clone());
            index.waits.entry(waits).or_default().push(id.clone());
        }
        drop(index);
        if let Some(change) = change {
            self.send(change);
        }
        is_given
    }

    /// The Sync that the object's labels name; `None` if the object was not seen.
    pub fn says(&self, id: &ObjectId) -> Option<ObjectKey> {
        self.index().said(id)
    }

    /// Whether the watches have shown that the object `id` does not exist, or has no labels that name `sync`.
    pub fn is_seen_not_to_be_of(&self, sync: &ObjectKey, id: &ObjectId) -> bool {
        let is_listed = self.is_listed(id) && (!id.is_secret() || self.is_listed(&id.sealed_secret()));
        is_listed && self.says(id).as_ref() != Some(sync)
    }

    /// Records that `sync` wants `id`, which another Sync has. `sync` is notified when the other Sync gives the object
    /// up.
    pub fn wait_for(&self, sync: &ObjectKey, id: &ObjectId) {
        let mut index = self.index();
        let entry = index.entries.entry(id.clone()).or_default();
        let waits = entry.claim.owner.is_some() && !entry.claim.waiting.contains(sync);
        if waits {
            entry.claim.waiting.push(sync.clone());
        }
        // The owner may have given the object up in the meantime.
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

    /// Records that `sync` no longer waits for any object.
    pub fn stop_waiting(&self, sync: &ObjectKey) {
        let mut index = self.index();
        for id in index.waits.remove(sync).unwrap_or_default() {
            if let Some(entry) = index.entries.get_mut(&id) {
                entry.claim.waiting.retain(|waiting| waiting != sync);
            }
        }
    }

    /// The Syncs that wait for `id`.
    pub fn waiting(&self, id: &ObjectId) -> Vec<ObjectKey> {
        self.index().entries.get(id).map(|entry| entry.claim.waiting.clone()).unwrap_or_default()
    }

    /// Records that `sync` gives up the object `id` for the Sync `to`, and notifies `to`. When `to` has applied the
    /// object, `sync` is notified.
    pub fn hand_over(&self, sync: &ObjectKey, id: &ObjectId, to: &ObjectKey) {
        let mut index = self.index();
        let entry = index.entries.entry(id.clone()).or_default();
        if entry.claim.owner.as_ref().is_some_and(|owner| owner != sync) {
            return;
        }
        entry.disown();
        entry.claim.leaving = Some(Box::new(sync.clone()));
        // `to` is notified now. It also stays in the list of waiting Syncs until it looks at the object. A suspended
        // Sync does that only after it was resumed.
        let waits = entry.claim.waiting.contains(to);
        entry.claim.waiting.retain(|sync| sync != to);
        entry.claim.waiting.insert(0, to.clone());
        let waiting = entry.claim.waiting.clone();
        if !waits {
            index.waits.entry(to.clone()).or_default().push(id.clone());
        }
        drop(index);
        self.send(Change::Released { id: id.clone(), waiting });
    }

    /// If `sync` has the object `id`, gives the object up, and notifies the Syncs that wait for it.
    pub fn release(&self, sync: &ObjectKey, id: &ObjectId) {
        let mut index = self.index();
        let Some(entry) = index.entries.get_mut(id).filter(|entry| entry.claim.owner.as_ref() == Some(sync)) else {
            return;
        };
        entry.disown();
        let waiting = std::mem::take(&mut entry.claim.waiting);
        if entry.is_nothing() {
            index.entries.remove(id);
        }
        drop(index);
        if !waiting.is_empty() || id.is_sealed_secret() {
            self.send(Change::Released { id: id.clone(), waiting });
        }
    }

    /// Objects that no Sync has although their labels name one. No Sync will ever prune these objects.
    pub fn orphans(&self) -> BTreeMap<ObjectKey, BTreeSet<ObjectId>> {
        let mut orphans: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (id, entry) in &self.index().entries {
            if let (None, Some(_), Some(says)) = (&entry.claim.owner, &entry.object.live, &entry.object.says)
                && entry.claim.leaving.as_ref() != Some(says)
            {
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
