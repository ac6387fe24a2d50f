use crate::error::ErrorKind;

/// The byte-order mark that some editors put at a file's start.
pub(crate) const BOM: char = '\u{feff}';

/// A name or a key as it may stand in a message: it can hold what a terminal takes for a command, and be very long.
pub fn printable(name: &str) -> String {
    name.chars().take(253).collect::<String>().escape_debug().to_string()
}

/// The text of a file, its byte-order mark included; or the line at which it stops being text.
pub(crate) fn decode(bytes: &[u8]) -> Result<&str, (u32, ErrorKind)> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err((1, ErrorKind::NotText("UTF-16")));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| (line_at(bytes, error.valid_up_to()), ErrorKind::NotText("not UTF-8")))?;
    match text.bytes().position(is_refused) {
        Some(at) if bytes[at] == 0 => Err((line_at(bytes, at), ErrorKind::NotText("it has a NUL byte"))),
        Some(at) => Err((line_at(bytes, at), ErrorKind::NotText("it has a control character"))),
        None => match lone_carriage_return(bytes) {
            Some(at) => Err((line_at(bytes, at), ErrorKind::NotText("it has a carriage return without a line feed"))),
            None => Ok(text),
        },
    }
}

/// To YAML it is a line end, to line-based tools it is none: one text, two readings.
fn lone_carriage_return(bytes: &[u8]) -> Option<usize> {
    bytes.iter().enumerate().position(|(at, &byte)| byte == b'\r' && bytes.get(at + 1) != Some(&b'\n'))
}

/// The control characters that YAML excludes.
fn is_refused(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r')
}

fn line_at(bytes: &[u8], at: usize) -> u32 {
    let breaks = bytes[..at].split(|&byte| byte == b'\n').count() - 1;
    u32::try_from(breaks).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_text_and_says_where() {
        assert!(decode("a: ü\r\n\tb\n".as_bytes()).is_ok());
        assert_eq!(decode(b"a\nb\n\xff").unwrap_err().0, 3);
        assert_eq!(decode(b"a\n\0").unwrap_err(), (2, ErrorKind::NotText("it has a NUL byte")));
        assert_eq!(decode(b"\x1b[0m").unwrap_err(), (1, ErrorKind::NotText("it has a control character")));
        assert_eq!(decode(b"a: 1\r---\rb: 2").unwrap_err().0, 1);
        assert_eq!(decode(b"\xff\xfea\0").unwrap_err(), (1, ErrorKind::NotText("UTF-16")));
    }
}
