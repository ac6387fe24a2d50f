//! RSA sealed values: `u16be(len(rsa)) ‖ rsa ‖ gcm`, the hybrid encryption of Sealed Secrets.

use aes_gcm::{AeadInPlace, Aes256Gcm, KeyInit, Nonce, aead::consts::U12};
use rand_core::{OsRng, RngCore};
use rsa::Oaep;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    base64_text,
    format::{FormatError, MAX_PLAINTEXT_BYTES},
    public_key::{MAX_KEY_BITS, MIN_KEY_BITS, PublicKey},
};

const LENGTH_BYTES: usize = 2;
const TAG_BYTES: usize = 16;
const SESSION_KEY_BYTES: usize = 32;

pub(crate) type SessionKey = Zeroizing<[u8; SESSION_KEY_BYTES]>;

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

/// Seals `plaintext` so that only the private key that belongs to `key` opens it, and only under `label`
/// (see [`Scope::label`](crate::Scope::label)).
///
/// Returns the text of one `spec.encryptedData` value: one line of base64. Every call gives another text.
pub fn seal(key: &PublicKey, label: &str, plaintext: &[u8]) -> Result<String, SealError> {
    if plaintext.len() > MAX_PLAINTEXT_BYTES {
        return Err(SealError::TooLarge(plaintext.len()));
    }
    let session_key = random_session_key().ok_or(SealError::Random)?;
    let rsa = key
        .rsa()
        .encrypt(&mut OsRng, Oaep::new_with_label::<Sha256, _>(label), session_key.as_slice())
        .map_err(|_| SealError::Key)?;
    let rsa_length = u16::try_from(rsa.len()).map_err(|_| SealError::Key)?;

    // Room for everything at once: a growing buffer would leave plaintext behind.
    let mut value = Zeroizing::new(Vec::with_capacity(LENGTH_BYTES + rsa.len() + plaintext.len() + TAG_BYTES));
    value.extend_from_slice(&rsa_length.to_be_bytes());
    value.extend_from_slice(&rsa);
    let header_length = value.len();
    value.extend_from_slice(plaintext);
    let tag = cipher(&session_key)
        .encrypt_in_place_detached(&zero_nonce(), &[], &mut value[header_length..])
        .map_err(|_| SealError::TooLarge(plaintext.len()))?;
    value.extend_from_slice(&tag);
    Ok(base64_text::encode(&value))
}

/// Length of the RSA ciphertext in a value whose structure is sound.
pub(crate) fn rsa_length(value: &[u8]) -> Result<usize, FormatError> {
    let &[high, low, ref rest @ ..] = value else {
        return Err(FormatError::Unknown);
    };
    let rsa_length = usize::from(u16::from_be_bytes([high, low]));
    if !(MIN_KEY_BITS.div_ceil(8)..=MAX_KEY_BITS.div_ceil(8)).contains(&rsa_length) {
        return Err(FormatError::Unknown);
    }
    let plaintext_length = rest.len().checked_sub(rsa_length + TAG_BYTES).ok_or(FormatError::Truncated)?;
    if plaintext_length > MAX_PLAINTEXT_BYTES {
        return Err(FormatError::TooLarge);
    }
    Ok(rsa_length)
}

/// A value taken apart. The parts are as whoever sealed wrote them: nothing is authenticated yet.
#[cfg(feature = "unseal")]
pub(crate) struct Envelope {
    bytes: Zeroizing<Vec<u8>>,
    rsa_length: usize,
}

#[cfg(feature = "unseal")]
impl Envelope {
    pub(crate) fn parse(value: Zeroizing<Vec<u8>>) -> Result<Self, FormatError> {
        rsa_length(&value).map(|rsa_length| Self { bytes: value, rsa_length })
    }

    /// The RSA ciphertext of the session key.
    pub(crate) fn rsa(&self) -> &[u8] {
        &self.bytes[LENGTH_BYTES..LENGTH_BYTES + self.rsa_length]
    }

    /// Opens the AES-GCM part; `None` when it does not authenticate, which leaves the envelope as it was.
    pub(crate) fn open(&mut self, session_key: &SessionKey) -> Option<crate::SecretBytes> {
        let (plaintext, tag) = self.bytes[LENGTH_BYTES + self.rsa_length..].split_last_chunk_mut::<TAG_BYTES>()?;
        // The tag is verified before the first byte is decrypted.
        cipher(session_key).decrypt_in_place_detached(&zero_nonce(), &[], plaintext, (&*tag).into()).ok()?;
        Some(crate::SecretBytes::new(plaintext.to_vec()))
    }
}

pub(crate) fn random_session_key() -> Option<SessionKey> {
    let mut key = SessionKey::default();
    OsRng.try_fill_bytes(key.as_mut_slice()).ok()?;
    Some(key)
}

fn cipher(session_key: &SessionKey) -> Aes256Gcm {
    Aes256Gcm::new(session_key.as_slice().into())
}

/// A session key encrypts one value only, so the format fixes the nonce.
fn zero_nonce() -> Nonce<U12> {
    Nonce::default()
}
