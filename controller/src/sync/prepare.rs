//! Tree → Plan: render, guard, plan. Nothing is written.

use std::{collections::BTreeSet, sync::Arc};

use gitstore::Snapshot;
use manifests::{Location, Manifest, ObjectId};
use pipeline::{
    Failure, Inventory, Kinds, Plan, Resource, Stage, StageError, guard, namespace_for,
    plan::{self, Scope},
};

use super::Pass;
use crate::{
    cluster::{DiscoveryError, WatchError},
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
        Ok(plan::plan(self.sync, &manifests.objects, &kinds, current, &self.ctx.cluster.live, scope)?)
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
