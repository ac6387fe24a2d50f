//! A Secret as JSON, written so that no copy of a value stays in memory that is not wiped.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use zeroize::Zeroizing;

/// JSON of a Secret: the fields of `head` (an object without `data`), then `values` in base64 under `data`.
///
/// The buffer has its final size from the start: growing would leave unwiped memory with values behind.
pub fn secret_json(head: &impl Serialize, values: &[(&str, &[u8])]) -> Zeroizing<Vec<u8>> {
    let mut head = serde_json::to_vec(head).expect("the keys of `head` are strings");
    assert_eq!(head.pop(), Some(b'}'), "`head` is a JSON object");
    let names: Vec<String> =
        values.iter().map(|(name, _)| serde_json::to_string(name).expect("a string is JSON")).collect();

    let separators = values.len().saturating_sub(1);
    let mut size = head.len() + DATA.len() + separators + END.len();
    for (name, (_, value)) in names.iter().zip(values) {
        let encoded = base64::encoded_len(value.len(), true).expect("the length in base64 fits into a usize");
        size += name.len() + encoded + r#":"""#.len();
    }
    let mut out = Zeroizing::new(Vec::with_capacity(size));
    out.extend_from_slice(&head);
    out.extend_from_slice(DATA);
    for (index, (name, (_, value))) in names.iter().zip(values).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b":\"");
        let start = out.len();
        out.resize(start + base64::encoded_len(value.len(), true).unwrap_or_default(), 0);
        STANDARD.encode_slice(value, &mut out[start..]).expect("`out` was enlarged by this length");
        out.push(b'"');
    }
    out.extend_from_slice(END);
    debug_assert_eq!(out.len(), size, "the buffer never grew");
    out
}

const DATA: &[u8] = br#","data":{"#;
const END: &[u8] = b"}}";
