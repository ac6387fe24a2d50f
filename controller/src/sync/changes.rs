//! Turns what the watches show into work.

use std::{sync::Arc, time::Duration};

use crds::ObjectKey;
use manifests::ObjectId;
use tokio::{sync::mpsc, time::Instant};

use super::restored;
use crate::{
    cluster::Change,
    context::{Context, InStore as _},
    drift::PutBack,
    events::EventType,
    status::reference,
};

/// Turns changes of objects in the cluster into work, until the watches end.
pub async fn follow(ctx: Arc<Context>, mut changes: mpsc::UnboundedReceiver<Change>) {
    while let Some(change) = changes.recv().await {
        match change {
            Change::Drifted { sync, id } => drifted(&ctx, sync, id),
            Change::WentBack => restored::doubt_everything(&ctx),
            Change::Progressed { sync } => ctx.queues.syncs.add(sync),
            Change::Awaited { sync } => {
                ctx.retries.wake(&sync);
                ctx.queues.syncs.add(sync);
            }
            Change::Input { sync } => {
                ctx.inputs.changed(&sync);
                ctx.queues.syncs.add(sync);
            }
            Change::Released { id, waiting } => {
                for sync in waiting {
                    ctx.retries.wake(&sync);
                    ctx.queues.syncs.add(sync);
                }
                // The SealedSecret now belongs to no Sync, or to another one. In both cases, it may have to be
                // unsealed.
                if id.is_sealed_secret() {
                    ctx.queues.sealed_secrets.add(ObjectKey::new(id.namespace.unwrap_or_default(), id.name));
                }
            }
            // With `--skip-recreate`, a changed Secret is not put back; only the status of its SealedSecret is updated.
            Change::Secret(key) if ctx.unsealing.skip_recreate => ctx.queues.sealed_statuses.add(key),
            Change::Secret(key) => ctx.queues.sealed_secrets.add(key),
        }
    }
}

/// Handles an object that differs from Git: enqueues its Sync, which puts the object back at once or after a pause.
pub(super) fn drifted(ctx: &Context, sync: ObjectKey, id: ObjectId) {
    match ctx.drift.note(&sync, id.clone(), Instant::now()) {
        PutBack::Later => return,
        PutBack::Now => {}
        PutBack::After(pause) => tell_of_pause(ctx, &sync, &id, pause),
    }
    // The Sync is enqueued even if a pause begins: its reconcile writes the status, and puts the Sync into the queue
    // for the end of the pause.
    ctx.queues.syncs.add(sync);
}

/// Publishes the event that somebody keeps changing an object, so that it is put back only after a pause.
fn tell_of_pause(ctx: &Context, key: &ObjectKey, id: &ObjectId, pause: Duration) {
    tracing::warn!(sync = %key, object = %id, wait = ?pause, "somebody keeps changing the object; it is put back after a pause");
    let Some(sync) = ctx.syncs.get(&key.to_ref()) else { return };
    let done = if ctx.cluster.live.get(id).is_some() { "changed" } else { "deleted" };
    let (pause, name) = (pause.as_secs_f64().ceil(), &key.name);
    let note = format!(
        "{id} was {done} again outside of Git; it is put back after a pause of {pause} s, or at once by `gitseal sync {name}`"
    );
    ctx.events.publish(&reference(&*sync), EventType::Warning, "Drifted", note);
}
