//! The base64 of sealed values and PEM bodies. It is read as leniently as by `StdEncoding` of Go's `encoding/base64`, which
//! kubeseal and the Sealed Secrets controller use: carriage returns and line feeds are ignored everywhere, the padding is
//! required, and unused bits before the padding need not be zero.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

const GO_STANDARD: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// The text is not base64.
pub(crate) struct NotBase64;

/// Decodes `text`. The result is wiped on drop because PEM bodies can be private keys.
pub(crate) fn decode(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotBase64> {
    let is_newline = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let decoded = if text.iter().any(is_newline) {
        let mut joined = Zeroizing::new(Vec::with_capacity(text.len()));
        joined.extend(text.iter().filter(|byte| !is_newline(byte)));
        GO_STANDARD.decode(&*joined)
    } else {
        GO_STANDARD.decode(text)
    };
    decoded.map(Zeroizing::new).map_err(|_| NotBase64)
}

/// Encodes `bytes` on one line.
pub(crate) fn encode(bytes: &[u8]) -> String {
    GO_STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::public_key::hex;

    #[derive(Deserialize)]
    struct Case {
        text: String,
        decoded: Option<String>,
    }

    #[test]
    fn texts_are_read_as_go_reads_them() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../tests/vectors/base64.json")).unwrap();
        assert!(cases.len() > 30);
        for case in cases {
            let decoded = decode(case.text.as_bytes()).ok().map(|bytes| hex(&bytes));
            assert_eq!(decoded, case.decoded, "{:?}", case.text);
        }
    }

    #[test]
    fn one_line_is_written() {
        assert_eq!(encode(&[0xfb; 100]).lines().count(), 1);
        assert_eq!(encode(b"A"), "QQ==");
    }
}
