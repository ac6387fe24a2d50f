//! Every change of a value leads to the same error.

use aes_gcm::{AeadInPlace, Aes256Gcm, KeyInit};
use proptest::prelude::*;
use sealing::{FormatError, UnsealError, seal, unseal};

use crate::vectors::{HERE, RSA_2048, RSA_4096, Vector, decode, encode};

fn reopen(vector: &Vector, bytes: &[u8]) -> Option<UnsealError> {
    unseal([&vector.pair().key], vector.binding(), &encode(bytes)).err()
}

#[test]
fn every_single_flipped_bit_is_refused() {
    let vector = Vector::all().into_iter().find(|vector| vector.plaintext().len() == 28).unwrap();
    let bytes = decode(&vector.value);
    for position in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[position / 8] ^= 1 << (position % 8);
        let refusal = reopen(&vector, &flipped);
        // The first two bytes are a length. Errors may describe them, but not the bytes after them.
        let is_length = position < 16;
        assert!(
            refusal == Some(UnsealError::Refused) || is_length && matches!(refusal, Some(UnsealError::Format(_))),
            "bit {position}: {refusal:?}"
        );
    }
}

#[test]
fn every_truncation_is_refused() {
    let vector = Vector::all().into_iter().find(|vector| vector.plaintext().len() == 28).unwrap();
    let bytes = decode(&vector.value);
    let smallest = bytes.len() - 28;
    for length in 0..bytes.len() {
        let expected = match length {
            0..2 => UnsealError::Format(FormatError::Unknown),
            _ if length < smallest => UnsealError::Format(FormatError::Truncated),
            _ => UnsealError::Refused,
        };
        assert_eq!(reopen(&vector, &bytes[..length]), Some(expected), "{length} bytes");
    }
}

#[test]
fn appended_bytes_are_refused() {
    for vector in Vector::all() {
        let mut bytes = decode(&vector.value);
        bytes.push(0);
        assert_eq!(reopen(&vector, &bytes), Some(UnsealError::Refused));
    }
}

#[test]
fn halves_of_two_values_do_not_fit_together() {
    let key = RSA_2048.certificate.public_key();
    let one = decode(&seal(key, HERE, b"one").unwrap());
    let two = decode(&seal(key, HERE, b"two").unwrap());
    let spliced = [&one[..2 + 256], &two[2 + 256..]].concat();
    assert_eq!(unseal([&RSA_2048.key], HERE, &encode(&spliced)).err(), Some(UnsealError::Refused));
}

/// If OAEP fails, a session key is used that an attacker cannot know.
#[test]
fn a_forged_second_half_is_refused() {
    for session_key in [[0; 32], [0xff; 32]] {
        let mut gcm = b"forged".to_vec();
        let cipher = Aes256Gcm::new(&session_key.into());
        let tag = cipher.encrypt_in_place_detached(&[0; 12].into(), &[], &mut gcm).unwrap();
        gcm.extend_from_slice(&tag);
        for rsa in [[0; 256], [1; 256], [0xff; 256]] {
            let value = encode(&[&[1, 0], rsa.as_slice(), &gcm].concat());
            assert_eq!(unseal([&RSA_2048.key], HERE, &value).err(), Some(UnsealError::Refused));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn a_random_flipped_bit_is_refused(which: prop::sample::Index, position: prop::sample::Index, bit in 0..8) {
        let vectors = Vector::all();
        let vector = which.get(&vectors);
        let mut bytes = decode(&vector.value);
        *position.get_mut(&mut bytes) ^= 1_u8 << bit;
        prop_assert!(reopen(vector, &bytes).is_some());
    }

    #[test]
    fn a_random_first_half_is_refused(rsa in prop::collection::vec(any::<u8>(), 512)) {
        let own = decode(&seal(RSA_4096.certificate.public_key(), HERE, b"plaintext").unwrap());
        let value = encode(&[&own[..2], rsa.as_slice(), &own[2 + 512..]].concat());
        prop_assert_eq!(unseal([&RSA_4096.key], HERE, &value).err(), Some(UnsealError::Refused));
    }
}
