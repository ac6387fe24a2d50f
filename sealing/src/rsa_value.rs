//! RSA sealed values: `u16be(len(rsa)) ‖ rsa ‖ gcm`, the hybrid encryption of Sealed Secrets.

use aes_gcm::{AeadInPlace, Aes256Gcm, KeyInit, Nonce, aead::consts::U12};
use rand_core::{CryptoRng, Error, OsRng, RngCore};
use rsa::Oaep;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    Binding, Certificate, Plaintext, Recipient, SealError, base64_text,
    format::{FormatError, MAX_PLAINTEXT_BYTES},
    public_key::{MAX_KEY_BITS, MIN_KEY_BITS, PublicKey},
};
#[cfg(feature = "unseal")]
use crate::{
    Identity, PrivateKey, SecretBytes, UnsealError,
    format::{Contents, SealedValue},
};

const LENGTH_BYTES: usize = 2;
const TAG_BYTES: usize = 16;
const SESSION_KEY_BYTES: usize = 32;

pub(crate) type SessionKey = Zeroizing<[u8; SESSION_KEY_BYTES]>;

impl Recipient for PublicKey {
    fn seal(&self, binding: Binding<'_>, plaintext: Plaintext<'_>) -> Result<String, SealError> {
        self.seal_with(&mut OsRng, binding, plaintext)
    }
}

impl PublicKey {
    /// Seals a value so that the same arguments always give the same text. `seed` takes the place of random numbers.
    ///
    /// # Caveats
    /// The seed must be secret, must look random, and must never be used for another key, binding or plaintext: so it is computed from
    /// all three with a secret key (HMAC). Otherwise, two texts together show something about their plaintexts.
    ///
    /// # Errors
    /// The plaintext is too large.
    pub fn seal_with_seed(
        &self,
        seed: &Zeroizing<[u8; SEED_BYTES]>,
        binding: Binding<'_>,
        plaintext: &[u8],
    ) -> Result<String, SealError> {
        self.seal_with(&mut Seeded::new(seed), binding, Plaintext::new(plaintext)?)
    }

    fn seal_with(
        &self,
        random: &mut (impl RngCore + CryptoRng),
        binding: Binding<'_>,
        plaintext: Plaintext<'_>,
    ) -> Result<String, SealError> {
        let plaintext = plaintext.expose();
        let mut session_key = SessionKey::default();
        random.try_fill_bytes(session_key.as_mut_slice()).map_err(|_| SealError::Random)?;
        let rsa = self
            .rsa()
            .encrypt(random, Oaep::new_with_label::<Sha256, _>(binding.label()), session_key.as_slice())
            .map_err(|_| SealError::Key)?;
        let rsa_length = u16::try_from(rsa.len()).map_err(|_| SealError::Key)?;

        // Allocates room for everything at once, because a growing buffer would leave plaintext in memory.
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
}

impl Recipient for Certificate {
    fn seal(&self, binding: Binding<'_>, plaintext: Plaintext<'_>) -> Result<String, SealError> {
        self.public_key().seal(binding, plaintext)
    }
}

/// An altered value is not distinguished from a value for another key. For a given key size, every refusal takes the same
/// steps: if RSA-OAEP fails, the rest is still authenticated, with a random key.
#[cfg(feature = "unseal")]
impl Identity for PrivateKey {
    fn unseal(&self, binding: Binding<'_>, value: &SealedValue) -> Option<Result<SecretBytes, UnsealError>> {
        let Contents::Rsa(envelope) = &value.0 else { return None };
        if envelope.rsa().len() != self.ciphertext_bytes() {
            return None;
        }
        // This random key is made in any case, so that a failed decryption takes as much time as a successful one.
        let Some(decoy) = random_session_key() else { return Some(Err(UnsealError::Random)) };
        let decrypted = self.decrypt_session_key(envelope.rsa(), &binding.label());
        let is_genuine = decrypted.is_some();
        let plaintext = envelope.open(&decrypted.unwrap_or(decoy));
        plaintext.filter(|_| is_genuine).map(Ok)
    }
}

/// The parts of a value. Nothing is authenticated yet.
pub(crate) struct Envelope {
    bytes: Zeroizing<Vec<u8>>,
    rsa_length: usize,
}

impl Envelope {
    /// The parts of a value, if its structure is right.
    pub(crate) fn parse(bytes: Zeroizing<Vec<u8>>) -> Result<Self, FormatError> {
        let &[high, low, ref rest @ ..] = &**bytes else {
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
        Ok(Self { bytes, rsa_length })
    }

    /// The RSA ciphertext of the session key.
    pub(crate) fn rsa(&self) -> &[u8] {
        &self.bytes[LENGTH_BYTES..LENGTH_BYTES + self.rsa_length]
    }

    /// Opens the AES-GCM part; `None` when it does not authenticate.
    #[cfg(feature = "unseal")]
    fn open(&self, session_key: &SessionKey) -> Option<SecretBytes> {
        let (ciphertext, tag) = self.bytes[LENGTH_BYTES + self.rsa_length..].split_last_chunk::<TAG_BYTES>()?;
        let mut plaintext = ciphertext.to_vec();
        // The tag is verified before the first byte is decrypted.
        cipher(session_key).decrypt_in_place_detached(&zero_nonce(), &[], &mut plaintext, tag.into()).ok()?;
        Some(SecretBytes::new(plaintext))
    }
}

/// How many bytes a seed for [`PublicKey::seal_with_seed`] has.
pub const SEED_BYTES: usize = 32;

/// Numbers that only somebody who knows the seed can tell from random ones: SHA-256 of the seed and a counter. The seed and the
/// numbers are wiped, because a session key can be computed from them.
struct Seeded {
    seed: Zeroizing<[u8; SEED_BYTES]>,
    counter: u64,
    /// What is left of the last block.
    left: Zeroizing<Vec<u8>>,
}

impl Seeded {
    fn new(seed: &Zeroizing<[u8; SEED_BYTES]>) -> Self {
        Self { seed: seed.clone(), counter: 0, left: Zeroizing::default() }
    }
}

impl RngCore for Seeded {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.left.is_empty() {
                let mut block =
                    Sha256::new_with_prefix(self.seed.as_slice()).chain_update(self.counter.to_be_bytes()).finalize();
                self.counter += 1;
                self.left = Zeroizing::new(block.to_vec());
                block.as_mut_slice().zeroize();
            }
            *byte = self.left.pop().unwrap_or_default();
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Seeded {}

#[cfg(feature = "unseal")]
fn random_session_key() -> Option<SessionKey> {
    let mut key = SessionKey::default();
    OsRng.try_fill_bytes(key.as_mut_slice()).ok()?;
    Some(key)
}

fn cipher(session_key: &SessionKey) -> Aes256Gcm {
    Aes256Gcm::new(session_key.as_slice().into())
}

/// A session key encrypts only one value, so the format always uses the nonce zero.
fn zero_nonce() -> Nonce<U12> {
    Nonce::default()
}
