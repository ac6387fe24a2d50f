//! Runs decryptions outside of the async threads, not more than there are processors. Namespaces take turns.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

use sealing::{Binding, SecretBytes, UnsealError};
use tokio::task::spawn_blocking;

use super::set::KeySet;
use crate::fair::{Asker, Places};

/// Runs decryptions on the blocking threads, at most `processors` at the same time. Namespaces take turns, value by
/// value: if one of them has many values, another one waits for a few of these only.
pub(super) struct Pool(Places);

/// A shutdown stopped the work, or it panicked.
#[derive(Debug)]
pub(super) struct Interrupted;

impl Pool {
    pub(super) fn new(processors: usize) -> Self {
        Self(Places::new(processors))
    }

    pub(super) async fn run<T, F>(&self, asker: Asker<'_>, work: F) -> Result<T, Interrupted>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let place = self.0.take(asker).await;
        let job = spawn_blocking(move || {
            // The thread holds the place, not the caller. Otherwise a caller that is dropped would free it too early.
            let _place = place;
            work()
        });
        job.await.map_err(|_| Interrupted)
    }
}

/// The key that unsealed the last value. Most values of a SealedSecret were sealed with the same key, so it is tried
/// first. Then old keys cost one search per SealedSecret, not one per value.
#[derive(Default)]
pub(super) struct Favourite(AtomicUsize);

/// Unseals a value. Also returns the index of the key.
pub(super) fn unseal(
    keys: &KeySet,
    favourite: &Favourite,
    binding: Binding<'_>,
    value: &str,
) -> Result<(usize, SecretBytes), UnsealError> {
    let first = favourite.0.load(Ordering::Relaxed);
    let tried = Cell::new(first);
    let order = keys.starting_with(first).map(|(index, key)| {
        tried.set(index);
        key
    });
    let plaintext = sealing::unseal(order, binding, value)?;
    favourite.0.store(tried.get(), Ordering::Relaxed);
    Ok((tried.get(), plaintext))
}
