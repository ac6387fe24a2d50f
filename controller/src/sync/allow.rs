//! Plan → what of it this identity may do. Only that is claimed for the Sync, goes into its inventory, and is unsealed.
//!
//! The API server is asked by a SelfSubjectAccessReview as that identity, before the first write: what a tenant may not
//! write is neither claimed against others nor decrypted for it. The controller's own identity is not asked about: a Sync
//! without a service account is for whoever may do everything.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crds::ObjectKey;
use futures::{StreamExt as _, stream};
use manifests::ObjectId;
use pipeline::{
    Held, Inventory, Plan, Resource, Stage, StageError,
    plan::{Content, LiveView as _, Step, Wave},
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    apply::{Because, Refused},
    carry_out::never_had,
};
use crate::cluster::{Api, ApiError, Live};

/// How long the API server's answer is believed. A right that was taken away counts at the write itself all the same.
const BELIEVED: Duration = Duration::from_secs(30);
/// A "no" is believed for a shorter time: somebody may be waiting for it to become a "yes".
const NO_IS_BELIEVED: Duration = Duration::from_secs(3);
/// Reviews of one pass that are under way at a time.
const AT_ONCE: usize = 8;
/// Answers that are remembered at most.
const REMEMBERED: usize = 16_384;

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

/// What the API server said about the rights of identities, for a short time.
#[derive(Default)]
pub struct Reviews {
    answers: Mutex<HashMap<Review, (bool, Instant)>>,
}

/// One question: may this user do this?
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Review {
    user: String,
    verb: &'static str,
    group: String,
    plural: String,
    namespace: Option<String>,
    /// One object, or any.
    name: Option<String>,
}

impl Reviews {
    /// Why the identity of `api` may not write the object: nothing when it may. `exists` says whether it is there: an
    /// apply that makes an object needs the right to create as well.
    pub(super) async fn refusal(
        &self,
        api: &Api,
        resource: &Resource,
        id: &ObjectId,
        exists: bool,
    ) -> Result<Option<String>, ApiError> {
        let Some(user) = api.user() else { return Ok(None) };
        for verb in if exists { &["patch"][..] } else { &["patch", "create"] } {
            let any = Review {
                user: user.to_owned(),
                verb,
                group: resource.group.clone(),
                plural: resource.plural.clone(),
                namespace: id.namespace.clone(),
                name: None,
            };
            let this = Review { name: Some(id.name.clone()), ..any.clone() };
            if !self.ask(api, any).await? && !self.ask(api, this.clone()).await? {
                return Ok(Some(this.refusal()));
            }
        }
        Ok(None)
    }

    async fn ask(&self, api: &Api, review: Review) -> Result<bool, ApiError> {
        if let Some(known) = self.known(&review) {
            return Ok(known);
        }
        let body = Zeroizing::new(review.body().to_string().into_bytes());
        let answer: Value = api.review(body).await?;
        let allowed = answer.pointer("/status/allowed") == Some(&Value::Bool(true));
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= REMEMBERED {
            answers.retain(|_, (allowed, at)| is_believed(*allowed, *at));
            if answers.len() >= REMEMBERED {
                answers.clear();
            }
        }
        answers.insert(review, (allowed, Instant::now()));
        Ok(allowed)
    }

    fn known(&self, review: &Review) -> Option<bool> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(review).filter(|(allowed, at)| is_believed(*allowed, *at)).map(|(allowed, _)| *allowed)
    }
}

fn is_believed(allowed: bool, at: Instant) -> bool {
    at.elapsed() < if allowed { BELIEVED } else { NO_IS_BELIEVED }
}

impl Review {
    fn body(&self) -> Value {
        json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "verb": self.verb, "group": self.group, "resource": self.plural,
                "namespace": self.namespace.as_deref().unwrap_or_default(),
                "name": self.name.as_deref().unwrap_or_default(),
            }},
        })
    }

    /// In the words of the API server, which people know.
    fn refusal(&self) -> String {
        let Self { user, verb, group, plural, .. } = self;
        let place = match &self.namespace {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".to_owned(),
        };
        format!("User \"{user}\" cannot {verb} resource \"{plural}\" in API group \"{group}\" {place}")
    }
}

/// A plan with nothing left in it that the identity may not write.
pub(super) struct Allowed {
    pub(super) plan: Plan,
    /// What it may not write, by the wave that it would have been written in.
    pub(super) refused: BTreeMap<Wave, Vec<Refused>>,
}

/// Claims for `key` what the identity of `api` may write, and takes everything else out of the plan. What is not new and
/// is not unsealed was allowed before; the API server decides again when it is written.
pub(super) async fn allow(
    reviews: &Reviews,
    live: &Live,
    api: &Api,
    key: &ObjectKey,
    mut plan: Plan,
    current: &Inventory,
) -> Result<Allowed, AllowError> {
    let mut refused: BTreeMap<Wave, Vec<Refused>> = BTreeMap::new();
    let mut out = BTreeSet::new();
    // What was refused before is refused anew, or is not wanted any more.
    live.stop_waiting(key);
    for held in std::mem::take(&mut plan.held) {
        if !held.is_owned_by_another() {
            plan.held.push(held);
            continue;
        }
        // Whose it is, is only told to who may write it; only who may write it can wait for it.
        let no = match plan.kinds.get(&held.id) {
            Some(resource) => reviews.refusal(api, resource, &held.id, true).await?,
            None => None,
        };
        match no {
            None => {
                live.wait_for(key, &held.id);
                plan.held.push(held);
            }
            Some(no) => {
                let Held { id, origin, .. } = held;
                let refusal = Refused { origin, id, because: Because::NotAllowed(no) };
                refused.entry(Wave::of(&refusal.id)).or_default().push(refusal);
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

fn needs_review(live: &Live, key: &ObjectKey, step: &Step) -> bool {
    matches!(step.content, Content::Sealed(_)) || live.owner(&step.id).as_ref() != Some(key)
}
