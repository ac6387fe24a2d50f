//! Salts of password hashes, which are the same at every rendering.

use sha2::{Digest as _, Sha256};

/// Makes salts.
///
/// A salt must be unique, and is not secret, because it is a part of the hash. It is computed from the sealed values,
/// which contain new random data after each sealing. So it is unique, and stays the same until the SealedSecret
/// changes. Until then, a Secret with a password hash is the same at every rendering. A salt must not be computed from
/// a plaintext: a salt that is a digest of a password would reveal it.
pub struct Salts {
    seed: [u8; 32],
    template: [u8; 32],
    taken: u64,
}

impl Salts {
    /// Salts of the SealedSecret `namespace`/`name`. `sealed` are its values, sorted by name.
    pub fn new<'a>(namespace: &str, name: &str, sealed: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut hash = Sha256::new_with_prefix(b"gitseal.dev salts");
        let values = sealed.into_iter().flat_map(|(key, value)| [key, value]);
        for part in [namespace, name].into_iter().chain(values) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self { seed: hash.finalize().into(), template: [0; 32], taken: 0 }
    }

    /// From now on, makes salts for the template called `name`.
    pub(crate) fn begin(&mut self, name: &str) {
        self.template = Sha256::new().chain_update(self.seed).chain_update(name).finalize().into();
        self.taken = 0;
    }

    /// The next salt.
    pub(crate) fn take(&mut self) -> [u8; 16] {
        let hash = Sha256::new().chain_update(self.template).chain_update(self.taken.to_be_bytes()).finalize();
        self.taken += 1;
        *hash.first_chunk().expect("SHA-256 has 32 bytes")
    }
}
