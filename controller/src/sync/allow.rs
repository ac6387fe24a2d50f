//! Plan → what of it this identity may do. Only that is claimed for the Sync, goes into its inventory, and is unsealed.
//!
//! The API server is asked by a SelfSubjectAccessReview as that identity, before the first write: what a tenant may not
//! write is neither claimed against others nor decrypted for it, and no watch begins for it. The controller's own identity
//! is not asked about: a Sync without a service account is for whoever may do everything.

use std::collections::{BTreeMap, BTreeSet};

use crds::ObjectKey;
use futures::{StreamExt as _, stream};
use pipeline::{
    Held, Inventory, Plan, Stage, StageError,
    plan::{Content, LiveView as _, Step, Wave},
};

use super::{
    apply::{Because, Refused},
    carry_out::never_had,
};
use crate::cluster::{Api, ApiError, Cluster, Live};

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
pub(super) struct Allowed {
    pub(super) plan: Plan,
    /// What it may not write, by the wave that it would have been written in.
    pub(super) refused: BTreeMap<Wave, Vec<Refused>>,
}

/// Claims for `key` what the identity of `api` in the cluster may write, and takes everything else out of the plan. What is not new and
/// is not unsealed was allowed before; the API server decides again when it is written.
pub(super) async fn allow(
    cluster: &Cluster,
    api: &Api,
    key: &ObjectKey,
    mut plan: Plan,
    current: &Inventory,
) -> Result<Allowed, AllowError> {
    let Cluster { live, reviews, .. } = cluster;
    let mut refused: BTreeMap<Wave, Vec<Refused>> = BTreeMap::new();
    let mut out = BTreeSet::new();
    // What was refused before is refused anew, or is not wanted any more.
    live.stop_waiting(key);
    let theirs: Vec<_> = plan.held.extract_if(.., |held| held.is_owned_by_another()).collect();
    let theirs = theirs.into_iter().map(|held| (plan.kinds.get(&held.id).cloned(), held)).collect::<Vec<_>>();
    // Whose it is, is only told to who may write it; only who may write it can wait for it.
    let mut answers = stream::iter(theirs)
        .map(|(resource, held)| async move {
            let no = match resource {
                Some(resource) => reviews.refusal(api, &resource, &held.id, true).await?,
                None => None,
            };
            Ok::<_, ApiError>((held, no))
        })
        .buffered(AT_ONCE);
    while let Some(answer) = answers.next().await {
        let (held, no) = answer?;
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
    for (wave, steps) in std::mem::take(&mut plan.waves) {
        let answers: Vec<Result<_, ApiError>> = stream::iter(steps)
            .map(|step| async {
                let no = if needs_review(live, key, &step) {
                    reviews.refusal(api, &step.resource, &step.id, live.get(&step.id).is_some()).await?
                } else {
                    None
                };
                Ok((step, no))
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        for answer in answers {
            let (step, no) = answer?;
            if step.id.is_secret() && out.contains(&step.id.sealed_secret()) {
                out.insert(step.id);
            } else if let Some(no) = no {
                out.insert(step.id.clone());
                let Step { origin, id, .. } = step;
                refused.entry(wave).or_default().push(Refused { origin, id, because: Because::NotAllowed(no) });
            } else if let Err(owner) = live.claim(key, &step.id) {
                // Another Sync was faster since the plan was made.
                out.insert(step.id.clone());
                live.wait_for(key, &step.id);
                plan.held.push(Held::owned_by_another(step.id, step.origin, &owner));
            } else {
                plan.waves.entry(wave).or_default().push(step);
            }
        }
    }
    for id in out.iter().filter(|id| never_had(live, current, id)) {
        plan.inventory.remove(id);
        live.release(key, id);
    }
    Ok(Allowed { plan, refused })
}

/// What the Sync has, it was allowed to write before: unless nobody watches the kind, and it has the object only because
/// its inventory says so.
fn needs_review(live: &Live, key: &ObjectKey, step: &Step) -> bool {
    matches!(step.content, Content::Sealed(_))
        || live.owner(&step.id).as_ref() != Some(key)
        || !live.has_watch(&step.resource, step.id.namespace.as_deref())
}
