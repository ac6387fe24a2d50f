//! `gitseal unseal`.

pub(in crate::commands) mod documents;
pub(in crate::commands) mod keys;
mod print;

pub use keys::keys_of;

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use crds::names;
use manifests::{Limits, Location, Manifest, ObjectId};
use pipeline::plan::Sealed;
use sealing::{PrivateKey, Scope, SecretBytes};
use serde::Deserialize;
use serde_json::{Map, Value};
use unsealing::{ReservedNames, SealedInput, SealedTexts, UnsealError, UnsealedSecret};

use crate::commands::keys::encryption::Decryption;
use crate::global::Global;
use crate::output::{self, Hint, OutputFormat};
use crate::templates;

/// Unseal SealedSecrets offline, with the cluster's private keys
///
/// Use it for recovery, or to see what is sealed. No cluster is needed. Prints the Secrets, with their values in plain
/// base64. If a value cannot be unsealed, its name is printed to standard error, the rest is still printed, and the exit
/// code is 1.
///
///     gitseal unseal sealed.yaml --private-key keys.age --identity me.txt
///     gitseal unseal sealed.yaml --private-key <(kubectl get secret \
///       -n kube-system -l sealedsecrets.bitnami.com/sealed-secrets-key \
///       -o yaml)    with bash or zsh: the keys are in no file
///
/// One value alone, byte for byte:
///
///     gitseal unseal sealed.yaml --private-key keys.yaml --key-name password
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct UnsealArgs {
    /// Files with SealedSecrets; standard input if `-` or nothing is given
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Private keys: PEM, key Secrets in YAML or JSON, or a file of `keys backup`; can be given several times
    #[arg(long, alias = "key", value_name = "FILE", required = true, env = "GITSEAL_PRIVATE_KEY")]
    private_key: Vec<PathBuf>,

    #[command(flatten)]
    decryption: Decryption,

    /// Print only the value of this key, byte for byte
    #[arg(long, value_name = "KEY", conflicts_with = "output")]
    key_name: Option<String>,
}

pub fn run(args: &UnsealArgs, global: &Global) -> anyhow::Result<()> {
    let keys = keys::read(&args.private_key, &args.decryption)?;
    let sealed = sealed_secrets(&args.files)?;
    if let Some(key_name) = &args.key_name {
        return print_value(sealed, key_name, &keys, global);
    }
    let (mut unsealed, mut failures) = (Vec::new(), Vec::new());
    for manifest in sealed {
        unsealed.extend(what_opens(manifest, &keys, global, &mut failures));
    }
    if !unsealed.is_empty() {
        let text = match global.output {
            Some(OutputFormat::Json) => print::json(&unsealed)?,
            _ => print::yaml(&unsealed)?,
        };
        output::print_raw(text.as_bytes())?;
    }
    output::all("some values from being unsealed", failures).map_or(Ok(()), Err)
}

/// The Secret with the values that can be unsealed; `None` if none can be unsealed.
fn what_opens(
    mut manifest: Manifest,
    keys: &[PrivateKey],
    global: &Global,
    failures: &mut Vec<anyhow::Error>,
) -> Option<UnsealedSecret> {
    let (mut values, mut closed) = (Vec::new(), Vec::new());
    let mut open = || {
        let secret = SealedSecret::read(manifest.clone(), global)?;
        let texts = secret.texts()?;
        for (index, (name, _)) in texts.texts.iter().enumerate() {
            match secret.unseal(&texts, index, keys) {
                Ok(value) => values.push(value),
                Err(error) => {
                    closed.extend(name.clone());
                    failures.push(error);
                }
            }
        }
        anyhow::Ok(secret)
    };
    let secret = match open() {
        // In `spec.data`, all values are sealed as one text: if that cannot be unsealed, there is no value.
        Ok(secret) if secret.input().spec.data.is_some() && values.is_empty() => return None,
        Ok(secret) => secret,
        Err(error) => {
            failures.push(error);
            return None;
        }
    };
    if closed.is_empty() {
        return secret.assemble(values).map_err(|error| failures.push(error)).ok();
    }
    if values.is_empty() {
        return None;
    }
    // Leaves out the values that cannot be unsealed.
    let encrypted = manifest.body.get_mut("spec").and_then(|spec| spec.get_mut("encryptedData")?.as_object_mut())?;
    encrypted.retain(|key, _| !closed.contains(key));
    let place = secret.place.to_string();
    let secret = SealedSecret::read(manifest, global).and_then(|secret| secret.assemble(values));
    match secret {
        Ok(secret) => {
            output::warn(format_args!("{place}: printed without {}", closed.join(", ")));
            Some(secret)
        }
        Err(error) => {
            failures.push(error);
            None
        }
    }
}

fn print_value(sealed: Vec<Manifest>, key: &str, keys: &[PrivateKey], global: &Global) -> anyhow::Result<()> {
    let mut values = Vec::new();
    for manifest in sealed.into_iter().filter(|manifest| may_have(manifest, key)) {
        values.extend(SealedSecret::read(manifest, global)?.value(key, keys)?);
    }
    let [value] = &values[..] else {
        return Err(Hint::error(
            format!("{} SealedSecrets have a value {key}; expected one", values.len()),
            "check --key-name, or name a file with one SealedSecret",
        ));
    };
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
            if file.is_dir() {
                return Err(Hint::error(
                    format!("{} is a folder", file.display()),
                    "give the files in the folder instead",
                ));
            }
            bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            file.display().to_string()
        };
        let found = manifests::parse(&name, &bytes, &Limits::default())
            .map_err(|error| Hint::error(error.to_string(), error.hint()))?;
        sealed.extend(found.into_iter().filter(|manifest| manifest.id.is_sealed_secret()));
    }
    if sealed.is_empty() {
        return Err(Hint::error(
            "there is no SealedSecret in the input",
            "a SealedSecret has `apiVersion: bitnami.com/v1alpha1`",
        ));
    }
    Ok(sealed)
}

/// Whether the SealedSecret has this value, or may have it: in the deprecated form, the keys are sealed, too.
fn may_have(manifest: &Manifest, key: &str) -> bool {
    let Some(spec) = manifest.body.get("spec") else { return false };
    let names = |pointer| spec.pointer(pointer).is_some_and(|values| values.get(key).is_some());
    names("/encryptedData") || names("/template/data") || spec.get("data").is_some_and(|whole| !whole.is_null())
}

/// A SealedSecret of the input, read as the controller does.
struct SealedSecret<'g> {
    place: Place,
    sealed: Sealed,
    global: &'g Global,
}

impl<'g> SealedSecret<'g> {
    fn read(manifest: Manifest, global: &'g Global) -> anyhow::Result<Self> {
        let mut place = Place { origin: manifest.origin, id: manifest.id };
        place.check_texts(&manifest.body)?;
        let sealed = Sealed::deserialize(Value::Object(manifest.body))
            .with_context(|| format!("{place}: it does not have the form of a SealedSecret"))?;
        if place.id.namespace.is_none() && sealed.input(&place.id, true).scope() != Scope::ClusterWide {
            place.id.namespace = super::seal::namespace(global);
            if place.id.namespace.is_none() {
                return Err(Hint::error(
                    format!("{place}: it has no namespace, but its values are bound to a namespace"),
                    "pass the namespace that it was sealed for: --namespace",
                ));
            }
        }
        Ok(Self { place, sealed, global })
    }

    /// The Secret that the controller makes from this SealedSecret.
    fn secret(&self, keys: &[PrivateKey]) -> anyhow::Result<UnsealedSecret> {
        let texts = self.texts()?;
        let values =
            (0..texts.texts.len()).map(|index| self.unseal(&texts, index, keys)).collect::<anyhow::Result<_>>()?;
        self.assemble(values)
    }

    /// The Secret with all its values, unsealed.
    fn assemble(&self, values: Vec<SecretBytes>) -> anyhow::Result<UnsealedSecret> {
        let (namespace, key_prefix) = (self.global.controller_namespace(), names::KEY_PREFIX);
        let reserved = ReservedNames { namespace, key_prefix }.check(&self.input());
        reserved.and_then(|()| unsealing::assemble_for_key_holder(&self.input(), values)).map_err(|error| {
            let what = match error {
                UnsealError::Render(_) => "cannot render a template",
                _ => NO_SECRET,
            };
            templates::exact(error).context(format!("{}: {what}", self.place))
        })
    }

    /// One value of the SealedSecret.
    fn value(&self, key: &str, keys: &[PrivateKey]) -> anyhow::Result<Option<SecretBytes>> {
        let template = self.input().spec.template.as_ref().and_then(|template| template.data.as_ref());
        let texts = self.texts()?;
        match texts.texts.iter().position(|(name, _)| name.as_deref() == Some(key)) {
            // This value can be printed even if other values cannot be unsealed.
            Some(index) if template.is_none_or(|data| !data.contains_key(key)) => {
                self.unseal(&texts, index, keys).map(Some)
            }
            _ => Ok(self.secret(keys)?.into_values().remove(key)),
        }
    }

    fn input(&self) -> SealedInput<'_> {
        self.sealed.input(&self.place.id, true)
    }

    fn texts(&self) -> anyhow::Result<SealedTexts> {
        unsealing::sealed_texts(&self.input()).with_context(|| format!("{}: {NO_SECRET}", self.place))
    }

    fn unseal(&self, texts: &SealedTexts, index: usize, keys: &[PrivateKey]) -> anyhow::Result<SecretBytes> {
        let (binding, text) = texts.get(index);
        sealing::unseal(keys, binding, text).with_context(|| match &texts.texts[index].0 {
            Some(key) => format!("{}: cannot unseal encryptedData.{key}", self.place),
            None => format!("{}: cannot unseal spec.data", self.place),
        })
    }
}

const NO_SECRET: &str = "no Secret can be made from it";

/// Names the SealedSecret in messages.
struct Place {
    origin: Location,
    id: ObjectId,
}

impl Place {
    /// Checks that the values are strings. The parser of the whole object does not say which value is not a string.
    fn check_texts(&self, body: &Map<String, Value>) -> anyhow::Result<()> {
        let Some(spec) = body.get("spec") else { return Ok(()) };
        for (field, pointer) in [("encryptedData", "/encryptedData"), ("spec.template.data", "/template/data")] {
            for (key, value) in spec.pointer(pointer).and_then(Value::as_object).into_iter().flatten() {
                ensure!(value.is_string(), "{self}: {field}.{key} is not a string");
            }
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: SealedSecret ", self.origin)?;
        if let Some(namespace) = &self.id.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.id.name)
    }
}
