//! sprig: lists. Each function has a second form with `must`, which returns an error where the first form panics. Here,
//! both forms do the same.

use super::{
    Any, Failure, Function, Int, Memory, Outcome, Value, cast, defaults::deep_equal, function, int, list, variadic,
};
use crate::{
    format,
    value::{Element, List},
};

pub(super) const FUNCTIONS: &[Function] = &[
    variadic("list", &[], Any, make),
    variadic("tuple", &[], Any, make),
    function("first", &[Any], |_, arguments| Ok(list(arguments, 0)?.items().first().cloned().unwrap_or(Value::Nil))),
    function("mustFirst", &[Any], |_, arguments| {
        Ok(list(arguments, 0)?.items().first().cloned().unwrap_or(Value::Nil))
    }),
    function("last", &[Any], |_, arguments| Ok(list(arguments, 0)?.items().last().cloned().unwrap_or(Value::Nil))),
    function("mustLast", &[Any], |_, arguments| Ok(list(arguments, 0)?.items().last().cloned().unwrap_or(Value::Nil))),
    function("rest", &[Any], rest),
    function("mustRest", &[Any], rest),
    function("initial", &[Any], initial),
    function("mustInitial", &[Any], initial),
    function("append", &[Any, Any], append),
    function("mustAppend", &[Any, Any], append),
    function("push", &[Any, Any], append),
    function("mustPush", &[Any, Any], append),
    function("prepend", &[Any, Any], prepend),
    function("mustPrepend", &[Any, Any], prepend),
    variadic("concat", &[], Any, concat),
    function("reverse", &[Any], reverse),
    function("mustReverse", &[Any], reverse),
    function("uniq", &[Any], uniq),
    function("mustUniq", &[Any], uniq),
    variadic("without", &[Any], Any, without),
    variadic("mustWithout", &[Any], Any, without),
    function("has", &[Any, Any], has),
    function("mustHas", &[Any, Any], has),
    function("compact", &[Any], compact),
    function("mustCompact", &[Any], compact),
    variadic("slice", &[Any], Any, slice),
    variadic("mustSlice", &[Any], Any, slice),
    function("chunk", &[Int, Any], chunk),
    function("mustChunk", &[Int, Any], chunk),
    function("until", &[Int], |memory, arguments| {
        let count = int(arguments, 0);
        numbers(memory, 0, count, if count < 0 { -1 } else { 1 })
    }),
    function("untilStep", &[Int, Int, Int], |memory, arguments| {
        numbers(memory, int(arguments, 0), int(arguments, 1), int(arguments, 2))
    }),
    variadic("seq", &[], Int, seq),
    function("sortAlpha", &[Any], sort),
    function("toStrings", &[Any], |memory, arguments| {
        let texts = texts(memory, &arguments[0])?;
        memory.list(Element::Text, texts)
    }),
];

fn make(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    memory.list(Element::Any, arguments.to_vec())
}

/// A new `[]interface {}`; a nil one if there are no items.
fn part(memory: &mut Memory, arguments: &[Value], take: fn(&[Value]) -> &[Value]) -> Outcome {
    match list(arguments, 0)?.items() {
        [] => Ok(Value::List(List::nil(Element::Any))),
        items => memory.list(Element::Any, take(items).to_vec()),
    }
}

fn rest(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    part(memory, arguments, |items| &items[1..])
}

fn initial(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    part(memory, arguments, |items| &items[..items.len() - 1])
}

fn append(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let items = list(arguments, 0)?.items().iter().chain([&arguments[1]]).cloned().collect();
    memory.list(Element::Any, items)
}

fn prepend(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let items = [&arguments[1]].into_iter().chain(list(arguments, 0)?.items()).cloned().collect();
    memory.list(Element::Any, items)
}

fn concat(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let mut items = Vec::new();
    for at in 0..arguments.len() {
        items.extend_from_slice(list(arguments, at)?.items());
    }
    if items.is_empty() { Ok(Value::List(List::nil(Element::Any))) } else { memory.list(Element::Any, items) }
}

fn reverse(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let items = list(arguments, 0)?.items().iter().rev().cloned().collect();
    memory.list(Element::Any, items)
}

fn contains(memory: &mut Memory, items: &[Value], wanted: &Value) -> Result<bool, Failure> {
    for item in items {
        if deep_equal(memory, wanted, item, 0)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn uniq(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let mut kept = Vec::new();
    for item in list(arguments, 0)?.items() {
        if !contains(memory, &kept, item)? {
            kept.push(item.clone());
        }
    }
    memory.list(Element::Any, kept)
}

fn without(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let mut kept = Vec::new();
    for item in list(arguments, 0)?.items() {
        if !contains(memory, &arguments[1..], item)? {
            kept.push(item.clone());
        }
    }
    memory.list(Element::Any, kept)
}

fn has(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    if arguments[1].is_nil() {
        return Ok(Value::Bool(false));
    }
    contains(memory, list(arguments, 1)?.items(), &arguments[0]).map(Value::Bool)
}

fn compact(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let items = list(arguments, 0)?.items().iter().filter(|item| item.is_true(memory)).cloned().collect();
    memory.list(Element::Any, items)
}

fn slice(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let list = list(arguments, 0)?;
    let items = list.items();
    if items.is_empty() {
        return Ok(Value::Nil);
    }
    let bound = |at: usize, otherwise: usize| match arguments.get(at) {
        Some(value) => usize::try_from(cast::to_int(value)).ok(),
        None => Some(otherwise),
    };
    let range = bound(1, 0).zip(bound(2, items.len())).and_then(|(start, end)| items.get(start..end));
    let items = range.ok_or("an index is out of range")?.to_vec();
    memory.list(list.element, items)
}

fn chunk(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let items = list(arguments, 1)?.items();
    let size = usize::try_from(int(arguments, 0)).ok().filter(|size| *size > 0).ok_or("the size is not positive")?;
    // An empty list gives no chunk at all, and not one empty chunk.
    if items.is_empty() {
        return memory.list(Element::List, Vec::new());
    }
    let mut chunks = Vec::new();
    for items in items.chunks(size) {
        chunks.push(memory.list(Element::Any, items.to_vec())?);
    }
    memory.list(Element::List, chunks)
}

/// The numbers from `start` to `stop`, without `stop`.
fn steps(memory: &mut Memory, start: i64, stop: i64, step: i64) -> Result<Vec<i64>, Failure> {
    let mut numbers = Vec::new();
    let mut at = start;
    while step > 0 && at < stop || step < 0 && at > stop {
        memory.budget.step(1)?;
        memory.budget.memory(size_of::<Value>())?;
        numbers.push(at);
        let Some(next) = at.checked_add(step) else { break };
        at = next;
    }
    Ok(numbers)
}

fn numbers(memory: &mut Memory, start: i64, stop: i64, step: i64) -> Outcome {
    let numbers = if start <= stop && step < 0 || start > stop && step >= 0 {
        Vec::new()
    } else {
        steps(memory, start, stop, step)?
    };
    let values = numbers.into_iter().map(|number| Value::Int(crate::value::Int::Int, number)).collect();
    memory.list(Element::Int, values)
}

/// The numbers from the first to the last, which is included, as one text with spaces in between.
fn seq(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let at = |index| int(arguments, index);
    let (start, end, step) = match arguments.len() {
        1 => (1, at(0), if at(0) < 1 { -1 } else { 1 }),
        2 => (at(0), at(1), if at(1) < at(0) { -1 } else { 1 }),
        3 if at(2) < at(0) && at(1) > 0 => return memory.copied(b""),
        3 => (at(0), at(2), at(1)),
        _ => return memory.copied(b""),
    };
    let beyond = if end < start { end.checked_sub(1) } else { end.checked_add(1) };
    let numbers = match beyond {
        Some(beyond) => steps(memory, start, beyond, step)?,
        None => Vec::new(),
    };
    let mut out = memory.buffer();
    for (index, number) in numbers.iter().enumerate() {
        if index > 0 {
            out.push(b" ");
        }
        out.push(number.to_string().as_bytes());
    }
    memory.text(out)
}

fn sort(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let mut texts = match &arguments[0] {
        Value::List(_) => texts(memory, &arguments[0])?,
        other => vec![Value::Text(format::text_of(memory, other)?)],
    };
    let key = |value: &Value| match value {
        Value::Text(text) => text.clone(),
        _ => unreachable!("every item was made a text"),
    };
    texts.sort_by_cached_key(key);
    memory.list(Element::Text, texts)
}

/// Every item as text, without nil items. If the value is not a list, it is the only item.
pub(super) fn texts(memory: &mut Memory, value: &Value) -> Result<Vec<Value>, Failure> {
    let items = match value {
        Value::List(list) => list.items(),
        other => std::slice::from_ref(other),
    };
    let items = items.iter().filter(|item| !item.is_nil());
    items.map(|item| format::text_of(memory, item).map(Value::Text)).collect()
}
