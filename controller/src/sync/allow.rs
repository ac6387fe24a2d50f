//! Reduces a plan to the objects that the Sync's identity may write. Only these objects are claimed for the Sync, added
//! to its inventory and unsealed.
//!
//! Before the first write, the API server is asked for the rights of this identity, with SelfSubjectAccessReviews. If a
//! tenant may not write an object, the object is not claimed for the tenant, nothing is decrypted for it, and no watch
//! begins for it. For a Sync without a service account, nothing is asked, because it has the controller's own rights.
//! Whatever its identity is, no Sync may write the controller's own Secrets.

use std::collections::{BTreeMap, BTreeSet};

use crds::{ObjectKey, names::KEY_LABELS};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use manifests::ObjectId;
use pipeline::{
    Held, Inventory, Plan, Stage, StageError,
    plan::{Content, LiveView as _, Step, Wave},
};

use super::{
    apply::{Because, Refused},
    carry_out::never_had,
};
use crate::{
    cluster::{Api, ApiError, Cluster, Live},
    keys::Keyring,
};

/// How many questions about rights, and how many reads of objects, one pass has in progress at the same time.
pub(super) const AT_ONCE: usize = 8;

/// The API server did not say what the identity of the Sync may do.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not say what the Sync's service account may do: {0}")]
pub(super) struct AllowError(#[from] pub(super) ApiError);

impl StageError for AllowError {
    const STAGE: Stage = Stage::Allow;

    fn reason(&self) -> &'static str {
        "AccessUnknown"
    }

    fn is_terminal(&self) -> bool {
        false
    }
}

/// A plan without the objects that the identity may not write.
pub(super) struct Allowed<'a> {
    pub(super) plan: Plan,
    /// The objects that the identity may not write, by the wave that they would have been written in.
    pub(super) refused: BTreeMap<Wave, Vec<Refused>>,
    /// The objects that belong to the Sync from now on, if its inventory can be stored.
    pub(super) claims: Claims<'a>,
}

/// Objects that belonged to no Sync and were claimed for this Sync. If this value is dropped without [`Claims::keep`],
/// the claims are given back, so that other Syncs can have these objects, which are not in the inventory of this Sync.
pub(super) struct Claims<'a> {
    live: &'a Live,
    sync: &'a ObjectKey,
    new: Vec<ObjectId>,
}

impl<'a> Claims<'a> {
    fn new(live: &'a Live, sync: &'a ObjectKey) -> Self {
        Self { live, sync, new: Vec::new() }
    }

    /// Claims an object. If another Sync has the object, the error is this other Sync.
    fn take(&mut self, id: &ObjectId) -> Result<(), ObjectKey> {
        let is_new = self.live.owner(id).is_none();
        self.live.claim(self.sync, id)?;
        if is_new {
            self.new.push(id.clone());
        }
        Ok(())
    }

    /// Keeps the claims, because the inventory that has these objects is stored.
    pub(super) fn keep(mut self) {
        self.new.clear();
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        for id in &self.new {
            self.live.release(self.sync, id);
        }
    }
}

/// Claims for `key` the objects that the identity of `api` may write, and removes all others from the plan. The API
/// server is not asked about an object that the Sync already has, unless it is a Secret to unseal: the object was
/// allowed before, and the API server checks the rights when it is written. If the API server does not answer a
/// question, nothing is claimed.
pub(super) async fn allow<'a>(
    cluster: &'a Cluster,
    keyring: &Keyring,
    api: &Api,
    key: &'a ObjectKey,
    mut plan: Plan,
    current: &Inventory,
) -> Result<Allowed<'a>, AllowError> {
    let Cluster { live, reviews, .. } = cluster;
    let theirs: Vec<_> = plan.held.extract_if(.., |held| held.is_owned_by_another()).collect();
    let theirs = theirs.into_iter().map(|held| (plan.kinds.get(&held.id).cloned(), held)).collect::<Vec<_>>();
    // Only a Sync that may write the object is told which Sync has the object, and can wait for it.
    let theirs: Vec<_> = stream::iter(theirs)
        .map(|(resource, held)| async move {
            let no = match resource {
                Some(resource) => reviews.refusal(api, &resource, &held.id, true).await?,
                None => None,
            };
            Ok::<_, ApiError>((held, no))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let steps = std::mem::take(&mut plan.waves).into_iter();
    let steps: Vec<_> = steps.flat_map(|(wave, steps)| steps.into_iter().map(move |step| (wave, step))).collect();
    let steps: Vec<_> = stream::iter(steps)
        .map(|(wave, step)| async move {
            let no = if needs_review(live, key, &step) {
                reviews.refusal(api, &step.resource, &step.id, live.get(&step.id).is_some()).await?
            } else {
                None
            };
            // Only a Sync that may write a Secret is told whether the Secret is a sealing key.
            let own = || is_the_controllers_own(keyring, live, &step).then_some(Because::ControllersOwn);
            let no = no.map(Because::NotAllowed).or_else(own);
            Ok::<_, ApiError>((wave, step, no))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;

    let mut refused: BTreeMap<Wave, Vec<Refused>> = BTreeMap::new();
    let mut claims = Claims::new(live, key);
    let mut out = BTreeSet::new();
    if !plan.is_heal {
        // After this, the Sync waits only for the objects for which the wait is noted again below.
        live.stop_waiting(key);
    }
    for (held, no) in theirs {
        match no {
            None => {
                live.wait_for(key, &held.id);
                plan.held.push(held);
            }
            Some(no) => {
                let Held { id, origin, .. } = held;
                let refusal = Refused { origin, id, because: Because::NotAllowed(no) };
                refused.entry(plan.wave_of(&refusal.id)).or_default().push(refusal);
            }
        }
    }
    for (wave, step, no) in steps {
        if step.id.is_secret() && out.contains(&step.id.sealed_secret()) {
            out.insert(step.id);
        } else if let Some(because) = no {
            out.insert(step.id.clone());
            let Step { origin, id, .. } = step;
            refused.entry(wave).or_default().push(Refused { origin, id, because });
        } else if let Err(owner) = claims.take(&step.id) {
            // Another Sync claimed the object after the plan was made.
            out.insert(step.id.clone());
            live.wait_for(key, &step.id);
            plan.held.push(Held::owned_by_another(step.id, step.origin, &owner));
        } else {
            plan.waves.entry(wave).or_default().push(step);
        }
    }
    for id in out.iter().filter(|id| never_had(live, current, id)) {
        plan.inventory.remove(id);
        live.release(key, id);
    }
    Ok(Allowed { plan, refused, claims })
}

/// Whether the step would write one of the controller's own Secrets, or a Secret without values that has the label of
/// a sealing key. For Secrets of SealedSecrets, `unsealing` checks this.
fn is_the_controllers_own(keyring: &Keyring, live: &Live, step: &Step) -> bool {
    let Content::Manifest(body) = &step.content else { return false };
    let labels = body.get("metadata").and_then(|metadata| metadata.get("labels"));
    let is_labelled = KEY_LABELS.iter().any(|label| labels.is_some_and(|labels| labels.get(label).is_some()));
    let is_key = || live.get(&step.id).and_then(|object| object.secret).is_some_and(|secret| secret.is_sealing_key);
    step.id.is_secret() && keyring.has_as_its_own(&step.id, is_labelled || is_key())
}

/// Whether the API server must be asked about the object. If the Sync already has the object, it was allowed to write
/// the object before, so no question is needed. But if there is no watch on the kind, only an inventory says that the
/// Sync has the object, and an inventory may be forged.
fn needs_review(live: &Live, key: &ObjectKey, step: &Step) -> bool {
    matches!(step.content, Content::Sealed(_))
        || live.owner(&step.id).as_ref() != Some(key)
        || !live.has_watch(&step.resource, step.id.namespace.as_deref())
}
