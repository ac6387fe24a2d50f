//! The fields in which two states of an object differ, as texts for people.

use manifests::{in_one_line, printable};
use serde_json::{Map, Value};

/// Fields that the API server writes itself.
const WRITTEN_BY_SERVER: [&str; 5] = ["managedFields", "resourceVersion", "generation", "creationTimestamp", "uid"];
/// How many characters of a value are shown at most.
const LONGEST: usize = 120;

/// One text for every field that differs, for example `spec.replicas: 1 → 3`.
pub fn fields(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", &without_server(before), &without_server(after), &mut found);
    found
}

fn without_server(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|field, _| !WRITTEN_BY_SERVER.contains(&field.as_str()));
    }
    object
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(before), Value::Object(after)) => compare_maps(path, before, after, found),
        (Value::Array(before), Value::Array(after)) if are_named(before) && are_named(after) => {
            compare_maps(path, &by_name(before), &by_name(after), found);
        }
        // For lists whose items have no names (rules, subjects, arguments), the removed and the added items are shown.
        (Value::Array(before), Value::Array(after)) => {
            let gone = before.iter().filter(|item| !after.contains(item)).map(|item| format!("−{}", shown(item)));
            let new = after.iter().filter(|item| !before.contains(item)).map(|item| format!("+{}", shown(item)));
            let items: Vec<_> = gone.chain(new).collect();
            let items = if items.is_empty() { "another order".to_owned() } else { items.join(" ") };
            found.push(format!("{path}: {items}"));
        }
        (before, after) => found.push(format!("{path}: {} → {}", shown(before), shown(after))),
    }
}

fn compare_maps(path: &str, before: &Map<String, Value>, after: &Map<String, Value>, found: &mut Vec<String>) {
    let new = after.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(new) {
        let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
        let inner = match path {
            "" => printable(key),
            path if key.contains(['.', '/']) => format!("{path}[{}]", printable(key)),
            path => format!("{path}.{}", printable(key)),
        };
        compare(&inner, &of(before), &of(after), found);
    }
}

/// Whether the items of a list have names, as containers, ports and volumes do.
fn are_named(items: &[Value]) -> bool {
    items.iter().all(|item| item["name"].is_string())
}

fn by_name(items: &[Value]) -> Map<String, Value> {
    items.iter().map(|item| (item["name"].as_str().unwrap_or_default().to_owned(), item.clone())).collect()
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".into(),
        Value::String(text) => text.clone(),
        value => rule(value).unwrap_or_else(|| value.to_string()),
    };
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    in_one_line(&short).into_owned()
}

/// A rule of a Role, written as in `kubectl auth can-i`: `(get,list pods,services.apps a)`.
fn rule(value: &Value) -> Option<String> {
    let texts =
        |field: &str| -> Option<Vec<&str>> { value.get(field)?.as_array()?.iter().map(Value::as_str).collect() };
    let (verbs, groups) = (texts("verbs")?, texts("apiGroups")?);
    let resources = texts("resources")?;
    let kinds = groups.iter().flat_map(|group| {
        resources.iter().map(
            move |resource| {
                if group.is_empty() { (*resource).to_owned() } else { format!("{resource}.{group}") }
            },
        )
    });
    let kinds: Vec<String> = kinds.collect();
    let names = texts("resourceNames").map(|names| format!(" {}", names.join(","))).unwrap_or_default();
    Some(format!("({} {}{names})", verbs.join(","), kinds.join(",")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::fields;

    #[test]
    fn fields_are_told_by_their_paths() {
        let before = json!({"metadata": {"uid": "1", "labels": {"a.b/c": "1"}}, "spec": {"replicas": 1, "template": {
            "containers": [{"name": "c", "image": "a:1", "args": ["--a", "--b"]}]}}, "status": {"x": 1}});
        let after = json!({"metadata": {"uid": "2", "labels": {"a.b/c": "2"}}, "spec": {"replicas": 3, "template": {
            "containers": [{"name": "c", "image": "a:2", "args": ["--a", "--d"]}]}}});
        let wanted = [
            "metadata.labels[a.b/c]: 1 → 2",
            "spec.replicas: 1 → 3",
            "spec.template.containers.c.args: −--b +--d",
            "spec.template.containers.c.image: a:1 → a:2",
        ];
        let mut found = fields(&before, &after);
        found.sort();
        assert_eq!(found, wanted);
        assert!(fields(&before, &before).is_empty());
    }

    #[test]
    fn it_is_told_which_rules_change_and_values_stay_as_they_are() {
        let (pods, all) = (
            json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"], "resourceNames": ["a"]}),
            json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}),
        );
        let other = json!({"apiGroups": ["apps", ""], "resources": ["scales"], "verbs": ["get"]});
        let (before, after) = (json!({"rules": [other, pods]}), json!({"rules": [other, all]}));
        assert_eq!(fields(&before, &after), ["rules: −(get,list pods a) +(* *.*)"]);
        let of = |rule: &serde_json::Value| fields(&json!({"rules": []}), &json!({"rules": [rule]})).remove(0);
        assert_eq!(of(&other), "rules: +(get scales.apps,scales)");

        let (before, after) = (json!({"a": {"x": "a\\b \"c\""}}), json!({"a": {"x": "\u{1b}[2J"}}));
        assert_eq!(fields(&before, &after), [r#"a.x: a\b "c" → \u{1b}[2J"#]);
        let long = "x".repeat(500);
        let told = fields(&json!({"a": {"x": "1"}}), &json!({"a": {"x": long}})).remove(0);
        assert_eq!(told, format!("a.x: 1 → {}…", "x".repeat(120)));
    }
}
