//! What the schemas of `gitseal lint` refuse, the API server refuses, too.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use harness::{Plane, Scene, eventually, git::ServerOptions, kubernetes};
use kube::{
    Api, Error,
    api::{DynamicObject, ListParams, Patch, PatchParams, ValidationDirective},
};
use localcluster::ClusterOptions;
use manifests::{Limits, parse};
use schemas::{Checked, KubernetesVersion, Schemas, Severity};
use serde_json::{Value, json};

use crate::objects::apply_cluster_wide;

/// Objects of kinds of Kubernetes itself.
const OBJECTS: &str = include_str!("lint/objects.yaml");

/// Copies of `object` that each differ from it in one place: a field has another name, a field is missing, or a value
/// has another type.
fn variants(object: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut open = vec![String::new()];
    while let Some(place) = open.pop() {
        let at = object.pointer(&place).expect("a place of the object");
        let names: Vec<String> = match at {
            Value::Object(fields) => fields.keys().map(|name| name.replace('~', "~0").replace('/', "~1")).collect(),
            Value::Array(items) => (0..items.len()).map(|index| index.to_string()).collect(),
            _ => Vec::new(),
        };
        for name in names {
            let inner = format!("{place}/{name}");
            if matches!(inner.as_str(), "/apiVersion" | "/kind" | "/metadata" | "/metadata/name") {
                continue;
            }
            let mut changed = |what: &str, change: &dyn Fn(&mut Value)| {
                let mut other = object.clone();
                change(&mut other);
                found.insert(format!("{inner} {what}"), other);
            };
            if at.is_object() {
                let without = |other: &mut Value| {
                    let fields = other.pointer_mut(&place).and_then(Value::as_object_mut).expect("a mapping");
                    fields.shift_remove(&name)
                };
                changed("left out", &|other| drop(without(other)));
                changed("misspelt", &|other| {
                    let value = without(other).unwrap_or_default();
                    other
                        .pointer_mut(&place)
                        .and_then(Value::as_object_mut)
                        .expect("a mapping")
                        .insert(format!("{name}X"), value);
                });
            }
            for (what, value) in [
                ("text", json!("7x")),
                ("number", json!(7)),
                ("fraction", json!(1.5)),
                ("large", json!(1_i64 << 40)),
                ("huge", json!(1e20)),
                ("truth", json!(true)),
                ("list", json!(["a"])),
                ("mapping", json!({"a": "b"})),
                ("null", Value::Null),
            ] {
                changed(what, &|other| *other.pointer_mut(&inner).expect("a field") = value.clone());
            }
            open.push(inner);
        }
    }
    found
}

/// At an object with the first field and without the second one, the API server of Kubernetes 1.36 panics, and does not answer.
const PANICS: [(&str, &str); 2] = [
    ("/spec/versions/0/selectableFields", "/spec/versions/0/schema/openAPIV3Schema"),
    ("/spec/successPolicy", "/spec/completions"),
];

fn problems(schemas: &mut Schemas, object: &Value) -> Result<Vec<String>> {
    let [manifest] =
        parse("a.json", object.to_string().as_bytes(), &Limits::default())?.try_into().ok().context("one object")?;
    let Checked::Problems(problems) = schemas.check(&manifest) else { anyhow::bail!("no schema") };
    let errors = problems.into_iter().filter(|problem| problem.severity == Severity::Error);
    Ok(errors.map(|problem| format!("{:?} {}: {}", problem.check, problem.field, problem.message)).collect())
}

/// A dry run of an apply, as strict as that of the controller.
fn how() -> PatchParams {
    PatchParams {
        dry_run: true,
        force: true,
        field_manager: Some("lint".into()),
        field_validation: Some(ValidationDirective::Strict),
    }
}

/// What the schemas and the API server say of many objects.
#[derive(Default)]
struct Compared {
    /// How many objects both refuse.
    both: usize,
    /// Objects that only the schemas refuse.
    only_schemas: Vec<String>,
    /// Objects that only the API server refuses.
    only_server: Vec<String>,
}

impl Compared {
    /// Compares the variants of an object, which both must accept as it is.
    async fn variants_of(&mut self, scene: &Scene, schemas: &mut Schemas, object: &Value) -> Result<()> {
        let how = how();
        let part = |part: &str| object[part].as_str().context("apiVersion and kind");
        let (kind, name) = (part("kind")?, object["metadata"]["name"].as_str().context("a name")?);
        ensure!(problems(schemas, object)?.is_empty(), "{kind}: {:?}", problems(schemas, object)?);
        let api_version = part("apiVersion")?;
        let resource = kubernetes::resource(api_version, kind);
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let api: Api<DynamicObject> = if schemas::is_namespaced(group, kind).unwrap_or(true) {
            Api::namespaced_with(scene.client.clone(), &scene.namespace, &resource)
        } else {
            Api::all_with(scene.client.clone(), &resource)
        };
        api.patch(name, &how, &Patch::Apply(object)).await.with_context(|| kind.to_owned())?;
        let mut variants = variants(object);
        for (_, without) in PANICS.iter().filter(|(with, _)| object.pointer(with).is_some()) {
            variants.retain(|what, _| !["left out", "null"].iter().any(|how| *what == format!("{without} {how}")));
        }
        let answers = stream::iter(&variants).map(|(what, variant)| {
            let (api, how) = (&api, &how);
            async move { (what, variant, api.patch(name, how, &Patch::Apply(variant)).await) }
        });
        let answers: Vec<_> = answers.buffer_unordered(8).collect().await;
        for (what, variant, answer) in answers {
            let found = problems(schemas, variant)?;
            let (stored, refused) = match answer {
                Ok(stored) => (serde_json::to_value(stored)?, None),
                // The API server answers with status 500 if an object in a server-side apply has an unknown field or a
                // wrong type.
                Err(Error::Api(status)) if matches!(status.code, 400 | 422 | 500) => {
                    (Value::Null, Some(status.message))
                }
                Err(error) => return Err(error.into()),
            };
            let at = |object: &Value| object.pointer(what.split_once(' ')?.0).cloned();
            match (found.is_empty(), refused) {
                (true, None) => {}
                (false, Some(_)) => self.both += 1,
                // The API server keeps only some bits of the number.
                (false, None) if at(variant).is_some_and(|sent| sent.is_number()) && at(&stored) != at(variant) => {}
                (false, None) => self.only_schemas.push(format!("{kind} {what}: {}", found.join(", "))),
                (true, Some(why)) => self.only_server.push(format!("{kind} {what}: {why}")),
            }
        }
        Ok(())
    }
}

/// Which of these lines have one of these texts.
fn with<'l>(lines: &'l [String], texts: &[&str]) -> Vec<&'l str> {
    lines.iter().map(String::as_str).filter(|line| texts.iter().any(|text| line.contains(text))).collect()
}

/// The kinds and types in the documents (OpenAPI) that an API server publishes about itself.
struct Documents {
    types: HashMap<String, Value>,
    /// The types of all objects that can be applied, by API version and kind. Alpha and beta versions are left out.
    kinds: HashMap<(String, String), String>,
}

impl Documents {
    async fn of(scene: &Scene) -> Result<Self> {
        let get = async |path: &str| -> Result<Value> {
            Ok(scene.client.request(http::Request::get(path).body(Vec::new())?).await?)
        };
        let (mut types, mut kinds) = (HashMap::new(), HashMap::new());
        let index = get("/openapi/v3").await?;
        for path in index["paths"].as_object().context("paths")?.keys() {
            let (group, version) = match path.split('/').collect::<Vec<_>>()[..] {
                ["api", version] => ("", version),
                ["apis", group, version] => (group, version),
                _ => continue,
            };
            let document = get(&format!("/openapi/v3/{path}")).await?;
            let schemas = document.pointer("/components/schemas").and_then(Value::as_object).context("types")?;
            types.extend(schemas.iter().map(|(name, schema)| (name.clone(), schema.clone())));
            if version.contains("alpha") || version.contains("beta") {
                continue;
            }
            for operations in document["paths"].as_object().context("paths")?.values() {
                let is_apply = |operation: &&Value| operation["requestBody"].to_string().contains("apply-patch");
                let Some(apply) = operations.get("patch").filter(is_apply) else { continue };
                let text = |field: &str| apply["x-kubernetes-group-version-kind"][field].as_str().unwrap_or_default();
                let id = json!([{"group": group, "kind": text("kind"), "version": version}]);
                let of_kind = schemas.iter().find(|(_, schema)| schema["x-kubernetes-group-version-kind"] == id);
                if let Some((name, _)) = of_kind {
                    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
                    kinds.insert((api_version, text("kind").to_owned()), name.clone());
                }
            }
        }
        Ok(Self { types, kinds })
    }

    /// Adds the required fields of a type, and of all types that it needs, as `type field`. The status is left out.
    fn add_required(&self, name: &str, found: &mut BTreeSet<String>, seen: &mut BTreeSet<String>) {
        if !seen.insert(name.to_owned()) {
            return;
        }
        let schema = &self.types[name];
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        found.extend(required.map(|field| format!("{name} {field}")));
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            let inner = [property, &property["items"], &property["additionalProperties"]];
            let inner = inner.into_iter().chain([&property["additionalProperties"]["items"]]);
            for inner in inner.filter(|_| field != "status").filter_map(|schema| refers(schema)) {
                self.add_required(inner, found, seen);
            }
        }
    }

    /// Adds the required fields that a value with this schema has.
    fn add_present(&self, schema: &Value, value: &Value, found: &mut BTreeSet<String>) {
        let name = refers(schema);
        let schema = name.map_or(schema, |name| &self.types[name]);
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let present = required.filter(|field| value.get(field).is_some());
        found.extend(present.map(|field| format!("{} {field}", name.unwrap_or_default())));
        for (field, value) in value.as_object().into_iter().flatten() {
            let property = schema["properties"].get(field).unwrap_or(&schema["additionalProperties"]);
            self.add_present(property, value, found);
        }
        for item in value.as_array().into_iter().flatten() {
            self.add_present(&schema["items"], item, found);
        }
    }
}

/// The type that a schema refers to.
fn refers(schema: &Value) -> Option<&str> {
    let target = schema["$ref"].as_str().or_else(|| schema.pointer("/allOf/0/$ref").and_then(Value::as_str));
    target?.strip_prefix("#/components/schemas/")
}

/// Types with required fields that no object here has: a Pod gets `ephemeralContainers` only later, by a request of its own, and
/// the API server ignores `configSource` of a Node.
const NOT_APPLIED: [&str; 2] = ["v1.EphemeralContainer ", "v1.ConfigMapNodeConfigSource "];

/// Each field that the API server's document calls required is left out of one of the objects. So this also shows that lint
/// requires no field that the API server does not require. The API server of this test serves every API and has every feature on,
/// because it ignores the fields of features that are off.
#[tokio::test]
async fn what_the_schemas_refuse_the_api_server_refuses_too() -> Result<()> {
    let everything = ["--runtime-config=api/all=true", "--feature-gates=AllAlpha=true,AllBeta=true"];
    let api_server_args = everything.map(str::to_owned).to_vec();
    let plane = Plane::without_controller(ClusterOptions { api_server_args, ..ClusterOptions::default() }).await?;
    let scene = Scene::on(&plane, "lint", ServerOptions::default()).await?;
    let version: KubernetesVersion = scene.client.apiserver_version().await?.git_version.parse()?;
    let (mut compared, mut schemas) = (Compared::default(), Schemas::new(version));
    let objects = OBJECTS.replace("NAMESPACE", &scene.namespace);
    let objects = parse("objects.yaml", objects.as_bytes(), &Limits::default())?;
    let documents = Documents::of(&scene).await?;
    let (mut required, mut present) = (BTreeSet::new(), BTreeSet::new());
    for name in documents.kinds.values() {
        documents.add_required(name, &mut required, &mut BTreeSet::new());
    }
    for manifest in objects {
        let id = (manifest.api_version(), manifest.id.kind.clone());
        let object = Value::Object(manifest.body);
        let name = documents.kinds.get(&id).with_context(|| format!("{id:?} is not served"))?;
        let of_kind = json!({"$ref": format!("#/components/schemas/{name}")});
        documents.add_present(&of_kind, &object, &mut present);
        compared.variants_of(&scene, &mut schemas, &object).await?;
    }
    let missing = required.difference(&present).filter(|field| !NOT_APPLIED.iter().any(|of| field.contains(of)));
    let missing: Vec<_> = missing.cloned().collect();
    ensure!(missing.is_empty(), "no object has these required fields:\n{}", missing.join("\n"));
    ensure!(present.len() > 250, "only {} required fields", present.len());
    let Compared { both, only_schemas, only_server } = compared;
    let wrong = only_schemas.join("\n");
    ensure!(wrong.is_empty(), "{} that the API server accepts:\n{wrong}", only_schemas.len());
    let of_types = [
        "field not declared in schema",
        "unknown field \"",
        "cannot unmarshal",
        "illegal base64 data",
        ": expected string, got",
        ": expected numeric",
        ": expected boolean",
        ": expected list",
        ": expected map",
    ];
    let only_types = with(&only_server, &of_types);
    ensure!(only_types.is_empty(), "types that only the API server checks:\n{}", only_types.join("\n"));
    ensure!(both > 3000, "only {both} variants were refused by both, {} by the API server alone", only_server.len());
    Ok(())
}

/// A CustomResourceDefinition with everything that lint checks in a schema.
const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: plans.lint.example.org}
spec:
  group: lint.example.org
  scope: Namespaced
  names: {kind: Plan, plural: plans, singular: plan}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [name, size]
            properties:
              name: {type: string, minLength: 2, maxLength: 5, pattern: '^[a-z]+$'}
              size: {type: integer, minimum: 1, maximum: 9}
              ratio: {type: number, exclusiveMinimum: true, minimum: 0}
              small: {type: integer, format: int32}
              step: {type: integer, multipleOf: 5}
              tier: {type: string, enum: [front, back]}
              enabled: {type: boolean}
              port: {x-kubernetes-int-or-string: true}
              note: {type: string, nullable: true}
              mode: {type: string, default: fast}
              choice: {type: string, enum: [a, b], nullable: true}
              limits: {type: object, additionalProperties: {type: integer, default: 3}}
              names: {type: array, items: {type: string, default: x}}
              gaps: {type: array, items: {type: string, nullable: true}}
              either: {x-kubernetes-int-or-string: true, nullable: true}
              speed: {type: number, format: float}
              exact: {type: number, format: double}
              long: {type: integer, format: int64}
              address: {type: string, format: ipv4}
              network: {type: string, format: cidr}
              id: {type: string, format: uuid}
              at: {type: string, format: date-time}
              pause: {type: string, format: duration}
              bytes: {type: string, format: byte}
              other: {type: string, format: not-known}
              pod: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}
              tags: {type: array, minItems: 1, maxItems: 3, items: {type: string, minLength: 1}}
              parts:
                type: array
                items:
                  type: object
                  required: [id]
                  properties: {id: {type: string}, weight: {type: integer}}
              labels: {type: object, maxProperties: 3, additionalProperties: {type: string}}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
              one:
                type: object
                properties: {a: {type: string}, b: {type: string}}
                oneOf: [{required: [a]}, {required: [b]}]
          status: {type: object, properties: {done: {type: boolean}}}
";

#[tokio::test]
async fn custom_resources_are_refused_as_the_api_server_refuses_them() -> Result<()> {
    let scene = Scene::new("lint-custom").await?;
    let version: KubernetesVersion = scene.client.apiserver_version().await?.git_version.parse()?;
    let [definition] = parse("crd.yaml", DEFINITION.as_bytes(), &Limits::default())?.try_into().ok().context("one")?;
    let mut schemas = Schemas::new(version);
    schemas.add(&definition)?;
    apply_cluster_wide(&scene.client, Value::Object(definition.body)).await?;
    let plan = json!({"apiVersion": "lint.example.org/v1", "kind": "Plan", "metadata": {"name": "a", "labels": {"a": "b"}}, "spec": {
        "name": "abc", "size": 3, "ratio": 0.5, "small": 4, "step": 10, "tier": "front", "enabled": true, "port": "http", "note": "a",
        "tags": ["a", "b"], "parts": [{"id": "a", "weight": 1}, {"id": "b"}], "labels": {"a": "b"}, "free": {"a": {"b": [1, "c"]}},
        "one": {"a": "b"}, "mode": "slow", "choice": "a", "limits": {"a": 5}, "names": ["a"], "gaps": ["a"], "either": 5, "speed": 0.5,
        "exact": 0.5, "long": 5, "address": "10.0.0.1", "network": "10.0.0.0/8", "id": "0d7f1e9e-2a0e-4b3c-8f6e-000000000001",
        "at": "2026-01-01T00:00:00Z", "pause": "5m", "bytes": "YQ==", "other": "a",
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"a": "b"}},
    }});
    let resource = kubernetes::resource("lint.example.org/v1", "Plan");
    let api: Api<DynamicObject> = Api::namespaced_with(scene.client.clone(), &scene.namespace, &resource);
    eventually("the kind to be served", || async { Ok(api.list(&ListParams::default()).await.map(drop)?) }).await?;
    let mut compared = Compared::default();
    compared.variants_of(&scene, &mut schemas, &plan).await?;
    // Values that have the right type, and that a rule of the schema forbids or allows.
    let with = |field: &str, value: Value| {
        let mut other = plan.clone();
        other["spec"][field] = value;
        other
    };
    for (field, value, is_allowed) in [
        ("name", json!("ab"), true),
        ("name", json!("a"), false),
        ("name", json!("abcdef"), false),
        ("name", json!("aBc"), false),
        ("size", json!(9), true),
        ("size", json!(0), false),
        ("size", json!(10), false),
        ("size", json!(3.0), true),
        ("ratio", json!(0), false),
        ("ratio", json!(7), true),
        ("step", json!(7), false),
        ("tier", json!("side"), false),
        ("port", json!(80), true),
        ("note", Value::Null, true),
        ("tags", json!([]), false),
        ("tags", json!(["a", "b", "c", "d"]), false),
        ("tags", json!(["a", ""]), false),
        ("parts", json!([{"weight": 1}]), false),
        ("labels", json!({"a": "b", "c": "d", "e": "f", "g": "h"}), false),
        ("free", json!({"anything": [{"is": "allowed"}]}), true),
        ("one", json!({"a": "b", "b": "c"}), false),
        ("one", json!({}), false),
        ("gone", json!("a"), false),
        ("small", json!(i32::MAX), true),
        ("small", json!(i64::from(i32::MAX) + 1), false),
        ("small", json!(i64::from(i32::MIN) - 1), false),
        ("long", json!(i64::MAX), true),
        ("long", json!(i64::MAX as u64 + 1), false),
        ("step", json!(1e20), false),
        ("speed", json!(1e39), false),
        ("exact", json!(1e39), true),
        ("mode", Value::Null, true),
        ("choice", Value::Null, false),
        ("limits", json!({"a": null}), true),
        ("names", json!([null]), true),
        ("gaps", json!([null]), true),
        ("either", Value::Null, true),
        ("free", json!({"a": null}), true),
        ("address", json!("010.0.0.1"), true),
        ("address", json!("10.0.0"), false),
        ("network", json!("10.0.0.1/33"), false),
        ("id", json!("0d7f1e9e"), false),
        ("at", json!("2026-02-30T00:00:00Z"), false),
        ("at", json!("2026-01-01t00:00:00.5+01:00"), true),
        ("pause", json!("5 minutes"), true),
        ("pause", json!("soon"), false),
        ("bytes", json!("YQ"), false),
        ("pod", json!({"kind": "Pod"}), false),
        ("pod", json!({"apiVersion": "v1", "kind": "Pod", "metadata": null}), true),
    ] {
        let object = with(field, value.clone());
        let found = problems(&mut schemas, &object)?;
        ensure!(found.is_empty() == is_allowed, "{field}: {value}: {found:?}");
        let answer = api.patch("a", &how(), &Patch::Apply(&object)).await;
        ensure!(answer.is_ok() == is_allowed, "{field}: {value}: the API server says {answer:?}");
    }
    let Compared { both, only_schemas, only_server } = compared;
    ensure!(only_schemas.is_empty(), "the API server accepts:\n{}", only_schemas.join("\n"));
    ensure!(only_server.is_empty(), "only the API server refuses:\n{}", only_server.join("\n"));
    ensure!(both > 100, "only {both} variants were refused");
    Ok(())
}

/// The kinds that the API server lists at `path`, and whether each of them is namespaced.
async fn served(scene: &Scene, path: &str) -> Result<Vec<(String, bool)>> {
    let request = http::Request::get(path).body(Vec::new())?;
    let list: Value = scene.client.request(request).await?;
    let resources = list["resources"].as_array().context("a list of resources")?.iter();
    let kinds = resources.filter(|resource| !resource["name"].as_str().is_some_and(|name| name.contains('/')));
    let kinds = kinds.map(|resource| Some((resource["kind"].as_str()?.to_owned(), resource["namespaced"].as_bool()?)));
    kinds.collect::<Option<_>>().context("a kind and its scope")
}

#[tokio::test]
async fn the_scopes_of_kinds_are_those_of_the_api_server() -> Result<()> {
    let scene = Scene::new("lint-scopes").await?;
    let groups: Value = scene.client.request(http::Request::get("/apis").body(Vec::new())?).await?;
    let mut paths = vec![(String::new(), "/api/v1".to_owned())];
    for group in groups["groups"].as_array().context("groups")? {
        let name = group["name"].as_str().context("a group")?;
        for version in group["versions"].as_array().context("versions")? {
            let version = version["groupVersion"].as_str().context("a version")?;
            paths.push((name.to_owned(), format!("/apis/{version}")));
        }
    }
    let mut seen = 0;
    for (group, path) in paths {
        for (kind, namespaced) in served(&scene, &path).await? {
            if let Some(known) = schemas::is_namespaced(&group, &kind) {
                ensure!(known == namespaced, "{path} {kind}: the API server says {namespaced}");
                seen += 1;
            }
        }
    }
    ensure!(seen > 50, "only {seen} kinds are known");
    Ok(())
}
