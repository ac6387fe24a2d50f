//! `--prune`: the controller deletes what its Syncs applied.

use anyhow::Context;
use crds::Sync;
use jiff::SignedDuration;
use kube::{Api, Client, ResourceExt, api::DeleteParams};

use super::remove::wait_until_gone;
use crate::{
    found::or_gone,
    output::{self, Hint},
};

/// How many objects the Syncs applied that they would delete.
pub fn objects(syncs: &[Sync]) -> usize {
    let prunes = syncs.iter().filter(|sync| prunes(sync));
    prunes.filter_map(|sync| sync.status.as_ref()).map(|status| status.inventory.len()).sum()
}

fn prunes(sync: &Sync) -> bool {
    sync.spec.prune && !sync.spec.suspend
}

/// Deletes the Syncs and waits until each has deleted what it applied. One that is suspended, or does not prune, stays.
pub async fn all(client: &Client, syncs: &[Sync], timeout: SignedDuration) -> anyhow::Result<()> {
    for sync in syncs.iter().filter(|sync| prunes(sync)) {
        let (namespace, name) = (sync.namespace().unwrap_or_default(), sync.name_any());
        let api: Api<Sync> = Api::namespaced(client.clone(), &namespace);
        or_gone(api.delete(&name, &DeleteParams::background()).await)
            .with_context(|| format!("cannot delete Sync {namespace}/{name}"))?;
    }
    for sync in syncs.iter().filter(|sync| prunes(sync)) {
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
