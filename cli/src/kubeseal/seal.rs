//! Seals Secrets by kubeseal's rules.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use sealing::{Binding, PublicKey, Scope, SecretBytes};
use serde_json::{Map, Value, json};

use super::output::Format;
use super::read::{self, Body};
use super::{API_VERSION, KIND, shape};
use crate::edit::{self, LAST_APPLIED, decode_base64, own_scope};
use crate::output::warn;

/// The annotation in which another tool stores the whole Secret, including its plaintext.
const KUBECFG_LAST_APPLIED: &str = "kubecfg.ksonnet.io/last-applied-configuration";

/// Fields that only a server sets; and owners, which have no meaning in another cluster.
const LEFT_OUT: [&str; 8] = [
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
];

/// How Secrets are sealed.
pub(super) struct Sealing<'a> {
    pub(super) key: &'a PublicKey,
    /// The scope that the flags choose. If it is strict, the Secret's annotations choose the scope.
    pub(super) scope: Scope,
    /// Name of the SealedSecret, if it is not the Secret's.
    pub(super) name: Option<String>,
    /// Namespace of the SealedSecret, if it is not the Secret's.
    pub(super) namespace: Option<String>,
    /// The namespace from the flags or from the kubeconfig, and whether it is from the flags.
    pub(super) default_namespace: Option<(String, bool)>,
    pub(super) allow_empty: bool,
}

/// A Secret that was read, with its values separate.
struct Plain {
    /// The Secret without values, and without the fields that kubeseal does not know.
    body: Map<String, Value>,
    data: BTreeMap<String, SecretBytes>,
}

impl Sealing<'_> {
    /// The SealedSecrets of all Secrets of an input, as text.
    pub(super) fn seal_all(&self, input: &str, bytes: &[u8], format: &str) -> anyhow::Result<String> {
        let mut text = String::new();
        for body in self.seal_objects(input, bytes)? {
            Format::of(format)?.write(&mut text, &body)?;
        }
        Ok(text)
    }

    fn seal_objects(&self, input: &str, bytes: &[u8]) -> anyhow::Result<Vec<Map<String, Value>>> {
        read::objects(input, bytes)?.into_iter().map(|body| self.seal(Plain::read(body)?)).collect()
    }

    /// Seals a Secret. As in kubeseal, the kind is not checked: an object with values counts as a Secret.
    fn seal(&self, secret: Plain) -> anyhow::Result<Map<String, Value>> {
        let Plain { mut body, data } = secret;
        if data.is_empty() && !self.allow_empty {
            bail!(
                "secret.data is empty in input Secret, assuming this is an error and aborting. \
                 To work with empty data, --allow-empty-data can be used"
            );
        }
        let mut metadata = match body.shift_remove("metadata") {
            Some(Value::Object(metadata)) => metadata,
            _ => Map::new(),
        };
        let name = self.name.as_deref().or(text(&metadata, "name")).unwrap_or_default().to_owned();
        if name.is_empty() {
            bail!("missing metadata.name in input Secret");
        }
        set(&mut metadata, "name", &name);
        if let Some(namespace) = &self.namespace {
            set(&mut metadata, "namespace", namespace);
        }
        if self.scope != Scope::Strict {
            set_scope(&mut metadata, self.scope);
        }
        let scope = own_scope(&metadata);
        if scope != Scope::ClusterWide {
            self.place(&mut metadata)?;
        }
        let namespace = text(&metadata, "namespace").unwrap_or_default().to_owned();
        if scope != Scope::ClusterWide && namespace.is_empty() {
            bail!("secret must declare a namespace");
        }
        let encrypted = self.encrypt(&data, |key| scope.binding(&namespace, &name, key))?;
        Ok(sealed_secret(body, metadata, scope, encrypted))
    }

    /// Makes sure that the namespace is set, and is the one that the user named.
    fn place(&self, metadata: &mut Map<String, Value>) -> anyhow::Result<()> {
        let own = text(metadata, "namespace").unwrap_or_default();
        match &self.default_namespace {
            Some((asked_for, true)) if !own.is_empty() && own != asked_for => {
                bail!("namespace mismatch: input secret is in namespace {own:?} but {asked_for:?} was specified")
            }
            Some((namespace, _)) if own.is_empty() => set(metadata, "namespace", namespace),
            _ => {}
        }
        Ok(())
    }

    fn encrypt<'a>(
        &self,
        data: &'a BTreeMap<String, SecretBytes>,
        binding: impl Fn(&'a str) -> Binding<'a>,
    ) -> anyhow::Result<Map<String, Value>> {
        let values = data.iter().map(|(key, value)| {
            let value =
                sealing::seal(self.key, binding(key), value.expose()).with_context(|| format!("cannot seal {key}"))?;
            Ok((key.clone(), Value::String(value)))
        });
        values.collect()
    }
}

impl Plain {
    fn read(mut body: Body) -> anyhow::Result<Self> {
        let mut data = BTreeMap::new();
        for field in ["data", "stringData"] {
            match shape::take(&mut body.0, field) {
                None | Some(Value::Null) => {}
                Some(Value::Object(values)) => {
                    // The values are wiped when they are dropped, even if one of them is refused.
                    for (key, value) in &mut Body(values).0 {
                        let read = plaintext(field, key, value);
                        edit::wipe(value);
                        data.insert(key.clone(), read?);
                    }
                }
                Some(mut other) => {
                    edit::wipe(&mut other);
                    bail!("{field} is not a mapping");
                }
            }
        }
        let mut fields = std::mem::take(&mut body.0);
        if let Some(annotations) = fields.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"))
            && let Value::Object(annotations) = annotations
        {
            for key in [LAST_APPLIED, KUBECFG_LAST_APPLIED] {
                if let Some(mut applied) = annotations.shift_remove(key) {
                    edit::wipe(&mut applied);
                }
            }
        }
        Ok(Self { body: shape::secret(fields)?, data })
    }
}

fn plaintext(field: &str, key: &str, value: &Value) -> anyhow::Result<SecretBytes> {
    if field == "stringData" {
        let text = manifests::scalar_text(value).with_context(|| format!("stringData.{key} is not text"))?;
        return Ok(SecretBytes::new(text.into_bytes()));
    }
    match value {
        Value::Null => Ok(SecretBytes::new(Vec::new())),
        Value::String(text) => {
            decode_base64(text.as_bytes()).with_context(|| format!("illegal base64 data in data.{key}"))
        }
        _ => bail!("data.{key} is not text"),
    }
}

/// A SealedSecret with everything of the Secret, except its values and fields that only a server sets.
fn sealed_secret(
    mut secret: Map<String, Value>,
    mut metadata: Map<String, Value>,
    scope: Scope,
    encrypted: Map<String, Value>,
) -> Map<String, Value> {
    for field in LEFT_OUT {
        metadata.shift_remove(field);
    }
    let mut own = Map::new();
    for field in ["name", "namespace"] {
        own.extend(metadata.get(field).map(|value| (field.to_owned(), value.clone())));
    }
    set_scope(&mut own, scope);
    let mut template = Map::from_iter([("metadata".to_owned(), Value::Object(metadata))]);
    for field in ["type", "immutable"] {
        template.extend(secret.shift_remove(field).map(|value| (field.to_owned(), value)));
    }
    let body = json!({
        "kind": KIND, "apiVersion": API_VERSION, "metadata": own,
        "spec": {"template": template, "encryptedData": encrypted},
    });
    match body {
        Value::Object(body) => shape::sealed_secret(body).unwrap_or_default(),
        _ => Map::new(),
    }
}

fn text<'a>(metadata: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    metadata.get(field).and_then(Value::as_str)
}

fn set(metadata: &mut Map<String, Value>, field: &str, value: &str) {
    metadata.insert(field.to_owned(), value.into());
}

/// Sets the annotations for this scope, and removes those for other scopes.
fn set_scope(metadata: &mut Map<String, Value>, scope: Scope) {
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(annotations) = annotations {
        for other in [Scope::NamespaceWide, Scope::ClusterWide] {
            other.annotation().map(|key| annotations.shift_remove(key));
        }
        annotations.extend(scope.annotation().map(|key| (key.to_owned(), Value::from("true"))));
    }
}

/// The text of a SealedSecret file with the Secret's values, labels and annotations merged into it.
pub(super) fn merge(
    mut sealing: Sealing<'_>,
    input: (&str, &[u8]),
    file: (&str, &[u8]),
    format: &str,
) -> anyhow::Result<String> {
    let (mut original, count) = read::sealed_secret(file.0, file.1)?;
    if count > 1 {
        bail!(
            "{} holds {count} objects, and values can be merged into only one: put the SealedSecret that gets \
            the values into a file of its own",
            file.0
        );
    }
    let own = |field: &str| original["metadata"][field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    (sealing.name, sealing.namespace) = (own("name"), own("namespace"));
    let mut sealed = sealing.seal_objects(input.0, input.1)?;
    let [update] = &mut sealed[..] else {
        bail!("{} holds {} Secrets, and only one can be merged into {}", input.0, sealed.len(), file.0);
    };
    let scope_of = |body: &Map<String, Value>| body["metadata"].as_object().map(own_scope).unwrap_or_default();
    let (before, now) = (scope_of(&original), scope_of(update));
    if before != now {
        warn(format_args!(
            "the SealedSecret in {} is {before}, but the new values were sealed {now}: see --scope",
            file.0
        ));
    }
    for path in [
        &["spec", "encryptedData"][..],
        &["spec", "template", "metadata", "annotations"],
        &["spec", "template", "metadata", "labels"],
        &["spec", "template", "data"],
    ] {
        merge_at(&mut original, update, path);
    }
    let merged = shape::sealed_secret(original)?;
    let mut text = String::new();
    Format::of(format)?.write(&mut text, &merged)?;
    Ok(text)
}

/// Copies the entries of the mapping at `path` in `from` into the mapping at the same path in `into`. If `into` has no
/// such mapping, the mapping is created.
fn merge_at(into: &mut Map<String, Value>, from: &mut Map<String, Value>, path: &[&str]) {
    let Some((first, rest)) = path.split_first() else {
        into.extend(std::mem::take(from));
        return;
    };
    let Some(Value::Object(from)) = from.get_mut(*first) else {
        return;
    };
    let entry = into.entry((*first).to_owned()).or_insert(Value::Null);
    if entry.is_null() {
        *entry = Value::Object(Map::new());
    }
    if let Value::Object(into) = entry {
        merge_at(into, from, rest);
    }
}
