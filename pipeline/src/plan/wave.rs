//! The order in which objects are applied. They are pruned in the reverse order.

use std::{collections::HashMap, ops::RangeInclusive};

use crds::Sync;
use manifests::{Location, Manifest, ObjectId};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    again::{Run, Runs},
    as_applied::object_at,
    id_in_cluster,
};
use crate::{Kinds, references::secrets_used};

/// A wave: its objects are applied concurrently, and the next wave begins when all of them are applied.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Wave {
    /// The number in the annotation of the object in Git; 0 without this annotation.
    pub number: i32,
    /// The order among the objects with the same number.
    pub tier: Tier,
}

/// See [`Wave::tier`]. The tier of an object depends on its kind.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Tier {
    /// Namespaces, which must exist before the objects in them, and CustomResourceDefinitions, which must exist before
    /// the objects of their kinds.
    Foundations,
    /// Service accounts, RBAC, quotas and classes, without which other objects would be refused.
    Access,
    /// SealedSecrets. Each owns its Secret, and the Secret's owner reference needs the UID of the SealedSecret.
    SealedSecrets,
    /// Secrets. The values of SealedSecrets are unsealed in this tier.
    Secrets,
    /// ConfigMaps, which workloads need to start, and Repositories, which Syncs need until they have pruned their objects. Objects
    /// that use Secrets are in this tier or a later one, so Secrets of the same revision are written before them.
    Configuration,
    /// Everything else.
    Workloads,
    /// Webhooks, admission policies and API services, which could refuse the objects of the other tiers.
    Admission,
}

impl Wave {
    /// The numbers that are allowed in Git.
    pub const NUMBERS: RangeInclusive<i32> = -1000..=1000;

    /// When the objects of the wave with this number are applied: before the others (-1), with them (0), after them (1), or as tests
    /// of all of them (2). Hooks of one time are deleted together.
    pub fn time(number: i32) -> i32 {
        if number > *Self::NUMBERS.end() { 2 } else { number.signum() }
    }

    /// Whether its objects are tests.
    pub fn is_of_tests(self) -> bool {
        Self::time(self.number) == 2
    }

    /// The wave of an object with this wave number.
    pub fn new(number: i32, id: &ObjectId) -> Self {
        Self { number, tier: Tier::of(id) }
    }
}

impl Tier {
    /// The tier of an object.
    pub fn of(id: &ObjectId) -> Self {
        match (id.group.as_str(), id.kind.as_str()) {
            _ if is_namespace(id) || is_definition(id) => Self::Foundations,
            ("", "ServiceAccount" | "ResourceQuota" | "LimitRange")
            | ("scheduling.k8s.io" | "storage.k8s.io" | "node.k8s.io" | "rbac.authorization.k8s.io", _)
            | ("networking.k8s.io", "IngressClass") => Self::Access,
            ("bitnami.com", "SealedSecret") => Self::SealedSecrets,
            ("", "Secret") => Self::Secrets,
            ("", "ConfigMap") | ("gitseal.dev", "Repository") => Self::Configuration,
            ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Self::Admission,
            _ => Self::Workloads,
        }
    }
}

fn is_namespace(id: &ObjectId) -> bool {
    id.group.is_empty() && id.kind == "Namespace"
}

fn is_definition(id: &ObjectId) -> bool {
    id.group == "apiextensions.k8s.io" && id.kind == "CustomResourceDefinition"
}

fn annotation<'a>(manifest: &'a Manifest, name: &str) -> Option<&'a Value> {
    let annotations = manifest.body.get("metadata")?.get("annotations")?;
    annotations.get(name).filter(|value| !value.is_null())
}

/// The wave number in the manifest's annotation, if the manifest has this annotation. Tests have numbers after all others. The error
/// is a value that is not an allowed number.
pub(crate) fn number_of(manifest: &Manifest) -> Result<Option<i32>, &Value> {
    let is_test = is_test(manifest).unwrap_or_default();
    let Some(value) = annotation(manifest, crds::names::WAVE) else { return Ok(is_test.then_some(TESTS)) };
    let number = value.as_str().and_then(|text| text.parse().ok()).filter(|number| Wave::NUMBERS.contains(number));
    number.map(|number| Some(if is_test { TESTS + number } else { number })).ok_or(value)
}

/// The number of the later wave in which the object is made again, if the manifest's annotation names one. The error is a value that
/// is not allowed.
pub(crate) fn wave_again(manifest: &Manifest) -> Result<Option<i32>, &Value> {
    let Some(value) = annotation(manifest, crds::names::WAVE_AGAIN) else { return Ok(None) };
    let number = value.as_str().and_then(|text| text.parse().ok());
    let number = number.filter(|number| *number > 0 && Wave::NUMBERS.contains(number));
    let is_before = number_of(manifest).is_ok_and(|first| first.is_some_and(|first| first < 0));
    number.filter(|_| is_before).map(Some).ok_or(value)
}

/// The number of the wave of a test without a number in Git.
const TESTS: i32 = 2 * *Wave::NUMBERS.end() + 1;

/// Whether the manifest's annotation says that the object is a test. The error is a value that is not allowed.
pub fn is_test(manifest: &Manifest) -> Result<bool, &Value> {
    match annotation(manifest, crds::names::RUN_WHEN) {
        None => Ok(false),
        Some(value) if value == crds::names::RUN_WHEN_HEALTHY => Ok(true),
        Some(value) => Err(value),
    }
}

/// Whether an object is applied only in an installation, or only in upgrades.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OnlyOn {
    /// Until the Sync is Ready for the first time.
    Installation,
    /// After that.
    Upgrade,
}

/// When the object is applied, if its annotation says so. The error is a value that is not allowed.
pub(crate) fn only_on(manifest: &Manifest) -> Result<Option<OnlyOn>, &Value> {
    match annotation(manifest, crds::names::ONLY_ON) {
        None => Ok(None),
        Some(value) if value == crds::names::ONLY_ON_INSTALLATION => Ok(Some(OnlyOn::Installation)),
        Some(value) if value == crds::names::ONLY_ON_UPGRADE => Ok(Some(OnlyOn::Upgrade)),
        Some(value) => Err(value),
    }
}

/// Whether the installation is complete: the Sync was Ready before, or its annotation says that something else installed what it
/// applies.
pub(super) fn is_installed(sync: &Sync) -> bool {
    let said = sync.metadata.annotations.as_ref().and_then(|all| all.get(crds::names::INSTALLED));
    said.is_some_and(|said| said == crds::names::INSTALLED_TRUE)
        || sync.status.as_ref().is_some_and(|status| status.installed == Some(true))
}

/// Identifies what tests test: all other manifests of the folder, and the request of the Sync to run them again.
pub(super) fn tested(sync: &Sync, manifests: &[Manifest]) -> String {
    let others = manifests.iter().filter(|manifest| !is_test(manifest).unwrap_or_default());
    let mut digests: Vec<_> = others.map(|manifest| (&manifest.id, manifest.digest())).collect();
    digests.sort();
    let request = sync.metadata.annotations.as_ref().and_then(|all| all.get(crds::names::RUN_TESTS));
    let mut hash = Sha256::new();
    for (id, digest) in digests {
        hash.update(format!("{} {digest}\n", id.to_inventory()));
    }
    hash.update(request.map_or("", String::as_str));
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Writes into a test what it tests.
pub(super) fn set_tested(manifest: &mut Manifest, tested: &str) {
    let annotations = object_at(object_at(&mut manifest.body, "metadata"), "annotations");
    annotations.insert(crds::names::TESTED.to_owned(), tested.into());
}

/// Whether the manifest's annotation says that later waves wait until the object is healthy. The error is a value that
/// is not allowed.
pub(crate) fn asks_to_wait(manifest: &Manifest) -> Result<bool, &Value> {
    match annotation(manifest, crds::names::WAIT) {
        None => Ok(false),
        Some(value) if value == crds::names::WAIT_HEALTHY => Ok(true),
        Some(value) => Err(value),
    }
}

/// The parts of an annotation, which are separated by commas. The error is a value that is no text.
fn parts<'a>(manifest: &'a Manifest, name: &str) -> Result<Option<(&'a Value, Vec<&'a str>)>, &'a Value> {
    let Some(value) = annotation(manifest, name) else { return Ok(None) };
    let text = value.as_str().ok_or(value)?;
    Ok(Some((value, text.split(',').map(str::trim).collect())))
}

/// When an object is deleted that is still in Git.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct DeletedWhen {
    /// When it is healthy.
    pub(crate) healthy: bool,
    /// When it has failed.
    pub(crate) failed: bool,
}

/// When the object is deleted, as the manifest's annotation says. The error is a value that is not allowed.
pub(crate) fn asks_for_deletion(manifest: &Manifest) -> Result<DeletedWhen, &Value> {
    let mut when = DeletedWhen::default();
    if let Some((value, parts)) = parts(manifest, crds::names::DELETE_WHEN)? {
        for part in parts {
            match part {
                crds::names::DELETE_WHEN_HEALTHY => when.healthy = true,
                crds::names::DELETE_WHEN_FAILED => when.failed = true,
                _ => return Err(value),
            }
        }
    }
    Ok(when)
}

/// The wave of a hook of Helm with the weight zero that runs before the other objects are applied or pruned.
pub const HOOKS_BEFORE: i32 = -500;
/// The wave of a hook of Helm with the weight zero that runs after the other objects were applied or pruned.
pub const HOOKS_AFTER: i32 = 500;

/// When an object is applied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Times {
    /// With the other objects.
    pub usual: bool,
    /// When its Sync is deleted, before the other objects are pruned.
    pub before: bool,
    /// When its Sync is deleted, after the other objects were pruned.
    pub after: bool,
}

impl Times {
    /// Whether the object is applied when its Sync is deleted.
    pub fn is_on_delete(self) -> bool {
        self.before || self.after
    }

    fn has(self, when: OnDelete) -> bool {
        match when {
            OnDelete::Before => self.before,
            OnDelete::After => self.after,
        }
    }
}

/// The time at which an object that is meant for the deletion of its Sync is applied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnDelete {
    /// Before the other objects are pruned.
    Before,
    /// After the other objects were pruned.
    After,
}

/// When the object is applied, as the manifest's annotation says. The error is a value that is not allowed.
pub fn times(manifest: &Manifest) -> Result<Times, &Value> {
    let Some((value, parts)) = parts(manifest, crds::names::ON_DELETE)? else {
        return Ok(Times { usual: true, before: false, after: false });
    };
    let mut times = Times { usual: false, before: false, after: false };
    for part in parts {
        match part {
            crds::names::ON_DELETE_ALSO => times.usual = true,
            crds::names::ON_DELETE_BEFORE => times.before = true,
            crds::names::ON_DELETE_AFTER => times.after = true,
            _ => return Err(value),
        }
    }
    if times.is_on_delete() { Ok(times) } else { Err(value) }
}

/// Whether the object does its work once, and has to be made again to do it again.
pub fn runs_once(id: &ObjectId) -> bool {
    matches!((id.group.as_str(), id.kind.as_str()), ("batch", "Job") | ("", "Pod"))
}

/// The number of the wave that a hook of Helm has at this time. Hooks of several times have the number of the first one in Git.
fn number_at(number: i32, when: OnDelete) -> i32 {
    let weight = number - if number > 0 { HOOKS_AFTER } else { HOOKS_BEFORE };
    weight
        + match when {
            OnDelete::Before => HOOKS_BEFORE,
            OnDelete::After => HOOKS_AFTER,
        }
}

/// The objects that are applied before or after the pruning (`when`) while their Sync is deleted. Their annotations are
/// changed, so that a plan applies each of them and deletes it when it is healthy.
pub fn applied_on_delete(manifests: &[Manifest], when: OnDelete) -> Vec<Manifest> {
    let all = manifests.iter().filter(|manifest| times(manifest).is_ok_and(|times| times.has(when))).cloned();
    let planned = all.map(|mut manifest| {
        object_at(object_at(&mut manifest.body, "metadata"), "annotations").remove(crds::names::RUN_WHEN);
        let number = number_of(&manifest).ok().flatten().filter(|_| is_hook(&manifest));
        let metadata = manifest.body.get_mut("metadata");
        if let Some(Value::Object(annotations)) = metadata.and_then(|metadata| metadata.get_mut("annotations")) {
            annotations.remove(crds::names::ON_DELETE);
            annotations.remove(crds::names::WAVE_AGAIN);
            annotations.remove(crds::names::ONLY_ON);
            if manifest.id.is_sealed_secret() {
                // It gets the number of the first object that uses its Secret.
                annotations.remove(crds::names::WAVE);
            } else if let Some(number) = number {
                annotations.insert(crds::names::WAVE.to_owned(), number_at(number, when).to_string().into());
            }
            // The object must not stay in the cluster.
            annotations.insert(crds::names::DELETE_WHEN.to_owned(), crds::names::DELETE_WHEN_HEALTHY.into());
        }
        manifest
    });
    planned.collect()
}

/// Whether a Sync waits for the object even with `wait: false`. A hook that is in Git as plain YAML, without the annotations of
/// waves, is an object like any other.
pub(super) fn is_always_awaited(manifest: &Manifest) -> bool {
    let is_hook_that_waits = is_hook(manifest) && asks_to_wait(manifest).unwrap_or_default();
    is_hook_that_waits
        || is_test(manifest).unwrap_or_default()
        || asks_for_deletion(manifest).is_ok_and(|when| when.healthy || when.failed)
}

/// Whether the object is a hook of Helm.
pub(super) fn is_hook(manifest: &Manifest) -> bool {
    annotation(manifest, crds::names::HELM_HOOK).is_some()
}

/// An object has a later wave than another object that needs it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{origin}: {id} is of wave {number} and needs {needed} at {needed_origin}, which is of wave {late}: give {needed} an earlier wave, or {id} a later one, with the annotation {WAVE}"
, WAVE = crds::names::WAVE)]
pub struct TooLate {
    /// The file and line of the object that needs the other one.
    pub origin: Location,
    /// The object that needs the other one.
    pub id: ObjectId,
    /// Wave number of `id`.
    pub number: i32,
    /// The object that is needed.
    pub needed: ObjectId,
    /// The file and line of the needed object.
    pub needed_origin: Location,
    /// Wave number of `needed`.
    pub late: i32,
}

/// The wave numbers of the objects that are not in wave 0. A Namespace must not have a later wave than the objects in
/// it. The same holds for a CustomResourceDefinition and the objects of its kind, and for a SealedSecret and the
/// objects that use its Secret. If such an object has no number in Git, it gets the number of the first object that
/// needs it. An object that is made twice has the number of the time that `runs` says.
pub(super) fn numbers(
    sync: &Sync,
    manifests: &[Manifest],
    kinds: &Kinds,
    runs: &Runs,
) -> Result<HashMap<ObjectId, i32>, Box<TooLate>> {
    let said = manifests.iter().map(|manifest| match runs.get(&manifest.id) {
        Some(Run::Second(number)) => Some(number),
        Some(Run::First(_)) | None => number_of(manifest).unwrap_or_default(),
    });
    let said: Vec<Option<i32>> = said.collect();
    if said.iter().all(Option::is_none) {
        return Ok(HashMap::new());
    }
    let mut objects = Objects::new(sync, manifests, kinds, said);
    // SealedSecrets are handled first: if one of them gets the number of the first object that uses its Secret, its
    // Namespace may have to get this number, too.
    for user in 0..manifests.len() {
        for needed in objects.secrets_of(user) {
            objects.comes_with(needed, user)?;
        }
    }
    for user in 0..manifests.len() {
        for needed in objects.foundations_of(user) {
            objects.comes_with(needed, user)?;
        }
    }
    Ok(objects.numbers())
}

/// The objects of a folder. Each is identified by its index in `manifests`.
struct Objects<'a> {
    manifests: &'a [Manifest],
    ids: Vec<ObjectId>,
    said: Vec<Option<i32>>,
    numbers: Vec<i32>,
    places: HashMap<ObjectId, usize>,
    /// The indexes of the CustomResourceDefinitions, by the group and kind that these define.
    definitions: HashMap<(&'a str, &'a str), usize>,
}

impl<'a> Objects<'a> {
    fn new(sync: &Sync, manifests: &'a [Manifest], kinds: &Kinds, said: Vec<Option<i32>>) -> Self {
        let ids: Vec<_> = manifests
            .iter()
            .map(|manifest| match kinds.of(manifest) {
                Some(resource) => id_in_cluster(sync, manifest, resource),
                // The plan reports unknown kinds, so they are no error here.
                None => manifest.id.clone(),
            })
            .collect();
        let places = ids.iter().cloned().enumerate().map(|(place, id)| (id, place)).collect();
        let definitions = manifests.iter().enumerate().filter(|(_, manifest)| is_definition(&manifest.id));
        let definitions = definitions.filter_map(|(place, manifest)| {
            let text = |pointer: &str| manifest.body.get("spec")?.pointer(pointer)?.as_str();
            Some(((text("/group")?, text("/names/kind")?), place))
        });
        let definitions = definitions.collect();
        let numbers = said.iter().map(|number| number.unwrap_or(0)).collect();
        Self { manifests, ids, said, numbers, places, definitions }
    }

    /// The SealedSecrets whose Secrets the object uses.
    fn secrets_of(&self, user: usize) -> Vec<usize> {
        let secrets = secrets_used(&self.manifests[user]).into_iter().map(|name| ObjectId {
            group: String::new(),
            kind: "Secret".into(),
            namespace: self.ids[user].namespace.clone(),
            name,
        });
        secrets.filter_map(|secret| self.places.get(&secret.sealed_secret()).copied()).collect()
    }

    /// The Namespace that the object is in, and the CustomResourceDefinition of its kind.
    fn foundations_of(&self, user: usize) -> Vec<usize> {
        let id = &self.ids[user];
        let namespace = id.namespace.as_ref().and_then(|name| {
            let (group, kind, name) = (String::new(), "Namespace".into(), name.clone());
            self.places.get(&ObjectId { group, kind, namespace: None, name })
        });
        let definition = self.definitions.get(&(id.group.as_str(), id.kind.as_str()));
        namespace.into_iter().chain(definition).copied().collect()
    }

    fn comes_with(&mut self, needed: usize, user: usize) -> Result<(), Box<TooLate>> {
        let (late, number) = (self.numbers[needed], self.numbers[user]);
        if late <= number {
            return Ok(());
        }
        if self.said[needed].is_none() {
            self.numbers[needed] = number;
            return Ok(());
        }
        Err(Box::new(TooLate {
            origin: self.manifests[user].origin.clone(),
            id: self.ids[user].clone(),
            number,
            needed: self.ids[needed].clone(),
            needed_origin: self.manifests[needed].origin.clone(),
            late,
        }))
    }

    fn numbers(self) -> HashMap<ObjectId, i32> {
        let mut numbers = HashMap::new();
        for (id, number) in self.ids.into_iter().zip(self.numbers).filter(|(_, number)| *number != 0) {
            if id.is_sealed_secret() {
                numbers.insert(id.secret(), number);
            }
            numbers.insert(id, number);
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_before_what_uses_them_and_after_what_owns_them() {
        let tier = |group: &str, kind: &str| {
            Tier::of(&ObjectId { group: group.into(), kind: kind.into(), namespace: None, name: "x".into() })
        };
        let order = [
            tier("", "Namespace"),
            tier("rbac.authorization.k8s.io", "Role"),
            tier("bitnami.com", "SealedSecret"),
            tier("", "Secret"),
            tier("gitseal.dev", "Repository"),
            tier("gitseal.dev", "Sync"),
            tier("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        ];
        assert_eq!(tier("apps", "Deployment"), tier("gitseal.dev", "Sync"));
        assert!(order.is_sorted_by(|a, b| a < b));
        assert_eq!(tier("example.com", "Namespace"), Tier::Workloads);
    }
}
