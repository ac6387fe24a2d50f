//! Requests get an answer in time, or none.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, OptionFuture};
use http::{Method, Request, Response};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Either, Full};
use kube::client::Body;
use tokio::time::{Instant, sleep_until, timeout_at};
use tower::{BoxError, Service, ServiceExt as _};

use crate::silence::{Lively, Silence, Trouble};

/// Whether a write may be made once more, at this moment.
pub type MayWrite = Arc<dyn Fn() -> bool + Send + Sync>;

/// Which requests are made once more when their answer is late.
#[derive(Clone)]
pub enum Repeats {
    /// None of them.
    Nothing,
    /// Reads, and writes that may be made twice (PATCH and DELETE) while they are allowed: a process that was frozen
    /// goes on with its clock where others have written meanwhile.
    WhatMayBeRepeated(MayWrite),
}

impl fmt::Debug for Repeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::WhatMayBeRepeated(_) => "WhatMayBeRepeated",
        })
    }
}

/// How long an answer may take.
#[derive(Clone, Debug)]
pub struct Deadlines {
    /// Until the last byte of the answer; for a watch, until its first. The API server gives a write, with all the
    /// admission webhooks that it asks, 34 s.
    pub answer: Duration,
    /// An answer is late after this time: the request is made once more beside the first one.
    pub late: Duration,
    /// Which requests are.
    pub repeat: Repeats,
    /// How long a watch may say nothing. The API server sends a bookmark about every minute.
    pub silence: Silence,
}

impl Deadlines {
    const SILENCE: Silence = Silence { longest: Duration::from_secs(90), in_trouble: Duration::from_secs(15) };

    /// For programs that somebody waits for: they are told, and decide themselves.
    pub fn for_people() -> Self {
        Self { answer: Duration::from_secs(60), late: Duration::MAX, repeat: Repeats::Nothing, silence: Self::SILENCE }
    }

    /// For controllers. `may_write` says whether this process may write, at the moment of every repetition.
    pub fn for_controllers(may_write: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            answer: Duration::from_secs(40),
            late: Duration::from_secs(8),
            repeat: Repeats::WhatMayBeRepeated(Arc::new(may_write)),
            silence: Self::SILENCE,
        }
    }

    fn may_repeat<B>(&self, request: &Request<B>) -> bool {
        let Repeats::WhatMayBeRepeated(may_write) = &self.repeat else { return false };
        match *request.method() {
            Method::GET => true,
            Method::PATCH | Method::DELETE => may_write(),
            // A question about rights: nothing is stored.
            Method::POST => request.uri().path().starts_with("/apis/authorization.k8s.io/"),
            _ => false,
        }
    }
}

/// The API server did not answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no answer within {} s", .after.as_secs())]
pub struct NoAnswer {
    /// How long it was waited for.
    pub after: Duration,
}

/// Gives every request its deadline; see the crate's page.
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    service: S,
    deadlines: Deadlines,
    trouble: Trouble,
}

impl<S> Deadline<S> {
    /// `service` with deadlines.
    pub fn new(service: S, deadlines: Deadlines) -> Self {
        Self { service, deadlines, trouble: Trouble::default() }
    }
}

impl<S, B> Service<Request<Body>> for Deadline<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Answer<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { service, deadlines, trouble } = self.clone();
        // Nothing is sent, and no clock runs, before the answer is polled: there may be a queue in front.
        Box::pin(async move {
            let deadline = Instant::now() + deadlines.answer;
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let answered = answered(service, request, &deadlines, &trouble);
            if let Ok(answer) = timeout_at(deadline, answered).await {
                return answer;
            }
            trouble.note();
            tracing::debug!(%method, path, "no answer");
            Err(NoAnswer { after: deadlines.answer }.into())
        })
    }
}

/// The answer to `request`, or to a copy of it that was made later.
async fn answered<S, B>(
    service: S,
    request: Request<Body>,
    deadlines: &Deadlines,
    trouble: &Trouble,
) -> Result<Response<Answer<B>>, BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone,
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let spare = copy(&request);
    let mut first = std::pin::pin!(whole(service.clone(), request, deadlines.silence, trouble));
    let mut again = Box::pin(OptionFuture::default());
    let mut late = Instant::now().checked_add(deadlines.late);
    loop {
        let is_late = async {
            match late {
                Some(late) => sleep_until(late).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = &mut first => return answer,
            Some(answer) = &mut again => return answer,
            () = is_late => {}
        }
        late = Instant::now().checked_add(deadlines.late);
        // The first one keeps all of its time. Of the others only the youngest goes on.
        if let Some(request) = spare.as_ref().filter(|request| deadlines.may_repeat(request)).and_then(copy) {
            trouble.note();
            tracing::debug!(method = %request.method(), path = request.uri().path(), "the answer is late; asked once more");
            again = Box::pin(OptionFuture::from(Some(whole(service.clone(), request, deadlines.silence, trouble))));
        }
    }
}

/// One request, with the whole body of its answer unless it is a watch.
async fn whole<S, B>(
    service: S,
    request: Request<Body>,
    silence: Silence,
    trouble: &Trouble,
) -> Result<Response<Answer<B>>, BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let is_endless = is_endless(&request);
    let (parts, body) = service.oneshot(request).await?.into_parts();
    let body = if is_endless && parts.status.is_success() {
        Either::Right(Lively::new(body, trouble.clone(), silence))
    } else {
        Either::Left(Full::new(body.collect().await.map_err(Into::into)?.to_bytes()))
    };
    Ok(Response::from_parts(parts, body))
}

/// Whether the answer has no end by itself: a watch, or a log that is followed.
fn is_endless<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1" | "follow=true"))
}

/// A copy of a request whose body is in memory.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    request.method().clone_into(copy.method_mut());
    request.uri().clone_into(copy.uri_mut());
    request.headers().clone_into(copy.headers_mut());
    Some(copy)
}

/// The body of an answer: all of it, or what comes over time.
pub type Answer<B> = Either<Full<Bytes>, Lively<B>>;
