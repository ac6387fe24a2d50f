//! What the controller or the API server refuses in a Sync or Repository.

use std::{collections::BTreeMap, path::Path};

use crds::ObjectKey;
use manifests::Manifest;
use pipeline::health::{apart, rules};

use super::report::Finding;
use crate::fleet::Found;

/// The name of the check.
const CHECK: &str = "invalid-sync";

/// The rules of gitseal's own CustomResourceDefinitions that the object breaks.
pub(super) fn broken_rules(object: &Manifest) -> Vec<Finding> {
    if object.id.group != "gitseal.dev" {
        return Vec::new();
    }
    let broken = rules::broken_rules(&object.id.kind, &object.body).into_iter();
    broken.map(|rule| finding(object, rule.field, rule.message)).collect()
}

/// What the controller refuses in a Sync that the API server accepts.
pub(super) fn refused(found: &Found) -> Vec<Finding> {
    let object = &found.manifest;
    let mut problems: Vec<_> =
        apart::mistakes(&found.sync).into_iter().map(|(place, mistake)| finding(object, place, mistake)).collect();
    if found.sync.spec.kube_config.is_some() {
        let message = "applying to another cluster is not supported yet, and the controller refuses this Sync; remove \
            the field";
        problems.push(finding(object, "spec.kubeConfig".to_owned(), message.to_owned()));
    }
    problems
}

fn finding(object: &Manifest, field: String, message: String) -> Finding {
    Finding { field, ..Finding::error(CHECK, &object.origin, Some(&object.id), message) }
}

/// Syncs that wait for themselves, and files with the same Sync.
pub(super) fn of_all(all: &[&Found]) -> Vec<Finding> {
    let mut problems = Vec::new();
    let mut by_key: BTreeMap<ObjectKey, Vec<usize>> = BTreeMap::new();
    for (index, found) in all.iter().enumerate() {
        let same = by_key.entry(found.key()).or_default();
        let first = same.iter().map(|other| all[*other]).find(|other| folder(other) == folder(found));
        match first.filter(|first| first.origin != found.origin) {
            Some(first) => {
                let message =
                    format!("the same Sync is already at {}; remove one of the two, or rename it", first.origin);
                problems.push(finding(&found.manifest, String::new(), message));
            }
            None => same.push(index),
        }
    }
    // A repository often has the Syncs of several clusters, with the same names in different folders. So a name means the Sync
    // of the same folder or, if there is only one Sync of the name, this Sync.
    let waits_for = |index: usize| -> Vec<usize> {
        let found = all[index];
        let dependencies = found.sync.spec.depends_on.iter().filter(|dependency| dependency.is_sync());
        let named = dependencies.filter_map(|dependency| {
            let namespace = dependency.namespace.clone().unwrap_or_else(|| found.key().namespace);
            let same = by_key.get(&ObjectKey { namespace, name: dependency.name.clone() })?;
            let beside = same.iter().find(|other| folder(all[**other]) == folder(found));
            beside.or(same.first().filter(|_| same.len() == 1)).copied()
        });
        named.collect()
    };
    let mut told = vec![false; all.len()];
    for start in 0..all.len() {
        if told[start] {
            continue;
        }
        if let Some(way) = way_back(start, &waits_for) {
            for index in &way {
                told[*index] = true;
            }
            let names: Vec<_> = way.iter().chain([&start]).map(|index| all[*index].key().to_string()).collect();
            let message = format!(
                "the Sync waits for itself, so the controller never applies it: {}; remove one of these dependencies",
                names.join(" waits for ")
            );
            problems.push(finding(&all[start].manifest, "spec.dependsOn".to_owned(), message));
        }
    }
    problems
}

fn folder(found: &Found) -> &Path {
    Path::new(&*found.origin.file).parent().unwrap_or(Path::new(""))
}

/// The shortest chain of Syncs, each of which waits for the next one, from the Sync `start` back to itself.
fn way_back(start: usize, waits_for: &impl Fn(usize) -> Vec<usize>) -> Option<Vec<usize>> {
    let mut before = BTreeMap::new();
    let mut next = std::collections::VecDeque::from([start]);
    while let Some(at) = next.pop_front() {
        for other in waits_for(at) {
            if other == start {
                let mut way = vec![at];
                while let Some(earlier) = before.get(&way[way.len() - 1]).filter(|_| way[way.len() - 1] != start) {
                    way.push(*earlier);
                }
                way.reverse();
                return Some(way);
            }
            if let std::collections::btree_map::Entry::Vacant(place) = before.entry(other) {
                place.insert(at);
                next.push_back(other);
            }
        }
    }
    None
}
