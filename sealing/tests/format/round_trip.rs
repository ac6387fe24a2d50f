//! Sealing and unsealing undo each other.

use proptest::{collection::vec, prelude::*};
use sealing::{
    Binding, FormatError, Identity, MAX_PLAINTEXT_BYTES, Plaintext, PrivateKey, Recipient as _, Scope, SealError,
    SealedValue, SecretBytes, UnsealError, seal, unseal,
};

use crate::vectors::{HERE, RSA_2048, RSA_4096, decode, encode};

/// What a value is sealed for: scope, namespace, name and key.
type Place = (Scope, [String; 3]);

/// Places with names from a small set, so that two places are often the same.
fn place() -> impl Strategy<Value = Place> {
    (scope(), ["[ab]{1,2}", "[ab]{1,2}", "[ab]{1,2}"])
}

/// Places with any names: empty, with slashes, or not allowed in Kubernetes.
fn odd_place() -> impl Strategy<Value = Place> {
    let name = || prop_oneof!["", "[ab/]{0,3}", any::<String>()];
    (scope(), [name(), name(), name()])
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![Just(Scope::Strict), Just(Scope::NamespaceWide), Just(Scope::ClusterWide)]
}

fn binding((scope, [namespace, name, key]): &Place) -> Binding<'_> {
    scope.binding(namespace, name, key)
}

/// The OAEP label, as the format of Sealed Secrets defines it. It does not contain the value's key in `encryptedData`.
fn label((scope, [namespace, name, _]): &Place) -> String {
    match scope {
        Scope::Strict => format!("{namespace}/{name}"),
        Scope::NamespaceWide => namespace.clone(),
        Scope::ClusterWide => String::new(),
    }
}

fn opens_where_the_label_is_the_same(here: &Place, there: &Place) -> Result<(), TestCaseError> {
    let value = seal(&RSA_2048.certificate, binding(here), b"plaintext").unwrap();
    match unseal([&RSA_2048.key], binding(there), &value) {
        Ok(plaintext) => {
            prop_assert!(plaintext.expose() == b"plaintext");
            prop_assert_eq!(label(here), label(there));
        }
        Err(error) => {
            prop_assert_eq!(error, UnsealError::Refused);
            prop_assert_ne!(label(here), label(there));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_place(plaintext in vec(any::<u8>(), 0..3000), place in prop_oneof![place(), odd_place()]) {
        let value = seal(&RSA_2048.certificate, binding(&place), &plaintext).unwrap();
        let unsealed = unseal([&RSA_2048.key], binding(&place), &value).unwrap();
        prop_assert!(unsealed.expose() == plaintext);
    }

    #[test]
    fn a_value_opens_in_the_places_of_its_scope_only(here in place(), there in place()) {
        opens_where_the_label_is_the_same(&here, &there)?;
    }

    #[test]
    fn odd_names_open_nothing_else(here in odd_place(), there in odd_place()) {
        opens_where_the_label_is_the_same(&here, &there)?;
    }
}

#[test]
fn a_cluster_wide_value_opens_in_no_narrower_scope_nor_the_other_way_round() {
    let names = ["ns".to_owned(), "name".to_owned(), "key".to_owned()];
    let places = [Scope::Strict, Scope::NamespaceWide, Scope::ClusterWide].map(|scope| (scope, names.clone()));
    for here in &places {
        for there in &places {
            let value = seal(&RSA_2048.certificate, binding(here), b"plaintext").unwrap();
            let expected = (here.0 != there.0).then_some(UnsealError::Refused);
            assert_eq!(unseal([&RSA_2048.key], binding(there), &value).err(), expected, "{} {}", here.0, there.0);
        }
    }
}

/// An identity that gives the same answer for every value.
struct Told(Option<UnsealError>);

impl Identity for Told {
    fn unseal(&self, _: Binding<'_>, _: &SealedValue) -> Option<Result<SecretBytes, UnsealError>> {
        self.0.map(Err)
    }
}

#[test]
fn what_is_not_for_one_identity_is_tried_with_the_next_and_what_is_broken_is_not() {
    let value = seal(&RSA_2048.certificate, HERE, b"plaintext").unwrap();
    let (not_for_it, broken) = (Told(None), Told(Some(UnsealError::Random)));
    let key: &dyn Identity = &RSA_2048.key;
    assert!(unseal([&not_for_it, key], HERE, &value).unwrap().expose() == b"plaintext");
    assert_eq!(unseal([&broken, key], HERE, &value).err(), Some(UnsealError::Random));
    assert!(unseal([key, &broken], HERE, &value).unwrap().expose() == b"plaintext");
    assert_eq!(unseal([&not_for_it], HERE, &value).err(), Some(UnsealError::Refused));
}

#[test]
fn the_layout_is_that_of_sealed_secrets() {
    for (pair, start) in [(&RSA_2048, "AQ"), (&RSA_4096, "Ag")] {
        let key = pair.certificate.public_key();
        let value = seal(key, HERE, b"12345").unwrap();
        assert!(value.starts_with(start), "{value}");
        let bytes = decode(&value);
        assert_eq!(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])), key.bits() / 8);
        assert_eq!(bytes.len(), 2 + key.bits() / 8 + 5 + 16);
    }
}

#[test]
fn no_two_values_are_alike() {
    let value = || seal(RSA_2048.certificate.public_key(), HERE, b"same").unwrap();
    assert_ne!(value(), value());
}

#[test]
fn keys_of_every_generated_size() {
    // It takes many seconds to generate a key of 8192 bits. `keys.rs` reads an existing one instead.
    for bits in [2048, 3072, 4096] {
        let key = PrivateKey::generate(bits).unwrap();
        assert_eq!(key.public_key().bits(), bits);
        let value = seal(key.public_key(), HERE, b"plaintext").unwrap();
        assert!(unseal([&RSA_2048.key, &key], HERE, &value).unwrap().expose() == b"plaintext");
    }
}

#[test]
fn the_right_key_is_found_behind_others_of_the_same_size() {
    let other = PrivateKey::generate(2048).unwrap();
    let value = seal(RSA_2048.certificate.public_key(), HERE, b"plaintext").unwrap();
    assert!(unseal([&other, &RSA_2048.key], HERE, &value).unwrap().expose() == b"plaintext");
    assert_eq!(unseal([&other], HERE, &value).err(), Some(UnsealError::Refused));
}

#[test]
fn the_size_of_a_plaintext_is_bounded() {
    let key = RSA_2048.certificate.public_key();
    let largest = vec![7; MAX_PLAINTEXT_BYTES];
    let value = seal(key, HERE, &largest).unwrap();
    assert!(unseal([&RSA_2048.key], HERE, &value).unwrap().expose() == largest);

    let too_large = vec![7; MAX_PLAINTEXT_BYTES + 1];
    assert_eq!(seal(key, HERE, &too_large), Err(SealError::TooLarge(MAX_PLAINTEXT_BYTES + 1)));
    // A recipient can seal only a `Plaintext`, so the limit cannot be avoided.
    assert_eq!(Plaintext::new(&too_large).err(), Some(SealError::TooLarge(MAX_PLAINTEXT_BYTES + 1)));
    let value = key.seal(HERE, Plaintext::new(&largest).unwrap()).unwrap();
    assert!(unseal([&RSA_2048.key], HERE, &value).unwrap().expose() == largest);

    let mut longer = decode(&value);
    longer.push(0);
    let refused = unseal([&RSA_2048.key], HERE, &encode(&longer)).err();
    assert_eq!(refused, Some(UnsealError::Format(FormatError::TooLarge)));
}

#[test]
fn a_seed_takes_the_place_of_randomness() {
    let place = (Scope::Strict, ["shop", "db", "password"].map(str::to_owned));
    let seeded = |seed: u8, plaintext: &[u8]| {
        let seed = zeroize::Zeroizing::new([seed; sealing::SEED_BYTES]);
        RSA_2048.key.public_key().seal_with_seed(&seed, binding(&place), plaintext)
    };
    let value = seeded(1, b"plaintext").unwrap();
    assert_eq!(seeded(1, b"plaintext").as_ref(), Ok(&value));
    let other = seeded(2, b"plaintext").unwrap();
    for text in [&value, &other] {
        assert!(unseal([&RSA_2048.key], binding(&place), text).unwrap().expose() == b"plaintext");
    }
    let (value, other) = (decode(&value), decode(&other));
    let is_alike = value.iter().zip(&other).skip(2).filter(|(a, b)| a == b).count();
    assert!(is_alike < 16, "{is_alike} bytes are the same with another seed");
    assert_eq!(seeded(1, &vec![0; MAX_PLAINTEXT_BYTES + 1]), Err(SealError::TooLarge(MAX_PLAINTEXT_BYTES + 1)));
}
