//! What may not be applied: refused with file and line, before anything is written.

use std::collections::{BTreeSet, HashMap};

use crds::Sync;
use manifests::{Location, Manifest, ObjectId};

use super::{Held, Object, Opened, Stage, StageError, references::secrets_used, render::namespace_for};

/// A manifest that is refused.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A Secret with values, readable by everybody who can read the repository.
    #[error(
        "{origin}: {id} is a plaintext Secret in Git; seal it with `gitseal seal -i {file}`, and change its values: they were published"
    )]
    PlaintextSecret {
        /// Where.
        origin: Location,
        /// Which.
        id: Box<ObjectId>,
        /// The file.
        file: String,
    },
    /// The same object twice.
    #[error("{second}: {id} stands at {first} already; remove one of the two")]
    Duplicate {
        /// The first place.
        first: Location,
        /// The second place.
        second: Location,
        /// Which object.
        id: Box<ObjectId>,
    },
    /// A Secret in Git and a SealedSecret of the same name.
    #[error(
        "{origin}: {id} would be overwritten by the SealedSecret of the same name at {sealed}; remove one of the two"
    )]
    SecretTwice {
        /// Where the Secret stands.
        origin: Location,
        /// Which Secret.
        id: Box<ObjectId>,
        /// Where the SealedSecret stands.
        sealed: Location,
    },
    /// A name that could not be part of a URL.
    #[error("{origin}: '{name}' cannot be the name of an object; names hold no '/' or '%' and are not '.' or '..'")]
    Name {
        /// Where.
        origin: Location,
        /// The name.
        name: String,
    },
}

impl StageError for GuardError {
    const STAGE: Stage = Stage::Guard;

    fn reason(&self) -> &'static str {
        match self {
            Self::PlaintextSecret { .. } => "PlaintextSecret",
            Self::Duplicate { .. } | Self::SecretTwice { .. } => "DuplicateObject",
            Self::Name { .. } => "InvalidManifest",
        }
    }

    fn is_terminal(&self) -> bool {
        true
    }
}

/// Refuses what must not be applied, and holds back what uses a Secret that could not be unsealed.
pub fn guard(sync: &Sync, opened: Opened) -> Result<Opened, GuardError> {
    for object in &opened.objects {
        check_name(object.manifest())?;
        if let Object::Plain(manifest) = object {
            check_plaintext(manifest)?;
        }
    }
    check_duplicates(sync, &opened)?;
    Ok(hold_dependents(sync, opened))
}

/// What cannot be unsealed stands in Git all the same.
fn check_duplicates(sync: &Sync, opened: &Opened) -> Result<(), GuardError> {
    let objects = opened.objects.iter().map(Object::manifest);
    let objects = objects.map(|manifest| (&manifest.id, &manifest.origin));
    let held = opened.held.iter().map(|held| (&held.id, &held.origin));
    // The kind's scope is not known here: a cluster-wide object is told apart by its name alone all the same.
    let full = |id: &ObjectId| ObjectId {
        namespace: Some(namespace_for(sync, id.namespace.as_deref()).to_owned()),
        ..id.clone()
    };
    let all: Vec<_> = objects.chain(held).collect();
    let mut seen: HashMap<ObjectId, &Location> = HashMap::with_capacity(all.len());
    for (id, origin) in &all {
        if let Some(first) = seen.insert(full(id), origin) {
            let (first, second) = (first.clone(), (*origin).clone());
            return Err(GuardError::Duplicate { first, second, id: Box::new((*id).clone()) });
        }
    }
    for (id, sealed) in all.iter().filter(|(id, _)| id.is_sealed_secret()) {
        let secret = full(id).secret();
        if let Some(origin) = seen.get(&secret) {
            let (origin, sealed) = ((*origin).clone(), (*sealed).clone());
            return Err(GuardError::SecretTwice { origin, id: Box::new(secret), sealed });
        }
    }
    Ok(())
}

fn check_name(manifest: &Manifest) -> Result<(), GuardError> {
    for name in std::iter::once(&manifest.id.name).chain(&manifest.id.namespace) {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '%']) {
            return Err(GuardError::Name { origin: manifest.origin.clone(), name: name.clone() });
        }
    }
    Ok(())
}

fn check_plaintext(manifest: &Manifest) -> Result<(), GuardError> {
    let has_values = |key: &str| {
        manifest
            .body
            .get(key)
            .filter(|values| !values.is_null())
            .is_some_and(|values| values.as_object().is_none_or(|values| !values.is_empty()))
    };
    if manifest.id.is_secret() && (has_values("data") || has_values("stringData")) {
        return Err(GuardError::PlaintextSecret {
            origin: manifest.origin.clone(),
            id: Box::new(manifest.id.clone()),
            file: manifest.origin.file.to_string(),
        });
    }
    Ok(())
}

/// Moves every object that uses the Secret of a held SealedSecret to `held`: it keeps its last good version.
fn hold_dependents(sync: &Sync, opened: Opened) -> Opened {
    let Opened { objects, mut held } = opened;
    let missing: BTreeSet<(String, String)> =
        held.iter().map(|held| (held.id.namespace.clone().unwrap_or_default(), held.id.name.clone())).collect();
    if missing.is_empty() {
        return Opened { objects, held };
    }
    let mut kept = Vec::with_capacity(objects.len());
    for object in objects {
        let manifest = object.manifest();
        let namespace = namespace_for(sync, manifest.id.namespace.as_deref()).to_owned();
        let waits_for =
            secrets_used(manifest).into_iter().find(|name| missing.contains(&(namespace.clone(), name.clone())));
        match waits_for {
            None => kept.push(object),
            Some(secret) => held.push(Held {
                id: ObjectId { namespace: Some(namespace), ..manifest.id.clone() },
                origin: manifest.origin.clone(),
                because: format!("it uses Secret '{secret}', which could not be unsealed"),
                is_cause: false,
            }),
        }
    }
    Opened { objects: kept, held }
}

#[cfg(test)]
mod tests;
