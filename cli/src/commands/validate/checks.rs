//! Checks that need only the files.

use std::collections::BTreeMap;

use crds::names::SEALING_KEY;
use manifests::{Content, Limits, Location, Manifest, ObjectId, printable};
use pipeline::guard::{has_values, plaintext_copy};
use sealing::{CLUSTER_WIDE_ANNOTATION, Certificate, Format, NAMESPACE_WIDE_ANNOTATION, Scope};
use serde_json::{Map, Value};

use super::problem::Problem;
use super::spec;
use crate::edit::{
    SealedObject, SealedText, ValueInText, check_key, check_name, left_plain_by_sops, names_kind, own_scope,
};

/// Finds documents that cannot be read, and objects that should have been SealedSecrets.
pub(super) fn documents(file: &str, text: &str, problems: &mut Vec<Problem>) {
    let is_meant = |text: &str| names_kind(text, "SealedSecret") || names_kind(text, "Secret");
    for document in manifests::split(text) {
        match manifests::parse_document(file, &document, &Limits::default()) {
            Ok(Content::Object(manifest)) => other_kind(file, &manifest, problems),
            Ok(Content::List(items)) => items.iter().for_each(|item| other_kind(file, item, problems)),
            Err(error) if is_meant(document.text) => {
                let message = format!("{}; {}", error.kind(), error.hint());
                problems.push(Problem::error("unreadable", file, error.location().line, message));
            }
            Ok(Content::Nothing) | Err(_) => {}
        }
    }
}

/// The checks, with the objects that they have seen in the files so far.
pub(super) struct Checks<'c> {
    certificate: Option<&'c Certificate>,
    /// The namespace of SealedSecrets whose manifest names no namespace.
    namespace: Option<String>,
    seen: BTreeMap<ObjectId, Location>,
}

impl<'c> Checks<'c> {
    pub(super) fn new(certificate: Option<&'c Certificate>, namespace: Option<String>) -> Self {
        Self { certificate, namespace, seen: BTreeMap::new() }
    }

    pub(super) fn sealed_secret(
        &mut self,
        file: &str,
        text: &SealedText<'_>,
        object: &SealedObject,
        problems: &mut Vec<Problem>,
    ) {
        let manifest = &object.manifest;
        let mut found = Found { file, text, object, problems: Vec::new() };
        if manifest.version != "v1alpha1" {
            let message = format!("apiVersion is {}, not bitnami.com/v1alpha1", manifest.api_version());
            found.error("api-version", &["apiVersion"], message);
        }
        if let Err(error) = check_name(&manifest.id.name) {
            found.error("name", &["metadata", "name"], error.to_string());
        }
        self.duplicate(manifest, &mut found);
        self.scope(manifest, &mut found);
        spec::check(manifest, &mut found);
        for value in &object.values {
            self.value(value, &mut found);
        }
        problems.append(&mut found.problems);
    }

    fn duplicate(&mut self, manifest: &Manifest, found: &mut Found<'_>) {
        let mut id = manifest.id.clone();
        id.namespace = id.namespace.or_else(|| self.namespace.clone());
        if let Some(first) = self.seen.get(&id) {
            found.error("duplicate", &[], format!("it is already in {first}"));
        } else {
            self.seen.insert(id, manifest.origin.clone());
        }
    }

    fn scope(&self, manifest: &Manifest, found: &mut Found<'_>) {
        let none = Map::new();
        let metadata = manifest.body.get("metadata").and_then(Value::as_object).unwrap_or(&none);
        let annotation = |key: &str| metadata.get("annotations").and_then(|all| all.get(key));
        for key in [CLUSTER_WIDE_ANNOTATION, NAMESPACE_WIDE_ANNOTATION] {
            let path = ["metadata", "annotations", key];
            match annotation(key) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) if text == "true" || text == "false" => {}
                Some(Value::String(_)) => {
                    found.error("scope", &path, format!("{key} is neither \"true\" nor \"false\": it is ignored"));
                }
                Some(_) => found.error("scope", &path, format!("{key} is not a string: quote it")),
            }
        }
        let is_set = |key: &str| annotation(key).and_then(Value::as_str) == Some("true");
        if is_set(CLUSTER_WIDE_ANNOTATION) && is_set(NAMESPACE_WIDE_ANNOTATION) {
            let path = ["metadata", "annotations", NAMESPACE_WIDE_ANNOTATION];
            found.warning("scope", &path, "it has two scopes: cluster-wide wins, so remove the other one");
        }
        let scope = own_scope(metadata);
        let template = manifest.body.get("spec").and_then(|spec| spec.pointer("/template/metadata")?.as_object());
        if let Some(other) = template.map(own_scope).filter(|other| *other != Scope::Strict && *other != scope) {
            let path = ["spec", "template", "metadata", "annotations"];
            let message = format!(
                "the template has the scope {other}, which is ignored: the scope of the values is \
                {scope}"
            );
            found.warning("scope", &path, message);
        }
        if scope != Scope::ClusterWide && manifest.id.namespace.is_none() && self.namespace.is_none() {
            let message = format!("it has no namespace, but its values are bound to a namespace (scope {scope})");
            found.error("namespace", &["metadata"], message);
        }
    }

    fn value(&self, value: &ValueInText, found: &mut Found<'_>) {
        if let Some(key) = &value.key
            && let Err(error) = check_key("encryptedData", key)
        {
            found.error_at("key", value.line, error.to_string());
        }
        let field = value.field();
        match sealing::SealedValue::parse(&value.value) {
            Err(error) => found.error_at("value", value.line, format!("{field}: {error}")),
            Ok(sealed) if sealed.format() == Format::Age => {
                let message = format!(
                    "{field}: values that are sealed with age are not supported yet: seal the value with the \
                     cluster's certificate"
                );
                found.error_at("value", value.line, message);
            }
            Ok(sealed) => sealed.rsa_bits().into_iter().for_each(|bits| self.key_size(value, bits, found)),
        }
    }

    fn key_size(&self, value: &ValueInText, bits: usize, found: &mut Found<'_>) {
        let Some(expected) = self.certificate.map(|certificate| certificate.public_key().bits()) else { return };
        if bits != expected.next_multiple_of(8) {
            let field = value.field();
            let message = format!(
                "{field}: it was sealed with a key of {bits} bits, but the key of the certificate has {expected}"
            );
            found
                .problems
                .push(Problem::warning("key-size", found.file, value.line, message).of(&found.object.manifest.id));
        }
    }
}

/// The problems that were found in one SealedSecret.
pub(super) struct Found<'f> {
    file: &'f str,
    text: &'f SealedText<'f>,
    object: &'f SealedObject,
    problems: Vec<Problem>,
}

impl Found<'_> {
    pub(super) fn error(&mut self, check: &'static str, path: &[&str], message: impl Into<String>) {
        let line = self.text.line(self.object, path);
        self.error_at(check, line, message);
    }

    pub(super) fn error_at(&mut self, check: &'static str, line: u32, message: impl Into<String>) {
        self.problems.push(Problem::error(check, self.file, line, message).of(&self.object.manifest.id));
    }

    pub(super) fn warning(&mut self, check: &'static str, path: &[&str], message: impl Into<String>) {
        let line = self.text.line(self.object, path);
        self.problems.push(Problem::warning(check, self.file, line, message).of(&self.object.manifest.id));
    }
}

/// Finds plaintext Secrets, and SealedSecrets of another API group.
fn other_kind(file: &str, manifest: &Manifest, problems: &mut Vec<Problem>) {
    let (id, line) = (&manifest.id, manifest.origin.line);
    if id.kind == "SealedSecret" && id.group != "bitnami.com" {
        let message = format!("apiVersion is {}, not bitnami.com/v1alpha1", manifest.api_version());
        problems.push(Problem::error("api-version", file, line, message).of(id));
    }
    if let Some(annotation) = plaintext_copy(manifest) {
        let message =
            format!("the annotation {annotation} holds the values of a Secret: remove it, and choose new values");
        problems.push(Problem::error("unsealed", file, line, message).of(id));
    }
    if !id.is_secret() || !has_values(&manifest.body) {
        return;
    }
    if manifest.body.contains_key("sops") {
        if let Some(field) = left_plain_by_sops(manifest) {
            let message = format!(
                "SOPS did not encrypt {}: encrypt it, and choose new values if it was pushed; see encrypted_regex \
                in .sops.yaml",
                printable(&field)
            );
            problems.push(Problem::error("unsealed", file, line, message).of(id));
        }
        return;
    }
    let labels = manifest.body.get("metadata").and_then(|metadata| metadata.get("labels"));
    let message = if labels.is_some_and(|labels| labels.get(SEALING_KEY).is_some()) {
        "a private sealing key: anybody who reads it can unseal every value; remove it from the Git history, too"
    } else {
        "a plaintext Secret: seal it with `gitseal seal`; if it was pushed, its values are no longer secret: change \
         them, too"
    };
    problems.push(Problem::error("unsealed", file, line, message).of(id));
}
