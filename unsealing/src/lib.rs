//! Makes the Secret of a SealedSecret. The crate is pure: it has no keys, does no I/O, and sends no requests.
//!
//! # Flow
//! [`sealed_texts`] lists the values to unseal. The caller, who has the private keys, unseals them. [`assemble`] puts the
//! results together. [`Assembly::finish`] renders the templates over the values and returns an [`UnsealedSecret`]: plaintext in
//! memory that is wiped, which cannot be printed or serialised. [`UnsealedSecret::body`] is the body of a server-side apply of
//! the Secret. `gitseal unseal` uses [`assemble_for_key_holder`], which makes the same Secret.
//!
//! # Errors
//! All values are tried before an error is returned, so that the error names every value that has to be sealed again.
//! No error contains a value or a part of one. If a template fails when it is rendered over the values, the error does
//! not depend on the values: [`RenderFailure`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod body;
mod digest;
mod error;
mod templates;
mod texts;
mod whole;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crds::{SealedSecretSpec, TemplateMetadata, names};
use manifests::printable;
use sealing::{Scope, SecretBytes};
use serde::Serialize;
use zeroize::Zeroizing;

use self::templates::Templates;
pub use self::{
    body::secret_json,
    digest::{digest, old_digest},
    error::{RenderFailure, UnsealError, UnsealValueError, ValueFailure},
    texts::{SealedTexts, field},
};

/// The most values that one SealedSecret may have. With a key of 4096 bits, etcd's limit on the size of an object allows fewer.
const MOST_VALUES: usize = 2500;

/// A SealedSecret, whether it came from the API server or from Git.
#[derive(Clone, Copy)]
pub struct SealedInput<'a> {
    /// Its namespace, which strict and namespace-wide values are bound to.
    pub namespace: &'a str,
    /// Its name, which strict values are bound to.
    pub name: &'a str,
    /// Its own annotations, which determine its scope.
    pub annotations: &'a BTreeMap<String, String>,
    /// The sealed values and the template.
    pub spec: &'a SealedSecretSpec,
    /// Whether `spec.data`, the deprecated first form, is unsealed: `--accept-deprecated-v1-data`.
    pub accept_deprecated_v1_data: bool,
}

impl SealedInput<'_> {
    /// The most memory that unsealing takes, in bytes: the values, the body of the Secret with its buffer, and the
    /// results of templates.
    pub fn unsealed_bytes(&self) -> u64 {
        let values = self.spec.encrypted_data.values().map(String::len).sum::<usize>();
        let deprecated = self.spec.data.as_ref().map_or(0, String::len);
        let template = self.spec.template.as_ref().map_or(0, |_| gotemplate::Limits::default().output);
        3 * (values + deprecated + template) as u64
    }

    /// The scope that the values were sealed with, as the annotations say.
    pub fn scope(&self) -> Scope {
        scope(self.annotations)
    }

    /// Keys of the values that the Secret gets, as far as they are known without a private key: the sealed values and
    /// those of the template, without the values that are only for templates.
    pub fn keys(&self) -> BTreeSet<&str> {
        let mut keys = self.spec.keys();
        let templated = self.spec.template.as_ref().and_then(|template| template.data.as_ref());
        for input in template_inputs(self.annotations) {
            if !templated.is_some_and(|data| data.contains_key(input)) {
                keys.remove(input);
            }
        }
        keys
    }

    fn texts(&self, texts: Vec<(Option<String>, String)>) -> SealedTexts {
        SealedTexts { scope: self.scope(), namespace: self.namespace.into(), name: self.name.into(), texts }
    }
}

/// Names of the controller's own Secrets: those of sealing keys, existing or new, and of the key for digests. No
/// SealedSecret may make a Secret with such a name.
#[derive(Clone, Copy, Debug)]
pub struct ReservedNames<'a> {
    /// The controller's namespace. In other namespaces, the names are allowed.
    pub namespace: &'a str,
    /// The prefix of the names of sealing keys: `--key-prefix`.
    pub key_prefix: &'a str,
}

impl ReservedNames<'_> {
    /// Checks that the Secret of the SealedSecret does not get one of these names.
    ///
    /// # Errors
    /// The Secret would have one of these names.
    pub fn check(&self, sealed: &SealedInput<'_>) -> Result<(), UnsealError> {
        if self.contain(sealed.namespace, sealed.name) {
            return Err(UnsealError::ReservedName(printable(sealed.name)));
        }
        Ok(())
    }

    /// Whether the Secret `name` in `namespace` has one of these names.
    pub fn contain(&self, namespace: &str, name: &str) -> bool {
        let is_key = || !self.key_prefix.is_empty() && name.starts_with(self.key_prefix);
        namespace == self.namespace && ([names::DIGEST_KEY, names::KEY_CLAIM].contains(&name) || is_key())
    }
}

/// Keys of sealed values that only templates use, from the annotation `gitseal.dev/template-inputs`.
fn template_inputs(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    let list = annotations.get(names::TEMPLATE_INPUTS).map(String::as_str).unwrap_or_default();
    list.split(',').map(str::trim).filter(|key| !key.is_empty())
}

/// The scope that a SealedSecret with these annotations was sealed with.
pub fn scope(annotations: &BTreeMap<String, String>) -> Scope {
    Scope::from_annotations(|name| annotations.get(name).map(String::as_str))
}

/// A Secret in plaintext, ready to be applied.
pub struct UnsealedSecret {
    namespace: String,
    name: String,
    metadata: TemplateMetadata,
    /// `None` means `Opaque`.
    type_: Option<String>,
    immutable: Option<bool>,
    /// Whether the SealedSecret owns the Secret. It does not if the template has the annotation
    /// `skip-set-owner-references`.
    owned: bool,
    values: Values,
}

type Values = BTreeMap<String, SecretBytes>;

/// The SealedSecret in the cluster that owns a Secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner<'a> {
    /// Name of the SealedSecret.
    pub name: &'a str,
    /// UID of the SealedSecret.
    pub uid: &'a str,
}

/// The texts that have to be unsealed, in the order in which [`assemble`] needs the results.
pub fn sealed_texts(sealed: &SealedInput<'_>) -> Result<SealedTexts, UnsealError> {
    let spec = sealed.spec;
    let found = spec.encrypted_data.len();
    if found > MOST_VALUES {
        return Err(UnsealError::TooManyValues { found });
    }
    match &spec.data {
        Some(_) if !spec.encrypted_data.is_empty() => Err(UnsealError::TwoForms),
        Some(_) if !sealed.accept_deprecated_v1_data => Err(UnsealError::DeprecatedForm),
        Some(whole) => Ok(sealed.texts(vec![(None, whole.clone())])),
        None => {
            let texts = spec.encrypted_data.iter().map(|(key, text)| (Some(key.clone()), text.clone()));
            Ok(sealed.texts(texts.collect()))
        }
    }
}

/// Makes the Secret from the unsealed [`sealed_texts`]. The error names every value that could not be unsealed, and
/// every template that cannot be parsed.
pub fn assemble(
    sealed: &SealedInput<'_>,
    unsealed: Vec<Result<SecretBytes, UnsealValueError>>,
) -> Result<Assembly, UnsealError> {
    if sealed.spec.data.is_some() {
        return whole::assemble(sealed, unsealed);
    }
    let mut values = Values::new();
    let mut failures = Vec::new();
    for (key, result) in sealed.spec.encrypted_data.keys().zip(unsealed) {
        match result {
            Ok(value) => drop(values.insert(key.clone(), value)),
            Err(error) => failures.push(ValueFailure::sealed(Some(key), &error)),
        }
    }
    failures.extend(templates::check(sealed.spec));
    if !failures.is_empty() {
        return Err(UnsealError::Values(failures));
    }
    Assembly::of(sealed, values)
}

/// Makes the same Secret as [`assemble`] and [`Assembly::finish`], for somebody who has the private keys. `unsealed`
/// are the unsealed [`sealed_texts`]. All templates are tried, so that [`RenderFailure::for_key_holders`] has every one
/// that fails.
pub fn assemble_for_key_holder(
    sealed: &SealedInput<'_>,
    unsealed: Vec<SecretBytes>,
) -> Result<UnsealedSecret, UnsealError> {
    if sealed.spec.data.is_some() {
        return whole::assemble(sealed, unsealed.into_iter().map(Ok).collect())?.finish();
    }
    let values = sealed.spec.encrypted_data.keys().cloned().zip(unsealed).collect();
    Assembly::of(sealed, values)?.finish()
}

/// An unsealed Secret whose templates are not rendered yet.
pub struct Assembly {
    secret: UnsealedSecret,
    templates: Templates,
    /// Keys of values that only templates use. The Secret gets such a key only if a template has the same key.
    inputs: Vec<String>,
}

impl Assembly {
    fn of(sealed: &SealedInput<'_>, values: Values) -> Result<Self, UnsealError> {
        let template = sealed.spec.template.clone().unwrap_or_default();
        let templates = Templates::of(sealed, template.data.unwrap_or_default());
        let secret = UnsealedSecret {
            namespace: sealed.namespace.into(),
            name: sealed.name.into(),
            metadata: template.metadata.unwrap_or_default(),
            type_: template.type_,
            immutable: template.immutable,
            owned: is_owned(sealed.spec),
            values,
        };
        // A Secret with such a label would be used as a sealing key. Then anybody who knows that key could read all values
        // that are sealed from then on.
        match secret.key_label() {
            Some(label) => Err(UnsealError::ReservedLabel(label)),
            None => {
                Ok(Self { secret, templates, inputs: template_inputs(sealed.annotations).map(str::to_owned).collect() })
            }
        }
    }

    /// Whether there are templates to render, which may take a moment.
    pub fn has_templates(&self) -> bool {
        self.templates.is_active()
    }

    /// Renders the templates. As in Sealed Secrets, the result of a template replaces an unsealed value of the same
    /// key, and all templates are given the unsealed values. Then the values that are only for templates are dropped.
    pub fn finish(self) -> Result<UnsealedSecret, UnsealError> {
        let Self { mut secret, templates, inputs } = self;
        let only_inputs: Vec<_> = inputs.into_iter().filter(|key| !templates.has(key)).collect();
        secret.values = templates.render(secret.values)?;
        for key in only_inputs {
            secret.values.remove(&key);
        }
        Ok(secret)
    }
}

/// Whether the Secret is deleted when its SealedSecret is deleted.
fn is_owned(spec: &SealedSecretSpec) -> bool {
    let annotations = || spec.template.as_ref()?.metadata.as_ref()?.annotations.as_ref();
    annotations().and_then(|all| all.get(names::SKIP_SET_OWNER_REFERENCES)).is_none_or(|value| value != "true")
}

impl UnsealedSecret {
    /// Namespace of the Secret.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Name of the Secret.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names of the values.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The values, including the results of templates.
    pub fn values(&self) -> &BTreeMap<String, SecretBytes> {
        &self.values
    }

    /// The values alone.
    pub fn into_values(self) -> BTreeMap<String, SecretBytes> {
        self.values
    }

    /// Its labels, without those of a Sync. A template may have such labels if it was copied from a live Secret, but
    /// they do not decide to which Sync an object belongs.
    pub fn labels(&self) -> impl Iterator<Item = (&String, &String)> {
        let reserved = [names::SYNC_NAME, names::SYNC_NAMESPACE];
        self.metadata.labels.iter().flatten().filter(move |(name, _)| !reserved.contains(&name.as_str()))
    }

    /// Its annotations, without the annotation that older versions of gitseal set. A template may have that annotation
    /// if it was copied from a live Secret.
    pub fn annotations(&self) -> impl Iterator<Item = (&String, &String)> {
        self.metadata.annotations.iter().flatten().filter(|(name, _)| *name != names::SEALED_DIGEST)
    }

    /// Its finalizers.
    pub fn finalizers(&self) -> &[String] {
        self.metadata.finalizers.as_deref().unwrap_or_default()
    }

    /// Its type, if the template sets one. Otherwise the API server sets `Opaque`.
    pub fn secret_type(&self) -> Option<&str> {
        self.type_.as_deref().filter(|type_| !type_.is_empty())
    }

    /// The field `immutable` of the Secret, if the template sets it.
    pub fn immutable(&self) -> Option<bool> {
        self.immutable
    }

    /// The Secret as JSON for a server-side apply. With `owner`, the JSON is the whole Secret, and the SealedSecret
    /// becomes the Secret's owner unless the template says otherwise. Without `owner`, the JSON has only what is merged
    /// into somebody else's Secret. It then lacks the annotation `skip-set-owner-references`, which shows that a Secret
    /// without an owner belongs to a SealedSecret.
    ///
    /// With `version`, the API server refuses the apply if the Secret has another resource version by then.
    pub fn body(&self, owner: Option<Owner<'_>>, version: Option<&str>) -> Zeroizing<Vec<u8>> {
        let is_merged = owner.is_none();
        let owner = owner.filter(|_| self.owned).map(|owner| OwnerJson {
            api_version: "bitnami.com/v1alpha1",
            kind: "SealedSecret",
            name: owner.name,
            uid: owner.uid,
            controller: true,
        });
        let head = Head {
            api_version: "v1",
            kind: "Secret",
            metadata: Metadata {
                name: &self.name,
                namespace: &self.namespace,
                resource_version: version,
                labels: by_name(self.labels()),
                annotations: by_name(
                    self.annotations().filter(|(name, _)| !is_merged || *name != names::SKIP_SET_OWNER_REFERENCES),
                ),
                finalizers: self.finalizers(),
                owner_references: owner.into_iter().collect(),
            },
            type_: self.secret_type(),
            immutable: self.immutable,
        };
        let values: Vec<(&str, &[u8])> =
            self.values.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
        secret_json(&head, &values)
    }

    /// A label in the template that would make the Secret a sealing key.
    fn key_label(&self) -> Option<&'static str> {
        let labels = self.metadata.labels.as_ref()?;
        names::KEY_LABELS.iter().copied().find(|label| labels.contains_key(*label))
    }
}

fn by_name<'a>(all: impl Iterator<Item = (&'a String, &'a String)>) -> BTreeMap<&'a str, &'a str> {
    all.map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    type_: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    immutable: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    finalizers: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    owner_references: Vec<OwnerJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OwnerJson<'a> {
    api_version: &'static str,
    kind: &'static str,
    name: &'a str,
    uid: &'a str,
    controller: bool,
}
