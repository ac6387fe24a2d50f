//! Checks objects.

use std::collections::HashMap;

use jsonschema::{
    Validator,
    error::{TypeKind, ValidationErrorKind},
};
use manifests::Manifest;
use serde_json::{Map, Value, json};

use crate::{
    crd::{self, Definitions, WrongDefinition},
    format,
    kubernetes::{self, DEFINITIONS, KindId, Known, KubernetesVersion},
    problem::{Check, Problem},
};

/// The kinds and fields that a version of Kubernetes accepts, and those of CustomResourceDefinitions.
pub struct Schemas {
    version: KubernetesVersion,
    definitions: Definitions,
    known: HashMap<KindId, Checks>,
}

/// What is known about a kind, to check its objects.
enum Checks {
    /// There is no schema of the kind.
    Unknown,
    /// The API server does not serve the kind.
    Refused(Problem),
    Served {
        validator: Box<Validator>,
        schema: Value,
        /// What the API server changes in an object before it checks the object.
        complete: Complete,
        deprecated: Option<Problem>,
    },
}

/// Changes an object with this schema.
type Complete = fn(&mut Value, &Value);

/// What a check found.
#[derive(Debug, PartialEq)]
pub enum Checked {
    /// There is no schema of the kind: it is not a kind of Kubernetes, and there is no CustomResourceDefinition of it.
    NoSchema,
    /// The problems of the object, sorted. An object without problems is accepted.
    Problems(Vec<Problem>),
}

impl Schemas {
    /// The schemas of the kinds of a version of Kubernetes. [`Self::add`] adds kinds of CustomResourceDefinitions.
    pub fn new(version: KubernetesVersion) -> Self {
        Self { version, definitions: Definitions::default(), known: HashMap::new() }
    }

    /// The version of Kubernetes.
    pub fn version(&self) -> KubernetesVersion {
        self.version
    }

    /// Adds the kinds of a CustomResourceDefinition. Other objects are ignored.
    ///
    /// # Errors
    /// The definition has no kind, or no version with a schema.
    pub fn add(&mut self, manifest: &Manifest) -> Result<(), WrongDefinition> {
        self.known.clear();
        self.definitions.add(manifest)
    }

    /// If there is no schema of an object's kind: a known kind with a similar name, which the author of the object
    /// perhaps meant, for example `apps/v1 Deployment`.
    pub fn meant(&self, manifest: &Manifest) -> Option<String> {
        let (group, kind) = (manifest.id.group.as_str(), manifest.id.kind.as_str());
        let mut known: Vec<&KindId> = kubernetes::served(self.version).collect();
        known.extend(self.definitions.served());
        let of_group = known.iter().filter(|(of, _, _)| of == group).map(|(_, _, name)| name.as_str());
        let similar_kind = nearest(kind, of_group);
        let of_kind = known.iter().filter(|(_, _, name)| name == kind).map(|(of, _, _)| of.as_str());
        let similar_group = nearest(group, of_kind);
        let is_meant = |(of, _, name): &&&KindId| match (similar_kind, similar_group) {
            (Some(similar), _) => of == group && name == similar,
            (None, Some(similar)) => of == similar && name == kind,
            (None, None) => false,
        };
        let mut meant: Vec<_> = known.iter().filter(is_meant).collect();
        meant.sort();
        let is_same = |(_, version, _): &&&&KindId| *version == manifest.version;
        let (group, version, kind) = meant.iter().find(is_same).or_else(|| meant.first())?;
        Some(format!("{group}/{version} {kind}"))
    }

    /// What is wrong with an object.
    pub fn check(&mut self, manifest: &Manifest) -> Checked {
        let id = (manifest.id.group.clone(), manifest.version.clone(), manifest.id.kind.clone());
        let (version, definitions) = (self.version, &self.definitions);
        match self.known.entry(id).or_insert_with_key(|id| Checks::of(version, definitions, id)) {
            Checks::Unknown => Checked::NoSchema,
            Checks::Refused(problem) => Checked::Problems(vec![problem.clone()]),
            Checks::Served { validator, schema, complete, deprecated } => {
                let mut problems: Vec<_> = deprecated.iter().cloned().collect();
                let mut body = Value::Object(manifest.body.clone());
                complete(&mut body, schema);
                problems.extend(validator.iter_errors(&body).flat_map(|error| {
                    let at = error.instance_path().as_str().to_owned();
                    let known = known_fields(schema, &at);
                    said(error.kind(), &at, body.pointer(&at), known)
                }));
                problems.sort();
                problems.dedup();
                Checked::Problems(problems)
            }
        }
    }
}

impl Checks {
    fn of(version: KubernetesVersion, definitions: &Definitions, id: &KindId) -> Self {
        match kubernetes::known(version, id) {
            Known::Not(problem) => Self::Refused(problem),
            Known::Served(schema, deprecated) => Self::served(schema, |body, _| without_nulls(body), deprecated),
            Known::Foreign => match definitions.of(version, id) {
                None => Self::Unknown,
                Some(crd::Defined::Not(problem)) => Self::Refused(problem),
                Some(crd::Defined::Served(schema, deprecated)) => Self::served(schema, crd::complete, deprecated),
            },
        }
    }

    fn served(schema: Value, complete: Complete, deprecated: Option<Problem>) -> Self {
        // If a pattern can be read by Go and not by this library, the pattern is left out, and the other rules are
        // checked.
        let built = options().build(&schema).or_else(|_| options().build(&with_readable_patterns(schema.clone())));
        match built {
            Ok(validator) => Self::Served { validator: Box::new(validator), schema, complete, deprecated },
            Err(_) => Self::Unknown,
        }
    }
}

fn options() -> jsonschema::ValidationOptions<'static> {
    let options = jsonschema::options().with_draft(jsonschema::Draft::Draft7);
    format::with_formats(options.with_pattern_options(jsonschema::PatternOptions::regex()))
}

fn with_readable_patterns(schema: Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let is_readable = |pattern: &str| options().build(&json!({ "pattern": pattern })).is_ok();
            let is_kept = |name: &str, value: &Value| name != "pattern" || value.as_str().is_none_or(is_readable);
            let kept = fields.into_iter().filter(|(name, value)| is_kept(name, value));
            Value::Object(kept.map(|(name, value)| (name, with_readable_patterns(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(with_readable_patterns).collect()),
        other => other,
    }
}

/// Removes every null, because the API server reads a null in a field of Kubernetes itself as an empty value.
pub(crate) fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => {
            items.retain(|value| !value.is_null());
            items.iter_mut().for_each(without_nulls);
        }
        _ => {}
    }
}

/// A type of Kubernetes as JSON Schema. Fields that the type does not have are refused. The names of the types to which
/// it refers are added to `needed`.
pub(crate) fn closed(schema: Value, needed: &mut Vec<String>) -> Value {
    let Value::Object(mut fields) = schema else { return schema };
    // `oneOf` means a number or a text: a quantity, or a port by number or name.
    if let Some(Value::Array(one_of)) = fields.get("oneOf") {
        let types: Vec<_> = one_of.iter().map(|one| one["type"].clone()).collect();
        let mut union = json!({ "type": types });
        if fields.get("format").is_some_and(|format| format == "int-or-string") {
            union["minimum"] = i32::MIN.into();
            union["maximum"] = i32::MAX.into();
        }
        return union;
    }
    if let Some(name) = fields.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix(DEFINITIONS)) {
        needed.push(name.to_owned());
    }
    let mut map = |name: &str| {
        if let Some(value) = fields.get_mut(name) {
            *value = match value.take() {
                Value::Object(inner) if name == "properties" => {
                    let inner = inner.into_iter().map(|(name, value)| (name, closed(value, needed)));
                    Value::Object(inner.collect::<Map<_, _>>())
                }
                value => closed(value, needed),
            };
        }
    };
    for name in ["properties", "items", "additionalProperties"] {
        map(name);
    }
    let is_open =
        fields.contains_key("additionalProperties") || fields.contains_key("x-kubernetes-preserve-unknown-fields");
    if fields.contains_key("properties") && !is_open {
        fields.insert("additionalProperties".to_owned(), false.into());
    }
    match fields.remove("format").as_ref().and_then(Value::as_str) {
        Some("int32") => format::limit(&mut fields, i32::MIN.into(), i32::MAX.into()),
        Some("int64") => format::limit(&mut fields, i64::MIN.into(), i64::MAX.into()),
        Some("byte") => drop(fields.insert("format".to_owned(), format::BYTES.into())),
        _ => {}
    }
    Value::Object(fields)
}

/// The problems to report for a schema error at `pointer`, where the object has `value`.
///
/// `known` are the fields that the schema allows there.
fn said(
    kind: &ValidationErrorKind,
    pointer: &str,
    value: Option<&Value>,
    known: Option<&Map<String, Value>>,
) -> Vec<Problem> {
    let field = path(pointer);
    let wrong = |message: String| vec![Problem::error(Check::WrongValue, field.clone(), message)];
    match kind {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|name| {
                let meant = known.and_then(|known| nearest(name, known.keys().map(String::as_str)));
                let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
                let message = format!("the kind has no such field{meant}");
                Problem::error(Check::UnknownField, joined(&field, name), message)
            })
            .collect(),
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![Problem::error(Check::MissingField, joined(&field, name), "the field is required")]
        }
        ValidationErrorKind::Type { kind } => {
            let allowed: Vec<_> = match kind {
                TypeKind::Single(one) => vec![one.to_string()],
                TypeKind::Multiple(several) => several.iter().map(|one| one.to_string()).collect(),
            };
            let allowed: Vec<_> = allowed.iter().filter(|one| *one != "null").map(|one| word(one)).collect();
            let hint = match (allowed.as_slice(), value) {
                (["a text"], Some(Value::Number(_) | Value::Bool(_))) => "; quote it",
                (["a number" | "a whole number" | "true or false"], Some(Value::String(_))) => {
                    "; write it without quotes"
                }
                (_, Some(Value::Null)) => "; give it a value, or leave it out",
                _ => "",
            };
            wrong(format!("the field must be {}, and is {}{hint}", allowed.join(" or "), of(value)))
        }
        ValidationErrorKind::Format { format } => wrong(format!("the text is not {}", format::described(format))),
        ValidationErrorKind::Enum { options } => wrong(format!("the value is not one of {options}")),
        ValidationErrorKind::Pattern { pattern } => wrong(format!("the value does not match {pattern}")),
        ValidationErrorKind::Minimum { limit } => wrong(format!("the number is smaller than {limit}")),
        ValidationErrorKind::Maximum { limit } => wrong(format!("the number is larger than {limit}")),
        ValidationErrorKind::ExclusiveMinimum { limit } => wrong(format!("the number must be larger than {limit}")),
        ValidationErrorKind::ExclusiveMaximum { limit } => wrong(format!("the number must be smaller than {limit}")),
        ValidationErrorKind::MinLength { limit } => wrong(format!("the text is shorter than {limit} characters")),
        ValidationErrorKind::MaxLength { limit } => wrong(format!("the text is longer than {limit} characters")),
        ValidationErrorKind::MinItems { limit } => wrong(format!("the list has fewer than {limit} items")),
        ValidationErrorKind::MaxItems { limit } => wrong(format!("the list has more than {limit} items")),
        ValidationErrorKind::MinProperties { limit } => wrong(format!("the mapping has fewer than {limit} keys")),
        ValidationErrorKind::MaxProperties { limit } => wrong(format!("the mapping has more than {limit} keys")),
        ValidationErrorKind::UniqueItems => wrong("the list has two equal items".to_owned()),
        ValidationErrorKind::AnyOf { .. } => wrong("none of the forms that the schema lists in anyOf fits".to_owned()),
        ValidationErrorKind::OneOfNotValid { .. } => {
            wrong("none of the forms that the schema lists in oneOf fits".to_owned())
        }
        ValidationErrorKind::OneOfMultipleValid { .. } => {
            wrong("more than one of the forms that the schema lists in oneOf fits".to_owned())
        }
        ValidationErrorKind::Not { .. } => wrong("the schema forbids such a value with `not`".to_owned()),
        other => wrong(format!("the value breaks the rule {} of the schema", other.keyword())),
    }
}

/// The fields that a schema allows at a place of the object.
fn known_fields<'s>(schema: &'s Value, pointer: &str) -> Option<&'s Map<String, Value>> {
    let mut at = resolved(schema, schema);
    for part in pointer.split('/').skip(1) {
        let name = part.replace("~1", "/").replace("~0", "~");
        let inner = at.pointer("/properties").and_then(|properties| properties.get(&name));
        let inner = inner.or_else(|| at.get("items")).or_else(|| at.get("additionalProperties"))?;
        at = resolved(schema, inner);
    }
    at.get("properties")?.as_object()
}

/// The schema that a reference names, or the schema itself.
fn resolved<'s>(whole: &'s Value, mut at: &'s Value) -> &'s Value {
    while let Some(name) = at["$ref"].as_str().and_then(|target| target.strip_prefix(DEFINITIONS)) {
        at = &whole["$defs"][name];
    }
    at
}

/// The known name that is most similar to a misspelt one.
pub fn nearest<'n>(word: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let like =
        |name: &str| similar::TextDiff::from_chars(word.to_lowercase().as_str(), name.to_lowercase().as_str()).ratio();
    let best = known.into_iter().max_by(|a, b| like(a).total_cmp(&like(b)))?;
    (like(best) > 0.7).then_some(best)
}

fn word(kind: &str) -> &'static str {
    match kind {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "null" => "null",
        _ => "a mapping",
    }
}

fn of(value: Option<&Value>) -> &'static str {
    match value {
        Some(Value::String(_)) => "a text",
        Some(Value::Number(_)) => "a number",
        Some(Value::Bool(_)) => "true or false",
        Some(Value::Array(_)) => "a list",
        Some(Value::Object(_)) => "a mapping",
        Some(Value::Null) | None => "empty",
    }
}

/// A JSON pointer as people write fields: `spec.ports[0].name`.
fn path(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        path = if part.parse::<usize>().is_ok() && !path.is_empty() {
            format!("{path}[{part}]")
        } else {
            joined(&path, &part)
        };
    }
    path
}

fn joined(path: &str, name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '$'));
    match (path, is_plain) {
        ("", true) => name.to_owned(),
        (_, true) => format!("{path}.{name}"),
        (_, false) => format!("{path}[{name:?}]"),
    }
}

#[cfg(test)]
mod tests {
    use manifests::{Limits, parse};

    use super::*;

    fn schemas(at: &str, definitions: &str) -> Schemas {
        let mut schemas = Schemas::new(at.parse().unwrap());
        for definition in parse("crds.yaml", definitions.as_bytes(), &Limits::default()).unwrap() {
            schemas.add(&definition).unwrap();
        }
        schemas
    }

    fn lines(schemas: &mut Schemas, yaml: &str) -> Vec<String> {
        let object = parse("a.yaml", yaml.as_bytes(), &Limits::default()).unwrap().remove(0);
        match schemas.check(&object) {
            Checked::NoSchema => vec!["no schema".to_owned()],
            Checked::Problems(problems) => problems
                .iter()
                .map(|Problem { check, field, message, .. }| format!("{} {field}: {message}", check.name()))
                .collect(),
        }
    }

    const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, labels: {a: b}}\nspec:\n  \
        selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers:\n      \
        - {name: web, image: web, ports: [{containerPort: 80}], resources: {limits: {cpu: 1, memory: 1Gi}}}\n";

    #[test]
    fn an_object_that_kubernetes_accepts_has_no_problem() {
        let mut schemas = schemas("1.36", "");
        for yaml in [
            DEPLOYMENT,
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: '1'}\nimmutable: null\n",
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80, targetPort: http}, {port: 1, \
             targetPort: 2, name: x}]}\nstatus: {nothing: here}\n",
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: a}\nroleRef: {kind: Role, name: a}\n",
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a.b}\nspec: {group: b, scope: \
             Namespaced, names: {kind: A, plural: a}, versions: [{name: v1, served: true, storage: true, schema: \
             {openAPIV3Schema: {type: object, properties: {spec: {type: object, default: {a: 1}, enum: [{a: 1}]}}}}}]}\n",
        ] {
            assert!(lines(&mut schemas, yaml).is_empty(), "{yaml}: {:?}", lines(&mut schemas, yaml));
        }
        assert_eq!(lines(&mut schemas, "apiVersion: b/v1\nkind: A\nmetadata: {name: a}\n"), ["no schema"]);
    }

    #[test]
    fn each_mistake_names_its_field_and_what_to_do() {
        let mut schemas = schemas("1.36", "");
        for (wrong, right, expected) in [
            (
                "image: web",
                "imagee: web",
                "unknown-field spec.template.spec.containers[0].imagee: the kind has no such field; did you mean image?",
            ),
            (
                "metadata: {name: web,",
                "metadata: {name: web, wing: left,",
                "unknown-field metadata.wing: the kind has no such field",
            ),
            (
                "labels: {a: b}}\nspec",
                "labels: {a: 1}}\nspec",
                "wrong-value metadata.labels.a: the field must be a text, and is a number; quote it",
            ),
            (
                "containerPort: 80",
                "containerPort: '80'",
                "wrong-value spec.template.spec.containers[0].ports[0].containerPort: the field must be a whole number, and is a \
                 text; write it without quotes",
            ),
            (
                "containerPort: 80",
                "containerPort: 8000000000",
                "wrong-value spec.template.spec.containers[0].ports[0].containerPort: the number is larger than 2147483647",
            ),
            ("- {name: web,", "- {", "missing-field spec.template.spec.containers[0].name: the field is required"),
            (
                "cpu: 1,",
                "cpu: [1],",
                "wrong-value spec.template.spec.containers[0].resources.limits.cpu: the field must be a number or a text, and is a list",
            ),
            ("  selector: {matchLabels: {a: b}}\n", "", "missing-field spec.selector: the field is required"),
            (
                "labels: {a: b}}\nspec",
                "labels: {a/b: {}}}\nspec",
                "wrong-value metadata.labels[\"a/b\"]: the field must be a text, and is a mapping",
            ),
        ] {
            assert!(DEPLOYMENT.contains(wrong));
            assert_eq!(lines(&mut schemas, &DEPLOYMENT.replacen(wrong, right, 1)), [expected]);
        }
    }

    #[test]
    fn a_message_quotes_no_value() {
        let mut schemas = schemas("1.36", "");
        let yaml = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {a: 123456, b: [hunter2]}\ntype: [hunter2]\n";
        let found = lines(&mut schemas, yaml);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(!found.iter().any(|line| line.contains("hunter2") || line.contains("123456")), "{found:?}");
    }

    const WIDGETS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {kind: Widget, plural: widgets}
  versions:
  - {name: v1alpha1, served: false, storage: false}
  - {name: v1beta1, served: true, storage: false, deprecated: true, deprecationWarning: use v1}
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        required: [spec, status]
        properties:
          spec:
            type: object
            required: [size, color]
            properties:
              size: {type: integer, minimum: 1, maximum: 10, exclusiveMaximum: true}
              color: {type: string, enum: [red, blue], default: red}
              port: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]}
              name: {type: string, pattern: '^[a-z]+$', minLength: 2}
              odd: {type: string, pattern: '(?<broken'}
              note: {type: string, nullable: true}
              any: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {known: {type: string}}}
              template: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}
              labels: {type: object, additionalProperties: {type: string}}
              either:
                type: object
                properties: {a: {type: string}, b: {type: string}}
                oneOf: [{required: [a]}, {required: [b]}]
          status: {type: object, properties: {ready: {type: boolean}}}
";

    #[test]
    fn a_kind_that_is_not_known_may_be_a_mistake() {
        let mut schemas = schemas("1.36", WIDGETS);
        for (api_version, kind, expected) in [
            ("app/v1", "Deployment", Some("apps/v1 Deployment")),
            ("example.org/v1", "Wodget", Some("example.org/v1 Widget")),
            ("example.or/v1beta1", "Widget", Some("example.org/v1beta1 Widget")),
            ("other.dev/v1", "Gadget", None),
        ] {
            let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\n");
            let manifest =
                manifests::parse("a.yaml", text.as_bytes(), &manifests::Limits::default()).unwrap().remove(0);
            assert_eq!(schemas.check(&manifest), Checked::NoSchema, "{kind}");
            assert_eq!(schemas.meant(&manifest).as_deref(), expected, "{api_version} {kind}");
        }
    }

    #[test]
    fn kinds_of_definitions_are_checked_by_their_structural_schema() {
        let mut schemas = schemas("1.36", WIDGETS);
        for (spec, expected) in [
            (
                "{size: 3, note: null, port: 80, any: {x: {y: 1}, known: a}, template: {apiVersion: v1, kind: A, spec: {}}, labels: {a: b}}",
                "",
            ),
            ("{size: 3, port: http, either: {a: x}, name: ab}", ""),
            ("{size: 3, color: null}", ""),
            (
                "{size: 3, name: null}",
                "wrong-value spec.name: the field must be a text, and is empty; give it a value, or leave it out",
            ),
            ("{size: 3, template: {kind: A}}", "missing-field spec.template.apiVersion: the field is required"),
            ("{}", "missing-field spec.size: the field is required"),
            ("{size: 10}", "wrong-value spec.size: the number must be smaller than 10"),
            ("{size: 0}", "wrong-value spec.size: the number is smaller than 1"),
            ("{size: 1, colour: red}", "unknown-field spec.colour: the kind has no such field; did you mean color?"),
            ("{size: 1, color: green}", "wrong-value spec.color: the value is not one of [\"red\",\"blue\"]"),
            (
                "{size: 1, port: [1]}",
                "wrong-value spec.port: the field must be a whole number or a text, and is a list",
            ),
            ("{size: 1, name: A1}", "wrong-value spec.name: the value does not match ^[a-z]+$"),
            (
                "{size: 1, any: {known: 1}}",
                "wrong-value spec.any.known: the field must be a text, and is a number; quote it",
            ),
            (
                "{size: 1, labels: {a: 1}}",
                "wrong-value spec.labels.a: the field must be a text, and is a number; quote it",
            ),
            (
                "{size: 1, either: {a: x, b: z}}",
                "wrong-value spec.either: more than one of the forms that the schema lists in oneOf fits",
            ),
            ("{size: 1, either: {}}", "wrong-value spec.either: none of the forms that the schema lists in oneOf fits"),
        ] {
            let found = lines(
                &mut schemas,
                &format!("apiVersion: example.org/v1\nkind: Widget\nmetadata: {{name: a}}\nspec: {spec}\n"),
            );
            assert_eq!(found.join("; "), expected, "{spec}");
        }
        let of = |version: &str, spec: &str| {
            format!("apiVersion: example.org/{version}\nkind: Widget\nmetadata: {{name: a}}\n{spec}")
        };
        assert_eq!(lines(&mut schemas, &of("v1", "")), ["missing-field spec: the field is required"]);
        let metadata = "apiVersion: example.org/v1\nkind: Widget\nmetadata: {name: a, label: {}}\nspec: {size: 1}\n";
        assert_eq!(
            lines(&mut schemas, metadata),
            ["unknown-field metadata.label: the kind has no such field; did you mean labels?"]
        );
        assert_eq!(lines(&mut schemas, &of("v1beta1", "")), ["deprecated : use v1"]);
        let not_served = ["not-served : the CustomResourceDefinition does not serve Widget in version v1alpha1"];
        assert_eq!(lines(&mut schemas, &of("v1alpha1", "")), not_served);
        let unknown =
            ["not-served : the CustomResourceDefinition has no version v2 of Widget, only v1, v1alpha1, v1beta1"];
        assert_eq!(lines(&mut schemas, &of("v2", "")), unknown);
    }
}
