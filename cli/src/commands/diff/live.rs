//! What the plan has to know of the cluster: metadata of the objects, and which Sync has which of them.

use std::{collections::HashMap, sync::Arc};

use anyhow::Context;
use crds::{ObjectKey, Sync};
use futures::{StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client,
    api::{DynamicObject, GetParams, ListParams},
    core::{PartialObjectMeta, Request},
};
use manifests::ObjectId;
use pipeline::{FieldsDigest, Inventory, Resource, SecretFacts, plan::LiveView, prune::said_by};

use super::CONCURRENCY;
use crate::output;

/// What a Sync would find.
pub struct Live {
    /// What the Sync has.
    inventory: Inventory,
    key: ObjectKey,
    seen: HashMap<ObjectId, Seen>,
    /// What other Syncs have.
    others: HashMap<ObjectId, ObjectKey>,
    /// Whether the inventories of all Syncs are known. Otherwise labels say whose an object is.
    knows_all: bool,
}

/// What is known of an object.
enum Seen {
    There(Box<ObjectMeta>),
    Gone,
    /// Its metadata cannot be read.
    Unreadable,
}

impl Live {
    /// Before anything is read of objects.
    pub fn new(sync: &Sync, inventory: Inventory, syncs: &Syncs) -> Self {
        let key = ObjectKey::of(sync);
        let mut others = HashMap::new();
        for other in syncs.all.iter().filter(|other| ObjectKey::of(*other) != key) {
            let entries = other.status.iter().flat_map(|status| &status.inventory);
            let ids = entries.filter_map(|entry| ObjectId::from_inventory(&entry.id));
            others.extend(ids.map(|id| (id, ObjectKey::of(other))));
        }
        Self { inventory, key, seen: HashMap::new(), others, knows_all: syncs.are_all }
    }

    /// Reads the metadata of objects.
    pub async fn look_at(&mut self, client: &Client, objects: Vec<(ObjectId, Arc<Resource>)>) {
        let seen = stream::iter(objects).map(|(id, resource)| async move {
            let seen = match metadata(client, &resource, &id).await {
                Ok(Some(meta)) => Seen::There(Box::new(meta)),
                Ok(None) => Seen::Gone,
                // Whoever compares it says why.
                Err(_) => Seen::Unreadable,
            };
            (id, seen)
        });
        let seen: Vec<_> = seen.buffer_unordered(CONCURRENCY).collect().await;
        self.seen.extend(seen);
    }

    /// The metadata of the object, if it is there and can be read.
    pub fn meta(&self, id: &ObjectId) -> Option<&ObjectMeta> {
        match self.seen.get(id)? {
            Seen::There(meta) => Some(meta),
            Seen::Gone | Seen::Unreadable => None,
        }
    }

    /// Another Sync that has the object.
    pub fn other(&self, id: &ObjectId) -> Option<&ObjectKey> {
        self.others.get(id)
    }

    /// Whether it is known that there is no such object.
    pub fn is_gone(&self, id: &ObjectId) -> bool {
        matches!(self.seen.get(id), Some(Seen::Gone))
    }

    /// What was owned of the object after it was applied.
    fn expected(&self, id: &ObjectId) -> Option<FieldsDigest> {
        self.inventory.get(id)?.fields
    }
}

impl LiveView for Live {
    fn is_untouched(&self, id: &ObjectId) -> bool {
        match self.seen.get(id) {
            Some(Seen::There(_)) => self.expected(id).is_some() && !self.is_touched(id),
            // Who may not look at Secrets is not told what others did to them.
            Some(Seen::Unreadable) => id.is_secret() && self.expected(id).is_some(),
            Some(Seen::Gone) | None => false,
        }
    }

    fn is_touched(&self, id: &ObjectId) -> bool {
        let Some(expected) = self.expected(id) else { return false };
        match self.seen.get(id) {
            Some(Seen::There(meta)) => {
                let is_taken = said_by(id, meta).is_some_and(|sync| sync != self.key);
                let is_mixed = id.is_secret() && SecretFacts::of(meta).is_mixed();
                FieldsDigest::of(meta.managed_fields.as_deref()) != Some(expected) || is_taken || is_mixed
            }
            Some(Seen::Gone) => true,
            Some(Seen::Unreadable) | None => false,
        }
    }

    fn owner(&self, id: &ObjectId) -> Option<ObjectKey> {
        let is_own = self.inventory.contains(id);
        match (self.others.get(id), self.meta(id).and_then(|meta| said_by(id, meta))) {
            // On its way from one to the other.
            (Some(other), said) if is_own => {
                Some(said.filter(|said| said == other).unwrap_or_else(|| self.key.clone()))
            }
            (Some(other), _) => Some(other.clone()),
            (None, said) if !is_own && !self.knows_all => said,
            (None, _) => is_own.then(|| self.key.clone()),
        }
    }

    fn is_expired_job(&self, id: &ObjectId) -> bool {
        self.is_gone(id)
    }
}

/// Nothing is known of the cluster: everything is compared.
pub struct Unknown;

impl LiveView for Unknown {
    fn is_untouched(&self, _: &ObjectId) -> bool {
        false
    }

    fn is_touched(&self, _: &ObjectId) -> bool {
        false
    }

    fn owner(&self, _: &ObjectId) -> Option<ObjectKey> {
        None
    }

    fn is_expired_job(&self, _: &ObjectId) -> bool {
        false
    }
}

/// The Syncs that can be read.
pub struct Syncs {
    pub all: Vec<Sync>,
    /// Whether there are no others.
    are_all: bool,
}

impl Syncs {
    /// Those of the cluster; where that is not allowed, those of the namespace.
    pub async fn read(client: &Client, namespace: &str) -> anyhow::Result<Self> {
        match Api::<Sync>::all(client.clone()).list(&ListParams::default()).await {
            Ok(list) => return Ok(Self { all: list.items, are_all: true }),
            Err(kube::Error::Api(status)) if status.code == 403 => {}
            Err(error) => return Err(error).context("cannot read the Syncs"),
        }
        output::warn("the Syncs of other namespaces cannot be read: what belongs to them is told by its labels");
        let list = Api::<Sync>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
        Ok(Self { all: list.context("cannot read the Syncs")?.items, are_all: false })
    }
}

/// The metadata of an object; `None` when there is none.
pub async fn metadata(client: &Client, resource: &Resource, id: &ObjectId) -> anyhow::Result<Option<ObjectMeta>> {
    let request = Request::new(resource.path(id.namespace.as_deref(), None));
    let request = request.get_metadata(&id.name, &GetParams::default())?;
    match client.request::<PartialObjectMeta<DynamicObject>>(request).await {
        Ok(object) => Ok(Some(object.metadata)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
