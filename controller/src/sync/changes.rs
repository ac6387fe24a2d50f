//! What the watches saw → work.

use std::sync::Arc;

use crds::ObjectKey;
use tokio::{sync::mpsc, time::Instant};

use super::restored;
use crate::{cluster::Change, context::Context};

/// Turns changes of live objects into work until the watches end.
pub async fn follow(ctx: Arc<Context>, mut changes: mpsc::UnboundedReceiver<Change>) {
    while let Some(change) = changes.recv().await {
        match change {
            Change::Drifted { sync, id } => {
                let pause = ctx.drift.note(&sync, id.clone(), Instant::now());
                if pause.is_zero() {
                    ctx.queues.syncs.add(sync);
                } else {
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
