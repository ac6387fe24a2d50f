//! sprig: texts.

use super::{Any, Failure, Function, Int, Memory, Outcome, Text, Value, function, int, lists::texts, text, variadic};
use crate::{
    format,
    text::{Buffer, Text as Bytes, chars, pieces},
    unicode,
    value::{Element, Entries},
};

pub(super) const FUNCTIONS: &[Function] = &[
    function("toString", &[Any], |memory, arguments| format::text_of(memory, &arguments[0]).map(Value::Text)),
    function("trim", &[Text], |memory, arguments| memory.copied(trimmed(text(arguments, 0), unicode::is_space))),
    function("trimAll", &[Text, Text], trim_all),
    function("trimall", &[Text, Text], trim_all),
    function("trimPrefix", &[Text, Text], |memory, arguments| {
        let (prefix, given) = (text(arguments, 0), text(arguments, 1));
        memory.copied(given.strip_prefix(prefix).unwrap_or(given))
    }),
    function("trimSuffix", &[Text, Text], |memory, arguments| {
        let (suffix, given) = (text(arguments, 0), text(arguments, 1));
        memory.copied(given.strip_suffix(suffix).unwrap_or(given))
    }),
    function("upper", &[Text], |memory, arguments| mapped(memory, text(arguments, 0), unicode::to_upper)),
    function("lower", &[Text], |memory, arguments| mapped(memory, text(arguments, 0), unicode::to_lower)),
    function("repeat", &[Int, Text], |memory, arguments| {
        let mut out = memory.buffer();
        repeat(&mut out, text(arguments, 1), int(arguments, 0))?;
        memory.text(out)
    }),
    function("substr", &[Int, Int, Text], substring),
    function("trunc", &[Int, Text], |memory, arguments| {
        let (count, given) = (int(arguments, 0), text(arguments, 1));
        let size = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        memory.copied(if given.len() <= size {
            given
        } else if count < 0 {
            &given[given.len() - size..]
        } else {
            &given[..size]
        })
    }),
    function("contains", &[Text, Text], |_, arguments| {
        Ok(Value::Bool(memchr::memmem::find(text(arguments, 1), text(arguments, 0)).is_some()))
    }),
    function("hasPrefix", &[Text, Text], |_, arguments| {
        Ok(Value::Bool(text(arguments, 1).starts_with(text(arguments, 0))))
    }),
    function("hasSuffix", &[Text, Text], |_, arguments| {
        Ok(Value::Bool(text(arguments, 1).ends_with(text(arguments, 0))))
    }),
    function("replace", &[Text, Text, Text], replace),
    function("plural", &[Text, Text, Int], |_, arguments| Ok(arguments[usize::from(int(arguments, 2) != 1)].clone())),
    function("indent", &[Int, Text], |memory, arguments| {
        let mut out = memory.buffer();
        indent(&mut out, int(arguments, 0), text(arguments, 1))?;
        memory.text(out)
    }),
    function("nindent", &[Int, Text], |memory, arguments| {
        let mut out = memory.buffer();
        out.push(b"\n");
        indent(&mut out, int(arguments, 0), text(arguments, 1))?;
        memory.text(out)
    }),
    variadic("quote", &[], Any, |memory, arguments| {
        quoted(memory, arguments, |out, text| format::quote(out, text, false))
    }),
    variadic("squote", &[], Any, |memory, arguments| {
        quoted(memory, arguments, |out, text| {
            out.push(b"'");
            out.push(text);
            out.push(b"'");
        })
    }),
    variadic("cat", &[], Any, |memory, arguments| quoted(memory, arguments, Buffer::push)),
    function("join", &[Text, Any], join),
    function("split", &[Text, Text], |memory, arguments| split_map(memory, text(arguments, 0), text(arguments, 1), -1)),
    function("splitn", &[Text, Int, Text], |memory, arguments| {
        split_map(memory, text(arguments, 0), text(arguments, 2), int(arguments, 1))
    }),
    function("splitList", &[Text, Text], |memory, arguments| {
        let parts = split(memory, text(arguments, 0), text(arguments, 1), -1)?;
        memory.list(Element::Text, parts)
    }),
];

/// The text without the characters at its start and at its end for which `drops` is true.
fn trimmed(text: &[u8], drops: impl Fn(char) -> bool) -> &[u8] {
    let dropped = |piece: &(Option<char>, &[u8])| piece.0.is_some_and(&drops);
    let start: usize = pieces(text).take_while(dropped).map(|(_, piece)| piece.len()).sum();
    let rest = &text[start..];
    let mut end = 0;
    let mut at = 0;
    for piece in pieces(rest) {
        at += piece.1.len();
        if !dropped(&piece) {
            end = at;
        }
    }
    &rest[..end]
}

fn trim_all(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let set: std::collections::BTreeSet<char> = chars(text(arguments, 0)).collect();
    memory.copied(trimmed(text(arguments, 1), |char| set.contains(&char)))
}

/// Maps every character to another. As in Go, an ASCII text that does not change is returned as it is, and a byte that
/// is not UTF-8 becomes U+FFFD.
pub(super) fn mapped(memory: &mut Memory, text: &[u8], mut map: impl FnMut(char) -> char) -> Outcome {
    let mut out = memory.buffer();
    for char in chars(text) {
        out.push_char(map(char));
    }
    memory.text(out)
}

fn repeat(out: &mut Buffer, unit: &[u8], times: i64) -> Result<(), Failure> {
    let times = usize::try_from(times).map_err(|_| "a count is negative")?;
    if !unit.is_empty() {
        out.repeat(unit, times);
    }
    Ok(())
}

fn indent(out: &mut Buffer, spaces: i64, text: &[u8]) -> Result<(), Failure> {
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if index > 0 {
            out.push(b"\n");
        }
        repeat(out, b" ", spaces)?;
        out.push(line);
        if out.is_full() {
            break;
        }
    }
    Ok(())
}

fn substring(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let (start, end, given) = (int(arguments, 0), int(arguments, 1), text(arguments, 2));
    let position = |at: i64| usize::try_from(at).ok();
    let part = match (position(start), position(end)) {
        (None, end) => end.and_then(|end| given.get(..end)),
        (Some(start), Some(end)) if end <= given.len() => given.get(start..end),
        (Some(start), _) => given.get(start..),
    };
    memory.copied(part.ok_or("a position is out of range")?)
}

fn replace(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let (old, new, given) = (text(arguments, 0), text(arguments, 1), text(arguments, 2));
    let mut out = memory.buffer();
    if old.is_empty() {
        out.push(new);
        for (_, piece) in pieces(given) {
            out.push(piece);
            out.push(new);
        }
    } else {
        let mut from = 0;
        for at in memchr::memmem::find_iter(given, old) {
            out.push(&given[from..at]);
            out.push(new);
            from = at + old.len();
        }
        out.push(&given[from..]);
    }
    memory.text(out)
}

/// The arguments that are not nil, each written by `write`, separated by spaces.
fn quoted(memory: &mut Memory, arguments: &[Value], write: fn(&mut Buffer, &[u8])) -> Outcome {
    let mut out = memory.buffer();
    for (index, value) in arguments.iter().filter(|value| !value.is_nil()).enumerate() {
        let text = format::text_of(memory, value)?;
        if index > 0 {
            out.push(b" ");
        }
        write(&mut out, &text);
    }
    memory.text(out)
}

fn join(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let texts = texts(memory, &arguments[1])?;
    let mut out = memory.buffer();
    for (index, value) in texts.iter().enumerate() {
        if index > 0 {
            out.push(text(arguments, 0));
        }
        if let Value::Text(text) = value {
            out.push(text);
        }
    }
    memory.text(out)
}

/// The parts between separators, at most `most` of them; all parts if `most` is negative.
pub(super) fn split(memory: &mut Memory, separator: &[u8], given: &[u8], most: i64) -> Result<Vec<Value>, Failure> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut rest = given;
    if most == 0 || separator.is_empty() && given.is_empty() {
        return Ok(parts);
    }
    while parts.len() + 1 < most {
        let found = if separator.is_empty() {
            pieces(rest).next().map(|(_, piece)| piece.len()).filter(|length| *length < rest.len())
        } else {
            memchr::memmem::find(rest, separator)
        };
        let Some(at) = found else { break };
        memory.budget.step(1)?;
        parts.push(memory.copied(&rest[..at])?);
        rest = &rest[at + separator.len()..];
    }
    parts.push(memory.copied(rest)?);
    Ok(parts)
}

/// `{"_0": part, "_1": part, …}`
fn split_map(memory: &mut Memory, separator: &[u8], given: &[u8], most: i64) -> Outcome {
    let parts = split(memory, separator, given, most)?;
    let named = parts.into_iter().enumerate();
    let entries: Entries = named.map(|(index, part)| (Bytes::copied(format!("_{index}").as_bytes()), part)).collect();
    memory.map(Element::Text, entries)
}
