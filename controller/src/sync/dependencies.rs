//! `spec.dependsOn`: a Sync waits until the Syncs that it names are Ready.

use std::{collections::BTreeMap, sync::Arc};

use crds::{ConditionStatus, ObjectKey, Sync, conditions, find_condition};
use pipeline::{Stage, StageError};

use super::source::content_of;
use crate::context::{Context, InStore as _};

/// The reason while a Sync waits for another one.
const NOT_READY: &str = "DependencyNotReady";
const CYCLE: &str = "DependencyCycle";

/// Why a Sync has to wait for another one.
#[derive(Debug, thiserror::Error)]
pub(super) enum DependencyError {
    /// The other Sync does not exist.
    #[error("it waits for Sync {0}, which does not exist; create it, or correct spec.dependsOn")]
    Missing(ObjectKey),
    /// It is not Ready.
    #[error("it waits for Sync {0}, which is not Ready")]
    NotReady(ObjectKey),
    /// It is Ready, but with an older content of its folder.
    #[error("it waits for Sync {0}, which has not applied the newest content of its folder yet")]
    Outdated(ObjectKey),
    /// It is suspended.
    #[error("it waits for Sync {0}, which is suspended: resume that one, or remove it from spec.dependsOn")]
    Suspended(ObjectKey),
    /// The Sync waits for itself, through these Syncs.
    #[error("the Syncs of spec.dependsOn wait for each other: {}; remove one of these dependencies", names(.0))]
    Cycle(Vec<ObjectKey>),
    /// The other Sync is in another namespace.
    #[error("Sync {0} is in another namespace, and the controller was started without --allow-cross-namespace")]
    CrossNamespace(ObjectKey),
}

impl StageError for DependencyError {
    const STAGE: Stage = Stage::Source;

    fn reason(&self) -> &'static str {
        match self {
            Self::CrossNamespace(_) => "AccessDenied",
            Self::Cycle(_) => CYCLE,
            Self::Missing(_) | Self::NotReady(_) | Self::Outdated(_) | Self::Suspended(_) => NOT_READY,
        }
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Self::CrossNamespace(_) | Self::Cycle(_))
    }

    /// Whether the other Sync will become Ready by itself, or reports its own problem.
    fn is_expected(&self) -> bool {
        matches!(self, Self::NotReady(_) | Self::Outdated(_))
    }
}

/// The Syncs that `sync` depends on.
fn of(sync: &Sync) -> impl Iterator<Item = ObjectKey> + '_ {
    let own = sync.metadata.namespace.as_deref().unwrap_or_default();
    sync.spec
        .depends_on
        .iter()
        .map(move |reference| ObjectKey::new(reference.namespace.as_deref().unwrap_or(own), reference.name.as_str()))
}

/// Whether `sync` depends on `key`.
pub(crate) fn depends_on(sync: &Sync, key: &ObjectKey) -> bool {
    of(sync).any(|dependency| dependency == *key)
}

/// Whether a Sync that is not Ready for this reason waits for another one.
pub(crate) fn is_waiting(reason: &str) -> bool {
    [NOT_READY, CYCLE].contains(&reason)
}

/// Whether all Syncs that `sync` depends on are Ready, with the newest content of their own folders.
pub(super) fn check(ctx: &Context, sync: &Sync) -> Result<(), DependencyError> {
    for key in of(sync) {
        if !ctx.tenancy.allow_cross_namespace && sync.metadata.namespace.as_deref() != Some(key.namespace.as_str()) {
            return Err(DependencyError::CrossNamespace(key));
        }
        let Some(dependency) = ctx.syncs.get(&key.to_ref()) else {
            return Err(DependencyError::Missing(key));
        };
        let status = dependency.status.as_ref();
        let is_ready = status.is_some_and(|status| {
            status.observed_generation == dependency.metadata.generation
                && find_condition(&status.conditions, conditions::READY)
                    .is_some_and(|ready| ready.status == ConditionStatus::True)
        });
        let wanted = content_of(&ctx.sources, &dependency);
        let is_current = wanted.is_some() && status.and_then(|status| status.applied_content.clone()) == wanted;
        if (!is_ready || !is_current) && dependency.spec.suspend {
            return Err(DependencyError::Suspended(key));
        }
        if !is_ready {
            return match cycle(sync, |key| ctx.syncs.get(&key.to_ref())) {
                Some(cycle) => Err(DependencyError::Cycle(cycle)),
                None => Err(DependencyError::NotReady(key)),
            };
        }
        if !is_current {
            return Err(DependencyError::Outdated(key));
        }
    }
    Ok(())
}

/// The path from `sync` through its dependencies back to itself, if there is one.
fn cycle(sync: &Sync, get: impl Fn(&ObjectKey) -> Option<Arc<Sync>>) -> Option<Vec<ObjectKey>> {
    let start = ObjectKey::of(sync);
    // Every Sync that was found, with the Sync that depends on it. So memory grows with the number of Syncs, not of
    // paths.
    let mut found: BTreeMap<ObjectKey, ObjectKey> = BTreeMap::new();
    let mut next: Vec<ObjectKey> = vec![start.clone()];
    let waits_for = |key: &ObjectKey| -> Vec<ObjectKey> {
        if *key == start { of(sync).collect() } else { get(key).iter().flat_map(|other| of(other)).collect() }
    };
    while let Some(waiting) = next.pop() {
        for key in waits_for(&waiting) {
            if key == start {
                let mut way = vec![key, waiting.clone()];
                while let Some(before) = way.last().and_then(|last| found.get(last)) {
                    way.push(before.clone());
                }
                way.reverse();
                return Some(way);
            }
            if !found.contains_key(&key) {
                found.insert(key.clone(), waiting.clone());
                next.push(key);
            }
        }
    }
    None
}

/// A path as text; the middle of a long one is left out.
fn names(way: &[ObjectKey]) -> String {
    const SHOWN: usize = 6;
    let name = |keys: &[ObjectKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" waits for ");
    match way.len() {
        count if count <= SHOWN => name(way),
        count => format!(
            "{} waits for {} others, and the last of them waits for {}",
            name(&way[..SHOWN - 2]),
            count - SHOWN + 1,
            way[count - 1]
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sync(name: &str, waits_for: &[&str]) -> Arc<Sync> {
        let depends_on: Vec<_> = waits_for.iter().map(|name| json!({ "name": name })).collect();
        let spec = json!({"repository": {"name": "repo"}, "path": "./", "dependsOn": depends_on});
        let object = json!({
            "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": name, "namespace": "a"}, "spec": spec,
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn syncs_that_wait_for_each_other_are_named() {
        let all = [
            sync("self", &["self"]),
            sync("one", &["free", "two"]),
            sync("two", &["three"]),
            sync("three", &["one", "missing"]),
            sync("free", &[]),
            sync("beside", &["one"]),
        ];
        let get = |key: &ObjectKey| all.iter().find(|sync| ObjectKey::of(&***sync) == *key).cloned();
        let found = |index: usize| cycle(&all[index], get).map(|way| names(&way));
        assert_eq!(found(0).as_deref(), Some("a/self waits for a/self"));
        assert_eq!(found(1).as_deref(), Some("a/one waits for a/two waits for a/three waits for a/one"));
        assert_eq!(found(4), None);
        let many: Vec<_> = (0..400_usize)
            .map(|number| {
                let waits_for: Vec<_> = (1..=64).rev().map(|step| format!("s{}", (number + step) % 400)).collect();
                let waits_for: Vec<_> = waits_for.iter().map(String::as_str).collect();
                sync(&format!("s{number}"), &waits_for)
            })
            .collect();
        let get = |key: &ObjectKey| many.iter().find(|sync| ObjectKey::of(&***sync) == *key).cloned();
        let told = names(&cycle(&many[0], get).unwrap());
        assert!(
            told.starts_with("a/s0 waits for a/s") && told.ends_with(" waits for a/s0") && told.len() < 200,
            "{told}"
        );
        assert_eq!(found(5), None, "it waits for some that wait for each other, and is not one of them");
    }
}
