//! RSA private keys, with which values are unsealed.

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey},
    signature::RSA_PKCS1_SHA256,
};
use der::{Decode, Encode};
use rsa::{pkcs1, pkcs8};
use zeroize::Zeroizing;

use crate::{
    pem::{self, PemError},
    public_key::{MAX_KEY_BITS, PublicKey, PublicKeyError},
    rsa_value::SessionKey,
};

/// The key size that Sealed Secrets generates unless told otherwise, in bits.
pub const DEFAULT_KEY_BITS: usize = 4096;

const PKCS1_LABEL: &str = "RSA PRIVATE KEY";
const PKCS8_LABEL: &str = "PRIVATE KEY";
const ENCRYPTED_LABEL: &str = "ENCRYPTED PRIVATE KEY";
const EC_LABEL: &str = "EC PRIVATE KEY";

/// An RSA private key of 2048 to 8192 bits. The numbers are in memory of aws-lc, which is wiped when the key is
/// dropped. aws-lc works on them in constant time. To check whether a certificate belongs to the key, compare their
/// public keys.
pub struct PrivateKey {
    key: PrivateDecryptingKey,
    oaep: OaepPrivateDecryptingKey,
    public_key: PublicKey,
}

/// Why a private key cannot be used. The error shows nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateKeyError {
    /// The text is not readable as PEM.
    #[error("not a PEM private key: {0}")]
    Pem(#[from] PemError),
    /// There is no private key in the text.
    #[error(
        "no private key found: expected a block that starts with -----BEGIN RSA PRIVATE KEY----- or -----BEGIN PRIVATE KEY-----"
    )]
    Missing,
    /// The key is protected by a passphrase.
    #[error("the private key is encrypted: decrypt it first (openssl pkey)")]
    Encrypted,
    /// The numbers in the PEM block do not make an RSA key, or the key has more than two primes.
    #[error("not a valid RSA private key")]
    Malformed,
    /// The key is for another algorithm than RSA, or its size cannot be used.
    #[error("the private key cannot be used: {0}")]
    Key(#[from] PublicKeyError),
    /// A key of this size, in bits, cannot be generated.
    #[error("no RSA key of {0} bits can be generated: choose 2048, 3072, 4096 or 8192")]
    GeneratedSize(usize),
    /// Generating, encoding or signing failed.
    #[error("the cryptographic library failed")]
    Library,
}

impl PrivateKey {
    /// Reads the first private key of a PEM text: PKCS#1 (`RSA PRIVATE KEY`, as Sealed Secrets stores it) or unencrypted
    /// PKCS#8 (`PRIVATE KEY`).
    pub fn from_pem(pem: &[u8]) -> Result<Self, PrivateKeyError> {
        let labels = [PKCS1_LABEL, PKCS8_LABEL, ENCRYPTED_LABEL, EC_LABEL];
        let (label, der) = pem::find(pem, &labels)?.ok_or(PrivateKeyError::Missing)?;
        match label {
            PKCS1_LABEL => Self::from_pkcs1(&der),
            PKCS8_LABEL => {
                let info = pkcs8::PrivateKeyInfo::from_der(&der).map_err(|_| PrivateKeyError::Malformed)?;
                if info.algorithm.oid != pkcs1::ALGORITHM_OID {
                    return Err(PublicKeyError::NotRsa.into());
                }
                Self::from_pkcs1(info.private_key)
            }
            ENCRYPTED_LABEL => Err(PrivateKeyError::Encrypted),
            _ => Err(PublicKeyError::NotRsa.into()),
        }
    }

    /// Generates a key of 2048, 3072, 4096 or 8192 bits, on the calling thread. With 4096 bits this takes up to a second, with
    /// 8192 many seconds.
    pub fn generate(bits: usize) -> Result<Self, PrivateKeyError> {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            8192 => KeySize::Rsa8192,
            _ => return Err(PrivateKeyError::GeneratedSize(bits)),
        };
        let key = PrivateDecryptingKey::generate(size).map_err(|_| PrivateKeyError::Library)?;
        let pkcs8 = key.as_der().map_err(|_| PrivateKeyError::Library)?;
        let info = pkcs8::PrivateKeyInfo::from_der(pkcs8.as_ref()).map_err(|_| PrivateKeyError::Library)?;
        let public_key = public_key(info.private_key)?;
        Self::new(key, public_key)
    }

    /// The key as one PKCS#1 PEM block (`RSA PRIVATE KEY`), which is what `tls.key` of a sealing key's Secret holds.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, PrivateKeyError> {
        let pkcs8 = self.key.as_der().map_err(|_| PrivateKeyError::Library)?;
        let info = pkcs8::PrivateKeyInfo::from_der(pkcs8.as_ref()).map_err(|_| PrivateKeyError::Library)?;
        Ok(pem::encode(PKCS1_LABEL, info.private_key))
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Decrypts the session key of a sealed value. The caller must make sure that nobody can distinguish `None` here
    /// from a failure of the next step, which decrypts the value with the session key.
    pub(crate) fn decrypt_session_key(&self, ciphertext: &[u8], label: &str) -> Option<SessionKey> {
        let mut buffer = Zeroizing::new([0; MAX_KEY_BITS / 8]);
        let decrypted = self
            .oaep
            .decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, buffer.as_mut_slice(), Some(label.as_bytes()))
            .ok()?;
        <[u8; 32]>::try_from(&*decrypted).ok().map(Zeroizing::new)
    }

    /// Length of this key's ciphertexts and signatures, in bytes.
    pub(crate) fn ciphertext_bytes(&self) -> usize {
        self.oaep.key_size_bytes()
    }

    /// Signs `message` with PKCS#1 v1.5 and SHA-256.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PrivateKeyError> {
        let pkcs8 = self.key.as_der().map_err(|_| PrivateKeyError::Library)?;
        let pair = KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|_| PrivateKeyError::Library)?;
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| PrivateKeyError::Library)?;
        Ok(signature)
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self, PrivateKeyError> {
        let public_key = public_key(der)?;
        let pkcs8 = pkcs8::PrivateKeyInfo::new(pkcs1::ALGORITHM_ID, der)
            .to_der()
            .map(Zeroizing::new)
            .map_err(|_| PrivateKeyError::Malformed)?;
        let key = PrivateDecryptingKey::from_pkcs8(&pkcs8).map_err(|_| PrivateKeyError::Malformed)?;
        Self::new(key, public_key)
    }

    fn new(key: PrivateDecryptingKey, public_key: PublicKey) -> Result<Self, PrivateKeyError> {
        let oaep = OaepPrivateDecryptingKey::new(key.clone()).map_err(|_| PrivateKeyError::Library)?;
        Ok(Self { key, oaep, public_key })
    }
}

/// The public half of a PKCS#1 private key.
fn public_key(pkcs1: &[u8]) -> Result<PublicKey, PrivateKeyError> {
    let numbers = pkcs1::RsaPrivateKey::from_der(pkcs1).map_err(|_| PrivateKeyError::Malformed)?;
    Ok(PublicKey::from_components(numbers.modulus, numbers.public_exponent)?)
}
