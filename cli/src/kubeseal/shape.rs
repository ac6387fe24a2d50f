//! The fields of Secrets and SealedSecrets that kubeseal knows.
//!
//! kubeseal reads objects into typed structures and writes them again: fields that it does not know are left out, empty
//! ones too, and the rest is in the order of the structures. This module has that order.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// The type of a field.
enum Shape {
    /// Text. As kubeseal does with YAML, a number or a boolean is read as its text.
    Text,
    Integer,
    Boolean,
    Time,
    /// A map from text to text.
    Texts,
    List(&'static Shape),
    Object(&'static [Field]),
    Anything,
}

/// When the output has a field.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Keep {
    Always,
    /// If it is not empty.
    Filled,
    /// If it exists, even if it is empty.
    Given,
}

struct Field {
    name: &'static str,
    shape: Shape,
    keep: Keep,
}

const fn field(name: &'static str, shape: Shape, keep: Keep) -> Field {
    Field { name, shape, keep }
}

static METADATA: [Field; 15] = [
    field("name", Shape::Text, Keep::Filled),
    field("generateName", Shape::Text, Keep::Filled),
    field("namespace", Shape::Text, Keep::Filled),
    field("selfLink", Shape::Text, Keep::Filled),
    field("uid", Shape::Text, Keep::Filled),
    field("resourceVersion", Shape::Text, Keep::Filled),
    field("generation", Shape::Integer, Keep::Filled),
    field("creationTimestamp", Shape::Time, Keep::Filled),
    field("deletionTimestamp", Shape::Time, Keep::Filled),
    field("deletionGracePeriodSeconds", Shape::Integer, Keep::Given),
    field("labels", Shape::Texts, Keep::Filled),
    field("annotations", Shape::Texts, Keep::Filled),
    field("ownerReferences", Shape::List(&Shape::Object(&OWNER)), Keep::Filled),
    field("finalizers", Shape::List(&Shape::Text), Keep::Filled),
    field("managedFields", Shape::List(&Shape::Object(&MANAGED)), Keep::Filled),
];

static OWNER: [Field; 6] = [
    field("apiVersion", Shape::Text, Keep::Always),
    field("kind", Shape::Text, Keep::Always),
    field("name", Shape::Text, Keep::Always),
    field("uid", Shape::Text, Keep::Always),
    field("controller", Shape::Boolean, Keep::Given),
    field("blockOwnerDeletion", Shape::Boolean, Keep::Given),
];

static MANAGED: [Field; 7] = [
    field("manager", Shape::Text, Keep::Filled),
    field("operation", Shape::Text, Keep::Filled),
    field("apiVersion", Shape::Text, Keep::Filled),
    field("time", Shape::Time, Keep::Filled),
    field("fieldsType", Shape::Text, Keep::Filled),
    field("fieldsV1", Shape::Anything, Keep::Given),
    field("subresource", Shape::Text, Keep::Filled),
];

/// A Secret without its values.
static SECRET: [Field; 5] = [
    field("kind", Shape::Text, Keep::Always),
    field("apiVersion", Shape::Text, Keep::Always),
    field("metadata", Shape::Object(&METADATA), Keep::Always),
    field("immutable", Shape::Boolean, Keep::Given),
    field("type", Shape::Text, Keep::Filled),
];

static SEALED_SECRET: [Field; 5] = [
    field("kind", Shape::Text, Keep::Always),
    field("apiVersion", Shape::Text, Keep::Always),
    field("metadata", Shape::Object(&METADATA), Keep::Always),
    field("spec", Shape::Object(&SPEC), Keep::Always),
    field("status", Shape::Object(&STATUS), Keep::Given),
];

static SPEC: [Field; 3] = [
    field("template", Shape::Object(&TEMPLATE), Keep::Always),
    field("data", Shape::Text, Keep::Filled),
    field("encryptedData", Shape::Texts, Keep::Always),
];

static TEMPLATE: [Field; 4] = [
    field("metadata", Shape::Object(&METADATA), Keep::Always),
    field("type", Shape::Text, Keep::Filled),
    field("immutable", Shape::Boolean, Keep::Given),
    field("data", Shape::Texts, Keep::Filled),
];

static STATUS: [Field; 2] = [
    field("observedGeneration", Shape::Integer, Keep::Filled),
    field("conditions", Shape::List(&Shape::Object(&CONDITION)), Keep::Filled),
];

static CONDITION: [Field; 6] = [
    field("type", Shape::Text, Keep::Always),
    field("status", Shape::Text, Keep::Always),
    field("lastUpdateTime", Shape::Time, Keep::Always),
    field("lastTransitionTime", Shape::Time, Keep::Always),
    field("reason", Shape::Text, Keep::Filled),
    field("message", Shape::Text, Keep::Filled),
];

/// A value has the wrong type for its field. The error names the field, never the value.
#[derive(Debug, thiserror::Error)]
#[error("{path} is not {expected}")]
pub(super) struct ShapeError {
    path: String,
    expected: &'static str,
}

/// A Secret's fields, without `data` and `stringData`.
pub(super) fn secret(body: Map<String, Value>) -> Result<Map<String, Value>, ShapeError> {
    object(body, &SECRET, "")
}

/// A SealedSecret's fields.
pub(super) fn sealed_secret(body: Map<String, Value>) -> Result<Map<String, Value>, ShapeError> {
    object(body, &SEALED_SECRET, "")
}

/// Takes a field out of an object, by its name. Upper and lower case make no difference.
pub(super) fn take(body: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let own = body.shift_remove(name);
    own.or_else(|| {
        let key = body.keys().find(|key| key.eq_ignore_ascii_case(name))?.clone();
        body.shift_remove(&key)
    })
}

fn object(mut body: Map<String, Value>, fields: &[Field], path: &str) -> Result<Map<String, Value>, ShapeError> {
    let mut shaped = Map::new();
    for field in fields {
        let given = take(&mut body, field.name).filter(|value| !value.is_null());
        if given.is_none() && field.keep == Keep::Given {
            continue;
        }
        let path = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
        let value = read(given, &field.shape, &path)?;
        if field.keep != Keep::Filled || !is_empty(&value) {
            shaped.insert(field.name.to_owned(), value);
        }
    }
    Ok(shaped)
}

/// Converts the value to the shape. If there is no value, the result is the empty value of the shape.
fn read(value: Option<Value>, shape: &Shape, path: &str) -> Result<Value, ShapeError> {
    let refuse = |expected| Err(ShapeError { path: path.to_owned(), expected });
    match (shape, value) {
        (Shape::Text, None) => Ok("".into()),
        (Shape::Text, Some(value)) => {
            manifests::scalar_text(&value).map(Value::String).map_or_else(|| refuse("text"), Ok)
        }
        (Shape::Integer, None) => Ok(0.into()),
        (Shape::Integer, Some(value)) if value.is_i64() => Ok(value),
        (Shape::Integer, Some(_)) => refuse("an integer"),
        (Shape::Boolean, None) => Ok(false.into()),
        (Shape::Boolean, Some(value)) if value.is_boolean() => Ok(value),
        (Shape::Boolean, Some(_)) => refuse("true or false"),
        (Shape::Time, Some(value)) => time(&value).map_or_else(|| refuse("a time (RFC 3339)"), Ok),
        (Shape::Time | Shape::Texts | Shape::Anything, None) => Ok(Value::Null),
        (Shape::Texts, Some(Value::Object(map))) => texts(map, path),
        (Shape::List(_), None) => Ok(Value::Array(Vec::new())),
        (Shape::List(item), Some(Value::Array(items))) => {
            let items = items.into_iter().enumerate();
            items.map(|(index, value)| read(Some(value), item, &format!("{path}[{index}]"))).collect()
        }
        (Shape::List(_), Some(_)) => refuse("a list"),
        (Shape::Object(fields), None) => object(Map::new(), fields, path).map(Value::Object),
        (Shape::Object(fields), Some(Value::Object(map))) => object(map, fields, path).map(Value::Object),
        (Shape::Anything, Some(value)) => Ok(value),
        (Shape::Texts | Shape::Object(_), Some(_)) => refuse("a mapping"),
    }
}

/// A map from text to text. It is sorted by key, as kubeseal writes every map.
fn texts(map: Map<String, Value>, path: &str) -> Result<Value, ShapeError> {
    let mut entries: Vec<_> = map.into_iter().collect();
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let entries = entries.into_iter().map(|(key, value)| match manifests::scalar_text(&value) {
        Some(text) => Ok((key, Value::String(text))),
        None => Err(ShapeError { path: format!("{path}.{key}"), expected: "text" }),
    });
    entries.collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

/// A time in UTC and to the second, as the API server writes it.
fn time(value: &Value) -> Option<Value> {
    let time: Timestamp = value.as_str()?.parse().ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn fields_are_ordered_and_empty_or_unknown_ones_left_out() {
        let body = json!({
            "status": null, "extra": 1, "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret",
            "spec": {"encryptedData": {"b": "2", "a": "1"}, "template": {"data": {}, "immutable": false, "type": ""}},
            "metadata": {"labels": {}, "namespace": "shop", "name": "db", "creationTimestamp": null, "generation": 0},
        });
        let expected = r#"{"kind":"SealedSecret","apiVersion":"bitnami.com/v1alpha1","metadata":{"name":"db","namespace":"shop"},"spec":{"template":{"metadata":{},"immutable":false},"encryptedData":{"a":"1","b":"2"}}}"#;
        assert_eq!(Value::Object(sealed_secret(object(body)).unwrap()).to_string(), expected);
        let nothing =
            r#"{"kind":"","apiVersion":"","metadata":{},"spec":{"template":{"metadata":{}},"encryptedData":null}}"#;
        assert_eq!(Value::Object(sealed_secret(Map::new()).unwrap()).to_string(), nothing);
    }

    #[test]
    fn scalars_become_text_and_times_utc() {
        let body = json!({
            "Kind": "Secret", "type": 5, "immutable": true,
            "metadata": {"NAME": true, "labels": {"a": 1.5, "b": null}, "creationTimestamp": "2020-01-01T01:00:00.5+01:00"},
        });
        let expected = r#"{"kind":"Secret","apiVersion":"","metadata":{"name":"true","creationTimestamp":"2020-01-01T00:00:00Z","labels":{"a":"1.5","b":""}},"immutable":true,"type":"5"}"#;
        assert_eq!(Value::Object(secret(object(body)).unwrap()).to_string(), expected);
    }

    #[test]
    fn what_has_another_shape_is_named() {
        for (body, message) in [
            (json!({"metadata": []}), "metadata is not a mapping"),
            (json!({"metadata": {"name": ["hunter2"]}}), "metadata.name is not text"),
            (json!({"metadata": {"labels": "hunter2"}}), "metadata.labels is not a mapping"),
            (json!({"metadata": {"labels": {"a": {}}}}), "metadata.labels.a is not text"),
            (json!({"metadata": {"finalizers": {}}}), "metadata.finalizers is not a list"),
            (
                json!({"metadata": {"ownerReferences": [{"controller": 1}]}}),
                "metadata.ownerReferences[0].controller is not true or false",
            ),
            (json!({"metadata": {"generation": "hunter2"}}), "metadata.generation is not an integer"),
            (
                json!({"metadata": {"creationTimestamp": "hunter2"}}),
                "metadata.creationTimestamp is not a time (RFC 3339)",
            ),
        ] {
            assert_eq!(secret(object(body)).unwrap_err().to_string(), message);
        }
    }
}
