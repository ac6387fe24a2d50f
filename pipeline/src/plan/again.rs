//! Objects that are made twice for each change, as hooks of Helm are that run before the other objects and after them: first in the wave
//! that their annotation `gitseal.dev/wave` names, and again in the wave that `gitseal.dev/wave-again` names. In between, they are
//! deleted. The inventory shows how far such an object is, so a restart of the controller makes nothing again.

use std::collections::HashMap;

use crds::{Deletion, Sync};
use manifests::{Manifest, ObjectId};

use super::{
    as_applied::digest_as_applied,
    id_in_cluster, is_only_made,
    wave::{OnlyOn, is_hook, is_installed, number_of, only_on, times, wave_again},
};
use crate::{Inventory, Kinds, inventory::Tracked};

/// What the digest of an object ends with when it was made for the second time.
const SECOND: &str = "-again";

/// Which time it is for an object that is made twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Run {
    /// It is the first time. The object is made again in this wave.
    First(i32),
    /// It is the second time, in this wave.
    Second(i32),
}

/// The objects of a folder that are made twice, by their ids in Git.
#[derive(Default)]
pub(super) struct Runs(HashMap<ObjectId, Run>);

impl Runs {
    /// Finds out from the inventory `current` which time it is for each of these objects.
    pub(super) fn of(sync: &Sync, manifests: &[Manifest], kinds: &Kinds, current: &Inventory) -> Self {
        let is_usual = |manifest: &&Manifest| times(manifest).is_ok_and(|times| times.usual);
        let twice = manifests.iter().filter(is_usual).filter_map(|manifest| {
            // A SealedSecret is not deleted in between, because other objects use its Secret.
            let again = wave_again(manifest).ok().flatten().filter(|_| !manifest.id.is_sealed_secret())?;
            Some((manifest, again))
        });
        let state = |manifest: &Manifest| {
            let id = id_in_cluster(sync, manifest, kinds.of(manifest)?);
            Some((current.get(&id)?, digest_as_applied(sync, manifest.clone(), &id)?))
        };
        // An object of the second time that was deleted is needed again at the first time if another hook of that time changed.
        let mut changes = None;
        let mut first_changes = || {
            *changes.get_or_insert_with(|| {
                manifests.iter().filter(is_usual).filter(|manifest| !is_left_alone(sync, manifest)).any(|manifest| {
                    let is_first = is_hook(manifest)
                        && number_of(manifest).is_ok_and(|number| number.is_some_and(|number| number < 0));
                    is_first && state(manifest).is_none_or(|(known, digest)| first_of(known) != Some(digest.as_str()))
                })
            })
        };
        let runs = twice.map(|(manifest, again)| {
            let is_second = state(manifest).is_some_and(|(known, digest)| {
                let is_same = first_of(known) == Some(digest.as_str());
                let is_done = known.deletion == Some(Deletion::Done);
                match known.manifest.as_deref() {
                    Some(applied) if applied.ends_with(SECOND) => is_same && !(is_done && first_changes()),
                    _ => is_same && (is_done || known.wave == again),
                }
            });
            (manifest.id.clone(), if is_second { Run::Second(again) } else { Run::First(again) })
        });
        Self(runs.collect())
    }

    /// Which time it is for the object that has this id in Git, if it is made twice.
    pub(super) fn get(&self, id: &ObjectId) -> Option<Run> {
        self.0.get(id).copied()
    }
}

/// Whether an object may differ from what the inventory has of it, because it is not applied now.
fn is_left_alone(sync: &Sync, manifest: &Manifest) -> bool {
    is_only_made(manifest)
        || match only_on(manifest) {
            Ok(Some(OnlyOn::Installation)) => is_installed(sync),
            Ok(Some(OnlyOn::Upgrade)) => !is_installed(sync),
            _ => false,
        }
}

/// The digest for an object that is made for the second time.
pub(super) fn second(digest: &str) -> String {
    format!("{digest}{SECOND}")
}

fn first_of(known: &Tracked) -> Option<&str> {
    known.manifest.as_deref().map(of_either_time)
}

/// The digest of a manifest, from the digest that the inventory has for its object. These differ if the object was made for the
/// second time.
pub fn of_either_time(applied: &str) -> &str {
    applied.strip_suffix(SECOND).unwrap_or(applied)
}
