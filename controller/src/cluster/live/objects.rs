//! The current state of every object, and whether the object still is as it was applied.

use std::{collections::HashSet, sync::MutexGuard};

use ::fields::Expired;
use crds::{Difference, ObjectKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use manifests::ObjectId;
use pipeline::{FieldsDigest, plan::left_to_managers};

use super::{Change, Entry, Index, Live, watch::live_object};
use crate::cluster::{SecretFacts, answer::resource_version};

/// An object as the watch last showed it.
#[derive(Clone, Debug)]
pub struct LiveObject {
    /// UID.
    pub uid: Box<str>,
    /// Resource version.
    pub version: u64,
    /// Digest of those fields of the object that gitseal owns.
    pub fields: Option<FieldsDigest>,
    /// Only for a Secret: the facts that decide whether a SealedSecret may write the Secret.
    pub secret: Option<Box<SecretFacts>>,
    /// If the object is a Job with a time to live that is complete or being deleted: how it ended.
    pub expires: Option<Expired>,
    /// Whether the object is being deleted.
    pub going: bool,
    /// Whether the object has the annotation that keeps it from being pruned.
    pub kept: bool,
    /// The `managedFields` of the object, which show who changed it. They are kept only while the object differs from
    /// what was applied.
    pub owners: Option<Box<[ManagedFieldsEntry]>>,
}

/// The facts about one object that do not depend on the Sync that owns it.
#[derive(Default)]
pub(super) struct Object {
    pub(super) expected: Option<FieldsDigest>,
    /// Resource version of our last write. Events that show an older version are ignored.
    pub(super) applied_version: u64,
    /// Resource version at which the object was last seen as deleted.
    pub(super) gone_version: u64,
    /// How many of our writes had finished, of all objects together, when the last one of this object finished; see
    /// [`Live::sweep`].
    pub(super) written: u64,
    /// Whether our last write created the object.
    pub(super) is_made: bool,
    /// Number of our writes of this object that are in progress.
    pub(super) in_flight: u32,
    /// How many observations there had been, of all objects together, when this object was last observed.
    pub(super) observed: u64,
    pub(super) awaited: bool,
    pub(super) live: Option<LiveObject>,
    /// The Sync that the object's labels name, if this Sync is not the owner of the object.
    pub(super) says: Option<Box<ObjectKey>>,
    /// Whether the object's labels name the owner of the object.
    pub(super) is_confirmed: bool,
    /// If the object does not exist: how it disappeared.
    pub(super) end: End,
    /// The difference that the last [`Change::Drifted`] reported.
    pub(super) reported: Option<Touched>,
}

/// How an object that does not exist disappeared.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum End {
    /// The controller did not see it: the object was deleted while no watch was running, or it never existed.
    #[default]
    Unseen,
    /// Somebody deleted the object.
    CutShort,
    /// The object was a Job that ended, and Kubernetes deleted it after its time to live.
    Expired(Expired),
}

/// How an object differs from what was applied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Touched {
    Gone,
    /// The object is being deleted.
    Going,
    /// The object's labels name another Sync.
    Taken,
    Fields(Option<FieldsDigest>),
    /// The object is a Secret that has, besides our values, this many values of others.
    Mixed(usize),
}

/// A change of an object that must be reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum News {
    /// The object differs from what was applied.
    Drifted,
    /// The object changed, and a Sync waits until it is healthy.
    Progressed,
}

impl Object {
    /// How the object differs from what was applied. `None` if it does not differ, or if nothing was applied.
    pub(super) fn touched(&self, is_owned: bool) -> Option<Touched> {
        self.expected?;
        match &self.live {
            None if matches!(self.end, End::Expired(_)) => None,
            None => Some(Touched::Gone),
            // A Job that Kubernetes deletes after its time to live does not count as changed. Neither does a Secret
            // that is being deleted and belongs to no Sync.
            Some(live) if live.going && is_owned && live.expires.is_none() => Some(Touched::Going),
            Some(live) if live.fields != self.expected => Some(Touched::Fields(live.fields)),
            // All Syncs apply under the same field manager, so only the labels show that another Sync has applied the
            // object.
            Some(_) if is_owned && self.says.is_some() => Some(Touched::Taken),
            Some(LiveObject { secret: Some(facts), .. }) if facts.is_mixed() => {
                Some(Touched::Mixed(facts.foreign_values.len()))
            }
            Some(_) => None,
        }
    }

    /// The change that must be reported, unless the same change was reported before.
    pub(super) fn judge(&mut self, is_owned: bool) -> Option<News> {
        let touched = self.touched(is_owned);
        if let (None, Some(live)) = (touched, &mut self.live) {
            live.owners = None;
        }
        if !is_owned {
            return None;
        }
        let is_news = touched.is_some() && touched != self.reported;
        self.reported = touched;
        if is_news {
            Some(News::Drifted)
        } else if self.awaited {
            Some(News::Progressed)
        } else {
            None
        }
    }

    /// Forgets all resource versions. The next ones may be lower, because the API server's store may have been restored
    /// from a backup.
    pub(super) fn forget_versions(&mut self) {
        self.applied_version = 0;
        self.gone_version = 0;
        if let Some(live) = &mut self.live {
            live.version = 0;
        }
    }

    /// Forgets what was applied, because the owner gives the object up.
    pub(super) fn let_go(&mut self) {
        self.expected = None;
        self.reported = None;
        self.awaited = false;
    }

    /// Whether the object does not exist and no write of it is in progress.
    pub(super) fn is_nothing(&self) -> bool {
        self.live.is_none() && self.in_flight == 0
    }
}

impl Live {
    /// Stores what a read of a Secret showed: its metadata, or `None` if the Secret does not exist. This is for a
    /// controller that does not watch Secrets.
    pub fn note_read(&self, id: &ObjectId, meta: Option<&ObjectMeta>) {
        if let Some(meta) = meta {
            return self.observe(id.clone(), resource_version(meta), Some(live_object(meta, true)), None);
        }
        let index = self.index();
        if index.entries.get(id).is_some_and(|entry| entry.object.in_flight == 0) {
            self.replace(index, id.clone(), None);
        }
    }

    /// The state in which the object was last seen.
    pub fn get(&self, id: &ObjectId) -> Option<LiveObject> {
        self.index().entries.get(id)?.object.live.clone()
    }

    /// If the object was a Job that ended and that Kubernetes deleted after its time to live: how it ended.
    pub fn expired(&self, id: &ObjectId) -> Option<Expired> {
        match self.index().entries.get(id).map(|entry| &entry.object)? {
            Object { live: None, end: End::Expired(how), .. } => Some(*how),
            _ => None,
        }
    }

    /// Whether a write of ours to the object is in progress. Until this write ends, the known state of the object may
    /// be the one before or the one after the write.
    pub fn is_being_written(&self, id: &ObjectId) -> bool {
        self.index().entries.get(id).is_some_and(|entry| entry.object.in_flight > 0)
    }

    /// The digest of the fields that we owned after the last apply.
    pub fn expected(&self, id: &ObjectId) -> Option<FieldsDigest> {
        self.index().entries.get(id)?.object.expected
    }

    /// The resource version at which the object was last seen; `None` if the versions were forgotten since then, see
    /// `forget_versions`.
    pub fn version(&self, id: &ObjectId) -> Option<u64> {
        let version = self.index().entries.get(id)?.object.live.as_ref()?.version;
        (version > 0).then_some(version)
    }

    /// Whether we created the object and nobody has written to it since then, not even to its status.
    pub fn is_as_made(&self, id: &ObjectId) -> bool {
        self.index().entries.get(id).map(|entry| &entry.object).is_some_and(|object| {
            object.is_made && object.live.as_ref().is_some_and(|live| live.version == object.applied_version)
        })
    }

    /// Sets whether [`Change::Progressed`] is reported for `id` from now on.
    pub fn await_health(&self, id: &ObjectId, awaited: bool) {
        if let Some(entry) = self.index().entries.get_mut(id) {
            entry.object.awaited = awaited;
        }
    }

    /// Stops assuming that objects are as they were applied, because the API server shows an earlier state. The digests
    /// of fields cannot show which objects went back: they depend on who owns a field, not on its value.
    pub fn distrust(&self) {
        {
            let mut index = self.index();
            for entry in index.entries.values_mut() {
                entry.object.expected = None;
                entry.object.reported = None;
            }
        }
        self.send(Change::WentBack);
    }

    /// Records that the watch showed `id` at `version`. `live` is `None` if the object was deleted.
    pub(super) fn observe(&self, id: ObjectId, version: u64, live: Option<LiveObject>, says: Option<ObjectKey>) {
        let mut index = self.index();
        index.observations += 1;
        let observed = index.observations;
        let entry = index.entries.entry(id.clone()).or_default();
        let known = entry.object.live.as_ref().map(|live| live.version);
        if version < entry.object.applied_version || known.is_some_and(|known| version < known) {
            return;
        }
        if live.is_none() {
            entry.object.gone_version = version;
        }
        entry.object.observed = observed;
        entry.object.is_confirmed = says.is_some() && says == entry.claim.owner;
        entry.object.says = says.filter(|_| !entry.object.is_confirmed).map(Box::new);
        self.replace(index, id, live);
    }

    /// Records that a list after a failed watch shows `id`. When the list was requested, `writes` writes of ours had
    /// ended. What the list shows is taken as the current state, unless we have written the object since then. Returns
    /// whether the list shows the object at an earlier version than was seen before.
    pub(super) fn relist(
        &self,
        id: ObjectId,
        version: u64,
        live: LiveObject,
        says: Option<ObjectKey>,
        writes: u64,
    ) -> bool {
        let mut index = self.index();
        let entry = index.entries.entry(id.clone()).or_default();
        if entry.object.in_flight > 0 || entry.object.written > writes {
            drop(index);
            self.observe(id, version, Some(live), says);
            return false;
        }
        let known = entry.object.live.as_ref().map_or(0, |live| live.version).max(entry.object.applied_version);
        entry.object.forget_versions();
        drop(index);
        self.observe(id, version, Some(live), says);
        version < known
    }

    /// Records the `ignoreDifferences` of a Sync. Which fields are left to the field managers that they name is a part of the
    /// digest of what is expected, so this must be recorded before the objects of the Sync are seen or written.
    pub fn leaves(&self, sync: &ObjectKey, differences: &[Difference]) {
        let mut index = self.index();
        let left: Vec<_> = differences.iter().filter(|one| !one.managers.is_empty()).cloned().collect();
        if left.is_empty() {
            index.left.remove(sync);
        } else if index.left.get(sync).is_none_or(|known| **known != *left) {
            index.left.insert(sync.clone(), left.into());
        }
    }

    /// Stores `live` as the current state of `id`, and reports the change if it concerns a Sync or a SealedSecret.
    fn replace(&self, mut index: MutexGuard<'_, Index>, id: ObjectId, mut live: Option<LiveObject>) {
        let Index { entries, left, .. } = &mut *index;
        let Some(entry) = entries.get_mut(&id) else {
            return;
        };
        if let (Some(live), Some(owner)) = (&mut live, &entry.claim.owner)
            && let Some(differences) = left.get(owner)
        {
            live.fields = FieldsDigest::beside(live.owners.as_deref(), &left_to_managers(differences, &id));
        }
        let before = std::mem::replace(&mut entry.object.live, live);
        let facts =
            |live: &Option<LiveObject>| live.as_ref().map(|live| (live.uid.clone(), live.fields, live.secret.clone()));
        let secret_changed = id.is_secret() && facts(&before) != facts(&entry.object.live);
        match (&before, &entry.object.live) {
            (_, Some(_)) => entry.object.end = End::Unseen,
            (Some(before), None) => {
                entry.object.end = match before.expires {
                    Some(how) => End::Expired(how),
                    None => End::CutShort,
                }
            }
            (None, None) => {}
        }
        let version = |live: &Option<LiveObject>| live.as_ref().map(|live| live.version);
        let is_known = before.is_some() && version(&before) == version(&entry.object.live);
        let change = if entry.object.in_flight == 0 { entry.judge(&id) } else { None };
        if entry.is_nothing() {
            index.entries.remove(&id);
        }
        drop(index);
        // If the watch shows a write of ours that the API server's answer already reported, this does not count as
        // progress.
        if let Some(change) = change.filter(|change| !is_known || !matches!(change, Change::Progressed { .. })) {
            self.send(change);
        }
        if secret_changed {
            self.send(Change::Secret(ObjectKey::new(id.namespace.unwrap_or_default(), id.name)));
        }
    }

    /// Number of our writes that have ended so far.
    pub(super) fn writes(&self) -> u64 {
        self.index().writes
    }

    /// `seen` are the objects in a new list of one namespace or of all namespaces. Records that the objects of the kind
    /// that are missing in this list are gone. When the list was requested, `writes` writes of ours had ended. An
    /// object that we have written since then may be newer than the list, so the list says nothing about this object.
    pub(super) fn sweep(&self, watched: (&str, &str, Option<&str>), seen: &HashSet<ObjectId>, writes: u64) {
        let (group, kind, namespace) = watched;
        let gone: Vec<_> = self
            .index()
            .entries
            .iter()
            .filter(|(id, _)| id.group == group && id.kind == kind && !seen.contains(*id))
            .filter(|(id, _)| namespace.is_none() || id.namespace.as_deref() == namespace)
            .filter(|(_, entry)| entry.object.in_flight == 0 && entry.object.written <= writes)
            .filter(|(_, entry)| entry.object.live.is_some() || entry.object.expected.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            let mut index = self.index();
            let still = |entry: &&mut Box<Entry>| entry.object.in_flight == 0 && entry.object.written <= writes;
            if let Some(entry) = index.entries.get_mut(&id).filter(still) {
                entry.object.forget_versions();
                self.replace(index, id, None);
            }
        }
    }
}
