//! Plan → applied: server-side apply, wave after wave, concurrently inside a wave.
//!
//! SealedSecrets are unsealed between their own wave and that of the Secrets: the API server has accepted exactly that
//! SealedSecret from the Sync's identity, and the identity may write the Secret. The plaintext lives from here until the
//! Secret is written. What uses a Secret that could not be made is held back; everything else goes on.

mod because;
mod drifted;
mod established;
mod object;
mod unseal;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use futures::{StreamExt, stream};
use manifests::ObjectId;
use pipeline::{
    Held, Inventory, Plan, Stage,
    plan::{Content, Step, Tier, Wave, Why, hold_users, secret_place},
};
use zeroize::Zeroizing;

pub(crate) use because::Because;
pub(super) use because::{ApplyError, Refused};
pub(crate) use drifted::{Drifted, Healed};
pub(crate) use unseal::{secret_body, take_over};

use super::Pass;
use crate::{
    cluster::{Api, ApiError, Applied as Written, DiscoveryError, Live, LiveObject, is_going},
    fair::{Asker, Place},
};

/// Objects that one pass writes, or deletes, at a time, as far as it is its namespace's turn.
pub(super) const WRITES_OF_ONE: usize = 16;

/// Applies a plan as the identity that the Sync writes with.
pub(super) struct Applier<'a> {
    pass: &'a Pass<'a>,
    api: &'a Api,
    /// Everything that the Sync had before the plan.
    before: &'a Inventory,
    /// The SealedSecrets that the API server accepted in this pass.
    accepted: Mutex<BTreeSet<ObjectId>>,
}

/// What was applied.
#[derive(Default)]
pub(crate) struct Applied {
    /// The inventory, with what is known of every object now.
    pub inventory: Inventory,
    /// Objects that were made.
    pub created: Vec<ObjectId>,
    /// Objects that were changed.
    pub changed: Vec<ObjectId>,
    /// Objects of the two above that somebody had changed, and that are put back.
    pub healed: Vec<Healed>,
    /// Objects that the cluster had already.
    pub unchanged: usize,
    /// Objects that left Git, still to be pruned.
    pub prune: BTreeSet<ObjectId>,
    /// Objects that were certainly not written: refused, or their turn never came.
    pub not_written: Vec<ObjectId>,
    /// Secrets that were written, and the digests of their sealed input.
    pub secrets: Vec<(ObjectId, String)>,
    /// Secrets that could not be made, the digests of their sealed input, and why.
    pub refused_secrets: Vec<(ObjectId, String, Because)>,
    /// Objects that keep their last good version, for want of a Secret or because theirs could not be made.
    pub held: Vec<Held>,
}

/// Whether a Sync applies an object for the first time: what its inventory says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    /// It never did.
    First,
    /// It did.
    Later,
}

impl<'a> Applier<'a> {
    /// Applies for `pass` as the identity of `api`; `before` is everything that the Sync had before the plan.
    pub(super) fn new(pass: &'a Pass<'a>, api: &'a Api, before: &'a Inventory) -> Self {
        Self { pass, api, before, accepted: Mutex::default() }
    }

    /// Applies `plan`. The inventory in `applied` is right whatever the result: what was written is recorded. A wave
    /// with a failure is finished, and the waves after it are not begun; `refused` fails its waves from the start. A
    /// Secret that cannot be made is no failure of its wave: it holds back itself and what uses it.
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
        let mut all: BTreeSet<Wave> = waves.keys().copied().collect();
        all.extend(refused.keys());
        for wave in all {
            let (steps, held) = hold_users(waves.remove(&wave).unwrap_or_default(), &missing);
            applied.not_written.extend(held.iter().map(|held| held.id.clone()));
            applied.held.extend(held);
            let mut refused = refused.remove(&wave).unwrap_or_default();
            if let Err(error) = self.watch_kinds(&steps).await {
                applied.not_written.extend(refused.iter().map(|refused| refused.id.clone()));
                let later = steps.into_iter().chain(waves.into_values().flatten()).map(|step| step.id);
                let later = put_off(applied, later);
                return Err(if refused.is_empty() { error } else { ApplyError::Refused { refused, later } });
            }
            let _timer = steps.iter().any(is_sealed).then(|| self.pass.begin(Stage::Unseal));
            for (step, before, result) in self.steps(steps).await {
                match result {
                    Ok(written) => {
                        if step.why == Why::Heal {
                            let drifted = Drifted::of(before.as_ref(), &written);
                            applied.healed.push(Healed { id: step.id.clone(), drifted });
                        }
                        record(applied, step, &written);
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
                refused.sort_by(|a, b| (&a.origin.file, a.origin.line).cmp(&(&b.origin.file, b.origin.line)));
                return Err(ApplyError::Refused { refused, later });
            }
            tracing::debug!(?wave, "applied");
        }
        Ok(())
    }

    /// Each with how its object looked before.
    async fn steps(&self, steps: Vec<Step>) -> Vec<(Step, Option<LiveObject>, Result<Written, Because>)> {
        stream::iter(steps)
            .map(|step| async move {
                let before = self.live().get(&step.id);
                let result = self.step(&step).await;
                (step, before, result)
            })
            .buffer_unordered(WRITES_OF_ONE)
            .collect()
            .await
    }

    /// A Secret that cannot be made: its SealedSecret is told of. Nothing of it is new in the cluster for certain.
    fn hold(&self, applied: &mut Applied, refused: Refused) {
        let Refused { origin, id, because } = refused;
        if because.is_certain() && !self.before.contains(&id) {
            applied.not_written.push(id.clone());
        }
        let cause = because.cause();
        let id = if cause.stage == Stage::Unseal { id.sealed_secret() } else { id };
        applied.held.push(Held { id, origin, because: because.to_string(), cause: Some(cause) });
    }

    /// Kinds that came with an earlier wave are watched before their first object is written, as the cluster serves them.
    /// What only the folder says of a kind begins no watch: all Syncs share it.
    async fn watch_kinds(&self, steps: &[Step]) -> Result<(), ApplyError> {
        let discovery = &self.pass.ctx.cluster.discovery;
        for Step { resource, id, .. } in steps {
            match discovery.find(&resource.group, &resource.version, &resource.kind).await {
                Ok(served) => self.live().watch(&served, id.namespace.as_deref()).await?,
                // The API server says so when it is written.
                Err(DiscoveryError::UnknownKind { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for the turn to write, which lasts until the place is dropped.
    async fn place(&self) -> Place {
        self.pass.ctx.writes.take(Asker::Namespace(&self.pass.key.namespace)).await
    }

    fn live(&self) -> &'a Live {
        &self.pass.ctx.cluster.live
    }

    /// Applies one object. One that is being deleted is not there as Git says, whatever was written into it.
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
        // Giving a field up is our own doing, too: the watch must not take it for somebody else's.
        let _releasing = self.live().begin(&step.id);
        if !step.left_to_others.is_empty() && self.live().get(&step.id).is_some() {
            let (namespace, name) = (step.id.namespace.as_deref(), &step.id.name);
            self.api.release(&step.resource, namespace, name, &step.left_to_others).await?;
        }
        if step.id.is_sealed_secret() {
            return self.accept(step, body, turn).await;
        }
        let written = self.object(step, body, turn, place).await?;
        let is_definition = step.id.kind == "CustomResourceDefinition" && step.id.group == "apiextensions.k8s.io";
        if is_definition && written.going.is_none() {
            self.wait_until_established(step).await?;
        }
        Ok(written)
    }

    async fn write(&self, step: &Step, body: Zeroizing<Vec<u8>>) -> Result<Written, ApiError> {
        let writing = self.live().begin(&step.id);
        let written = self.api.apply(&step.resource, step.id.namespace.as_deref(), &step.id.name, body).await?;
        writing.applied(&written);
        Ok(written)
    }
}

/// Their turn does not come in this pass; how many they are.
fn put_off(applied: &mut Applied, later: impl Iterator<Item = ObjectId>) -> usize {
    let before = applied.not_written.len();
    applied.not_written.extend(later);
    applied.not_written.len() - before
}

fn is_sealed(step: &Step) -> bool {
    matches!(step.content, Content::Sealed(_))
}

fn record(applied: &mut Applied, step: Step, written: &Written) {
    applied.inventory.applied(&step.id, step.digest.clone(), written.fields);
    if is_sealed(&step) {
        applied.secrets.push((step.id.clone(), step.digest));
    }
    if step.why == Why::Accept && !written.created {
        applied.unchanged += 1;
    } else if written.created {
        applied.created.push(step.id);
    } else {
        applied.changed.push(step.id);
    }
}
