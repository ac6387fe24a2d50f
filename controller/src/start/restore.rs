//! From standing by to leading: reads what the previous leader left in the statuses and on disk.

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
    repository,
    sync::Record,
};

/// Group, version, kind, and the namespace if there is one watch per namespace.
type Watched = (String, String, String, Option<String>);

/// How many watches begin at the same time.
const FIRST_LISTS: usize = 64;

/// Watches the Secrets, and waits until the replica knows everything that it needs to lead.
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

/// Reads what is on disk, loads every inventory, and watches every kind in it. So drift from the time without a leader
/// is noticed.
pub(super) async fn take_over(ctx: &Arc<Context>) {
    for repository in ctx.repositories.state() {
        repository::restore(ctx, &ObjectKey::of(&*repository), &repository).await;
    }
    let (mut kinds, mut contested) = (BTreeSet::new(), Vec::new());
    for sync in ctx.syncs.state() {
        restore_inventory(ctx, &sync, &mut kinds, &mut contested).await;
    }
    watch_all(ctx, kinds).await;
    // Only now the objects are known. Before that, an inventory alone proves nothing, because anybody who may write a
    // Sync's status can write it.
    let live = &ctx.cluster.live;
    for (id, sync, expected) in contested {
        if live.restore(&sync, &id, expected) {
            tracing::warn!(object = %id, %sync, "several inventories have this object; it belongs to the Sync that its labels name");
        } else if live.says(&id) != live.owner(&id) {
            // The labels of the object name no Sync, or the object is gone. The next pass of this Sync decides which Sync
            // may write the object.
            ctx.retries.wake(&sync);
            ctx.queues.syncs.add(sync);
        }
    }
}

/// Watches the kinds of all inventories. Anybody who may write the status of a Sync can name any kind there. The API
/// server is not asked whether the Sync may write it, because this would cost a question per Sync and kind, and save
/// little: kinds that are not served, and namespaces that the controller does not work in, are ignored. So there is at
/// most one watch for each kind (and namespace), and it shows only the metadata of objects that Syncs applied.
async fn watch_all(ctx: &Context, kinds: BTreeSet<Watched>) {
    let unknown = AtomicUsize::new(0);
    let first = |(group, version, kind, namespace): Watched| {
        let unknown = &unknown;
        async move {
            match ctx.cluster.discovery.find(&group, &version, &kind).await {
                Ok(resource) => watch(ctx, &resource, namespace).await,
                Err(DiscoveryError::UnknownKind { .. }) => drop(unknown.fetch_add(1, Ordering::Relaxed)),
                Err(error) => tracing::warn!(%error, "drift of objects of this kind is not noticed for now"),
            }
        }
    };
    stream::iter(kinds).for_each_concurrent(FIRST_LISTS, first).await;
    let unknown = unknown.into_inner();
    if unknown > 0 {
        tracing::warn!(
            unknown,
            "inventories hold objects of kinds that the API server does not serve; these entries stay in the \
             inventories"
        );
    }
}

async fn watch(ctx: &Context, resource: &Arc<Resource>, namespace: Option<String>) {
    if let Err(error) = ctx.cluster.live.watch(resource, namespace.as_deref()).await {
        let namespace = namespace.as_deref().unwrap_or("all");
        tracing::warn!(namespace, %error, "drift of objects of this kind is not noticed for now");
    }
}

/// An object that is also in an inventory that was read before, with the fields that this Sync owned in it.
type Contested = (ObjectId, ObjectKey, Option<FieldsDigest>);

async fn restore_inventory(ctx: &Context, sync: &Sync, kinds: &mut BTreeSet<Watched>, contested: &mut Vec<Contested>) {
    let key = ObjectKey::of(sync);
    // If an inventory cannot be read, the reconcile of the Sync reports that.
    let Ok(record) = ctx.records.get_or_load(&key, || Record::load(&ctx.keyring, sync)) else { return };
    let record = record.lock().await;
    for (id, known) in record.inventory.iter() {
        if !ctx.cluster.live.restore(&key, id, known.fields) {
            contested.push((id.clone(), key.clone(), known.fields));
        }
        if id.namespace.as_deref().is_some_and(|namespace| !ctx.namespaces.contains(namespace)) {
            continue;
        }
        // Without a namespace if one watch shows all namespaces.
        let namespace = id.namespace.clone().filter(|_| ctx.namespaces != Namespaces::All);
        kinds.insert((id.group.clone(), known.version.clone(), id.kind.clone(), namespace));
    }
}
