//! The kinds that CustomResourceDefinitions define, with their structural schemas.
//!
//! The rules of these schemas are those of the API reference (`apiextensions.k8s.io/v1`, `JSONSchemaProps`): OpenAPI 3.0 with
//! Kubernetes' extensions.

use std::collections::HashMap;

use manifests::Manifest;
use serde_json::{Map, Value, json};

use crate::{
    format,
    kubernetes::{self, DEFINITIONS, KindId, KubernetesVersion, METADATA},
    problem::{Check, Problem},
    validate::without_nulls,
};

/// A CustomResourceDefinition that defines no kind.
#[derive(Debug, thiserror::Error)]
#[error("the CustomResourceDefinition has no {0}")]
pub struct WrongDefinition(&'static str);

/// The versions of all defined kinds.
#[derive(Default)]
pub(crate) struct Definitions {
    versions: HashMap<KindId, Version>,
}

struct Version {
    is_served: bool,
    /// Why it is deprecated.
    deprecated: Option<String>,
    schema: Value,
}

/// What the definitions say about a kind.
pub(crate) enum Defined {
    /// The API server does not serve the kind.
    Not(Problem),
    /// The API server serves the kind. This is its schema, and a warning if the kind is deprecated.
    Served(Value, Option<Problem>),
}

impl Definitions {
    /// Adds the versions of a CustomResourceDefinition. Other objects are ignored.
    pub(crate) fn add(&mut self, manifest: &Manifest) -> Result<(), WrongDefinition> {
        let id = &manifest.id;
        if id.group != "apiextensions.k8s.io" || id.kind != "CustomResourceDefinition" {
            return Ok(());
        }
        let spec = manifest.body.get("spec").ok_or(WrongDefinition("spec"))?;
        let text = |pointer: &str| spec.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let group = text("/group").ok_or(WrongDefinition("spec.group"))?;
        let kind = text("/names/kind").ok_or(WrongDefinition("spec.names.kind"))?;
        let versions = spec.get("versions").and_then(Value::as_array).ok_or(WrongDefinition("spec.versions"))?;
        for version in versions {
            let name = version["name"].as_str().ok_or(WrongDefinition("name of a version"))?;
            let warning = version["deprecationWarning"].as_str();
            let is_deprecated = version["deprecated"].as_bool().unwrap_or_default();
            let deprecated = is_deprecated.then(|| warning.unwrap_or("the version is deprecated").to_owned());
            let is_served = version["served"].as_bool().unwrap_or_default();
            let schema = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_else(|| json!({}));
            let id = (group.clone(), name.to_owned(), kind.clone());
            self.versions.insert(id, Version { is_served, deprecated, schema });
        }
        Ok(())
    }

    /// The kinds that are served.
    pub(crate) fn served(&self) -> impl Iterator<Item = &KindId> {
        self.versions.iter().filter(|(_, version)| version.is_served).map(|(id, _)| id)
    }

    pub(crate) fn of(&self, at: KubernetesVersion, id: &KindId) -> Option<Defined> {
        let (group, version, kind) = id;
        let Some(found) = self.versions.get(id) else {
            let others = self.versions.keys().filter(|(of, _, name)| of == group && name == kind);
            let mut others: Vec<_> = others.map(|(_, version, _)| version.as_str()).collect();
            others.sort_unstable();
            if others.is_empty() {
                return None;
            }
            let message =
                format!("the CustomResourceDefinition has no version {version} of {kind}, only {}", others.join(", "));
            return Some(Defined::Not(Problem::error(Check::NotServed, String::new(), message)));
        };
        if !found.is_served {
            let message = format!("the CustomResourceDefinition does not serve {kind} in version {version}");
            return Some(Defined::Not(Problem::error(Check::NotServed, String::new(), message)));
        }
        let deprecated = found.deprecated.as_ref().map(|why| Problem::warning(Check::Deprecated, why.clone()));
        Some(Defined::Served(of_object(at, &found.schema), deprecated))
    }
}

/// The schema of a whole object. For the metadata, it is the same as for objects of every kind. The status may have any
/// content.
fn of_object(at: KubernetesVersion, schema: &Value) -> Value {
    let Value::Object(mut object) = structural(schema) else { return json!({}) };
    let properties = object.entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(properties) = properties {
        properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
        properties.insert("kind".to_owned(), json!({"type": "string"}));
        properties.insert("metadata".to_owned(), json!({"$ref": format!("{DEFINITIONS}{METADATA}")}));
        properties.insert("status".to_owned(), json!({}));
    }
    if let Some(Value::Array(required)) = object.get_mut("required") {
        required.retain(|name| name != "status");
    }
    object.insert("$defs".to_owned(), Value::Object(kubernetes::metadata(at)));
    Value::Object(object)
}

/// Marks the schema of a whole object inside of another one.
const EMBEDDED: &str = "x-kubernetes-embedded-resource";

/// The kinds that an embedded object can have.
const KIND: &str = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";

/// A structural schema as JSON Schema.
fn structural(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    let is = |name: &str| fields.get(name) == Some(&Value::Bool(true));
    let mut kept = refined(fields);
    if is("x-kubernetes-int-or-string") {
        // Structural schemas may say the same with anyOf, too.
        kept.insert("type".to_owned(), json!(["integer", "string"]));
        kept.remove("anyOf");
        format::limit(&mut kept, i64::MIN.into(), i64::MAX.into());
    }
    let mut names = Map::new();
    if let Some(Value::Object(properties)) = fields.get("properties") {
        names.extend(properties.iter().map(|(name, value)| (name.clone(), structural(value))));
    }
    if is(EMBEDDED) {
        kept.insert(EMBEDDED.to_owned(), true.into());
        names.entry("apiVersion").or_insert_with(|| json!({"type": "string"}));
        names.entry("kind").or_insert_with(|| json!({"type": "string", "pattern": KIND}));
        names.insert("metadata".to_owned(), json!({"$ref": format!("{DEFINITIONS}{METADATA}")}));
        if let Value::Array(required) = kept.entry("required").or_insert_with(|| json!([])) {
            let also = ["apiVersion", "kind"].map(Value::from).into_iter().filter(|name| !required.contains(name));
            required.extend(also.collect::<Vec<_>>());
        }
    }
    if let Some(items) = fields.get("items") {
        kept.insert("items".to_owned(), structural(items));
    }
    let is_object = fields.get("type").is_some_and(|kind| kind == "object");
    match fields.get("additionalProperties") {
        Some(additional) => {
            kept.insert("additionalProperties".to_owned(), structural(additional));
        }
        None if is_object && !is("x-kubernetes-preserve-unknown-fields") => {
            kept.insert("additionalProperties".to_owned(), false.into());
        }
        None => {}
    }
    if !names.is_empty() {
        kept.insert("properties".to_owned(), Value::Object(names));
    }
    for name in ["default", "nullable"] {
        kept.extend(fields.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    // With an `enum`, the API server accepts a null only if the `enum` has it.
    if is("nullable")
        && let Some(kind) = kept.get_mut("type")
    {
        let kinds = match kind.take() {
            Value::Array(kinds) => kinds,
            one => vec![one],
        };
        *kind = kinds.into_iter().chain(["null".into()]).collect();
    }
    Value::Object(kept)
}

/// Makes an object with this schema complete, as the API server does before it checks the object: what has a default gets it if
/// it is missing, or if it is null and may not be null. Other nulls are no values of their type.
pub(crate) fn complete(object: &mut Value, schema: &Value) {
    complete_metadata(object);
    set_defaults(object, schema);
}

fn complete_metadata(object: &mut Value) {
    match object.get_mut("metadata") {
        Some(Value::Null) => object["metadata"] = json!({}),
        Some(metadata) => without_nulls(metadata),
        None => {}
    }
}

fn set_defaults(value: &mut Value, schema: &Value) {
    if schema.get(EMBEDDED).is_some() {
        complete_metadata(value);
    }
    let default_of = |schema: &Value| schema.get("default").filter(|default| !default.is_null()).cloned();
    let fill = |value: &mut Value, schema: &Value| {
        if value.is_null() && schema.get("nullable") != Some(&Value::Bool(true)) {
            *value = default_of(schema).unwrap_or_default();
        }
        set_defaults(value, schema);
    };
    let inner = |name: &str| schema.get(name).filter(|schema| schema.is_object());
    match value {
        Value::Object(fields) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (name, property) in properties.into_iter().flatten() {
                if let Some(default) = default_of(property).filter(|_| !fields.contains_key(name)) {
                    fields.insert(name.clone(), default);
                }
            }
            for (name, value) in fields {
                let property = properties.and_then(|properties| properties.get(name));
                if let Some(schema) = property.or_else(|| inner("additionalProperties")) {
                    fill(value, schema);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = inner("items") {
                for item in items {
                    fill(item, schema);
                }
            }
        }
        _ => {}
    }
}

/// The rules of a schema about the value itself, and the schemas in its `allOf`, `anyOf`, `oneOf` and `not`. Those
/// inner schemas need not declare the object's fields again.
fn refined(fields: &Map<String, Value>) -> Map<String, Value> {
    const SAME: [&str; 13] = [
        "type",
        "required",
        "enum",
        "pattern",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "multipleOf",
        "$ref",
    ];
    let mut kept: Map<String, Value> =
        fields.iter().filter(|(name, _)| SAME.contains(&name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect();
    for (limit, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        if let Some(value) = fields.get(limit) {
            let is_exclusive = fields.get(exclusive) == Some(&Value::Bool(true));
            kept.insert(if is_exclusive { exclusive } else { limit }.to_owned(), value.clone());
        }
    }
    format::add_rules(fields, &mut kept);
    for name in ["allOf", "anyOf", "oneOf"] {
        if let Some(Value::Array(schemas)) = fields.get(name) {
            kept.insert(name.to_owned(), schemas.iter().map(part).collect());
        }
    }
    if let Some(not) = fields.get("not") {
        kept.insert("not".to_owned(), part(not));
    }
    kept
}

/// A schema inside of `allOf`, `anyOf`, `oneOf` or `not`.
fn part(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    let mut kept = refined(fields);
    if let Some(Value::Object(properties)) = fields.get("properties") {
        let properties: Map<_, _> = properties.iter().map(|(name, value)| (name.clone(), part(value))).collect();
        kept.insert("properties".to_owned(), Value::Object(properties));
    }
    for name in ["items", "additionalProperties"] {
        if let Some(value) = fields.get(name) {
            kept.insert(name.to_owned(), part(value));
        }
    }
    Value::Object(kept)
}
