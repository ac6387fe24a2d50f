//! The file that is written to: what is in it already must not get lost by accident.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use manifests::{Content, Limits, Manifest, ObjectId};

use crate::output::Hint;

/// An object, and the keys of its values if it has any.
struct Held {
    /// A Secret counts as the SealedSecret that it becomes.
    id: ObjectId,
    keys: BTreeSet<String>,
}

impl Held {
    fn of(manifest: &Manifest) -> Self {
        let id = if manifest.id.is_secret() { manifest.id.sealed_secret() } else { manifest.id.clone() };
        let spec = if manifest.id.is_sealed_secret() { manifest.body.get("spec") } else { None };
        let fields: Vec<_> = match spec {
            Some(spec) => ["encryptedData"].iter().filter_map(|field| spec.get(*field)?.as_object()).collect(),
            None if manifest.id.is_secret() => {
                ["data", "stringData"].iter().filter_map(|field| manifest.body.get(*field)?.as_object()).collect()
            }
            None => Vec::new(),
        };
        Self { id, keys: fields.into_iter().flat_map(|values| values.keys().cloned()).collect() }
    }

    fn is_same(&self, other: &Self) -> bool {
        let (a, b) = (&self.id, &other.id);
        let may_be = a.namespace.is_none() || b.namespace.is_none() || a.namespace == b.namespace;
        a.group == b.group && a.kind == b.kind && a.name == b.name && may_be
    }
}

/// # Errors
/// The file holds an object, or a value of a SealedSecret, that `text` does not hold.
pub(super) fn loses_nothing(target: &Path, text: &str) -> anyhow::Result<()> {
    // What is no text, or no regular file, holds no manifests.
    let is_file = fs::metadata(target).is_ok_and(|metadata| metadata.is_file());
    let Some(old) = is_file.then(|| fs::read_to_string(target).ok()).flatten() else { return Ok(()) };
    let (old, new) = (held(&old), held(text));
    for object in old {
        let Some(now) = new.iter().find(|now| object.is_same(now)) else {
            return Err(refused(target, &object.id.to_string()));
        };
        if let Some(key) = object.keys.difference(&now.keys).next() {
            return Err(refused(target, &format!("the value {} of {}", manifests::printable(key), object.id)));
        }
    }
    Ok(())
}

fn refused(target: &Path, what: &str) -> anyhow::Error {
    Hint::error(
        format!("{} holds {what}, which would be lost", target.display()),
        "write to another file, or add --force to replace it",
    )
}

/// The objects of a text, as far as it can be read.
fn held(text: &str) -> Vec<Held> {
    let mut all = Vec::new();
    for document in manifests::split(text) {
        match manifests::parse_document("", &document, &Limits::default()) {
            Ok(Content::Object(manifest)) => all.push(Held::of(&manifest)),
            Ok(Content::List(items)) => all.extend(items.iter().map(Held::of)),
            Ok(Content::Nothing) | Err(_) => {}
        }
    }
    all
}
