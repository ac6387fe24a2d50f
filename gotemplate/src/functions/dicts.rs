//! sprig: dictionaries. Where the order of keys is random in Go, the keys are sorted here.

use super::{
    Any, Dict, Failure, Function, Map, Memory, Outcome, Text, Value, defaults::entries, dict, function, text, variadic,
};
use crate::{
    format,
    limits::VALUE_NESTING,
    value::{Element, Entries},
};

pub(super) const FUNCTIONS: &[Function] = &[
    variadic("dict", &[], Any, make),
    function("get", &[Dict, Text], |memory, arguments| {
        match memory.entries(dict(arguments, 0)).get(text(arguments, 1)) {
            Some(value) => Ok(value.clone()),
            None => memory.copied(b""),
        }
    }),
    function("set", &[Dict, Text, Any], |memory, arguments| {
        memory.set(dict(arguments, 0), text(arguments, 1), Some(arguments[2].clone()))?;
        Ok(arguments[0].clone())
    }),
    function("unset", &[Dict, Text], |memory, arguments| {
        memory.set(dict(arguments, 0), text(arguments, 1), None)?;
        Ok(arguments[0].clone())
    }),
    function("hasKey", &[Dict, Text], |memory, arguments| {
        Ok(Value::Bool(memory.entries(dict(arguments, 0)).contains_key(text(arguments, 1))))
    }),
    variadic("pluck", &[Text], Dict, |memory, arguments| {
        let key = text(arguments, 0);
        let dicts = 1..arguments.len();
        let found = dicts.filter_map(|at| memory.entries(dict(arguments, at)).get(key).cloned()).collect();
        memory.list(Element::Any, found)
    }),
    variadic("keys", &[], Dict, |memory, arguments| {
        let dicts = 0..arguments.len();
        let keys = dicts.flat_map(|at| memory.entries(dict(arguments, at)).keys().cloned().map(Value::Text)).collect();
        memory.list(Element::Text, keys)
    }),
    function("values", &[Dict], |memory, arguments| {
        let values = memory.entries(dict(arguments, 0)).values().cloned().collect();
        memory.list(Element::Any, values)
    }),
    variadic("pick", &[Dict], Text, |memory, arguments| chosen(memory, arguments, true)),
    variadic("omit", &[Dict], Text, |memory, arguments| chosen(memory, arguments, false)),
    variadic("merge", &[Dict], Dict, |memory, arguments| merge(memory, arguments, false)),
    variadic("mustMerge", &[Dict], Dict, |memory, arguments| merge(memory, arguments, false)),
    variadic("mergeOverwrite", &[Dict], Dict, |memory, arguments| merge(memory, arguments, true)),
    variadic("mustMergeOverwrite", &[Dict], Dict, |memory, arguments| merge(memory, arguments, true)),
    variadic("dig", &[], Any, dig),
    function("deepCopy", &[Any], |memory, arguments| copy(memory, &arguments[0], 0)),
    function("mustDeepCopy", &[Any], |memory, arguments| copy(memory, &arguments[0], 0)),
];

fn make(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let mut made = Entries::new();
    for pair in arguments.chunks(2) {
        let key = format::text_of(memory, &pair[0])?;
        let value = match pair.get(1) {
            Some(value) => value.clone(),
            None => memory.copied(b"")?,
        };
        made.insert(key, value);
    }
    memory.map(Element::Any, made)
}

/// A dictionary with only the given keys, or, if they are not `wanted`, without these keys.
fn chosen(memory: &mut Memory, arguments: &[Value], wanted: bool) -> Outcome {
    let keys: std::collections::BTreeSet<&[u8]> = (1..arguments.len()).map(|at| text(arguments, at)).collect();
    let all = memory.entries(dict(arguments, 0)).iter();
    let kept = all.filter(|(key, _)| keys.contains(&***key) == wanted).map(|(key, value)| (key.clone(), value.clone()));
    let kept = kept.collect();
    memory.map(Element::Any, kept)
}

/// `dig "a" "b" "default" $dict` is `$dict.a.b`, or the default where a key is missing.
fn dig(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let [keys @ .., default, start] = arguments else { return Err("takes at least 3 arguments".into()) };
    if keys.is_empty() {
        return Err("takes at least 3 arguments".into());
    }
    if keys.iter().any(|key| !matches!(key, Value::Text(_))) {
        return Err("a key is not a string".into());
    }
    let mut found = start.clone();
    for key in keys {
        let Value::Map(map) = &found else { return Err("a value on the path is not a dictionary".into()) };
        if map.element != Element::Any {
            return Err("a value on the path is not a map[string]interface {}".into());
        }
        let Value::Text(key) = key else { unreachable!("every key was checked to be a text") };
        match memory.entries(*map).get(&**key) {
            Some(value) => found = value.clone(),
            None => return Ok(default.clone()),
        }
    }
    Ok(found)
}

fn merge(memory: &mut Memory, arguments: &[Value], overwrite: bool) -> Outcome {
    let target = dict(arguments, 0);
    for at in 1..arguments.len() {
        let source = dict(arguments, at);
        if target.is_nil() && !source.is_nil() {
            return Err("the dictionary is nil".into());
        }
        merge_into(memory, target, source, overwrite, 0)?;
    }
    Ok(arguments[0].clone())
}

/// Copies keys that are missing or empty in `target` from `source`; with `overwrite`, all keys. If a key has a
/// dictionary in both, these dictionaries are merged.
fn merge_into(memory: &mut Memory, target: Map, source: Map, overwrite: bool, depth: usize) -> Result<(), Failure> {
    if depth > VALUE_NESTING {
        return Err(Failure::Limit("values are nested too deeply"));
    }
    for (key, value) in entries(memory, source) {
        memory.budget.step(1)?;
        if value.is_nil() && !overwrite {
            continue;
        }
        let present = memory.entries(target).get(&key).cloned();
        let filled = present.as_ref().filter(|present| present.is_true(memory));
        match (filled, &value) {
            (Some(Value::Map(inner)), Value::Map(other)) if inner.element == Element::Any => {
                merge_into(memory, *inner, *other, overwrite, depth + 1)?;
            }
            (Some(_), _) if !overwrite => {}
            _ => memory.set(target, &key, Some(value))?,
        }
    }
    Ok(())
}

fn copy(memory: &mut Memory, value: &Value, depth: usize) -> Outcome {
    if depth > VALUE_NESTING {
        return Err(Failure::Limit("values are nested too deeply"));
    }
    memory.budget.step(1)?;
    match value {
        Value::List(list) if !list.is_nil() => {
            let items: Vec<Value> =
                list.items().iter().map(|item| copy(memory, item, depth + 1)).collect::<Result<_, _>>()?;
            memory.list(list.element, items)
        }
        Value::Map(map) if !map.is_nil() => {
            let mut copied = Entries::new();
            for (key, value) in entries(memory, *map) {
                let value = copy(memory, &value, depth + 1)?;
                copied.insert(key, value);
            }
            memory.map(map.element, copied)
        }
        other => Ok(other.clone()),
    }
}
