//! What identities may do, as the API server says: SelfSubjectAccessReviews, believed for a short time.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use manifests::ObjectId;
use pipeline::Resource;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Api, ApiError};

/// How long the API server's answer is believed. A right that was taken away counts at the write itself all the same.
const BELIEVED: Duration = Duration::from_secs(30);
/// A "no" is believed for a shorter time: somebody may be waiting for it to become a "yes".
const NO_IS_BELIEVED: Duration = Duration::from_secs(3);
/// Answers that are remembered at most.
const REMEMBERED: usize = 16_384;

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
    pub(crate) async fn refusal(
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

    /// Whether the identity of another Sync may write the object. One that the controller may not act as may not.
    pub(crate) async fn may_write(
        &self,
        api: &Api,
        resource: &Resource,
        id: &ObjectId,
        exists: bool,
    ) -> Result<bool, ApiError> {
        match self.refusal(api, resource, id, exists).await {
            Ok(refusal) => Ok(refusal.is_none()),
            Err(error) if error.code() == Some(403) => Ok(false),
            Err(error) => Err(error),
        }
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
