//! What every object looks like now, and whether that is how it was applied.

use std::{collections::HashSet, sync::MutexGuard};

use crds::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use manifests::ObjectId;
use pipeline::FieldsDigest;

use super::{Change, Entry, Index, Live, watch::live_object};
use crate::cluster::{SecretFacts, api::resource_version};

/// An object as the watch last showed it.
#[derive(Clone, Debug)]
pub struct LiveObject {
    /// UID.
    pub uid: Box<str>,
    /// Resource version.
    pub version: u64,
    /// What we own of it.
    pub fields: Option<FieldsDigest>,
    /// Only for Secrets: what decides whether a SealedSecret may write to it.
    pub secret: Option<Box<SecretFacts>>,
    /// Whether it is a Job that is done or going, and has a time to live after its end.
    pub expires: bool,
    /// Whether it is being deleted.
    pub going: bool,
    /// Whether it says that it is never pruned.
    pub kept: bool,
    /// Who owns what of it: only of an object that was touched, to tell by whom.
    pub owners: Option<Box<[ManagedFieldsEntry]>>,
}

/// What is known of one object, whoever has it.
#[derive(Default)]
pub(super) struct Object {
    pub(super) expected: Option<FieldsDigest>,
    /// Resource version of our last write; what is older is not news.
    pub(super) applied_version: u64,
    /// Resource version at which the object was last seen to go.
    pub(super) gone_version: u64,
    /// The count of all writes when ours ended; see [`Live::sweep`].
    pub(super) written: u64,
    /// Our writes under way.
    pub(super) in_flight: u32,
    /// The count of all observations when this was last observed.
    pub(super) observed: u64,
    pub(super) awaited: bool,
    pub(super) live: Option<LiveObject>,
    /// The Sync that the object says it belongs to, where that is not its owner.
    pub(super) says: Option<Box<ObjectKey>>,
    /// Whether the object says that it belongs to its owner.
    pub(super) is_confirmed: bool,
    /// How a Job went that is not there.
    pub(super) end: End,
    /// What the last `Drifted` was about.
    pub(super) reported: Option<Touched>,
}

/// How an object went that is not there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum End {
    /// While nobody looked, or it never was there.
    #[default]
    Unseen,
    /// Somebody deleted it.
    CutShort,
    /// It was a Job, ended, and its time to live took it away.
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
    /// So many values of others are beside ours.
    Mixed(usize),
}

/// What there is to tell of an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum News {
    /// It is not as it was applied.
    Drifted,
    /// Its health is awaited, and it changed.
    Progressed,
}

impl Object {
    /// How the object differs from what was applied, if anything was.
    pub(super) fn touched(&self, is_owned: bool) -> Option<Touched> {
        self.expected?;
        match &self.live {
            None if self.end == End::Expired => None,
            None => Some(Touched::Gone),
            // A Job that its time to live takes away is not told of. Of a Secret that is no Sync's nobody tells anything.
            Some(live) if live.going && is_owned && !live.expires => Some(Touched::Going),
            Some(live) if live.fields != self.expected => Some(Touched::Fields(live.fields)),
            // Two Syncs apply as one field manager: only the labels tell that another one has applied it since.
            Some(_) if is_owned && self.says.is_some() => Some(Touched::Taken),
            Some(LiveObject { secret: Some(facts), .. }) if facts.is_mixed() => {
                Some(Touched::Mixed(facts.foreign_values.len()))
            }
            Some(_) => None,
        }
    }

    /// What there is to tell, if anything is new.
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

    /// What was seen says nothing about what comes.
    pub(super) fn forget_versions(&mut self) {
        self.applied_version = 0;
        self.gone_version = 0;
        if let Some(live) = &mut self.live {
            live.version = 0;
        }
    }

    /// Its owner lets go of it: how it was applied does not count any more.
    pub(super) fn let_go(&mut self) {
        self.expected = None;
        self.reported = None;
        self.awaited = false;
    }

    /// Not there, and nothing is under way.
    pub(super) fn is_nothing(&self) -> bool {
        self.live.is_none() && self.in_flight == 0
    }
}

impl Live {
    /// What reading a Secret showed, for who does not watch Secrets: its metadata, or that it is not there.
    pub fn note_read(&self, id: &ObjectId, meta: Option<&ObjectMeta>) {
        if let Some(meta) = meta {
            return self.observe(id.clone(), resource_version(meta), Some(live_object(meta, true)), None);
        }
        let index = self.index();
        if index.entries.get(id).is_some_and(|entry| entry.object.in_flight == 0) {
            self.replace(index, id.clone(), None);
        }
    }

    /// The object as last seen.
    pub fn get(&self, id: &ObjectId) -> Option<LiveObject> {
        self.index().entries.get(id)?.object.live.clone()
    }

    /// Whether the object is a Job that ended and that its time to live took away.
    pub fn has_expired(&self, id: &ObjectId) -> bool {
        self.index()
            .entries
            .get(id)
            .is_some_and(|entry| entry.object.live.is_none() && entry.object.end == End::Expired)
    }

    /// Whether a write of ours is under way: what the object looks like until then may be of before or after it.
    pub fn is_being_written(&self, id: &ObjectId) -> bool {
        self.index().entries.get(id).is_some_and(|entry| entry.object.in_flight > 0)
    }

    /// What we own of the object since it was last applied.
    pub fn expected(&self, id: &ObjectId) -> Option<FieldsDigest> {
        self.index().entries.get(id)?.object.expected
    }

    /// Reports [`Change::Progressed`] for `id` from now on, or no longer.
    pub fn await_health(&self, id: &ObjectId, awaited: bool) {
        if let Some(entry) = self.index().entries.get_mut(id) {
            entry.object.awaited = awaited;
        }
    }

    /// Nothing that was applied is taken to be there as it was applied: the API server shows an earlier state. Digests of
    /// fields say who owns them, not what is in them.
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

    /// The watch showed `id` as of `version`, or that it went.
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

    /// A list shows `id` that began when `writes` had ended, after a watch failed: that is what there is, unless we wrote
    /// since. Whether the object is as it was before something that was seen of it.
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

    /// Takes `live` for what `id` is now, and tells whom it may concern.
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
        let change = if entry.object.in_flight == 0 { entry.judge(&id) } else { None };
        if entry.is_nothing() {
            index.entries.remove(&id);
        }
        drop(index);
        if let Some(change) = change {
            self.send(change);
        }
        if secret_changed {
            self.send(Change::Secret(ObjectKey::new(id.namespace.unwrap_or_default(), id.name)));
        }
    }

    /// How many writes ended so far.
    pub(super) fn writes(&self) -> u64 {
        self.index().writes
    }

    /// After a list (of one namespace, or of all) that began when `writes` had ended: what is not in it went away while
    /// nobody looked. What was written since may be younger than the list, which then says nothing about it.
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
