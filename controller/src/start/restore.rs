//! From standing by to working: what the last leader left, in the statuses and on disk.

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

/// Group, version, kind and, where one watch does not show all of them, namespace.
type Watched = (String, String, String, Option<String>);

/// Watches that begin at a time.
const FIRST_LISTS: usize = 64;

/// Watches the Secrets, and waits until everything is known that a replica has to know before it leads.
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

/// Finds what is on disk, loads every inventory and watches every kind in it, so that drift is seen that happened
/// while nobody led.
pub(super) async fn take_over(ctx: &Arc<Context>) {
    for repository in ctx.repositories.state() {
        repository::restore(ctx, &ObjectKey::of(&*repository), &repository).await;
    }
    let (mut kinds, mut contested) = (BTreeSet::new(), Vec::new());
    for sync in ctx.syncs.state() {
        restore_inventory(ctx, &sync, &mut kinds, &mut contested).await;
    }
    watch_all(ctx, kinds).await;
    // An inventory alone proves nothing: whoever may write a Sync's status may write it. Now the objects are seen.
    let live = &ctx.cluster.live;
    for (id, sync, expected) in contested {
        if live.restore(&sync, &id, expected) {
            tracing::warn!(object = %id, %sync, "several inventories have it; it is this Sync's, as its labels say");
        } else if live.says(&id) != live.owner(&id) {
            // It does not say whose it is, or is gone: a pass asks who may write it.
            ctx.retries.wake(&sync);
            ctx.queues.syncs.add(sync);
        }
    }
}

/// Watches the kinds of all inventories. Whoever may write the status of a Sync may name any kind there, and nobody is
/// asked whether the Sync may write it: that would cost a question for each Sync and kind, and save little. What is not
/// served, or elsewhere, costs nothing; so at most one watch begins for each kind that there is (and namespace that the
/// controller works in), and it shows the metadata of objects that Syncs applied.
async fn watch_all(ctx: &Context, kinds: BTreeSet<Watched>) {
    let unknown = AtomicUsize::new(0);
    let first = |(group, version, kind, namespace): Watched| {
        let unknown = &unknown;
        async move {
            match ctx.cluster.discovery.find(&group, &version, &kind).await {
                Ok(resource) => watch(ctx, &resource, namespace).await,
                Err(DiscoveryError::UnknownKind { .. }) => drop(unknown.fetch_add(1, Ordering::Relaxed)),
                Err(error) => tracing::warn!(%error, "drift of this kind is not seen for now"),
            }
        }
    };
    stream::iter(kinds).for_each_concurrent(FIRST_LISTS, first).await;
    let unknown = unknown.into_inner();
    if unknown > 0 {
        tracing::warn!(
            unknown,
            "inventories hold objects of kinds that the API server does not serve; they stay there"
        );
    }
}

async fn watch(ctx: &Context, resource: &Arc<Resource>, namespace: Option<String>) {
    if let Err(error) = ctx.cluster.live.watch(resource, namespace.as_deref()).await {
        let namespace = namespace.as_deref().unwrap_or("all");
        tracing::warn!(namespace, %error, "drift of this kind is not seen for now");
    }
}

/// An object that an earlier inventory holds, too, and what this Sync owned of it.
type Contested = (ObjectId, ObjectKey, Option<FieldsDigest>);

async fn restore_inventory(ctx: &Context, sync: &Sync, kinds: &mut BTreeSet<Watched>, contested: &mut Vec<Contested>) {
    let key = ObjectKey::of(sync);
    // What is wrong with one that is not understood, its reconcile tells.
    let Ok(record) = ctx.records.get_or_load(&key, || Record::load(&ctx.keyring, sync)) else { return };
    let record = record.lock().await;
    for (id, known) in record.inventory.iter() {
        if !ctx.cluster.live.restore(&key, id, known.fields) {
            contested.push((id.clone(), key.clone(), known.fields));
        }
        if id.namespace.as_deref().is_some_and(|namespace| !ctx.namespaces.contains(namespace)) {
            continue;
        }
        // One watch is enough where it shows all namespaces.
        let namespace = id.namespace.clone().filter(|_| ctx.namespaces != Namespaces::All);
        kinds.insert((id.group.clone(), known.version.clone(), id.kind.clone(), namespace));
    }
}
