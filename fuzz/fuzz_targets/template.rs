//! Runs an untrusted template over secret values, with small limits.
#![no_main]

use gotemplate::{Limits, Renderer, Salts};
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "s3cr3t-v4lue";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let limits = Limits { steps: 20_000, output: 1 << 14, text: 1 << 15, memory: 1 << 19 };
    let values: [(&str, &[u8]); 4] = [
        ("user", b"admin"),
        ("password", SECRET.as_bytes()),
        ("binary", b"\xff\x00\xe2\x82"),
        ("json", br#"{"a": {"b": [1, 2.5, null, "x"]}, "n": 12345678901}"#),
    ];
    let output = limits.output;
    let render = || Renderer::new(values, Salts::new("ns", "name", []), limits.clone()).render("key", text);
    let rendered = render();
    match &rendered {
        Ok(bytes) => assert!(bytes.len() <= output, "the result is larger than allowed"),
        Err(error) => {
            let message = error.to_string();
            assert!(text.contains(SECRET) || !message.contains(SECRET), "an error holds a value");
            assert!(message.len() < 1000, "an error is long");
        }
    }
    match (rendered, render()) {
        (Ok(one), Ok(other)) => assert!(*one == *other, "it is not repeatable"),
        (one, other) => assert_eq!(one.is_err(), other.is_err()),
    }
});
