//! The data of the cluster that the plan needs: metadata of the objects, and which Sync has each of them.

use std::{collections::HashMap, sync::Arc};

use anyhow::Context;
use crds::{Difference, ObjectKey, Sync};
use futures::{StreamExt, stream};
use k8s_openapi::{
    api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{DynamicObject, GetParams, ListParams, PostParams},
    core::{PartialObjectMeta, Request},
};
use manifests::ObjectId;
use pipeline::{
    FieldsDigest, Inventory, Resource, SecretFacts,
    plan::{LiveView, left_to_managers},
    prune::{made_by, said_by},
};

use super::CONCURRENCY;
use crate::output;

/// The cluster as a Sync would find it.
pub struct Live {
    /// The inventory of the Sync.
    inventory: Inventory,
    key: ObjectKey,
    differences: Vec<Difference>,
    seen: HashMap<ObjectId, Seen>,
    /// The objects of other Syncs, as far as they are known.
    others: HashMap<ObjectId, Vec<ObjectKey>>,
    /// Whether the inventories of all Syncs are known. If not, labels show to which Sync an object belongs.
    knows_all: bool,
}

/// The facts about one object in the cluster.
enum Seen {
    There(Box<ObjectMeta>),
    Gone,
    /// The metadata of the object cannot be read.
    Unreadable,
}

impl Live {
    /// What the inventories of the Syncs say, before any object is read.
    pub fn new(sync: &Sync, inventory: Inventory, syncs: &Syncs) -> Self {
        let key = ObjectKey::of(sync);
        let mut others: HashMap<ObjectId, Vec<ObjectKey>> = HashMap::new();
        for other in syncs.all.iter().filter(|other| ObjectKey::of(*other) != key) {
            let entries = other.status.iter().flat_map(|status| &status.inventory);
            let ids = entries.filter_map(|entry| ObjectId::from_inventory(&entry.id));
            for id in ids {
                others.entry(id).or_default().push(ObjectKey::of(other));
            }
        }
        let differences = sync.spec.ignore_differences.clone();
        Self { inventory, key, differences, seen: HashMap::new(), others, knows_all: syncs.are_all }
    }

    /// Reads the metadata of objects.
    pub async fn read_metadata(&mut self, client: &Client, objects: Vec<(ObjectId, Arc<Resource>)>) {
        let seen = stream::iter(objects).map(|(id, resource)| async move {
            let seen = match metadata(client, &resource, &id).await {
                Ok(Some(meta)) => Seen::There(Box::new(meta)),
                Ok(None) => Seen::Gone,
                // The error is dropped here, because the comparison of the object reports it.
                Err(_) => Seen::Unreadable,
            };
            (id, seen)
        });
        let seen: Vec<_> = seen.buffer_unordered(CONCURRENCY).collect().await;
        self.seen.extend(seen);
    }

    /// Decides which of the other Syncs have these objects, whose metadata were read. Inventories alone do not
    /// decide, because anybody who may write the status of a Sync can name any object in it. The labels of an object
    /// decide. If the labels name none of the Syncs, a Sync that may not write the object does not have it. If the
    /// cluster does not say what a Sync may write, the inventory of this Sync is believed.
    pub async fn weigh_claims(&mut self, client: &Client, syncs: &Syncs, objects: &[(ObjectId, Arc<Resource>)]) {
        let mut asked = Vec::new();
        for (id, resource) in objects {
            let said = self.said(id);
            let Some(claims) = self.others.get_mut(id) else { continue };
            match said.filter(|said| claims.contains(said)) {
                Some(said) => *claims = vec![said],
                None => asked.extend(claims.drain(..).map(|key| (id.clone(), resource.clone(), key))),
            }
        }
        let answers = stream::iter(asked).map(|(id, resource, key)| async move {
            let may = match syncs.account(&key) {
                Some(account) => may_write(client, &resource, &id, &key.namespace, account).await,
                // A Sync without a service account writes with the rights of the controller.
                None => Ok(true),
            };
            (id, key, may)
        });
        let answers: Vec<_> = answers.buffered(CONCURRENCY).collect().await;
        if let Some((id, key, Err(error))) = answers.iter().find(|(.., may)| may.is_err()) {
            output::warn(format_args!(
                "the cluster did not say whether Sync {key} may write {id}, so the object is shown as belonging to that Sync, because its inventory has the object: {error}"
            ));
        }
        for (id, key, may) in answers {
            if may.unwrap_or(true) {
                self.others.entry(id).or_default().push(key);
            }
        }
        self.others.retain(|_, claims| !claims.is_empty());
    }

    /// Treats the object as released by the other Sync, which will release it before the object is applied.
    pub fn let_go(&mut self, id: &ObjectId) {
        self.others.remove(id);
    }

    /// The metadata of the object, if it is there and can be read.
    pub fn meta(&self, id: &ObjectId) -> Option<&ObjectMeta> {
        match self.seen.get(id)? {
            Seen::There(meta) => Some(meta),
            Seen::Gone | Seen::Unreadable => None,
        }
    }

    /// The Sync that the object's labels name. A Secret that a SealedSecret owns belongs to the Sync that has the
    /// SealedSecret.
    fn said(&self, id: &ObjectId) -> Option<ObjectKey> {
        let meta = self.meta(id)?;
        let Some(uid) = made_by(id, meta) else { return said_by(id, meta) };
        let owner = id.sealed_secret();
        let sealed = self.meta(&owner).filter(|sealed| sealed.uid.as_deref() == Some(uid))?;
        said_by(&owner, sealed)
    }

    /// Another Sync that has the object.
    pub fn other(&self, id: &ObjectId) -> Option<&ObjectKey> {
        self.others.get(id)?.first()
    }

    /// Whether it is known that the object does not exist.
    pub fn is_gone(&self, id: &ObjectId) -> bool {
        matches!(self.seen.get(id), Some(Seen::Gone))
    }

    /// The digest of the fields that gitseal owned after it had applied the object.
    fn expected(&self, id: &ObjectId) -> Option<FieldsDigest> {
        self.inventory.get(id)?.fields
    }
}

impl LiveView for Live {
    fn exists(&self, id: &ObjectId) -> bool {
        matches!(self.seen.get(id), Some(Seen::There(_) | Seen::Unreadable))
    }

    fn is_untouched(&self, id: &ObjectId) -> bool {
        match self.seen.get(id) {
            Some(Seen::There(_)) => self.expected(id).is_some() && !self.is_touched(id),
            // If the user may not read Secrets, it is not known whether others changed this one.
            Some(Seen::Unreadable) => id.is_secret() && self.expected(id).is_some(),
            Some(Seen::Gone) | None => false,
        }
    }

    fn is_touched(&self, id: &ObjectId) -> bool {
        let Some(expected) = self.expected(id) else { return false };
        match self.seen.get(id) {
            Some(Seen::There(meta)) => {
                let is_taken = self.said(id).is_some_and(|sync| sync != self.key);
                let is_mixed = id.is_secret() && SecretFacts::of(meta).is_mixed();
                let managers = left_to_managers(&self.differences, id);
                let now = FieldsDigest::beside(meta.managed_fields.as_deref(), &managers);
                now != Some(expected) || is_taken || is_mixed
            }
            Some(Seen::Gone) => true,
            Some(Seen::Unreadable) | None => false,
        }
    }

    fn owner(&self, id: &ObjectId) -> Option<ObjectKey> {
        let is_own = self.inventory.contains(id);
        let others = self.others.get(id).map(Vec::as_slice).unwrap_or_default();
        let said = self.said(id);
        // While an object is handed over, it belongs to the Sync that its labels name.
        match (others.first(), said) {
            (Some(_), said) if is_own => Some(said.filter(|said| others.contains(said)).unwrap_or(self.key.clone())),
            (Some(other), _) => Some(other.clone()),
            (None, said) if !is_own && !self.knows_all => said,
            (None, _) => is_own.then(|| self.key.clone()),
        }
    }

    fn is_expired_job(&self, id: &ObjectId) -> bool {
        self.is_gone(id)
    }
}

/// A view that knows nothing of the cluster. With it, every object is compared.
pub struct Unknown;

impl LiveView for Unknown {
    fn exists(&self, _: &ObjectId) -> bool {
        false
    }

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

/// The Syncs that the user can read.
pub struct Syncs {
    pub all: Vec<Sync>,
    /// Whether these are all Syncs of the cluster.
    are_all: bool,
}

impl Syncs {
    /// The Syncs of the cluster; if the user may not list them, only those of the namespace.
    pub async fn read(client: &Client, namespace: &str) -> anyhow::Result<Self> {
        match Api::<Sync>::all(client.clone()).list(&ListParams::default()).await {
            Ok(list) => return Ok(Self { all: list.items, are_all: true }),
            Err(kube::Error::Api(status)) if status.code == 403 => {}
            Err(error) => return Err(error).context("cannot read the Syncs"),
        }
        output::warn("the Syncs of other namespaces cannot be read: only labels tell which objects belong to them");
        let list = Api::<Sync>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
        Ok(Self { all: list.context("cannot read the Syncs")?.items, are_all: false })
    }

    /// The service account in the Sync's spec.
    fn account(&self, key: &ObjectKey) -> Option<&str> {
        self.all.iter().find(|sync| ObjectKey::of(*sync) == *key)?.spec.service_account_name.as_deref()
    }
}

/// Whether a service account may write the object.
async fn may_write(
    client: &Client,
    resource: &Resource,
    id: &ObjectId,
    namespace: &str,
    account: &str,
) -> kube::Result<bool> {
    let attributes = ResourceAttributes {
        verb: Some("patch".into()),
        group: Some(resource.group.clone()),
        resource: Some(resource.plural.clone()),
        namespace: id.namespace.clone(),
        name: Some(id.name.clone()),
        ..ResourceAttributes::default()
    };
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"];
    let spec = SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{namespace}:{account}")),
        groups: Some(groups.map(str::to_owned).into()),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
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
