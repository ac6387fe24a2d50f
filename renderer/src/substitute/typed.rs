//! Which value a text becomes in a field after its variables were replaced.

use std::sync::LazyLock;

use manifests::{Limits, ObjectId, parse_mapping, plain_scalar, split};
use schemas::{Field, FieldType};
use serde_json::{Value, json};

/// The longest text that becomes a list or a mapping, in bytes.
const STRUCTURE_BYTES: usize = 64 << 10;

/// The value of a field with the type `field_type` whose text, after its variables were replaced, is `text`. The error says
/// what the field takes.
pub(super) fn value_of(text: String, field_type: FieldType, is_one_variable: bool) -> Result<Value, &'static str> {
    let plain = || plain_scalar(text.trim());
    match field_type {
        FieldType::Text => Ok(text.into()),
        FieldType::Integer => Some(plain()).filter(is_integer).ok_or("takes a whole number"),
        FieldType::Number => Some(plain()).filter(Value::is_number).ok_or("takes a number"),
        FieldType::Boolean => Some(plain()).filter(Value::is_boolean).ok_or("takes true or false"),
        FieldType::IntegerOrText => Ok(Some(plain()).filter(is_integer).unwrap_or_else(|| text.into())),
        FieldType::List => in_yaml(&text).filter(Value::is_array).ok_or("takes a list, for example [a, b]"),
        FieldType::Fields => in_yaml(&text).filter(Value::is_object).ok_or("takes fields, for example {a: b}"),
        FieldType::Unknown => Ok(as_in_yaml(&text, is_one_variable).unwrap_or_else(|| text.into())),
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64()
}

/// What YAML reads where a value is exactly this text. Numbers, booleans, null and texts in quotes count, and if the text comes
/// from one variable, also lists and mappings in brackets. `None` if it stays as it is.
fn as_in_yaml(text: &str, is_one_variable: bool) -> Option<Value> {
    match text.as_bytes() {
        [] => None,
        [b'"', .., b'"'] | [b'\'', .., b'\''] => in_yaml(text).filter(Value::is_string),
        [b'[' | b'{', ..] if is_one_variable => in_yaml(text),
        _ => Some(plain_scalar(text)),
    }
}

/// The value of a text of one line as YAML.
fn in_yaml(text: &str) -> Option<Value> {
    if text.len() > STRUCTURE_BYTES || text.contains(['\n', '\r']) {
        return None;
    }
    let document = format!("value: {text}\n");
    let document = split(&document).next()?;
    // An object may have as many levels again around this value.
    let limits = Limits { depth: 20, nodes: 10_000, memory: 8 << 20, ..Limits::default() };
    let value = parse_mapping("", &document, &limits).ok()??.remove("value")?;
    matches!(value, Value::Array(_) | Value::Object(_) | Value::String(_)).then_some(value)
}

/// What is known about the fields of an object.
pub(super) fn fields_of(id: &ObjectId, version: &str) -> Field<'static> {
    static OURS: LazyLock<Vec<(String, String, Value)>> = LazyLock::new(our_kinds);
    let ours = OURS.iter().find(|(group, kind, _)| *group == id.group && *kind == id.kind);
    match ours {
        Some((_, _, schema)) => Field::of_schema(schema),
        None => Field::of_object(&id.group, version, &id.kind),
    }
}

/// The groups, kinds and schemas of gitseal's own CustomResourceDefinitions.
fn our_kinds() -> Vec<(String, String, Value)> {
    let definitions = crds::custom_resource_definitions().into_iter();
    definitions
        .filter_map(|definition| {
            let (group, kind) = (definition.spec.group.clone(), definition.spec.names.kind.clone());
            let definition = serde_json::to_value(definition).ok()?;
            let mut schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema")?.clone();
            let metadata = json!({"$ref": schemas::METADATA});
            schema["properties"]["metadata"] = metadata.clone();
            if let Some(of_secret) = schema.pointer_mut("/properties/spec/properties/template/properties/metadata") {
                *of_secret = metadata;
            }
            Some((group, kind, schema))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_a_known_type_gets_a_value_of_its_type() {
        for (field_type, text, value) in [
            (FieldType::Text, "3", json!("3")),
            (FieldType::Text, "true", json!("true")),
            (FieldType::Text, "1.10", json!("1.10")),
            (FieldType::Text, "", json!("")),
            (FieldType::Text, "[a]", json!("[a]")),
            (FieldType::Integer, "3", json!(3)),
            (FieldType::Integer, " 3\n", json!(3)),
            (FieldType::Integer, "0644", json!(420)),
            (FieldType::Integer, "18446744073709551615", json!(u64::MAX)),
            (FieldType::Number, "0.5", json!(0.5)),
            (FieldType::Boolean, "true", json!(true)),
            (FieldType::Boolean, "off", json!(false)),
            (FieldType::IntegerOrText, "80", json!(80)),
            (FieldType::IntegerOrText, "http", json!("http")),
            (FieldType::IntegerOrText, "25%", json!("25%")),
            (FieldType::List, "[a, 'b']", json!(["a", "b"])),
            (FieldType::Fields, "{\"a\": 1}", json!({"a": 1})),
        ] {
            assert_eq!(value_of(text.to_owned(), field_type, true), Ok(value), "{field_type:?}: {text}");
        }
        for (field_type, text) in [
            (FieldType::Integer, "a"),
            (FieldType::Integer, ""),
            (FieldType::Integer, "1.5"),
            (FieldType::Integer, "true"),
            (FieldType::Number, "a"),
            (FieldType::Boolean, "1"),
            (FieldType::List, "a"),
            (FieldType::List, "{a: b}"),
            (FieldType::List, "[a"),
            (FieldType::List, "[a]\nb: c"),
            (FieldType::Fields, "[a]"),
            (FieldType::Fields, &"{a: ".repeat(1000)),
        ] {
            assert!(value_of(text.to_owned(), field_type, true).is_err(), "{field_type:?}: {text}");
        }
    }

    #[test]
    fn a_field_of_an_unknown_type_is_read_as_in_yaml() {
        for (text, value) in [
            ("3", json!(3)),
            ("1.5", json!(1.5)),
            ("yes", json!(true)),
            ("null", json!(null)),
            ("", json!("")),
            ("web", json!("web")),
            ("\"3\"", json!("3")),
            ("'it''s'", json!("it's")),
            ("\"3", json!("\"3")),
            ("\"a\" \"b\"", json!("\"a\" \"b\"")),
            ("a: b", json!("a: b")),
            ("a\n3", json!("a\n3")),
            ("[10.0.0.0/8, 3]", json!(["10.0.0.0/8", 3])),
            ("{a: {b: c}}", json!({"a": {"b": "c"}})),
            ("[a", json!("[a")),
            ("[a] b", json!("[a] b")),
            (".nan", json!(".nan")),
        ] {
            assert_eq!(value_of(text.to_owned(), FieldType::Unknown, true), Ok(value), "{text}");
        }
        assert_eq!(value_of("[a]".to_owned(), FieldType::Unknown, false), Ok(json!("[a]")));
        assert_eq!(value_of("3".to_owned(), FieldType::Unknown, false), Ok(json!(3)));
    }

    #[test]
    fn fields_of_our_own_kinds_have_their_types() {
        let of = |group: &str, kind: &str| {
            let id = ObjectId { group: group.into(), kind: kind.into(), namespace: None, name: "a".into() };
            fields_of(&id, "v1alpha1")
        };
        let (sync, sealed) = (of("gitseal.dev", "Sync"), of("bitnami.com", "SealedSecret"));
        let spec = sync.field("spec");
        assert_eq!(spec.field("prune").field_type(), FieldType::Boolean);
        assert_eq!(spec.field("substitute").field("replicas").field_type(), FieldType::Text);
        assert_eq!(spec.field("helm").field("values").field("replicas").field_type(), FieldType::Unknown);
        assert_eq!(sync.field("metadata").field("labels").field("a").field_type(), FieldType::Text);
        let template = sealed.field("spec").field("template");
        assert_eq!(template.field("data").field("port").field_type(), FieldType::Text);
        assert_eq!(template.field("metadata").field("labels").field("a").field_type(), FieldType::Text);
        assert_eq!(template.field("immutable").field_type(), FieldType::Boolean);
    }
}
