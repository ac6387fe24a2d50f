//! The formats of sealed values, recognised without unsealing.

use crate::{base64_text, rsa_value::Envelope};

/// The largest plaintext that is sealed or unsealed, in bytes. No Secret needs more: a Secret holds at most 1 MiB.
pub const MAX_PLAINTEXT_BYTES: usize = 2 << 20;

/// Room for the base64 of the largest value and for its line breaks.
const MAX_TEXT_BYTES: usize = 3 << 20;

/// How every binary age file starts.
const AGE_MAGIC: &[u8] = b"age-encryption.org/";

/// A format of sealed values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// RSA-OAEP and AES-256-GCM, the format of Sealed Secrets (`Ag…` under an RSA-4096 key).
    Rsa,
    /// A binary age file (`YWdlLWVuY3J5cHRpb24ub3Jn…`).
    Age,
}

/// Why a text is not a sealed value. The reason is visible in the text itself, so it may be told to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Not standard base64 with padding.
    #[error(
        "not base64: this is not a sealed value; seal the plaintext first, or restore the text as kubeseal or gitseal wrote it"
    )]
    NotBase64,
    /// Longer than any sealed value can be.
    #[error("longer than any sealed value can be ({MAX_TEXT_BYTES} characters)")]
    TooLarge,
    /// Base64, but the bytes are not a sealed value.
    #[error("base64, but neither an RSA nor an age sealed value; seal the plaintext first")]
    Unknown,
    /// The end is missing.
    #[error("cut off: the value is shorter than its own header says; copy it again from where it was sealed")]
    Truncated,
}

/// The format of a value of `spec.encryptedData`, by its structure. A value with the right structure may still be one that
/// no key unseals.
pub fn is_sealed(value: &str) -> Result<Format, FormatError> {
    SealedValue::parse(value).map(|value| value.format())
}

/// A value of `spec.encryptedData`, parsed as far as that is possible without a key.
pub struct SealedValue(pub(crate) Contents);

/// The parsed parts of a sealed value, which depend on its format.
pub(crate) enum Contents {
    Rsa(Envelope),
    Age,
}

impl SealedValue {
    /// Reads the text of a value. The format is recognised by its first bytes after base64 decoding.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(FormatError::TooLarge);
        }
        let bytes = base64_text::decode(text.as_bytes()).map_err(|_| FormatError::NotBase64)?;
        if bytes.starts_with(AGE_MAGIC) {
            return Ok(Self(Contents::Age));
        }
        Envelope::parse(bytes).map(|envelope| Self(Contents::Rsa(envelope)))
    }

    /// Its format.
    pub fn format(&self) -> Format {
        match self.0 {
            Contents::Rsa(_) => Format::Rsa,
            Contents::Age => Format::Age,
        }
    }

    /// Size of the RSA key that the value was sealed with, in bits, as a multiple of eight; `None` for another format.
    pub fn rsa_bits(&self) -> Option<usize> {
        match &self.0 {
            Contents::Rsa(envelope) => Some(8 * envelope.rsa().len()),
            Contents::Age => None,
        }
    }
}
