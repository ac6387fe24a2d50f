//! What is live: metadata-only watches on every kind that is applied, and who owns what.
//!
//! ## Guarantees
//! - An object belongs to at most one Sync: the one whose inventory holds it.
//! - A [`Change`] is sent when an object of a Sync went away or one of our fields on it was touched, whoever did it;
//!   never for our own applies, for status writes or for foreign labels.
//! - One touch is one `Drifted`: an object that stays as it is, because it could not be put back, is not told of again.
//! - Nothing is asked of the API server but the watches themselves.
//! - Memory is never trusted over a fresh list. After a watch failed its kind is listed anew, and what the list shows is
//!   what there is, whatever was seen before. Where it shows an earlier state, the store behind the API server was
//!   restored: nothing that was remembered of what was applied counts then ([`Live::distrust`]).
//!
//! # Caveat
//! A deletion that falls between our write of the same object and its answer, while the watch on its kind starts over
//! with a new list, is seen by the next list only.

mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use manifests::ObjectId;
use pipeline::{FieldsDigest, plan::LiveView};
use tokio::sync::mpsc;

use self::watch::{Watch, live_object};
use super::{
    Applied, Namespaces, SecretFacts,
    api::{SharedResource, resource_version},
};
use crate::metrics::Metrics;
use crds::ObjectKey;

/// How long the first list of a kind may take before the pipeline gives up on it for now.
const FIRST_LIST: Duration = Duration::from_secs(30);

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
    /// Who owns what of it: only of an object that was touched, to tell by whom.
    pub owners: Option<Box<[ManagedFieldsEntry]>>,
}

/// Something happened to an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// One of our fields was changed or taken, or the object went away.
    Drifted {
        /// The Sync that owns the object.
        sync: ObjectKey,
        /// The object.
        id: ObjectId,
    },
    /// An object whose health is awaited changed.
    Progressed {
        /// The Sync that owns the object.
        sync: ObjectKey,
    },
    /// A Secret changed or went away; a SealedSecret of the same name may care.
    Secret(ObjectKey),
    /// The API server shows an earlier state than before: whatever was remembered may be wrong.
    WentBack,
    /// A Sync let go of the object.
    Released {
        /// The object.
        id: ObjectId,
        /// The Syncs that were refused it meanwhile.
        waiting: Vec<ObjectKey>,
    },
}

#[derive(Default)]
struct Entry {
    owner: Option<ObjectKey>,
    /// Syncs that were refused the object; told of when the owner lets go of it.
    waiting: Vec<ObjectKey>,
    /// The Sync that gave it up for another one, and is told when that one has applied it.
    leaving: Option<ObjectKey>,
    expected: Option<FieldsDigest>,
    /// Resource version of our last write; what is older is not news.
    applied_version: u64,
    /// Resource version at which the object was last seen to go.
    gone_version: u64,
    /// The count of all writes when ours ended; see [`Live::sweep`].
    written: u64,
    /// Our writes under way.
    in_flight: usize,
    /// The count of all observations when this was last observed.
    observed: u64,
    awaited: bool,
    live: Option<LiveObject>,
    /// The Sync that the object says it belongs to, where that is not its owner.
    says: Option<Box<ObjectKey>>,
    /// How a Job went that is not there.
    end: End,
    /// What the last `Drifted` was about.
    reported: Option<Touched>,
}

/// How an object went that is not there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum End {
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
enum Touched {
    Gone,
    /// Its labels name another Sync.
    Taken,
    Fields(Option<FieldsDigest>),
    /// So many values of others are beside ours.
    Mixed(usize),
}

#[derive(Default)]
struct Index {
    entries: HashMap<ObjectId, Entry>,
    /// What each Sync waits for.
    waits: HashMap<ObjectKey, Vec<ObjectId>>,
    writes: u64,
    observations: u64,
}

/// Group, kind and, where the controller does not work in all of them, namespace: one watch each.
type Watched = (String, String, Option<String>);

/// Index of live objects; cheap to clone.
#[derive(Clone)]
pub struct Live {
    inner: Arc<Inner>,
}

struct Inner {
    client: kube::Client,
    metrics: Metrics,
    namespaces: Namespaces,
    index: Mutex<Index>,
    watches: Mutex<HashMap<Watched, Watch>>,
    changes: mpsc::UnboundedSender<Change>,
}

/// Why an object is not watched.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WatchError {
    /// The first list is not in.
    #[error(
        "watching {kind}{}{group} did not start in time; the controller needs the rights to list and watch this kind",
        if group.is_empty() { "" } else { "." }
    )]
    NotStarted {
        /// API group.
        group: String,
        /// Kind.
        kind: String,
    },
    /// The controller does not work in the namespace.
    #[error(
        "the controller does not work in namespace '{0}': it was started with --all-namespaces=false or --additional-namespaces"
    )]
    Elsewhere(String),
}

impl Live {
    /// An empty index, and the changes that it will report.
    pub fn new(
        client: kube::Client,
        metrics: Metrics,
        namespaces: Namespaces,
    ) -> (Self, mpsc::UnboundedReceiver<Change>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let inner = Inner { client, metrics, namespaces, index: Mutex::default(), watches: Mutex::default(), changes };
        (Self { inner: Arc::new(inner) }, receiver)
    }

    /// Makes sure that objects of `resource` are watched, those in `namespace` at least, and that their first list is
    /// in.
    pub async fn watch(&self, resource: &SharedResource, namespace: Option<&str>) -> Result<(), WatchError> {
        let namespace = namespace.filter(|_| resource.namespaced);
        if let Some(elsewhere) = namespace.filter(|namespace| !self.inner.namespaces.contains(namespace)) {
            return Err(WatchError::Elsewhere(elsewhere.to_owned()));
        }
        if !resource.watchable {
            return Ok(());
        }
        let namespace = namespace.filter(|_| self.inner.namespaces != Namespaces::All).map(str::to_owned);
        let not_started = || WatchError::NotStarted { group: resource.group.clone(), kind: resource.kind.clone() };
        if resource.namespaced && namespace.is_none() && self.inner.namespaces != Namespaces::All {
            return Err(not_started());
        }
        let mut listed = {
            let mut watches = self.inner.watches.lock().unwrap_or_else(PoisonError::into_inner);
            let watched = (resource.group.clone(), resource.kind.clone(), namespace.clone());
            let start = || Watch::start(self.clone(), resource.clone(), namespace);
            watches.entry(watched).or_insert_with(start).listed()
        };
        if *listed.borrow() {
            return Ok(());
        }
        let first = tokio::time::timeout(FIRST_LIST, listed.wait_for(|listed| *listed)).await;
        match first {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(not_started()),
        }
    }

    /// What one look at a Secret showed, for who does not watch Secrets: its metadata, or that it is not there.
    pub fn look(&self, id: &ObjectId, meta: Option<&ObjectMeta>) {
        if let Some(meta) = meta {
            return self.observe(id.clone(), resource_version(meta), Some(live_object(meta, true)), None);
        }
        let index = self.index();
        if index.entries.get(id).is_some_and(|entry| entry.in_flight == 0) {
            self.replace(index, id.clone(), None);
        }
    }

    /// The kind with the name `plural` in URLs is no longer served: its watch ends, and what was live of it is gone.
    pub fn forget_kind(&self, group: &str, plural: &str) {
        let kind = {
            let mut watches = self.inner.watches.lock().unwrap_or_else(PoisonError::into_inner);
            let mut kind = None;
            watches.retain(|watched, watch| {
                let is_forgotten = watched.0 == group && watch.plural() == plural;
                if is_forgotten {
                    kind = Some(watched.1.clone());
                }
                !is_forgotten
            });
            let Some(kind) = kind else { return };
            kind
        };
        let changes: Vec<_> = {
            let mut index = self.index();
            let of_kind = |id: &ObjectId| id.group == group && id.kind == kind;
            let changes = index
                .entries
                .iter_mut()
                .filter(|(id, _)| of_kind(id))
                .filter_map(|(id, entry)| {
                    entry.live = None;
                    entry.judge(id)
                })
                .collect();
            index.entries.retain(|id, entry| !of_kind(id) || !entry.is_nothing());
            changes
        };
        for change in changes {
            self.send(change);
        }
    }

    /// Takes `id` for `sync`; the owner if it is another Sync's.
    pub fn claim(&self, sync: &ObjectKey, id: &ObjectId) -> Result<(), ObjectKey> {
        let mut index = self.index();
        let entry = index.entries.entry(id.clone()).or_default();
        match &entry.owner {
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
        if let Some(owner) = &entry.owner {
            // Two inventories hold it: a hand-over was under way. Whoever has it now learns that the other one may want it.
            if owner != sync && !entry.waiting.contains(sync) {
                entry.waiting.push(sync.clone());
                index.waits.entry(sync.clone()).or_default().push(id.clone());
            }
            return;
        }
        entry.own(sync);
        entry.expected = expected;
        // Before the first list nothing is live, and that says nothing; the list will.
        let change = (is_listed || entry.live.is_some()).then(|| entry.judge(id)).flatten();
        drop(index);
        if let Some(change) = change {
            self.send(change);
        }
    }

    fn is_listed(&self, id: &ObjectId) -> bool {
        let watches = self.inner.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let namespaces = [None, id.namespace.clone()];
        let watches = namespaces.map(|namespace| watches.get(&(id.group.clone(), id.kind.clone(), namespace)));
        watches.into_iter().flatten().any(|watch| *watch.listed().borrow())
    }

    /// `sync` was refused `id`: it is told when the owner lets go of it.
    pub fn wait_for(&self, sync: &ObjectKey, id: &ObjectId) {
        let mut index = self.index();
        let entry = index.entries.entry(id.clone()).or_default();
        let waits = entry.owner.is_some() && !entry.waiting.contains(sync);
        if waits {
            entry.waiting.push(sync.clone());
        }
        // The owner may have let go since.
        let is_free = entry.owner.is_none();
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
                entry.waiting.retain(|waiting| waiting != sync);
            }
        }
    }

    /// The Syncs that were refused `id` and wait for it.
    pub fn waiting(&self, id: &ObjectId) -> Vec<ObjectKey> {
        self.index().entries.get(id).map(|entry| entry.waiting.clone()).unwrap_or_default()
    }

    /// Gives `id` up for the Sync `to`, which is told now; `sync` is told when it was applied there.
    pub fn hand_over(&self, sync: &ObjectKey, id: &ObjectId, to: &ObjectKey) {
        let mut index = self.index();
        let entry = index.entries.entry(id.clone()).or_default();
        if entry.owner.as_ref().is_some_and(|owner| owner != sync) {
            return;
        }
        entry.owner = None;
        entry.expected = None;
        entry.reported = None;
        entry.awaited = false;
        entry.leaving = Some(sync.clone());
        let mut waiting = std::mem::take(&mut entry.waiting);
        waiting.retain(|sync| sync != to);
        waiting.insert(0, to.clone());
        drop(index);
        self.send(Change::Released { id: id.clone(), waiting });
    }

    /// Gives `id` up, and tells who was refused it.
    pub fn release(&self, sync: &ObjectKey, id: &ObjectId) {
        let mut index = self.index();
        let Some(entry) = index.entries.get_mut(id).filter(|entry| entry.owner.as_ref() == Some(sync)) else {
            return;
        };
        entry.owner = None;
        entry.expected = None;
        entry.reported = None;
        entry.awaited = false;
        let waiting = std::mem::take(&mut entry.waiting);
        if entry.is_nothing() {
            index.entries.remove(id);
        }
        drop(index);
        if !waiting.is_empty() || id.is_sealed_secret() {
            self.send(Change::Released { id: id.clone(), waiting });
        }
    }

    /// The object as last seen.
    pub fn get(&self, id: &ObjectId) -> Option<LiveObject> {
        self.index().entries.get(id)?.live.clone()
    }

    /// Whether the object is a Job that ended and that its time to live took away.
    pub fn has_expired(&self, id: &ObjectId) -> bool {
        self.index().entries.get(id).is_some_and(|entry| entry.live.is_none() && entry.end == End::Expired)
    }

    /// What we own of the object since it was last applied.
    pub fn expected(&self, id: &ObjectId) -> Option<FieldsDigest> {
        self.index().entries.get(id)?.expected
    }

    /// Reports [`Change::Progressed`] for `id` from now on, or no longer.
    pub fn await_health(&self, id: &ObjectId, awaited: bool) {
        if let Some(entry) = self.index().entries.get_mut(id) {
            entry.awaited = awaited;
        }
    }

    /// We are about to write `id`: what the watch shows meanwhile is judged when the write is over.
    pub fn begin(&self, id: &ObjectId) -> Writing<'_> {
        let mut index = self.index();
        index.entries.entry(id.clone()).or_default().in_flight += 1;
        let (writes, observations) = (index.writes, index.observations);
        Writing { live: self, id: id.clone(), writes, observations }
    }

    /// Nothing that was applied is taken to be there as it was applied: the API server shows an earlier state. Digests of
    /// fields say who owns them, not what is in them.
    pub fn distrust(&self) {
        {
            let mut index = self.index();
            for entry in index.entries.values_mut() {
                entry.expected = None;
                entry.reported = None;
            }
        }
        self.send(Change::WentBack);
    }

    /// Objects that were applied for a Sync, by what they say, and that no Sync has: nobody will ever prune them.
    pub fn orphans(&self) -> BTreeMap<ObjectKey, BTreeSet<ObjectId>> {
        let mut orphans: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (id, entry) in &self.index().entries {
            if let (None, Some(_), Some(says)) = (&entry.owner, &entry.live, &entry.says) {
                orphans.entry((**says).clone()).or_default().insert(id.clone());
            }
        }
        orphans
    }

    /// Number of objects that belong to a Sync.
    pub fn owned(&self) -> usize {
        self.index().entries.values().filter(|entry| entry.owner.is_some()).count()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.inner.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, change: Change) {
        // The receiver lives as long as the controller; at shutdown nobody cares.
        let _ = self.inner.changes.send(change);
    }

    /// The watch showed `id` as of `version`, or that it went.
    fn observe(&self, id: ObjectId, version: u64, live: Option<LiveObject>, says: Option<ObjectKey>) {
        let mut index = self.index();
        index.observations += 1;
        let observed = index.observations;
        let entry = index.entries.entry(id.clone()).or_default();
        let known = entry.live.as_ref().map(|live| live.version);
        if version < entry.applied_version || known.is_some_and(|known| version < known) {
            return;
        }
        if live.is_none() {
            entry.gone_version = version;
        }
        entry.observed = observed;
        entry.says = says.filter(|says| entry.owner.as_ref() != Some(says)).map(Box::new);
        self.replace(index, id, live);
    }

    /// A list shows `id` that began when `writes` had ended, after a watch failed: that is what there is, unless we wrote
    /// since. Whether the object is as it was before something that was seen of it.
    fn relist(&self, id: ObjectId, version: u64, live: LiveObject, says: Option<ObjectKey>, writes: u64) -> bool {
        let mut index = self.index();
        let entry = index.entries.entry(id.clone()).or_default();
        if entry.in_flight > 0 || entry.written > writes {
            drop(index);
            self.observe(id, version, Some(live), says);
            return false;
        }
        let known = entry.live.as_ref().map_or(0, |live| live.version).max(entry.applied_version);
        entry.forget_versions();
        drop(index);
        self.observe(id, version, Some(live), says);
        version < known
    }

    /// Takes `live` for what `id` is now, and tells whom it may concern.
    fn replace(&self, mut index: MutexGuard<'_, Index>, id: ObjectId, live: Option<LiveObject>) {
        let Some(entry) = index.entries.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut entry.live, live);
        let facts =
            |live: &Option<LiveObject>| live.as_ref().map(|live| (live.uid.clone(), live.fields, live.secret.clone()));
        let secret_changed = id.is_secret() && facts(&before) != facts(&entry.live);
        match (&before, &entry.live) {
            (_, Some(_)) => entry.end = End::Unseen,
            (Some(before), None) => entry.end = if before.expires { End::Expired } else { End::CutShort },
            (None, None) => {}
        }
        let change = if entry.in_flight == 0 { entry.judge(&id) } else { None };
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
    fn writes(&self) -> u64 {
        self.index().writes
    }

    /// After a list (of one namespace, or of all) that began when `writes` had ended: what is not in it went away while
    /// nobody looked. What was written since may be younger than the list, which then says nothing about it.
    fn sweep(&self, watched: (&str, &str, Option<&str>), seen: &HashSet<ObjectId>, writes: u64) {
        let (group, kind, namespace) = watched;
        let gone: Vec<_> = self
            .index()
            .entries
            .iter()
            .filter(|(id, _)| id.group == group && id.kind == kind && !seen.contains(*id))
            .filter(|(id, _)| namespace.is_none() || id.namespace.as_deref() == namespace)
            .filter(|(_, entry)| entry.in_flight == 0 && entry.written <= writes)
            .filter(|(_, entry)| entry.live.is_some() || entry.expected.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            let mut index = self.index();
            let still = |entry: &&mut Entry| entry.in_flight == 0 && entry.written <= writes;
            if let Some(entry) = index.entries.get_mut(&id).filter(still) {
                entry.forget_versions();
                self.replace(index, id, None);
            }
        }
    }
}

impl LiveView for Live {
    fn is_untouched(&self, id: &ObjectId) -> bool {
        self.index().entries.get(id).is_some_and(|entry| entry.expected.is_some() && entry.touched().is_none())
    }

    fn is_touched(&self, id: &ObjectId) -> bool {
        self.index().entries.get(id).is_some_and(|entry| entry.touched().is_some())
    }

    fn owner(&self, id: &ObjectId) -> Option<ObjectKey> {
        self.index().entries.get(id)?.owner.clone()
    }

    fn is_expired_job(&self, id: &ObjectId) -> bool {
        let mut index = self.index();
        let Some(entry) = index.entries.get_mut(id).filter(|entry| entry.live.is_none()) else { return false };
        // From now on it is known.
        if entry.end == End::Unseen {
            entry.end = End::Expired;
        }
        entry.end == End::Expired
    }
}

impl Entry {
    /// The object is `sync`'s from now on, whatever its labels say.
    fn own(&mut self, sync: &ObjectKey) {
        self.owner = Some(sync.clone());
        self.says = self.says.take().filter(|says| **says != *sync);
    }

    /// How the object differs from what was applied, if anything was.
    fn touched(&self) -> Option<Touched> {
        self.expected?;
        match &self.live {
            None if self.end == End::Expired => None,
            None => Some(Touched::Gone),
            Some(live) if live.fields != self.expected => Some(Touched::Fields(live.fields)),
            // Two Syncs apply as one field manager: only the labels tell that another one has applied it since.
            Some(_) if self.owner.is_some() && self.says.is_some() => Some(Touched::Taken),
            Some(LiveObject { secret: Some(facts), .. }) if facts.is_mixed() => {
                Some(Touched::Mixed(facts.foreign_values.len()))
            }
            Some(_) => None,
        }
    }

    /// What there is to tell the owner.
    fn judge(&mut self, id: &ObjectId) -> Option<Change> {
        let touched = self.touched();
        if let (None, Some(live)) = (touched, &mut self.live) {
            live.owners = None;
        }
        let sync = self.owner.clone()?;
        let is_news = touched.is_some() && touched != self.reported;
        self.reported = touched;
        if is_news {
            let id = id.clone();
            Some(Change::Drifted { sync, id })
        } else if self.awaited {
            Some(Change::Progressed { sync })
        } else {
            None
        }
    }

    /// What was seen says nothing about what comes.
    fn forget_versions(&mut self) {
        self.applied_version = 0;
        self.gone_version = 0;
        if let Some(live) = &mut self.live {
            live.version = 0;
        }
    }

    /// Nobody's, and not there: not worth its memory.
    fn is_nothing(&self) -> bool {
        self.owner.is_none() && self.live.is_none() && self.in_flight == 0
    }
}

/// A write under way; see [`Live::begin`]. When it is dropped without [`Writing::applied`], it failed: what the watch
/// showed meanwhile was somebody else's doing.
pub struct Writing<'a> {
    live: &'a Live,
    id: ObjectId,
    /// Writes and observations before it began.
    writes: u64,
    observations: u64,
}

impl Writing<'_> {
    /// The write succeeded: what we own now is what has to stay.
    pub fn applied(self, applied: &Applied) {
        let mut index = self.live.index();
        index.writes += 1;
        let writes = index.writes;
        let entry = index.entries.entry(self.id.clone()).or_default();
        let was_overtaken = entry.written > self.writes;
        entry.written = writes;
        if was_overtaken && applied.resource_version < entry.applied_version {
            return;
        }
        let left = entry.leaving.take();
        entry.expected = applied.fields;
        entry.says = None;
        entry.applied_version = applied.resource_version;
        // What was seen before it began is older, whatever its version says.
        let seen_since = entry.observed > self.observations;
        let known = entry.live.as_ref().map_or(entry.gone_version, |live| live.version);
        if !seen_since || known <= applied.resource_version {
            entry.live = Some(LiveObject {
                uid: applied.uid.as_str().into(),
                version: applied.resource_version,
                fields: applied.fields,
                secret: applied.secret.clone(),
                expires: applied.expires,
                owners: None,
            });
            entry.end = End::Unseen;
        }
        drop(index);
        if let Some(left) = left {
            self.live.send(Change::Released { id: self.id.clone(), waiting: vec![left] });
        }
    }

    /// The object is gone, by our own hand.
    pub fn deleted(self) {
        if let Some(entry) = self.live.index().entries.get_mut(&self.id) {
            entry.expected = None;
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut index = self.live.index();
        let Some(entry) = index.entries.get_mut(&self.id) else {
            return;
        };
        entry.in_flight = entry.in_flight.saturating_sub(1);
        if entry.in_flight > 0 {
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

#[cfg(test)]
mod tests;
