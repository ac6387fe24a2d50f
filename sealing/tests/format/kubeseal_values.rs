//! Values that the real kubeseal sealed can be unsealed.

use sealing::{Format, PrivateKey, Scope, UnsealError, is_sealed, unseal};

use crate::vectors::{RSA_2048, RSA_4096, Vector};

#[test]
fn every_value_of_kubeseal_opens() {
    let vectors = Vector::all();
    assert_eq!(vectors.len(), 25);
    for vector in vectors {
        let unsealed = unseal([&vector.pair().key], vector.binding(), &vector.value).unwrap();
        assert!(unsealed.expose() == vector.plaintext(), "{} {}", vector.key, vector.scope);
    }
}

#[test]
fn every_value_of_kubeseal_is_told_apart() {
    for vector in Vector::all() {
        assert_eq!(is_sealed(&vector.value), Ok(Format::Rsa));
    }
}

#[test]
fn the_right_key_is_found_among_several() {
    for vector in Vector::all() {
        for keys in [[&RSA_2048.key, &RSA_4096.key], [&RSA_4096.key, &RSA_2048.key]] {
            assert!(unseal(keys, vector.binding(), &vector.value).is_ok());
        }
    }
}

#[test]
fn a_value_opens_in_its_own_scope_only() {
    for vector in Vector::all() {
        for scope in [Scope::Strict, Scope::NamespaceWide, Scope::ClusterWide] {
            let unsealed = unseal([&vector.pair().key], scope.binding("team-a", "database", "key"), &vector.value);
            assert_eq!(unsealed.is_ok(), scope == vector.scope, "{} as {scope}", vector.scope);
        }
    }
}

#[test]
fn a_value_does_not_move_to_another_name_or_namespace() {
    for vector in Vector::all() {
        let moved = |namespace, name| {
            unseal([&vector.pair().key], vector.scope.binding(namespace, name, "key"), &vector.value).is_ok()
        };
        assert_eq!(moved("team-a", "cache"), vector.scope != Scope::Strict);
        assert_eq!(moved("team-b", "database"), vector.scope == Scope::ClusterWide);
    }
}

#[test]
fn line_breaks_inside_a_value_do_not_matter() {
    for vector in Vector::all().into_iter().filter(|vector| vector.value.len() < 2000) {
        let lines: Vec<&str> = vector.value.as_bytes().chunks(76).map(|line| str::from_utf8(line).unwrap()).collect();
        for folded in [lines.join("\n"), lines.join("\r\n"), format!("{}\n", vector.value)] {
            assert!(unseal([&vector.pair().key], vector.binding(), &folded).is_ok());
        }
    }
}

#[test]
fn without_the_right_key_a_value_is_refused() {
    for vector in Vector::all() {
        let wrong = if vector.key == "rsa-2048" { &RSA_4096.key } else { &RSA_2048.key };
        assert_eq!(unseal([wrong], vector.binding(), &vector.value).err(), Some(UnsealError::Refused));
        assert_eq!(unseal::<PrivateKey>([], vector.binding(), &vector.value).err(), Some(UnsealError::NoKeys));
    }
}
