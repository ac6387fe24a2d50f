//! What the watches saw → work.

use std::{sync::Arc, time::Duration};

use crds::ObjectKey;
use manifests::ObjectId;
use tokio::{sync::mpsc, time::Instant};

use super::restored;
use crate::{cluster::Change, context::Context, events::EventType, status::reference};

/// What differs from Git for a while is not to be found out by accident.
fn tell_of_pause(ctx: &Context, sync: &ObjectKey, id: &ObjectId, pause: Duration) {
    let Some(sync) = ctx.syncs.get(&sync.to_ref()) else { return };
    let note = format!(
        "{id} was changed again and differs from Git; it is put back in {} s, or at once by `gitseal sync`",
        pause.as_secs()
    );
    ctx.events.publish(&reference(&*sync), EventType::Warning, "Drifted", note);
}

/// Turns changes of live objects into work until the watches end.
pub async fn follow(ctx: Arc<Context>, mut changes: mpsc::UnboundedReceiver<Change>) {
    while let Some(change) = changes.recv().await {
        match change {
            Change::Drifted { sync, id } => {
                let now = Instant::now();
                let waits_already = ctx.drift.put_off(&sync, now).contains(&id);
                let pause = ctx.drift.note(&sync, id.clone(), now);
                if pause.is_zero() {
                    ctx.queues.syncs.add(sync);
                } else if !waits_already {
                    tell_of_pause(&ctx, &sync, &id, pause);
                    tracing::warn!(%sync, object = %id, wait = ?pause, "somebody keeps changing it; it is put back after a pause");
                    ctx.queues.syncs.add_after(sync, pause);
                }
            }
            Change::WentBack => restored::doubt_everything(&ctx),
            Change::Progressed { sync } => ctx.queues.syncs.add(sync),
            Change::Released { id, waiting } => {
                for sync in waiting {
                    ctx.retries.wake(&sync);
                    ctx.queues.syncs.add(sync);
                }
                // It is nobody's now, or the next Sync's: whoever it is, somebody has to unseal it.
                if id.is_sealed_secret() {
                    ctx.queues.sealed_secrets.add(ObjectKey::new(id.namespace.unwrap_or_default(), id.name));
                }
            }
            // Secrets are seen, because a Sync has some, and those of others are left as they are all the same.
            Change::Secret(key) if ctx.unsealing.skip_recreate => ctx.queues.sealed_statuses.add(key),
            Change::Secret(key) => ctx.queues.sealed_secrets.add(key),
        }
    }
}
