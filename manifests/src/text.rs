use std::borrow::Cow;
use std::fmt::Write as _;

use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use crate::error::ErrorKind;

/// The byte-order mark that some editors write at the start of a file.
pub(crate) const BOM: char = '\u{feff}';

/// A name or a key in a form for messages: without commands for a terminal, and not too long.
pub fn printable(name: &str) -> String {
    name.chars().take(253).collect::<String>().escape_debug().to_string()
}

/// A text in a form for one line of a log, a table or a status. Characters that are [no text](is_no_text) are escaped,
/// as `\u{1b}`, and so are line ends and tabs, as `\n` and `\t`. Existing escapes stay as they are.
pub fn in_one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_no_text, |out, c| match c {
        '\n' | '\r' | '\t' => out.extend(c.escape_default()),
        c => out.extend(c.escape_unicode()),
    })
}

/// Like [`in_one_line`], for a text of several lines: line feeds and tabs are not escaped.
pub fn in_lines(text: &str) -> Cow<'_, str> {
    let is_escaped = |c| is_no_text(c) && !matches!(c, '\n' | '\t');
    escaped(text, is_escaped, |out, c| match c {
        '\r' => out.push_str("\\r"),
        c => out.extend(c.escape_unicode()),
    })
}

/// Equivalent JSON without characters that are [no text](is_no_text). Such a character can only be in a string, and
/// becomes `\u202e` there, for example. White space between values stays.
pub fn in_json(json: &str) -> Cow<'_, str> {
    let is_escaped = |c| is_no_text(c) && !matches!(c, '\n' | '\r' | '\t');
    escaped(json, is_escaped, |out, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

/// Characters that a terminal may interpret as commands, or that make a reader see something else: control characters
/// (C0, DEL, C1), line and paragraph separators, characters that change the direction of the surrounding text, and
/// invisible tags.
pub fn is_no_text(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool, write: impl Fn(&mut String, char)) -> Cow<'_, str> {
    let Some(first) = text.find(&is_escaped) else {
        return Cow::Borrowed(text);
    };
    let (start, rest) = text.split_at(first);
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(start);
    for c in rest.chars() {
        if is_escaped(c) {
            write(&mut out, c);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Why a line separator is refused.
pub(crate) const LINE_SEPARATOR: &str =
    "it has a line separator (U+0085, U+2028 or U+2029), which ends a line for some readers of YAML and not for others";

/// Whether a text consists of JSON objects only. Then it is read as JSON, even if its file has another extension, as
/// `kubectl` does.
pub(crate) fn is_json(text: &str) -> bool {
    let json = text.trim_start_matches(BOM);
    json.trim_start().starts_with('{')
        && serde_json::Deserializer::from_str(json).into_iter::<IgnoredAny>().all(|value| value.is_ok())
}

/// JSON in a form for a reader of YAML. Such a reader takes unescaped line separators for line ends, and refuses some
/// characters, so these are escaped. In JSON, these characters can only be in strings, where an escape means the same.
///
/// The API server reads an apply with go-yaml 2.4. The escaped characters are those that go-yaml refuses or takes for
/// line breaks (`yaml_parser_update_buffer`): they are not printable in YAML 1.1, or are line breaks there.
pub fn json_for_yaml(json: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    let is_told_apart =
        |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    let Some(text) = std::str::from_utf8(&json).ok().filter(|text| text.contains(is_told_apart)) else {
        return json;
    };
    // The buffer is large enough for everything, because a buffer that grows leaves copies behind, which are not wiped.
    let escapes = text.chars().filter(|c| is_told_apart(*c)).count();
    let mut out = Zeroizing::new(Vec::with_capacity(json.len() + 6 * escapes));
    let mut rest = text;
    while let Some(at) = rest.find(is_told_apart) {
        let (before, from) = rest.split_at(at);
        let mut characters = from.chars();
        let escaped = characters.next().map_or(0, u32::from);
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(format!("\\u{escaped:04x}").as_bytes());
        rest = characters.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// The text of a file, including its byte-order mark. The error has the number of the first line that is not text.
pub(crate) fn decode(bytes: &[u8]) -> Result<&str, (u32, ErrorKind)> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err((1, ErrorKind::NotText("UTF-16")));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| (line_at(bytes, error.valid_up_to()), ErrorKind::NotText("not UTF-8")))?;
    if let Some(at) = text.bytes().position(is_refused) {
        let what = if bytes[at] == 0 { "it has a NUL byte" } else { "it has a control character" };
        return Err((line_at(bytes, at), ErrorKind::NotText(what)));
    }
    // For JSON, the check that follows is not needed: all programs agree where a line and a string of JSON end.
    if is_json(text) {
        return Ok(text);
    }
    if let Some(at) = text.find(['\u{85}', '\u{2028}', '\u{2029}']) {
        return Err((line_at(bytes, at), ErrorKind::NotText(LINE_SEPARATOR)));
    }
    match lone_carriage_return(bytes) {
        Some(at) => Err((line_at(bytes, at), ErrorKind::NotText("it has a carriage return without a line feed"))),
        None => Ok(text),
    }
}

/// YAML takes a lone carriage return for a line end, and tools that work with lines do not. So the same text could mean
/// two things.
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

    /// Characters of each kind that must be escaped, and characters that must not be, such as `ü` and emoji.
    const HOSTILE: &str = "a\u{0}\u{7}\u{1b}[2J\u{7f}\u{85}\u{9b}2J\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\u{200f}\u{e0041}\rb\nc\tü 猫 👩\u{200d}🚀";

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        assert_eq!(
            in_one_line(HOSTILE),
            "a\\u{0}\\u{7}\\u{1b}[2J\\u{7f}\\u{85}\\u{9b}2J\\u{2028}\\u{2029}\\u{202a}\\u{202e}\\u{2066}\\u{2069}\\u{200f}\\u{e0041}\\rb\\nc\\tü 猫 👩\u{200d}🚀"
        );
        assert!(!in_lines(HOSTILE).contains(|c| is_no_text(c) && c != '\n' && c != '\t'));
        assert!(in_lines(HOSTILE).ends_with("\\rb\nc\tü 猫 👩\u{200d}🚀"));
        assert!(!printable(HOSTILE).contains(is_no_text));
        for text in ["plain ü\\n", ""] {
            assert!(matches!(in_one_line(text), Cow::Borrowed(same) if same == text));
        }
        let once = in_one_line(HOSTILE).into_owned();
        assert_eq!(in_one_line(&once), once);
    }

    #[test]
    fn json_says_the_same_without_them() {
        let json = serde_json::to_string_pretty(&serde_json::json!({ "text": HOSTILE })).unwrap();
        let shown = in_json(&json);
        assert!(json.contains(is_no_text) && !shown.contains(|c| is_no_text(c) && c != '\n'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap()["text"], HOSTILE);
    }

    #[test]
    fn json_for_yaml_says_the_same_without_what_yaml_reads_otherwise() {
        let text = "a \u{85} b\u{2028}\u{2029}\u{7f}\u{80}\u{9f}\u{feff}\u{fffe}\u{ffff} ü\u{1f600}\u{a0}\\";
        let json = serde_json::to_vec(&serde_json::json!({ text: text })).unwrap();
        let safe = json_for_yaml(Zeroizing::new(json.clone()));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&safe).unwrap()[text], text);
        let shown = std::str::from_utf8(&safe).unwrap();
        assert!(shown.contains(r"a \u0085 b\u2028\u2029\u007f\u0080\u009f\ufeff\ufffe\uffff ü😀"), "{shown}");
        let plain = br#"{"a":"b"}"#.to_vec();
        assert_eq!(*json_for_yaml(Zeroizing::new(plain.clone())), plain);
    }

    #[test]
    fn refuses_what_is_not_text_and_says_where() {
        assert!(decode("a: ü\r\n\tb\n".as_bytes()).is_ok());
        assert_eq!(decode(b"a\nb\n\xff").unwrap_err().0, 3);
        assert_eq!(decode(b"a\n\0").unwrap_err(), (2, ErrorKind::NotText("it has a NUL byte")));
        assert_eq!(decode(b"\x1b[0m").unwrap_err(), (1, ErrorKind::NotText("it has a control character")));
        assert_eq!(decode(b"a: 1\r---\rb: 2").unwrap_err().0, 1);
        for separator in ["\u{85}", "\u{2028}", "\u{2029}"] {
            let yaml = format!("a: 1\nb: x # {separator}c: 2");
            assert_eq!(decode(yaml.as_bytes()).unwrap_err(), (2, ErrorKind::NotText(LINE_SEPARATOR)));
            assert!(decode(format!("{{\"a\": \"{separator}\"}}").as_bytes()).is_ok(), "in JSON they are text");
        }
        assert_eq!(decode(b"\xff\xfea\0").unwrap_err(), (1, ErrorKind::NotText("UTF-16")));
    }
}
