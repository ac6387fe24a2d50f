//! Decryption off the async threads, bounded by the processors, in turn among namespaces.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

use sealing::{Binding, SecretBytes, UnsealError};
use tokio::task::spawn_blocking;

use super::set::KeySet;
use crate::fair::{Asker, Places};

/// Runs decryptions on the blocking threads, at most `processors` at once. Namespaces take turns, value by value: much
/// that one of them brings delays another one by a few values.
pub(super) struct Pool(Places);

/// The work was cut short by a shutdown, or it panicked.
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
            // Held by the thread and not by the caller: a caller that goes away does not make room too early.
            let _place = place;
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
