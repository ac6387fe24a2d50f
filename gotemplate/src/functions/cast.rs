//! Converts any value to a number, as sprig does. If this is not possible, the result is 0.

use super::Value;
use crate::literal;

/// `cast.ToInt64`
pub(super) fn to_int(value: &Value) -> i64 {
    match value {
        Value::Int(_, int) => *int,
        Value::Uint(_, int) => int.cast_signed(),
        Value::Float(float) => literal::truncated(*float),
        Value::Bool(value) => i64::from(*value),
        Value::Text(text) => std::str::from_utf8(text).ok().and_then(|text| literal::int(whole(text))).unwrap_or(0),
        _ => 0,
    }
}

/// `cast.ToFloat64`
pub(super) fn to_float(value: &Value) -> f64 {
    match value {
        Value::Int(_, int) => literal::exact(*int),
        Value::Uint(_, int) => literal::exact_unsigned(*int),
        Value::Float(float) => *float,
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Text(text) => std::str::from_utf8(text).ok().and_then(literal::float).unwrap_or(0.0),
        _ => 0.0,
    }
}

/// `1.00` as `1`.
fn whole(text: &str) -> &str {
    let trimmed = text.trim_end_matches('0');
    if trimmed.len() < text.len() { trimmed.strip_suffix('.').unwrap_or(text) } else { text }
}
