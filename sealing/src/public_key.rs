//! RSA public keys: what values are sealed with.

use rsa::{
    BigUint, RsaPublicKey,
    pkcs1::{self, UintRef},
    pkcs8::EncodePublicKey,
    traits::PublicKeyParts,
};
use sha2::{Digest, Sha256};
use x509_cert::spki::SubjectPublicKeyInfoRef;

/// The smallest RSA modulus that is accepted, in bits.
pub(crate) const MIN_KEY_BITS: usize = 2048;
/// The largest RSA modulus that is accepted, in bits.
pub(crate) const MAX_KEY_BITS: usize = 8192;

/// An RSA public key of 2048 to 8192 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    key: RsaPublicKey,
    /// DER of the SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
    spki_der: Vec<u8>,
}

/// Why a public key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// A key of another algorithm, such as ECDSA.
    #[error("not an RSA key: sealing needs an RSA key of {MIN_KEY_BITS} to {MAX_KEY_BITS} bits")]
    NotRsa,
    /// The modulus is too short to be secure, or too long to be handled.
    #[error("an RSA key of {0} bits: only keys of {MIN_KEY_BITS} to {MAX_KEY_BITS} bits are accepted")]
    Size(usize),
    /// The numbers do not make an RSA key.
    #[error("not a valid RSA public key")]
    Malformed,
}

impl PublicKey {
    /// The modulus's length in bits.
    pub fn bits(&self) -> usize {
        self.key.n().bits()
    }

    /// SHA-256 of the SubjectPublicKeyInfo's DER, as 64 lower-case hexadecimal digits. It identifies the key, no matter in
    /// which certificate the key is.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.spki_der))
    }

    /// The SubjectPublicKeyInfo's DER.
    pub fn as_der(&self) -> &[u8] {
        &self.spki_der
    }

    pub(crate) fn from_spki(spki: SubjectPublicKeyInfoRef<'_>) -> Result<Self, PublicKeyError> {
        if spki.algorithm.oid != pkcs1::ALGORITHM_OID {
            return Err(PublicKeyError::NotRsa);
        }
        let der = spki.subject_public_key.as_bytes().ok_or(PublicKeyError::Malformed)?;
        let key = pkcs1::RsaPublicKey::try_from(der).map_err(|_| PublicKeyError::Malformed)?;
        Self::from_components(key.modulus, key.public_exponent)
    }

    pub(crate) fn from_components(modulus: UintRef<'_>, exponent: UintRef<'_>) -> Result<Self, PublicKeyError> {
        let modulus = BigUint::from_bytes_be(modulus.as_bytes());
        let exponent = BigUint::from_bytes_be(exponent.as_bytes());
        if !(MIN_KEY_BITS..=MAX_KEY_BITS).contains(&modulus.bits()) {
            return Err(PublicKeyError::Size(modulus.bits()));
        }
        let two = BigUint::from(2u8);
        // With the exponent 1, nothing would be encrypted, and no RSA key has the exponent 2. An even modulus is not a
        // product of two large primes.
        if exponent <= two || &modulus % &two == BigUint::from(0u8) {
            return Err(PublicKeyError::Malformed);
        }
        let key =
            RsaPublicKey::new_with_max_size(modulus, exponent, MAX_KEY_BITS).map_err(|_| PublicKeyError::Malformed)?;
        let spki_der = key.to_public_key_der().map_err(|_| PublicKeyError::Malformed)?.into_vec();
        Ok(Self { key, spki_der })
    }

    pub(crate) fn rsa(&self) -> &RsaPublicKey {
        &self.key
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, PublicKeyError> {
        PublicKey::from_components(UintRef::new(modulus).unwrap(), UintRef::new(exponent).unwrap())
    }

    #[test]
    fn the_size_is_that_of_the_modulus() {
        for (bytes, accepted) in [(255, false), (256, true), (1024, true), (1025, false)] {
            let key = key(&vec![0xff; bytes], &[1, 0, 1]);
            assert_eq!(
                key.map(|key| key.bits()),
                if accepted { Ok(8 * bytes) } else { Err(PublicKeyError::Size(8 * bytes)) }
            );
        }
        assert_eq!(key(&[], &[3]), Err(PublicKeyError::Size(0)));
    }

    #[test]
    fn numbers_that_make_no_rsa_key_are_refused() {
        let odd = [0xff; 256];
        let even = [0xfe; 256];
        assert!(key(&odd, &[3]).is_ok());
        for exponent in [&[][..], &[1], &[2], &[4], &[0xff; 8]] {
            assert_eq!(key(&odd, exponent), Err(PublicKeyError::Malformed), "{exponent:?}");
        }
        assert_eq!(key(&even, &[3]), Err(PublicKeyError::Malformed));
    }

    #[test]
    fn fingerprints_differ_by_key() {
        let mut modulus = [0xff; 256];
        let one = key(&modulus, &[3]).unwrap().fingerprint();
        modulus[100] = 0;
        let other = key(&modulus, &[3]).unwrap().fingerprint();
        assert_eq!(one.len(), 64);
        assert_ne!(one, other);
    }
}
