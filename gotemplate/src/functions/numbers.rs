//! sprig: arithmetic. Integers wrap around as Go's do.

use num_bigint::{BigInt, Sign};

use super::{
    Any, Failure, Float, Function, Int, Memory, Outcome, Text, Value,
    cast::{to_float, to_int},
    function, int, text, variadic,
};
use crate::{format, literal};

pub(super) const FUNCTIONS: &[Function] = &[
    function("int64", &[Any], |_, arguments| Ok(Value::int64(to_int(&arguments[0])))),
    function("int", &[Any], |_, arguments| Ok(Value::Int(crate::value::Int::Int, to_int(&arguments[0])))),
    function("float64", &[Any], |_, arguments| Ok(Value::Float(to_float(&arguments[0])))),
    function("atoi", &[Text], |_, arguments| Ok(Value::Int(crate::value::Int::Int, decimal(text(arguments, 0))))),
    function("toDecimal", &[Any], |memory, arguments| {
        let text = format::text_of(memory, &arguments[0])?;
        Ok(Value::int64(octal(format::ascii(&text))))
    }),
    function("add1", &[Any], |_, arguments| Ok(Value::int64(to_int(&arguments[0]).wrapping_add(1)))),
    variadic("add", &[], Any, |_, arguments| folded(0, arguments, i64::wrapping_add)),
    function("sub", &[Any, Any], |_, arguments| folded(to_int(&arguments[0]), &arguments[1..], i64::wrapping_sub)),
    function("div", &[Any, Any], |_, arguments| divided(arguments, i64::wrapping_div)),
    function("mod", &[Any, Any], |_, arguments| divided(arguments, i64::wrapping_rem)),
    variadic("mul", &[Any], Any, |_, arguments| folded(to_int(&arguments[0]), &arguments[1..], i64::wrapping_mul)),
    variadic("max", &[Any], Any, |_, arguments| folded(to_int(&arguments[0]), &arguments[1..], i64::max)),
    variadic("biggest", &[Any], Any, |_, arguments| folded(to_int(&arguments[0]), &arguments[1..], i64::max)),
    variadic("min", &[Any], Any, |_, arguments| folded(to_int(&arguments[0]), &arguments[1..], i64::min)),
    variadic("maxf", &[Any], Any, |_, arguments| extreme(arguments, true)),
    variadic("minf", &[Any], Any, |_, arguments| extreme(arguments, false)),
    function("floor", &[Any], |_, arguments| Ok(Value::Float(to_float(&arguments[0]).floor()))),
    function("ceil", &[Any], |_, arguments| Ok(Value::Float(to_float(&arguments[0]).ceil()))),
    variadic("round", &[Any, Int], Float, round),
    function("add1f", &[Any], |memory, arguments| exact(memory, &arguments[0], &[Value::Float(1.0)], Decimal::add)),
    variadic("addf", &[], Any, |memory, arguments| exact(memory, &Value::Float(0.0), arguments, Decimal::add)),
    variadic("subf", &[Any], Any, |memory, arguments| exact(memory, &arguments[0], &arguments[1..], Decimal::sub)),
    variadic("mulf", &[Any], Any, |memory, arguments| exact(memory, &arguments[0], &arguments[1..], Decimal::mul)),
    variadic("divf", &[Any], Any, |memory, arguments| exact(memory, &arguments[0], &arguments[1..], Decimal::div)),
];

#[expect(clippy::unnecessary_wraps, reason = "all functions have this return type")]
fn folded(start: i64, others: &[Value], combine: fn(i64, i64) -> i64) -> Outcome {
    Ok(Value::int64(others.iter().map(to_int).fold(start, combine)))
}

fn divided(arguments: &[Value], combine: fn(i64, i64) -> i64) -> Outcome {
    match to_int(&arguments[1]) {
        0 => Err("division by zero".into()),
        divisor => Ok(Value::int64(combine(to_int(&arguments[0]), divisor))),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "all functions have this return type")]
fn extreme(arguments: &[Value], largest: bool) -> Outcome {
    let combine = |one: f64, other: f64| match () {
        // Unlike Rust, Go returns NaN as soon as one argument is NaN.
        () if one.is_nan() || other.is_nan() => f64::NAN,
        () if largest => one.max(other),
        () => one.min(other),
    };
    Ok(Value::Float(arguments.iter().map(to_float).reduce(combine).unwrap_or(0.0)))
}

#[expect(clippy::unnecessary_wraps, reason = "all functions have this return type")]
fn round(_: &mut Memory, arguments: &[Value]) -> Outcome {
    let from = match arguments.get(2) {
        Some(Value::Float(from)) => *from,
        _ => 0.5,
    };
    let places = i32::try_from(int(arguments, 1).clamp(-400, 400)).unwrap_or(0);
    // The same value as Go's `math.Pow(10, places)`, if a float can represent that power of ten exactly.
    let power: f64 = format!("1e{places}").parse().unwrap_or(f64::INFINITY);
    let scaled = power * to_float(&arguments[0]);
    let rounded = if scaled.fract() >= from { scaled.ceil() } else { scaled.floor() };
    Ok(Value::Float(rounded / power))
}

/// `strconv.Atoi` without its error. Out of range, the result is the nearest number.
fn decimal(text: &[u8]) -> i64 {
    let text = format::ascii(text);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    text.parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX })
}

fn octal(text: &str) -> i64 {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { i64::from_str_radix(text, 8).unwrap_or(0) } else { 0 }
}

/// A decimal number without limits: `digits` times ten to the power of `exponent`.
struct Decimal {
    digits: BigInt,
    exponent: i32,
}

impl Decimal {
    fn from(float: f64) -> Result<Self, Failure> {
        if !float.is_finite() {
            return Err("a number is infinite or NaN".into());
        }
        let text = format!("{float:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let digits = mantissa.replace('.', "").parse().unwrap_or_default();
        let exponent: i32 = exponent.parse().unwrap_or(0);
        Ok(Self { digits, exponent: exponent - i32::try_from(fraction).unwrap_or(0) })
    }

    fn at(&self, exponent: i32) -> BigInt {
        &self.digits * ten((self.exponent - exponent).unsigned_abs())
    }

    #[expect(clippy::unnecessary_wraps, reason = "all operations have this return type")]
    fn add(&self, other: &Self) -> Result<Self, Failure> {
        let exponent = self.exponent.min(other.exponent);
        Ok(Self { digits: self.at(exponent) + other.at(exponent), exponent })
    }

    fn sub(&self, other: &Self) -> Result<Self, Failure> {
        self.add(&Self { digits: -&other.digits, exponent: other.exponent })
    }

    #[expect(clippy::unnecessary_wraps, reason = "all operations have this return type")]
    fn mul(&self, other: &Self) -> Result<Self, Failure> {
        Ok(Self { digits: &self.digits * &other.digits, exponent: self.exponent + other.exponent })
    }

    /// Divides. The result has 16 digits after the point, and halves are rounded away from zero.
    fn div(&self, other: &Self) -> Result<Self, Failure> {
        const PRECISION: i32 = 16;
        if other.digits.sign() == Sign::NoSign {
            return Err("division by zero".into());
        }
        let shift = self.exponent - other.exponent + PRECISION;
        let (mut dividend, mut divisor) = (self.digits.clone(), other.digits.clone());
        if shift >= 0 {
            dividend *= ten(shift.unsigned_abs());
        } else {
            divisor *= ten(shift.unsigned_abs());
        }
        let (quotient, remainder) = (&dividend / &divisor, &dividend % &divisor);
        let up = remainder.magnitude() * 2_u8 >= *divisor.magnitude();
        let away = if dividend.sign() == divisor.sign() { 1 } else { -1 };
        Ok(Self { digits: quotient + if up { away } else { 0 }, exponent: -PRECISION })
    }

    fn to_float(&self) -> f64 {
        literal::float(&format!("{}e{}", self.digits, self.exponent)).unwrap_or(f64::INFINITY)
    }
}

fn ten(exponent: u32) -> BigInt {
    BigInt::from(10).pow(exponent)
}

/// Combines the numbers exactly, as sprig does with decimals, and converts the result to a float.
fn exact(
    memory: &mut Memory,
    first: &Value,
    others: &[Value],
    combine: fn(&Decimal, &Decimal) -> Result<Decimal, Failure>,
) -> Outcome {
    /// Numbers with more digits than this are not computed.
    const DIGITS: u64 = 64_000;
    let mut result = Decimal::from(to_float(first))?;
    for other in others {
        result = combine(&result, &Decimal::from(to_float(other))?)?;
        if result.digits.bits() > DIGITS || result.exponent.unsigned_abs() > 32_000 {
            return Err(Failure::Limit("a result has too many digits"));
        }
        memory.budget.step(1 + usize::try_from(result.digits.bits() / 64).unwrap_or(0))?;
    }
    Ok(Value::Float(result.to_float()))
}
