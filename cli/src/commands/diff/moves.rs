//! Objects that move from the folder of one Sync to that of another, found by reading the folders in the working copy.

use std::collections::{BTreeMap, BTreeSet};

use crds::{ObjectKey, Sync};
use manifests::{ObjectId, printable};
use pipeline::{path_of, plan::wanted_ids, repository_of};

use super::live::{Live, Syncs};
use crate::{folder::Folder, output};

/// The other Syncs of the repository whose folders are in the working copy, with the objects in them.
pub fn folders_of_others<'s>(
    sync: &'s Sync,
    syncs: &'s Syncs,
    folder: &'s Folder,
) -> impl Iterator<Item = (&'s Sync, BTreeSet<ObjectId>)> {
    let (own, repository) = (ObjectKey::of(sync), repository_of(sync));
    let others = syncs.all.iter().filter(move |other| {
        let is_going = other.metadata.deletion_timestamp.is_some();
        folder.inside == path_of(sync)
            && ObjectKey::of(*other) != own
            && repository_of(other) == repository
            && !is_going
    });
    others.filter_map(|other| {
        let path = folder.root.join(path_of(other));
        if !path.is_dir() {
            return None;
        }
        match folder.read_another(&path, other) {
            Ok(folder) => Some((other, wanted_ids(other, &folder.manifests))),
            Err(error) => {
                output::warn(format_args!(
                    "the folder of Sync {} cannot be read, so objects that move to it or from it may be shown as \
                     pruned or held back: {}",
                    ObjectKey::of(other),
                    printable(&output::one_line(&error))
                ));
                None
            }
        }
    })
}

/// The objects of `wanted` that another Sync would hand over to `sync`, because they left the other Sync's folder. Each
/// object comes with that other Sync.
pub fn arriving(
    sync: &Sync,
    syncs: &Syncs,
    folder: &Folder,
    live: &Live,
    wanted: &[ObjectId],
) -> BTreeMap<ObjectId, ObjectKey> {
    let theirs: Vec<_> = wanted.iter().filter_map(|id| Some((id, live.other(id)?))).collect();
    if theirs.is_empty() {
        return BTreeMap::new();
    }
    let folders = folders_of_others(sync, syncs, folder).filter(|(other, _)| !other.spec.suspend);
    let folders: BTreeMap<_, _> = folders.map(|(other, ids)| (ObjectKey::of(other), ids)).collect();
    let left = theirs.into_iter().filter(|(id, owner)| folders.get(owner).is_some_and(|ids| !ids.contains(id)));
    left.map(|(id, owner)| (id.clone(), owner.clone())).collect()
}
