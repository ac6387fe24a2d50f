//! Applies the objects of a plan with server-side apply: one wave after the other, and the objects of a wave
//! concurrently.
//!
//! A SealedSecret is applied in its own wave, and unsealed in the later wave of its Secret. Before it is unsealed, the
//! API server must have accepted exactly this SealedSecret from the Sync's identity, and the identity must be allowed
//! to write the Secret. The plaintext exists only until the Secret is written. Objects that use a Secret that could not
//! be made are held back; all others are applied.

mod because;
mod drifted;
mod established;
mod object;
mod restart;
mod sealed_files;
mod unseal;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use ::fields::leave_out;
use futures::{StreamExt, stream};
use gitstore::Snapshot;
use manifests::ObjectId;
use pipeline::{
    Held, Inventory, Plan, Stage,
    plan::{Content, Step, Tier, Wave, Why, hold_users, secret_place},
};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

pub(crate) use because::Because;
pub(super) use because::{ApplyError, Refused};
pub(crate) use drifted::{Drifted, Healed};

use self::restart::SameValues;
use super::Pass;
use crate::{
    cluster::{Api, ApiError, AsInGit, DiscoveryError, Live, LiveObject, Written, is_going},
    fair::{Asker, Place},
};

/// How many objects one pass writes or deletes at the same time, at most. Fewer if the namespace does not get so many
/// turns.
pub(super) const WRITES_OF_ONE: usize = 16;
/// How often an object is applied beside other field managers, if somebody writes to it at the same moment.
const BESIDE_TRIES: usize = 8;

/// Applies a plan as the identity that the Sync writes with.
pub(super) struct Applier<'a> {
    pass: &'a Pass<'a>,
    api: &'a Api,
    /// The snapshot that the plan was made from.
    snapshot: &'a Arc<Snapshot>,
    /// The inventory of the Sync before the plan.
    before: &'a Inventory,
    /// The SealedSecrets that the API server accepted in this pass.
    accepted: Mutex<BTreeSet<ObjectId>>,
}

/// What was applied.
#[derive(Default)]
pub(crate) struct Applied {
    /// The inventory, with the digests of the objects as they were written.
    pub inventory: Inventory,
    /// Objects that were created.
    pub created: Vec<ObjectId>,
    /// Objects that were changed.
    pub changed: Vec<ObjectId>,
    /// Objects of the lists `created` and `changed` that were put back, because somebody had deleted or changed them.
    pub healed: Vec<Healed>,
    /// Number of objects that already were in the cluster as in Git.
    pub unchanged: usize,
    /// Objects that left Git and are still to be pruned.
    pub prune: BTreeSet<ObjectId>,
    /// Objects that were certainly not written, because they were refused, or because the pass ended before their wave.
    pub not_written: Vec<ObjectId>,
    /// Secrets that were written, with the digests of their sealed input.
    pub secrets: Vec<(ObjectId, String)>,
    /// Secrets that could not be made, with the digests of their sealed input and the reason.
    pub refused_secrets: Vec<(ObjectId, String, Because)>,
    /// Objects that are held back and keep their last good version: a Secret that they use is missing, or they are
    /// SealedSecrets whose own Secret could not be made.
    pub held: Vec<Held>,
}

/// An object that was written. If it is a Secret with the same values as before: also the digest of the SealedSecret
/// that first had these values.
type Done = (Written, Option<String>);

/// Whether a Sync applies an object for the first time. The inventory shows this.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    /// The Sync has never applied the object.
    First,
    /// The Sync has applied the object before.
    Later,
}

impl<'a> Applier<'a> {
    /// Makes an applier for `pass`, which writes as the identity of `api`, for a plan that was made from `snapshot`. `before`
    /// is the inventory of the Sync before the plan.
    pub(super) fn new(pass: &'a Pass<'a>, api: &'a Api, snapshot: &'a Arc<Snapshot>, before: &'a Inventory) -> Self {
        Self { pass, api, snapshot, before, accepted: Mutex::default() }
    }

    /// Applies `plan`. The inventory in `applied` is always right, also after an error: it records what was written. If
    /// an object of a wave fails, the other objects of the wave are still applied, and the later waves are not begun.
    /// The objects in `refused` count as failed in their wave. A Secret that cannot be made does not fail its wave:
    /// only this Secret and the objects that use it are held back.
    pub(super) async fn apply(
        &self,
        plan: Plan,
        mut refused: BTreeMap<Wave, Vec<Refused>>,
        applied: &mut Applied,
    ) -> Result<(), ApplyError> {
        let mut missing = plan.missing();
        applied.inventory = plan.inventory;
        applied.unchanged = plan.unchanged;
        applied.prune = plan.prune;
        for (_, secrets) in refused.iter_mut().filter(|(wave, _)| wave.tier == Tier::Secrets) {
            for refused in secrets.extract_if(.., |refused| plan.kinds.contains_key(&refused.id.sealed_secret())) {
                missing.insert(secret_place(&refused.id));
                self.hold(applied, refused);
            }
        }
        refused.retain(|_, refused| !refused.is_empty());
        let mut waves = plan.waves;
        let mut same_values = SameValues::default();
        let mut all: BTreeSet<Wave> = waves.keys().copied().collect();
        all.extend(refused.keys());
        for wave in all {
            let (steps, held) = hold_users(waves.remove(&wave).unwrap_or_default(), &missing);
            applied.not_written.extend(held.iter().map(|held| held.id.clone()));
            applied.held.extend(held);
            let steps = self.restamped(steps, &same_values, &mut applied.unchanged);
            let mut refused = refused.remove(&wave).unwrap_or_default();
            if let Err(error) = self.watch_kinds(&steps).await {
                applied.not_written.extend(refused.iter().map(|refused| refused.id.clone()));
                let later = steps.into_iter().chain(waves.into_values().flatten()).map(|step| step.id);
                let later = put_off(applied, later);
                let is_final = refused.is_empty() || matches!(error, ApplyError::Overtaken(_));
                return Err(if is_final { error } else { ApplyError::Refused { refused, later } });
            }
            let _timer = steps.iter().any(is_sealed).then(|| self.pass.begin(Stage::Unseal));
            for (step, before, result) in self.steps(steps).await {
                match result {
                    Ok((written, values)) => {
                        if let Some(values) = values {
                            same_values.insert(step.id.clone(), values);
                        }
                        let mut is_put_back = true;
                        if step.why == Why::Heal {
                            let drifted = Drifted::of(before.as_ref(), &written);
                            // Perhaps others only began, or ceased, to own fields that are left to them.
                            is_put_back = step.left_to_managers.is_empty() || !drifted.is_nothing();
                            applied.healed.push(Healed { id: step.id.clone(), drifted, is_put_back });
                        }
                        record(applied, step, (&written, is_put_back), &same_values);
                    }
                    Err(because) => {
                        let is_sealed = is_sealed(&step);
                        let refusal = Refused { origin: step.origin, id: step.id, because };
                        if is_sealed {
                            missing.insert(secret_place(&refusal.id));
                            applied.refused_secrets.push((refusal.id.clone(), step.digest, refusal.because.clone()));
                            self.hold(applied, refusal);
                        } else {
                            refused.push(refusal);
                        }
                    }
                }
            }
            if !refused.is_empty() {
                let certain = refused.iter().filter(|refused| refused.because.is_certain());
                applied.not_written.extend(certain.map(|refused| refused.id.clone()));
                let later = put_off(applied, waves.into_values().flatten().map(|step| step.id));
                if let Some(overtaken) = refused.iter().find_map(|refused| refused.because.overtaken()) {
                    return Err(overtaken.into());
                }
                refused.sort_by(|a, b| (&a.origin.file, a.origin.line).cmp(&(&b.origin.file, b.origin.line)));
                return Err(ApplyError::Refused { refused, later });
            }
            tracing::debug!(?wave, "applied");
        }
        Ok(())
    }

    /// Carries out the steps. Returns each step with the state of its object before, and with the result.
    async fn steps(&self, steps: Vec<Step>) -> Vec<(Step, Option<LiveObject>, Result<Done, Because>)> {
        stream::iter(steps)
            .map(|step| async move {
                let before = self.live().get(&step.id);
                let known = before.as_ref().and_then(|before| self.values_of(&step, before));
                let result = self.step(&step).await;
                let is_same = |written: &Written| {
                    before.as_ref().is_some_and(|before| before.version == written.resource_version)
                };
                let result = result.map(|written| {
                    let values = known.filter(|_| is_same(&written));
                    (written, values)
                });
                (step, before, result)
            })
            .buffer_unordered(WRITES_OF_ONE)
            .collect()
            .await
    }

    /// Records that a Secret is held back because it could not be made. An event about its SealedSecret says why.
    fn hold(&self, applied: &mut Applied, refused: Refused) {
        let Refused { origin, id, because } = refused;
        if because.is_certain() && !self.before.contains(&id) {
            applied.not_written.push(id.clone());
        }
        let cause = because.cause();
        let id = if cause.stage == Stage::Unseal { id.sealed_secret() } else { id };
        applied.held.push(Held { id, origin, because: because.to_string(), cause: Some(cause) });
    }

    /// Begins to watch kinds that an earlier wave added to the cluster, before their first object is written. A kind
    /// that the folder defines but that the cluster does not serve is not watched: all Syncs share the watches, so a
    /// wrong definition in one folder would affect other Syncs, too.
    async fn watch_kinds(&self, steps: &[Step]) -> Result<(), ApplyError> {
        let discovery = &self.pass.ctx.cluster.discovery;
        for Step { resource, id, .. } in steps {
            match discovery.find(&resource.group, &resource.version, &resource.kind).await {
                Ok(served) => {
                    self.pass.unless_overtaken(self.live().watch(&served, id.namespace.as_deref())).await??;
                }
                // If the kind is not served, the API server says so when the object is written.
                Err(DiscoveryError::UnknownKind { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until it is the namespace's turn to write. The turn ends when the returned place is dropped.
    async fn place(&self) -> Place {
        self.pass.ctx.writes.take(Asker::Namespace(&self.pass.key.namespace)).await
    }

    fn live(&self) -> &'a Live {
        &self.pass.ctx.cluster.live
    }

    /// Applies one object. An object that is being deleted is an error, even if the write succeeded.
    async fn step(&self, step: &Step) -> Result<Written, Because> {
        match self.write_as_in_git(step).await {
            Ok(Written { going: Some(finalizers), .. }) => Err(Because::terminating(&step.id, finalizers)),
            Err(Because::Api(error)) if is_going(&error) => {
                let namespace = step.id.namespace.as_deref();
                let meta = self.api.get_metadata(&step.resource, namespace, &step.id.name).await?;
                Err(Because::terminating(&step.id, meta.finalizers.unwrap_or_default()))
            }
            Err(because) => Err(because.by_its_namespace(&step.id)),
            written => written,
        }
    }

    async fn write_as_in_git(&self, step: &Step) -> Result<Written, Because> {
        let body = match &step.content {
            Content::Sealed(sealed) => return self.unsealed(step, sealed).await,
            Content::Manifest(body) => body,
        };
        let place = self.place().await;
        let known = self.before.get(&step.id).and_then(|known| known.manifest.as_ref());
        let turn = if known.is_none() { Turn::First } else { Turn::Later };
        // Giving up the ownership of fields is marked as a write in progress. Otherwise, the watch would take it for a
        // change by others.
        let _releasing = self.live().begin(&step.id);
        let first = step.first.as_ref().filter(|_| !step.id.is_sealed_secret());
        let mut made = false;
        if first.is_some() || !step.left_to_others.is_empty() && self.live().get(&step.id).is_some() {
            let exists = self.release(step, body).await?;
            if let Some(first) = first.filter(|_| !exists) {
                self.write(step, AsInGit { body: first, ..AsInGit::of(step, body) }.json()).await?;
                self.release(step, body).await?;
                made = true;
            }
        }
        if step.id.is_sealed_secret() {
            return self.accept(step, body, turn).await;
        }
        let mut written = match &step.left_to_managers[..] {
            [] => self.object(step, body, None, turn, place).await?,
            managers => self.beside(managers, step, body, turn, place).await?,
        };
        written.created |= made;
        let is_definition = step.id.kind == "CustomResourceDefinition" && step.id.group == "apiextensions.k8s.io";
        if is_definition && written.going.is_none() {
            self.wait_until_established(step).await?;
        }
        Ok(written)
    }

    /// Gives up our ownership of the fields that are left to others; `body` is the object without these fields. Returns
    /// whether the object exists.
    async fn release(&self, step: &Step, body: &Map<String, Value>) -> Result<bool, ApiError> {
        let whole = step.first.as_deref().unwrap_or(body);
        let (namespace, name) = (step.id.namespace.as_deref(), &step.id.name);
        self.api.release(&step.resource, namespace, name, &step.left_to_others, whole).await
    }

    /// Applies the object without the fields that `managers` own. If one of them may have written meanwhile, which fields
    /// they own is found out again, so that nothing of what they write is lost.
    async fn beside(
        &self,
        managers: &[String],
        step: &Step,
        body: &Map<String, Value>,
        turn: Turn,
        mut place: Place,
    ) -> Result<Written, Because> {
        let (namespace, name) = (step.id.namespace.as_deref(), &step.id.name);
        let mut before = None;
        for tries_left in (0..BESIDE_TRIES).rev() {
            let (owned, version) = match self.api.leave_to(&step.resource, namespace, name, managers).await {
                Err(error) if error.is_conflict() && tries_left > 0 => continue,
                left => left?,
            };
            let mut left = body.clone();
            leave_out(&mut left, &owned);
            // Others write the object all the time, for example its status, but these managers do not.
            let is_same = tries_left < BESIDE_TRIES / 2 && before.as_ref() == Some(&owned);
            let version = version.filter(|_| !is_same);
            match self.object(step, &left, version, turn, place).await {
                Err(Because::Api(error)) if error.is_conflict() && tries_left > 0 => before = Some(owned),
                result => return result,
            }
            place = self.place().await;
        }
        Err(ApiError::changed().into())
    }

    async fn write(&self, step: &Step, body: Zeroizing<Vec<u8>>) -> Result<Written, ApiError> {
        let writing = self.live().begin(&step.id);
        let written = self.api.apply(&step.resource, step.id.namespace.as_deref(), &step.id.name, body).await?;
        let written = written.beside(&step.left_to_managers);
        writing.applied(&written);
        Ok(written)
    }
}

/// Records the objects that are not written in this pass, because an earlier wave failed. Returns how many they are.
fn put_off(applied: &mut Applied, later: impl Iterator<Item = ObjectId>) -> usize {
    let before = applied.not_written.len();
    applied.not_written.extend(later);
    applied.not_written.len() - before
}

fn is_sealed(step: &Step) -> bool {
    matches!(step.content, Content::Sealed(_))
}

fn record(applied: &mut Applied, step: Step, (written, is_put_back): (&Written, bool), same_values: &SameValues) {
    let values = match (&step.stamp, applied.inventory.get(&step.id)) {
        (Some(stamp), _) => Some(stamp.digest.clone()),
        // The Secret was put back from the same SealedSecret, so what the inventory says about its values stays.
        (None, Some(known)) if is_sealed(&step) && known.manifest.as_ref() == Some(&step.digest) => {
            known.values.clone()
        }
        _ => same_values.get(&step.id).cloned(),
    };
    applied.inventory.applied(&step.id, step.digest.clone(), written.fields);
    applied.inventory.set_values(&step.id, values);
    if is_sealed(&step) {
        applied.secrets.push((step.id.clone(), step.digest));
    }
    if (step.why == Why::Accept || !is_put_back) && !written.created {
        applied.unchanged += 1;
    } else if written.created {
        applied.created.push(step.id);
    } else {
        applied.changed.push(step.id);
    }
}
