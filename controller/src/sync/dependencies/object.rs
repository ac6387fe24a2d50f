//! Waits for an object of any kind that `spec.dependsOn` names.
//!
//! The object is read only when a watch shows that it changed. It is read with the rights of the Sync's identity.
//! Otherwise, the messages of a Sync could show what is in objects that its identity may not read.

use std::time::{Duration, Instant};

use crds::Dependency;
use manifests::ObjectId;
use pipeline::{Resource, health::Health};

use super::DependencyError;
use crate::{
    cluster::{DiscoveryError, Named, Sight},
    fair::Asker,
    sync::{Pass, Record},
};

/// The shortest time between two reads of an object that changes all the time.
const APART: Duration = Duration::from_secs(1);

/// The last answer about an object that the Sync waits for.
#[derive(Clone, Debug)]
pub struct LastRead {
    generation: Option<i64>,
    at: Instant,
    error: DependencyError,
}

impl Pass<'_> {
    /// The result of the last read, if the object is certainly unchanged since then, or if it is too early to read it
    /// again.
    pub(super) fn last_answer(&self, record: &Record) -> Option<DependencyError> {
        let last = record.last_read.as_ref().filter(|last| last.generation == self.sync.metadata.generation)?;
        if !self.ctx.cluster.live.is_as_read(self.key) {
            if last.at.elapsed() >= APART {
                return None;
            }
            self.ctx.retries.wake(self.key);
            self.ctx.queues.syncs.add_after(self.key.clone(), APART);
        }
        Some(last.error.clone())
    }

    /// Checks whether the object exists and is healthy.
    pub(super) async fn check_object(
        &self,
        record: &mut Record,
        dependency: &Dependency,
    ) -> Result<(), DependencyError> {
        let read = self.read(dependency).await;
        let error = read.as_ref().err().cloned();
        let generation = self.sync.metadata.generation;
        record.last_read = error.map(|error| LastRead { generation, at: Instant::now(), error });
        read
    }

    async fn read(&self, dependency: &Dependency) -> Result<(), DependencyError> {
        let live = &self.ctx.cluster.live;
        let Some((api_version, kind)) = dependency.kind() else { return Ok(()) };
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let found = self.ctx.cluster.discovery.find(group, version, kind).await;
        let resource = match found {
            Ok(resource) => resource,
            Err(DiscoveryError::UnknownKind { .. }) => return Err(self.no_such_kind(dependency, group)),
            Err(DiscoveryError::Request { source, .. }) => {
                let Some(id) = id_of(dependency, None) else { return Ok(()) };
                return Err(DependencyError::NotRead { id: Box::new(id), source: Box::new(source) });
            }
        };
        if resource.is_secrets() {
            return Err(DependencyError::Secret(dependency.name.clone()));
        }
        let namespace = namespace_of(&resource, dependency, &self.key.namespace);
        let Some(id) = id_of(dependency, namespace.as_deref()) else { return Ok(()) };
        let turn = match self.turn_for_dependency(dependency, &id).await {
            Ok(turn) => turn,
            Err(health) => return waits_for(id, health),
        };
        let place = self.ctx.health_reads.take(Asker::Namespace(&self.key.namespace)).await;
        let read = self.identity().get(&resource, namespace.as_deref(), &dependency.name).await;
        drop(place);
        let named = Named { resource, namespace, name: dependency.name.clone() };
        let object = match read {
            Ok(object) => object,
            Err(error) if error.is_gone() => {
                live.look_out(self.key, named, Sight::Missing);
                return Err(DependencyError::NoObject(Box::new(id)));
            }
            // The kind is no longer served.
            Err(error) if error.is_not_found() => {
                self.ctx.cluster.discovery.forget(group);
                return Err(self.no_such_kind(dependency, group));
            }
            Err(source) => {
                live.stop_looking_out(self.key);
                let (id, source) = (Box::new(id), Box::new(source));
                return Err(match source.code() {
                    Some(403) => DependencyError::Forbidden { id, source },
                    _ => DependencyError::NotRead { id, source },
                });
            }
        };
        let read = Sight::of(&object);
        let result = waits_for(id.clone(), self.assess_dependency(dependency, &id, object, &turn).await);
        if result.is_err() {
            live.look_out(self.key, named, read);
        }
        result
    }

    fn no_such_kind(&self, dependency: &Dependency, group: &str) -> DependencyError {
        let live = &self.ctx.cluster.live;
        live.look_out_for_kind(self.key, group);
        if live.is_kind_on_its_way(group) {
            self.ctx.retries.wake(self.key);
            self.ctx.queues.syncs.add_after(self.key.clone(), APART);
        }
        DependencyError::NoKind(Box::new(dependency.clone()))
    }
}

/// An error if the Sync has to wait for an object with this health.
fn waits_for(id: ObjectId, health: Health) -> Result<(), DependencyError> {
    let id = Box::new(id);
    match health {
        Health::Current => Ok(()),
        Health::InProgress(why) => Err(DependencyError::Unhealthy { id, why }),
        Health::Failed(why) => Err(DependencyError::Failed { id, why }),
    }
}

/// The namespace of the object that a dependency names; `None` if its kind has no namespaces.
fn namespace_of(resource: &Resource, dependency: &Dependency, own: &str) -> Option<String> {
    resource.namespaced.then(|| dependency.namespace.clone().unwrap_or_else(|| own.to_owned()))
}

/// The object that a dependency names.
pub(super) fn id_of(dependency: &Dependency, namespace: Option<&str>) -> Option<ObjectId> {
    let (api_version, kind) = dependency.kind()?;
    let (group, _) = api_version.split_once('/').unwrap_or(("", api_version));
    Some(ObjectId {
        group: group.into(),
        kind: kind.into(),
        namespace: namespace.map(str::to_owned),
        name: dependency.name.clone(),
    })
}
