//! What the controller does when the API server shows an earlier state than before, because the API server's store was
//! restored from a backup while the controller ran.
//!
//! The restored objects, Syncs, and statuses with their inventories are those of an earlier time, so everything that
//! the controller remembers may be wrong. Therefore every Sync begins again with its stored status, and every object is
//! applied once more. Objects that were added to an inventory after the backup stay in the inventory until a prune has
//! checked them.

use std::sync::Arc;

use crds::{ObjectKey, Sync};
use pipeline::{Inventory, plan::LiveView as _};

use super::Record;
use crate::{
    cluster::{ApiError, Live},
    context::Context,
    status::resource_of,
};

/// Marks the records of all Syncs as possibly wrong, and puts all Syncs, Repositories and SealedSecrets into the
/// queues.
pub(super) fn doubt_everything(ctx: &Context) {
    let syncs = ctx.syncs.state();
    tracing::error!(
        syncs = syncs.len(),
        "the API server shows an earlier state than before, as after its store was restored from a backup; everything is \
         compared and applied once more"
    );
    ctx.metrics.went_back();
    ctx.inputs.doubt_everything();
    for sync in syncs {
        let key = ObjectKey::of(&*sync);
        ctx.records.doubt(key.clone());
        ctx.queues.syncs.add(key);
    }
    ctx.fetches.wait_no_more();
    for repository in ctx.repositories.state() {
        ctx.queues.repositories.add(ObjectKey::of(&*repository));
    }
    for sealed in ctx.sealed_secrets.state() {
        ctx.queues.sealed_secrets.add(ObjectKey::of(&*sealed));
    }
}

/// Why the record of a Sync could not be made again.
pub(super) enum RebuildError {
    /// The Sync could not be read, or the merged inventory could not be stored.
    Api(ApiError),
    /// The stored inventory has this entry, and the entry cannot be read.
    NotUnderstood(String),
}

impl From<ApiError> for RebuildError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// Makes the record again from the stored Sync, and returns this Sync; `None` if the Sync does not exist. The stored
/// inventory and the remembered inventory are merged, and the result is stored before it is used.
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

/// The stored inventory and the remembered inventory together, without objects that another Sync has taken over in the
/// meantime. Objects that are only in the remembered inventory get no digests, so that they are applied again.
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
