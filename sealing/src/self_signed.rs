//! Self-signed certificates as the Sealed Secrets controller makes them: subject and issuer are the common name alone (or
//! nothing), key usage `encipherOnly`, a CA by its basic constraints, signed with SHA-256 and PKCS#1 v1.5.
//!
//! The certificates are put together from x509-cert's types rather than with its builder: the builder's profiles set
//! other key usages, and its signer traits expect an in-process key of the `signature` crates.

use std::time::Duration;

use der::{
    Encode,
    asn1::{BitString, GeneralizedTime, Null, OctetString, SetOfVec, UtcTime, Utf8StringRef},
    oid::{
        AssociatedOid, ObjectIdentifier,
        db::{rfc4519::CN, rfc5912::SHA_256_WITH_RSA_ENCRYPTION},
    },
};
use jiff::{SignedDuration, Timestamp};
use rand_core::{OsRng, RngCore};
use sha2::{Digest, Sha256};
use x509_cert::{
    TbsCertificate, Version,
    attr::AttributeTypeAndValue,
    ext::{
        Extension,
        pkix::{BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier},
    },
    name::{Name, RelativeDistinguishedName},
    serial_number::SerialNumber,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::{Time, Validity},
};

use crate::{
    certificate::{Certificate, CertificateError},
    private_key::{PrivateKey, PrivateKeyError},
};

/// How long a certificate of Sealed Secrets is valid unless told otherwise: ten years of 365 days.
pub const DEFAULT_VALIDITY: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// Why no certificate was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelfSignedError {
    /// A date is before 1970 or after 9999, or the end is not after the start.
    #[error(
        "a certificate cannot start at {not_before} and last for {valid_for:#}: it must end after it starts, and both \
         dates must be between 1970 and 9999"
    )]
    Validity {
        /// The start that the caller wants.
        not_before: Timestamp,
        /// The time of validity that the caller wants.
        valid_for: SignedDuration,
    },
    /// The common name or another part cannot be encoded.
    #[error("the certificate cannot be encoded: {0}")]
    Encoding(#[from] der::Error),
    /// The operating system gave no random bytes.
    #[error("the operating system's random number generator failed")]
    Random,
    /// Signing failed.
    #[error("the certificate cannot be signed: {0}")]
    Signature(#[from] PrivateKeyError),
    /// The finished certificate cannot be parsed.
    #[error("the new certificate is not readable: {0}")]
    Unreadable(#[from] CertificateError),
}

/// Makes a certificate for the public half of `key`, signed with `key` itself. The dates are cut to whole seconds; an
/// empty `common_name` gives an empty subject, as in Sealed Secrets without `--my-cn`.
pub fn self_signed(
    key: &PrivateKey,
    common_name: &str,
    not_before: Timestamp,
    valid_for: SignedDuration,
) -> Result<Certificate, SelfSignedError> {
    let invalid = SelfSignedError::Validity { not_before, valid_for };
    let validity = validity(not_before, valid_for).ok_or(invalid)?;
    let subject = subject(common_name)?;
    let contents = TbsCertificate {
        version: Version::V3,
        serial_number: serial_number()?,
        signature: signature_algorithm(),
        issuer: subject.clone(),
        validity,
        subject,
        subject_public_key_info: der::Decode::from_der(key.public_key().as_der())?,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: None,
    };
    let contents = TbsCertificate { extensions: Some(extensions(&contents.subject_public_key_info)?), ..contents };
    let signature = key.sign(&contents.to_der()?)?;
    let certificate = x509_cert::Certificate {
        tbs_certificate: contents,
        signature_algorithm: signature_algorithm(),
        signature: BitString::from_bytes(&signature)?,
    };
    Ok(Certificate::from_der(&certificate.to_der()?)?)
}

fn validity(not_before: Timestamp, valid_for: SignedDuration) -> Option<Validity> {
    let not_after = not_before.checked_add(valid_for).ok()?;
    (not_before < not_after).then_some(())?;
    Some(Validity { not_before: time(not_before)?, not_after: time(not_after)? })
}

/// RFC 5280, section 4.1.2.5: two-digit years up to 2049, four-digit years from 2050 on.
fn time(timestamp: Timestamp) -> Option<Time> {
    let since_1970 = Duration::from_secs(u64::try_from(timestamp.as_second()).ok()?);
    UtcTime::from_unix_duration(since_1970)
        .map(Time::UtcTime)
        .or_else(|_| GeneralizedTime::from_unix_duration(since_1970).map(Time::GeneralTime))
        .ok()
}

fn subject(common_name: &str) -> Result<Name, der::Error> {
    if common_name.is_empty() {
        return Ok(Name::default());
    }
    let attribute = AttributeTypeAndValue { oid: CN, value: Utf8StringRef::new(common_name)?.into() };
    Ok(Name::from(vec![RelativeDistinguishedName(SetOfVec::try_from(vec![attribute])?)]))
}

/// 127 random bits: RFC 5280 requires a positive number of at most 20 bytes.
fn serial_number() -> Result<SerialNumber, SelfSignedError> {
    let mut bytes = [0; 16];
    OsRng.try_fill_bytes(&mut bytes).map_err(|_| SelfSignedError::Random)?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::new(&bytes)?)
}

fn signature_algorithm() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: SHA_256_WITH_RSA_ENCRYPTION, parameters: Some(Null.into()) }
}

fn extensions(key: &SubjectPublicKeyInfoOwned) -> Result<Vec<Extension>, der::Error> {
    // RFC 7093, section 2, method 1: the leftmost 160 bits of the SHA-256 of the key's bits.
    let key_identifier = &Sha256::digest(key.subject_public_key.raw_bytes())[..20];
    Ok(vec![
        extension(true, &KeyUsage(KeyUsages::EncipherOnly.into()))?,
        extension(true, &BasicConstraints { ca: true, path_len_constraint: None })?,
        extension(false, &SubjectKeyIdentifier(OctetString::new(key_identifier)?))?,
    ])
}

fn extension<E: AssociatedOid + Encode>(critical: bool, value: &E) -> Result<Extension, der::Error> {
    let extn_id: ObjectIdentifier = E::OID;
    Ok(Extension { extn_id, critical, extn_value: OctetString::new(value.to_der()?)? })
}
