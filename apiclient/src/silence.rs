//! Ends watches that are silent for too long.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::BoxError;

/// How long the shorter limit [`Silence::in_trouble`] holds for watches after a request had no answer.
const TROUBLE: Duration = Duration::from_secs(60);

/// When a request last had no answer in time. Clones share this time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trouble(Arc<Mutex<Option<Instant>>>);

impl Trouble {
    /// Notes that a request had no answer in time.
    pub(crate) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_recent(&self) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < TROUBLE)
    }
}

/// How long a watch may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// The limit while requests are answered.
    pub longest: Duration,
    /// The limit after another request had no answer in time, because the watch may have lost its connection, too.
    pub in_trouble: Duration,
}

/// The body of a watch. It ends if the watch is silent for too long.
pub struct Lively<B> {
    body: B,
    trouble: Trouble,
    silence: Silence,
    heard: Instant,
    look: Pin<Box<Sleep>>,
}

impl<B> Lively<B> {
    pub(crate) fn new(body: B, trouble: Trouble, silence: Silence) -> Self {
        let heard = Instant::now();
        Self { body, trouble, silence, heard, look: Box::pin(sleep_until(heard + silence.in_trouble)) }
    }
}

impl<B> HttpBody for Lively<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.heard = Instant::now();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        while self.look.as_mut().poll(context).is_ready() {
            let Silence { longest, in_trouble } = self.silence;
            let limit = if self.trouble.is_recent() { in_trouble } else { longest };
            if self.heard.elapsed() >= limit {
                return Poll::Ready(None);
            }
            // The silence is checked again before the longer limit is reached: if another request fails in the
            // meantime, the shorter limit holds.
            let next = (self.heard + in_trouble).max(Instant::now() + in_trouble / 4);
            self.look.as_mut().reset(next);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
