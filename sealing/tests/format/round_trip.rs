//! Sealing and unsealing undo each other.

use proptest::{collection::vec, prelude::*};
use sealing::{FormatError, MAX_PLAINTEXT_BYTES, PrivateKey, Scope, SealError, UnsealError, seal, unseal};

use crate::vectors::{RSA_2048, RSA_4096, decode, encode};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_under_any_label(plaintext in vec(any::<u8>(), 0..3000), label in any::<String>()) {
        let value = seal(RSA_2048.certificate.public_key(), &label, &plaintext).unwrap();
        let opened = unseal([&RSA_2048.key], &label, &value).unwrap();
        prop_assert!(opened.expose() == plaintext);
    }

    #[test]
    fn another_label_is_refused(label in any::<String>(), other in any::<String>()) {
        prop_assume!(label != other);
        let value = seal(RSA_2048.certificate.public_key(), &label, b"plaintext").unwrap();
        prop_assert_eq!(unseal([&RSA_2048.key], &other, &value).err(), Some(UnsealError::Refused));
    }
}

#[test]
fn the_layout_is_that_of_sealed_secrets() {
    for (pair, start) in [(&RSA_2048, "AQ"), (&RSA_4096, "Ag")] {
        let key = pair.certificate.public_key();
        let value = seal(key, &Scope::Strict.label("ns", "name"), b"12345").unwrap();
        assert!(value.starts_with(start), "{value}");
        let bytes = decode(&value);
        assert_eq!(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])), key.bits() / 8);
        assert_eq!(bytes.len(), 2 + key.bits() / 8 + 5 + 16);
    }
}

#[test]
fn no_two_values_are_alike() {
    let value = || seal(RSA_2048.certificate.public_key(), "", b"same").unwrap();
    assert_ne!(value(), value());
}

#[test]
fn keys_of_every_generated_size() {
    // 8192 bits take many seconds to generate: `keys.rs` reads one.
    for bits in [2048, 3072, 4096] {
        let key = PrivateKey::generate(bits).unwrap();
        assert_eq!(key.public_key().bits(), bits);
        let value = seal(key.public_key(), "ns/name", b"plaintext").unwrap();
        assert!(unseal([&RSA_2048.key, &key], "ns/name", &value).unwrap().expose() == b"plaintext");
    }
}

#[test]
fn the_right_key_is_found_behind_others_of_the_same_size() {
    let other = PrivateKey::generate(2048).unwrap();
    let value = seal(RSA_2048.certificate.public_key(), "ns/name", b"plaintext").unwrap();
    assert!(unseal([&other, &RSA_2048.key], "ns/name", &value).unwrap().expose() == b"plaintext");
    assert_eq!(unseal([&other], "ns/name", &value).err(), Some(UnsealError::Refused));
}

#[test]
fn the_size_of_a_plaintext_is_bounded() {
    let key = RSA_2048.certificate.public_key();
    let largest = vec![7; MAX_PLAINTEXT_BYTES];
    let value = seal(key, "", &largest).unwrap();
    assert!(unseal([&RSA_2048.key], "", &value).unwrap().expose() == largest);

    let too_large = vec![7; MAX_PLAINTEXT_BYTES + 1];
    assert_eq!(seal(key, "", &too_large), Err(SealError::TooLarge(MAX_PLAINTEXT_BYTES + 1)));

    let mut longer = decode(&value);
    longer.push(0);
    let refused = unseal([&RSA_2048.key], "", &encode(&longer)).err();
    assert_eq!(refused, Some(UnsealError::Format(FormatError::TooLarge)));
}
