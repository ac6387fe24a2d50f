//! Values as text, as Go's package `fmt` writes them by default (`%v`).

use std::fmt::Write as _;

use crate::{
    error::Failure,
    limits::VALUE_NESTING,
    text::{Buffer, pieces},
    unicode,
    value::{Memory, Value},
};

/// `%v`
pub(crate) fn display(memory: &mut Memory, out: &mut Buffer, value: &Value) -> Result<(), Failure> {
    display_nested(memory, out, value, 0)
}

fn display_nested(memory: &mut Memory, out: &mut Buffer, value: &Value, depth: usize) -> Result<(), Failure> {
    visit(memory, out, depth)?;
    match value {
        Value::Missing | Value::Nil => out.push(b"<nil>"),
        Value::Bool(value) => out.push(if *value { b"true" } else { b"false" }),
        Value::Int(_, value) => write!(out, "{value}").expect("a buffer takes it"),
        Value::Uint(_, value) => write!(out, "{value}").expect("a buffer takes it"),
        Value::Float(value) => float(out, *value, 'g', None),
        Value::Text(text) => out.push(text),
        Value::List(list) => {
            out.push(b"[");
            for (index, item) in list.items().iter().enumerate() {
                if index > 0 {
                    out.push(b" ");
                }
                display_nested(memory, out, item, depth + 1)?;
            }
            out.push(b"]");
        }
        Value::Map(map) => {
            out.push(b"map[");
            let entries: Vec<_> =
                memory.entries(*map).iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            for (index, (key, value)) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(b" ");
                }
                out.push(key);
                out.push(b":");
                display_nested(memory, out, value, depth + 1)?;
            }
            out.push(b"]");
        }
    }
    Ok(())
}

/// Counts a written value as one step of the budget. Fails if it is nested too deeply, or if the text has become too
/// large.
pub(crate) fn visit(memory: &mut Memory, out: &Buffer, depth: usize) -> Result<(), Failure> {
    if depth > VALUE_NESTING {
        return Err(Failure::Limit("values are nested too deeply"));
    }
    if out.is_full() {
        return Err(Failure::Limit("a text in the template grows too large"));
    }
    memory.budget.step(1)
}

/// Writes values as `fmt.Sprint` does: with a space between two neighbours if neither is a string.
pub(crate) fn print(memory: &mut Memory, out: &mut Buffer, values: &[Value]) -> Result<(), Failure> {
    let is_text = |value: &Value| matches!(value, Value::Text(_));
    for (index, value) in values.iter().enumerate() {
        if index > 0 && !is_text(value) && !is_text(&values[index - 1]) {
            out.push(b" ");
        }
        display(memory, out, value)?;
    }
    Ok(())
}

/// Writes a number as `strconv.FormatFloat` does. Without a precision, it has the fewest digits that are read back as
/// the same number.
pub(crate) fn float(out: &mut Buffer, value: f64, verb: char, precision: Option<usize>) {
    if value.is_nan() {
        return out.push(b"NaN");
    }
    if value.is_infinite() {
        return out.push(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    }
    if value.is_sign_negative() {
        out.push(b"-");
    }
    let (digits, exponent) = decimal(value.abs(), verb, precision);
    match verb {
        'e' | 'E' => scientific(out, &digits, exponent, verb),
        'g' | 'G' => {
            let written = i32::try_from(digits.len()).unwrap_or(i32::MAX);
            let limit = match precision.map(|precision| i32::try_from(precision.max(1)).unwrap_or(i32::MAX)) {
                None => 6,
                Some(precision) if precision > written && written > exponent => written,
                Some(precision) => precision,
            };
            if exponent < -4 || exponent >= limit {
                scientific(out, &digits, exponent, if verb == 'g' { 'e' } else { 'E' });
            } else {
                positional(out, &digits, exponent, None);
            }
        }
        _ => positional(out, &digits, exponent, precision),
    }
}

/// The digits of a number without a point, and the exponent of the first digit. The number is rounded to the precision;
/// without a precision, it has the fewest digits that are read back as the same number.
fn decimal(value: f64, verb: char, precision: Option<usize>) -> (String, i32) {
    let text = match (verb, precision) {
        (_, None) => format!("{value:e}"),
        ('e' | 'E', Some(precision)) => format!("{value:.precision$e}"),
        ('g' | 'G', Some(precision)) => {
            let precision = precision.max(1) - 1;
            let text = format!("{value:.precision$e}");
            // `g` leaves out zeros at the end.
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let mantissa =
                if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
            format!("{mantissa}e{exponent}")
        }
        (_, Some(precision)) => {
            let text = format!("{value:.precision$}");
            let whole = text.find('.').unwrap_or(text.len());
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            return (digits, i32::try_from(whole).unwrap_or(i32::MAX) - 1);
        }
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (mantissa.chars().filter(char::is_ascii_digit).collect(), exponent.parse().unwrap_or(0))
}

fn scientific(out: &mut Buffer, digits: &str, exponent: i32, letter: char) {
    let (first, rest) = digits.split_at(1);
    out.push(first.as_bytes());
    if !rest.is_empty() {
        out.push(b".");
        out.push(rest.as_bytes());
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    write!(out, "{letter}{sign}{:02}", exponent.unsigned_abs()).expect("a buffer takes it");
}

fn positional(out: &mut Buffer, digits: &str, exponent: i32, precision: Option<usize>) {
    let whole = usize::try_from(exponent + 1).unwrap_or(0);
    if whole == 0 {
        out.push(b"0");
    } else {
        out.push(digits.get(..whole.min(digits.len())).unwrap_or_default().as_bytes());
        out.repeat(b"0", whole.saturating_sub(digits.len()));
    }
    let fraction = digits.get(whole..).unwrap_or_default();
    let zeros = usize::try_from(-1 - exponent).unwrap_or(0);
    if precision.is_some_and(|precision| precision > 0) || precision.is_none() && !fraction.is_empty() {
        out.push(b".");
        out.repeat(b"0", zeros);
        out.push(fraction.as_bytes());
    }
}

/// Quotes a text as Go's `strconv.Quote` does. With `ascii`, everything outside of ASCII is escaped, as by `%+q`.
pub(crate) fn quote(out: &mut Buffer, text: &[u8], ascii: bool) {
    out.push(b"\"");
    for (char, piece) in pieces(text) {
        match char {
            None => out.push(format!("\\x{:02x}", piece[0]).as_bytes()),
            Some(char) => quoted_char(out, char, '"', ascii),
        }
    }
    out.push(b"\"");
}

/// Writes one character as it stands in a quoted text.
pub(crate) fn quoted_char(out: &mut Buffer, char: char, quote: char, ascii: bool) {
    let code = u32::from(char);
    match char {
        _ if char == quote || char == '\\' => {
            out.push(b"\\");
            out.push_char(char);
        }
        _ if unicode::is_print(char) && (char.is_ascii() || !ascii) => out.push_char(char),
        '\u{7}' => out.push(b"\\a"),
        '\u{8}' => out.push(b"\\b"),
        '\u{c}' => out.push(b"\\f"),
        '\n' => out.push(b"\\n"),
        '\r' => out.push(b"\\r"),
        '\t' => out.push(b"\\t"),
        '\u{b}' => out.push(b"\\v"),
        _ if code < 0x20 || code == 0x7f => write!(out, "\\x{code:02x}").expect("a buffer takes it"),
        _ if code < 0x1_0000 => write!(out, "\\u{code:04x}").expect("a buffer takes it"),
        _ => write!(out, "\\U{code:08x}").expect("a buffer takes it"),
    }
}

/// The text of a value, in memory that is wiped, for a function that needs text (`fmt.Sprint` of one value).
pub(crate) fn text_of(memory: &mut Memory, value: &Value) -> Result<crate::text::Text, Failure> {
    if let Value::Text(text) = value {
        return Ok(text.clone());
    }
    let mut out = memory.buffer();
    display(memory, &mut out, value)?;
    match memory.text(out)? {
        Value::Text(text) => Ok(text),
        _ => unreachable!("`Memory::text` returns a text"),
    }
}

/// The text of a number, which is always ASCII.
pub(crate) fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
