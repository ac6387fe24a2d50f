//! Decryption off the async threads, bounded by the processors.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::future::join_all;
use sealing::{SecretBytes, UnsealError};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{UnsealValueError, set::KeySet};

/// Runs decryptions on the blocking threads, at most `processors` at once, in the order they were asked for.
pub(super) struct Pool {
    permits: Arc<Semaphore>,
    /// Places for what somebody asked over HTTP: half of all, so that Secrets never wait for long behind it.
    inquiries: Arc<Semaphore>,
}

/// Who waits for a decryption.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Urgency {
    /// A Secret that is to be written.
    Secret,
    /// Somebody who asked over HTTP.
    Inquiry,
}

/// The work was cut short by a shutdown, or it panicked.
#[derive(Debug)]
pub(super) struct Interrupted;

impl Pool {
    pub(super) fn new(processors: usize) -> Self {
        let inquiries = (processors / 2).max(1);
        Self { permits: Arc::new(Semaphore::new(processors)), inquiries: Arc::new(Semaphore::new(inquiries)) }
    }

    pub(super) async fn unseal(
        &self,
        keys: Arc<KeySet>,
        label: &str,
        values: impl IntoIterator<Item = String>,
    ) -> Vec<Result<SecretBytes, UnsealValueError>> {
        let label: Arc<str> = label.into();
        let favourite = Arc::new(Favourite::default());
        let jobs = values.into_iter().map(|value| {
            let (keys, label, favourite) = (Arc::clone(&keys), Arc::clone(&label), Arc::clone(&favourite));
            let work = move || Ok(unseal(&keys, &favourite, &label, &value)?.1);
            async { self.run(Urgency::Secret, work).await.unwrap_or(Err(UnsealValueError::Interrupted)) }
        });
        join_all(jobs).await
    }

    pub(super) async fn run<T, F>(&self, urgency: Urgency, work: F) -> Result<T, Interrupted>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        const NEVER_CLOSED: &str = "the semaphores are never closed";
        let inquiry = match urgency {
            Urgency::Secret => None,
            Urgency::Inquiry => Some(Arc::clone(&self.inquiries).acquire_owned().await.expect(NEVER_CLOSED)),
        };
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect(NEVER_CLOSED);
        let job = spawn_blocking(move || {
            // Held by the thread and not by the caller: a caller that goes away does not make room too early.
            let _permits = (permit, inquiry);
            work()
        });
        job.await.map_err(|_| Interrupted)
    }
}

/// The key that fitted last. The values of one SealedSecret are mostly sealed with one key: that one goes first, so that
/// old keys cost one search per SealedSecret and not one per value.
#[derive(Default)]
pub(super) struct Favourite(AtomicUsize);

/// Unseals a value; also the index of the key that fitted.
pub(super) fn unseal(
    keys: &KeySet,
    favourite: &Favourite,
    label: &str,
    value: &str,
) -> Result<(usize, SecretBytes), UnsealError> {
    let first = favourite.0.load(Ordering::Relaxed);
    let tried = Cell::new(first);
    let order = keys.starting_with(first).map(|(index, key)| {
        tried.set(index);
        key
    });
    let plaintext = sealing::unseal(order, label, value)?;
    favourite.0.store(tried.get(), Ordering::Relaxed);
    Ok((tried.get(), plaintext))
}
