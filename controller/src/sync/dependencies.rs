//! `spec.dependsOn`: a Sync waits until the Syncs that it names there are Ready, and the objects that it names are
//! healthy.

mod object;

use std::{collections::BTreeMap, fmt, sync::Arc};

use crds::{ConditionStatus, Dependency, ObjectKey, Sync, conditions, find_condition};
use manifests::ObjectId;
use pipeline::{Stage, StageError, plan::LiveView as _};

pub(super) use self::object::LastRead;
use super::{Pass, Record, account::FORBIDDEN, source::content_of};
use crate::{
    cluster::ApiError,
    context::{Context, InStore as _},
};

/// The reason of the condition Ready while a Sync waits for another Sync or an object.
const NOT_READY: &str = "DependencyNotReady";
const CYCLE: &str = "DependencyCycle";

/// Why a Sync has to wait.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum DependencyError {
    /// The other Sync does not exist.
    #[error("it waits for Sync {0}, which does not exist; create it, or correct spec.dependsOn")]
    Missing(ObjectKey),
    /// The other Sync is not Ready.
    #[error("it waits for Sync {0}, which is not Ready")]
    NotReady(ObjectKey),
    /// The other Sync is Ready, but has applied an older content of its folder.
    #[error("it waits for Sync {0}, which has not applied the newest content of its folder yet")]
    Outdated(ObjectKey),
    /// The other Sync is suspended.
    #[error("it waits for Sync {0}, which is suspended: resume that one, or remove it from spec.dependsOn")]
    Suspended(ObjectKey),
    /// The Sync waits for itself, through these Syncs.
    #[error("the Syncs of spec.dependsOn wait for each other: {}; remove one of these dependencies", names(.0))]
    Cycle(Vec<Step>),
    /// The other Sync is in another namespace.
    #[error("Sync {0} is in another namespace, and the controller was started without --allow-cross-namespace")]
    CrossNamespace(ObjectKey),
    /// The object is a Secret.
    #[error(
        "spec.dependsOn names Secret {0}, and a Secret cannot be waited for; name the SealedSecret that it is made from"
    )]
    Secret(String),
    /// The cluster does not serve the kind of an object.
    #[error(
        "it waits for {} {} of {}, a kind that the cluster does not serve; install its CustomResourceDefinition, or \
         correct spec.dependsOn",
        .0.kind.as_deref().unwrap_or_default(), .0.name, .0.api_version.as_deref().unwrap_or_default()
    )]
    NoKind(Box<Dependency>),
    /// The object does not exist.
    #[error("it waits for {0}, which does not exist; create it, or correct spec.dependsOn")]
    NoObject(Box<ObjectId>),
    /// The object is not healthy yet.
    #[error("it waits for {id}: {why}")]
    Unhealthy {
        /// The object.
        id: Box<ObjectId>,
        /// Why the object is not healthy yet.
        why: String,
    },
    /// The object failed.
    #[error("it waits for {id}, which failed: {why}")]
    Failed {
        /// The object.
        id: Box<ObjectId>,
        /// Why the object failed.
        why: String,
    },
    /// The Sync's identity may not read the object.
    #[error(
        "it may not read {id}, which spec.dependsOn names; give its service account the right to `get` it: {source}"
    )]
    Forbidden {
        /// The object.
        id: Box<ObjectId>,
        /// The API server's refusal.
        source: Box<ApiError>,
    },
    /// The object could not be read.
    #[error("{id}, which spec.dependsOn names, could not be read: {source}")]
    NotRead {
        /// The object.
        id: Box<ObjectId>,
        /// The error of the request.
        source: Box<ApiError>,
    },
}

impl StageError for DependencyError {
    const STAGE: Stage = Stage::Source;

    fn stage(&self) -> Stage {
        match self {
            Self::Forbidden { .. } => Stage::Allow,
            _ => Self::STAGE,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::CrossNamespace(_) => "AccessDenied",
            Self::Cycle(_) => CYCLE,
            Self::Secret(_) => "InvalidDependency",
            Self::Forbidden { .. } => FORBIDDEN,
            Self::Missing(_)
            | Self::NotReady(_)
            | Self::Outdated(_)
            | Self::Suspended(_)
            | Self::NoKind(_)
            | Self::NoObject(_)
            | Self::Unhealthy { .. }
            | Self::Failed { .. }
            | Self::NotRead { .. } => NOT_READY,
        }
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Self::CrossNamespace(_) | Self::Cycle(_) | Self::Secret(_))
    }

    /// Whether nothing is wrong with this Sync: the other Sync or the object will probably become Ready or healthy by
    /// itself, or reports its own problem.
    fn is_expected(&self) -> bool {
        matches!(self, Self::NotReady(_) | Self::Outdated(_) | Self::Unhealthy { .. })
    }
}

/// A step on a path through the dependencies of Syncs: the Sync that the step leads to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Step {
    sync: ObjectKey,
    /// The object of this Sync for which the previous Sync on the path waits. `None` if the previous Sync waits for
    /// this Sync itself.
    object: Option<ObjectId>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.object {
            None => write!(f, "{}", self.sync),
            Some(object) => write!(f, "{object} of {}", self.sync),
        }
    }
}

/// The Syncs that `sync` depends on.
fn of(sync: &Sync) -> impl Iterator<Item = ObjectKey> + '_ {
    let own = sync.metadata.namespace.as_deref().unwrap_or_default();
    let syncs = sync.spec.depends_on.iter().filter(|dependency| dependency.kind().is_none());
    syncs.map(move |dependency| key_of(dependency, own))
}

fn key_of(dependency: &Dependency, own_namespace: &str) -> ObjectKey {
    ObjectKey::new(dependency.namespace.as_deref().unwrap_or(own_namespace), dependency.name.as_str())
}

/// The first Sync in another namespace that `sync` depends on, also if the dependency has a `readyExpr`.
fn in_another_namespace(sync: &Sync) -> Option<ObjectKey> {
    let own = sync.metadata.namespace.as_deref().unwrap_or_default();
    let syncs = sync.spec.depends_on.iter().filter(|dependency| dependency.is_sync());
    syncs.map(|dependency| key_of(dependency, own)).find(|key| key.namespace != own)
}

/// Whether `sync` depends on `key`.
pub(crate) fn depends_on(sync: &Sync, key: &ObjectKey) -> bool {
    of(sync).any(|dependency| dependency == *key)
}

/// Whether a Sync that is not Ready for this reason waits for another Sync or an object.
pub(crate) fn is_waiting(reason: &str) -> bool {
    [NOT_READY, CYCLE].contains(&reason)
}

impl Pass<'_> {
    /// Checks whether all Syncs that the Sync depends on are Ready, and all objects healthy. `is_new` says whether the
    /// Sync is about to apply something that it has not applied before. Otherwise, objects are not read.
    pub(super) async fn check_dependencies(&self, record: &mut Record, is_new: bool) -> Result<(), DependencyError> {
        check(self.ctx, self.sync)?;
        if is_new {
            if let Some(error) = self.last_answer(record) {
                return Err(error);
            }
            for dependency in &self.sync.spec.depends_on {
                self.check_object(record, dependency).await.map_err(|error| self.or_cycle(error))?;
            }
        }
        record.last_read = None;
        self.ctx.cluster.live.stop_looking_out(self.key);
        Ok(())
    }
}

impl Pass<'_> {
    /// Returns `error`. But if the cause is that the Sync waits for itself, through an object of another Sync, returns
    /// this cycle.
    fn or_cycle(&self, error: DependencyError) -> DependencyError {
        use DependencyError::{Cycle, Failed, NoObject, Unhealthy};
        let may_be_cause = matches!(error, NoObject(_) | Unhealthy { .. } | Failed { .. });
        may_be_cause.then(|| cycle_of(self.ctx, self.sync)).flatten().map_or(error, Cycle)
    }
}

/// Checks whether all Syncs that `sync` depends on are Ready, with the newest content of their own folders.
fn check(ctx: &Context, sync: &Sync) -> Result<(), DependencyError> {
    if !ctx.tenancy.allow_cross_namespace
        && let Some(key) = in_another_namespace(sync)
    {
        return Err(DependencyError::CrossNamespace(key));
    }
    for key in of(sync) {
        let Some(dependency) = ctx.syncs.get(&key.to_ref()) else {
            return Err(DependencyError::Missing(key));
        };
        let status = dependency.status.as_ref();
        let is_ready = status.is_some_and(|status| {
            status.observed_generation == dependency.metadata.generation
                && find_condition(&status.conditions, conditions::READY)
                    .is_some_and(|ready| ready.status == ConditionStatus::True)
        });
        let wanted = content_of(ctx, &dependency);
        let is_current = wanted.is_some() && status.and_then(|status| status.applied_content.clone()) == wanted;
        if (!is_ready || !is_current) && dependency.spec.suspend {
            return Err(DependencyError::Suspended(key));
        }
        if !is_ready {
            return match cycle_of(ctx, sync) {
                Some(cycle) => Err(DependencyError::Cycle(cycle)),
                None => Err(DependencyError::NotReady(key)),
            };
        }
        if !is_current {
            return Err(DependencyError::Outdated(key));
        }
    }
    Ok(())
}

/// The path from `sync` through its dependencies back to itself, if there is one.
fn cycle_of(ctx: &Context, sync: &Sync) -> Option<Vec<Step>> {
    let live = &ctx.cluster.live;
    cycle(sync, |key| ctx.syncs.get(&key.to_ref()), |object| live.owner(object))
}

/// The Syncs that `sync` depends on, and the Syncs that have an object that `sync` depends on.
fn all_of(sync: &Sync, owner: impl Fn(&ObjectId) -> Option<ObjectKey>) -> Vec<Step> {
    let syncs = of(sync).map(|sync| Step { sync, object: None });
    let owners = sync.spec.depends_on.iter().filter_map(|dependency| {
        let own = sync.metadata.namespace.as_deref().unwrap_or_default();
        let mut object = object::id_of(dependency, Some(dependency.namespace.as_deref().unwrap_or(own)))?;
        let mut found = owner(&object);
        if found.is_none() {
            // The kind of the object may be cluster-scoped.
            object.namespace = None;
            found = owner(&object);
        }
        Some(Step { sync: found?, object: Some(object) })
    });
    syncs.chain(owners).collect()
}

/// See [`cycle_of`].
fn cycle(
    sync: &Sync,
    get: impl Fn(&ObjectKey) -> Option<Arc<Sync>>,
    owner: impl Fn(&ObjectId) -> Option<ObjectKey>,
) -> Option<Vec<Step>> {
    let start = ObjectKey::of(sync);
    // Every Sync that was found, with one Sync that depends on it. So the memory grows with the number of Syncs, not
    // with the number of paths between them.
    let mut found: BTreeMap<ObjectKey, (Step, ObjectKey)> = BTreeMap::new();
    let mut next: Vec<ObjectKey> = vec![start.clone()];
    let waits_for = |key: &ObjectKey| -> Vec<Step> {
        if *key == start {
            all_of(sync, &owner)
        } else {
            get(key).map(|other| all_of(&other, &owner)).unwrap_or_default()
        }
    };
    while let Some(waiting) = next.pop() {
        for step in waits_for(&waiting) {
            if step.sync == start {
                let mut way = vec![step];
                let mut before = waiting;
                while let Some((step, of)) = found.get(&before) {
                    way.push(step.clone());
                    before = of.clone();
                }
                way.push(Step { sync: start, object: None });
                way.reverse();
                return Some(way);
            }
            if !found.contains_key(&step.sync) {
                next.push(step.sync.clone());
                found.insert(step.sync.clone(), (step, waiting.clone()));
            }
        }
    }
    None
}

/// A path as text. The middle of a long path is left out.
fn names(way: &[Step]) -> String {
    const SHOWN: usize = 6;
    let name = |steps: &[Step]| steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(" waits for ");
    match way.len() {
        count if count <= SHOWN => name(way),
        count => format!(
            "{} waits for a chain of {} others, the last of which waits for {}",
            name(&way[..SHOWN - 2]),
            count - SHOWN + 1,
            way[count - 1]
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sync(name: &str, waits_for: &[&str]) -> Arc<Sync> {
        let depends_on: Vec<_> = waits_for.iter().map(|name| json!({ "name": name })).collect();
        let spec = json!({"repository": {"name": "repo"}, "path": "./", "dependsOn": depends_on});
        let object = json!({
            "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": name, "namespace": "a"}, "spec": spec,
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_sync_of_another_namespace_is_noticed_in_every_form() {
        let found = |dependency: serde_json::Value| {
            let mut sync = Sync::clone(&sync("self", &["beside"]));
            sync.spec.depends_on.push(serde_json::from_value(dependency).unwrap());
            in_another_namespace(&sync).map(|key| key.to_string())
        };
        let version = "gitseal.dev/v1alpha1";
        for elsewhere in [
            json!({"name": "x", "namespace": "b"}),
            json!({"name": "x", "namespace": "b", "readyExpr": "true"}),
            json!({"name": "x", "namespace": "b", "apiVersion": version, "kind": "Sync", "readyExpr": "true"}),
        ] {
            assert_eq!(found(elsewhere).as_deref(), Some("b/x"));
        }
        for allowed in [
            json!({"name": "x", "readyExpr": "true"}),
            json!({"name": "x", "namespace": "a", "readyExpr": "true"}),
            json!({"name": "x", "namespace": "b", "apiVersion": "apps/v1", "kind": "Deployment"}),
        ] {
            assert_eq!(found(allowed), None);
        }
    }

    #[test]
    fn syncs_that_wait_for_each_other_are_named() {
        let all = [
            sync("self", &["self"]),
            sync("one", &["free", "two"]),
            sync("two", &["three"]),
            sync("three", &["one", "missing"]),
            sync("free", &[]),
            sync("beside", &["one"]),
        ];
        let get = |key: &ObjectKey| all.iter().find(|sync| ObjectKey::of(&***sync) == *key).cloned();
        let nobody = |_: &ObjectId| None;
        let found = |index: usize| cycle(&all[index], get, nobody).map(|way| names(&way));
        assert_eq!(found(0).as_deref(), Some("a/self waits for a/self"));
        assert_eq!(found(1).as_deref(), Some("a/one waits for a/two waits for a/three waits for a/one"));
        assert_eq!(found(4), None);
        let many: Vec<_> = (0..400_usize)
            .map(|number| {
                let waits_for: Vec<_> = (1..=64).rev().map(|step| format!("s{}", (number + step) % 400)).collect();
                let waits_for: Vec<_> = waits_for.iter().map(String::as_str).collect();
                sync(&format!("s{number}"), &waits_for)
            })
            .collect();
        let get = |key: &ObjectKey| many.iter().find(|sync| ObjectKey::of(&***sync) == *key).cloned();
        let told = names(&cycle(&many[0], get, nobody).unwrap());
        assert!(
            told.starts_with("a/s0 waits for a/s") && told.ends_with(" waits for a/s0") && told.len() < 200,
            "{told}"
        );
        assert_eq!(found(5), None, "it waits for some that wait for each other, and is not one of them");
    }

    #[test]
    fn who_waits_for_an_object_waits_for_the_sync_that_has_it() {
        let object = |name: &str, kind: &str, of: &str| {
            let depends_on = json!([{"apiVersion": "apps/v1", "kind": kind, "name": of}]);
            let spec = json!({"repository": {"name": "repo"}, "path": "./", "dependsOn": depends_on});
            let json = json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec});
            Arc::new(serde_json::from_value::<Sync>(json).unwrap())
        };
        let all = [object("one", "Deployment", "web"), sync("two", &["one"]), object("own", "Role", "cluster-wide")];
        let get = |key: &ObjectKey| all.iter().find(|sync| ObjectKey::of(&***sync) == *key).cloned();
        let owner = |id: &ObjectId| match (id.kind.as_str(), &id.namespace) {
            ("Deployment", Some(_)) => Some(ObjectKey::new("a", "two")),
            ("Role", None) => Some(ObjectKey::new("a", "own")),
            _ => None,
        };
        let found = |index: usize| cycle(&all[index], get, owner).map(|way| names(&way));
        assert_eq!(found(0).as_deref(), Some("a/one waits for Deployment a/web of a/two waits for a/one"));
        assert_eq!(found(2).as_deref(), Some("a/own waits for Role cluster-wide of a/own"));
    }
}
