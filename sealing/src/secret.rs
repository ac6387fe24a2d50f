//! Plaintext in memory.

use zeroize::Zeroizing;

/// A plaintext. It is wiped when dropped. It cannot be printed, serialised or cloned. It is read only by
/// [`expose`](Self::expose), so each place that reads it is easy to find.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes `bytes` without copying them. The caller has to wipe earlier copies, such as those of a buffer that grew
    /// while it was filled.
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
