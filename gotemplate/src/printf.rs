//! `printf`: the verbs, flags and error texts of Go's package `fmt`.

use std::fmt::Write as _;

use crate::{
    error::Failure,
    format,
    text::{Buffer, first_char, pieces},
    unicode,
    value::{Memory, Value},
};

/// The largest width and precision. As in Go, a larger one is a mistake.
const WIDEST: usize = 1_000_000;

/// The part between `%` and the verb.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the format")]
struct Spec {
    width: Option<usize>,
    precision: Option<usize>,
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    /// `%#v`
    go_syntax: bool,
}

/// `fmt.Sprintf`
pub(crate) fn printf(memory: &mut Memory, format: &[u8], values: &[Value]) -> Result<Buffer, Failure> {
    let out = memory.buffer();
    let mut printer = Printer { memory, out, format, at: 0, values, next: 0, reordered: false, good: true };
    printer.run()?;
    Ok(printer.out)
}

struct Printer<'a> {
    memory: &'a mut Memory,
    out: Buffer,
    format: &'a [u8],
    at: usize,
    values: &'a [Value],
    next: usize,
    /// Whether the format has chosen an argument by its number, as `%[2]d` does.
    reordered: bool,
    /// False if the current verb chose an argument by a number that no argument has.
    good: bool,
}

impl Printer<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        while self.at < self.format.len() {
            let rest = &self.format[self.at..];
            let literal = memchr::memchr(b'%', rest).unwrap_or(rest.len());
            self.out.push(&rest[..literal]);
            self.at += literal;
            if self.at < self.format.len() {
                self.at += 1;
                self.memory.budget.step(1)?;
                self.verb()?;
            }
        }
        if !self.reordered && self.next < self.values.len() {
            self.out.push(b"%!(EXTRA ");
            let values = self.values;
            for (index, value) in values[self.next..].iter().enumerate() {
                if index > 0 {
                    self.out.push(b", ");
                }
                if value.is_nil() {
                    self.out.push(b"<nil>");
                } else {
                    self.out.push(value.type_name().as_bytes());
                    self.out.push(b"=");
                    self.value(Spec::default(), 'v', value, 0)?;
                }
            }
            self.out.push(b")");
        }
        Ok(())
    }

    fn verb(&mut self) -> Result<(), Failure> {
        let mut spec = Spec::default();
        self.good = true;
        while let Some(flag) = self.peek() {
            match flag {
                b'#' => spec.sharp = true,
                b'0' => spec.zero = true,
                b'+' => spec.plus = true,
                b'-' => spec.minus = true,
                b' ' => spec.space = true,
                _ => break,
            }
            self.at += 1;
        }
        let mut indexed = self.index();
        if self.peek() == Some(b'*') {
            self.at += 1;
            match self.argument() {
                Some(width) => {
                    spec.width = Some(usize::try_from(width.unsigned_abs()).unwrap_or(0));
                    if width < 0 {
                        (spec.minus, spec.zero) = (true, false);
                    }
                }
                None => self.out.push(b"%!(BADWIDTH)"),
            }
            indexed = false;
        } else {
            spec.width = self.number();
            self.good &= !(indexed && spec.width.is_some());
        }
        if self.peek() == Some(b'.') && self.at + 1 < self.format.len() {
            self.at += 1;
            self.good &= !indexed;
            indexed = self.index();
            if self.peek() == Some(b'*') {
                self.at += 1;
                spec.precision = self.argument().and_then(|precision| usize::try_from(precision).ok());
                if spec.precision.is_none() {
                    self.out.push(b"%!(BADPREC)");
                }
                indexed = false;
            } else {
                spec.precision = Some(self.number().unwrap_or(0));
            }
        }
        if !indexed {
            self.index();
        }
        if self.at >= self.format.len() {
            self.out.push(b"%!(NOVERB)");
            return Ok(());
        }
        let (verb, length) = first_char(&self.format[self.at..]);
        self.at += length;
        self.print(spec, verb.unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn print(&mut self, mut spec: Spec, verb: char) -> Result<(), Failure> {
        if verb == '%' {
            self.out.push(b"%");
            return Ok(());
        }
        let values = self.values;
        let problem: &[u8] = match values.get(self.next) {
            _ if !self.good => b"(BADINDEX)",
            None => b"(MISSING)",
            Some(value) => {
                self.next += 1;
                if verb == 'v' {
                    (spec.go_syntax, spec.sharp, spec.plus) = (spec.sharp, false, false);
                }
                return self.top(spec, verb, value);
            }
        };
        self.out.push(b"%!");
        self.out.push_char(verb);
        self.out.push(problem);
        Ok(())
    }

    /// Prints a value that was passed to `printf` itself, not one inside a list or map.
    fn top(&mut self, spec: Spec, verb: char, value: &Value) -> Result<(), Failure> {
        match (verb, value) {
            ('T', value) if !value.is_nil() => {
                self.text(spec, value.type_name().as_bytes());
                Ok(())
            }
            ('T' | 'v', value) if value.is_nil() => {
                self.pad(spec, b"<nil>");
                Ok(())
            }
            ('p', _) => Err("printf: %p is not supported".into()),
            _ => self.value(spec, verb, value, 0),
        }
    }

    fn value(&mut self, spec: Spec, verb: char, value: &Value, depth: usize) -> Result<(), Failure> {
        format::visit(self.memory, &self.out, depth)?;
        match value {
            Value::Missing | Value::Nil if depth == 0 => self.bad(verb, value, depth)?,
            Value::Missing | Value::Nil => {
                self.out.push(if spec.go_syntax { b"interface {}(nil)".as_slice() } else { b"<nil>" });
            }
            Value::Bool(truth) if matches!(verb, 't' | 'v') => {
                self.pad(spec, if *truth { b"true" } else { b"false" });
            }
            Value::Int(_, int) => return self.integer(spec, verb, value, int.unsigned_abs(), *int < 0, depth),
            Value::Uint(_, int) if verb == 'v' && spec.go_syntax => {
                self.integer(Spec { sharp: true, ..spec }, 'x', value, *int, false, depth)?;
            }
            Value::Uint(_, int) => return self.integer(spec, verb, value, *int, false, depth),
            Value::Float(float) if matches!(verb, 'v' | 'g' | 'G' | 'e' | 'E' | 'f' | 'F') => {
                self.float(spec, verb, *float);
            }
            Value::Float(_) if matches!(verb, 'b' | 'x' | 'X') => {
                return Err("printf: %b, %x and %X of a float64 are not supported".into());
            }
            Value::Text(text) => return self.string(spec, verb, value, text, depth),
            Value::List(_) | Value::Map(_) => return self.container(spec, verb, value, depth),
            _ => self.bad(verb, value, depth)?,
        }
        Ok(())
    }

    fn container(&mut self, spec: Spec, verb: char, value: &Value, depth: usize) -> Result<(), Failure> {
        let (open, separator, close): (&[u8], &[u8], &[u8]) = match (spec.go_syntax, value) {
            (true, _) => (b"{", b", ", b"}"),
            (false, Value::Map(_)) => (b"map[", b" ", b"]"),
            (false, _) => (b"[", b" ", b"]"),
        };
        let mut entries: Vec<(Option<Value>, Value)> = Vec::new();
        let nil = match value {
            Value::List(list) => {
                entries.extend(list.items().iter().map(|item| (None, item.clone())));
                list.is_nil()
            }
            Value::Map(map) => {
                let all = self.memory.entries(*map).iter();
                entries.extend(all.map(|(key, item)| (Some(Value::Text(key.clone())), item.clone())));
                map.is_nil()
            }
            _ => false,
        };
        if spec.go_syntax {
            self.out.push(value.type_name().as_bytes());
            if nil {
                self.out.push(b"(nil)");
                return Ok(());
            }
        }
        self.out.push(open);
        for (index, (key, item)) in entries.iter().enumerate() {
            if index > 0 {
                self.out.push(separator);
            }
            if let Some(key) = key {
                self.value(spec, verb, key, depth + 1)?;
                self.out.push(b":");
            }
            self.value(spec, verb, item, depth + 1)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn string(&mut self, spec: Spec, verb: char, value: &Value, text: &[u8], depth: usize) -> Result<(), Failure> {
        match verb {
            'v' if spec.go_syntax => self.quoted(spec, text),
            'v' | 's' => self.text(spec, text),
            'q' => self.quoted(spec, text),
            'x' | 'X' => self.hexadecimal(spec, verb, text),
            _ => self.bad(verb, value, depth)?,
        }
        Ok(())
    }

    fn text(&mut self, spec: Spec, text: &[u8]) {
        let cut = cut(spec, text);
        self.pad(spec, cut);
    }

    fn quoted(&mut self, spec: Spec, text: &[u8]) {
        let text = cut(spec, text);
        let mut out = self.memory.buffer();
        let raw = |(char, _): (Option<char>, &[u8])| {
            char.is_some_and(|char| (char >= ' ' || char == '\t') && !matches!(char, '`' | '\u{7f}' | '\u{feff}'))
        };
        if spec.sharp && pieces(text).all(raw) {
            out.push(b"`");
            out.push(text);
            out.push(b"`");
        } else {
            format::quote(&mut out, text, spec.plus);
        }
        self.pad(spec, out.bytes());
        if out.is_full() {
            self.out.repeat(b" ", usize::MAX);
        }
    }

    fn hexadecimal(&mut self, spec: Spec, verb: char, text: &[u8]) {
        let text = &text[..text.len().min(spec.precision.unwrap_or(usize::MAX))];
        let mut out = self.memory.buffer();
        let prefix: &[u8] = if verb == 'x' { b"0x" } else { b"0X" };
        for (index, byte) in text.iter().enumerate() {
            if spec.space && index > 0 {
                out.push(b" ");
            }
            if spec.sharp && (spec.space || index == 0) {
                out.push(prefix);
            }
            let digits: &[u8; 16] = if verb == 'x' { b"0123456789abcdef" } else { b"0123456789ABCDEF" };
            out.push(&[digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
        }
        self.pad(spec, out.bytes());
    }

    fn integer(
        &mut self,
        spec: Spec,
        verb: char,
        value: &Value,
        magnitude: u64,
        negative: bool,
        depth: usize,
    ) -> Result<(), Failure> {
        let digits = match verb {
            'v' | 'd' => magnitude.to_string(),
            'b' => format!("{magnitude:b}"),
            'o' | 'O' => format!("{magnitude:o}"),
            'x' => format!("{magnitude:x}"),
            'X' => format!("{magnitude:X}"),
            'c' | 'q' | 'U' => {
                self.character(spec, verb, magnitude, negative);
                return Ok(());
            }
            _ => return self.bad(verb, value, depth),
        };
        if spec.precision == Some(0) && magnitude == 0 {
            self.out.repeat(b" ", spec.width.unwrap_or(0));
            return Ok(());
        }
        let signed = negative || spec.plus || spec.space;
        let least = match (spec.precision, spec.width) {
            (Some(precision), _) => precision,
            (None, Some(width)) if spec.zero && !spec.minus => width.saturating_sub(usize::from(signed)),
            _ => 0,
        };
        let mut out = self.memory.buffer();
        out.push(match (negative, spec.plus, spec.space) {
            (true, ..) => b"-",
            (_, true, _) => b"+",
            (_, _, true) => b" ",
            _ => b"",
        });
        let zeros = least.saturating_sub(digits.len());
        out.push(match verb {
            'O' => b"0o",
            'b' if spec.sharp => b"0b",
            'x' if spec.sharp => b"0x",
            'X' if spec.sharp => b"0X",
            _ => b"",
        });
        if (verb == 'o' || verb == 'O') && spec.sharp && zeros == 0 && !digits.starts_with('0') {
            out.push(b"0");
        }
        out.repeat(b"0", zeros);
        out.push(digits.as_bytes());
        self.pad(Spec { zero: false, ..spec }, out.bytes());
        Ok(())
    }

    fn character(&mut self, spec: Spec, verb: char, magnitude: u64, negative: bool) {
        let char = u32::try_from(magnitude).ok().filter(|_| !negative).and_then(char::from_u32);
        let shown = char.unwrap_or(char::REPLACEMENT_CHARACTER);
        let mut out = self.memory.buffer();
        match verb {
            'c' => out.push_char(shown),
            'q' => {
                out.push(b"'");
                format::quoted_char(&mut out, shown, '\'', spec.plus);
                out.push(b"'");
            }
            _ => {
                let code = if negative { magnitude.wrapping_neg() } else { magnitude };
                let digits = format!("{code:X}");
                out.push(b"U+");
                out.repeat(b"0", spec.precision.unwrap_or(0).max(4).saturating_sub(digits.len()));
                out.push(digits.as_bytes());
                if let Some(char) = char.filter(|char| spec.sharp && unicode::is_print(*char)) {
                    write!(out, " '{char}'").expect("a buffer takes it");
                }
                return self.pad(Spec { zero: false, ..spec }, out.bytes());
            }
        }
        self.pad(spec, out.bytes());
    }

    fn float(&mut self, spec: Spec, verb: char, float: f64) {
        let (letter, usual) = match verb {
            'v' => ('g', None),
            'g' | 'G' => (verb, None),
            'F' => ('f', Some(6)),
            _ => (verb, Some(6)),
        };
        let mut number = self.memory.buffer();
        let precision = spec.precision.or(usual);
        format::float(&mut number, float.abs(), letter, precision);
        if spec.sharp && float.is_finite() {
            let mut pointed = self.memory.buffer();
            pointed_float(&mut pointed, format::ascii(number.bytes()), letter, precision);
            number = pointed;
        }
        let mut out = self.memory.buffer();
        out.push(match (float.is_sign_negative() && !float.is_nan(), spec.plus, spec.space) {
            (true, ..) => b"-",
            (_, true, _) => b"+",
            (_, _, true) => b" ",
            _ if float.is_infinite() => b"+",
            _ => b"",
        });
        let digits = number.bytes();
        let digits = digits.strip_prefix(b"+").unwrap_or(digits);
        let spec = Spec { zero: spec.zero && float.is_finite(), ..spec };
        if spec.zero && !spec.minus {
            out.repeat(b"0", spec.width.unwrap_or(0).saturating_sub(out.len() + digits.len()));
        }
        out.push(digits);
        self.pad(spec, out.bytes());
    }

    fn bad(&mut self, verb: char, value: &Value, depth: usize) -> Result<(), Failure> {
        self.out.push(b"%!");
        self.out.push_char(verb);
        self.out.push(b"(");
        if value.is_nil() {
            self.out.push(b"<nil>");
        } else {
            self.out.push(value.type_name().as_bytes());
            self.out.push(b"=");
            self.value(Spec::default(), 'v', value, depth)?;
        }
        self.out.push(b")");
        Ok(())
    }

    fn pad(&mut self, spec: Spec, text: &[u8]) {
        let missing = spec.width.map_or(0, |width| width.saturating_sub(pieces(text).count()));
        let left: &[u8] = if spec.zero { b"0" } else { b" " };
        if spec.minus {
            self.out.push(text);
            self.out.repeat(b" ", missing);
        } else {
            self.out.repeat(left, missing);
            self.out.push(text);
        }
    }

    fn peek(&self) -> Option<u8> {
        self.format.get(self.at).copied()
    }

    /// Reads a number. As in Go, a number with too many digits consumes the rest of the format.
    fn number(&mut self) -> Option<usize> {
        let digits = self.format[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = format::ascii(&self.format[self.at..self.at + digits]);
        self.at += digits;
        if digits == 0 {
            return None;
        }
        let number = text.parse().ok().filter(|number| *number / 10 <= WIDEST);
        if number.is_none() {
            self.at = self.format.len();
        }
        number
    }

    /// Reads `[3]`, the number of the next argument. Returns whether there was such a number.
    fn index(&mut self) -> bool {
        if self.peek() != Some(b'[') {
            return false;
        }
        self.reordered = true;
        let rest = &self.format[self.at..];
        let Some(end) = memchr::memchr(b']', rest) else {
            self.at += 1;
            self.good = false;
            return false;
        };
        let number: Option<usize> = format::ascii(&rest[1..end]).parse().ok().filter(|number| *number <= WIDEST);
        self.at += end + 1;
        if let Some(index) = number.and_then(|number| number.checked_sub(1)).filter(|index| *index < self.values.len())
        {
            self.next = index;
            return true;
        }
        self.good = false;
        number.is_some()
    }

    /// The next argument as a width or precision.
    fn argument(&mut self) -> Option<i64> {
        let value = self.values.get(self.next);
        self.next += usize::from(value.is_some());
        let number = match value? {
            Value::Int(_, int) => *int,
            Value::Uint(_, int) => i64::try_from(*int).ok()?,
            _ => return None,
        };
        usize::try_from(number.unsigned_abs()).is_ok_and(|width| width <= WIDEST).then_some(number)
    }
}

/// The start of `text`: at most as many characters as the precision says.
fn cut(spec: Spec, text: &[u8]) -> &[u8] {
    match spec.precision {
        Some(precision) => &text[..pieces(text).take(precision).map(|(_, piece)| piece.len()).sum()],
        None => text,
    }
}

/// Writes a number as for the flag `%#`: always with a decimal point, and for `g` also with the zeros at the end.
fn pointed_float(out: &mut Buffer, number: &str, letter: char, precision: Option<usize>) {
    let tail = number.find(['e', 'E']).unwrap_or(number.len());
    let (mantissa, tail) = number.split_at(tail);
    out.push(mantissa.as_bytes());
    if !mantissa.contains('.') {
        out.push(b".");
    }
    if letter == 'g' || letter == 'G' {
        let digits = mantissa.replace('.', "");
        let significant = digits.trim_start_matches('0').len();
        let written = if digits == "0" { 1 } else { significant };
        out.repeat(b"0", precision.unwrap_or(6).saturating_sub(written));
    }
    out.push(tail.as_bytes());
}
