//! The API server shows an earlier state than before: its store was restored from a backup while the controller ran.
//!
//! Everything went back together: objects, Syncs, statuses with their inventories. What was remembered is wrong in all
//! of it, and nothing but a look tells where. So every Sync begins with what is stored, and applies every object once
//! more; only what it had since the backup is kept in its inventory until a prune has looked for it.

use std::sync::Arc;

use crds::{ObjectKey, Sync};
use pipeline::{Inventory, plan::LiveView as _};

use super::Record;
use crate::{
    cluster::{ApiError, Live},
    context::Context,
    status::resource_of,
};

/// Every Sync compares what it remembers before it does anything else.
pub(super) fn doubt_everything(ctx: &Context) {
    let syncs = ctx.syncs.state();
    tracing::error!(
        syncs = syncs.len(),
        "the API server shows an earlier state than before, as after its store was restored from a backup; everything is \
         compared and applied once more"
    );
    ctx.metrics.went_back();
    for sync in syncs {
        let key = ObjectKey::of(&*sync);
        ctx.records.doubt(key.clone());
        ctx.queues.syncs.add(key);
    }
    for repository in ctx.repositories.state() {
        ctx.queues.repositories.add(ObjectKey::of(&*repository));
    }
    for sealed in ctx.sealed_secrets.state() {
        ctx.queues.sealed_secrets.add(ObjectKey::of(&*sealed));
    }
}

/// The record could not be begun anew.
pub(super) enum RebuildError {
    /// What is stored could not be read, or the wider inventory not be stored.
    Api(ApiError),
    /// What is stored has this entry in its inventory.
    NotUnderstood(String),
}

impl From<ApiError> for RebuildError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// Begins the record anew with what is stored of the Sync, and answers with that; `None` when the Sync is gone. The
/// wider inventory is stored before anything is done with it.
pub(super) async fn rebuild(
    ctx: &Context,
    key: &ObjectKey,
    record: &mut Record,
) -> Result<Option<Arc<Sync>>, RebuildError> {
    let object = match ctx.api.get(&resource_of::<Sync>(), Some(&key.namespace), &key.name).await {
        Ok(object) => object,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let sync: Sync = serde_json::from_value(object).map_err(|error| ApiError::Answer(error.to_string()))?;
    let stored = Record::load(&ctx.keyring, &sync).map_err(RebuildError::NotUnderstood)?;
    let inventory = united(&ctx.cluster.live, key, &stored.inventory, &record.inventory);
    *record = Record { content: None, ..stored };
    let next = Arc::make_mut(&mut record.next);
    next.inventory = inventory.write();
    next.applied_content = None;
    record.write(&ctx.api, key).await?;
    record.inventory = inventory;
    Ok(Some(Arc::new(sync)))
}

/// What is stored and what was known since, but for objects that another Sync has taken over meanwhile. Nothing of it is
/// known to be as it was applied.
fn united(live: &Live, key: &ObjectKey, stored: &Inventory, known: &Inventory) -> Inventory {
    let mut all = stored.clone();
    for (id, object) in known.iter() {
        if !all.contains(id) {
            all.widen(id.clone(), &object.version);
        }
    }
    for id in stored.iter().map(|(id, _)| id) {
        live.restore(key, id, None);
        if live.owner(id).is_some_and(|owner| owner != *key) {
            all.remove(id);
        }
    }
    all
}
