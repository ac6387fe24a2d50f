//! Remembers SealedSecrets that could not be unsealed, so that their values are not decrypted again and again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use unsealing::{SealedInput, UnsealError, UnsealedSecret};

use super::Keyring;
use crate::unseal::unseal;

/// How many bytes of errors are remembered. The oldest errors are forgotten first.
const MOST_BYTES: usize = 8 << 20;

/// The Secret of a SealedSecret, just unsealed.
pub(crate) struct Unsealed {
    /// The Secret, in plaintext.
    pub(crate) secret: UnsealedSecret,
    /// A keyed digest by which the controller recognises the sealing key that unsealed the values; `None` if several
    /// keys were needed.
    pub(crate) key: Option<String>,
}

/// Errors, by the digest of the sealed input that could not be unsealed. When the generation of the keys changes, all
/// of them are forgotten.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    generation: u64,
    errors: HashMap<String, UnsealError>,
    oldest: VecDeque<String>,
    bytes: usize,
}

impl Keyring {
    /// Unseals a SealedSecret on behalf of the namespace that this keyring works for. If the same input could not be
    /// unsealed before with the same keys, the result is the same error, and nothing is decrypted. `digest` is
    /// [`unsealing::digest`] of `sealed`.
    pub(crate) async fn unseal_secret(&self, sealed: &SealedInput<'_>, digest: &str) -> Result<Unsealed, UnsealError> {
        // The generation is read before the keys are used. So if keys are added in the meantime, the next call tries
        // again.
        let generation = self.generation();
        if let Some(error) = self.0.refusals.of(generation, digest) {
            return Err(error);
        }
        match unseal(self, sealed).await {
            Ok((secret, key)) => Ok(Unsealed { secret, key: key.map(|key| self.key_mark(digest, &key)) }),
            Err(error) => {
                if !error.is_transient() {
                    self.0.refusals.remember(generation, digest.to_owned(), error.clone());
                }
                Err(error)
            }
        }
    }
}

impl Refusals {
    fn of(&self, generation: u64, digest: &str) -> Option<UnsealError> {
        let remembered = self.lock();
        remembered.errors.get(digest).filter(|_| remembered.generation == generation).cloned()
    }

    fn remember(&self, generation: u64, digest: String, error: UnsealError) {
        let mut remembered = self.lock();
        if remembered.generation > generation {
            return;
        }
        if remembered.generation < generation {
            *remembered = Remembered { generation, ..Remembered::default() };
        }
        let size = size(&digest, &error);
        if remembered.errors.insert(digest.clone(), error).is_some() {
            return;
        }
        remembered.oldest.push_back(digest);
        remembered.bytes += size;
        while remembered.bytes > MOST_BYTES {
            let Some(oldest) = remembered.oldest.pop_front() else { return };
            if let Some(error) = remembered.errors.remove(&oldest) {
                remembered.bytes -= self::size(&oldest, &error);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Approximate size of an error and its digest in memory.
fn size(digest: &str, error: &UnsealError) -> usize {
    let failures = error.failures().iter().map(|failure| failure.field.len() + failure.reason.len() + 64);
    2 * digest.len() + 256 + failures.sum::<usize>()
}
