//! Our writes in progress. What the watch shows during a write may be the effect of this write.

use manifests::ObjectId;

use super::{Change, Live, LiveObject, objects::End};
use crate::cluster::Written;

/// A write in progress; see [`Live::begin`]. If this value is dropped without a call of [`Writing::applied`], the write
/// failed, so the changes that the watch showed in the meantime were made by others.
pub struct Writing<'a> {
    live: &'a Live,
    id: ObjectId,
    /// How many writes, of all objects together, had finished when this write began.
    writes: u64,
    /// How many changes, of all objects together, the watches had shown when this write began.
    observations: u64,
}

impl Writing<'_> {
    /// Records that the write succeeded. From now on, the fields that we own are expected to stay as they are.
    pub fn applied(self, applied: &Written) {
        let mut index = self.live.index();
        index.writes += 1;
        let writes = index.writes;
        let entry = index.entries.entry(self.id.clone()).or_default();
        let was_overtaken = entry.object.written > self.writes;
        entry.object.written = writes;
        if was_overtaken && applied.resource_version < entry.object.applied_version {
            return;
        }
        let left = entry.claim.leaving.take();
        entry.object.expected = applied.fields;
        entry.object.is_made = applied.created;
        entry.object.says = None;
        entry.object.is_confirmed = entry.claim.owner.is_some();
        entry.object.applied_version = applied.resource_version;
        // If the watch last showed the object before this write began, the written object is newer. Comparing versions
        // is not enough to find this out, because versions may be lower after the API server's store was restored.
        let seen_since = entry.object.observed > self.observations;
        let known = entry.object.live.as_ref().map_or(entry.object.gone_version, |live| live.version);
        if !seen_since || known <= applied.resource_version {
            entry.object.live = Some(LiveObject {
                uid: applied.uid.as_str().into(),
                version: applied.resource_version,
                fields: applied.fields,
                secret: applied.secret.clone(),
                expires: applied.expires,
                going: applied.going.is_some(),
                kept: applied.kept,
                owners: None,
            });
            entry.object.end = End::Unseen;
        }
        drop(index);
        if let Some(left) = left {
            self.live.send(Change::Released { id: self.id.clone(), waiting: vec![*left] });
        }
    }

    /// Records that we deleted the object.
    pub fn deleted(self) {
        if let Some(entry) = self.live.index().entries.get_mut(&self.id) {
            entry.object.expected = None;
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut index = self.live.index();
        let Some(entry) = index.entries.get_mut(&self.id) else {
            return;
        };
        entry.object.in_flight = entry.object.in_flight.saturating_sub(1);
        if entry.object.in_flight > 0 {
            return;
        }
        let change = entry.judge(&self.id);
        if entry.is_nothing() {
            index.entries.remove(&self.id);
        }
        drop(index);
        if let Some(change) = change {
            self.live.send(change);
        }
    }
}

impl Live {
    /// Records that we begin to write `id`. Whether a change that the watch shows during the write is drift is decided
    /// only after the write has ended.
    pub fn begin(&self, id: &ObjectId) -> Writing<'_> {
        let mut index = self.index();
        index.entries.entry(id.clone()).or_default().object.in_flight += 1;
        let (writes, observations) = (index.writes, index.observations);
        Writing { live: self, id: id.clone(), writes, observations }
    }
}
