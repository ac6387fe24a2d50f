//! Access to `tests/vectors`.

use std::{path::PathBuf, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use sealing::{Binding, Certificate, PrivateKey, Scope};
use serde::Deserialize;

/// The key pairs that values were sealed with: a small one, which is fast, and one of the default size.
pub(crate) static RSA_2048: LazyLock<Pair> = LazyLock::new(|| Pair::read("rsa-2048"));
pub(crate) static RSA_4096: LazyLock<Pair> = LazyLock::new(|| Pair::read("rsa-4096"));

pub(crate) struct Pair {
    pub(crate) key: PrivateKey,
    pub(crate) certificate: Certificate,
}

impl Pair {
    fn read(name: &str) -> Self {
        let key = PrivateKey::from_pem(&file(&format!("{name}.key"))).unwrap();
        let certificate = Certificate::from_pem(&file(&format!("{name}.crt"))).unwrap();
        Self { key, certificate }
    }
}

/// A binding for tests in which the binding does not matter.
pub(crate) const HERE: Binding<'static> = Scope::Strict.binding("ns", "name", "key");

/// A value sealed by kubeseal.
#[derive(Deserialize)]
pub(crate) struct Vector {
    pub(crate) key: String,
    pub(crate) scope: Scope,
    namespace: String,
    name: String,
    plaintext: String,
    pub(crate) value: String,
}

impl Vector {
    pub(crate) fn all() -> Vec<Self> {
        serde_json::from_slice(&file("values.json")).unwrap()
    }

    pub(crate) fn pair(&self) -> &'static Pair {
        match self.key.as_str() {
            "rsa-2048" => &RSA_2048,
            "rsa-4096" => &RSA_4096,
            other => panic!("unknown key {other}"),
        }
    }

    pub(crate) fn binding(&self) -> Binding<'_> {
        self.scope.binding(&self.namespace, &self.name, "key")
    }

    pub(crate) fn plaintext(&self) -> Vec<u8> {
        STANDARD.decode(&self.plaintext).unwrap()
    }
}

pub(crate) fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn decode(value: &str) -> Vec<u8> {
    STANDARD.decode(value).unwrap()
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
