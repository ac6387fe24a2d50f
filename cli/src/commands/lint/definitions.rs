//! The definitions of custom resources that objects are checked with. A repository for several clusters may define a kind
//! differently for each.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crds::custom_resource_definitions;
use manifests::{Limits, Location, Manifest, parse};
use schemas::{Checked, KubernetesVersion, Problem, Schemas, Severity};
use serde_json::Value;

use super::report::{Finding, Report};

/// Group and kind.
type Kind = (String, String);

/// The schemas of the kinds that a version of Kubernetes serves, and of those that CustomResourceDefinitions define:
/// gitseal's own, those in the files, and those among the rendered objects.
pub(super) struct Definitions {
    schemas: Schemas,
    /// The kinds with more than one definition.
    several: BTreeMap<Kind, Vec<Definition>>,
}

/// One of the definitions of a kind.
struct Definition {
    origin: Location,
    schemas: Schemas,
    /// The Syncs that apply it, by the places of their manifests.
    syncs: BTreeSet<Location>,
}

/// A CustomResourceDefinition, and the place of the Sync that applies it, if one does.
pub(super) type Given<'m> = (&'m Manifest, Option<&'m Location>);

impl Definitions {
    /// The definitions among `given`. Other objects are ignored.
    pub(super) fn new<'m>(version: KubernetesVersion, given: &[Given<'m>], report: &mut Report) -> Self {
        let mut found = Self { schemas: Schemas::new(version), several: BTreeMap::new() };
        let own: Vec<Manifest> = custom_resource_definitions()
            .into_iter()
            .flat_map(|definition| {
                parse("gitseal", crds::to_yaml(&definition).as_bytes(), &Limits::default()).unwrap_or_default()
            })
            .collect();
        let ours: BTreeSet<_> = own.iter().filter_map(kind_of).collect();
        let applied: BTreeSet<_> =
            given.iter().filter(|(_, sync)| sync.is_some()).map(|(one, _)| &one.origin).collect();
        let mut by_kind: BTreeMap<Kind, Vec<Given<'m>>> = BTreeMap::new();
        for (definition, sync) in given {
            // Of a definition that a Sync applies, only the rendered form counts: the Sync may have changed it.
            if let Some(kind) = kind_of(definition).filter(|_| sync.is_some() || !applied.contains(&definition.origin))
            {
                by_kind.entry(kind).or_default().push((definition, *sync));
            }
        }
        for definition in own.iter().chain(given.iter().map(|(definition, _)| *definition)) {
            if let Err(error) = found.schemas.add(definition) {
                let Manifest { origin, id, .. } = definition;
                report.add(Finding::error("invalid-definition", origin, Some(id), error.to_string()));
            }
        }
        for (kind, of_kind) in by_kind {
            let mut different: Vec<(&Value, Definition)> = Vec::new();
            for (manifest, sync) in of_kind {
                let Some(spec) = manifest.body.get("spec") else { continue };
                let known = different.iter().position(|(known, _)| *known == spec);
                let index = known.unwrap_or_else(|| {
                    let mut schemas = Schemas::new(version);
                    // If it is wrong, this was reported above.
                    let _ = schemas.add(manifest);
                    let (origin, syncs) = (manifest.origin.clone(), BTreeSet::new());
                    different.push((spec, Definition { origin, schemas, syncs }));
                    different.len() - 1
                });
                different[index].1.syncs.extend(sync.cloned());
            }
            if different.len() > 1 && !ours.contains(&kind) {
                found.several.insert(kind, different.into_iter().map(|(_, definition)| definition).collect());
            }
        }
        found
    }

    /// Reports what is wrong with an object, which the Sync at `sync` applies.
    pub(super) fn check(&mut self, object: &Manifest, sync: Option<&Location>, report: &mut Report) {
        let kind = (object.id.group.clone(), object.id.kind.clone());
        let Some(several) = self.several.get_mut(&kind) else {
            match self.schemas.check(object) {
                Checked::NoSchema => report.unchecked(object, self.schemas.meant(object)),
                Checked::Problems(problems) => {
                    let version = self.schemas.version();
                    report.add_all(problems.into_iter().map(|problem| finding(object, problem, version)));
                }
            }
            return;
        };
        let version = self.schemas.version();
        let meant = meant(several, sync);
        let mut checked = Vec::new();
        for index in &meant {
            match several[*index].schemas.check(object) {
                Checked::NoSchema => return report.unchecked(object, None),
                Checked::Problems(problems) => checked.push((*index, problems)),
            }
        }
        // Definitions may refuse the same field for different reasons. Then the reason of the first one is told.
        let mut fields = BTreeMap::new();
        for problem in checked.iter().flat_map(|(_, problems)| problems) {
            fields.entry((problem.severity, problem.field.as_str())).or_insert(problem);
        }
        for ((severity, field), problem) in fields {
            let is_here = |other: &Problem| other.severity == severity && other.field == field;
            let (wrong, fine): (Vec<_>, Vec<_>) =
                checked.iter().partition(|(_, problems)| problems.iter().any(is_here));
            let places = |definitions: &[&(usize, Vec<Problem>)]| {
                let places: BTreeSet<_> =
                    definitions.iter().map(|(index, _)| several[*index].origin.to_string()).collect();
                places.into_iter().collect::<Vec<_>>().join(", ")
            };
            let found = finding(object, problem.clone(), version);
            if fine.is_empty() {
                report.add(found);
                continue;
            }
            let message = format!(
                "{}, by the CustomResourceDefinition in {}, but not by the one in {}: which of them is in the cluster of the \
                 object is not known, because no Sync beside this one applies it",
                found.message,
                places(&wrong),
                places(&fine)
            );
            report.add(Finding { severity: Severity::Warning, check: "several-definitions", message, ..found });
        }
    }
}

/// The definitions that may be in the cluster of a Sync's objects: that which the Sync itself applies, or else those which
/// Syncs apply whose manifests are in the same folder, or else all.
fn meant(several: &[Definition], sync: Option<&Location>) -> Vec<usize> {
    let folder = |place: &Location| Path::new(place.file.as_ref()).parent().map(Path::to_owned);
    let those = |is: &dyn Fn(&Location, &Location) -> bool| -> Vec<usize> {
        let Some(sync) = sync else { return Vec::new() };
        let is_one = |(_, one): &(usize, &Definition)| one.syncs.iter().any(|other| is(other, sync));
        several.iter().enumerate().filter(is_one).map(|(index, _)| index).collect()
    };
    let own = those(&|other, sync| other == sync);
    let beside = || those(&|other, sync| folder(other) == folder(sync));
    let found = if own.is_empty() { beside() } else { own };
    if found.is_empty() { (0..several.len()).collect() } else { found }
}

/// The group and kind that a CustomResourceDefinition defines. `None` for other objects.
fn kind_of(manifest: &Manifest) -> Option<Kind> {
    let id = &manifest.id;
    let text = |pointer: &str| Some(manifest.body.get("spec")?.pointer(pointer)?.as_str()?.to_owned());
    let is_definition = id.group == "apiextensions.k8s.io" && id.kind == "CustomResourceDefinition";
    is_definition.then(|| Some((text("/group")?, text("/names/kind")?))).flatten()
}

fn finding(object: &Manifest, problem: Problem, version: KubernetesVersion) -> Finding {
    let Problem { severity, check, field, message } = problem;
    let (origin, id) = (object.origin.clone(), Some(object.id.clone()));
    Finding { severity, check: check.name(), origin, object: id, field, message, kubernetes: Some(version) }
}
