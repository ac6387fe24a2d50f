//! sprig: defaults, types, flow.

use super::{Any, Bool, Function, Memory, Outcome, Special, Text, Value, function, text, variadic};
use crate::{error::Failure, limits::VALUE_NESTING};

pub(super) const FUNCTIONS: &[Function] = &[
    variadic("default", &[Any], Any, |memory, arguments| {
        let given = arguments.get(1).filter(|given| given.is_true(memory));
        Ok(given.unwrap_or(&arguments[0]).clone())
    }),
    function("empty", &[Any], |memory, arguments| Ok(Value::Bool(!arguments[0].is_true(memory)))),
    variadic("coalesce", &[], Any, |memory, arguments| {
        Ok(arguments.iter().find(|value| value.is_true(memory)).cloned().unwrap_or(Value::Nil))
    }),
    variadic("all", &[], Any, |memory, arguments| Ok(Value::Bool(arguments.iter().all(|value| value.is_true(memory))))),
    variadic("any", &[], Any, |memory, arguments| Ok(Value::Bool(arguments.iter().any(|value| value.is_true(memory))))),
    function("ternary", &[Any, Any, Bool], |_, arguments| {
        Ok(arguments[usize::from(matches!(arguments[2], Value::Bool(false)))].clone())
    }),
    Function { special: Special::Fail, ..function("fail", &[Text], |_, _| Err("the template says so".into())) },
    function("typeOf", &[Any], |memory, arguments| memory.copied(arguments[0].type_name().as_bytes())),
    function("typeIs", &[Text, Any], type_is),
    function("typeIsLike", &[Text, Any], type_is),
    function("kindOf", &[Any], |memory, arguments| memory.copied(arguments[0].kind_name().as_bytes())),
    function("kindIs", &[Text, Any], |_, arguments| {
        Ok(Value::Bool(text(arguments, 0) == arguments[1].kind_name().as_bytes()))
    }),
    function("deepEqual", &[Any, Any], |memory, arguments| {
        deep_equal(memory, &arguments[0], &arguments[1], 0).map(Value::Bool)
    }),
];

#[expect(clippy::unnecessary_wraps, reason = "all functions have this return type")]
fn type_is(_: &mut Memory, arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(text(arguments, 0) == arguments[1].type_name().as_bytes()))
}

/// `reflect.DeepEqual`: the types must be the same, too.
#[expect(clippy::float_cmp, reason = "as in Go")]
pub(super) fn deep_equal(memory: &mut Memory, one: &Value, other: &Value, depth: usize) -> Result<bool, Failure> {
    memory.budget.step(1)?;
    if depth > VALUE_NESTING {
        return Err(Failure::Limit("values are nested too deeply"));
    }
    Ok(match (one, other) {
        (Value::Missing | Value::Nil, Value::Missing | Value::Nil) => true,
        (Value::Bool(one), Value::Bool(other)) => one == other,
        (Value::Int(kind, one), Value::Int(other_kind, other)) => kind == other_kind && one == other,
        (Value::Uint(kind, one), Value::Uint(other_kind, other)) => kind == other_kind && one == other,
        (Value::Float(one), Value::Float(other)) => one == other,
        (Value::Text(one), Value::Text(other)) => {
            memory.budget.step(one.len() / 1024)?;
            one == other
        }
        (Value::List(one), Value::List(other)) => {
            let alike = one.element == other.element
                && one.is_nil() == other.is_nil()
                && one.items().len() == other.items().len();
            if !alike {
                return Ok(false);
            }
            for (one, other) in one.items().iter().zip(other.items()) {
                if !deep_equal(memory, one, other, depth + 1)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Map(one), Value::Map(other)) => {
            if one.element != other.element || one.is_nil() != other.is_nil() {
                return Ok(false);
            }
            if one.is_same(*other) {
                return Ok(true);
            }
            let one: Vec<_> = entries(memory, *one);
            let other = entries(memory, *other);
            if one.len() != other.len() {
                return Ok(false);
            }
            for ((key, one), (other_key, other)) in one.iter().zip(&other) {
                if key != other_key || !deep_equal(memory, one, other, depth + 1)? {
                    return Ok(false);
                }
            }
            true
        }
        _ => false,
    })
}

/// A copy of the entries of a dictionary, so that the dictionary can be changed during a loop over the entries.
pub(super) fn entries(memory: &Memory, map: super::Map) -> Vec<(crate::text::Text, Value)> {
    memory.entries(map).iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}
