//! Sealing: the part that all formats share.

use crate::{Binding, format::MAX_PLAINTEXT_BYTES};

/// Somebody for whom values are sealed: only the owner of the matching private key can unseal them.
pub trait Recipient {
    /// Seals a plaintext. The result is the text of one `spec.encryptedData` value, which can be unsealed only for `binding`.
    fn seal(&self, binding: Binding<'_>, plaintext: Plaintext<'_>) -> Result<String, SealError>;
}

/// A value of at most [`MAX_PLAINTEXT_BYTES`], so that it can be unsealed again.
#[derive(Clone, Copy)]
pub struct Plaintext<'a>(&'a [u8]);

impl<'a> Plaintext<'a> {
    /// # Errors
    /// It is too large.
    pub fn new(bytes: &'a [u8]) -> Result<Self, SealError> {
        if bytes.len() > MAX_PLAINTEXT_BYTES {
            return Err(SealError::TooLarge(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// The value itself.
    pub fn expose(self) -> &'a [u8] {
        self.0
    }
}

/// Why a plaintext was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Larger than [`MAX_PLAINTEXT_BYTES`].
    #[error(
        "a value of {0} bytes is too large: at most {MAX_PLAINTEXT_BYTES} are sealed, and a Secret holds at most 1 MiB"
    )]
    TooLarge(usize),
    /// The operating system gave no random bytes.
    #[error("the operating system's random number generator failed")]
    Random,
    /// The key could not encrypt.
    #[error("the public key cannot encrypt: use another certificate")]
    Key,
}

/// Seals `plaintext` so that only the private key of `recipient` unseals it, and only for `binding`.
///
/// Returns the text of one `spec.encryptedData` value: one line of base64. Every call returns a different text.
pub fn seal(
    recipient: &(impl Recipient + ?Sized),
    binding: Binding<'_>,
    plaintext: &[u8],
) -> Result<String, SealError> {
    recipient.seal(binding, Plaintext::new(plaintext)?)
}
