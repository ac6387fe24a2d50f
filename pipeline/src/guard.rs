//! Refuses manifests that must not be applied, with file and line, before anything is written.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fmt,
};

use crds::Sync;
use manifests::{Location, Manifest, ObjectId};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};

use crate::{
    Stage, StageError, namespace_for,
    plan::{asks_for_deletion, asks_to_wait, is_test, number_of, only_on, times, wave_again},
    render::NAMED_AT_ONCE,
};

/// A manifest that is refused.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A plaintext Secret. Everybody who can read the repository can read the Secret's values.
    #[error(
        "{origin}: {id} is a plaintext Secret in Git; seal it with `gitseal seal -i {file}`, and change its values: they were published"
    )]
    PlaintextSecret {
        /// Where it is.
        origin: Location,
        /// The Secret.
        id: Box<ObjectId>,
        /// The file.
        file: String,
    },
    /// A Secret that Kustomize generates from plaintext values. Everybody who can read the repository can read these
    /// values.
    #[error(
        "{origin}: {id} is a plaintext Secret that a secretGenerator makes; put a SealedSecret among the resources instead, and change its values: they were published"
    )]
    PlaintextGenerator {
        /// Where the generator is.
        origin: Location,
        /// The Secret.
        id: Box<ObjectId>,
    },
    /// A Secret that a template of a chart makes of values that are not sealed.
    #[error(
        "{origin}: {id} is a Secret that the chart makes of values that are not sealed; give the chart sealed values (sealedSecret in spec.helm.valuesFrom of the Sync), or the name of a Secret that a SealedSecret makes, and change values that were in Git: they were published"
    )]
    PlaintextInChart {
        /// Where the template is.
        origin: Location,
        /// The Secret.
        id: Box<ObjectId>,
    },
    /// A copy of a Secret with its values, which a tool left in an annotation.
    #[error(
        "{origin}: {id}: the annotation {annotation} has the values of a Secret in plaintext; remove it, and change \
         the values: they were published"
    )]
    PlaintextCopy {
        /// Where the object is.
        origin: Location,
        /// The object.
        id: Box<ObjectId>,
        /// The annotation.
        annotation: &'static str,
    },
    /// The same object twice.
    #[error("{second}: {id} is already at {first}; remove one of the two")]
    Duplicate {
        /// The first place.
        first: Location,
        /// The second place.
        second: Location,
        /// The object.
        id: Box<ObjectId>,
    },
    /// A Secret in Git and a SealedSecret of the same name.
    #[error(
        "{origin}: {id} would be overwritten by the SealedSecret of the same name at {sealed}; remove one of the two"
    )]
    SecretTwice {
        /// Where the Secret is.
        origin: Location,
        /// The Secret.
        id: Box<ObjectId>,
        /// Where the SealedSecret is.
        sealed: Location,
    },
    /// A name that could not be part of a URL.
    #[error(
        "{origin}: '{name}' cannot be the name of an object; a name must not contain '/' or '%', and must not be '.' \
         or '..'"
    )]
    Name {
        /// Where the object is.
        origin: Location,
        /// The name.
        name: String,
    },
    /// A value of the annotation [`crds::names::WAIT`] that is not allowed.
    #[error(
        "{origin}: {id}: {WAIT} is {value}; its only value is {HEALTHY}", WAIT = crds::names::WAIT, HEALTHY = crds::names::WAIT_HEALTHY
    )]
    Wait {
        /// Where the object is.
        origin: Location,
        /// The object.
        id: Box<ObjectId>,
        /// The value of the annotation, as JSON.
        value: String,
    },
    /// A value of the annotation [`crds::names::DELETE_WHEN`] that is not allowed.
    #[error(
        "{origin}: {id}: {WHEN} is {value}; its value is {HEALTHY}, {FAILED} or \"{HEALTHY},{FAILED}\"", WHEN = crds::names::DELETE_WHEN, HEALTHY = crds::names::DELETE_WHEN_HEALTHY, FAILED = crds::names::DELETE_WHEN_FAILED
    )]
    DeleteWhen {
        /// Where the object is.
        origin: Location,
        /// The object.
        id: Box<ObjectId>,
        /// The value of the annotation, as JSON.
        value: String,
    },
    /// A value of the annotation [`crds::names::RUN_WHEN`] that is not allowed.
    #[error(
        "{origin}: {id}: {WHEN} is {value}; its only value is {HEALTHY}", WHEN = crds::names::RUN_WHEN, HEALTHY = crds::names::RUN_WHEN_HEALTHY
    )]
    RunWhen {
        /// Where the object is.
        origin: Location,
        /// The object.
        id: Box<ObjectId>,
        /// The value of the annotation, as JSON.
        value: String,
    },
    /// A value of the annotation [`crds::names::ONLY_ON`] that is not allowed.
    #[error(
        "{origin}: {id}: {ONLY_ON} is {value}; its value is {INSTALLATION} or {UPGRADE}", ONLY_ON = crds::names::ONLY_ON, INSTALLATION = crds::names::ONLY_ON_INSTALLATION, UPGRADE = crds::names::ONLY_ON_UPGRADE
    )]
    OnlyOn {
        /// Where the object is.
        origin: Location,
        /// The object.
        id: Box<ObjectId>,
        /// The value of the annotation, as JSON.
        value: String,
    },
    /// A value of the annotation [`crds::names::ON_DELETE`] that is not allowed.
    #[error(
        "{origin}: {id}: {ON_DELETE} is {value}; its value is before, after or both, such as \"before,after\"; with also, such as \"also,before\", the object is applied with the other objects, too", ON_DELETE = crds::names::ON_DELETE
    )]
    OnDelete {
        /// Where the object is.
        origin: Location,
        /// The object.
        id: Box<ObjectId>,
        /// The value of the annotation, as JSON.
        value: String,
    },
    /// A value of the annotation [`crds::names::WAVE_AGAIN`] that is not allowed.
    #[error(
        "{origin}: {id}: {AGAIN} is {value}; it has to be an integer from 1 to 1000 in quotes, such as \"5\", and {WAVE} of the object has to be below 0", AGAIN = crds::names::WAVE_AGAIN, WAVE = crds::names::WAVE
    )]
    WaveAgain {
        /// Where the object is.
        origin: Location,
        /// The object.
        id: Box<ObjectId>,
        /// The value of the annotation, as JSON.
        value: String,
    },
    /// A wave that is not an allowed number.
    #[error(
        "{origin}: {id}: {WAVE} is {value}; it has to be an integer from -1000 to 1000 in quotes, such as \"5\"", WAVE = crds::names::WAVE
    )]
    Wave {
        /// Where the object is.
        origin: Location,
        /// The object.
        id: Box<ObjectId>,
        /// The value of the annotation, as JSON.
        value: String,
    },
}

impl GuardError {
    fn origin(&self) -> &Location {
        match self {
            Self::PlaintextSecret { origin, .. }
            | Self::PlaintextGenerator { origin, .. }
            | Self::PlaintextInChart { origin, .. }
            | Self::PlaintextCopy { origin, .. }
            | Self::Duplicate { second: origin, .. }
            | Self::SecretTwice { origin, .. }
            | Self::Name { origin, .. }
            | Self::Wait { origin, .. }
            | Self::DeleteWhen { origin, .. }
            | Self::RunWhen { origin, .. }
            | Self::OnlyOn { origin, .. }
            | Self::OnDelete { origin, .. }
            | Self::WaveAgain { origin, .. }
            | Self::Wave { origin, .. } => origin,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::PlaintextSecret { .. }
            | Self::PlaintextGenerator { .. }
            | Self::PlaintextInChart { .. }
            | Self::PlaintextCopy { .. } => "PlaintextSecret",
            Self::Duplicate { .. } | Self::SecretTwice { .. } => "DuplicateObject",
            Self::Name { .. } => "InvalidManifest",
            Self::Wave { .. }
            | Self::WaveAgain { .. }
            | Self::Wait { .. }
            | Self::DeleteWhen { .. }
            | Self::RunWhen { .. }
            | Self::OnlyOn { .. }
            | Self::OnDelete { .. } => "InvalidWave",
        }
    }
}

/// All manifests that are refused.
#[derive(Debug)]
pub struct NotAllowed {
    /// What is wrong with the first refused manifests, in the order of their files. The list is not empty.
    shown: Vec<GuardError>,
    /// How many more manifests are refused.
    more: usize,
    only_plaintext_secrets: bool,
}

impl NotAllowed {
    /// Whether each refused manifest is a Secret that only has to be sealed.
    pub fn are_plaintext_secrets(&self) -> bool {
        self.only_plaintext_secrets
    }

    /// The refused manifests that messages list: where each is, and what is wrong with it.
    pub fn each(&self) -> impl Iterator<Item = (&Location, String)> {
        self.shown.iter().map(|error| {
            let (origin, text) = (error.origin(), error.to_string());
            let message = text.strip_prefix(&format!("{origin}: ")).map(str::to_owned);
            (origin, message.unwrap_or(text))
        })
    }
}

impl std::error::Error for NotAllowed {}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.shown.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        if self.more > 0 {
            write!(f, "; and {} more", self.more)?;
        }
        Ok(())
    }
}

impl StageError for NotAllowed {
    const STAGE: Stage = Stage::Guard;

    fn reason(&self) -> &'static str {
        self.shown.first().map_or("InvalidManifest", GuardError::reason)
    }

    fn is_terminal(&self) -> bool {
        true
    }
}

/// Refuses manifests that must not be applied.
///
/// # Errors
/// All manifests that are wrong, each with the first thing that is wrong with it.
pub fn guard(sync: &Sync, manifests: &[Manifest]) -> Result<(), NotAllowed> {
    let mut places = Places::of_sealed_secrets(sync, manifests);
    let mut refused = NotAllowed { shown: Vec::new(), more: 0, only_plaintext_secrets: true };
    for manifest in manifests {
        let checked = places.check(manifest);
        let checked = check_name(manifest)
            .and_then(|()| check_plaintext(sync, manifest))
            .and_then(|()| check_wave(manifest))
            .and(checked);
        let Err(error) = checked else { continue };
        refused.only_plaintext_secrets &= matches!(error, GuardError::PlaintextSecret { .. });
        if refused.shown.len() < NAMED_AT_ONCE {
            refused.shown.push(error);
        } else {
            refused.more += 1;
        }
    }
    if refused.shown.is_empty() { Ok(()) } else { Err(refused) }
}

/// Where the objects of a folder are.
struct Places<'a> {
    sync: &'a Sync,
    seen: HashMap<ObjectId, &'a Location>,
    /// Where the SealedSecrets are, by the Secrets that are made of them.
    sealed: HashMap<ObjectId, &'a Location>,
}

impl<'a> Places<'a> {
    fn of_sealed_secrets(sync: &'a Sync, manifests: &'a [Manifest]) -> Self {
        let mut places = Self { sync, seen: HashMap::with_capacity(manifests.len()), sealed: HashMap::new() };
        for Manifest { id, origin, .. } in manifests.iter().filter(|manifest| manifest.id.is_sealed_secret()) {
            let secret = places.full(id).secret();
            places.sealed.entry(secret).or_insert(origin);
        }
        places
    }

    /// The id of the object with its namespace. Objects whose kind is not namespaced get one, too, because the kinds
    /// are not known at this stage. Such objects still differ by their names.
    fn full(&self, id: &ObjectId) -> ObjectId {
        let namespace = namespace_for(self.sync, id.namespace.as_deref()).to_owned();
        ObjectId { namespace: Some(namespace), ..id.clone() }
    }

    /// Refuses the manifest if an earlier one makes the same object.
    fn check(&mut self, Manifest { id, origin, .. }: &'a Manifest) -> Result<(), GuardError> {
        let full = self.full(id);
        if let Some(sealed) = self.sealed.get(&full) {
            let (origin, sealed) = (origin.clone(), (*sealed).clone());
            return Err(GuardError::SecretTwice { origin, id: Box::new(full), sealed });
        }
        match self.seen.entry(full) {
            Entry::Vacant(place) => {
                place.insert(origin);
                Ok(())
            }
            Entry::Occupied(place) => Err(GuardError::Duplicate {
                first: (*place.get()).clone(),
                second: origin.clone(),
                id: Box::new(id.clone()),
            }),
        }
    }
}

fn check_name(manifest: &Manifest) -> Result<(), GuardError> {
    for name in std::iter::once(&manifest.id.name).chain(&manifest.id.namespace) {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '%']) {
            return Err(GuardError::Name { origin: manifest.origin.clone(), name: name.clone() });
        }
    }
    Ok(())
}

fn check_plaintext(sync: &Sync, manifest: &Manifest) -> Result<(), GuardError> {
    if manifest.id.is_secret() && has_values(&manifest.body) {
        let (origin, id) = (manifest.origin.clone(), Box::new(manifest.id.clone()));
        if sync.spec.helm.is_some() {
            return Err(GuardError::PlaintextInChart { origin, id });
        }
        if manifests::is_kustomization(&manifest.origin.file) {
            return Err(GuardError::PlaintextGenerator { origin, id });
        }
        return Err(GuardError::PlaintextSecret { origin, id, file: manifest.origin.file.to_string() });
    }
    match plaintext_copy(manifest) {
        Some(annotation) => Err(GuardError::PlaintextCopy {
            origin: manifest.origin.clone(),
            id: Box::new(manifest.id.clone()),
            annotation,
        }),
        None => Ok(()),
    }
}

/// Whether a Secret has values. Data that is not a mapping counts as values. A misspelt field such as `stringdata` counts,
/// too: the API server refuses it, but its values are in Git all the same.
pub fn has_values(secret: &Map<String, Value>) -> bool {
    secret.iter().any(|(field, value)| {
        let is_data = field.eq_ignore_ascii_case("data") || field.eq_ignore_ascii_case("stringData");
        is_data
            && match value {
                Value::Null => false,
                Value::Object(values) => !values.is_empty(),
                _ => true,
            }
    })
}

/// Annotations in which tools keep the object that they applied last.
const COPIES: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "kubecfg.ksonnet.io/last-applied-configuration"];

/// If the manifest is a Secret or a SealedSecret: the name of the annotation, on it or on its template, that contains a
/// whole Secret with its values.
pub fn plaintext_copy(manifest: &Manifest) -> Option<&'static str> {
    if !manifest.id.is_secret() && !manifest.id.is_sealed_secret() {
        return None;
    }
    let own = manifest.body.get("metadata");
    let template = manifest.body.get("spec").and_then(|spec| spec.pointer("/template/metadata"));
    let annotations = || [own, template].into_iter().filter_map(|metadata| metadata?.get("annotations"));
    COPIES.into_iter().find(|name| annotations().filter_map(|all| all.get(name)?.as_str()).any(holds_values))
}

/// The limit of the API server for all annotations of an object together.
const MOST_BYTES: usize = 256 << 10;

/// The object in an annotation of [`COPIES`], with only the fields that show whether it is a Secret with values. The
/// other fields are never in memory.
#[expect(clippy::zero_sized_map_values, reason = "serde cannot read the keys of a map into a set")]
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Copied<'a> {
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    data: Option<BTreeMap<String, IgnoredAny>>,
    #[serde(default)]
    string_data: Option<BTreeMap<String, IgnoredAny>>,
}

/// Whether a text is a Secret with values. A text that cannot be parsed, or that is larger than the API server stores,
/// counts as a Secret with values.
fn holds_values(copy: &str) -> bool {
    if copy.len() > MOST_BYTES {
        return true;
    }
    match serde_json::from_str::<Option<Copied<'_>>>(copy) {
        Ok(None) => false,
        Ok(Some(Copied { kind, data, string_data })) => {
            let has_values = [data, string_data].into_iter().flatten().any(|values| !values.is_empty());
            kind.is_none_or(|kind| kind == "Secret") && has_values
        }
        Err(_) => !copy.trim().is_empty(),
    }
}

fn check_wave(manifest: &Manifest) -> Result<(), GuardError> {
    /// How many characters of a wrong value are shown.
    const SHOWN: usize = 40;
    let shown = |value: &Value| value.to_string().chars().take(SHOWN).collect();
    let place = || (manifest.origin.clone(), Box::new(manifest.id.clone()));
    if let Err(value) = number_of(manifest) {
        let (origin, id) = place();
        return Err(GuardError::Wave { origin, id, value: shown(value) });
    }
    if let Err(value) = wave_again(manifest) {
        let (origin, id) = place();
        return Err(GuardError::WaveAgain { origin, id, value: shown(value) });
    }
    if let Err(value) = asks_to_wait(manifest) {
        let (origin, id) = place();
        return Err(GuardError::Wait { origin, id, value: shown(value) });
    }
    if let Err(value) = asks_for_deletion(manifest) {
        let (origin, id) = place();
        return Err(GuardError::DeleteWhen { origin, id, value: shown(value) });
    }
    if let Err(value) = is_test(manifest) {
        let (origin, id) = place();
        return Err(GuardError::RunWhen { origin, id, value: shown(value) });
    }
    if let Err(value) = only_on(manifest) {
        let (origin, id) = place();
        return Err(GuardError::OnlyOn { origin, id, value: shown(value) });
    }
    if let Err(value) = times(manifest) {
        let (origin, id) = place();
        return Err(GuardError::OnDelete { origin, id, value: shown(value) });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
