//! sprig: base64 and base32. As in sprig, the result for a text that cannot be decoded is the text of the error.

use base64::{Engine as _, engine::general_purpose::STANDARD};
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

/// The text without line ends, which Go's decoder ignores everywhere.
fn without_line_ends(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut kept = Zeroizing::new(Vec::with_capacity(text.len()));
    kept.extend(text.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
    kept
}

fn base64_decoded(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let given = text(arguments, 0);
    let plain = without_line_ends(given);
    let mut decoded = Zeroizing::new(vec![0; base64::decoded_len_estimate(plain.len())]);
    // Go accepts any unused bits at the end, not only zeros.
    let engine = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    if let Ok(length) = engine.decode_slice(&*plain, &mut decoded) {
        return memory.copied(&decoded[..length]);
    }
    let at = illegal_base64(given);
    memory.copied(format!("illegal base64 data at input byte {at}").as_bytes())
}

/// Where Go stops reading a text that is not base64.
fn illegal_base64(text: &[u8]) -> usize {
    let mut rest = positions(text).peekable();
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let mut digits = 0;
    while rest.next_if(|(_, byte)| is_digit(*byte)).is_some() {
        digits += 1;
    }
    let Some((at, stop)) = rest.next() else {
        // The text ends inside a group of four digits. Go's error names the position at which this group begins.
        return text.len() - digits % 4;
    };
    match (stop, digits % 4) {
        (b'=', 2) => match rest.next() {
            None => text.len(),
            Some((_, b'=')) => rest.next().map_or(text.len(), |(after, _)| after),
            Some((other, _)) => other - 1,
        },
        (b'=', 3) => rest.next().map_or(text.len(), |(after, _)| after),
        _ => at,
    }
}

/// All bytes except line breaks, which Go's decoder ignores, with their positions.
fn positions(text: &[u8]) -> impl Iterator<Item = (usize, u8)> + '_ {
    text.iter().copied().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'))
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
            let at = positions(given).nth(error.position).map_or(given.len(), |(at, _)| at);
            memory.copied(format!("illegal base32 data at input byte {at}").as_bytes())
        }
    }
}
