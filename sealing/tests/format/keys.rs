//! Private keys: keys that other programs made can be read, and no key is ever printed.

use std::fmt::Debug;

use sealing::{PemError, PrivateKey, PrivateKeyError, PublicKeyError, SecretBytes, seal, unseal};

use crate::vectors::{HERE, RSA_2048, RSA_4096, encode, file};

#[test]
fn both_encodings_give_the_same_key() {
    for (pair, name) in [(&RSA_2048, "rsa-2048"), (&RSA_4096, "rsa-4096")] {
        let pkcs8 = PrivateKey::from_pem(&file(&format!("{name}.pkcs8.key"))).unwrap();
        assert_eq!(pkcs8.public_key(), pair.key.public_key());
        let value = seal(pair.key.public_key(), HERE, b"plaintext").unwrap();
        assert!(unseal([&pkcs8], HERE, &value).unwrap().expose() == b"plaintext");
    }
}

#[test]
fn keys_are_written_as_sealed_secrets_writes_them() {
    for name in ["rsa-2048", "rsa-4096"] {
        for source in [format!("{name}.key"), format!("{name}.pkcs8.key")] {
            let written = PrivateKey::from_pem(&file(&source)).unwrap().to_pem().unwrap();
            assert!(written.as_bytes() == file(&format!("{name}.key")), "{source}");
        }
    }
}

#[test]
fn a_generated_key_is_read_back() {
    let key = PrivateKey::generate(2048).unwrap();
    let read = PrivateKey::from_pem(key.to_pem().unwrap().as_bytes()).unwrap();
    assert_eq!(read.public_key(), key.public_key());
    assert_ne!(PrivateKey::generate(2048).unwrap().public_key(), key.public_key());
}

#[test]
fn a_key_is_found_behind_a_certificate() {
    let both = [file("rsa-2048.crt"), file("rsa-2048.key")].concat();
    assert_eq!(PrivateKey::from_pem(&both).unwrap().public_key(), RSA_2048.key.public_key());
}

#[test]
fn the_largest_key_works() {
    let key = PrivateKey::from_pem(&file("rsa-8192.key")).unwrap();
    assert_eq!(key.public_key().bits(), 8192);
    let value = seal(key.public_key(), HERE, b"plaintext").unwrap();
    assert!(unseal([&key], HERE, &value).unwrap().expose() == b"plaintext");
}

#[test]
fn unusable_keys_are_refused_with_the_reason() {
    let refused = |name: &str| PrivateKey::from_pem(&file(&format!("refused/{name}"))).err().unwrap();
    assert_eq!(refused("rsa-1024.key"), PrivateKeyError::Key(PublicKeyError::Size(1024)));
    assert_eq!(refused("p256.key"), PrivateKeyError::Key(PublicKeyError::NotRsa));
    assert_eq!(refused("p256.pkcs8.key"), PrivateKeyError::Key(PublicKeyError::NotRsa));
    assert_eq!(refused("rsa-2048.encrypted.pkcs8.key"), PrivateKeyError::Encrypted);
    assert_eq!(refused("rsa-2048.encrypted.key"), PrivateKeyError::Pem(PemError::Headers));
    assert_eq!(refused("rsa-2048.three-primes.key"), PrivateKeyError::Malformed);
    assert_eq!(refused("p256.crt"), PrivateKeyError::Missing);
}

#[test]
fn a_truncated_key_is_refused() {
    let pem = file("rsa-2048.key");
    let refused = PrivateKey::from_pem(&pem[..pem.len() / 2]).err();
    assert_eq!(refused, Some(PrivateKeyError::Pem(PemError::Unterminated)));
}

#[test]
fn numbers_that_do_not_belong_together_are_refused() {
    let pem = String::from_utf8(file("rsa-2048.key")).unwrap();
    let body = pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let mut der = crate::vectors::decode(&body);
    // The last bytes are those of the last number, the CRT coefficient.
    *der.last_mut().unwrap() ^= 0x10;
    let changed = format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n", encode(&der));
    assert_eq!(PrivateKey::from_pem(changed.as_bytes()).err(), Some(PrivateKeyError::Malformed));
}

#[test]
fn only_some_sizes_are_generated() {
    for bits in [0, 1024, 2047, 2049, 16384] {
        assert_eq!(PrivateKey::generate(bits).err(), Some(PrivateKeyError::GeneratedSize(bits)));
    }
}

#[test]
fn keys_and_plaintexts_go_between_threads() {
    fn is_shareable<T: Send + Sync>() {}
    is_shareable::<PrivateKey>();
    is_shareable::<SecretBytes>();
}

/// Compiles only if the type does not implement the trait: if it did, two implementations would match.
macro_rules! assert_not_implemented {
    ($type:ty: $($bound:path),+) => {$({
        struct WithTheTrait;
        trait Unless<Case> {
            fn check() {}
        }
        impl<T: ?Sized> Unless<()> for T {}
        impl<T: ?Sized + $bound> Unless<WithTheTrait> for T {}
        <$type as Unless<_>>::check();
    })+};
}

#[test]
fn secrets_cannot_be_printed_copied_or_serialised() {
    assert_not_implemented!(SecretBytes: Debug, std::fmt::Display, Clone, serde::Serialize, AsRef<[u8]>);
    assert_not_implemented!(PrivateKey: Debug, std::fmt::Display, Clone, serde::Serialize, AsRef<[u8]>);
}
