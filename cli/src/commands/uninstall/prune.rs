//! `--prune`: the controller deletes what its Syncs applied.

use anyhow::{Context, bail};
use crds::Sync;
use futures::future::join_all;
use jiff::SignedDuration;
use kube::{Api, Client, ResourceExt, api::DeleteParams, runtime::wait::await_condition};
use manifests::ObjectId;
use pipeline::prune::asks_to_be_kept;

use super::{release, undone::Undone};
use crate::{
    found::or_gone,
    output::{self, BAD, counted, styled},
    time,
};

/// At most this many objects of one Sync are named.
const NAMED: usize = 10;

/// The objects that a Sync applied. Some may no longer exist, or have the annotation that keeps them.
fn objects(sync: &Sync) -> impl Iterator<Item = ObjectId> {
    let inventory = sync.status.iter().flat_map(|status| &status.inventory);
    inventory.filter_map(|entry| ObjectId::from_inventory(&entry.id))
}

/// How many objects the Syncs applied.
pub fn applied(syncs: &[Sync]) -> usize {
    syncs.iter().map(|sync| objects(sync).count()).sum()
}

/// How many objects belong to Syncs that [are deleted](goes).
pub fn going(syncs: &[Sync]) -> usize {
    syncs.iter().filter(|sync| goes(sync)).map(|sync| objects(sync).count()).sum()
}

/// Whether `--prune` deletes the Sync, together with the objects that the Sync applied.
pub fn goes(sync: &Sync) -> bool {
    sync.spec.prune && !sync.spec.suspend && !asks_to_be_kept(&sync.metadata)
}

/// Lists what will be deleted, one line for each Sync.
pub fn show(syncs: &[Sync]) {
    let (count, going) = (syncs.iter().filter(|sync| goes(sync)).count(), going(syncs));
    output::note(format_args!(
        "{} {}, and with {} {}:",
        styled(BAD, "DELETE"),
        counted(count, "Sync"),
        if count == 1 { "it" } else { "them" },
        counted(going, "object")
    ));
    for sync in syncs.iter().filter(|sync| goes(sync)) {
        let all = objects(sync).count();
        let mut named: Vec<_> = objects(sync).take(NAMED).map(|id| id.to_string()).collect();
        match all - named.len() {
            0 if all == 0 => named.push("nothing".into()),
            0 => {}
            more => named.push(format!("and {more} more")),
        }
        let (namespace, name) = (sync.namespace().unwrap_or_default(), sync.name_any());
        output::note(format_args!("  {namespace}/{name}: {}", named.join(", ")));
    }
    if going > 0 {
        output::note(format_args!("  objects with the annotation {}: disabled are kept", crds::names::PRUNE));
    }
}

/// Deletes the Syncs that [`goes`] selects, and waits until each has deleted what it applied. The other Syncs stay:
/// they are suspended first, so that none of them creates again what is deleted.
///
/// # Errors
/// Some Syncs have not deleted everything in time. The other Syncs have.
pub async fn all(client: &Client, syncs: &[Sync], timeout: SignedDuration) -> anyhow::Result<()> {
    let mut undone = Undone::default();
    for sync in syncs.iter().filter(|sync| !goes(sync)) {
        undone.note(release::suspend(client, sync).await);
    }
    let mut going = Vec::new();
    for sync in syncs.iter().filter(|sync| goes(sync)) {
        let (namespace, name) = (sync.namespace().unwrap_or_default(), sync.name_any());
        let api: Api<Sync> = Api::namespaced(client.clone(), &namespace);
        match or_gone(api.delete(&name, &DeleteParams::background()).await) {
            Ok(()) => going.push(sync),
            Err(error) => undone.add(format!("cannot delete Sync {namespace}/{name}: {error}")),
        }
    }
    output::note(format_args!("waiting until the objects of {} are deleted …", counted(going.len(), "Sync")));
    // All are waited for at the same time, so that a Sync that takes long does not delay the others.
    for pruned in join_all(going.iter().map(|sync| wait_until_pruned(client, sync, timeout))).await {
        undone.note(pruned);
    }
    undone.report(
        "what could be deleted was deleted, and the controller was not removed",
        "`gitseal status -A` says why; run the command again, or without --prune to leave \
         the remaining objects in the cluster",
    )
}

/// Waits until the objects that a deleted Sync applied are deleted. The Sync itself may exist longer, if others added
/// finalizers to it.
async fn wait_until_pruned(client: &Client, sync: &Sync, timeout: SignedDuration) -> anyhow::Result<()> {
    let (namespace, name) = (sync.namespace().unwrap_or_default(), sync.name_any());
    let what = format!("Sync {namespace}/{name}");
    let api: Api<Sync> = Api::namespaced(client.clone(), &namespace);
    let uid = sync.uid();
    let is_pruned = move |now: Option<&Sync>| {
        now.is_none_or(|now| {
            now.uid() != uid || !release::has_finalizer(now) && now.metadata.deletion_timestamp.is_some()
        })
    };
    match tokio::time::timeout(timeout.unsigned_abs(), await_condition(api, &name, is_pruned)).await {
        Ok(pruned) => pruned.map(drop).with_context(|| format!("cannot watch {what}")),
        Err(_) => bail!("not all objects of {what} were deleted within {}", time::short(timeout)),
    }
}
