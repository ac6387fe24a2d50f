//! Runs decryptions outside of the async threads, at most as many at the same time as there are processors. Namespaces
//! take turns.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

use sealing::{Binding, SecretBytes, UnsealError};
use tokio::task::spawn_blocking;

use super::set::KeySet;
use crate::fair::{Asker, Places};

/// Runs decryptions on the blocking threads, at most `processors` at the same time. Namespaces take turns, value by
/// value: if one namespace has many values, another namespace waits only for a few of them.
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
            // The thread, not the caller, holds the place in the pool. Otherwise the place would be free too early if
            // the caller is dropped while the thread still works.
            let _place = place;
            work()
        });
        job.await.map_err(|_| Interrupted)
    }
}

/// The key that unsealed the last value of a SealedSecret. This key is tried first, because most values of a
/// SealedSecret were sealed with the same key. So an old key is searched for once per SealedSecret, not once per value.
#[derive(Default)]
pub(super) struct Favourite(AtomicUsize);

/// Unseals a value. Also returns the index of the key that unsealed it.
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
