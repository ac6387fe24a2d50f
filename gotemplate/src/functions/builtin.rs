//! The functions of `text/template` itself. `slice` is sprig's, which replaces Go's.

use super::{Any, Failure, Function, Memory, Outcome, Reflect, Special, Text, Value, function, text, variadic};
use crate::{
    format, printf,
    text::{Buffer, pieces},
    unicode,
    value::Element,
};

pub(super) const FUNCTIONS: &[Function] = &[
    Function { special: Special::Or(false), ..variadic("and", &[Reflect], Reflect, decided) },
    Function { special: Special::Or(true), ..variadic("or", &[Reflect], Reflect, decided) },
    function("not", &[Reflect], |memory, arguments| Ok(Value::Bool(!arguments[0].is_true(memory)))),
    variadic("eq", &[Reflect], Reflect, equal),
    function("ne", &[Reflect, Reflect], |memory, arguments| not(equal(memory, arguments)?)),
    function("lt", &[Reflect, Reflect], less),
    function("le", &[Reflect, Reflect], less_or_equal),
    function("gt", &[Reflect, Reflect], |memory, arguments| not(less_or_equal(memory, arguments)?)),
    function("ge", &[Reflect, Reflect], |memory, arguments| not(less(memory, arguments)?)),
    function("len", &[Reflect], length),
    variadic("index", &[Reflect], Reflect, index),
    variadic("print", &[], Any, |memory, arguments| {
        let mut out = memory.buffer();
        format::print(memory, &mut out, arguments)?;
        memory.text(out)
    }),
    variadic("println", &[], Any, println),
    variadic("printf", &[Text], Any, |memory, arguments| {
        let out = printf::printf(memory, text(arguments, 0), &arguments[1..])?;
        memory.text(out)
    }),
    variadic("html", &[], Any, |memory, arguments| escaped(memory, arguments, html)),
    variadic("js", &[], Any, |memory, arguments| escaped(memory, arguments, js)),
    variadic("urlquery", &[], Any, |memory, arguments| escaped(memory, arguments, url_query)),
    variadic("call", &[Reflect], Reflect, |_, _| {
        Err("no value of a template is a function that could be called".into())
    }),
];

fn decided(_: &mut Memory, _: &[Value]) -> Outcome {
    unreachable!("`and` and `or` are evaluated by the executor, not by this function")
}

#[expect(clippy::unnecessary_wraps, reason = "all functions have this return type")]
fn not(value: Value) -> Outcome {
    Ok(Value::Bool(!matches!(value, Value::Bool(true))))
}

/// Whether the first argument is equal to one of the others.
fn equal(_: &mut Memory, arguments: &[Value]) -> Outcome {
    let [first, others @ ..] = arguments else { return Err("an argument is missing".into()) };
    if others.is_empty() {
        return Err("an argument is missing".into());
    }
    for other in others {
        if equal_two(first, other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

#[expect(clippy::float_cmp, reason = "as in Go")]
fn equal_two(one: &Value, other: &Value) -> Result<bool, Failure> {
    match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => Ok(one == other),
        (Value::Int(_, one), Value::Int(_, other)) => Ok(one == other),
        (Value::Uint(_, one), Value::Uint(_, other)) => Ok(one == other),
        (Value::Int(_, one), Value::Uint(_, other)) | (Value::Uint(_, other), Value::Int(_, one)) => {
            Ok(u64::try_from(*one).is_ok_and(|one| one == *other))
        }
        (Value::Float(one), Value::Float(other)) => Ok(one == other),
        (Value::Text(one), Value::Text(other)) => Ok(one == other),
        (Value::Missing | Value::Nil, other) | (other, Value::Missing | Value::Nil) => Ok(match other {
            Value::Missing | Value::Nil => true,
            Value::List(list) => list.is_nil(),
            Value::Map(map) => map.is_nil(),
            _ => false,
        }),
        (Value::List(one), Value::List(other)) if one.is_nil() || other.is_nil() => Ok(one.is_nil() == other.is_nil()),
        (Value::Map(one), Value::Map(other)) if one.is_nil() || other.is_nil() => Ok(one.is_nil() == other.is_nil()),
        _ => Err(incomparable(one, other)),
    }
}

fn incomparable(one: &Value, other: &Value) -> Failure {
    format!("{} and {} cannot be compared", one.type_name(), other.type_name()).into()
}

fn less(_: &mut Memory, arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(match (&arguments[0], &arguments[1]) {
        (Value::Int(_, one), Value::Int(_, other)) => one < other,
        (Value::Uint(_, one), Value::Uint(_, other)) => one < other,
        (Value::Int(_, one), Value::Uint(_, other)) => i128::from(*one) < i128::from(*other),
        (Value::Uint(_, one), Value::Int(_, other)) => i128::from(*one) < i128::from(*other),
        (Value::Float(one), Value::Float(other)) => one < other,
        (Value::Text(one), Value::Text(other)) => one < other,
        (one, other) => return Err(incomparable(one, other)),
    }))
}

fn less_or_equal(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    match less(memory, arguments)? {
        Value::Bool(false) => equal(memory, arguments),
        less => Ok(less),
    }
}

fn length(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    Ok(Value::int(match &arguments[0] {
        Value::Text(text) => text.len(),
        Value::List(list) => list.items().len(),
        Value::Map(map) => memory.entries(*map).len(),
        other => return Err(format!("a {} has no length", other.type_name()).into()),
    }))
}

/// `index x 1 "a"` is `x[1]["a"]`.
fn index(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let (item, indexes) = arguments.split_first().expect("one argument is declared");
    if item.is_nil() {
        return Err("the value is nil".into());
    }
    let mut item = item.clone();
    for index in indexes {
        let position = |length: usize| -> Result<usize, Failure> {
            let position = match index {
                Value::Int(_, int) => usize::try_from(*int).ok(),
                Value::Uint(_, int) => usize::try_from(*int).ok(),
                other => return Err(format!("an index is {}, not an integer", other.type_name()).into()),
            };
            position.filter(|position| *position < length).ok_or_else(|| "an index is out of range".into())
        };
        item = match &item {
            Value::Text(text) => Value::Uint(crate::value::Uint::Uint8, text[position(text.len())?].into()),
            Value::List(list) => list.items()[position(list.items().len())?].clone(),
            Value::Map(map) => {
                let Value::Text(key) = index else {
                    return Err(format!("an index of a dictionary is {}, not a string", index.type_name()).into());
                };
                match memory.entries(*map).get(&**key) {
                    Some(value) => value.clone(),
                    None if map.element == Element::Text => memory.copied(b"")?,
                    None => Value::Nil,
                }
            }
            other => return Err(format!("a {} has no index", other.type_name()).into()),
        };
    }
    Ok(item)
}

fn println(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let mut out = memory.buffer();
    for (at, value) in arguments.iter().enumerate() {
        if at > 0 {
            out.push(b" ");
        }
        format::display(memory, &mut out, value)?;
    }
    out.push(b"\n");
    memory.text(out)
}

/// The arguments as one text, escaped.
fn escaped(memory: &mut Memory, arguments: &[Value], escape: fn(&mut Buffer, &[u8])) -> Outcome {
    let mut plain = memory.buffer();
    let shown: Vec<Value> = arguments
        .iter()
        .map(|value| if value.is_nil() { memory.copied(b"<no value>") } else { Ok(value.clone()) })
        .collect::<Result<_, _>>()?;
    format::print(memory, &mut plain, &shown)?;
    if plain.is_full() {
        return memory.text(plain);
    }
    let mut out = memory.buffer();
    escape(&mut out, plain.bytes());
    memory.text(out)
}

fn html(out: &mut Buffer, text: &[u8]) {
    for byte in text {
        match byte {
            0 => out.push("\u{fffd}".as_bytes()),
            b'"' => out.push(b"&#34;"),
            b'\'' => out.push(b"&#39;"),
            b'&' => out.push(b"&amp;"),
            b'<' => out.push(b"&lt;"),
            b'>' => out.push(b"&gt;"),
            byte => out.push(&[*byte]),
        }
    }
}

fn js(out: &mut Buffer, text: &[u8]) {
    for (char, piece) in pieces(text) {
        match char {
            Some('\\') => out.push(b"\\\\"),
            Some('\'') => out.push(b"\\'"),
            Some('"') => out.push(b"\\\""),
            Some(char) if matches!(char, '<' | '>' | '&' | '=') || char < ' ' => {
                out.push(format!("\\u{:04X}", u32::from(char)).as_bytes());
            }
            Some(char) if char.is_ascii() || unicode::is_print(char) => out.push(piece),
            // Go reads a byte that is not UTF-8 as U+FFFD, which is printable, and writes the byte unchanged.
            None => out.push(piece),
            Some(char) => out.push(format!("\\u{:04X}", u32::from(char)).as_bytes()),
        }
    }
}

pub(super) fn url_query(out: &mut Buffer, text: &[u8]) {
    for byte in text {
        match byte {
            b' ' => out.push(b"+"),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) => out.push(&[*byte]),
            byte => out.push(format!("%{byte:02X}").as_bytes()),
        }
    }
}
