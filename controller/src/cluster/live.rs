//! What is live: metadata-only watches on every kind that is applied, and who owns what.
//!
//! ## Guarantees
//! - An object belongs to at most one Sync: the one whose inventory holds it.
//! - A [`Change`] is sent when an object of a Sync went away or one of our fields on it was touched, whoever did it;
//!   never for our own applies, for status writes or for foreign labels.
//! - Nothing is asked of the API server but the watches themselves.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, pin_mut};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    api::{ApiResource, DynamicObject},
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use manifests::ObjectId;
use tokio::sync::{mpsc, watch};

use super::{
    Applied, FieldsDigest,
    api::{SharedResource, resource_version},
    fields,
};
use crate::{key::ObjectKey, metrics::Metrics};

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
}

/// Metadata of a Secret that unsealing needs to know.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SecretFacts {
    /// UID of the SealedSecret that controls it.
    pub sealed_secret: Option<Box<str>>,
    /// Annotation `sealedsecrets.bitnami.com/managed: "true"`.
    pub managed: bool,
    /// Annotation `sealedsecrets.bitnami.com/patch: "true"`.
    pub patch: bool,
    /// The digest of the sealed input that was applied last, as the Secret's annotation says.
    pub sealed_digest: Option<Box<str>>,
    /// How many of the Secret's values are ours: fewer than were applied when somebody changed or removed one.
    pub owned_values: usize,
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
}

#[derive(Default)]
struct Entry {
    owner: Option<ObjectKey>,
    expected: Option<FieldsDigest>,
    applied_version: u64,
    in_flight: bool,
    awaited: bool,
    live: Option<LiveObject>,
}

/// Group and kind: one watch each.
type Kind = (String, String);

/// Index of live objects; cheap to clone.
#[derive(Clone)]
pub struct Live {
    inner: Arc<Inner>,
}

struct Inner {
    client: kube::Client,
    metrics: Metrics,
    entries: Mutex<HashMap<ObjectId, Entry>>,
    watches: Mutex<HashMap<Kind, Watch>>,
    changes: mpsc::UnboundedSender<Change>,
}

struct Watch {
    listed: watch::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A watch that did not come up.
#[derive(Clone, Debug, thiserror::Error)]
#[error("watching {kind}.{group} did not start within {} s; may the controller list and watch this kind?", FIRST_LIST.as_secs())]
pub struct WatchError {
    group: String,
    kind: String,
}

impl Live {
    /// An empty index, and the changes that it will report.
    pub fn new(client: kube::Client, metrics: Metrics) -> (Self, mpsc::UnboundedReceiver<Change>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let inner = Inner {
            client,
            metrics,
            entries: Mutex::default(),
            watches: Mutex::default(),
            changes,
        };
        (
            Self {
                inner: Arc::new(inner),
            },
            receiver,
        )
    }

    /// Makes sure that `resource` is watched and its first list is in.
    pub async fn watch(&self, resource: &SharedResource) -> Result<(), WatchError> {
        if !resource.watchable {
            return Ok(());
        }
        let mut listed = {
            let mut watches = self
                .inner
                .watches
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let kind = (resource.group.clone(), resource.kind.clone());
            watches
                .entry(kind)
                .or_insert_with(|| self.start(resource.clone()))
                .listed
                .clone()
        };
        if *listed.borrow() {
            return Ok(());
        }
        let first = tokio::time::timeout(FIRST_LIST, listed.wait_for(|listed| *listed)).await;
        match first {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(WatchError {
                group: resource.group.clone(),
                kind: resource.kind.clone(),
            }),
        }
    }

    /// The kind is no longer served: what was live of it is gone.
    pub fn forget_kind(&self, group: &str, kind: &str) {
        self.inner
            .watches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(group.into(), kind.into()));
        self.entries().retain(|id, entry| {
            if id.group == group && id.kind == kind {
                entry.live = None;
            }
            entry.owner.is_some() || entry.live.is_some()
        });
    }

    /// Takes `id` for `sync`; the owner if it is another Sync's.
    pub fn claim(&self, sync: &ObjectKey, id: &ObjectId) -> Result<(), ObjectKey> {
        let mut entries = self.entries();
        let entry = entries.entry(id.clone()).or_default();
        match &entry.owner {
            Some(owner) if owner != sync => Err(owner.clone()),
            _ => {
                entry.owner = Some(sync.clone());
                Ok(())
            }
        }
    }

    /// Takes `id` for `sync` as a stored inventory says, with the fields that it owned.
    pub fn restore(&self, sync: &ObjectKey, id: &ObjectId, expected: Option<FieldsDigest>) {
        let mut entries = self.entries();
        let entry = entries.entry(id.clone()).or_default();
        if entry.owner.is_none() {
            entry.owner = Some(sync.clone());
            entry.expected = expected;
            if expected.is_some()
                && entry
                    .live
                    .as_ref()
                    .is_some_and(|live| live.fields != expected)
            {
                self.send(Change::Drifted {
                    sync: sync.clone(),
                    id: id.clone(),
                });
            }
        }
    }

    /// Gives `id` up.
    pub fn release(&self, sync: &ObjectKey, id: &ObjectId) {
        let mut entries = self.entries();
        if let Some(entry) = entries
            .get_mut(id)
            .filter(|entry| entry.owner.as_ref() == Some(sync))
        {
            entry.owner = None;
            entry.expected = None;
            entry.awaited = false;
            if entry.live.is_none() {
                entries.remove(id);
            }
        }
    }

    /// The Sync that owns `id`.
    pub fn owner(&self, id: &ObjectId) -> Option<ObjectKey> {
        self.entries().get(id)?.owner.clone()
    }

    /// The object as last seen.
    pub fn get(&self, id: &ObjectId) -> Option<LiveObject> {
        self.entries().get(id)?.live.clone()
    }

    /// Whether the object is there and nobody touched our fields since they were last applied.
    pub fn is_untouched(&self, id: &ObjectId) -> bool {
        self.entries().get(id).is_some_and(|entry| {
            entry.expected.is_some()
                && entry
                    .live
                    .as_ref()
                    .is_some_and(|live| live.fields == entry.expected)
        })
    }

    /// What we own of the object since it was last applied.
    pub fn expected(&self, id: &ObjectId) -> Option<FieldsDigest> {
        self.entries().get(id)?.expected
    }

    /// Reports [`Change::Progressed`] for `id` from now on, or no longer.
    pub fn await_health(&self, id: &ObjectId, awaited: bool) {
        if let Some(entry) = self.entries().get_mut(id) {
            entry.awaited = awaited;
        }
    }

    /// We are about to write `id`: what the watch shows meanwhile is judged when the write is over.
    pub fn begin(&self, id: &ObjectId) -> Writing<'_> {
        self.entries().entry(id.clone()).or_default().in_flight = true;
        Writing {
            live: self,
            id: id.clone(),
        }
    }

    /// Number of objects that belong to a Sync.
    pub fn owned(&self) -> usize {
        self.entries()
            .values()
            .filter(|entry| entry.owner.is_some())
            .count()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<ObjectId, Entry>> {
        self.inner
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, change: Change) {
        // The receiver lives as long as the controller; at shutdown nobody cares.
        let _ = self.inner.changes.send(change);
    }

    fn observe(&self, id: ObjectId, version: u64, live: Option<LiveObject>) {
        let mut entries = self.entries();
        let entry = entries.entry(id.clone()).or_default();
        let stale = version < entry.applied_version
            || entry
                .live
                .as_ref()
                .is_some_and(|known| version < known.version);
        let secret_changed = is_secret(&id)
            && !stale
            && entry.live.as_ref().map(|l| (&l.uid, &l.fields, &l.secret))
                != live.as_ref().map(|l| (&l.uid, &l.fields, &l.secret));
        if !stale {
            entry.live = live;
        }
        let change = if stale || entry.in_flight {
            None
        } else {
            entry.change(&id)
        };
        let forgotten = entry.owner.is_none() && entry.live.is_none() && !entry.in_flight;
        if forgotten {
            entries.remove(&id);
        }
        drop(entries);
        if let Some(change) = change {
            self.send(change);
        }
        if secret_changed {
            self.send(Change::Secret(ObjectKey::new(
                id.namespace.unwrap_or_default(),
                id.name,
            )));
        }
    }

    fn start(&self, resource: SharedResource) -> Watch {
        let (sender, listed) = watch::channel(false);
        let live = self.clone();
        let task = tokio::spawn(async move { live.follow(&resource, &sender).await });
        Watch { listed, task }
    }

    async fn follow(&self, resource: &SharedResource, listed: &watch::Sender<bool>) {
        let api_resource = ApiResource {
            group: resource.group.clone(),
            version: resource.version.clone(),
            api_version: if resource.group.is_empty() {
                resource.version.clone()
            } else {
                format!("{}/{}", resource.group, resource.version)
            },
            kind: resource.kind.clone(),
            plural: resource.plural.clone(),
        };
        let api = kube::Api::<PartialObjectMeta<DynamicObject>>::all_with(
            self.inner.client.clone(),
            &api_resource,
        );
        let secrets = resource.group.is_empty() && resource.kind == "Secret";
        // Secrets are watched without a selector: an existing one decides whether a SealedSecret may write to it.
        let config = watcher::Config::default().streaming_lists();
        let config = if secrets {
            config
        } else {
            config.labels(crds::names::SYNC_NAME)
        };
        let stream = watcher(api, config).default_backoff();
        pin_mut!(stream);
        let mut seen = HashSet::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => seen.clear(),
                Ok(Event::InitApply(object)) => {
                    let id = id_of(resource, &object.metadata);
                    seen.insert(id.clone());
                    self.observe(
                        id,
                        resource_version(&object.metadata),
                        Some(live_object(&object.metadata, secrets)),
                    );
                }
                Ok(Event::InitDone) => {
                    self.sweep(resource, &seen);
                    seen = HashSet::new();
                    listed.send_replace(true);
                }
                Ok(Event::Apply(object)) => {
                    let id = id_of(resource, &object.metadata);
                    self.observe(
                        id,
                        resource_version(&object.metadata),
                        Some(live_object(&object.metadata, secrets)),
                    );
                }
                Ok(Event::Delete(object)) => {
                    self.observe(
                        id_of(resource, &object.metadata),
                        resource_version(&object.metadata),
                        None,
                    );
                }
                Err(error) => {
                    tracing::warn!(kind = %resource.kind, group = %resource.group, %error, "watch interrupted; it resumes by itself");
                    self.inner.metrics.watch_interrupted(&resource.kind);
                }
            }
        }
    }

    /// After a list: what is not in it went away while nobody looked.
    fn sweep(&self, resource: &SharedResource, seen: &HashSet<ObjectId>) {
        let gone: Vec<_> = self
            .entries()
            .iter()
            .filter(|(id, entry)| {
                id.group == resource.group
                    && id.kind == resource.kind
                    && !seen.contains(*id)
                    && !entry.in_flight
            })
            .filter(|(_, entry)| entry.live.is_some() || entry.expected.is_some())
            .map(|(id, entry)| {
                (
                    id.clone(),
                    entry.live.as_ref().map_or(u64::MAX, |live| live.version),
                )
            })
            .collect();
        for (id, version) in gone {
            self.observe(id, version, None);
        }
    }
}

impl Entry {
    fn change(&self, id: &ObjectId) -> Option<Change> {
        let sync = self.owner.clone()?;
        let untouched = match (&self.live, self.expected) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(live), expected) => live.fields == expected,
        };
        if !untouched {
            Some(Change::Drifted {
                sync,
                id: id.clone(),
            })
        } else if self.awaited {
            Some(Change::Progressed { sync })
        } else {
            None
        }
    }
}

/// A write under way; see [`Live::begin`].
pub struct Writing<'a> {
    live: &'a Live,
    id: ObjectId,
}

impl Writing<'_> {
    /// The write succeeded: what we own now is what has to stay.
    pub fn applied(self, applied: &Applied) {
        let mut entries = self.live.entries();
        let entry = entries.entry(self.id.clone()).or_default();
        entry.expected = applied.fields;
        entry.applied_version = applied.resource_version;
        if entry
            .live
            .as_ref()
            .is_none_or(|live| live.version <= applied.resource_version)
        {
            let secret = entry.live.take().and_then(|live| live.secret);
            entry.live = Some(LiveObject {
                uid: applied.uid.as_str().into(),
                version: applied.resource_version,
                fields: applied.fields,
                secret,
            });
        }
        entry.in_flight = false;
        let change = entry.change(&self.id);
        drop(entries);
        if let Some(change) = change {
            self.live.send(change);
        }
    }

    /// The object is gone, by our own hand.
    pub fn deleted(self) {
        let mut entries = self.live.entries();
        if let Some(entry) = entries.get_mut(&self.id) {
            entry.expected = None;
            entry.in_flight = false;
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.live.entries().get_mut(&self.id) {
            entry.in_flight = false;
        }
    }
}

fn is_secret(id: &ObjectId) -> bool {
    id.group.is_empty() && id.kind == "Secret"
}

fn id_of(resource: &SharedResource, meta: &ObjectMeta) -> ObjectId {
    ObjectId {
        group: resource.group.clone(),
        kind: resource.kind.clone(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

fn live_object(meta: &ObjectMeta, secret: bool) -> LiveObject {
    LiveObject {
        uid: meta.uid.as_deref().unwrap_or_default().into(),
        version: resource_version(meta),
        fields: FieldsDigest::of(meta.managed_fields.as_deref()),
        secret: secret.then(|| Box::new(secret_facts(meta))),
    }
}

fn secret_facts(meta: &ObjectMeta) -> SecretFacts {
    let annotation = |key: &str| {
        meta.annotations
            .as_ref()
            .and_then(|all| all.get(key))
            .map(String::as_str)
    };
    let controller = meta.owner_references.iter().flatten().find(|owner| {
        owner.controller == Some(true)
            && owner.kind == "SealedSecret"
            && owner.api_version.starts_with("bitnami.com/")
    });
    SecretFacts {
        sealed_secret: controller.map(|owner| owner.uid.as_str().into()),
        managed: annotation(crds::names::MANAGED) == Some("true"),
        patch: annotation(crds::names::PATCH) == Some("true"),
        sealed_digest: annotation(crds::names::SEALED_DIGEST).map(Into::into),
        owned_values: fields::owned_values(meta.managed_fields.as_deref()),
    }
}
