//! Certificates: how a cluster publishes the key to seal with.
//!
//! A certificate is a container for a public key and its dates. A certificate is trusted because of the place it was fetched
//! from. Its signature is not checked; kubeseal does not check it, either.

use der::{
    Decode,
    asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef},
    oid::db::rfc4519::CN,
};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use x509_cert::{name::Name, time::Time};

use crate::{
    pem::{self, PemError},
    public_key::{PublicKey, PublicKeyError, hex},
};

const PEM_LABEL: &str = "CERTIFICATE";

/// An X.509 certificate that holds an RSA public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    public_key: PublicKey,
    not_before: Timestamp,
    not_after: Timestamp,
    common_name: Option<String>,
}

/// Why a certificate is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The text is not readable as PEM.
    #[error("not a PEM certificate: {0}")]
    Pem(#[from] PemError),
    /// There is no `CERTIFICATE` block.
    #[error("no certificate found: expected a block that starts with -----BEGIN CERTIFICATE-----")]
    Missing,
    /// The block is not an X.509 certificate.
    #[error("not an X.509 certificate: {0}")]
    Malformed(der::Error),
    /// The key inside cannot be used.
    #[error("the certificate's key cannot be used for sealing: {0}")]
    Key(#[from] PublicKeyError),
}

impl Certificate {
    /// Reads the first certificate of a PEM text, as kubeseal does. Everything else in the text is skipped.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let (_, der) = pem::find(pem, &[PEM_LABEL])?.ok_or(CertificateError::Missing)?;
        Self::from_der(&der)
    }

    /// Reads a certificate's DER.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = x509_cert::Certificate::from_der(der).map_err(CertificateError::Malformed)?;
        let contents = &certificate.tbs_certificate;
        let spki = der::referenced::OwnedToRef::owned_to_ref(&contents.subject_public_key_info);
        Ok(Self {
            der: der.to_vec(),
            public_key: PublicKey::from_spki(spki)?,
            not_before: timestamp(contents.validity.not_before)?,
            not_after: timestamp(contents.validity.not_after)?,
            common_name: common_name(&contents.subject),
        })
    }

    /// The certificate as one PEM block.
    pub fn to_pem(&self) -> String {
        String::clone(&pem::encode(PEM_LABEL, &self.der))
    }

    /// The certificate's DER, as it was read.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The key to seal with.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Start of the validity.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// End of the validity. Callers must refuse to seal with an expired certificate; its private key still unseals.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whether the validity ended before `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now > self.not_after
    }

    /// SHA-256 of the certificate's DER, as 64 lower-case hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.der))
    }

    /// Eight letters and digits that are computed from the certificate. The name of the Secret with the key of the
    /// certificate ends with these eight. Another certificate gives other letters and digits. So a key never gets the
    /// name of another key, even of a key that is only in a backup.
    pub fn name_letters(&self) -> String {
        // The letters and digits that the API server uses in names that it generates. They spell no words.
        const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        let digest = Sha256::digest(&self.der);
        let letter = |part: &[u8]| {
            let value = part.iter().fold(0, |value, byte| value << 8 | usize::from(*byte));
            char::from(LETTERS[value % LETTERS.len()])
        };
        digest.chunks(4).map(letter).collect()
    }

    /// The subject's common name. Certificates of the Sealed Secrets controller have none unless `--my-cn` is given.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }
}

fn timestamp(time: Time) -> Result<Timestamp, CertificateError> {
    i64::try_from(time.to_unix_duration().as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .ok_or_else(|| CertificateError::Malformed(der::ErrorKind::DateTime.into()))
}

fn common_name(subject: &Name) -> Option<String> {
    let attributes = subject.0.iter().flat_map(|rdn| rdn.0.iter());
    let value = &attributes.into_iter().find(|attribute| attribute.oid == CN)?.value;
    value
        .decode_as::<Utf8StringRef<'_>>()
        .map(|text| text.as_str().to_owned())
        .or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned()))
        .or_else(|_| value.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().to_owned()))
        .or_else(|_| value.decode_as::<TeletexStringRef<'_>>().map(|text| text.as_str().to_owned()))
        .ok()
}
