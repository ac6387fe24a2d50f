//! Makes a plan from a folder in Git: render, guard, plan. Nothing is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::ObjectKey;
use futures::{StreamExt as _, stream};
use manifests::{Location, Manifest, ObjectId};
use pipeline::{
    Failure, Held, Inventory, Kinds, Plan, Resource, Stage, StageError, guard,
    plan::{self, LiveView, OnDelete, Scope},
};

use super::{
    Pass,
    allow::{AT_ONCE, AllowError},
    source::{Sourced, content_with_settings},
};
use crate::{
    cluster::{Api, ApiError, Cluster, DiscoveryError, Live, WatchError},
    context::InStore as _,
    keys::Keyring,
    render::Patience,
};

/// Why the kinds of a folder are not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum KindError {
    /// The API server did not answer.
    #[error("{origin}: {id}: {source}")]
    Discovery {
        /// Where the object is in Git.
        origin: Location,
        /// The object.
        id: ObjectId,
        /// The error of the request.
        source: DiscoveryError,
    },
    /// A kind cannot be watched.
    #[error("{0}")]
    Watch(#[from] WatchError),
    /// The API server did not say whether an object exists.
    #[error(
        "{origin}: {id}: it must not be changed ({CHANGE}), and the API server did not say whether it exists: {source}", CHANGE = crds::names::CHANGE
    )]
    NotRead {
        /// Where the object is in Git.
        origin: Location,
        /// The object.
        id: ObjectId,
        /// The error of the request.
        source: ApiError,
    },
}

impl StageError for KindError {
    const STAGE: Stage = Stage::Plan;

    fn reason(&self) -> &'static str {
        match self {
            Self::Discovery { .. } => "DiscoveryFailed",
            Self::Watch(_) => "WatchFailed",
            Self::NotRead { .. } => "ObjectNotRead",
        }
    }

    fn is_terminal(&self) -> bool {
        false
    }
}

/// The live index, and objects that exist without being in the index.
struct Known<'a> {
    live: &'a Live,
    others: BTreeSet<ObjectId>,
}

impl LiveView for Known<'_> {
    fn exists(&self, id: &ObjectId) -> bool {
        self.live.exists(id) || self.others.contains(id)
    }

    fn is_untouched(&self, id: &ObjectId) -> bool {
        self.live.is_untouched(id)
    }

    fn is_touched(&self, id: &ObjectId) -> bool {
        self.live.is_touched(id)
    }

    fn owner(&self, id: &ObjectId) -> Option<ObjectKey> {
        self.live.owner(id)
    }

    fn is_expired_job(&self, id: &ObjectId) -> bool {
        self.live.is_expired_job(id)
    }
}

/// A digest of the values of the ConfigMaps and Secrets that a workload uses. Only this cluster's controller can make
/// this digest.
pub(super) fn values_digest(keyring: &Keyring, parts: &[&[u8]]) -> String {
    keyring.digest("used values", parts.iter().copied())
}

/// Which of these objects exist. Each comes with its place in Git and its kind.
async fn existing(
    api: &Api,
    objects: Vec<(Location, Arc<Resource>, ObjectId)>,
) -> Result<BTreeSet<ObjectId>, KindError> {
    let mut answers = stream::iter(objects)
        .map(|(origin, resource, id)| async move {
            match api.get_metadata(&resource, id.namespace.as_deref(), &id.name).await {
                Ok(_) => Ok(Some(id)),
                Err(error) if error.is_not_found() => Ok(None),
                Err(source) => Err(KindError::NotRead { origin, id, source }),
            }
        })
        .buffered(AT_ONCE);
    let mut found = BTreeSet::new();
    while let Some(answer) = answers.next().await {
        found.extend(answer?);
    }
    Ok(found)
}

impl Pass<'_> {
    /// Makes the plan for the Sync's folder in the snapshot of `sourced`. Also corrects [`Sourced::content`] in
    /// `sourced`, which may be known exactly only after the render, and stores the chart's notes there. `current` is
    /// the Sync's inventory.
    pub(super) async fn prepare(
        &self,
        sourced: &mut Sourced,
        current: &Inventory,
        scope: Scope<'_>,
    ) -> Result<Plan, Failure> {
        let timer = self.begin(Stage::Render);
        // The pass gives its memory back first, because a pass that waits for memory must hold none.
        self.holds(None);
        let in_git = current.len_in_git();
        let (snapshot, inputs) = (sourced.snapshot.clone(), &sourced.inputs);
        let rendering = self.ctx.renderer.render(snapshot, self.sync, inputs, in_git, Patience::Waits).await?;
        sourced.content = content_with_settings(rendering.content, self.sync, inputs);
        let rendered = rendering.result?;
        sourced.notes.clone_from(&rendered.notes);
        self.holds(Some(rendered.clone()));
        let manifests = &rendered.manifests;
        drop(timer);

        let timer = self.begin(Stage::Guard);
        guard(self.sync, &manifests.objects)?;
        self.ctx.renderer.store(sourced.snapshot.clone(), self.sync, &rendered).await;
        if scope != Scope::Folder {
            // A folder in which objects drifted once often drifts again, so it is kept in memory.
            self.ctx.renderer.keep(&rendered);
        }
        drop(timer);

        let _timer = self.begin(Stage::Plan);
        let mut kinds = self.kinds_served(&manifests.objects).await?;
        self.watch(&manifests.objects, &kinds).await?;
        kinds.extend(plan::kinds_defined(&manifests.objects));
        let live = Known { live: &self.ctx.cluster.live, others: self.of_others(&manifests.objects, &kinds).await? };
        let keyed = |parts: &[&[u8]]| values_digest(&self.ctx.keyring, parts);
        loop {
            let plan = plan::plan(self.sync, &manifests.objects, &kinds, current, &live, scope, Some(&keyed))?;
            if !self.frees(&plan).await {
                return Ok(plan);
            }
        }
    }

    /// Makes the plan for what the folder has for the deletion of the Sync. Also returns the objects that ran before, with the other
    /// objects, and run again now.
    pub(super) async fn prepare_on_delete(
        &self,
        sourced: &Sourced,
        current: &Inventory,
        when: OnDelete,
    ) -> Result<(Plan, BTreeSet<ObjectId>), Failure> {
        self.holds(None);
        let (snapshot, in_git) = (sourced.snapshot.clone(), current.len_in_git());
        let rendering = self.ctx.renderer.render(snapshot, self.sync, &sourced.inputs, in_git, Patience::Waits).await?;
        let rendered = rendering.result?;
        self.holds(Some(rendered.clone()));
        guard(self.sync, &rendered.manifests.objects)?;
        let objects = plan::applied_on_delete(&rendered.manifests.objects, when);
        let kinds = self.kinds_served(&objects).await?;
        self.watch(&objects, &kinds).await?;
        let ids = objects.iter().filter_map(|one| Some(plan::ids_in_cluster(self.sync, one, kinds.of(one)?)));
        let ids = ids.flatten().collect();
        let (live, keyed) = (&self.ctx.cluster.live, |parts: &[&[u8]]| values_digest(&self.ctx.keyring, parts));
        let plan = plan::plan(self.sync, &objects, &kinds, current, live, Scope::Drifted(&ids), Some(&keyed))?;
        let usual = rendered.manifests.objects.iter().filter(|one| plan::times(one).is_ok_and(|times| times.usual));
        let usual = usual.filter_map(|one| plan::ids_in_cluster(self.sync, one, kinds.of(one)?).into_iter().next());
        let again = usual.filter(|id| ids.contains(id) && plan::runs_once(id) && current.contains(id)).collect();
        Ok((plan, again))
    }

    /// Releases objects that another Sync has, but may not write. Returns whether there was such an object. If the
    /// labels of an object do not name its owner, only an inventory says that the owner has the object, and anybody who
    /// may write the status of a Sync can write an inventory. So if the owner may not write the object, the owner loses
    /// it. If the API server does not say whether the owner may write the object, only this object is held back.
    async fn frees(&self, plan: &Plan) -> bool {
        let Cluster { live, reviews, .. } = &self.ctx.cluster;
        let unproven = plan.held.iter().filter(|held| held.is_owned_by_another()).filter_map(|Held { id, .. }| {
            let owner = live.owner(id).filter(|owner| live.says(id).as_ref() != Some(owner))?;
            let other = self.ctx.syncs.get(&owner.to_ref())?;
            Some((id.clone(), plan.kinds.get(id)?.clone(), self.like(&other, &owner).identity(), owner))
        });
        let mut answers = stream::iter(unproven.collect::<Vec<_>>())
            .map(|(id, resource, api, owner)| async move {
                let may = reviews.may_write(&api, &resource, &id, live.get(&id).is_some()).await;
                (id, owner, may)
            })
            .buffered(AT_ONCE);
        let mut frees = false;
        while let Some((id, owner, may)) = answers.next().await {
            match may {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(sync = %owner, object = %id, "the object is in the inventory of a Sync that may not write it, so another Sync can have it");
                    live.release(&owner, &id);
                    frees = true;
                }
                Err(error) => {
                    tracing::warn!(sync = %owner, object = %id, %error, "it is not known whether the Sync may write this object");
                }
            }
        }
        frees
    }

    /// The objects among `manifests` that must not be changed and that no Sync has applied, but that exist. The watches do not show
    /// such objects.
    async fn of_others(&self, manifests: &[Manifest], kinds: &Kinds) -> Result<BTreeSet<ObjectId>, KindError> {
        let live = &self.ctx.cluster.live;
        let unseen = manifests.iter().filter(|manifest| plan::is_only_made(manifest)).filter_map(|manifest| {
            let resource = kinds.of(manifest)?;
            let id = plan::ids_in_cluster(self.sync, manifest, resource).swap_remove(0);
            (!live.exists(&id)).then(|| (manifest.origin.clone(), resource.clone(), id))
        });
        existing(&self.identity(), unseen.collect()).await
    }

    /// The kinds of the folder's objects, as the cluster serves them. Requests are made only for kinds that were never
    /// seen before.
    async fn kinds_served(&self, manifests: &[Manifest]) -> Result<Kinds, KindError> {
        let mut kinds = Kinds::default();
        for manifest in manifests {
            let id = &manifest.id;
            if kinds.of(manifest).is_some() {
                continue;
            }
            match self.ctx.cluster.discovery.find(&id.group, &manifest.version, &id.kind).await {
                Ok(found) => kinds.insert(manifest, found),
                // The CustomResourceDefinition of the kind may be in this revision.
                Err(DiscoveryError::UnknownKind { .. }) => {
                    let instead = self.ctx.cluster.discovery.served_instead(&id.group, &id.kind).await;
                    kinds.insert_instead(manifest, instead);
                }
                Err(source) => {
                    let (origin, id) = (manifest.origin.clone(), id.clone());
                    return Err(KindError::Discovery { origin, id, source });
                }
            }
        }
        Ok(kinds)
    }

    /// Waits until all objects that the Sync may write are watched. A watch is made with the controller's own rights,
    /// and costs memory and load. So a watch on a kind begins only if the API server says that the Sync's identity may
    /// write some object of this kind. Objects that are not watched are planned as if they did not exist, and refused
    /// in the stage `allow`.
    async fn watch(&self, manifests: &[Manifest], kinds: &Kinds) -> Result<(), Failure> {
        let Cluster { live, reviews, .. } = &self.ctx.cluster;
        let (api, secrets) = (self.identity(), Arc::new(Resource::secrets()));
        let (mut places, mut unseen) = (BTreeMap::new(), Vec::new());
        for manifest in manifests {
            let Some(resource) = kinds.of(manifest) else { continue };
            for id in plan::ids_in_cluster(self.sync, manifest, resource) {
                let resource = if id.is_secret() { &secrets } else { resource };
                let place = (id.group.clone(), id.kind.clone(), id.namespace.clone());
                let (_, is_watched) = places
                    .entry(place)
                    .or_insert_with(|| (resource.clone(), live.has_watch(resource, id.namespace.as_deref())));
                if !*is_watched {
                    unseen.push((resource.clone(), id));
                }
            }
        }
        let mut begun = stream::iter(unseen)
            .map(|(resource, id)| {
                let api = &api;
                async move {
                    let namespace = id.namespace.as_deref();
                    // One object of the kind that the Sync's identity may write is enough to begin the watch.
                    if !live.has_watch(&resource, namespace)
                        && reviews.may_write(api, &resource, &id, true).await.map_err(AllowError::from)?
                    {
                        live.watch(&resource, namespace).await.map_err(KindError::from)?;
                    }
                    Ok::<_, Failure>(())
                }
            })
            .buffered(AT_ONCE);
        while let Some(begun) = begun.next().await {
            begun?;
        }
        for ((_, _, namespace), (resource, _)) in places {
            if live.has_watch(&resource, namespace.as_deref()) {
                live.watch(&resource, namespace.as_deref()).await.map_err(KindError::from)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sync::fake_server::FakeServer;

    #[tokio::test]
    async fn several_objects_are_asked_for_at_once() {
        let (server, client) = FakeServer::start().await;
        let (origin, maps) = (Location { file: "a.yaml".into(), line: 1 }, Arc::new(Resource::config_maps()));
        let id = |name: &str| ObjectId {
            group: String::new(),
            kind: "ConfigMap".into(),
            namespace: Some("ns".into()),
            name: name.into(),
        };
        let path = "GET /api/v1/namespaces/ns/configmaps/";
        for number in 0..AT_ONCE {
            let (code, body) = match number {
                0 => (404, json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "gone"})),
                _ => (200, json!({"metadata": {"name": number.to_string()}})),
            };
            server.answer(&format!("{path}{number}"), code, body);
        }
        let ask = || {
            let all: Vec<_> =
                (0..AT_ONCE).map(|number| (origin.clone(), maps.clone(), id(&number.to_string()))).collect();
            existing(&client.api, all)
        };
        server.gather(path, AT_ONCE);
        let found =
            tokio::time::timeout(std::time::Duration::from_secs(30), ask()).await.expect("one waits for another");
        assert_eq!(found.unwrap(), (1..AT_ONCE).map(|number| id(&number.to_string())).collect());
        server.answer(&format!("{path}3"), 500, json!({"kind": "Status", "code": 500, "message": "no store"}));
        let error = ask().await.expect_err("it is not known whether it exists").to_string();
        assert!(error.starts_with("a.yaml:1: ConfigMap ns/3"), "{error}");
    }
}
