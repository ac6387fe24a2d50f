//! The objects of a pass whose health must be checked after it, and the waves that wait for them.

use std::collections::{BTreeMap, BTreeSet};

use crds::Sync;
use manifests::ObjectId;
use pipeline::{Plan, health, plan::Barrier};

use super::{
    Record,
    carry_out::Outcome,
    record::{Healthy, Pending},
};

/// The objects of a pass whose health is awaited, and the waves that wait for them.
pub(super) struct Awaited {
    objects: BTreeMap<ObjectId, Pending>,
    /// Those of `objects` that this pass is about to write.
    steps: BTreeSet<ObjectId>,
    /// Which of the other applied objects are known to be healthy, or are already awaited.
    healthy: Healthy,
    barrier: Option<Barrier>,
}

impl Awaited {
    /// Finds the objects whose health is awaited. If the health of the Sync's other objects is known, these are only
    /// objects that this pass writes. If the Sync does not `wait`, these are only objects that later waves wait for,
    /// and those that are always awaited, such as hooks. Also removes from `plan` the waves that have to wait.
    pub(super) fn of(record: &mut Record, plan: &mut Plan, sync: &Sync) -> Self {
        let mut steps: BTreeSet<_> = plan.waves.values().flatten().map(|step| step.id.clone()).collect();
        let is_unknown = |id: &ObjectId| match record.healthy {
            _ if steps.contains(id) => true,
            Healthy::None => true,
            Healthy::AlwaysAwaited => !plan.is_always_awaited(id),
            Healthy::All => false,
        };
        let waits = sync.spec.waits_for_health() || plan.has_tests();
        let is_asked = |id: &ObjectId| waits || plan.has_to_be_healthy(id) || plan.is_always_awaited(id);
        let objects = plan.kinds.iter().filter(|(id, _)| !health::is_healthy_at_once(sync, id) && is_unknown(id));
        let objects = objects.filter(|(id, _)| is_asked(id)).map(|(id, resource)| {
            let origin = plan.origins.get(id).cloned();
            let (is_always_awaited, deleted_when_failed) =
                (plan.is_always_awaited(id), plan.is_deleted_when_failed(id));
            (id.clone(), Pending { resource: resource.clone(), origin, is_always_awaited, deleted_when_failed })
        });
        let mut objects: BTreeMap<_, _> = objects.collect();
        let mut barrier = record.barrier.take();
        let are_all = !plan.is_heal;
        if are_all {
            record.pending.retain(|id, _| !plan.left.contains(id));
            let may_be_unhealthy = |id: &ObjectId| objects.contains_key(id) || record.pending.contains_key(id);
            barrier = plan.leave_out_waiting_waves(&record.inventory, may_be_unhealthy);
            objects.retain(|id, _| plan.kinds.contains_key(id));
        }
        steps.retain(|id| objects.contains_key(id));
        let healthy = if are_all { Healthy::All } else { record.healthy };
        Self { objects, steps, healthy, barrier }
    }

    /// Records the objects whose health is awaited after the plan was carried out with this `outcome`: those that were
    /// written, and those that needed no write. Objects that were not written or are held back keep their last good
    /// version, whose health says nothing about the new version. Returns what the later waves wait for.
    pub(super) fn after(mut self, record: &mut Record, outcome: &Outcome) -> Option<Barrier> {
        for id in outcome.applied.created.iter().chain(&outcome.applied.changed) {
            self.steps.remove(id);
        }
        let held: BTreeSet<_> = outcome.held.iter().map(|held| &held.id).collect();
        self.objects.retain(|id, _| !self.steps.contains(id) && !held.contains(id));
        record.pending.extend(self.objects);
        record.healthy = self.healthy;
        record.barrier = self.barrier.clone().map(|barrier| barrier.until(|id| record.pending.contains_key(id)));
        self.barrier
    }
}
