//! sprig: base64 and base32. As in sprig, what cannot be decoded becomes a text that says so.

use base64::{DecodeError, Engine as _, engine::general_purpose::STANDARD};
use data_encoding::BASE32;
use zeroize::Zeroizing;

use super::{Function, Memory, Outcome, Text, Value, function, text};

pub(super) const FUNCTIONS: &[Function] = &[
    function("b64enc", &[Text], |memory, arguments| {
        let encoded = Zeroizing::new(STANDARD.encode(text(arguments, 0)));
        memory.copied(encoded.as_bytes())
    }),
    function("b64dec", &[Text], base64_decoded),
    function("b32enc", &[Text], |memory, arguments| {
        let encoded = Zeroizing::new(BASE32.encode(text(arguments, 0)));
        memory.copied(encoded.as_bytes())
    }),
    function("b32dec", &[Text], base32_decoded),
];

/// Go skips line ends wherever they are.
fn without_line_ends(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut kept = Zeroizing::new(Vec::with_capacity(text.len()));
    kept.extend(text.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
    kept
}

/// Where the byte that is the `at`-th without line ends stands.
fn with_line_ends(text: &[u8], at: usize) -> usize {
    let positions = text.iter().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'));
    positions.map(|(position, _)| position).nth(at).unwrap_or(text.len())
}

fn base64_decoded(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let given = text(arguments, 0);
    let plain = without_line_ends(given);
    let mut decoded = Zeroizing::new(vec![0; base64::decoded_len_estimate(plain.len())]);
    // Go takes bits that are left over at the end.
    let engine = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    match engine.decode_slice(&*plain, &mut decoded) {
        Ok(length) => memory.copied(&decoded[..length]),
        Err(error) => {
            let at = illegal_base64(&plain, &error);
            memory.copied(format!("illegal base64 data at input byte {}", with_line_ends(given, at)).as_bytes())
        }
    }
}

/// Where Go stops reading.
fn illegal_base64(text: &[u8], _: &base64::DecodeSliceError) -> usize {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'+' || *byte == b'/';
    let digits = text.iter().take_while(|byte| is_digit(byte)).count();
    let _: Option<DecodeError> = None;
    match text.get(digits) {
        // The text ends inside of a group of four: Go names the start of the group.
        None => digits - digits % 4,
        Some(b'=') => match digits % 4 {
            0 | 1 => digits,
            2 if text.get(digits + 1) != Some(&b'=') => digits + usize::from(text.len() > digits + 1),
            2 => digits + 2,
            _ => digits + 1,
        },
        Some(_) => digits,
    }
}

fn base32_decoded(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let given = text(arguments, 0);
    let plain = without_line_ends(given);
    let mut spec = data_encoding::Specification::new();
    spec.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567");
    spec.padding = Some('=');
    spec.check_trailing_bits = false;
    let lenient = spec.encoding().map_err(|_| "base32 is not available")?;
    match lenient.decode(&plain) {
        Ok(decoded) => memory.copied(&Zeroizing::new(decoded)),
        Err(error) => {
            let at = with_line_ends(given, error.position);
            memory.copied(format!("illegal base32 data at input byte {at}").as_bytes())
        }
    }
}
