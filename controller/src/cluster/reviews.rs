//! The rights of identities. The controller asks the API server for them with SelfSubjectAccessReviews, and uses the
//! answers for a short time.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use manifests::ObjectId;
use pipeline::Resource;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::{Api, ApiError};
use crate::{
    fair::{Asker, Places},
    passes,
};

/// How long an answer of the API server is used. If the right was taken away after the answer, the API server refuses
/// the write that needs it.
const BELIEVED: Duration = Duration::from_secs(30);
/// A "no" is used for a shorter time, because somebody may be waiting for the right. An answer about a read is used for this
/// time, too, because the question is asked only to notice that somebody took the right away.
const BRIEFLY_BELIEVED: Duration = Duration::from_secs(3);
/// How many answers are remembered at most.
const REMEMBERED: usize = 16_384;

/// The verb for the read of one object.
const GET: &str = "get";
/// The verb for the read of all objects of a kind.
const LIST: &str = "list";

/// What the API server said about the rights of identities, remembered for a short time.
#[derive(Default)]
pub struct Reviews {
    answers: Mutex<HashMap<Review, Arc<Asked>>>,
}

/// The answer to a question that was sent or is about to be sent.
type Asked = OnceCell<Result<Answer, ApiError>>;

#[derive(Debug)]
struct Answer {
    allowed: bool,
    at: Instant,
}

/// One question: whether this user may do this with objects of this kind, or with one of them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Review {
    user: String,
    verb: &'static str,
    group: String,
    plural: String,
    namespace: Option<String>,
    /// The name of one object; `None` for any object.
    name: Option<String>,
}

impl Reviews {
    /// Why the identity of `api` may not write the object; `None` if it may. `exists` says whether the object exists,
    /// because an apply that creates an object also needs the right to create.
    pub(crate) async fn refusal(
        &self,
        api: &Api,
        resource: &Resource,
        id: &ObjectId,
        exists: bool,
    ) -> Result<Option<String>, ApiError> {
        let Some(user) = api.user() else { return Ok(None) };
        for verb in if exists { &["patch"][..] } else { &["patch", "create"] } {
            let this = Review::new(user, verb, resource, (id.namespace.as_deref(), Some(&id.name)));
            if !self.is_allowed(api, &this, None).await? {
                return Ok(Some(this.refusal()));
            }
        }
        Ok(None)
    }

    /// Whether the identity of `api` may read the object with this name or, without a name, all objects of the kind. If the
    /// controller may not impersonate this identity, the answer is no. A question that is sent takes one of the places `turns`.
    pub(crate) async fn may_read(
        &self,
        api: &Api,
        turns: (&Places, Asker<'_>),
        resource: &Resource,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Result<bool, ApiError> {
        let Some(user) = api.user() else { return Ok(true) };
        let verb = if name.is_some() { GET } else { LIST };
        or_no(self.is_allowed(api, &Review::new(user, verb, resource, (namespace, name)), Some(turns)).await)
    }

    /// Whether the identity of another Sync may write the object. If the controller may not impersonate this identity,
    /// the answer is no.
    pub(crate) async fn may_write(
        &self,
        api: &Api,
        resource: &Resource,
        id: &ObjectId,
        exists: bool,
    ) -> Result<bool, ApiError> {
        or_no(self.refusal(api, resource, id, exists).await.map(|refusal| refusal.is_none()))
    }

    /// The answer to a question about one object or about all. An identity that may do something with all objects is asked
    /// about only once for all of them.
    async fn is_allowed(
        &self,
        api: &Api,
        this: &Review,
        turns: Option<(&Places, Asker<'_>)>,
    ) -> Result<bool, ApiError> {
        let any = Review { name: None, ..this.clone() };
        Ok(self.ask(api, any, turns).await? || this.name.is_some() && self.ask(api, this.clone(), turns).await?)
    }

    /// Forgets the answers that refuse something to the identity of `api`, because somebody has asked for another try.
    pub(crate) fn forget_refusals(&self, api: &Api) {
        let Some(user) = api.user() else { return };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|review, asked| {
            review.user != user || !matches!(asked.get(), Some(Ok(Answer { allowed: false, .. })))
        });
    }

    /// Asks the API server. If several passes ask the same question at the same time, it is sent once, and a failure of
    /// the request is the result for all these passes.
    async fn ask(&self, api: &Api, review: Review, turns: Option<(&Places, Asker<'_>)>) -> Result<bool, ApiError> {
        let answer = self.answer_to(&review);
        let asks = AtomicBool::new(false);
        let ask = || async {
            asks.store(true, Ordering::Relaxed);
            let _place = match turns {
                Some((places, asker)) => Some(places.take(asker).await),
                None => None,
            };
            let body = Zeroizing::new(review.body().to_string().into_bytes());
            let answer: Value = api.review(body).await?;
            let allowed = answer.pointer("/status/allowed") == Some(&Value::Bool(true));
            Ok(Answer { allowed, at: Instant::now() })
        };
        let answer = answer.get_or_init(ask).await;
        if answer.as_ref().is_err_and(ApiError::is_transient) && !asks.into_inner() {
            // Another pass had sent the question, so the missing answer is noted for this pass, too.
            passes::unanswered();
        }
        answer.as_ref().map(|answer| answer.allowed).map_err(Clone::clone)
    }

    /// The cell for the answer to `review`. It has the answer if this is known already; otherwise, the answer is put
    /// into it when it arrives.
    fn answer_to(&self, review: &Review) -> Arc<Asked> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = answers.get(review).filter(|answer| counts(review, answer)) {
            return known.clone();
        }
        if answers.len() >= REMEMBERED {
            answers.retain(|review, answer| counts(review, answer));
            if answers.len() >= REMEMBERED {
                answers.clear();
            }
        }
        let answer = Arc::<Asked>::default();
        answers.insert(review.clone(), answer.clone());
        answer
    }
}

/// Whether the answer may still be used, or has not arrived yet.
fn counts(review: &Review, answer: &Asked) -> bool {
    match answer.get() {
        None => true,
        Some(Ok(Answer { allowed, at })) => {
            let is_brief = !allowed || [GET, LIST].contains(&review.verb);
            at.elapsed() < if is_brief { BRIEFLY_BELIEVED } else { BELIEVED }
        }
        Some(Err(_)) => false,
    }
}

/// The answer. It is no if the controller may not impersonate the identity that it asked for.
fn or_no(answer: Result<bool, ApiError>) -> Result<bool, ApiError> {
    match answer {
        Err(error) if error.code() == Some(403) => Ok(false),
        answer => answer,
    }
}

impl Review {
    fn new(
        user: &str,
        verb: &'static str,
        resource: &Resource,
        (namespace, name): (Option<&str>, Option<&str>),
    ) -> Self {
        Self {
            user: user.to_owned(),
            verb,
            group: resource.group.clone(),
            plural: resource.plural.clone(),
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
        }
    }

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

    /// The refusal, in the API server's own words, because people know these.
    fn refusal(&self) -> String {
        let Self { user, verb, group, plural, .. } = self;
        let place = match &self.namespace {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".to_owned(),
        };
        format!("User \"{user}\" cannot {verb} resource \"{plural}\" in API group \"{group}\" {place}")
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;
    use crate::sync::fake_server::FakeServer;

    const REVIEW: &str = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

    fn secret(number: usize) -> ObjectId {
        ObjectId { group: String::new(), kind: "Secret".into(), namespace: Some("ns".into()), name: number.to_string() }
    }

    #[tokio::test]
    async fn what_many_ask_at_once_is_asked_once_and_believed_unless_it_failed() {
        let (server, client) = FakeServer::start().await;
        let (api, reviews, secrets) = (client.api.acting_as("ns", "tenant"), Reviews::default(), Resource::secrets());
        let all: Vec<_> = (0..8).map(secret).collect();
        let ask = || join_all(all.iter().map(|id| reviews.may_write(&api, &secrets, id, true)));
        let asked = || server.requests().iter().filter(|request| *request == REVIEW).count();
        server.answer(REVIEW, 500, json!({"kind": "Status", "code": 500, "message": "no store"}));
        assert!(ask().await.iter().all(Result::is_err));
        assert_eq!(asked(), 1, "who waited for it does not wait once more");
        server.answer(REVIEW, 201, json!({"status": {"allowed": true}}));
        assert!(ask().await.into_iter().all(|answer| answer.is_ok_and(|may| may)));
        assert_eq!(asked(), 2, "a failure is no answer");
        assert!(ask().await.into_iter().all(|answer| answer.is_ok_and(|may| may)));
        reviews.forget_refusals(&api);
        assert!(ask().await.into_iter().all(|answer| answer.is_ok_and(|may| may)));
        assert_eq!(asked(), 2, "what is allowed is believed all the same");
    }

    #[tokio::test]
    async fn one_answer_tells_what_an_identity_may_read_in_a_namespace() {
        let (server, client) = FakeServer::start().await;
        let (api, reviews, maps) = (client.api.acting_as("ns", "tenant"), Reviews::default(), Resource::config_maps());
        let places = Places::new(1);
        let turns = (&places, Asker::Namespace("ns"));
        let may_read = |name| reviews.may_read(&api, turns, &maps, Some("ns"), name);
        let asked = || server.bodies(REVIEW);
        server.answer(REVIEW, 201, json!({"status": {"allowed": true}}));
        assert!(may_read(Some("a")).await.unwrap() && may_read(Some("b")).await.unwrap());
        assert_eq!(asked().len(), 1, "it may read every ConfigMap");
        server.answer(REVIEW, 201, json!({"status": {"allowed": false}}));
        assert!(!may_read(None).await.unwrap(), "to list them is another right");
        assert_eq!(asked().len(), 2);
        assert!(asked()[0].contains("\"get\"") && asked()[1].contains("\"list\""), "{:?}", asked());
        server.answer(REVIEW, 403, json!({"kind": "Status", "code": 403, "message": "may not impersonate"}));
        assert!(!reviews.may_read(&api, turns, &maps, Some("other"), Some("a")).await.unwrap());
        assert!(
            reviews.may_read(&client.api, turns, &maps, Some("other"), Some("a")).await.unwrap(),
            "the controller itself"
        );
    }

    #[tokio::test]
    async fn questions_about_reads_wait_for_their_turn() {
        let (server, client) = FakeServer::start().await;
        let (api, reviews, maps) = (client.api.acting_as("ns", "tenant"), Reviews::default(), Resource::config_maps());
        server.answer(REVIEW, 201, json!({"status": {"allowed": true}}));
        let places = Places::new(1);
        let may_read = |namespace: &'static str| {
            reviews.may_read(&api, (&places, Asker::Namespace("ns")), &maps, Some(namespace), None)
        };
        let first = places.take(Asker::Namespace("first")).await;
        let mut asks = Box::pin(may_read("ns"));
        assert!(futures::poll!(&mut asks).is_pending());
        let mut last = Box::pin(places.take(Asker::Namespace("last")));
        assert!(futures::poll!(&mut last).is_pending());
        drop(first);
        assert!(futures::poll!(&mut last).is_pending(), "the place is taken by the question");
        assert!(asks.await.unwrap());
        let _last = last.await;
        assert!(may_read("ns").await.unwrap(), "an answer that is known needs no place");
        assert_eq!(server.bodies(REVIEW).len(), 1);
    }

    #[tokio::test]
    async fn what_was_refused_is_asked_again_for_who_asks_for_another_try() {
        let (server, client) = FakeServer::start().await;
        let (api, reviews, secrets) = (client.api.acting_as("ns", "tenant"), Reviews::default(), Resource::secrets());
        let id = secret(0);
        server.answer(REVIEW, 201, json!({"status": {"allowed": false}}));
        assert!(!reviews.may_write(&api, &secrets, &id, true).await.unwrap());
        server.answer(REVIEW, 201, json!({"status": {"allowed": true}}));
        reviews.forget_refusals(&client.api.acting_as("ns", "another"));
        assert!(!reviews.may_write(&api, &secrets, &id, true).await.unwrap(), "for a moment it is believed");
        reviews.forget_refusals(&api);
        assert!(reviews.may_write(&api, &secrets, &id, true).await.unwrap());
    }
}
