//! sprig: JSON, read and written as Go's `encoding/json` does.

use std::fmt::Write as _;

use super::{Any, Failure, Function, Memory, Outcome, Text, Value, defaults::entries, function, text};
use crate::{
    format,
    limits::VALUE_NESTING,
    text::{Buffer, first_char, pieces},
    value::{Element, Entries},
};

pub(super) const FUNCTIONS: &[Function] = &[
    function("toJson", &[Any], |memory, arguments| lenient(memory, &arguments[0], COMPACT)),
    function("toPrettyJson", &[Any], |memory, arguments| lenient(memory, &arguments[0], PRETTY)),
    function("toRawJson", &[Any], |memory, arguments| written(memory, &arguments[0], RAW)),
    function("mustToJson", &[Any], |memory, arguments| written(memory, &arguments[0], COMPACT)),
    function("mustToPrettyJson", &[Any], |memory, arguments| written(memory, &arguments[0], PRETTY)),
    function("mustToRawJson", &[Any], |memory, arguments| written(memory, &arguments[0], RAW)),
    function("fromJson", &[Text], |memory, arguments| match parsed(memory, text(arguments, 0)) {
        Err(Failure::Refused(_)) => Ok(Value::Nil),
        parsed => parsed,
    }),
    function("mustFromJson", &[Text], |memory, arguments| parsed(memory, text(arguments, 0))),
];

#[derive(Clone, Copy)]
struct Style {
    /// `<`, `>` and `&` are escaped.
    html: bool,
    indented: bool,
}

const COMPACT: Style = Style { html: true, indented: false };
const PRETTY: Style = Style { html: true, indented: true };
const RAW: Style = Style { html: false, indented: false };

/// Like [`written`], but a value that cannot be written as JSON gives an empty text.
fn lenient(memory: &mut Memory, value: &Value, style: Style) -> Outcome {
    match written(memory, value, style) {
        Err(Failure::Refused(_)) => memory.copied(b""),
        written => written,
    }
}

fn written(memory: &mut Memory, value: &Value, style: Style) -> Outcome {
    let mut out = memory.buffer();
    write(memory, &mut out, value, style, 0)?;
    memory.text(out)
}

fn write(memory: &mut Memory, out: &mut Buffer, value: &Value, style: Style, depth: usize) -> Result<(), Failure> {
    format::visit(memory, out, depth)?;
    match value {
        Value::Missing | Value::Nil => out.push(b"null"),
        Value::Bool(value) => out.push(if *value { b"true" } else { b"false" }),
        Value::Int(_, value) => write!(out, "{value}").expect("a buffer takes it"),
        Value::Uint(_, value) => write!(out, "{value}").expect("a buffer takes it"),
        Value::Float(value) => float(out, *value)?,
        Value::Text(text) => string(out, text, style.html),
        Value::List(list) if list.is_nil() => out.push(b"null"),
        Value::Map(map) if map.is_nil() => out.push(b"null"),
        Value::List(list) => {
            out.push(b"[");
            for (index, item) in list.items().iter().enumerate() {
                separated(out, style, index, depth + 1);
                write(memory, out, item, style, depth + 1)?;
            }
            closed(out, style, list.items().len(), depth, b"]");
        }
        Value::Map(map) => {
            let entries = entries(memory, *map);
            out.push(b"{");
            for (index, (key, item)) in entries.iter().enumerate() {
                separated(out, style, index, depth + 1);
                string(out, key, style.html);
                out.push(if style.indented { b": " } else { b":" });
                write(memory, out, item, style, depth + 1)?;
            }
            closed(out, style, entries.len(), depth, b"}");
        }
    }
    Ok(())
}

fn separated(out: &mut Buffer, style: Style, index: usize, depth: usize) {
    if index > 0 {
        out.push(b",");
    }
    if style.indented {
        out.push(b"\n");
        out.repeat(b"  ", depth);
    }
}

fn closed(out: &mut Buffer, style: Style, items: usize, depth: usize, bracket: &[u8]) {
    if style.indented && items > 0 {
        out.push(b"\n");
        out.repeat(b"  ", depth);
    }
    out.push(bracket);
}

fn float(out: &mut Buffer, value: f64) -> Result<(), Failure> {
    if !value.is_finite() {
        return Err("JSON has no infinite numbers".into());
    }
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let mut text = Buffer::new(64);
        format::float(&mut text, value, 'e', None);
        // JSON in Go has e-9, not e-09.
        out.push(format::ascii(text.bytes()).replace("e-0", "e-").as_bytes());
    } else {
        format::float(out, value, 'f', None);
    }
    Ok(())
}

fn string(out: &mut Buffer, text: &[u8], html: bool) {
    out.push(b"\"");
    for (char, piece) in pieces(text) {
        match char {
            None => out.push(b"\\ufffd"),
            Some('"') => out.push(b"\\\""),
            Some('\\') => out.push(b"\\\\"),
            Some('\n') => out.push(b"\\n"),
            Some('\r') => out.push(b"\\r"),
            Some('\t') => out.push(b"\\t"),
            Some('\u{8}') => out.push(b"\\b"),
            Some('\u{c}') => out.push(b"\\f"),
            Some(char)
                if char < ' ' || html && matches!(char, '<' | '>' | '&') || matches!(char, '\u{2028}' | '\u{2029}') =>
            {
                write!(out, "\\u{:04x}", u32::from(char)).expect("a buffer takes it");
            }
            Some(_) => out.push(piece),
        }
    }
    out.push(b"\"");
}

fn parsed(memory: &mut Memory, text: &[u8]) -> Outcome {
    let mut parser = Parser { memory, text, at: 0 };
    let value = parser.value(0)?;
    parser.spaces();
    if parser.at < text.len() { Err(MALFORMED.into()) } else { Ok(value) }
}

const MALFORMED: &str = "the text is not JSON";

struct Parser<'a> {
    memory: &'a mut Memory,
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn value(&mut self, depth: usize) -> Outcome {
        self.memory.budget.step(1)?;
        if depth > VALUE_NESTING {
            return Err(Failure::Limit("values are nested too deeply"));
        }
        self.spaces();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b't') => self.word(b"true", Value::Bool(true)),
            Some(b'f') => self.word(b"false", Value::Bool(false)),
            Some(b'n') => self.word(b"null", Value::Nil),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(MALFORMED.into()),
        }
    }

    fn object(&mut self, depth: usize) -> Outcome {
        let mut entries = Entries::new();
        self.at += 1;
        self.spaces();
        if !self.take(b'}') {
            loop {
                self.spaces();
                if self.peek() != Some(b'"') {
                    return Err(MALFORMED.into());
                }
                let Value::Text(key) = self.string()? else { unreachable!("a string was read") };
                self.spaces();
                if !self.take(b':') {
                    return Err(MALFORMED.into());
                }
                let value = self.value(depth + 1)?;
                entries.insert(key, value);
                self.spaces();
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return Err(MALFORMED.into());
                }
            }
        }
        self.memory.map(Element::Any, entries)
    }

    fn array(&mut self, depth: usize) -> Outcome {
        let mut items = Vec::new();
        self.at += 1;
        self.spaces();
        if !self.take(b']') {
            loop {
                items.push(self.value(depth + 1)?);
                self.memory.budget.memory(size_of::<Value>())?;
                self.spaces();
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return Err(MALFORMED.into());
                }
            }
        }
        self.memory.list(Element::Any, items)
    }

    fn string(&mut self) -> Outcome {
        self.at += 1;
        let mut out = self.memory.buffer();
        loop {
            let rest = &self.text[self.at..];
            match *rest.first().ok_or(MALFORMED)? {
                b'"' => {
                    self.at += 1;
                    return self.memory.text(out);
                }
                b'\\' => {
                    let char = self.escape()?;
                    out.push_char(char);
                }
                0..=0x1f => return Err(MALFORMED.into()),
                _ => {
                    let (char, length) = first_char(rest);
                    out.push_char(char.unwrap_or(char::REPLACEMENT_CHARACTER));
                    self.at += length;
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Failure> {
        self.at += 2;
        Ok(match self.text.get(self.at - 1).ok_or(MALFORMED)? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let code = self.code().ok_or(MALFORMED)?;
                if !(0xd800..0xdc00).contains(&code) {
                    return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                // Half of a surrogate pair alone is not a character. The text after it is read separately.
                let before = self.at;
                if self.text[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    let low = self.code().ok_or(MALFORMED)?;
                    if (0xdc00..0xe000).contains(&low) {
                        let code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                        return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                }
                self.at = before;
                char::REPLACEMENT_CHARACTER
            }
            _ => return Err(MALFORMED.into()),
        })
    }

    fn code(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        let valid = digits.iter().all(u8::is_ascii_hexdigit);
        valid.then(|| u32::from_str_radix(format::ascii(digits), 16).ok())?
    }

    fn number(&mut self) -> Outcome {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') && self.digits() == 0 {
            return Err(MALFORMED.into());
        }
        if self.take(b'.') && self.digits() == 0 {
            return Err(MALFORMED.into());
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            if self.digits() == 0 {
                return Err(MALFORMED.into());
            }
        }
        let number: f64 = format::ascii(&self.text[start..self.at]).parse().map_err(|_| MALFORMED)?;
        if number.is_finite() { Ok(Value::Float(number)) } else { Err("a number in JSON is too large".into()) }
    }

    fn digits(&mut self) -> usize {
        let count = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn word(&mut self, word: &[u8], value: Value) -> Outcome {
        if !self.text[self.at..].starts_with(word) {
            return Err(MALFORMED.into());
        }
        self.at += word.len();
        Ok(value)
    }

    fn spaces(&mut self) {
        self.at += self.text[self.at..].iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
}
