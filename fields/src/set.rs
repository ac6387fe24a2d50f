//! Sets of fields in the form of `managedFields`.
//!
//! A set is a tree of JSON objects. A key is `f:NAME` (a field), `k:{…}` (an item of a list, identified by the values
//! of its keys), `v:VALUE` (an item of a list, identified by its value) or `i:N` (an item, by its index). A leaf is an
//! empty object. The key `.` means that the field or item itself is in the set, not only what is below it.

use manifests::printable;
use serde_json::{Map, Value};

/// The key that means that the field or item itself is in the set.
const ITSELF: &str = ".";

/// Adds everything in `more` to `set`.
pub fn unite(set: &mut Value, more: &Value) {
    match (set, more) {
        (Value::Object(set), Value::Object(more)) => {
            for (key, child) in more {
                unite(set.entry(key).or_insert(Value::Null), child);
            }
        }
        (set, more) => *set = more.clone(),
    }
}

/// Everything that is in `set` and not in `other`; an empty object if there is nothing.
pub fn without(set: &Value, other: &Value) -> Value {
    let (Some(set), Some(other)) = (set.as_object(), other.as_object()) else { return set.clone() };
    let mut rest = Map::new();
    for (key, child) in set {
        let Some(theirs) = other.get(key) else {
            rest.insert(key.clone(), child.clone());
            continue;
        };
        if is_empty(child) {
            if !is_itself(theirs) {
                rest.insert(key.clone(), child.clone());
            }
            continue;
        }
        let left = without(child, theirs);
        if !is_empty(&left) {
            rest.insert(key.clone(), left);
        }
    }
    Value::Object(rest)
}

/// Everything that is in both sets; an empty object if there is nothing.
pub fn common(set: &Value, other: &Value) -> Value {
    without(set, &without(set, other))
}

/// Whether the set is empty. A leaf has the same form as an empty set, so the result is true for a leaf, too.
pub fn is_empty(set: &Value) -> bool {
    set.as_object().is_none_or(Map::is_empty)
}

/// Whether the field or item whose entry is `child` is itself in the set, and not only what is below it.
pub(crate) fn is_itself(child: &Value) -> bool {
    child.as_object().is_some_and(|child| child.is_empty() || child.contains_key(ITSELF))
}

/// Removes the field at `path`, a list of keys, with everything below it; `*` stands for any key. Parents that become
/// empty are removed, too, because an empty parent would count as a leaf.
pub fn remove(set: &mut Value, path: &[&str]) {
    let (Some((first, rest)), Some(map)) = (path.split_first(), set.as_object_mut()) else { return };
    let keys: Vec<String> = match *first {
        "*" => map.keys().filter(|key| *key != ITSELF).cloned().collect(),
        key => map.contains_key(key).then(|| key.to_owned()).into_iter().collect(),
    };
    for key in keys {
        let Some(child) = map.get_mut(&key) else { continue };
        if !rest.is_empty() {
            if is_empty(child) {
                continue;
            }
            remove(child, rest);
            if !is_empty(child) {
                continue;
            }
        }
        map.shift_remove(&key);
    }
}

/// Removes every field with the name `key`, at any depth.
pub fn remove_everywhere(set: &mut Value, key: &str) {
    let Some(map) = set.as_object_mut() else { return };
    map.shift_remove(key);
    map.retain(|_, child| {
        let was_leaf = is_empty(child);
        remove_everywhere(child, key);
        was_leaf || !is_empty(child)
    });
}

/// The path in `set` for an RFC 6901 `pointer` into `object`. A field set names the items of a list by their keys, not by
/// their index, so an item is found by the fields that it has in `object`.
pub fn path_of(pointer: &str, set: &Value, object: &Map<String, Value>) -> Vec<String> {
    let mut set = Some(set);
    let mut value: Option<&Value> = None;
    let mut path = Vec::new();
    for (depth, part) in pointer.split('/').skip(1).enumerate() {
        let part = part.replace("~1", "/").replace("~0", "~");
        let item = value.and_then(Value::as_array).and_then(|items| items.get(part.parse::<usize>().ok()?));
        let key = match (item, set.and_then(Value::as_object)) {
            (Some(item), Some(set)) => set.keys().find(|key| is_key_of(key, item)).cloned(),
            _ => None,
        };
        let key = key.unwrap_or_else(|| format!("f:{part}"));
        value = if depth == 0 { object.get(&part) } else { item.or_else(|| value?.get(&part)) };
        set = set.and_then(|set| set.get(&key));
        path.push(key);
    }
    path
}

/// Whether a key of a field set means this item of a list. The key is `k:{…}` with some fields of the item, or `v:…`
/// with its value. If the item lacks a field that the key names, the field has its default value, so this does not
/// count as a difference.
pub(crate) fn is_key_of(key: &str, item: &Value) -> bool {
    if let Some(value) = key.strip_prefix("v:") {
        return serde_json::from_str::<Value>(value).is_ok_and(|value| value == *item);
    }
    let Some(Ok(Value::Object(keys))) = key.strip_prefix("k:").map(serde_json::from_str) else { return false };
    let fits = |(name, value): (&String, &Value)| item.get(name).is_none_or(|found| found == value);
    item.is_object() && keys.iter().all(fits) && keys.keys().any(|name| item.get(name).is_some())
}

/// The names of the fields of a set, for people, for example `spec.containers[name=web].image`. Only the deepest fields
/// are listed.
pub fn names(set: &Value) -> Vec<String> {
    let mut names = Vec::new();
    collect(set, "", &mut names);
    names
}

fn collect(set: &Value, above: &str, names: &mut Vec<String>) {
    let below = set.as_object().into_iter().flatten().filter(|(key, _)| *key != ITSELF);
    let mut is_leaf = true;
    for (key, child) in below {
        is_leaf = false;
        collect(child, &format!("{above}{}", segment(key, above.is_empty())), names);
    }
    if is_leaf && !above.is_empty() {
        names.push(printable(above));
    }
}

fn segment(key: &str, is_first: bool) -> String {
    match key.split_at_checked(2) {
        Some(("f:", name)) if name.contains(['.', '/', '[']) => format!("[{name}]"),
        Some(("f:", name)) if is_first => name.to_owned(),
        Some(("f:", name)) => format!(".{name}"),
        Some(("k:", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<_> = keys.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
            format!("[{}]", keys.join(","))
        }
        Some(("v:", value)) => {
            format!("[{}]", serde_json::from_str(value).map_or_else(|_| value.to_owned(), |value| plain(&value)))
        }
        Some(("i:", index)) => format!("[{index}]"),
        _ => format!("[{key}]"),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Removes the fields of `set` from `object`, as the API server does when the next apply leaves out these fields. A
/// parent stays as long as it has other fields.
pub fn take_out(object: &mut Value, set: &Value) {
    for (key, child) in set.as_object().into_iter().flatten() {
        let Some((kind, told_by)) = key.split_at_checked(2) else { continue };
        if let ("f:", Some(map)) = (kind, object.as_object_mut()) {
            if map.get_mut(told_by).is_some_and(|field| goes(field, child)) {
                map.shift_remove(told_by);
            }
        } else if let Some(items) = object.as_array_mut() {
            let told_by: Value = serde_json::from_str(told_by).unwrap_or_default();
            items.retain_mut(|item| !(is_item(item, kind, &told_by) && goes(item, child)));
        }
    }
}

/// Removes everything that `set` names below `field`, which is a field or an item of a list. Returns whether the field
/// itself must be removed, too.
fn goes(field: &mut Value, set: &Value) -> bool {
    if is_empty(set) {
        return true;
    }
    take_out(field, set);
    is_itself(set) && is_hollow(field)
}

fn is_item(item: &Value, kind: &str, told_by: &Value) -> bool {
    match (kind, told_by) {
        ("k:", Value::Object(keys)) => keys.iter().all(|(key, value)| item.get(key) == Some(value)),
        ("v:", value) => item == value,
        _ => false,
    }
}

fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_in_one_set_and_not_in_the_other() {
        let set = json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}, "f:type": {}});
        assert_eq!(
            without(&set, &json!({"f:data": {"f:a": {}}})),
            json!({"f:data": {".": {}, "f:b": {}}, "f:type": {}})
        );
        assert_eq!(without(&set, &set), json!({}));
        assert_eq!(without(&set, &json!({"f:type": {"f:x": {}}})), set, "what is below it is another field");
        assert_eq!(common(&set, &json!({"f:data": {"f:a": {}, "f:c": {}}})), json!({"f:data": {"f:a": {}}}));
    }

    #[test]
    fn a_parent_that_becomes_empty_goes() {
        let mut set = json!({"f:spec": {"f:replicas": {}}, "f:metadata": {"f:labels": {".": {}, "f:a": {}}}});
        remove(&mut set, &["f:spec", "f:replicas"]);
        remove(&mut set, &["f:metadata", "f:labels", "f:a", "f:deeper"]);
        assert_eq!(set, json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}));
        let mut hooks = json!({"f:webhooks": {"k:{\"name\":\"a\"}": {".": {}, "f:clientConfig": {"f:caBundle": {}}}}});
        remove(&mut hooks, &["f:webhooks", "*", "f:clientConfig", "f:nothing"]);
        remove_everywhere(&mut hooks, "f:caBundle");
        assert_eq!(hooks, json!({"f:webhooks": {"k:{\"name\":\"a\"}": {".": {}}}}));
    }

    #[test]
    fn names_are_for_people() {
        let set = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app.kubernetes.io/name": {}}},
            "f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:args": {}}}}}},
            "f:data": {".": {}, "f:a\u{1b}b": {}},
            "f:list": {"v:\"x\"": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}}},
        });
        let expected = [
            "metadata.labels[app.kubernetes.io/name]",
            "spec.template.spec.containers[name=c].image",
            "spec.template.spec.containers[name=c].args",
        ];
        let names = names(&set);
        assert_eq!(names[..3], expected);
        assert!(!names[3].contains('\u{1b}'), "{names:?}");
        assert_eq!(names[4..], ["list[x]", "list[port=80,protocol=TCP]"]);
    }

    #[test]
    fn fields_are_taken_out_of_an_object() {
        let mut object = json!({
            "metadata": {"labels": {"team": "a"}},
            "data": {"key": "value", "legacy": "x"}, "ours": {"a": "b"},
            "env": [{"name": "KEEP", "value": "1"}, {"name": "OLD", "value": "1"}],
            "args": ["serve"], "finalizers": ["a", "b"],
        });
        let set = json!({
            "f:metadata": {"f:labels": {".": {}, "f:team": {}}},
            "f:data": {"f:legacy": {}},
            "f:env": {"k:{\"name\":\"OLD\"}": {".": {}, "f:name": {}, "f:value": {}}},
            "f:ours": {".": {}},
            "f:args": {}, "f:finalizers": {"v:\"a\"": {}}, "f:nothing": {"f:here": {}},
        });
        take_out(&mut object, &set);
        let expected = json!({"metadata": {}, "data": {"key": "value"}, "ours": {"a": "b"},
                              "env": [{"name": "KEEP", "value": "1"}], "finalizers": ["b"]});
        assert_eq!(object, expected);
    }
}
