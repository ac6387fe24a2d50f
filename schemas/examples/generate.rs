//! Writes `schemas/src/kubernetes.json`: what each supported version of Kubernetes accepts.
//!
//! Run it with `cargo run -p gitseal-schemas --example generate`. It needs Go and access to Go modules. The facts come
//! from Kubernetes' own OpenAPI documents (`api/openapi-spec/v3` of the module `k8s.io/kubernetes`) and from the
//! lifecycles in the module `k8s.io/api`. Descriptions, defaults and statuses are left out. A new version of Kubernetes
//! is one more line in [`VERSIONS`].

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Map, Value, json};

/// The last release of each minor version, oldest first.
const VERSIONS: [&str; 7] = ["1.31.14", "1.32.13", "1.33.13", "1.34.4", "1.35.4", "1.36.3", "1.37.2"];
/// The modules with the lifecycles of kinds: the versions in which kinds were deprecated and removed.
const LIFECYCLES: [&str; 3] =
    ["k8s.io/api@v0.37.2", "k8s.io/apiextensions-apiserver@v0.37.2", "k8s.io/kube-aggregator@v0.37.2"];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A type, and the first and the last minor version in which it has this form.
#[derive(PartialEq)]
struct Variant {
    from: u32,
    to: u32,
    schema: Value,
}

/// Group, version and kind.
type KindId = (String, String, String);

#[derive(Default)]
struct Tables {
    kinds: BTreeMap<KindId, Vec<Variant>>,
    types: BTreeMap<String, Vec<Variant>>,
}

fn main() -> Result<()> {
    let mut tables = Tables::default();
    for version in VERSIONS {
        let minor: u32 = version.split('.').nth(1).ok_or("no minor version")?.parse()?;
        let folder = module(&format!("k8s.io/kubernetes@v{version}"))?.join("api/openapi-spec/v3");
        let mut schemas = BTreeMap::new();
        for file in fs::read_dir(folder)? {
            let document: Value = serde_json::from_slice(&fs::read(file?.path())?)?;
            let Some(Value::Object(found)) = document.pointer("/components/schemas") else { continue };
            schemas.extend(found.iter().map(|(name, schema)| (name.clone(), schema.clone())));
        }
        tables.add(minor, &schemas);
    }
    let mut lifecycles = BTreeMap::new();
    for name in LIFECYCLES {
        read_lifecycles(&module(name)?, &mut lifecycles)?;
    }
    add_further(&mut lifecycles);
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kubernetes.json");
    fs::write(&target, tables.text(&lifecycles)?)?;
    println!("{}: {} kinds, {} types", target.display(), tables.kinds.len(), tables.types.len());
    Ok(())
}

/// The folder of a Go module, which is downloaded if it is not there.
fn module(name: &str) -> Result<PathBuf> {
    let output = Command::new("go").args(["mod", "download", "-json", name]).env("GOFLAGS", "-mod=mod").output()?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    match answer["Dir"].as_str() {
        Some(folder) => Ok(folder.into()),
        None => Err(format!("{name}: {}", answer["Error"]).into()),
    }
}

impl Tables {
    /// Adds the kinds of a minor version, and the types that they need.
    fn add(&mut self, minor: u32, schemas: &BTreeMap<String, Value>) {
        let mut needed = Vec::new();
        for (name, schema) in schemas {
            if !has_metadata(schema) {
                continue;
            }
            for kind in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
                let text = |field: &str| kind[field].as_str().unwrap_or_default().to_owned();
                let id = (text("group"), text("version"), text("kind"));
                extend(self.kinds.entry(id).or_default(), minor, Value::String(short(name).to_owned()));
                needed.push(name.clone());
            }
        }
        let mut seen = BTreeSet::new();
        while let Some(name) = needed.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let mut schema = reduced(&schemas[&name]);
            if has_metadata(&schemas[&name])
                && let Some(status) = schema.pointer_mut("/properties/status")
            {
                *status = json!({});
            }
            references(&schema, &mut needed);
            extend(self.types.entry(short(&name).to_owned()).or_default(), minor, shortened(schema));
        }
    }

    /// The tables as JSON, with one line for each kind and each variant of a type.
    fn text(&self, lifecycles: &BTreeMap<KindId, Value>) -> Result<String> {
        let mut text = "{\"kinds\": [\n".to_owned();
        let mut lines = Vec::new();
        let ids: BTreeSet<_> = self.kinds.keys().chain(lifecycles.keys()).collect();
        for id in ids {
            let (group, version, kind) = id;
            let mut line = json!({"group": group, "version": version, "kind": kind});
            if let Some(variants) = self.kinds.get(id) {
                let first = variants.first().ok_or("a kind without a version")?;
                let last = variants.last().ok_or("a kind without a version")?;
                line["from"] = first.from.into();
                line["to"] = last.to.into();
                line["type"] = last.schema.clone();
            }
            if let Some(lifecycle) = lifecycles.get(id) {
                line["lifecycle"] = lifecycle.clone();
            }
            lines.push(line.to_string());
        }
        write!(text, "{}\n], \"types\": {{\n", lines.join(",\n"))?;
        let mut lines = Vec::new();
        for (name, variants) in &self.types {
            let variants: Vec<_> = variants
                .iter()
                .map(|Variant { from, to, schema }| json!({"from": from, "to": to, "schema": schema}).to_string())
                .collect();
            lines.push(format!("{}: [\n{}\n]", Value::String(name.clone()), variants.join(",\n")));
        }
        write!(text, "{}\n}}}}\n", lines.join(",\n"))?;
        Ok(text)
    }
}

/// Whether this is the schema of a whole object, which has the field `metadata`.
fn has_metadata(schema: &Value) -> bool {
    schema.pointer("/properties/metadata").is_some_and(|field| field.to_string().contains("ObjectMeta\""))
}

fn extend(variants: &mut Vec<Variant>, minor: u32, schema: Value) {
    match variants.last_mut() {
        Some(last) if last.schema == schema && last.to + 1 == minor => last.to = minor,
        _ => variants.push(Variant { from: minor, to: minor, schema }),
    }
}

fn short(name: &str) -> &str {
    let name = name.strip_prefix("io.k8s.").unwrap_or(name);
    name.strip_prefix("api.").unwrap_or(name)
}

/// The parts of a schema that decide whether an object is accepted.
fn reduced(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    // If a `$ref` has a description or a default beside it, Kubernetes puts the `$ref` into an `allOf` with one item.
    if let Some([only]) = fields.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        return reduced(only);
    }
    let mut kept = Map::new();
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                let properties = properties.iter().map(|(name, value)| (name.clone(), reduced(value)));
                kept.insert(name.clone(), Value::Object(properties.collect()));
            }
            ("items" | "additionalProperties", value) => {
                kept.insert(name.clone(), reduced(value));
            }
            ("$ref" | "type" | "required" | "format" | "oneOf" | "x-kubernetes-preserve-unknown-fields", value) => {
                kept.insert(name.clone(), value.clone());
            }
            _ => {}
        }
    }
    Value::Object(kept)
}

const SCHEMAS: &str = "#/components/schemas/";

fn references(schema: &Value, into: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().and_then(|text| text.strip_prefix(SCHEMAS)) {
                    Some(target) if name == "$ref" => into.push(target.to_owned()),
                    _ => references(value, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        _ => {}
    }
}

fn shortened(schema: Value) -> Value {
    match schema {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| match value.as_str().and_then(|text| text.strip_prefix(SCHEMAS)) {
                    Some(target) if name == "$ref" => (name, format!("#/$defs/{}", short(target)).into()),
                    _ => (name, shortened(value)),
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(shortened).collect()),
        other => other,
    }
}

/// The lifecycles of the kinds in a module, from the functions that Kubernetes' generator wrote.
fn read_lifecycles(folder: &Path, into: &mut BTreeMap<KindId, Value>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_lifecycles(&path, into)?;
        }
    }
    let Ok(text) = fs::read_to_string(folder.join("zz_generated.prerelease-lifecycle.go")) else { return Ok(()) };
    let register = fs::read_to_string(folder.join("register.go"))?;
    let group = register.lines().find_map(|line| line.split_once("GroupName = \"")?.1.split('"').next());
    let group = group.ok_or("no group")?.to_owned();
    let version = folder.file_name().and_then(|name| name.to_str()).ok_or("no version")?.to_owned();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some((kind, function)) = line.strip_prefix("func (in *").and_then(|line| line.split_once(") APILifecycle"))
        else {
            continue;
        };
        let field = match function.split('(').next() {
            Some("Deprecated") => "deprecated",
            Some("Removed") => "removed",
            Some("Replacement") => "replacement",
            _ => continue,
        };
        if kind.ends_with("List") {
            continue;
        }
        let returned = lines.next().and_then(|line| line.trim().strip_prefix("return ")).ok_or("no return")?;
        let value = if field == "replacement" {
            let texts: Vec<_> = returned.split('"').skip(1).step_by(2).collect();
            let [group, version, kind] = texts.as_slice() else { return Err(returned.into()) };
            let group = if group.is_empty() { String::new() } else { format!("{group}/") };
            format!("{group}{version} {}", kind.strip_suffix("List").unwrap_or(kind)).into()
        } else {
            let minor = returned.split(',').nth(1).ok_or("no minor version")?.trim();
            minor.parse::<u32>()?.into()
        };
        let id = (group.clone(), version.clone(), kind.to_owned());
        into.entry(id).or_insert_with(|| json!({}))[field] = value;
    }
    Ok(())
}

/// Adds what the modules no longer say: the first three types were removed from them, and the last one has no lifecycle there.
fn add_further(lifecycles: &mut BTreeMap<KindId, Value>) {
    let autoscaler = "autoscaling/v2 HorizontalPodAutoscaler";
    let further = [
        (
            ["autoscaling", "v2beta1", "HorizontalPodAutoscaler"],
            json!({"deprecated": 22, "removed": 25, "replacement": autoscaler}),
        ),
        (
            ["autoscaling", "v2beta2", "HorizontalPodAutoscaler"],
            json!({"deprecated": 23, "removed": 26, "replacement": autoscaler}),
        ),
        (
            ["policy", "v1beta1", "PodSecurityPolicy"],
            json!({"deprecated": 21, "removed": 25, "replacement": "Pod Security Admission"}),
        ),
        (["", "v1", "Endpoints"], json!({"deprecated": 33, "replacement": "discovery.k8s.io/v1 EndpointSlice"})),
    ];
    for (id, lifecycle) in further {
        let [group, version, kind] = id.map(str::to_owned);
        lifecycles.insert((group, version, kind), lifecycle);
    }
}
