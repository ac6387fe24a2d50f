//! `--prune`: the controller deletes what its Syncs applied.

use anyhow::Context;
use crds::Sync;
use jiff::SignedDuration;
use kube::{Api, Client, ResourceExt, api::DeleteParams};
use manifests::ObjectId;
use pipeline::prune::asks_to_be_kept;

use super::{release, remove::wait_until_gone};
use crate::{
    found::or_gone,
    output::{self, BAD, Hint, counted, styled},
};

/// How many objects of one Sync are named.
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

/// Whether `--prune` deletes the Sync, and with it what it applied.
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

/// Deletes the Syncs and waits until each has deleted what it applied. The others stay: they are
/// suspended first, so that none of them creates again what is deleted.
pub async fn all(client: &Client, syncs: &[Sync], timeout: SignedDuration) -> anyhow::Result<()> {
    for sync in syncs.iter().filter(|sync| !goes(sync)) {
        release::suspend(client, sync).await?;
    }
    for sync in syncs.iter().filter(|sync| goes(sync)) {
        let (namespace, name) = (sync.namespace().unwrap_or_default(), sync.name_any());
        let api: Api<Sync> = Api::namespaced(client.clone(), &namespace);
        or_gone(api.delete(&name, &DeleteParams::background()).await)
            .with_context(|| format!("cannot delete Sync {namespace}/{name}"))?;
    }
    for sync in syncs.iter().filter(|sync| goes(sync)) {
        let (namespace, name) = (sync.namespace().unwrap_or_default(), sync.name_any());
        let what = format!("Sync {namespace}/{name}");
        output::note(format_args!("waiting for {what} to delete what it applied …"));
        let api: Api<Sync> = Api::namespaced(client.clone(), &namespace);
        wait_until_gone(api, &name, &what, timeout).await.with_context(|| {
            Hint::new(
                "not everything was deleted, and the controller is still there",
                "`gitseal status -A` says why; run the command again, or without --prune to leave the rest",
            )
        })?;
    }
    Ok(())
}
