//! Opened + live → what to apply, in which order, and what to prune.

mod crd;
mod wave;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crds::Sync;
use manifests::{Location, Manifest, ObjectId};
use serde_json::{Map, Value, json};

use super::{Held, Object, Opened, Stage, StageError, Unsealed, inventory::Inventory, render::namespace_for};
use crate::{
    cluster::{Discovery, DiscoveryError, Live, Resource, WatchError},
    key::ObjectKey,
    opened::OpenedSecret,
};
pub use wave::Wave;

type SharedResource = std::sync::Arc<Resource>;

/// What is to be done for one revision.
pub struct Plan {
    /// What to apply, wave after wave. Objects that the cluster has already are not in it.
    pub waves: BTreeMap<Wave, Vec<Step>>,
    /// Everything that exists or is about to: to be stored before the first object is written.
    pub inventory: Inventory,
    /// What left Git.
    pub prune: BTreeSet<ObjectId>,
    /// What keeps its last good version.
    pub held: Vec<Held>,
    /// Objects that need nothing.
    pub unchanged: usize,
    /// Kinds of all the objects that stand in Git, to judge their health by.
    pub kinds: HashMap<ObjectId, SharedResource>,
}

/// One object to apply.
pub struct Step {
    /// The object.
    pub id: ObjectId,
    /// Its kind.
    pub resource: SharedResource,
    /// Where it stands in Git.
    pub origin: Location,
    /// Digest of what is applied (of the sealed form for a Secret).
    pub digest: String,
    /// What is applied.
    pub content: Content,
    /// Git says the same as when it was last applied: somebody else changed the object since.
    pub is_heal: bool,
    /// JSON pointers that the Sync leaves to others; not in `content`.
    pub left_to_others: Vec<String>,
}

/// See [`Step::content`].
pub enum Content {
    /// An object as it stands in Git.
    Manifest(Map<String, Value>),
    /// The Secret of a SealedSecret.
    Secret {
        /// The Secret.
        secret: Box<OpenedSecret>,
        /// The SealedSecret, applied a wave earlier; its UID owns the Secret.
        owner: ObjectId,
    },
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The cluster does not know the kind.
    #[error("{origin}: {id}: {source}")]
    Kind {
        /// Where.
        origin: Location,
        /// Which object.
        id: ObjectId,
        /// What discovery said.
        source: DiscoveryError,
    },
    /// Another Sync owns the object.
    #[error(
        "{origin}: {id} belongs to Sync {owner}; remove it from one of the two (an object has one source), or delete that Sync first"
    )]
    Conflict {
        /// Where.
        origin: Location,
        /// Which object.
        id: ObjectId,
        /// The Sync that owns it.
        owner: ObjectKey,
    },
    /// The kind cannot be watched.
    #[error("{0}")]
    Watch(#[from] WatchError),
}

impl PlanError {
    /// The reason of [`PlanError::Conflict`].
    pub const OWNED_BY_ANOTHER: &str = "ObjectOwnedByAnotherSync";
}

impl StageError for PlanError {
    const STAGE: Stage = Stage::Plan;

    fn reason(&self) -> &'static str {
        match self {
            Self::Kind { source: DiscoveryError::UnknownKind { .. }, .. } => "UnknownKind",
            Self::Kind { .. } => "DiscoveryFailed",
            Self::Conflict { .. } => Self::OWNED_BY_ANOTHER,
            Self::Watch(_) => "WatchFailed",
        }
    }

    /// A kind may be installed and another Sync may let go of an object at any time: tried again with backoff.
    fn is_terminal(&self) -> bool {
        false
    }
}

/// Makes the plan. The only requests are for kinds that were never seen before.
pub async fn plan(
    discovery: &Discovery,
    live: &Live,
    sync: &Sync,
    key: &ObjectKey,
    opened: Opened,
    current: &Inventory,
) -> Result<Plan, PlanError> {
    let Opened { objects, held } = opened;
    let defined = crd::kinds_defined(&objects);
    let mut plan = Plan {
        waves: BTreeMap::new(),
        inventory: current.clone(),
        prune: BTreeSet::new(),
        held: Vec::new(),
        unchanged: 0,
        kinds: HashMap::new(),
    };
    let mut steps = Vec::with_capacity(objects.len());
    for object in objects {
        let namespace = namespace_for(sync, object.manifest().id.namespace.as_deref()).to_owned();
        let resource = find_kind(discovery, live, &defined, object.manifest(), &namespace).await?;
        steps.extend(steps_for(sync, key, discovery, live, object, resource).await?);
    }
    for (step, _) in &steps {
        if let Some(owner) = live.owner(&step.id).filter(|owner| owner != key) {
            return Err(PlanError::Conflict { origin: step.origin.clone(), id: step.id.clone(), owner });
        }
    }
    let mut keep = BTreeSet::new();
    for (mut step, is_current) in steps {
        // Another Sync's plan may have been faster since the check above: the claim decides.
        if let Err(owner) = live.claim(key, &step.id) {
            abandon(live, key, &plan.inventory, current);
            return Err(PlanError::Conflict { origin: step.origin, id: step.id, owner });
        }
        keep.insert(step.id.clone());
        plan.inventory.widen(step.id.clone(), &step.resource.version);
        plan.kinds.insert(step.id.clone(), step.resource.clone());
        let applied = current.get(&step.id).and_then(|record| record.manifest.as_deref());
        let is_same = applied == Some(step.digest.as_str());
        if is_current || (is_same && live.is_untouched(&step.id)) {
            plan.unchanged += 1;
        } else {
            step.is_heal = is_same && live.is_touched(&step.id);
            plan.waves.entry(Wave::of(&step.id)).or_default().push(step);
        }
    }
    for item in held {
        keep.extend(held_ids(&item));
        plan.held.push(item);
    }
    if sync.spec.prune {
        plan.prune = current.iter().map(|(id, _)| id).filter(|id| !keep.contains(id)).cloned().collect();
    }
    Ok(plan)
}

/// Gives up what a plan with the inventory `planned` claimed on top of `current`: for a plan that is not carried out.
/// Otherwise other Syncs would be refused objects that this one never had.
pub fn abandon(live: &Live, key: &ObjectKey, planned: &Inventory, current: &Inventory) {
    for (id, _) in planned.iter().filter(|(id, _)| !current.contains(id)) {
        live.release(key, id);
    }
}

/// A held object may be of a cluster-wide kind: both ids are kept, so that neither is pruned.
fn held_ids(held: &Held) -> Vec<ObjectId> {
    let mut ids = vec![held.id.clone(), ObjectId { namespace: None, ..held.id.clone() }];
    if held.id.is_sealed_secret() {
        ids.push(held.id.secret());
    }
    ids
}

async fn find_kind(
    discovery: &Discovery,
    live: &Live,
    defined: &HashMap<(String, String, String), SharedResource>,
    manifest: &Manifest,
    namespace: &str,
) -> Result<SharedResource, PlanError> {
    let id = &manifest.id;
    match discovery.find(&id.group, &manifest.version, &id.kind).await {
        Ok(resource) => {
            live.watch(&resource, Some(namespace)).await?;
            Ok(resource)
        }
        Err(source) => defined
            .get(&(id.group.clone(), manifest.version.clone(), id.kind.clone()))
            .cloned()
            .ok_or_else(|| PlanError::Kind { origin: manifest.origin.clone(), id: id.clone(), source }),
    }
}

/// The steps for one object of Git, each with whether the cluster has it already.
async fn steps_for(
    sync: &Sync,
    key: &ObjectKey,
    discovery: &Discovery,
    live: &Live,
    object: Object,
    resource: SharedResource,
) -> Result<Vec<(Step, bool)>, PlanError> {
    let (manifest, secret) = match object {
        Object::Plain(manifest) => (manifest, None),
        Object::Sealed { manifest, secret } => (manifest, Some(secret)),
    };
    let manifest = complete(sync, key, manifest, &resource);
    let left_to_others = left_to_others(sync, &manifest.id).cloned().collect();
    let origin = manifest.origin.clone();
    let sealed = Step {
        id: manifest.id.clone(),
        resource,
        origin: origin.clone(),
        digest: manifest.digest(),
        content: Content::Manifest(manifest.body),
        is_heal: false,
        left_to_others,
    };
    let Some(secret) = secret else {
        return Ok(vec![(sealed, false)]);
    };
    let id = sealed.id.secret();
    let resource = discovery.find("", "v1", "Secret").await.map_err(|source| PlanError::Kind {
        origin: origin.clone(),
        id: id.clone(),
        source,
    })?;
    live.watch(&resource, id.namespace.as_deref()).await?;
    let owner = sealed.id.clone();
    let (digest, content, is_current) = match secret {
        Unsealed::Opened { secret, digest } => (digest, Content::Secret { secret, owner }, false),
        Unsealed::Current { digest } => (digest, Content::Manifest(Map::new()), true),
    };
    Ok(vec![
        (sealed, false),
        (Step { id, resource, origin, digest, content, is_heal: false, left_to_others: Vec::new() }, is_current),
    ])
}

/// The fields of the object that the Sync leaves to others.
fn left_to_others<'a>(sync: &'a Sync, id: &ObjectId) -> impl Iterator<Item = &'a String> {
    let differences = sync.spec.ignore_differences.iter();
    differences.filter(|difference| fits(&difference.target, id)).flat_map(|difference| &difference.paths)
}

/// Puts in what every object of a Sync carries, and leaves out what the Sync leaves to others.
fn complete(sync: &Sync, key: &ObjectKey, mut manifest: Manifest, resource: &Resource) -> Manifest {
    manifest.id.namespace =
        resource.namespaced.then(|| namespace_for(sync, manifest.id.namespace.as_deref()).to_owned());
    for path in left_to_others(sync, &manifest.id) {
        remove_pointer(&mut manifest.body, path);
    }
    manifest.body.remove("status");
    manifests::leave_to_control_plane(&manifest.id, &mut manifest.body);
    let metadata = object_at(&mut manifest.body, "metadata");
    for noise in ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"] {
        metadata.remove(noise);
    }
    // Last, so that no ignored path takes away what the object is told by.
    metadata.insert("name".into(), json!(manifest.id.name));
    match &manifest.id.namespace {
        Some(namespace) => metadata.insert("namespace".into(), json!(namespace)),
        None => metadata.remove("namespace"),
    };
    let labels = object_at(metadata, "labels");
    labels.insert(crds::names::SYNC_NAME.into(), json!(key.name));
    labels.insert(crds::names::SYNC_NAMESPACE.into(), json!(key.namespace));
    manifest
}

/// The object at `key`, made if there is none or something else.
fn object_at<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("just made one")
}

fn fits(target: &crds::DifferenceTarget, id: &ObjectId) -> bool {
    let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
    fits(&target.group, &id.group)
        && fits(&target.kind, &id.kind)
        && fits(&target.namespace, id.namespace.as_deref().unwrap_or_default())
        && fits(&target.name, &id.name)
}

/// Removes what an RFC 6901 pointer points at, if it is there.
fn remove_pointer(body: &mut Map<String, Value>, pointer: &str) {
    let unescape = |part: &str| part.replace("~1", "/").replace("~0", "~");
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        return;
    };
    let last = unescape(last);
    if parent.is_empty() {
        // What makes an object that object cannot be left to others.
        if !matches!(last.as_str(), "apiVersion" | "kind" | "metadata") {
            body.remove(&last);
        }
        return;
    }
    let Some(tokens) = parent.strip_prefix('/') else {
        return;
    };
    let (first, deeper) = tokens.split_at(tokens.find('/').unwrap_or(tokens.len()));
    match body.get_mut(&unescape(first)).and_then(|value| value.pointer_mut(deeper)) {
        Some(Value::Object(map)) => {
            map.remove(&last);
        }
        Some(Value::Array(items)) => {
            if let Some(index) = last.parse().ok().filter(|index| *index < items.len()) {
                items.remove(index);
            }
        }
        _ => {}
    }
}

/// The message for a prune that is larger than the Sync allows and not confirmed. `applied` is the number of objects
/// of the last revision that was applied whole: `current` also has what the passes since then created, and must not let
/// the same prune look smaller from pass to pass.
pub fn waits_for_confirmation(
    sync: &Sync,
    revision: &str,
    current: &Inventory,
    applied: Option<usize>,
    prune: &BTreeSet<ObjectId>,
) -> Option<String> {
    let count = prune.iter().filter(|id| !current.is_derived(id)).count();
    let total = current.len_in_git().min(applied.unwrap_or(usize::MAX));
    let allowed = prune_allowance(&sync.spec.prune_limit, total);
    if count <= allowed {
        return None;
    }
    let annotations = sync.metadata.annotations.as_ref();
    let confirmed = annotations.and_then(|all| all.get(crds::names::CONFIRM_PRUNE));
    if confirmed.is_some_and(|confirmed| confirmed == revision) {
        return None;
    }
    let name = sync.metadata.name.as_deref().unwrap_or_default();
    let namespace = sync.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!(
        "{revision} removes {count} of {all} objects, more than pruneLimit {limit} allows; nothing was pruned. \
         Restore them in Git, or confirm with: kubectl annotate sync -n {namespace} {name} --overwrite {annotation}={revision}",
        all = total.max(count),
        limit = sync.spec.prune_limit,
        annotation = crds::names::CONFIRM_PRUNE,
    ))
}

/// How many of `total` objects may go without a confirmation: a percentage is rounded up, to one at least; of none and
/// of what is no number, none may.
fn prune_allowance(limit: &str, total: usize) -> usize {
    let Some(percent) = limit.strip_suffix('%') else {
        return limit.parse().unwrap_or(0);
    };
    match percent.parse::<usize>().unwrap_or(0) {
        0 => 0,
        percent => total.saturating_mul(percent).div_ceil(100).max(1),
    }
}

#[cfg(test)]
mod tests;
