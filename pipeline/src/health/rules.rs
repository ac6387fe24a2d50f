//! The CEL rules in gitseal's own CustomResourceDefinitions, which the API server evaluates.

use serde_json::{Map, Value};

use super::expressions::{About, Expression, Variables};

/// A rule that an object breaks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BrokenRule {
    /// The field with the rule, for example `spec.dependsOn[0]`. Empty for the whole object.
    pub field: String,
    /// The message of the rule.
    pub message: String,
}

/// The rules that an object of one of gitseal's own kinds breaks, for example of the kind Sync. A rule about a field with a
/// wrong type is left out, because the type is the mistake.
pub fn broken_rules(kind: &str, object: &Map<String, Value>) -> Vec<BrokenRule> {
    let mut broken = Vec::new();
    if let Some(schema) = schema(kind) {
        let mut object = Value::Object(object.clone());
        with_defaults(&schema, &mut object);
        check(&schema, &object, "", &mut broken);
    }
    broken
}

fn schema(kind: &str) -> Option<Value> {
    let definition = crds::custom_resource_definitions().into_iter().find(|one| one.spec.names.kind == kind)?;
    let version = definition.spec.versions.into_iter().next()?;
    serde_json::to_value(version.schema?.open_api_v3_schema?).ok()
}

/// Sets the defaults, as the API server does before it evaluates rules.
fn with_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                match (fields.get_mut(name), inner.get("default")) {
                    (Some(value), _) => with_defaults(inner, value),
                    (None, Some(default)) => drop(fields.insert(name.clone(), default.clone())),
                    (None, None) => {}
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| with_defaults(&schema["items"], item)),
        _ => {}
    }
}

fn check(schema: &Value, value: &Value, field: &str, broken: &mut Vec<BrokenRule>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let text = rule["rule"].as_str().unwrap_or_default();
        let value =
            if has_durations(text) { milliseconds(value.as_str()).map(Value::from) } else { Some(value.clone()) };
        let is_kept = Expression::read(&without_durations(text), About::Object)
            .and_then(|expression| expression.is_true(&Variables::of_object(&value.unwrap_or_default())?))
            .unwrap_or(true);
        if !is_kept {
            let message = rule["message"].as_str().map_or_else(|| format!("the rule {text} is broken"), str::to_owned);
            broken.push(BrokenRule { field: field.to_owned(), message });
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(value) = fields.get(name).filter(|value| !value.is_null()) {
                    let field = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
                    check(inner, value, &field, broken);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{field}[{index}]"), broken);
            }
        }
        _ => {}
    }
}

const DURATION: &str = "duration(";

fn has_durations(rule: &str) -> bool {
    rule.contains(DURATION)
}

/// A rule with numbers of milliseconds instead of `duration('…')`, because the CEL library here has no durations. In a
/// rule with durations, `self` is a duration, too.
fn without_durations(rule: &str) -> String {
    let mut parts = rule.split(DURATION);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (inner, rest) = part.split_once(')').unwrap_or((part, ""));
        match milliseconds(inner.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\''))) {
            Some(number) => text.push_str(&format!("{number:?}")),
            None => text.push_str(inner),
        }
        text.push_str(rest);
    }
    text
}

/// The milliseconds of a duration such as `1m30s`.
fn milliseconds(text: Option<&str>) -> Option<f64> {
    let mut rest = text.filter(|text| !text.is_empty())?;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit = &rest[end..];
        let units = [("ms", 1.0), ("s", 1e3), ("m", 6e4), ("h", 3.6e6)];
        let (name, factor) = units.into_iter().find(|(name, _)| unit.starts_with(name))?;
        sum += number * factor;
        rest = &unit[name.len()..];
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules_of(schema: &Value, rules: &mut Vec<String>) {
        match schema {
            Value::Object(fields) => {
                for (name, inner) in fields {
                    if name == "x-kubernetes-validations" {
                        let all = inner.as_array().unwrap().iter();
                        rules.extend(all.map(|rule| rule["rule"].as_str().unwrap().to_owned()));
                    } else {
                        rules_of(inner, rules);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| rules_of(item, rules)),
            _ => {}
        }
    }

    #[test]
    fn every_rule_of_the_definitions_can_be_read() {
        for kind in ["Sync", "Repository"] {
            let mut rules = Vec::new();
            rules_of(&schema(kind).unwrap(), &mut rules);
            assert!(rules.len() > 5, "{kind}");
            for rule in rules {
                assert!(Expression::read(&without_durations(&rule), About::Object).is_ok(), "{rule}");
            }
        }
    }

    fn broken(kind: &str, spec: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": "a"}, "spec": spec});
        let broken = broken_rules(kind, object.as_object().unwrap());
        broken.into_iter().map(|rule| format!("{}: {}", rule.field, rule.message)).collect()
    }

    #[test]
    fn a_broken_rule_names_its_field() {
        let sync = |more: Value| {
            let mut spec = json!({"repository": {"name": "a"}});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            broken("Sync", spec)
        };
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "name": "a", "current": "true"});
        assert!(sync(json!({})).is_empty());
        for (more, start) in [
            (json!({"interval": "1s"}), "spec.interval: the interval must be at least 10s"),
            (json!({"interval": "0.1m3999ms"}), "spec.interval: the interval must be at least 10s"),
            (json!({"path": "apps/../apps/x"}), "spec.path: the path must stay inside"),
            (json!({"path": "/apps"}), "spec.path: the path must be relative"),
            (json!({"dependsOn": [{"name": "b"}, secret]}), "spec.dependsOn[1]: a Secret cannot be waited for"),
            (json!({"dependsOn": [{"name": "b", "kind": "Job"}]}), "spec.dependsOn[0]: kind needs apiVersion"),
            (json!({"healthChecks": [secret]}), "spec.healthChecks[0]: expressions about Secrets"),
            (json!({"helm": {"valuesFrom": [{"name": "a"}]}}), "spec.helm.valuesFrom[0]: "),
        ] {
            let found = sync(more.clone());
            assert!(found.len() == 1 && found[0].starts_with(start), "{more}: {found:?}");
        }
        for interval in [json!(5), json!("soon"), json!("10s"), json!("0.1m4000ms")] {
            assert!(sync(json!({"interval": interval})).is_empty(), "the schema reports other values: {interval}");
        }
        let repository = |more: Value| broken("Repository", more);
        assert!(repository(json!({"url": "https://example.org/a", "interval": "1m"})).is_empty());
        for spec in [
            json!({"url": "https://example.org/a", "interval": "1ms"}),
            json!({"url": "https://user:password@example.org/a"}),
            json!({"url": "https://example.org/a", "verify": {"mode": "Head"}}),
            json!({"url": "https://example.org/a", "ref": {"branch": "a", "tag": "b"}}),
            json!({"url": "oci://example.org/a"}),
        ] {
            assert_eq!(repository(spec.clone()).len(), 1, "{spec}: {:?}", repository(spec.clone()));
        }
    }
}
