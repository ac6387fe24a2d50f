//! Leaves out of the plan the waves that begin only when objects of earlier waves are healthy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crds::{Sync, Waves};
use manifests::{Manifest, ObjectId};

use super::{Plan, Step, Tier, Wave, Why, asks_to_wait};
use crate::{Inventory, health::is_healthy_at_once};

/// The number of the last wave before the tests.
const LAST: i32 = *Wave::NUMBERS.end();

/// The point after the waves with the number `number`. The waves with later numbers begin only when the awaited objects
/// are healthy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Barrier {
    /// The number of the last waves that are applied.
    pub number: i32,
    /// The awaited objects: they have this number and are not known to be healthy.
    pub awaited: BTreeSet<ObjectId>,
}

impl Barrier {
    /// The same barrier, which waits only for the objects that `are_awaited`.
    #[must_use]
    pub fn until(mut self, are_awaited: impl Fn(&ObjectId) -> bool) -> Self {
        self.awaited.retain(are_awaited);
        self
    }
}

impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.awaited.first() else {
            return write!(f, "the waves after {} begin in the next pass", self.number);
        };
        if self.number == LAST {
            write!(f, "the tests wait until {first}")?;
        } else {
            write!(f, "the waves after {} wait until {first}", self.number)?;
        }
        match self.awaited.len() - 1 {
            0 => write!(f, " is healthy"),
            more => write!(f, " and {more} more are healthy"),
        }
    }
}

impl Plan {
    /// Whether later waves wait until the object is healthy. No wave waits for an object that is healthy as soon as it
    /// exists. If all objects have the same wave number, there is no later wave that could wait.
    pub(super) fn is_awaited(&self, sync: &Sync, manifest: &Manifest, id: &ObjectId) -> bool {
        let is_asked = sync.spec.waves == Waves::Healthy || asks_to_wait(manifest).unwrap_or_default();
        is_asked && !self.numbers.is_empty() && !is_healthy_at_once(sync, id)
    }

    /// Whether later waves wait until the object is healthy.
    pub fn has_to_be_healthy(&self, id: &ObjectId) -> bool {
        self.awaited.contains(id)
    }

    /// Leaves out the waves that have to wait for earlier ones, and returns what they wait for; `None` if nothing is
    /// left out. A wave has to wait if an earlier wave has an awaited object that is held back, or for which
    /// `may_be_unhealthy` is true. Tests wait for all other objects in this way. `may_be_unhealthy` must be true for every object that is about to be applied.
    /// Before an object is made again, it is deleted, together with the other objects of its time, when all of them are healthy. So the
    /// wave in which it is made again waits, and begins only in a later pass.
    ///
    /// Objects that are left out keep the entry that they have in `current`, the inventory of the Sync when the plan
    /// was made. Steps that undo drift stay in the plan even if their wave waits. Nothing is pruned until the last wave
    /// is applied, except webhooks and admission policies, because they could refuse the objects that are applied.
    pub fn leave_out_waiting_waves(
        &mut self,
        current: &Inventory,
        may_be_unhealthy: impl Fn(&ObjectId) -> bool,
    ) -> Option<Barrier> {
        let held: BTreeSet<_> = self.held.iter().map(|held| &held.id).collect();
        let is_unhealthy = |id: &ObjectId| held.contains(id) || may_be_unhealthy(id);
        let awaited = self.awaited.iter().filter(|id| is_unhealthy(id));
        let awaited: Vec<_> = awaited.map(|id| (self.wave_of(id).number, id)).collect();
        let first = awaited.iter().map(|(number, _)| *number).min();
        let mut tested = BTreeSet::new();
        if self.has_tests() {
            let objects = self.kinds.keys().chain(held.iter().copied());
            tested.extend(objects.filter(|id| !self.tests.contains(id) && is_unhealthy(id)).cloned());
        }
        let mut barrier = if first.is_none_or(|number| number > LAST) && !tested.is_empty() {
            Some((LAST, tested))
        } else {
            first.map(|number| {
                let of_it = awaited.into_iter().filter(|(of, _)| *of == number).map(|(_, id)| id.clone());
                (number, of_it.collect())
            })
        };
        if let Some(again) = self.again_in
            && barrier.as_ref().is_none_or(|(number, _)| *number >= again)
        {
            let objects = self.kinds.keys().chain(held.iter().copied());
            let earlier = objects.filter(|id| self.wave_of(id).number < 0 && is_unhealthy(id)).cloned();
            barrier = Some((again - 1, earlier.collect()));
        }
        let (number, awaited) = barrier?;

        let mut later = self.waves.split_off(&Wave { number: number + 1, tier: Tier::Foundations });
        let changed = changed_in_git(&later);
        let mut left_out = Vec::new();
        for steps in later.values_mut() {
            left_out.extend(steps.extract_if(.., |step| changed.contains(&made(step))));
        }
        later.retain(|_, steps| !steps.is_empty());
        self.waves.append(&mut later);
        if left_out.is_empty() && self.again_in.is_none() {
            return None;
        }
        for Step { id, .. } in left_out {
            self.inventory.reset(&id, current);
            self.kinds.remove(&id);
        }
        // What left Git is not tested, so tests do not wait for it.
        if number < LAST {
            self.prune.retain(|id| Tier::of(id) == Tier::Admission);
        }
        Some(Barrier { number, awaited })
    }
}

/// The objects that changed in Git or are new there. A SealedSecret counts as its Secret, because the two are applied
/// together.
fn changed_in_git(waves: &BTreeMap<Wave, Vec<Step>>) -> BTreeSet<ObjectId> {
    waves.values().flatten().filter(|step| step.why == Why::Change).map(made).collect()
}

fn made(step: &Step) -> ObjectId {
    if step.id.is_sealed_secret() { step.id.secret() } else { step.id.clone() }
}
