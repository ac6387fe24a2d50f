//! Unseals a sealed value, given as text or as the bytes that its base64 encodes. The key is the one that the seeds were
//! sealed for.
#![no_main]

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use libfuzzer_sys::fuzz_target;
use sealing::{Binding, PrivateKey, Scope};

const BINDING: Binding<'static> = Scope::Strict.binding("team-a", "database", "any");

static KEY: LazyLock<PrivateKey> = LazyLock::new(|| {
    let pem = include_bytes!("../../sealing/tests/vectors/rsa-2048.key");
    PrivateKey::from_pem(pem).expect("the key of the test vectors is read")
});

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        look(text);
    }
    look(&STANDARD.encode(data));
});

fn look(value: &str) {
    let is_sealed = sealing::is_sealed(value);
    let unsealed = sealing::unseal([&*KEY], BINDING, value);
    assert!(is_sealed.is_ok() || unsealed.is_err(), "what is not sealed was unsealed");
}
