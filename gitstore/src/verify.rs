//! Signatures: which keys are trusted, and whether one of them signed what was fetched.

pub(crate) mod cosign;
pub(crate) mod openpgp;

use std::ops::RangeInclusive;
use std::time::SystemTime;

use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use pgp::composed::SignedPublicKey;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use self::openpgp::Distrust;
use crate::FetchError;
use crate::url::Serves;

/// How the name of a trusted key ends in the Secret, as `cosign generate-key-pair` names it (`cosign.pub`).
const PUBLIC_KEY: &str = ".pub";

/// The algorithms by which a signature of a key is checked, as cosign uses them. Each key fits those of its own kind only.
static ALGORITHMS: [&(dyn VerificationAlgorithm + Sync); 4] =
    [&ECDSA_P256_SHA256_ASN1, &ECDSA_P384_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1, &ED25519];
/// The lengths of RSA keys, in bits, that can be used.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// How the name of an entry with keys of OpenPGP ends.
const KEYRINGS: [&str; 2] = [".asc", ".gpg"];

/// Public keys. A valid signature by one of them is enough.
pub struct TrustedKeys {
    keys: Keys,
    digest: [u8; 32],
}

enum Keys {
    Cosign(Vec<ParsedPublicKey>),
    OpenPgp(Vec<SignedPublicKey>),
}

impl TrustedKeys {
    /// Reads the data of a Kubernetes Secret: every entry whose name ends in `.pub` is a public key in PEM (`BEGIN PUBLIC
    /// KEY`): ECDSA with P-256 or P-384, Ed25519, or RSA with 2048 to 8192 bits. Other entries are left out, so that the
    /// Secret of `cosign generate-key-pair k8s://…` can be used as it is.
    ///
    /// # Errors
    /// [`FetchError::InvalidTrustedKeys`] if there is no such key, or one of them cannot be used.
    pub fn from_secret<'a>(data: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, FetchError> {
        let (mut keys, mut digest) = (Vec::new(), Sha256::new());
        for (name, pem) in data.into_iter().filter(|(name, _)| name.ends_with(PUBLIC_KEY)) {
            let invalid = |why: &str| FetchError::InvalidTrustedKeys(format!("{name} {why}"));
            let key = SubjectPublicKeyInfoDer::from_pem_slice(pem)
                .map_err(|_| invalid("is not a public key in PEM, which begins with -----BEGIN PUBLIC KEY-----"))?;
            let parsed: Vec<_> = algorithms(&key).filter_map(|kind| ParsedPublicKey::new(kind, &*key).ok()).collect();
            if parsed.is_empty() {
                return Err(invalid(
                    "is a key of another kind than these: ECDSA with P-256 or P-384, Ed25519, RSA with 2048 to 8192 bits",
                ));
            }
            keys.extend(parsed);
            digest.update((key.len() as u64).to_be_bytes());
            digest.update(&*key);
        }
        if keys.is_empty() {
            let why = "the Secret has no entry whose name ends in .pub, for example cosign.pub".to_owned();
            return Err(FetchError::InvalidTrustedKeys(why));
        }
        Ok(Self { keys: Keys::Cosign(keys), digest: digest.finalize().into() })
    }

    /// Reads the data of a Kubernetes Secret: every entry whose name ends in `.asc` or `.gpg` has public keys of OpenPGP.
    ///
    /// # Errors
    /// [`FetchError::InvalidTrustedKeys`] if there is no such entry, or one of them cannot be used.
    pub fn of_openpgp<'a>(data: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, FetchError> {
        let (mut keys, mut digest) = (Vec::new(), Sha256::new());
        let is_keyring = |name: &str| KEYRINGS.iter().any(|end| name.ends_with(end));
        for (name, bytes) in data.into_iter().filter(|(name, _)| is_keyring(name)) {
            let invalid = |why: String| FetchError::InvalidTrustedKeys(format!("{name} {why}"));
            keys.extend(openpgp::keys(bytes).map_err(invalid)?);
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        }
        if keys.is_empty() {
            let why = "the Secret has no entry whose name ends in .asc or .gpg, for example charts.asc".to_owned();
            return Err(FetchError::InvalidTrustedKeys(why));
        }
        Ok(Self { keys: Keys::OpenPgp(keys), digest: digest.finalize().into() })
    }

    /// What these keys sign.
    pub(crate) fn signed(&self) -> Serves {
        match self.keys {
            Keys::Cosign(_) => Serves::Artifacts,
            Keys::OpenPgp(_) => Serves::Charts,
        }
    }

    /// The text of a clear-signed message, if one of these keys signed it.
    pub(crate) fn clear_text(&self, message: &[u8]) -> Result<String, Distrust> {
        match &self.keys {
            Keys::OpenPgp(keys) => openpgp::text(message, keys, SystemTime::now()),
            Keys::Cosign(_) => Err(Distrust::Untrusted(None)),
        }
    }

    /// A digest of all keys. It differs if the keys differ.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Whether one of the keys signed these bytes.
    fn have_signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        match &self.keys {
            Keys::Cosign(keys) => keys.iter().any(|key| key.verify_sig(bytes, signature).is_ok()),
            Keys::OpenPgp(_) => false,
        }
    }
}

/// The algorithms that may fit a key.
fn algorithms(key: &SubjectPublicKeyInfoDer<'_>) -> impl Iterator<Item = &'static dyn VerificationAlgorithm> {
    // The length of an RSA key is otherwise checked only with a signature.
    let rsa = PublicEncryptingKey::from_der(key).is_ok_and(|key| RSA_BITS.contains(&key.key_size_bits()));
    let rsa = rsa.then_some(&RSA_PKCS1_2048_8192_SHA256 as &dyn VerificationAlgorithm);
    ALGORITHMS.into_iter().map(|kind| kind as &dyn VerificationAlgorithm).chain(rsa)
}

/// What a document that should be a signature turned out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// A trusted key signed the artifact.
    Valid,
    /// It is a signature of the artifact, by a key that is not trusted, or a signature that is wrong.
    Untrusted,
    /// It is about something else, or cannot be read.
    Other,
}
