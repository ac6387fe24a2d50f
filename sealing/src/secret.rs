//! Plaintext in memory.

use zeroize::Zeroizing;

/// A plaintext. It is wiped when dropped and can neither be printed, serialised nor cloned, so a copy is always a visible
/// [`expose`](Self::expose).
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes over `bytes` without copying them. Earlier copies (a buffer that grew while it was filled) are the caller's.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The plaintext itself.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Zeroizing<Vec<u8>>> for SecretBytes {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}
