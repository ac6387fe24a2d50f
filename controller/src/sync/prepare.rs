//! Tree → Plan: render, guard, plan. Nothing is written.

use std::{collections::BTreeSet, sync::Arc};

use gitstore::Snapshot;
use manifests::{Location, Manifest, ObjectId};
use pipeline::{
    Failure, Held, Inventory, Kinds, Plan, Resource, Stage, StageError, guard, namespace_for,
    plan::{self, LiveView as _, Scope},
};

use super::{Pass, allow::AllowError};
use crate::{
    cluster::{ApiError, Cluster, DiscoveryError, WatchError},
    render::Patience,
};

/// Why the kinds of a folder are not known.
#[derive(Debug, thiserror::Error)]
enum KindError {
    /// The API server could not be asked.
    #[error("{origin}: {id}: {source}")]
    Discovery {
        /// Where.
        origin: Location,
        /// Which object.
        id: ObjectId,
        /// What discovery said.
        source: DiscoveryError,
    },
    /// A kind cannot be watched.
    #[error("{0}")]
    Watch(#[from] WatchError),
}

impl StageError for KindError {
    const STAGE: Stage = Stage::Plan;

    fn reason(&self) -> &'static str {
        match self {
            Self::Discovery { .. } => "DiscoveryFailed",
            Self::Watch(_) => "WatchFailed",
        }
    }

    fn is_terminal(&self) -> bool {
        false
    }
}

impl Pass<'_> {
    /// Makes the plan for the Sync's folder in `snapshot`. `current` is everything that the Sync has.
    pub(super) async fn prepare(
        &self,
        snapshot: Arc<Snapshot>,
        current: &Inventory,
        scope: Scope<'_>,
    ) -> Result<Plan, Failure> {
        let timer = self.begin(Stage::Render);
        // Who waits for memory holds none.
        self.holds(None);
        let in_git = current.len_in_git();
        let rendered = self.ctx.renderer.render(snapshot, self.sync, in_git, Patience::Waits).await?;
        self.holds(Some(rendered.clone()));
        let manifests = &rendered.manifests;
        drop(timer);

        let timer = self.begin(Stage::Guard);
        guard(self.sync, &manifests.objects)?;
        if scope != Scope::Folder {
            // One that drifts once often drifts more.
            self.ctx.renderer.keep(&rendered);
        }
        drop(timer);

        let _timer = self.begin(Stage::Plan);
        let kinds = self.kinds(&manifests.objects).await?;
        loop {
            let plan = plan::plan(self.sync, &manifests.objects, &kinds, current, &self.ctx.cluster.live, scope)?;
            if !self.frees(&plan).await.map_err(AllowError::from)? {
                return Ok(plan);
            }
        }
    }

    /// Whether an object that another Sync keeps from this one is free now. What is not labelled for its owner is the
    /// owner's by an inventory alone, and whoever may write the status of a Sync may write anything there: an owner that may
    /// not write the object keeps it from nobody.
    async fn frees(&self, plan: &Plan) -> Result<bool, ApiError> {
        let Cluster { live, reviews, .. } = &self.ctx.cluster;
        let mut frees = false;
        for Held { id, .. } in plan.held.iter().filter(|held| held.is_owned_by_another()) {
            let Some(owner) = live.owner(id).filter(|owner| live.says(id).as_ref() != Some(owner)) else { continue };
            let (Some(resource), Some(other)) = (plan.kinds.get(id), self.ctx.syncs.get(&owner.to_ref())) else {
                continue;
            };
            let api = self.like(&other, &owner).identity();
            if !reviews.may_write(&api, resource, id, live.get(id).is_some()).await? {
                tracing::warn!(sync = %owner, object = %id, "it is in the inventory of a Sync that may not write it, and is free for who may");
                live.release(&owner, id);
                frees = true;
            }
        }
        Ok(frees)
    }

    /// The kinds of the objects, each of them watched. The only requests are for kinds that were never seen before.
    async fn kinds(&self, manifests: &[Manifest]) -> Result<Kinds, KindError> {
        let (mut kinds, mut watched) = (Kinds::default(), BTreeSet::new());
        for manifest in manifests {
            let id = &manifest.id;
            let resource = match kinds.of(manifest) {
                Some(known) => known.clone(),
                None => match self.ctx.cluster.discovery.find(&id.group, &manifest.version, &id.kind).await {
                    Ok(found) => found,
                    // It may come with this very revision.
                    Err(DiscoveryError::UnknownKind { .. }) => continue,
                    Err(source) => {
                        let (origin, id) = (manifest.origin.clone(), id.clone());
                        return Err(KindError::Discovery { origin, id, source });
                    }
                },
            };
            kinds.insert(manifest, resource.clone());
            let namespace = namespace_for(self.sync, id.namespace.as_deref());
            if watched.insert((id.group.as_str(), id.kind.as_str(), namespace)) {
                self.ctx.cluster.live.watch(&resource, Some(namespace)).await?;
                if id.is_sealed_secret() {
                    self.ctx.cluster.live.watch(&Arc::new(Resource::secrets()), Some(namespace)).await?;
                }
            }
        }
        kinds.extend(plan::kinds_defined(manifests));
        Ok(kinds)
    }
}
