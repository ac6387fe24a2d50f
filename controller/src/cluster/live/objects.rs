//! The current state of every object, and whether it is as it was applied.

use std::{collections::HashSet, sync::MutexGuard};

use crds::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use manifests::ObjectId;
use pipeline::FieldsDigest;

use super::{Change, Entry, Index, Live, watch::live_object};
use crate::cluster::{SecretFacts, answer::resource_version};

/// An object as the watch last showed it.
#[derive(Clone, Debug)]
pub struct LiveObject {
    /// UID.
    pub uid: Box<str>,
    /// Resource version.
    pub version: u64,
    /// Digest of the fields that gitseal owns in it.
    pub fields: Option<FieldsDigest>,
    /// Only for Secrets: the facts that decide whether a SealedSecret may write to it.
    pub secret: Option<Box<SecretFacts>>,
    /// Whether it is a Job with a time to live that is complete or being deleted.
    pub expires: bool,
    /// Whether it is being deleted.
    pub going: bool,
    /// Whether it has the annotation that keeps it from being pruned.
    pub kept: bool,
    /// Its `managedFields`, but only if the object was changed: they show who changed it.
    pub owners: Option<Box<[ManagedFieldsEntry]>>,
}

/// The facts about one object, independent of the Sync that has it.
#[derive(Default)]
pub(super) struct Object {
    pub(super) expected: Option<FieldsDigest>,
    /// Resource version of our last write. Events with an older version are ignored.
    pub(super) applied_version: u64,
    /// Resource version at which the object was last seen as deleted.
    pub(super) gone_version: u64,
    /// The number of all finished writes when our last write of this object finished; see [`Live::sweep`].
    pub(super) written: u64,
    /// Whether our last write made the object.
    pub(super) is_made: bool,
    /// Number of our writes in progress.
    pub(super) in_flight: u32,
    /// The number of all observations when this object was last observed.
    pub(super) observed: u64,
    pub(super) awaited: bool,
    pub(super) live: Option<LiveObject>,
    /// The Sync that the labels of the object name, if that is not its owner.
    pub(super) says: Option<Box<ObjectKey>>,
    /// Whether the labels of the object name its owner.
    pub(super) is_confirmed: bool,
    /// How a Job that no longer exists ended.
    pub(super) end: End,
    /// The change that the last `Drifted` reported.
    pub(super) reported: Option<Touched>,
}

/// How an object that does not exist ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum End {
    /// It was deleted while nobody watched, or it never existed.
    #[default]
    Unseen,
    /// Somebody deleted it.
    CutShort,
    /// It was a Job that ended, and Kubernetes deleted it after its time to live.
    Expired,
}

/// How an object differs from what was applied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Touched {
    Gone,
    /// It is being deleted.
    Going,
    /// Its labels name another Sync.
    Taken,
    Fields(Option<FieldsDigest>),
    /// It has this number of values of others beside ours.
    Mixed(usize),
}

/// A change of an object that must be reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum News {
    /// It is not as it was applied.
    Drifted,
    /// It changed, and its health is awaited.
    Progressed,
}

impl Object {
    /// How the object differs from what was applied. `None` if it does not, or if nothing was applied.
    pub(super) fn touched(&self, is_owned: bool) -> Option<Touched> {
        self.expected?;
        match &self.live {
            None if self.end == End::Expired => None,
            None => Some(Touched::Gone),
            // A Job that is deleted after its time to live is not reported. Nor is a Secret that belongs to no Sync.
            Some(live) if live.going && is_owned && !live.expires => Some(Touched::Going),
            Some(live) if live.fields != self.expected => Some(Touched::Fields(live.fields)),
            // All Syncs apply with the same field manager, so only the labels show that another Sync has applied the
            // object.
            Some(_) if is_owned && self.says.is_some() => Some(Touched::Taken),
            Some(LiveObject { secret: Some(facts), .. }) if facts.is_mixed() => {
                Some(Touched::Mixed(facts.foreign_values.len()))
            }
            Some(_) => None,
        }
    }

    /// The change that must be reported, if it was not reported before.
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

    /// Forgets all resource versions: those that come next may be lower.
    pub(super) fn forget_versions(&mut self) {
        self.applied_version = 0;
        self.gone_version = 0;
        if let Some(live) = &mut self.live {
            live.version = 0;
        }
    }

    /// Its owner gives the object up: what was applied does not count any more.
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
    /// Stores what a read of a Secret showed (its metadata, or `None` if it does not exist), for a controller that does
    /// not watch Secrets.
    pub fn note_read(&self, id: &ObjectId, meta: Option<&ObjectMeta>) {
        if let Some(meta) = meta {
            return self.observe(id.clone(), resource_version(meta), Some(live_object(meta, true)), None);
        }
        let index = self.index();
        if index.entries.get(id).is_some_and(|entry| entry.object.in_flight == 0) {
            self.replace(index, id.clone(), None);
        }
    }

    /// The object as it was last seen.
    pub fn get(&self, id: &ObjectId) -> Option<LiveObject> {
        self.index().entries.get(id)?.object.live.clone()
    }

    /// Whether the object is a Job that ended and was deleted after its time to live.
    pub fn has_expired(&self, id: &ObjectId) -> bool {
        self.index()
            .entries
            .get(id)
            .is_some_and(|entry| entry.object.live.is_none() && entry.object.end == End::Expired)
    }

    /// Whether we are writing the object now. Until the write ends, what is known of the object may be from before or
    /// after it.
    pub fn is_being_written(&self, id: &ObjectId) -> bool {
        self.index().entries.get(id).is_some_and(|entry| entry.object.in_flight > 0)
    }

    /// The digest of the fields that we owned after the last apply.
    pub fn expected(&self, id: &ObjectId) -> Option<FieldsDigest> {
        self.index().entries.get(id)?.object.expected
    }

    /// The version of the object as it was last seen, unless versions may have gone back since.
    pub fn version(&self, id: &ObjectId) -> Option<u64> {
        let version = self.index().entries.get(id)?.object.live.as_ref()?.version;
        (version > 0).then_some(version)
    }

    /// Whether we made the object and nobody has written it since, not even its status.
    pub fn is_as_made(&self, id: &ObjectId) -> bool {
        self.index().entries.get(id).map(|entry| &entry.object).is_some_and(|object| {
            object.is_made && object.live.as_ref().is_some_and(|live| live.version == object.applied_version)
        })
    }

    /// Whether [`Change::Progressed`] is reported for `id` from now on.
    pub fn await_health(&self, id: &ObjectId, awaited: bool) {
        if let Some(entry) = self.index().entries.get_mut(id) {
            entry.object.awaited = awaited;
        }
    }

    /// No longer assumes that the objects are still as they were applied, because the API server shows an earlier state.
    /// Digests of fields cannot show this: they say who owns a field, not which value it has.
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

    /// The watch showed `id` at `version`. `live` is `None` if it was deleted.
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

    /// A list after a failed watch shows `id`. The list began when `writes` writes had ended. What it shows is true,
    /// unless we have written the object since. Returns whether the list shows the object at an earlier version than
    /// was seen before.
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

    /// Stores `live` as the current state of `id`, and reports the change to the Syncs that it may concern.
    fn replace(&self, mut index: MutexGuard<'_, Index>, id: ObjectId, live: Option<LiveObject>) {
        let Some(entry) = index.entries.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut entry.object.live, live);
        let facts =
            |live: &Option<LiveObject>| live.as_ref().map(|live| (live.uid.clone(), live.fields, live.secret.clone()));
        let secret_changed = id.is_secret() && facts(&before) != facts(&entry.object.live);
        match (&before, &entry.object.live) {
            (_, Some(_)) => entry.object.end = End::Unseen,
            (Some(before), None) => entry.object.end = if before.expires { End::Expired } else { End::CutShort },
            (None, None) => {}
        }
        let version = |live: &Option<LiveObject>| live.as_ref().map(|live| live.version);
        let is_known = before.is_some() && version(&before) == version(&entry.object.live);
        let change = if entry.object.in_flight == 0 { entry.judge(&id) } else { None };
        if entry.is_nothing() {
            index.entries.remove(&id);
        }
        drop(index);
        // Our own write, which the watch shows after its answer, does not count as progress.
        if let Some(change) = change.filter(|change| !is_known || !matches!(change, Change::Progressed { .. })) {
            self.send(change);
        }
        if secret_changed {
            self.send(Change::Secret(ObjectKey::new(id.namespace.unwrap_or_default(), id.name)));
        }
    }

    /// Number of writes that have ended so far.
    pub(super) fn writes(&self) -> u64 {
        self.index().writes
    }

    /// Called after a list (of one namespace, or of all) that began when `writes` writes had ended. Objects that are
    /// not in it were deleted. An object that we wrote since may be newer than the list, so the list says nothing about
    /// it.
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
