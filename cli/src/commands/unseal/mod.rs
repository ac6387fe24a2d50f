//! `gitseal unseal`.

pub(in crate::commands) mod keys;
mod print;

pub use keys::keys_of;

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use crds::SealedSecretSpec;
use manifests::{Limits, Location, Manifest};
use sealing::{PrivateKey, Scope, SecretBytes};
use serde::Deserialize as _;
use serde_json::{Map, Value};
use unsealing::{Assembly, SealedInput, UnsealError};

use crate::edit::own_scope;
use crate::global::Global;
use crate::output::{self, Hint, OutputFormat};

/// Open SealedSecrets offline, with the cluster's private keys
///
/// For recovery and for looking into a backup: no cluster is asked. Prints the Secrets with their values in plain base64.
///
///     kubectl get secret -n kube-system -l sealedsecrets.bitnami.com/sealed-secrets-key -o yaml > keys.yaml
///     gitseal unseal sealed.yaml --key keys.yaml
///     gitseal unseal sealed.yaml --key keys.yaml --key-name password    one value, byte for byte
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct UnsealArgs {
    /// Files with SealedSecrets; `-`, or none at all, is standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Private keys: PEM, or the key Secrets as YAML or JSON; can be given several times
    #[arg(long, value_name = "FILE", required = true, env = "GITSEAL_PRIVATE_KEY")]
    key: Vec<PathBuf>,

    /// Print only the value of this key, byte for byte
    #[arg(long, value_name = "KEY", conflicts_with = "output")]
    key_name: Option<String>,
}

/// A Secret that was opened; its values are wiped when dropped.
struct Opened {
    name: String,
    namespace: Option<String>,
    /// Labels, annotations and the rest, without name and namespace.
    metadata: Map<String, Value>,
    secret_type: Option<String>,
    immutable: Option<bool>,
    data: Vec<(String, SecretBytes)>,
}

pub fn run(args: &UnsealArgs, global: &Global) -> anyhow::Result<()> {
    let keys = keys::read(&args.key)?;
    let sealed = sealed_secrets(&args.files)?;
    if let Some(key_name) = &args.key_name {
        return print_value(&sealed, key_name, &keys, global);
    }
    let opened: Vec<Opened> =
        sealed.iter().map(|manifest| open(manifest, &keys, global)).collect::<anyhow::Result<_>>()?;
    let text = match global.output {
        Some(OutputFormat::Json) => print::json(&opened)?,
        _ => print::yaml(&opened)?,
    };
    output::print_raw(text.as_bytes())
}

fn print_value(sealed: &[Manifest], key_name: &str, keys: &[PrivateKey], global: &Global) -> anyhow::Result<()> {
    let with_key: Vec<&Manifest> = sealed
        .iter()
        .filter(|manifest| {
            has_template(manifest, key_name) || encrypted(manifest).is_some_and(|values| values.contains_key(key_name))
        })
        .collect();
    let [manifest] = with_key[..] else {
        return Err(Hint::error(
            format!("{} SealedSecrets have a value {key_name}; expected one", with_key.len()),
            "check --key-name, or name a file with one SealedSecret",
        ));
    };
    if has_template(manifest, key_name) {
        let data = open(manifest, keys, global)?.data;
        let value = data.iter().find(|(key, _)| key == key_name).context("a template has a result")?;
        return output::print_raw(value.1.expose());
    }
    let place = Place::of(manifest, global)?;
    let value = encrypted(manifest).and_then(|values| values.get(key_name));
    let value = place.open(key_name, value.unwrap_or(&Value::Null), keys)?;
    output::print_raw(value.expose())
}

/// The SealedSecrets of the files, in order.
fn sealed_secrets(files: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let stdin = [PathBuf::from("-")];
    let mut sealed = Vec::new();
    for file in if files.is_empty() { &stdin } else { files } {
        let mut bytes = Vec::new();
        let name = if file.as_os_str() == "-" {
            std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
            "standard input".to_owned()
        } else {
            bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            file.display().to_string()
        };
        let found = manifests::parse(&name, &bytes, &Limits::default())
            .map_err(|error| Hint::error(error.to_string(), error.hint()))?;
        sealed.extend(found.into_iter().filter(|manifest| manifest.id.is_sealed_secret()));
    }
    if sealed.is_empty() {
        return Err(Hint::error("there is no SealedSecret in the input", "it has `apiVersion: bitnami.com/v1alpha1`"));
    }
    Ok(sealed)
}

fn encrypted(manifest: &Manifest) -> Option<&Map<String, Value>> {
    manifest.body.get("spec")?.get("encryptedData")?.as_object()
}

/// Whether a template makes this value.
fn has_template(manifest: &Manifest, key: &str) -> bool {
    let data = manifest.body.get("spec").and_then(|spec| spec.pointer("/template/data")?.as_object());
    data.is_some_and(|data| data.contains_key(key))
}

/// The Secret that the controller would make, by the same code.
fn open(manifest: &Manifest, keys: &[PrivateKey], global: &Global) -> anyhow::Result<Opened> {
    let place = Place::of(manifest, global)?;
    let spec = manifest.body.get("spec").cloned().unwrap_or_default();
    let spec = SealedSecretSpec::deserialize(spec)
        .with_context(|| format!("{place}: its spec is not that of a SealedSecret"))?;
    let annotations = manifest.body.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let annotations = annotations.and_then(Value::as_object).into_iter().flatten();
    let annotations = annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    let input = SealedInput {
        namespace: place.namespace.as_deref().unwrap_or_default(),
        name: &place.name,
        annotations: &annotations,
        spec: &spec,
        accept_deprecated_v1_data: true,
    };
    let texts = unsealing::sealed_texts(&input).with_context(|| format!("{place}: cannot open it"))?;
    let values = (0..texts.texts.len()).map(|index| {
        let (binding, text) = texts.get(index);
        sealing::unseal(keys, binding, text)
            .map(Ok)
            .with_context(|| format!("{place}: cannot open {}", texts.field(index).trim_start_matches("spec.")))
    });
    let values = values.collect::<anyhow::Result<_>>()?;
    let secret = unsealing::assemble(&input, values)
        .and_then(Assembly::finish)
        .map_err(|error| not_made(&error).context(format!("{place}: {}", what_failed(&error))))?;
    let mut metadata = Map::new();
    for (field, values) in [("labels", map_of(secret.labels())), ("annotations", map_of(secret.annotations()))] {
        if !values.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(values));
        }
    }
    if !secret.finalizers().is_empty() {
        metadata.insert("finalizers".to_owned(), secret.finalizers().into());
    }
    Ok(Opened {
        name: secret.name().to_owned(),
        metadata,
        secret_type: secret.secret_type().map(str::to_owned),
        immutable: secret.immutable(),
        data: secret.into_values().into_iter().collect(),
        namespace: place.namespace,
    })
}

fn map_of<'a>(values: impl Iterator<Item = (&'a String, &'a String)>) -> Map<String, Value> {
    values.map(|(key, value)| (key.clone(), value.as_str().into())).collect()
}

/// Whoever has the private keys may see everything.
fn not_made(error: &UnsealError) -> anyhow::Error {
    match error {
        UnsealError::Render(failure) => {
            let failures: Vec<_> = failure.for_key_holders().iter().map(ToString::to_string).collect();
            anyhow!(failures.join("; "))
        }
        other => anyhow!(other.to_string()),
    }
}

fn what_failed(error: &UnsealError) -> &'static str {
    match error {
        // All values are open by now.
        UnsealError::Values(_) | UnsealError::Render(_) => "cannot render a template",
        _ => "no Secret can be made of it",
    }
}

/// What a sealed value is bound to.
struct Place {
    origin: Location,
    namespace: Option<String>,
    name: String,
    scope: Scope,
}

impl Place {
    fn of(manifest: &Manifest, global: &Global) -> anyhow::Result<Self> {
        let metadata = manifest.body.get("metadata").and_then(Value::as_object);
        let scope = metadata.map(own_scope).unwrap_or_default();
        let (origin, name) = (manifest.origin.clone(), manifest.id.name.clone());
        let own = manifest.id.namespace.clone();
        let namespace = own.or_else(|| if scope == Scope::ClusterWide { None } else { super::seal::namespace(global) });
        let place = Self { origin, namespace, name, scope };
        if place.namespace.is_none() && scope != Scope::ClusterWide {
            return Err(Hint::error(
                format!("{place}: it names no namespace, to which its values are bound"),
                "pass the namespace that it was sealed for: --namespace",
            ));
        }
        Ok(place)
    }

    fn open(&self, key: &str, value: &Value, keys: &[PrivateKey]) -> anyhow::Result<SecretBytes> {
        let value = value.as_str().with_context(|| format!("{self}: encryptedData.{key} is not a string"))?;
        let binding = self.scope.binding(self.namespace.as_deref().unwrap_or_default(), &self.name, key);
        sealing::unseal(keys, binding, value).with_context(|| format!("{self}: cannot open encryptedData.{key}"))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: SealedSecret ", self.origin)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}
