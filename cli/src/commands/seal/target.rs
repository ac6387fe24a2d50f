//! The file that `gitseal seal` writes its result to. Its content must not be lost by accident.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crds::names;
use manifests::{Content, Limits, Manifest, ObjectId, printable};
use serde_json::Value;

use crate::edit::LAST_APPLIED;
use crate::output::Hint;

/// An object, and what is in it if it is a Secret or a SealedSecret.
struct Held {
    id: ObjectId,
    /// The paths of the fields that have content. Those of a Secret are named as in the SealedSecret that it becomes.
    fields: BTreeSet<String>,
}

impl Held {
    fn of(manifest: &Manifest) -> Self {
        let (id, body) = (manifest.id.clone(), &manifest.body);
        let mut fields = BTreeSet::new();
        if id.is_sealed_secret() {
            for field in ["metadata", "spec"] {
                body.get(field).into_iter().for_each(|value| collect(&mut vec![field], value, &mut fields));
            }
        } else if id.is_secret() {
            for value in ["data", "stringData"].iter().filter_map(|field| body.get(*field)) {
                collect(&mut vec!["spec", "encryptedData"], value, &mut fields);
            }
        }
        Self { id, fields }
    }

    /// Whether the other object replaces this one. A SealedSecret replaces its Secret.
    fn is_same(&self, other: &Self) -> bool {
        let sealed = |held: &Self| if held.id.is_secret() { held.id.sealed_secret() } else { held.id.clone() };
        let (a, b) = (sealed(self), sealed(other));
        let may_be = a.namespace.is_none() || b.namespace.is_none() || a.namespace == b.namespace;
        a.group == b.group && a.kind == b.kind && a.name == b.name && may_be
    }
}

/// Adds to `fields` the path of every part of `value` that is content of its own (see [`follows_from_the_rest`]).
fn collect<'v>(path: &mut Vec<&'v str>, value: &'v Value, fields: &mut BTreeSet<String>) {
    if follows_from_the_rest(path, value) {
        return;
    }
    match value {
        Value::Object(values) => {
            for (key, value) in values {
                path.push(key);
                collect(path, value, fields);
                path.pop();
            }
        }
        _ => drop(fields.insert(path.join("."))),
    }
}

/// Whether the field is no content of its own: another part of the object says the same, or a server wrote it.
fn follows_from_the_rest(path: &[&str], value: &Value) -> bool {
    match path {
        ["metadata", field, ..] if !["labels", "annotations"].contains(field) => true,
        ["spec", "template", "metadata", "name" | "namespace"] => true,
        ["spec", "template", "type"] => value == "Opaque" || value == "",
        [.., "annotations", key] => [names::CLUSTER_WIDE, names::NAMESPACE_WIDE, LAST_APPLIED].contains(key),
        _ => value.is_null(),
    }
}

/// The documents of a YAML text.
struct Text<'t> {
    objects: Vec<Held>,
    /// Documents that are not manifests, each with the parser's error.
    others: Vec<(&'t str, String)>,
}

impl<'t> Text<'t> {
    fn read(file: &str, text: &'t str) -> Self {
        let mut read = Self { objects: Vec::new(), others: Vec::new() };
        for document in manifests::split(text) {
            match manifests::parse_document(file, &document, &Limits::default()) {
                Ok(Content::Object(manifest)) => read.objects.push(Held::of(&manifest)),
                Ok(Content::List(items)) => read.objects.extend(items.iter().map(Held::of)),
                Ok(Content::Nothing) => {}
                Err(error) => read.others.push((document.text, error.to_string())),
            }
        }
        read
    }
}

/// # Errors
/// The file has content that `text` does not have, or content that cannot be read; or it is a link to another file.
pub(super) fn loses_nothing(target: &Path, text: &str) -> anyhow::Result<()> {
    // Nothing can be lost if the file does not exist, or is a terminal or a pipe.
    if !fs::metadata(target).is_ok_and(|metadata| metadata.is_file()) {
        return Ok(());
    }
    if target.is_symlink() {
        let real = target.canonicalize().unwrap_or_default();
        return Err(Hint::error(
            format!("{} is a link to {}", target.display(), real.display()),
            "give the path of that file instead, or add --force to replace the file through the link",
        ));
    }
    let name = target.display().to_string();
    let Ok(old) = fs::read_to_string(target) else {
        return Err(refused(format!("{name} holds something other than text, which would be lost")));
    };
    let (old, new) = (Text::read(&name, &old), Text::read("", text));
    if let Some((_, mistake)) = old.others.iter().find(|(text, _)| !new.others.iter().any(|(kept, _)| kept == text)) {
        return Err(refused(format!("{mistake}; this document of the file would be lost")));
    }
    for object in old.objects {
        let Some(now) = new.objects.iter().find(|now| object.is_same(now)) else {
            return Err(refused(format!("{name} holds {}, which would be lost", object.id)));
        };
        if let Some(field) = object.fields.difference(&now.fields).next() {
            let sealed =
                if object.id.is_secret() { field.replacen("spec.encryptedData", "data", 1) } else { field.clone() };
            let field = printable(&sealed);
            return Err(refused(format!("{name} holds {field} of {}, and {field} would be lost", object.id)));
        }
    }
    Ok(())
}

fn refused(what: String) -> anyhow::Error {
    Hint::error(what, "write to another file, or add --force to replace it")
}
