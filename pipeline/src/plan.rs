//! Compares manifests with live objects, and decides which objects to apply in which order, which are held back, and
//! which to prune.

mod again;
mod as_applied;
mod barrier;
mod crd;
mod job;
mod restart;
mod wave;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crds::{Deletion, ObjectKey, SealedSecretSpec, Sync};
use manifests::{Location, Manifest, ObjectId};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use unsealing::SealedInput;

use crate::{
    Cause, Held, Inventory, Kinds, Resource, Stage, StageError, inventory::Tracked, namespace_for,
    references::secrets_used,
};
pub use again::of_either_time;
use again::{Run, Runs};
use as_applied::{complete, left_to_others, object_at, whole};
pub use as_applied::{digest_as_applied, left_to_managers};
pub use barrier::Barrier;
pub use crd::kinds_defined;
use restart::Values;
pub use restart::{KeyedDigest, Stamp, stamp_of};
pub use wave::{
    HOOKS_AFTER, HOOKS_BEFORE, OnDelete, Tier, Times, TooLate, Wave, applied_on_delete, is_test, runs_once, times,
};
use wave::{OnlyOn, is_installed};
pub(crate) use wave::{asks_for_deletion, asks_to_wait, number_of, only_on, wave_again};

/// Everything that must be done for one revision.
#[derive(Default)]
pub struct Plan {
    /// What to apply, wave after wave, without the objects that already are in the cluster as in Git.
    pub waves: BTreeMap<Wave, Vec<Step>>,
    /// All objects that the Sync has or is about to create. This inventory is stored before the first object is
    /// written.
    pub inventory: Inventory,
    /// The objects that left the folder in Git.
    pub left: BTreeSet<ObjectId>,
    /// The objects that left the folder in Git and are to be deleted.
    pub prune: BTreeSet<ObjectId>,
    /// Objects that are held back and keep their last good version.
    pub held: Vec<Held>,
    /// Number of objects that already are in the cluster as in Git.
    pub unchanged: usize,
    /// Whether the plan has only objects that drifted.
    pub is_heal: bool,
    /// Kinds of all objects in Git, for the health checks.
    pub kinds: HashMap<ObjectId, Arc<Resource>>,
    /// Places of all objects in Git.
    pub origins: HashMap<ObjectId, Location>,
    /// Whether the folder has objects that are applied only when the Sync is deleted.
    pub has_hooks_on_delete: bool,
    /// Wave numbers of the objects that are not in wave 0.
    numbers: HashMap<ObjectId, i32>,
    /// The objects that later waves wait for until they are healthy.
    awaited: BTreeSet<ObjectId>,
    /// The objects that are deleted when they are healthy.
    deleted_when_healthy: BTreeSet<ObjectId>,
    /// The objects that are deleted when they have failed.
    deleted_when_failed: BTreeSet<ObjectId>,
    /// The objects that the Sync waits for even with `wait: false`.
    always_awaited: BTreeSet<ObjectId>,
    /// The hooks of Helm, and the tests.
    hooks: BTreeSet<ObjectId>,
    /// The objects of the installation, which is complete. They are not made again.
    of_the_installation: BTreeSet<ObjectId>,
    /// The objects that this plan makes for the second time, or that were made for the second time already.
    second: BTreeSet<ObjectId>,
    /// Of the objects that will be made again, and not in this plan: the number of the first wave in which one is.
    again_in: Option<i32>,
    /// The objects that are applied when all others are healthy.
    tests: BTreeSet<ObjectId>,
    /// The steps of objects that were deleted because they were healthy or had failed, and whether later waves would wait for them.
    done: Vec<(Step, bool)>,
}

/// One object to apply.
pub struct Step {
    /// The object.
    pub id: ObjectId,
    /// The kind of the object.
    pub resource: Arc<Resource>,
    /// Where the object is in Git.
    pub origin: Location,
    /// Digest of what is applied; for the Secret of a SealedSecret, the digest of its sealed form.
    pub digest: String,
    /// What is applied: the object itself, or what it is made from.
    pub content: Content,
    /// Why the object is applied.
    pub why: Why,
    /// If the object is a workload that is restarted when values change: the digest of the values that it uses, which is
    /// written into its Pod template.
    pub stamp: Option<Stamp>,
    /// JSON pointers of the fields that the Sync leaves to others. `content` does not have these fields.
    pub left_to_others: Vec<String>,
    /// Field managers to which the Sync leaves the fields that they own in the cluster. `content` has these fields,
    /// because only the object in the cluster shows which ones they are.
    pub left_to_managers: Vec<String>,
    /// The object with the fields that are left to others, if they are in Git. If the object does not exist, it is made
    /// with these fields, because it may need them.
    pub first: Option<Box<Map<String, Value>>>,
    /// Names of the Secrets of this plan that the object uses, all in the object's own namespace. If one of them cannot
    /// be made, the object is held back.
    pub needs: Vec<String>,
    /// Whether an object that exists is made again instead of being changed: it is a hook of Helm that has run.
    pub runs_again: bool,
}

impl Step {
    /// Whether the object in Git and the values that it uses are the same as those that were `applied`.
    pub fn is_as(&self, applied: &Tracked) -> bool {
        let is_same_values = match &self.content {
            Content::Manifest(_) => applied.values.as_ref() == self.stamp.as_ref().map(|stamp| &stamp.digest),
            Content::Sealed(_) => true,
        };
        applied.manifest.as_ref() == Some(&self.digest) && is_same_values
    }
}

/// See [`Step::why`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// The object in Git changed, or is new.
    Change,
    /// The object in Git is the same as when it was last applied, but somebody changed or deleted it in the cluster.
    Heal,
    /// The cluster has this SealedSecret already. It is applied once more because its Secret is unsealed in this pass:
    /// before a private key is used, the API server must accept the SealedSecret from the identity of the Sync.
    Accept,
}

/// See [`Step::content`].
pub enum Content {
    /// An object as it is in Git.
    Manifest(Map<String, Value>),
    /// The Secret of a SealedSecret, with its values still sealed. The SealedSecret has the same name, and is applied
    /// in an earlier wave.
    Sealed(Box<Sealed>),
}

/// The sealed values and the template of a SealedSecret in Git.
#[derive(Deserialize)]
pub struct Sealed {
    #[serde(default)]
    metadata: SealedMetadata,
    spec: SealedSecretSpec,
}

#[derive(Default, Deserialize)]
struct SealedMetadata {
    #[serde(default, deserialize_with = "null_is_empty")]
    annotations: BTreeMap<String, String>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Sealed {
    /// The input for unsealing the SealedSecret, which has the id `id` in the cluster. The id must have a namespace.
    pub fn input<'a>(&'a self, id: &'a ObjectId, accept_deprecated_v1_data: bool) -> SealedInput<'a> {
        SealedInput {
            namespace: id.namespace.as_deref().unwrap_or_default(),
            name: &id.name,
            annotations: &self.metadata.annotations,
            spec: &self.spec,
            accept_deprecated_v1_data,
        }
    }

    /// The digest that the inventory has for the Secret of the SealedSecret `id`.
    fn digest(&self, id: &ObjectId) -> String {
        unsealing::digest(&self.input(id, true))
    }
}

/// How many sealed values one Sync's folder may have. One processor unseals that many in a minute or two.
pub const MOST_VALUES: usize = 50_000;

/// The facts about the cluster that a plan needs.
pub trait LiveView {
    /// Whether the object exists, whoever made it.
    fn exists(&self, id: &ObjectId) -> bool;
    /// Whether the object exists and nobody has changed our fields since they were last applied.
    fn is_untouched(&self, id: &ObjectId) -> bool;
    /// Whether somebody changed or removed the object since it was last applied.
    fn is_touched(&self, id: &ObjectId) -> bool;
    /// The Sync that has the object.
    fn owner(&self, id: &ObjectId) -> Option<ObjectKey>;
    /// Whether the object is a Job that is missing because Kubernetes deleted it some time after its end
    /// (`ttlSecondsAfterFinished`). A Job that disappeared while the controller did not run counts as such a Job, so
    /// that it does not run again by itself.
    fn is_expired_job(&self, id: &ObjectId) -> bool;
}

/// The reason why an object is held back: another Sync has it.
pub const OWNED_BY_ANOTHER: &str = "ObjectOwnedByAnotherSync";
/// The reason why an object is held back: another Sync still has it, and may hand it over.
const WAITING_FOR_HAND_OVER: &str = "WaitingForHandOver";

/// Why the plan could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Neither the cluster nor the folder knows the kind.
    #[error("{origin}: {id}: the cluster has no kind {} in {api_version}; {}", .id.kind, what_to_do(.id, .instead))]
    UnknownKind {
        /// Where the object is in Git.
        origin: Location,
        /// The object.
        id: Box<ObjectId>,
        /// Group and version as in `apiVersion`.
        api_version: String,
        /// The versions in which the cluster serves a kind of that name.
        instead: Vec<String>,
    },
    /// An object needs another object that has a later wave.
    #[error(transparent)]
    TooLate(#[from] Box<TooLate>),
}

fn what_to_do(id: &ObjectId, instead: &[String]) -> String {
    if instead.is_empty() {
        return "is its CustomResourceDefinition installed?".to_owned();
    }
    format!("it serves {} in {}: change apiVersion, and the fields that differ there", id.kind, instead.join(", "))
}

impl StageError for PlanError {
    const STAGE: Stage = Stage::Plan;

    fn stage(&self) -> Stage {
        match self {
            Self::UnknownKind { .. } => Stage::Plan,
            // A wave that is too late is reported under the stage guard, because this stage finds the other wrong
            // waves. It is found only in the stage plan, where the kinds are known.
            Self::TooLate(_) => Stage::Guard,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::UnknownKind { .. } => "UnknownKind",
            Self::TooLate(_) => "InvalidWave",
        }
    }

    /// An unknown kind is tried again, because somebody may install it at any time.
    fn is_terminal(&self) -> bool {
        matches!(self, Self::TooLate(_))
    }
}

/// Which objects of the folder are planned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope<'a> {
    /// All objects; those that left the folder are pruned.
    Folder,
    /// Only these objects, which drifted.
    Drifted(&'a BTreeSet<ObjectId>),
}

impl Scope<'_> {
    fn contains(self, id: &ObjectId) -> bool {
        match self {
            Self::Folder => true,
            Self::Drifted(ids) => ids.contains(id) || id.is_sealed_secret() && ids.contains(&id.secret()),
        }
    }
}

/// Makes the plan for the objects in `manifests`. `kinds` has the kinds that the cluster serves or the folder defines;
/// `current` has all objects that the Sync has. `keyed` makes the digests of values that are written into Pod
/// templates. Without it, workloads keep the digests that they have.
pub fn plan(
    sync: &Sync,
    manifests: &[Manifest],
    kinds: &Kinds,
    current: &Inventory,
    live: &impl LiveView,
    scope: Scope<'_>,
    keyed: Option<&KeyedDigest<'_>>,
) -> Result<Plan, PlanError> {
    let key = ObjectKey::of(sync);
    let runs = Runs::of(sync, manifests, kinds, current);
    let numbers = wave::numbers(sync, manifests, kinds, &runs)?;
    let mut plan = Plan { inventory: current.clone(), numbers, ..Plan::default() };
    let mut keep = BTreeSet::new();
    let mut steps = Vec::new();
    let mut sealed = 0;
    let values = Values::new(sync, manifests, kinds);
    let is_test = |manifest: &Manifest| wave::is_test(manifest).unwrap_or_default();
    let tested = manifests.iter().any(is_test).then(|| wave::tested(sync, manifests));
    for manifest in manifests {
        if let Ok(times) = times(manifest) {
            plan.has_hooks_on_delete |= times.is_on_delete();
            if !times.usual {
                continue;
            }
        }
        let resource = kinds.of(manifest).ok_or_else(|| PlanError::UnknownKind {
            origin: manifest.origin.clone(),
            id: Box::new(manifest.id.clone()),
            api_version: manifest.api_version(),
            instead: kinds.instead_of(manifest).to_vec(),
        })?;
        let ids = ids_in_cluster(sync, manifest, resource);
        let id = ids[0].clone();
        keep.extend(ids.iter().cloned());
        if !scope.contains(&id) {
            continue;
        }
        if is_only_made(manifest) && plan.leaves(&key, &id, live) {
            plan.unchanged += 1;
            if plan.inventory.contains(&id) {
                plan.kinds.insert(id.clone(), resource.clone());
                plan.origins.insert(id, manifest.origin.clone());
            }
            continue;
        }
        match only_on(manifest) {
            Ok(Some(OnlyOn::Installation)) if is_installed(sync) => {
                if !is_applied(sync, manifest, &id, current) {
                    continue;
                }
                plan.of_the_installation.insert(id.clone());
            }
            Ok(Some(OnlyOn::Upgrade)) if plan.skips(sync, manifest, &id, resource, live) => continue,
            _ => {}
        }
        if plan.is_awaited(sync, manifest, &id) {
            plan.awaited.insert(id.clone());
        }
        // A SealedSecret is not deleted when it is healthy, because other objects use its Secret.
        let mut deleted = asks_for_deletion(manifest).unwrap_or_default();
        match runs.get(&manifest.id) {
            Some(Run::First(number)) => {
                deleted.healthy = true;
                plan.again_in = Some(plan.again_in.map_or(number, |least| least.min(number)));
            }
            Some(Run::Second(_)) => {
                plan.second.insert(id.clone());
            }
            None => {}
        }
        if deleted.healthy && !id.is_sealed_secret() {
            plan.deleted_when_healthy.insert(id.clone());
        }
        if deleted.failed && !id.is_sealed_secret() {
            plan.deleted_when_failed.insert(id.clone());
        }
        if wave::is_always_awaited(manifest) || deleted.healthy && !id.is_sealed_secret() {
            plan.always_awaited.insert(id.clone());
        }
        if wave::is_hook(manifest) || is_test(manifest) {
            plan.hooks.insert(id.clone());
        }
        if is_test(manifest) {
            plan.tests.insert(id.clone());
        }
        sealed += sealed_values(manifest);
        if sealed > MOST_VALUES && id.is_sealed_secret() {
            plan.held.push(too_many_values(id, manifest.origin.clone()));
            continue;
        }
        let uses = secrets_used(manifest);
        let mut manifest = manifest.clone();
        if let Some(tested) = tested.as_ref().filter(|_| is_test(&manifest)) {
            wave::set_tested(&mut manifest, tested);
        }
        manifest.id = id;
        if let Some(held) = owned_by_another(live, &key, &manifest, &ids) {
            let kind = if held.id.is_secret() { Arc::new(Resource::secrets()) } else { resource.clone() };
            plan.kinds.insert(held.id.clone(), kind);
            plan.held.push(held);
        } else {
            let stamp = values.stamp(&manifest, current, keyed);
            steps.extend(plan.steps_for(sync, &key, (manifest, stamp), resource, uses, live));
        }
    }
    if scope == Scope::Folder {
        plan.make_again(&mut steps);
    }
    plan.order(steps);
    if scope == Scope::Folder {
        plan.left = current.iter().map(|(id, _)| id).filter(|id| !keep.contains(id)).cloned().collect();
    }
    if sync.spec.prune {
        plan.prune.clone_from(&plan.left);
    }
    Ok(plan)
}

/// Whether the object was last applied as it is in `manifest`.
fn is_applied(sync: &Sync, manifest: &Manifest, id: &ObjectId, current: &Inventory) -> bool {
    let applied = current.get(id).and_then(|known| known.manifest.as_deref()).map(of_either_time);
    applied.is_some() && digest_as_applied(sync, manifest.clone(), id).as_deref() == applied
}

/// Whether an object is applied only in the installation of its Sync.
pub fn is_only_for_installation(manifest: &Manifest) -> bool {
    only_on(manifest) == Ok(Some(OnlyOn::Installation))
}

/// Refuses an object that needs another object of a later wave. `kinds` has the kinds of the objects, as for [`plan`].
///
/// # Errors
/// The first such object.
pub fn check_waves(sync: &Sync, manifests: &[Manifest], kinds: &Kinds) -> Result<(), Box<TooLate>> {
    wave::numbers(sync, manifests, kinds, &Runs::default()).map(drop)
}

/// Why the object is held back, if another Sync has it or its Secret. The rest of the folder is applied.
fn owned_by_another(live: &impl LiveView, key: &ObjectKey, manifest: &Manifest, ids: &[ObjectId]) -> Option<Held> {
    let (id, owner) = ids.iter().find_map(|id| Some((id, live.owner(id).filter(|owner| owner != key)?)))?;
    Some(Held::owned_by_another(id.clone(), manifest.origin.clone(), &owner))
}

impl Held {
    /// An object that is held back because the Sync `owner` has it.
    pub fn owned_by_another(id: ObjectId, origin: Location, owner: &ObjectKey) -> Self {
        let because = format!(
            "it belongs to Sync {owner}; an object can belong to one Sync only: remove it from one of the two folders, \
             or delete that Sync first"
        );
        Self {
            id,
            origin,
            because,
            cause: Some(Cause { stage: Stage::Plan, reason: OWNED_BY_ANOTHER, terminal: false }),
        }
    }

    /// See [`Held::owned_by_another`].
    pub fn is_owned_by_another(&self) -> bool {
        self.cause.is_some_and(|cause| cause.reason == OWNED_BY_ANOTHER)
    }

    /// Says that `owner` still has the object, although the object left the folder of `owner`.
    pub fn wait_for_hand_over(&mut self, owner: &ObjectKey) {
        self.because = format!("it left the folder of Sync {owner}, which still has it and will hand it over");
        self.cause = Some(Cause { stage: Stage::Plan, reason: WAITING_FOR_HAND_OVER, terminal: false });
    }

    /// Says that another Sync had the object when the plan was made, and has released it since then.
    pub fn was_released(&mut self) {
        "another Sync has just released it; it is applied in the next pass".clone_into(&mut self.because);
        self.cause = Some(Cause { stage: Stage::Plan, reason: WAITING_FOR_HAND_OVER, terminal: false });
    }

    /// Says that `owner` has the object, and that it is not known yet whether `owner` will release it.
    pub fn may_be_handed_over(&mut self, owner: &ObjectKey) {
        self.because = format!(
            "Sync {owner} has it, and there is no memory now to find out whether the object left that \
             Sync's folder; the controller tries again"
        );
        self.cause = Some(Cause { stage: Stage::Plan, reason: WAITING_FOR_HAND_OVER, terminal: false });
    }

    /// See [`Held::wait_for_hand_over`].
    pub fn waits_for_hand_over(&self) -> bool {
        self.cause.is_some_and(|cause| cause.reason == WAITING_FOR_HAND_OVER)
    }

    /// Whether the object is a SealedSecret whose Secret cannot be made from what is in Git.
    pub fn is_undecryptable(&self) -> bool {
        self.cause.is_some_and(|cause| cause.stage == Stage::Unseal)
    }

    /// An object that is held back because it uses `secret`, a Secret that could not be made.
    pub fn for_want_of(secret: &str, id: ObjectId, origin: Location) -> Self {
        Self { id, origin, because: format!("it uses Secret '{secret}', which could not be made"), cause: None }
    }
}

/// Whether the object has the annotation [`crds::names::CHANGE`], so that it is not changed once it exists. The Secret of a
/// SealedSecret always follows the SealedSecret.
pub fn is_only_made(manifest: &Manifest) -> bool {
    is_never_changed(&manifest.id, &manifest.body)
}

fn is_never_changed(id: &ObjectId, body: &Map<String, Value>) -> bool {
    let annotations = body.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let value = annotations.and_then(|all| all.get(crds::names::CHANGE));
    value.is_some_and(|value| value == crds::names::CHANGE_DISABLED) && !id.is_sealed_secret()
}

impl Plan {
    /// Whether an object that is not to be changed stays as it is, because it exists. An object that another Sync has released for
    /// the Sync `key` is applied once: otherwise, no Sync would have it any more.
    fn leaves(&self, key: &ObjectKey, id: &ObjectId, live: &impl LiveView) -> bool {
        let is_handed_over = || !self.inventory.contains(id) && live.owner(id).as_ref() == Some(key);
        live.exists(id) && !is_handed_over()
    }

    /// The wave that an object of the folder has by its wave number and its kind. An object that uses a Secret of this
    /// revision may be applied in a later tier of the same number.
    pub fn wave_of(&self, id: &ObjectId) -> Wave {
        Wave::new(self.numbers.get(id).copied().unwrap_or(0), id)
    }

    /// Namespaces and names of the Secrets that cannot be made from what is in Git. Objects that use these Secrets are
    /// held back, see [`hold_users`].
    pub fn missing(&self) -> BTreeSet<(String, String)> {
        self.held.iter().filter(|held| held.is_undecryptable()).map(|held| secret_place(&held.id)).collect()
    }

    /// The objects that are applied only because somebody changed or deleted them in the cluster.
    pub fn heals(&self) -> impl Iterator<Item = &ObjectId> {
        self.waves.values().flatten().filter(|step| step.why == Why::Heal).map(|step| &step.id)
    }

    /// How many bytes of JSON the inventory takes in the Sync's status when everything is applied and nothing is pruned
    /// yet.
    pub fn inventory_bytes(&self) -> usize {
        let digests = self.waves.values().flatten().map(|step| {
            let values = match (&step.stamp, &step.content) {
                (Some(stamp), _) => stamp.digest.len(),
                (None, Content::Sealed(_)) => step.digest.len(),
                (None, Content::Manifest(_)) => 0,
            };
            (&step.id, (step.digest.as_str(), values))
        });
        self.inventory.bytes_when_applied(&digests.collect())
    }

    /// The steps for one object in Git. There are none if the cluster already has the object as in Git.
    fn steps_for(
        &mut self,
        sync: &Sync,
        key: &ObjectKey,
        (manifest, stamp): (Manifest, Option<Stamp>),
        resource: &Arc<Resource>,
        uses: BTreeSet<String>,
        live: &impl LiveView,
    ) -> Vec<Step> {
        let sealed = manifest.id.is_sealed_secret().then(|| Sealed::deserialize(Value::Object(manifest.body.clone())));
        let left_to_others: Vec<_> = left_to_others(sync, &manifest.id).cloned().collect();
        let first = (!left_to_others.is_empty()).then(|| whole(key, manifest.clone()).body);
        let mut manifest = complete(sync, key, manifest);
        let mut first = first.filter(|first| *first != manifest.body).map(Box::new);
        let left_to_managers = left_to_managers(&sync.spec.ignore_differences, &manifest.id);
        let mut digest = as_applied::digest(&manifest, &left_to_managers);
        if self.second.contains(&manifest.id) {
            digest = again::second(&digest);
        }
        let stamp = stamp.filter(|_| !restart::is_left_to_others(&left_to_others));
        if let Some(stamp) = &stamp {
            stamp.write(&mut manifest.body);
            if let Some(first) = &mut first {
                stamp.write(first);
            }
        }
        if self.hooks.contains(&manifest.id) && runs_once(&manifest.id) {
            for body in [Some(&mut manifest.body), first.as_deref_mut()].into_iter().flatten() {
                let annotations = object_at(object_at(body, "metadata"), "annotations");
                annotations.insert(crds::names::MADE_FROM.to_owned(), digest.clone().into());
            }
        }
        let own = Step {
            digest,
            id: manifest.id,
            resource: resource.clone(),
            origin: manifest.origin,
            content: Content::Manifest(manifest.body),
            why: Why::Change,
            stamp,
            left_to_others,
            left_to_managers,
            first,
            needs: uses.into_iter().collect(),
            runs_again: false,
        };
        let sealed = match sealed {
            None => return self.needed(own, live).into_iter().collect(),
            Some(Ok(sealed)) => sealed,
            Some(Err(_)) => {
                let because = "its spec is not that of a SealedSecret; make it again with `gitseal seal`".into();
                let cause = Cause { stage: Stage::Unseal, reason: "UnsealFailed", terminal: true };
                self.held.push(Held { id: own.id, origin: own.origin, because, cause: Some(cause) });
                return Vec::new();
            }
        };
        let secret = Step {
            id: own.id.secret(),
            resource: Arc::new(Resource::secrets()),
            origin: own.origin.clone(),
            digest: sealed.digest(&own.id),
            content: Content::Sealed(Box::new(sealed)),
            why: Why::Change,
            stamp: None,
            left_to_others: Vec::new(),
            left_to_managers: Vec::new(),
            first: None,
            needs: Vec::new(),
            runs_again: false,
        };
        match self.needed(secret, live) {
            None => self.needed(own, live).into_iter().collect(),
            Some(secret) => {
                let why = self.why(&own, live).unwrap_or(Why::Accept);
                vec![Step { why, ..own }, secret]
            }
        }
    }

    /// The step; `None` if the cluster already has the step's object as in Git.
    fn needed(&mut self, step: Step, live: &impl LiveView) -> Option<Step> {
        let known = self.inventory.get(&step.id).and_then(|known| known.manifest.as_ref());
        let runs_again =
            known.is_some_and(|known| *known != step.digest) && self.hooks.contains(&step.id) && runs_once(&step.id);
        let why = self.why(&step, live);
        self.unchanged += usize::from(why.is_none());
        if why.is_none() && self.inventory.is_over(&step.id) {
            let is_awaited = self.awaited.contains(&step.id);
            if self.inventory.is_done(&step.id) {
                // An object that is gone cannot become healthy, so nobody waits for that.
                self.kinds.remove(&step.id);
                self.awaited.remove(&step.id);
            }
            self.done.push((step, is_awaited));
            return None;
        }
        why.map(|why| Step { why, runs_again, ..step })
    }

    /// Whether an object that is only for upgrades is not applied now: in an installation, and later as long as it does not change.
    fn skips(
        &mut self,
        sync: &Sync,
        manifest: &Manifest,
        id: &ObjectId,
        resource: &Resource,
        live: &impl LiveView,
    ) -> bool {
        let Some(digest) = digest_as_applied(sync, manifest.clone(), id) else { return false };
        if is_installed(sync) {
            return self.inventory.is_skipped_as(id, &digest);
        }
        // What is there already stays as it is.
        let is_there = live.owner(id).is_some() || self.inventory.contains(id) && !self.inventory.is_skipped(id);
        if !is_there {
            let wave = self.numbers.get(id).copied().unwrap_or_default();
            self.inventory.skip(id, &resource.version, &digest, wave);
        }
        true
    }

    /// If a hook changed, adds to `steps` the hooks that are over and run at the same time as this hook (before the other
    /// objects, or after them). The changed hook may need them, as a Job needs its service account.
    fn make_again(&mut self, steps: &mut Vec<Step>) {
        let numbers = &self.numbers;
        let time = |id: &ObjectId| numbers.get(id).map_or(0, |number| Wave::time(*number));
        let changed = steps.iter().filter(|step| step.why == Why::Change && self.hooks.contains(&step.id));
        let changed: BTreeSet<i32> = changed.map(|step| time(&step.id)).collect();
        for (step, is_awaited) in std::mem::take(&mut self.done) {
            let is_again = self.hooks.contains(&step.id) && !self.of_the_installation.contains(&step.id);
            if !is_again || !changed.contains(&time(&step.id)) {
                continue;
            }
            self.unchanged -= 1;
            let deletion = self.deleted_when_healthy.contains(&step.id).then_some(Deletion::Due);
            self.inventory.set_deletion(&step.id, deletion);
            self.kinds.insert(step.id.clone(), step.resource.clone());
            if is_awaited {
                self.awaited.insert(step.id.clone());
            }
            steps.push(Step { why: Why::Change, ..step });
        }
    }

    /// Whether the object is deleted when it is healthy.
    pub fn is_deleted_when_healthy(&self, id: &ObjectId) -> bool {
        self.deleted_when_healthy.contains(id)
    }

    /// Whether the Sync waits for the object even with `wait: false`: it is a hook or a test, or it is deleted when it is
    /// healthy or has failed.
    pub fn is_always_awaited(&self, id: &ObjectId) -> bool {
        self.always_awaited.contains(id)
    }

    /// Whether some objects are tests, which are applied when all others are healthy.
    pub fn has_tests(&self) -> bool {
        !self.tests.is_empty()
    }

    /// Whether the object is deleted when it has failed.
    pub fn is_deleted_when_failed(&self, id: &ObjectId) -> bool {
        self.deleted_when_failed.contains(id)
    }

    /// Adds the object of the step to the inventory, and returns why it is applied; `None` if the cluster already has
    /// the object as in Git.
    fn why(&mut self, step: &Step, live: &impl LiveView) -> Option<Why> {
        if !self.track(step) {
            // What is never changed is applied only because it was deleted, also if it changed in Git since it was made.
            let is_put_back = matches!(&step.content, Content::Manifest(body) if is_never_changed(&step.id, body))
                && live.is_touched(&step.id);
            return Some(if is_put_back { Why::Heal } else { Why::Change });
        }
        // A test that is gone has done its work.
        let is_over = job::expires(step) && live.is_expired_job(&step.id) || self.tests.contains(&step.id);
        if is_over || self.inventory.is_over(&step.id) || live.is_untouched(&step.id) {
            return None;
        }
        Some(if live.is_touched(&step.id) { Why::Heal } else { Why::Change })
    }

    /// Adds the object of the step to the inventory. Returns whether the object in Git is the same as when it was last
    /// applied.
    fn track(&mut self, step: &Step) -> bool {
        self.inventory.widen(step.id.clone(), &step.resource.version);
        self.inventory.set_wave(&step.id, self.wave_of(&step.id).number);
        self.kinds.insert(step.id.clone(), step.resource.clone());
        self.origins.insert(step.id.clone(), step.origin.clone());
        let is_same = self.inventory.get(&step.id).is_some_and(|applied| step.is_as(applied));
        let is_deleted_when_healthy = self.deleted_when_healthy.contains(&step.id);
        let deletion = if is_same && is_deleted_when_healthy && self.inventory.is_done(&step.id) {
            Some(Deletion::Done)
        } else if is_same && self.inventory.has_failed(&step.id) {
            Some(Deletion::Failed)
        } else {
            is_deleted_when_healthy.then_some(Deletion::Due)
        };
        self.inventory.set_deletion(&step.id, deletion);
        is_same
    }

    /// Puts the steps in their waves.
    fn order(&mut self, steps: Vec<Step>) {
        // `secrets` are the Secrets that other objects have to wait for. The Secrets that cannot be made are among
        // them.
        let mut secrets = self.missing();
        let unsealed = steps.iter().filter(|step| matches!(step.content, Content::Sealed(_)));
        secrets.extend(unsealed.map(|step| secret_place(&step.id)));
        for mut step in steps {
            let namespace = step.id.namespace.clone().unwrap_or_default();
            step.needs.retain(|name| secrets.contains(&(namespace.clone(), name.clone())));
            let mut wave = self.wave_of(&step.id);
            if !step.needs.is_empty() {
                wave.tier = wave.tier.max(Tier::Configuration);
            }
            self.waves.entry(wave).or_default().push(step);
        }
    }

    /// Leaves out the steps that heal the objects in `later`; what changed in Git stays in the plan. A SealedSecret
    /// stays if its Secret stays. A SealedSecret that is in the plan only because of its Secret is left out together
    /// with the Secret.
    #[must_use]
    pub fn put_off(mut self, later: &BTreeSet<ObjectId>) -> Self {
        let is_later = |step: &Step| step.why == Why::Heal && later.contains(&step.id);
        let unsealed: BTreeSet<ObjectId> = (self.waves.values().flatten())
            .filter(|step| matches!(step.content, Content::Sealed(_)) && !is_later(step))
            .map(|step| step.id.sealed_secret())
            .collect();
        for steps in self.waves.values_mut() {
            steps.retain(|step| unsealed.contains(&step.id) || step.why != Why::Accept && !is_later(step));
        }
        self.waves.retain(|_, steps| !steps.is_empty());
        self
    }

    /// The part of the plan that undoes what somebody changed in the cluster: no change in Git is applied, and nothing
    /// is pruned. `current` is the inventory of the Sync when the plan was made.
    #[must_use]
    pub fn heal_only(mut self, current: &Inventory) -> Self {
        for steps in self.waves.values_mut() {
            steps.retain(|step| step.why != Why::Change);
        }
        self.waves.retain(|_, steps| !steps.is_empty());
        self.inventory.clone_from(current);
        self.left.clear();
        self.prune.clear();
        self.is_heal = true;
        self
    }
}

/// How many sealed values a manifest has.
fn sealed_values(manifest: &Manifest) -> usize {
    if !manifest.id.is_sealed_secret() {
        return 0;
    }
    let values = manifest.body.get("spec").and_then(|spec| spec.get("encryptedData"));
    // At least one, because a SealedSecret in the deprecated form has its only sealed value in `spec.data`.
    values.and_then(Value::as_object).map_or(1, |values| values.len().max(1))
}

fn too_many_values(id: ObjectId, origin: Location) -> Held {
    let because = format!(
        "the folder has more than {MOST_VALUES} sealed values, which is the most that one Sync unseals: split it into \
         the folders of several Syncs"
    );
    let cause = Cause { stage: Stage::Unseal, reason: "UnsealFailed", terminal: true };
    Held { id, origin, because, cause: Some(cause) }
}

/// The id that the object has in the cluster. For a SealedSecret, the id of its Secret follows.
pub fn ids_in_cluster(sync: &Sync, manifest: &Manifest, resource: &Resource) -> Vec<ObjectId> {
    with_secret(id_in_cluster(sync, manifest, resource))
}

fn id_in_cluster(sync: &Sync, manifest: &Manifest, resource: &Resource) -> ObjectId {
    let namespace = resource.namespaced.then(|| namespace_for(sync, manifest.id.namespace.as_deref()).to_owned());
    ObjectId { namespace, ..manifest.id.clone() }
}

/// The ids that an object of `sync` may have in the cluster, as it is not known here whether its kind is namespaced.
pub fn possible_ids(sync: &Sync, manifest: &Manifest) -> Vec<ObjectId> {
    let namespace = namespace_for(sync, manifest.id.namespace.as_deref()).to_owned();
    let mut ids = with_secret(ObjectId { namespace: Some(namespace), ..manifest.id.clone() });
    ids.push(ObjectId { namespace: None, ..manifest.id.clone() });
    ids
}

/// The ids that the objects of a folder may have in the cluster, without the objects that are applied only when the Sync is
/// deleted: the Sync does not take over what it applies only then.
pub fn wanted_ids(sync: &Sync, manifests: &[Manifest]) -> BTreeSet<ObjectId> {
    let usual = manifests.iter().filter(|manifest| times(manifest).map_or(true, |times| times.usual));
    usual.flat_map(|manifest| possible_ids(sync, manifest)).collect()
}

/// The ids that an object in a hidden file may have had in the cluster when its file was not hidden: with the name in its
/// manifest, and with the name that the Sync makes of it.
pub fn possible_ids_of_hidden(sync: &Sync, manifest: &Manifest) -> Vec<ObjectId> {
    let mut ids = possible_ids(sync, manifest);
    let overlay = &sync.spec.overlay;
    if let (None, None) = (&overlay.name_prefix, &overlay.name_suffix) {
        return ids;
    }
    let [prefix, suffix] = [&overlay.name_prefix, &overlay.name_suffix].map(|text| text.as_deref().unwrap_or_default());
    let renamed = |id: &ObjectId| ObjectId { name: format!("{prefix}{}{suffix}", id.name), ..id.clone() };
    let renamed: Vec<_> = ids.iter().map(renamed).collect();
    ids.extend(renamed);
    ids
}

fn with_secret(id: ObjectId) -> Vec<ObjectId> {
    let secret = id.is_sealed_secret().then(|| id.secret());
    std::iter::once(id).chain(secret).collect()
}

/// Namespace and name of a Secret or SealedSecret. A Secret has the same namespace and name as the SealedSecret that it
/// is made from.
pub fn secret_place(id: &ObjectId) -> (String, String) {
    (id.namespace.clone().unwrap_or_default(), id.name.clone())
}

/// Removes from `steps` the objects that use a Secret of `missing`, which could not be made. These objects are held
/// back, and keep their last good version.
pub fn hold_users(steps: Vec<Step>, missing: &BTreeSet<(String, String)>) -> (Vec<Step>, Vec<Held>) {
    let mut held = Vec::new();
    if missing.is_empty() {
        return (steps, held);
    }
    let mut kept = Vec::with_capacity(steps.len());
    for step in steps {
        let namespace = step.id.namespace.clone().unwrap_or_default();
        match step.needs.iter().find(|name| missing.contains(&(namespace.clone(), (*name).clone()))) {
            None => kept.push(step),
            Some(secret) => held.push(Held::for_want_of(secret, step.id, step.origin)),
        }
    }
    (kept, held)
}

#[cfg(test)]
mod tests;
