//! Gives every request a deadline.

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

/// Whether a write may be sent again at this moment.
pub type MayWrite = Arc<dyn Fn() -> bool + Send + Sync>;

/// Which requests are sent again if their answer is late.
#[derive(Clone)]
pub enum Repeats {
    /// No request is sent again.
    Nothing,
    /// Reads are sent again. Writes that may be sent twice (PATCH and DELETE) are sent again if [`MayWrite`] allows it.
    /// [`MayWrite`] is asked before each repetition, because another process may have taken over while this process was
    /// frozen. Then only the other process may write.
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

/// How long answers may take.
#[derive(Clone, Debug)]
pub struct Deadlines {
    /// Time until the last byte of the answer; for a watch, until the first byte. The API server itself allows 34 s for
    /// a write with all its admission webhooks.
    pub answer: Duration,
    /// After this time an answer is late: the request is sent again, while the client still waits for the answer to the
    /// first one.
    pub late: Duration,
    /// Which requests are sent again.
    pub repeat: Repeats,
    /// How long a watch may be silent. If nothing changes, the API server sends a bookmark about once a minute.
    pub silence: Silence,
}

impl Deadlines {
    const SILENCE: Silence = Silence { longest: Duration::from_secs(90), in_trouble: Duration::from_secs(15) };

    /// Deadlines for programs that a person waits for. No request is sent again, because the person can try again.
    pub fn for_people() -> Self {
        Self { answer: Duration::from_secs(60), late: Duration::MAX, repeat: Repeats::Nothing, silence: Self::SILENCE }
    }

    /// Deadlines for controllers. `may_write` is called before a write is sent again, and says whether this process may
    /// write.
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
            // A POST to this API group asks about rights and stores nothing, so it may be sent twice.
            Method::POST => request.uri().path().starts_with("/apis/authorization.k8s.io/"),
            _ => false,
        }
    }
}

/// The API server did not answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no answer within {} s", .after.as_secs())]
pub struct NoAnswer {
    /// How long the client waited.
    pub after: Duration,
}

/// A service that gives every request its deadline, as the documentation of the crate says.
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
        // The request is sent, and its deadline is set, only when the answer is polled. Before that, the request may
        // wait in a queue.
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

/// The answer to `request`, or to a copy of it that was sent because the answer was late.
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
        // The answer to the first request is awaited until its deadline. Of its repetitions, only the newest is
        // awaited.
        if let Some(request) = spare.as_ref().filter(|request| deadlines.may_repeat(request)).and_then(copy) {
            trouble.note();
            tracing::debug!(method = %request.method(), path = request.uri().path(), "the answer is late; the request is sent once more");
            again = Box::pin(OptionFuture::from(Some(whole(service.clone(), request, deadlines.silence, trouble))));
        }
    }
}

/// Sends one request, and reads the whole body of its answer unless it is a watch.
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

/// Whether the answer has no end: a watch, or a log that is followed.
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

/// The body of an answer: either complete, or a stream.
pub type Answer<B> = Either<Full<Bytes>, Lively<B>>;
