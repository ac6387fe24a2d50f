//! Plan → what of it this identity may do. Only that is claimed for the Sync, goes into its inventory, and is unsealed.
//!
//! The API server is asked by a SelfSubjectAccessReview as that identity, before the first write: what a tenant may not
//! write is neither claimed against others nor decrypted for it, and no watch begins for it. The controller's own identity
//! is not asked about: a Sync without a service account is for whoever may do everything. The controller's own Secrets are
//! nobody's to write, whoever the Sync acts as.

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

/// Questions about rights, and looks at objects, of one pass that are under way at a time.
pub(super) const AT_ONCE: usize = 8;

/// The API server could not be asked what the Sync may do.
#[derive(Debug, thiserror::Error)]
#[error("asking what the identity of the Sync may do: {0}")]
pub(super) struct AllowError(#[from] ApiError);

impl StageError for AllowError {
    const STAGE: Stage = Stage::Allow;

    fn reason(&self) -> &'static str {
        "AccessUnknown"
    }

    fn is_terminal(&self) -> bool {
        false
    }
}

/// A plan with nothing left in it that the identity may not write.
pub(super) struct Allowed<'a> {
    pub(super) plan: Plan,
    /// What it may not write, by the wave that it would have been written in.
    pub(super) refused: BTreeMap<Wave, Vec<Refused>>,
    /// What is the Sync's from now on, if its inventory can be stored.
    pub(super) claims: Claims<'a>,
}

/// Objects that nobody had and that were claimed for a Sync. They are given back when this is dropped, unless they are
/// [kept](Claims::keep): otherwise other Syncs would be refused objects that this one never had.
pub(super) struct Claims<'a> {
    live: &'a Live,
    sync: &'a ObjectKey,
    new: Vec<ObjectId>,
}

impl<'a> Claims<'a> {
    fn new(live: &'a Live, sync: &'a ObjectKey) -> Self {
        Self { live, sync, new: Vec::new() }
    }

    /// Claims an object; its owner, if that is another Sync.
    fn take(&mut self, id: &ObjectId) -> Result<(), ObjectKey> {
        let is_new = self.live.owner(id).is_none();
        self.live.claim(self.sync, id)?;
        if is_new {
            self.new.push(id.clone());
        }
        Ok(())
    }

    /// The inventory that has them is stored.
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

/// Claims for `key` what the identity of `api` in the cluster may write, and takes everything else out of the plan. What
/// is not new and is not unsealed was allowed before; the API server decides again when it is written. Nothing is changed
/// when the API server does not answer.
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
    // Whose it is, is only told to who may write it; only who may write it can wait for it.
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
            // Only who may write Secrets there is told which of them are sealing keys.
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
        // What is refused now is waited for again below; the rest is not wanted any more.
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
            // Another Sync was faster since the plan was made.
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

/// Whether the step would write one of the controller's own Secrets, or make a sealing key, as a manifest without values.
/// Unsealing refuses them by itself.
fn is_the_controllers_own(keyring: &Keyring, live: &Live, step: &Step) -> bool {
    let Content::Manifest(body) = &step.content else { return false };
    let labels = body.get("metadata").and_then(|metadata| metadata.get("labels"));
    let is_labelled = KEY_LABELS.iter().any(|label| labels.is_some_and(|labels| labels.get(label).is_some()));
    let is_key = || live.get(&step.id).and_then(|object| object.secret).is_some_and(|secret| secret.is_sealing_key);
    step.id.is_secret() && keyring.has_as_its_own(&step.id, is_labelled || is_key())
}

/// What the Sync has, it was allowed to write before: unless nobody watches the kind, and it has the object only because
/// its inventory says so.
fn needs_review(live: &Live, key: &ObjectKey, step: &Step) -> bool {
    matches!(step.content, Content::Sealed(_))
        || live.owner(&step.id).as_ref() != Some(key)
        || !live.has_watch(&step.resource, step.id.namespace.as_deref())
}
