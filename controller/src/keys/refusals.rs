//! SealedSecrets that could not be opened, so that their values are not decrypted again and again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Keyring;
use crate::opened::{self, OpenError, OpenedSecret, SealedInput};

/// Bytes of the errors that are remembered; the oldest are forgotten first.
const MOST_BYTES: usize = 8 << 20;

/// Errors by the digest of the sealed input, for the keys of one generation.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    generation: u64,
    errors: HashMap<String, OpenError>,
    oldest: VecDeque<String>,
    bytes: usize,
}

impl Keyring {
    /// [`opened::open`] for what this keyring's namespace brought, unless the same input was refused before and the keys
    /// are the same: then the same error, and nothing is decrypted.
    pub async fn open(&self, sealed: &SealedInput<'_>) -> Result<OpenedSecret, OpenError> {
        let digest = opened::digest(sealed);
        // In this order: keys that come in between make the next call try again.
        let generation = self.generation();
        if let Some(error) = self.0.refusals.of(generation, &digest) {
            return Err(error);
        }
        let result = opened::open(self, sealed).await;
        if let Err(error) = &result
            && !error.is_transient()
        {
            self.0.refusals.remember(generation, digest, error.clone());
        }
        result
    }
}

impl Refusals {
    fn of(&self, generation: u64, digest: &str) -> Option<OpenError> {
        let remembered = self.lock();
        remembered.errors.get(digest).filter(|_| remembered.generation == generation).cloned()
    }

    fn remember(&self, generation: u64, digest: String, error: OpenError) {
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

/// What it takes in memory, roughly.
fn size(digest: &str, error: &OpenError) -> usize {
    let failures = error.failures().iter().map(|failure| failure.field.len() + failure.reason.len() + 64);
    2 * digest.len() + 256 + failures.sum::<usize>()
}
