//! Salts of password hashes, the same ones at every rendering.

use sha2::{Digest as _, Sha256};

/// Where salts come from.
///
/// A salt has to be unlike all others, and is no secret: it stands in the hash. Derived from the sealed values, which
/// hold fresh randomness from each sealing, it is unique, and stays as it is until the SealedSecret changes; so a Secret
/// with a password hash is the same at every look. It must not be derived from a plaintext: a salt that is a digest of a
/// password would give it away.
pub struct Salts {
    seed: [u8; 32],
    template: [u8; 32],
    taken: u64,
}

impl Salts {
    /// Salts of the SealedSecret `namespace`/`name`, whose values are `sealed`, by name and in order.
    pub fn new<'a>(namespace: &str, name: &str, sealed: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut hash = Sha256::new_with_prefix(b"gitseal.dev salts");
        let values = sealed.into_iter().flat_map(|(key, value)| [key, value]);
        for part in [namespace, name].into_iter().chain(values) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self { seed: hash.finalize().into(), template: [0; 32], taken: 0 }
    }

    /// From here on those of the template called `name`.
    pub(crate) fn begin(&mut self, name: &str) {
        self.template = Sha256::new().chain_update(self.seed).chain_update(name).finalize().into();
        self.taken = 0;
    }

    /// The next one.
    pub(crate) fn take(&mut self) -> [u8; 16] {
        let hash = Sha256::new().chain_update(self.template).chain_update(self.taken.to_be_bytes()).finalize();
        self.taken += 1;
        *hash.first_chunk().expect("SHA-256 has 32 bytes")
    }
}
