//! Literals: quoted texts, characters, numbers, by the rules of the Go language.

/// A number literal. How it is read depends on the type of the argument for which it is passed.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Number {
    pub(crate) int: Option<i64>,
    pub(crate) float: Option<f64>,
    /// The value of the literal if it is passed for an argument that may have any type.
    pub(crate) ideal: Ideal,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Ideal {
    Int(i64),
    Float(f64),
    /// An integer that fits only an unsigned type.
    TooLarge,
}

/// Length of the quoted text at the start of `text`, including its quotes.
pub(crate) fn quoted_length(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut escaped = false;
    for (at, char) in text.char_indices().skip(1) {
        match char {
            '\n' if quote != '`' => return None,
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            _ if char == quote => return Some(at + quote.len_utf8()),
            _ => {}
        }
    }
    None
}

/// The text between double quotes or backquotes.
pub(crate) fn unquote(quoted: &str) -> Option<Vec<u8>> {
    let inner = quoted.get(1..quoted.len().checked_sub(1)?)?;
    if quoted.starts_with('`') {
        return Some(inner.bytes().filter(|byte| *byte != b'\r').collect());
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while !rest.is_empty() {
        let (unit, length) = unit(rest, '"')?;
        match unit {
            Unit::Byte(byte) => bytes.push(byte),
            Unit::Char(char) => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        rest = &rest[length..];
    }
    Some(bytes)
}

/// The code point of a character in single quotes.
pub(crate) fn char(quoted: &str) -> Option<Number> {
    let inner = quoted.get(1..quoted.len().checked_sub(1)?)?;
    let (unit, length) = unit(inner, '\'')?;
    let code = match unit {
        _ if length != inner.len() => return None,
        Unit::Byte(byte) => i64::from(byte),
        Unit::Char(char) => i64::from(u32::from(char)),
    };
    Some(Number { int: Some(code), float: Some(exact(code)), ideal: Ideal::Int(code) })
}

enum Unit {
    Byte(u8),
    Char(char),
}

/// The first character or escape sequence of `text`, and how many bytes of `text` it takes.
fn unit(text: &str, quote: char) -> Option<(Unit, usize)> {
    let first = text.chars().next()?;
    if first != '\\' {
        return Some((Unit::Char(first), first.len_utf8()));
    }
    let kind = text[1..].chars().next()?;
    let digits = |radix, from: usize, count: usize| {
        let digits = text.get(from..from + count)?;
        let valid = digits.chars().all(|digit| digit.is_digit(radix));
        valid.then(|| u32::from_str_radix(digits, radix).ok())?
    };
    let simple = match kind {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\\' => '\\',
        '"' | '\'' if kind == quote => kind,
        'x' => return Some((Unit::Byte(u8::try_from(digits(16, 2, 2)?).ok()?), 4)),
        '0'..='7' => return Some((Unit::Byte(u8::try_from(digits(8, 1, 3)?).ok()?), 4)),
        'u' => return Some((Unit::Char(char::from_u32(digits(16, 2, 4)?)?), 6)),
        'U' => return Some((Unit::Char(char::from_u32(digits(16, 2, 8)?)?), 10)),
        _ => return None,
    };
    Some((Unit::Char(simple), 2))
}

/// Length of what looks like a number at the start of `text`.
pub(crate) fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let prefixed = |at: usize, letters: [u8; 2]| {
        bytes.get(at) == Some(&b'0') && bytes.get(at + 1).is_some_and(|byte| letters.contains(byte))
    };
    let hexadecimal = prefixed(at, *b"xX");
    let decimal = !hexadecimal && !prefixed(at, *b"oO") && !prefixed(at, *b"bB");
    if !decimal {
        at += 2;
    }
    let is_digit =
        |byte: &u8| *byte == b'_' || if hexadecimal { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() };
    let run = |at: usize| bytes[at..].iter().take_while(|byte| is_digit(byte)).count();
    at += run(at);
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        at += run(at);
    }
    let exponent: &[u8] = if hexadecimal { b"pP" } else { b"eE" };
    if (hexadecimal || decimal) && bytes.get(at).is_some_and(|byte| exponent.contains(byte)) {
        at += 1;
        at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
        at += bytes[at..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'_').count();
    }
    at
}

/// A number literal.
pub(crate) fn number(text: &str) -> Result<Number, &'static str> {
    if let Some(int) = int(text) {
        return Ok(Number { int: Some(int), float: Some(exact(int)), ideal: Ideal::Int(int) });
    }
    if unsigned(text).is_some() {
        return Ok(Number { int: None, float: unsigned(text).map(exact_unsigned), ideal: Ideal::TooLarge });
    }
    let float = float(text).ok_or("a number is malformed")?;
    if !text.contains(['.', 'e', 'E', 'p', 'P']) {
        return Err("a number does not fit into 64 bits");
    }
    let int = as_int(float);
    let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let ideal = match int {
        // Go reads texts like `0x1.8` without an exponent as integers.
        Some(int) if hexadecimal && !text.contains(['p', 'P']) => Ideal::Int(int),
        _ => Ideal::Float(float),
    };
    Ok(Number { int, float: Some(float), ideal })
}

/// `strconv.ParseInt(text, 0, 64)`.
pub(crate) fn int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = unsigned(digits)?;
    if negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// `strconv.ParseUint(text, 0, 64)`.
pub(crate) fn unsigned(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let (radix, digits) = match bytes {
        [b'0', b'x' | b'X', ..] => (16, &text[2..]),
        [b'0', b'o' | b'O', ..] => (8, &text[2..]),
        [b'0', b'b' | b'B', ..] => (2, &text[2..]),
        [b'0', _, ..] => (8, &text[1..]),
        _ => (10, text),
    };
    if digits.contains('_') && !underscores(text) {
        return None;
    }
    let plain = digits.replace('_', "");
    if plain.is_empty() || !plain.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(&plain, radix).ok()
}

/// `strconv.ParseFloat(text, 64)`; `None` also if the number is too large.
pub(crate) fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    match unsigned.to_ascii_lowercase().as_str() {
        "inf" | "infinity" => return Some(sign * f64::INFINITY),
        "nan" => return Some(f64::NAN),
        _ => {}
    }
    if unsigned.contains('_') && !underscores(unsigned) {
        return None;
    }
    let unsigned = unsigned.replace('_', "");
    if unsigned.starts_with("0x") || unsigned.starts_with("0X") {
        return hexadecimal(&unsigned[2..]).map(|float| sign * float);
    }
    let valid = unsigned.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    let value: f64 = if valid { unsigned.parse().ok()? } else { return None };
    value.is_finite().then_some(sign * value)
}

/// `1.8p3`: digits to the base 16, with a required exponent to the base 2.
fn hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 13 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mantissa = i64::from_str_radix(&digits, 16).ok()?;
    let shift = exponent.checked_sub(4 * i32::try_from(fraction.len()).ok()?)?;
    let value = exact(mantissa) * 2.0_f64.powi(shift);
    value.is_finite().then_some(value)
}

/// Whether every underscore is between two digits, or between a base prefix and a digit.
fn underscores(text: &str) -> bool {
    let bytes = text.as_bytes();
    let based = bytes.first() == Some(&b'0') && bytes.get(1).is_some_and(u8::is_ascii_alphabetic);
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'_').all(|(at, _)| {
        let after_prefix = based && at == 2;
        at > 0 && (after_prefix || is_digit(at - 1)) && is_digit(at + 1)
    })
}

/// The float, if it is a whole number that fits into an `int64`.
fn as_int(float: f64) -> Option<i64> {
    let int = truncated(float);
    (exact(int).to_bits() == float.to_bits() || (float == 0.0 && int == 0)).then_some(int)
}

/// Go's conversion from `float64` to `int64` on a 64-bit processor: a number that does not fit becomes the smallest
/// `int64`.
#[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
pub(crate) fn truncated(float: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float) { float as i64 } else { i64::MIN }
}

/// Go's conversion from `int64` to `float64`.
#[expect(clippy::cast_precision_loss, reason = "as in Go")]
pub(crate) fn exact(int: i64) -> f64 {
    int as f64
}

#[expect(clippy::cast_precision_loss, reason = "as in Go")]
pub(crate) fn exact_unsigned(int: u64) -> f64 {
    int as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscores_stand_between_digits() {
        for (text, value) in
            [("1_000", 1000), ("0x_ff", 255), ("0b1_0", 2), ("0_7", 7), ("017", 15), ("-0x1F", -31), ("+5", 5)]
        {
            assert_eq!(int(text), Some(value), "{text}");
        }
        for text in ["_1", "1_", "1__0", "0x", "08", "", "-", "1e3", "0x_", "9223372036854775808"] {
            assert_eq!(int(text), None, "{text}");
        }
    }
}
