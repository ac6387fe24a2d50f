//! What a replica does when it begins to lead: it reads what the previous leader left in the statuses and on disk.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crds::{ObjectKey, Sync};
use futures::{StreamExt, stream};
use manifests::ObjectId;
use pipeline::{FieldsDigest, Resource, plan::LiveView as _};

use super::{StartError, requirements::Work};
use crate::{
    cluster::{DiscoveryError, Namespaces},
    context::Context,
    remotes, repository,
    sync::{Record, is_left},
};

/// A watch: group, version, kind and, if there is one watch per namespace, the namespace.
type Watched = (String, String, String, Option<String>);

/// How many watches make their first list at the same time.
const FIRST_LISTS: usize = 64;

/// Waits until the stores are filled, and begins to watch Secrets, so that the replica can lead.
pub(super) async fn warm_up(ctx: &Context, work: Work) -> Result<(), StartError> {
    let lost = |_| StartError::Ended("a watch");
    if work == Work::Everything {
        ctx.repositories.wait_until_ready().await.map_err(lost)?;
        ctx.syncs.wait_until_ready().await.map_err(lost)?;
    }
    ctx.sealed_secrets.wait_until_ready().await.map_err(lost)?;
    if !ctx.unsealing.skip_recreate {
        let secrets = Arc::new(Resource::secrets());
        let (secrets, namespaces) = (&secrets, ctx.namespaces.each());
        let first = |namespace| async move { watch(ctx, secrets, namespace).await };
        stream::iter(namespaces).for_each_concurrent(FIRST_LISTS, first).await;
    }
    Ok(())
}

/// Reads what is on disk, loads all inventories, and watches every kind in them. So the controller notices drift that
/// arose while there was no leader.
pub(super) async fn take_over(ctx: &Arc<Context>) {
    for repository in ctx.repositories.state() {
        repository::restore(ctx, &ObjectKey::of(&*repository), &repository).await;
    }
    remotes::remove_unrecorded(ctx).await;
    let (mut kinds, mut contested, mut done) = (BTreeSet::new(), Vec::new(), Vec::new());
    for sync in ctx.syncs.state() {
        restore_inventory(ctx, &sync, (&mut kinds, &mut contested, &mut done)).await;
    }
    watch_all(ctx, kinds).await;
    // This is done only now, because the labels of the objects are known only after the watches have listed them. An
    // inventory alone proves nothing: anybody who may write the status of a Sync can write its inventory.
    let live = &ctx.cluster.live;
    for (id, sync, expected) in contested {
        if live.restore(&sync, &id, expected) {
            tracing::warn!(object = %id, %sync, "several inventories have this object, which belongs to the Sync that its labels name");
        } else if live.says(&id) != live.owner(&id) {
            // The labels of the object name no Sync, or the object is gone. The next pass of this Sync decides which
            // Sync may write the object.
            ctx.retries.wake(&sync);
            ctx.queues.syncs.add(sync);
        }
    }
    for (id, sync) in done {
        if is_left(live, &id) {
            ctx.retries.wake(&sync);
            ctx.queues.syncs.add(sync);
        }
    }
}

/// Watches the kinds of all inventories. Anybody who may write the status of a Sync can name any kind there. The API
/// server is not asked whether the Sync may write objects of this kind, because this would cost a question per Sync and
/// kind, and save little: kinds that are not served, and namespaces that the controller does not work in, are ignored.
/// So there is at most one watch for each kind (and namespace). It shows only metadata, and only of objects that Syncs
/// applied.
async fn watch_all(ctx: &Context, kinds: BTreeSet<Watched>) {
    let unknown = AtomicUsize::new(0);
    let first = |(group, version, kind, namespace): Watched| {
        let unknown = &unknown;
        async move {
            match ctx.cluster.discovery.find(&group, &version, &kind).await {
                Ok(resource) => watch(ctx, &resource, namespace).await,
                Err(DiscoveryError::UnknownKind { .. }) => drop(unknown.fetch_add(1, Ordering::Relaxed)),
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "the objects of one kind cannot be watched: changes to them are not noticed for now"
                    );
                }
            }
        }
    };
    stream::iter(kinds).for_each_concurrent(FIRST_LISTS, first).await;
    let unknown = unknown.into_inner();
    if unknown > 0 {
        tracing::warn!(
            unknown,
            "the inventories of Syncs list objects of kinds that the API server does not serve; these entries stay in \
             the inventories"
        );
    }
}

async fn watch(ctx: &Context, resource: &Arc<Resource>, namespace: Option<String>) {
    if let Err(error) = ctx.cluster.live.watch(resource, namespace.as_deref()).await {
        let namespace = namespace.as_deref().unwrap_or("all");
        tracing::warn!(
            namespace, %error,
            "the objects of one kind cannot be watched: changes to them are not noticed for now"
        );
    }
}

/// An object that is in the inventory of this Sync and in one that was read before, with the digest of the fields that
/// gitseal owned for this Sync.
type Contested = (ObjectId, ObjectKey, Option<FieldsDigest>);

/// An object that was deleted because it was healthy or had failed, or was about to be deleted, and its Sync.
type Done = (ObjectId, ObjectKey);

async fn restore_inventory(
    ctx: &Context,
    sync: &Sync,
    (kinds, contested, done): (&mut BTreeSet<Watched>, &mut Vec<Contested>, &mut Vec<Done>),
) {
    let key = ObjectKey::of(sync);
    // If an inventory cannot be read, the reconcile of the Sync reports that.
    let Ok(record) = ctx.records.get_or_load(&key, || Record::load(&ctx.keyring, sync)) else { return };
    let record = record.lock().await;
    ctx.cluster.live.leaves(&key, &sync.spec.ignore_differences);
    for (id, known) in record.inventory.iter().filter(|(id, _)| !record.inventory.is_skipped(id)) {
        if !ctx.cluster.live.restore(&key, id, known.fields) {
            contested.push((id.clone(), key.clone(), known.fields));
        }
        if record.inventory.is_over(id) {
            done.push((id.clone(), key.clone()));
        }
        if id.namespace.as_deref().is_some_and(|namespace| !ctx.namespaces.contains(namespace)) {
            continue;
        }
        // The namespace is left out if one watch shows all namespaces.
        let namespace = id.namespace.clone().filter(|_| ctx.namespaces != Namespaces::All);
        kinds.insert((id.group.clone(), known.version.clone(), id.kind.clone(), namespace));
    }
}
