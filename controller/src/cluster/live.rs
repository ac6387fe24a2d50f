//! The state of the cluster: watches, of metadata only, on every kind that is applied, and which Sync has which object.
//!
//! ## Guarantees
//! - An object belongs to at most one Sync: the one whose inventory has it.
//! - A [`Change`] is sent when an object of a Sync was deleted, or when anybody changed one of our fields in it. Our
//!   own applies, writes to the status, and labels that others set cause no [`Change`].
//! - One change of an object is reported once as [`Change::Drifted`], even if the object cannot be put back and stays
//!   changed.
//! - This module makes no requests except the watches.
//! - A new list counts more than the data in memory: when a watch has failed, its kind is listed again, and the list
//!   replaces the data in memory. If the list shows an earlier state, the API server's store was restored from a
//!   backup. In this case, nothing that was remembered about applied objects is trusted ([`Live::distrust`]).
//!
//! The module `objects` has the state of each object, `ownership` the Sync that has it, `writing` our own writes in
//! progress, and `lookouts` the watches on objects that Syncs do not have but wait for or read.
//!
//! # Caveat
//! Suppose that an object is deleted after our write reached the API server and before its answer reaches us. If the
//! watch on the kind begins again with a new list at this moment, the deletion is noticed only with the next list after
//! that.

mod lookouts;
mod objects;
mod ownership;
mod watch;
mod writing;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use manifests::ObjectId;
use pipeline::{Resource, plan::LiveView};
use tokio::sync::mpsc;

use self::{
    lookouts::Lookouts,
    objects::{End, News, Object},
    ownership::Claim,
    watch::Watch,
};
pub use self::{
    lookouts::{AllOf, Named, Sight},
    objects::LiveObject,
};
use super::{Namespaces, api::SharedResource};
use crate::metrics::Metrics;
use crds::{Difference, ObjectKey};

/// How long a pass of a Sync waits for the first list of a kind before it gives up.
const FIRST_LIST: Duration = Duration::from_secs(30);

/// Something that happened in the cluster and concerns a Sync or a SealedSecret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// One of our fields was changed or removed, or the object was deleted.
    Drifted {
        /// The Sync that owns the object.
        sync: ObjectKey,
        /// The object.
        id: ObjectId,
    },
    /// An object was changed, and a Sync waits until this object is healthy.
    Progressed {
        /// The Sync that owns the object.
        sync: ObjectKey,
    },
    /// What a Sync waits for (`spec.dependsOn`) may have changed.
    Awaited {
        /// The Sync that waits.
        sync: ObjectKey,
    },
    /// An object that the chart of a Sync gets values from, or that it looks up, may have changed.
    Input {
        /// The Sync.
        sync: ObjectKey,
    },
    /// A Secret was changed or deleted. This may concern a SealedSecret of the same name.
    Secret(ObjectKey),
    /// The API server shows an earlier state than before, so everything that is remembered about objects may be wrong.
    WentBack,
    /// A Sync no longer has the object.
    Released {
        /// The object.
        id: ObjectId,
        /// The other Syncs that wanted the object while it belonged to this Sync.
        waiting: Vec<ObjectKey>,
    },
}

/// One object: its state, and the Sync that has it. The two are behind one lock, so that a change is reported to the
/// Sync that has the object at the moment of the change.
#[derive(Default)]
struct Entry {
    object: Object,
    claim: Claim,
}

impl Entry {
    /// The change that must be reported to the Sync that has the object, if there is one.
    fn judge(&mut self, id: &ObjectId) -> Option<Change> {
        let news = self.object.judge(self.claim.owner.is_some());
        let sync = self.claim.owner.clone()?;
        match news? {
            News::Drifted => Some(Change::Drifted { sync, id: id.clone() }),
            News::Progressed => Some(Change::Progressed { sync }),
        }
    }

    /// Whether the object exists and is as it was applied.
    fn is_untouched(&self) -> bool {
        self.object.expected.is_some() && !self.is_touched()
    }

    fn is_touched(&self) -> bool {
        self.object.touched(self.claim.owner.is_some()).is_some()
    }

    /// Whether the object does not exist and belongs to no Sync, so that the entry can be removed.
    fn is_nothing(&self) -> bool {
        self.claim.owner.is_none() && self.object.is_nothing()
    }
}

#[derive(Default)]
struct Index {
    /// The entries are boxed to save memory: a hash table has up to twice as many slots as entries, and while it grows,
    /// there are two tables.
    entries: HashMap<ObjectId, Box<Entry>>,
    /// The objects that each Sync waits for.
    waits: HashMap<ObjectKey, Vec<ObjectId>>,
    /// The rules of Syncs that leave fields to the field managers that own them. Most Syncs have none.
    left: HashMap<ObjectKey, Arc<[Difference]>>,
    writes: u64,
    observations: u64,
}

/// Group, kind and namespace of a watch. The namespace is `None` if the controller works in all namespaces.
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
    lookouts: Mutex<Lookouts>,
    changes: mpsc::UnboundedSender<Change>,
}

/// Why an object cannot be watched.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WatchError {
    /// The first list of the kind has not arrived in time.
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
    /// An empty index, and the receiver of the changes that it will report.
    pub fn new(
        client: kube::Client,
        metrics: Metrics,
        namespaces: Namespaces,
    ) -> (Self, mpsc::UnboundedReceiver<Change>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let (index, watches, lookouts) = (Mutex::default(), Mutex::default(), Mutex::default());
        let inner = Inner { client, metrics, namespaces, index, watches, lookouts, changes };
        (Self { inner: Arc::new(inner) }, receiver)
    }

    /// Makes sure that objects of `resource` are watched, at least in `namespace`, and that the first list has arrived.
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

    /// Whether no watch needs to be started for objects of `resource` in `namespace`: there is one already, or the kind
    /// cannot be watched.
    pub fn has_watch(&self, resource: &Resource, namespace: Option<&str>) -> bool {
        !resource.watchable || self.any_watch((&resource.group, &resource.kind, namespace), |_| true)
    }

    fn is_listed(&self, id: &ObjectId) -> bool {
        self.any_watch((&id.group, &id.kind, id.namespace.as_deref()), |watch| *watch.listed().borrow())
    }

    /// Whether there is a watch that shows objects of this group, kind and namespace, and for which `fits` is true.
    fn any_watch(&self, (group, kind, namespace): (&str, &str, Option<&str>), fits: impl Fn(&Watch) -> bool) -> bool {
        let watches = self.inner.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let namespaces = [None, namespace.map(str::to_owned)];
        let watches = namespaces.map(|namespace| watches.get(&(group.to_owned(), kind.to_owned(), namespace)));
        watches.into_iter().flatten().any(fits)
    }

    /// Ends the watch on a kind that is no longer served, and records that its objects no longer exist. `plural` is the
    /// kind's name in URLs.
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
                    entry.object.live = None;
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

    fn index(&self) -> MutexGuard<'_, Index> {
        self.inner.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, change: Change) {
        // The receiver lives as long as the controller. A failure during shutdown does not matter.
        let _ = self.inner.changes.send(change);
    }
}

impl LiveView for Live {
    fn exists(&self, id: &ObjectId) -> bool {
        self.index().entries.get(id).is_some_and(|entry| entry.object.live.is_some())
    }

    fn is_untouched(&self, id: &ObjectId) -> bool {
        self.index().entries.get(id).is_some_and(|entry| entry.is_untouched())
    }

    fn is_touched(&self, id: &ObjectId) -> bool {
        self.index().entries.get(id).is_some_and(|entry| entry.is_touched())
    }

    fn owner(&self, id: &ObjectId) -> Option<ObjectKey> {
        self.index().entries.get(id)?.claim.owner.clone()
    }

    fn is_expired_job(&self, id: &ObjectId) -> bool {
        let mut index = self.index();
        let Some(entry) = index.entries.get_mut(id).filter(|entry| entry.object.live.is_none()) else { return false };
        // The controller did not see how this Job disappeared. So the Job counts as expired, and this decision is kept.
        if entry.object.end == End::Unseen {
            entry.object.end = End::Expired(::fields::Expired::Unseen);
        }
        matches!(entry.object.end, End::Expired(_))
    }
}

#[cfg(test)]
mod tests;
