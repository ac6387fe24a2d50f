//! Which type a field of an object has.

use serde_json::Value;

use crate::kubernetes;

/// The `$ref` to the schema of every object's metadata, for schemas that are passed to [`Field::of_schema`].
pub const METADATA: &str = "#/$defs/apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// A field of an object, or the whole object, in the newest known version of Kubernetes that has its kind.
#[derive(Clone, Copy, Debug)]
pub struct Field<'s>(Option<&'s Value>);

/// What type of value a field can have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FieldType {
    /// Only text. Numbers with units, for example `500m`, are text, too.
    Text,
    /// Only a number without a fraction.
    Integer,
    /// Only a number.
    Number,
    /// Only `true` or `false`.
    Boolean,
    /// A number without a fraction, or text, for example the port of a probe.
    IntegerOrText,
    /// Only a list.
    List,
    /// Only an object with fields, or a map of keys to values.
    Fields,
    /// The type is not known, or the field can have values of several types.
    Unknown,
}

impl<'s> Field<'s> {
    /// A field about which nothing is known.
    pub const UNKNOWN: Self = Self(None);

    /// The whole object, if its kind is one of Kubernetes itself. Of other kinds, only the metadata is known.
    pub fn of_object(group: &str, version: &str, kind: &str) -> Field<'static> {
        Field(kubernetes::newest(group, version, kind))
    }

    /// A field with the schema of a CustomResourceDefinition.
    pub fn of_schema(schema: &'s Value) -> Self {
        Self(Some(schema))
    }

    /// The field or key `name` in this one.
    #[must_use]
    pub fn field(self, name: &str) -> Self {
        let Some(schema) = self.schema() else { return Self(None) };
        let named = schema.get("properties").and_then(|properties| properties.get(name));
        Self(named.or_else(|| schema.get("additionalProperties").filter(|schema| schema.is_object())))
    }

    /// An item of this list.
    #[must_use]
    pub fn item(self) -> Self {
        Self(self.schema().and_then(|schema| schema.get("items")))
    }

    /// What it can have.
    pub fn field_type(self) -> FieldType {
        let Some(schema) = self.schema() else { return FieldType::Unknown };
        let is_either = |key: &str, value: &Value| schema.get(key) == Some(value);
        if is_either("format", &"int-or-string".into()) || is_either("x-kubernetes-int-or-string", &true.into()) {
            return FieldType::IntegerOrText;
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("string") => FieldType::Text,
            Some("integer") => FieldType::Integer,
            Some("number") => FieldType::Number,
            Some("boolean") => FieldType::Boolean,
            Some("array") => FieldType::List,
            Some("object") => FieldType::Fields,
            _ if takes_text(schema) => FieldType::Text,
            _ => FieldType::Unknown,
        }
    }

    /// The schema itself, if it is not a reference, or else the schema that it refers to.
    fn schema(self) -> Option<&'s Value> {
        let schema = self.0?;
        match schema.get("$ref").and_then(Value::as_str) {
            None => Some(schema),
            Some(name) => kubernetes::newest_type(name.strip_prefix(kubernetes::DEFINITIONS)?),
        }
    }
}

/// Whether the schema allows several types, and one of them is text. An example is a quantity, which may be text or a
/// number.
fn takes_text(schema: &Value) -> bool {
    let several = schema.get("oneOf").and_then(Value::as_array);
    several.is_some_and(|several| several.iter().any(|one| one.get("type").is_some_and(|one| one == "string")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn type_at(mut field: Field<'_>, path: &[&str]) -> FieldType {
        for name in path {
            field = if *name == "[]" { field.item() } else { field.field(name) };
        }
        field.field_type()
    }

    #[test]
    fn fields_of_kubernetes_have_their_types() {
        let of = Field::of_object;
        let containers = ["spec", "template", "spec", "containers", "[]"];
        let in_container = |names: &[&'static str]| [&containers[..], names].concat();
        for (kind, path, expected) in [
            (of("apps", "v1", "Deployment"), vec!["spec", "replicas"], FieldType::Integer),
            (of("apps", "v1", "Deployment"), vec!["spec", "paused"], FieldType::Boolean),
            (of("apps", "v1", "Deployment"), in_container(&["image"]), FieldType::Text),
            (of("apps", "v1", "Deployment"), in_container(&["resources", "limits", "cpu"]), FieldType::Text),
            (
                of("apps", "v1", "Deployment"),
                in_container(&["readinessProbe", "httpGet", "port"]),
                FieldType::IntegerOrText,
            ),
            (of("apps", "v1", "Deployment"), in_container(&["args"]), FieldType::List),
            (of("apps", "v1", "Deployment"), vec!["spec", "template", "metadata", "labels", "a"], FieldType::Text),
            (of("apps", "v1", "Deployment"), vec!["metadata", "labels"], FieldType::Fields),
            (of("apps", "v1", "Deployment"), vec!["spec", "nonsense"], FieldType::Unknown),
            (of("", "v1", "ConfigMap"), vec!["data", "port"], FieldType::Text),
            (of("", "v1", "ConfigMap"), vec!["immutable"], FieldType::Boolean),
            (of("example.com", "v1", "Widget"), vec!["spec", "size"], FieldType::Unknown),
            (of("example.com", "v1", "Widget"), vec!["metadata", "annotations", "a"], FieldType::Text),
        ] {
            assert_eq!(type_at(kind, &path), expected, "{path:?}");
        }
    }

    #[test]
    fn the_metadata_of_every_object_is_known() {
        let schema = json!({"properties": {"metadata": {"$ref": METADATA}}});
        let labels = Field::of_schema(&schema).field("metadata").field("labels");
        assert_eq!(labels.field("a").field_type(), FieldType::Text);
    }

    #[test]
    fn fields_of_a_definition_have_their_types() {
        let schema = json!({"type": "object", "properties": {
            "size": {"type": "integer"}, "ratio": {"type": "number"}, "port": {"x-kubernetes-int-or-string": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "names": {"type": "array", "items": {"type": "string"}}, "any": {"x-kubernetes-preserve-unknown-fields": true},
        }});
        let of = |path: &[&str]| type_at(Field::of_schema(&schema), path);
        assert_eq!(of(&["size"]), FieldType::Integer);
        assert_eq!(of(&["ratio"]), FieldType::Number);
        assert_eq!(of(&["port"]), FieldType::IntegerOrText);
        assert_eq!(of(&["labels", "a"]), FieldType::Text);
        assert_eq!(of(&["names", "[]"]), FieldType::Text);
        assert_eq!(of(&["any", "a"]), FieldType::Unknown);
        assert_eq!(of(&["names", "a"]), FieldType::Unknown);
    }
}
