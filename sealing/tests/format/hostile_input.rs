//! No input causes a panic.

use proptest::{collection::vec, prelude::*, sample::Index};
use sealing::{Certificate, Format, FormatError, PrivateKey, UnsealError, is_sealed, seal, unseal};

use crate::vectors::{HERE, RSA_2048, encode, file};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_text_as_a_value(text in any::<String>()) {
        prop_assert!(is_sealed(&text).is_err());
        prop_assert!(unseal([&RSA_2048.key], HERE, &text).is_err());
    }

    #[test]
    fn any_bytes_as_a_value(length in prop_oneof![Just(256_u16), any::<u16>()], rest in vec(any::<u8>(), 0..700)) {
        let value = encode(&[length.to_be_bytes().as_slice(), &rest].concat());
        let refusal = unseal([&RSA_2048.key], HERE, &value).err();
        match is_sealed(&value) {
            Ok(format) => {
                prop_assert_eq!(format, Format::Rsa);
                prop_assert_eq!(refusal, Some(UnsealError::Refused));
            }
            Err(error) => prop_assert_eq!(refusal, Some(UnsealError::Format(error))),
        }
    }

    #[test]
    fn any_bytes_as_pem(bytes in vec(any::<u8>(), 0..700)) {
        prop_assert!(Certificate::from_pem(&bytes).is_err());
        prop_assert!(PrivateKey::from_pem(&bytes).is_err());
    }

    #[test]
    fn any_bytes_as_der(bytes in vec(any::<u8>(), 0..700)) {
        prop_assert!(Certificate::from_der(&bytes).is_err());
        for label in ["CERTIFICATE", "RSA PRIVATE KEY", "PRIVATE KEY"] {
            let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", encode(&bytes));
            prop_assert!(Certificate::from_pem(pem.as_bytes()).is_err());
            prop_assert!(PrivateKey::from_pem(pem.as_bytes()).is_err());
        }
    }

    /// A changed certificate may still be valid. Then sealing with its key works or returns an error, but does not
    /// panic.
    #[test]
    fn a_changed_certificate(position: Index, byte: u8) {
        let mut der = RSA_2048.certificate.as_der().to_vec();
        *position.get_mut(&mut der) = byte;
        if let Ok(certificate) = Certificate::from_der(&der) {
            prop_assert_eq!(certificate.as_der(), der);
            let _ = seal(certificate.public_key(), HERE, b"plaintext");
            let _ = (certificate.common_name(), certificate.fingerprint(), certificate.to_pem());
        }
    }

    /// A changed key file is refused. Only if the change is in a line break or in an unused bit of the Base64 text, the
    /// file contains the same key as before.
    #[test]
    fn a_changed_private_key(pkcs8: bool, position: Index, byte: u8) {
        let mut pem = file(if pkcs8 { "rsa-2048.pkcs8.key" } else { "rsa-2048.key" });
        *position.get_mut(&mut pem) = byte;
        if let Ok(key) = PrivateKey::from_pem(&pem) {
            let value = seal(key.public_key(), HERE, b"plaintext").unwrap();
            prop_assert!(unseal([&key], HERE, &value).unwrap().expose() == b"plaintext");
            prop_assert!(key.public_key() == RSA_2048.key.public_key());
        }
    }
}

#[test]
fn the_length_of_a_text_is_bounded_before_it_is_decoded() {
    let text = "A".repeat((3 << 20) + 1);
    assert_eq!(is_sealed(&text), Err(FormatError::TooLarge));
}

#[test]
fn an_age_value_is_told_apart_and_gets_a_clear_answer() {
    let value = encode(b"age-encryption.org/v1\n-> X25519 ...");
    assert!(value.starts_with("YWdlLWVuY3J5cHRpb24ub3JnL3Yx"));
    assert_eq!(is_sealed(&value), Ok(Format::Age));
    assert_eq!(unseal([&RSA_2048.key], HERE, &value).err(), Some(UnsealError::AgeNotSupported));
}

#[test]
fn a_plaintext_is_no_sealed_value() {
    assert_eq!(is_sealed("hunter2!"), Err(FormatError::NotBase64));
    assert_eq!(is_sealed(""), Err(FormatError::Unknown));
    assert_eq!(is_sealed("cGFzc3dvcmQ="), Err(FormatError::Unknown));
}
