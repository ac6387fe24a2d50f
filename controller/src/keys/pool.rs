//! Decryption off the async threads, bounded by the processors.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::future::join_all;
use sealing::SecretBytes;
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{UnsealValueError, set::KeySet};

/// Runs decryptions on the blocking threads, at most `processors` at once, in the order they were asked for.
pub(super) struct Pool {
    permits: Arc<Semaphore>,
}

impl Pool {
    pub(super) fn new(processors: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(processors)) }
    }

    pub(super) async fn unseal(
        &self,
        keys: Arc<KeySet>,
        label: &str,
        values: impl IntoIterator<Item = String>,
    ) -> Vec<Result<SecretBytes, UnsealValueError>> {
        let label: Arc<str> = label.into();
        // The values of one SealedSecret are mostly sealed with one key: the one that fitted last goes first, so that
        // old keys cost one search per SealedSecret and not one per value.
        let favourite = Arc::new(AtomicUsize::new(0));
        let jobs = values.into_iter().map(|value| {
            let (keys, label, favourite) = (Arc::clone(&keys), Arc::clone(&label), Arc::clone(&favourite));
            self.run(move || unseal(&keys, &favourite, &label, &value))
        });
        join_all(jobs).await
    }

    pub(super) async fn run<F>(&self, work: F) -> Result<SecretBytes, UnsealValueError>
    where
        F: FnOnce() -> Result<SecretBytes, UnsealValueError> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let job = spawn_blocking(move || {
            // Held by the thread and not by the caller: a caller that goes away does not make room too early.
            let _permit = permit;
            work()
        });
        job.await.unwrap_or(Err(UnsealValueError::Interrupted))
    }
}

fn unseal(keys: &KeySet, favourite: &AtomicUsize, label: &str, value: &str) -> Result<SecretBytes, UnsealValueError> {
    let first = favourite.load(Ordering::Relaxed);
    let tried = Cell::new(first);
    let order = keys.starting_with(first).map(|(index, key)| {
        tried.set(index);
        key
    });
    let plaintext = sealing::unseal(order, label, value)?;
    favourite.store(tried.get(), Ordering::Relaxed);
    Ok(plaintext)
}
