//! Deletes objects that are only needed until they are healthy, such as hooks of Helm with the delete policy `hook-succeeded`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::Deletion;
use manifests::ObjectId;
use pipeline::{Failure, Inventory, Stage, plan::Wave};

use super::{Pass, Record, prune::Pruner};
use crate::{cluster::Live, events::EventType, status::reference};

/// The number of the last wave before the tests.
const LAST: i32 = *Wave::NUMBERS.end();
/// How many of the deleted objects an event names.
const NAMED: usize = 5;

/// The objects that are deleted now. As in Helm, no hook is deleted before all hooks are healthy that run at the same time: before
/// the other objects of the folder (in waves below 0), or after them. One of them may need another.
pub(super) fn finished(record: &Record) -> BTreeSet<ObjectId> {
    let time = |id: &ObjectId| record.inventory.get(id).map_or(0, |known| Wave::time(known.wave));
    let waits: BTreeSet<i32> = record.pending.keys().map(time).collect();
    let is_applied = |time: i32| {
        record.barrier.as_ref().is_none_or(|barrier| match barrier.number {
            ..0 => false,
            0..LAST => time <= 0,
            LAST.. => time <= 1,
        })
    };
    let due = record.inventory.iter().filter(|(_, known)| {
        known.deletion == Some(Deletion::Due) && known.manifest.is_some() && is_applied(Wave::time(known.wave))
    });
    due.map(|(id, _)| id).filter(|id| !waits.contains(&time(id))).cloned().collect()
}

/// Whether objects are still to be deleted when they are healthy.
pub(super) fn is_any_due(inventory: &Inventory) -> bool {
    inventory.iter().any(|(_, known)| known.deletion == Some(Deletion::Due))
}

/// Whether an object still exists that was finished or had failed: the controller ended between the write of the inventory and the deletion.
pub(crate) fn is_left(live: &Live, id: &ObjectId) -> bool {
    live.get(id).is_some_and(|object| !object.going && !object.kept)
}

impl Pass<'_> {
    /// Deletes the objects that are [`finished`]. The inventory is stored before, so that no object is made again after a crash.
    pub(super) async fn delete_finished(&self, record: &mut Record, pruner: &Pruner<'_>) -> Result<(), Failure> {
        let mut due: BTreeMap<_, _> = finished(record).into_iter().map(|id| (id, Deletion::Done)).collect();
        let live = &self.ctx.cluster.live;
        let is_over = |id: &ObjectId| record.inventory.is_over(id) && !record.inventory.is_skipped(id);
        let over = record.inventory.iter().filter(|(id, _)| is_over(id) && is_left(live, id));
        due.extend(over.filter_map(|(id, known)| Some((id.clone(), known.deletion?))));
        self.delete_over(record, due, pruner).await
    }

    /// Deletes these objects, and records why.
    async fn delete_over(
        &self,
        record: &mut Record,
        due: BTreeMap<ObjectId, Deletion>,
        pruner: &Pruner<'_>,
    ) -> Result<(), Failure> {
        if due.is_empty() {
            return Ok(());
        }
        let before = record.inventory.clone();
        for (id, deletion) in &due {
            record.inventory.set_deletion(id, Some(*deletion));
        }
        let due: BTreeSet<_> = due.into_keys().collect();
        Arc::make_mut(&mut record.next).inventory = record.inventory.write();
        let stored = record.write(&self.ctx.api, self.key).await;
        let mut left = record.inventory.clone();
        let mut deleted = Vec::new();
        let result = match stored {
            Ok(()) => pruner.prune(&due, &mut left, &mut deleted).await.map_err(Failure::from),
            Err(error) => Err(Failure {
                message: format!(
                    "the inventory could not be stored, so no object that is finished was deleted: {error}"
                ),
                ..Failure::new(Stage::Prune, "InventoryNotStored")
            }),
        };
        if result.is_err() {
            for id in due.iter().filter(|id| left.contains(id)) {
                record.inventory.set_deletion(id, before.get(id).and_then(|known| known.deletion));
            }
        }
        if !deleted.is_empty() {
            let mut names: Vec<_> = deleted.iter().take(NAMED).map(ToString::to_string).collect();
            if let more @ 1.. = deleted.len().saturating_sub(NAMED) {
                names.push(format!("{more} more"));
            }
            let has_failed = deleted.iter().any(|id| record.inventory.has_failed(id));
            let what = if has_failed { "has failed" } else { "is finished" };
            let message = format!("deleted what {what}: {}", names.join(", "));
            self.ctx.events.publish(&reference(self.sync), EventType::Normal, "Finished", message);
        }
        result
    }
}

impl Pass<'_> {
    /// Deletes objects that have failed, as their annotation says. `failed` says why they failed.
    pub(super) async fn delete_failed(&self, record: &mut Record, failed: BTreeMap<ObjectId, String>) {
        for (id, why) in &failed {
            record.inventory.set_failed(id, Some(why));
        }
        let api = self.identity();
        let due = failed.into_keys().map(|id| (id, Deletion::Failed)).collect();
        if let Err(failure) = self.delete_over(record, due, &self.pruner(&api)).await {
            tracing::warn!(sync = %self.key, "an object that failed was not deleted: {}", failure.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use pipeline::plan::Barrier;

    use super::*;
    use crate::sync::record::Pending;

    fn id(name: &str) -> ObjectId {
        ObjectId { group: "batch".into(), kind: "Job".into(), namespace: Some("team".into()), name: name.into() }
    }

    #[test]
    fn hooks_are_finished_when_all_of_their_time_are_healthy() {
        let mut inventory = Inventory::default();
        let all = [
            ("early", -505, true),
            ("account", -510, true),
            ("stays", -500, false),
            ("app", 0, false),
            ("late", 505, true),
        ];
        for (name, wave, is_deleted) in all {
            inventory.widen(id(name), "v1");
            inventory.applied(&id(name), "digest".into(), None);
            inventory.set_wave(&id(name), wave);
            inventory.set_deletion(&id(name), is_deleted.then_some(Deletion::Due));
        }
        inventory.widen(id("new"), "v1");
        inventory.set_deletion(&id("new"), Some(Deletion::Due));
        let finished = |pending: &[&str], barrier: Option<i32>, done: &[&str]| {
            let mut inventory = inventory.clone();
            for name in done {
                inventory.set_deletion(&id(name), Some(Deletion::Done));
            }
            let resource = Arc::new(pipeline::Resource::secrets());
            let pending = pending.iter().map(|name| {
                (
                    id(name),
                    Pending {
                        resource: resource.clone(),
                        origin: None,
                        is_always_awaited: true,
                        deleted_when_failed: false,
                    },
                )
            });
            let barrier = barrier.map(|number| Barrier { number, awaited: BTreeSet::new() });
            let record = Record { inventory, pending: pending.collect(), barrier, ..Record::default() };
            finished(&record).into_iter().map(|id| id.name).collect::<Vec<_>>()
        };
        assert_eq!(finished(&["early"], Some(-505), &[]), [""; 0]);
        assert_eq!(finished(&[], Some(-505), &[]), [""; 0], "the hooks of the wave -500 have not begun");
        assert_eq!(finished(&["stays"], Some(-500), &[]), [""; 0], "another hook of this time runs");
        assert_eq!(finished(&["app"], Some(0), &[]), ["account", "early"]);
        assert_eq!(finished(&["app", "late"], None, &[]), ["account", "early"]);
        assert_eq!(finished(&["app"], None, &["account", "early"]), ["late"]);
        assert_eq!(finished(&[], None, &["account", "early", "late"]), [""; 0]);
    }
}
