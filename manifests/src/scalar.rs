//! The meaning of a plain scalar by the rules of `sigs.k8s.io/yaml` 1.6 (go-yaml 2.4), which `kubectl` and the API
//! server use: YAML 1.1 booleans (`y`, `yes`, `on`, …), octal `0644` and `0o644`, `0x`, `0b`, and `_` between digits;
//! no numbers to the base of 60, and dates stay text. The values are then converted to JSON, where a float without a
//! fraction becomes an integer (`1.0`, `1e3`). The table test below compares the results with those of these libraries.

use serde_json::{Number, Value};

/// The value of a scalar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text,
}

/// A tag that changes how a scalar is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Str,
    Int,
    Float,
    Bool,
    Null,
    Timestamp,
    Binary,
}

impl Scalar {
    /// Reads a plain scalar without a tag.
    pub(crate) fn plain(text: &str) -> Self {
        if let Some(word) = word(text) {
            return word;
        }
        match text.as_bytes().first() {
            Some(b'.') => dot_float(text),
            Some(b'0'..=b'9' | b'+' | b'-') => number(&text.replace('_', "")),
            _ => None,
        }
        .unwrap_or(Scalar::Text)
    }

    /// Reads a scalar with a tag, quoted or not; `None` if the scalar does not fit the tag. A `!!binary` is decoded
    /// before this.
    pub(crate) fn tagged(tag: Tag, text: &str) -> Option<Self> {
        let read = Scalar::plain(text);
        match (tag, &read) {
            (Tag::Str, _) => Some(Scalar::Text),
            (Tag::Timestamp, _) if begins_with_a_year(text) => Some(Scalar::Text),
            (Tag::Int, Scalar::Int(_) | Scalar::Uint(_))
            | (Tag::Float, Scalar::Float(_) | Scalar::Int(_))
            | (Tag::Bool, Scalar::Bool(_))
            | (Tag::Null, Scalar::Null) => Some(read),
            _ => None,
        }
    }

    /// The JSON value. Text is converted to a string; `None` if JSON cannot represent the value.
    pub(crate) fn into_value(self, text: impl Into<String>) -> Option<Value> {
        Some(match self {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => Value::Bool(value),
            Scalar::Int(value) => value.into(),
            Scalar::Uint(value) => value.into(),
            Scalar::Float(value) => Value::Number(float(value)?),
            Scalar::Text => Value::String(text.into()),
        })
    }

    /// The text of the scalar as the key of a mapping; `None` if it cannot be a key.
    pub(crate) fn into_key(self, text: impl Into<String>) -> Option<String> {
        Some(match self {
            Scalar::Null | Scalar::Uint(_) => return None,
            Scalar::Bool(value) => value.to_string(),
            Scalar::Int(value) => value.to_string(),
            Scalar::Float(value) => float_key(value),
            Scalar::Text => text.into(),
        })
    }
}

/// Whether a plain scalar is text, and not a number, a boolean or null.
pub fn is_text(plain: &str) -> bool {
    Scalar::plain(plain) == Scalar::Text
}

/// The value of a plain scalar: a number, a boolean, null or text.
pub fn plain_scalar(text: &str) -> Value {
    Scalar::plain(text).into_value(text).unwrap_or_else(|| text.into())
}

/// The text that `sigs.k8s.io/yaml` returns for a scalar if a program expects text: `yes` becomes `true`, and a number
/// has the precision of 32 bits. `None` if it is not a scalar.
pub fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) if number.is_f64() => number.as_f64().map(float_key),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether a text with the tag `!!timestamp` may be a date, which stays text. Other text with this tag is refused. The
/// check is simple, so it accepts also some texts that are not dates.
fn begins_with_a_year(text: &str) -> bool {
    text.split_once('-').is_some_and(|(year, _)| year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit()))
}

fn word(text: &str) -> Option<Scalar> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Scalar::Bool(false),
        ".nan" | ".NaN" | ".NAN" => Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Scalar::Float(f64::NEG_INFINITY),
        _ => return None,
    })
}

/// Reads a number that begins with a digit or a sign. Underscores in it are left out.
fn number(plain: &str) -> Option<Scalar> {
    let (negative, unsigned) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain),
    };
    if let Some(magnitude) = integer(unsigned) {
        let signed = i128::from(magnitude) * if negative { -1 } else { 1 };
        if let Ok(value) = i64::try_from(signed) {
            return Some(Scalar::Int(value));
        }
        // Go reads a number as `uint64` only if it is written without a sign.
        if unsigned.len() == plain.len() {
            return Some(Scalar::Uint(magnitude));
        }
    }
    decimal_float(unsigned)?;
    finite(plain)
}

/// Reads an integer as Go does for base 0: `0x`, `0o`, `0b`, a leading `0` for octal, otherwise decimal.
fn integer(text: &str) -> Option<u64> {
    let (radix, digits) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &text[2..]),
        [b'0', b'o' | b'O', ..] => (8, &text[2..]),
        [b'0', b'b' | b'B', ..] => (2, &text[2..]),
        [b'0', _, ..] => (8, &text[1..]),
        _ => (10, text),
    };
    // `from_str_radix` accepts a sign, which is not allowed here.
    if !digits.starts_with(|first: char| first.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// Succeeds for `[0-9]+(\.[0-9]*)?` and `\.[0-9]+`, with or without an exponent.
fn decimal_float(unsigned: &str) -> Option<()> {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && are_digits(fraction),
        Some((whole, fraction)) => are_digits(whole) && are_digits(fraction),
        None => !mantissa.is_empty() && are_digits(mantissa),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && are_digits(digits)
    });
    (mantissa_fits && exponent_fits).then_some(())
}

/// Reads a number that starts with a dot. In such a number, an underscore must be between digits.
fn dot_float(text: &str) -> Option<Scalar> {
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let misplaced = |at: usize| bytes[at] == b'_' && !(is_digit(at.checked_sub(1)) && is_digit(Some(at + 1)));
    if (0..bytes.len()).any(misplaced) {
        return None;
    }
    let plain = text.replace('_', "");
    decimal_float(&plain)?;
    finite(&plain)
}

/// If a float is out of range, Go reads it as text.
fn finite(decimal: &str) -> Option<Scalar> {
    decimal.parse().ok().filter(|value: &f64| value.is_finite()).map(Scalar::Float)
}

/// A float after the conversion to JSON: an integer if Go writes it to JSON with digits only, and it fits into 64 bits.
fn float(value: f64) -> Option<Number> {
    if value.fract() == 0.0
        && value.abs() < 1e21
        && let Ok(integer) = format!("{value}").parse::<i64>()
    {
        return Some(integer.into());
    }
    Number::from_f64(value)
}

/// Go's `FormatFloat(value, 'g', -1, 32)`, with which `sigs.k8s.io/yaml` writes a float as text.
#[expect(clippy::cast_possible_truncation, reason = "the number has a precision of 32 bits")]
fn float_key(value: f64) -> String {
    let value = value as f32;
    if value.is_nan() {
        return ".nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{value}"),
    }
}

#[cfg(test)]
mod tests;
