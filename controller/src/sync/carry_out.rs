//! Carries a plan out in the cluster: allow, widen, apply, prune. A pass and a heal are carried out in the same way.

use std::{collections::BTreeSet, sync::Arc};

use gitstore::Snapshot;
use manifests::ObjectId;
use pipeline::{
    Cause, Failure, Held, Inventory, Plan, Stage, StageError,
    inventory::ALL_WHY_BYTES,
    plan::Barrier,
    prune::{LargePrune, NEEDS_CONFIRMATION, large_prune},
};
use serde_json::Value;

use super::{
    Pass, Record,
    allow::{Allowed, allow},
    apply::{Applied, Applier},
    awaited::Awaited,
    prune::Pruner,
};
use crate::{
    cluster::{Api, ApiError, Live},
    status::{Progress, set_progress},
};

/// The results of a pass, even if it ended early.
#[derive(Default)]
pub(super) struct Outcome {
    /// The objects that were written.
    pub(super) applied: Applied,
    /// The objects that were deleted.
    pub(super) pruned: Vec<ObjectId>,
    /// Objects that are held back and keep their last good version.
    pub(super) held: Vec<Held>,
    /// The prune that waits for a confirmation, if there is one.
    pub(super) prune_waits: Option<LargePrune>,
    /// The text about objects that left the folder and stay in the cluster, because another Sync has them in its folder and
    /// does not take them over now.
    pub(super) left_for: Option<String>,
    /// The text about objects that left the folder and stay in the cluster because their file was not deleted, but is
    /// now hidden.
    pub(super) hidden: Option<String>,
    /// Whether the revision has objects that are applied when the Sync is deleted.
    pub(super) has_hooks_on_delete: bool,
}

/// The largest request that etcd accepts by default. A Sync is stored in one request.
const MOST_BYTES: usize = 1_572_864;
/// How many bytes are left for conditions, history, notes, `managedFields` and the texts about objects that have failed, besides the
/// content of the Sync itself.
const SPARE_BYTES: usize = 96 * 1024 + ALL_WHY_BYTES;

/// The inventory was not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum WidenError {
    /// The write failed.
    #[error("the inventory could not be stored, so nothing was applied: {0}")]
    NotStored(#[from] ApiError),
    /// The inventory does not fit into the status of the Sync.
    #[error(
        "{objects} objects{} do not fit into the inventory of one Sync: it would have {bytes} bytes, and the API server \
         stores at most {most}; nothing was applied. Split the folder: move a part of it to the folder of another Sync",
        if *.left > 0 { format!(", of which {left} left Git and are still to be pruned,") } else { String::new() }
    )]
    TooLarge {
        /// Number of objects in the inventory.
        objects: usize,
        /// How many of these objects are no longer in Git.
        left: usize,
        /// The size of the inventory.
        bytes: usize,
        /// How large the inventory may be.
        most: usize,
    },
}

impl StageError for WidenError {
    const STAGE: Stage = Stage::Widen;

    fn reason(&self) -> &'static str {
        match self {
            Self::NotStored(_) => "InventoryNotStored",
            Self::TooLarge { .. } => "InventoryTooLarge",
        }
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }
}

impl Pass<'_> {
    /// Carries out `plan`, which was made from `snapshot`. The inventory in the record is right in any case, even after
    /// an error.
    pub(super) async fn carry_out(
        &self,
        record: &mut Record,
        mut plan: Plan,
        (snapshot, revision): (&Arc<Snapshot>, &str),
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let api = self.identity();
        let timer = (!plan.left.is_empty()).then(|| self.begin(Stage::HandOver));
        let wanted = self.wanted_by_others(&plan.left, &record.inventory, Some(snapshot));
        let wanted = self.unless_overtaken(wanted).await?;
        drop(timer);
        plan.prune.retain(|id| !wanted.by.contains_key(id));
        let mut delay = wanted.delay(&mut record.prune_delayed_since).filter(|_| !plan.prune.is_empty());
        match self.keep_hidden(&mut plan, snapshot).await {
            Ok(hidden) => outcome.hidden = hidden,
            Err(failure) => delay = delay.or(Some(failure)),
        }
        if delay.is_some() {
            plan.prune.clear();
        }
        let applied = self.apply_and_prune(record, plan, (snapshot, revision), outcome, &api).await;
        // Objects are handed over even if the rest failed, because the Syncs that wait for them can do nothing about
        // the failure.
        let timer = (!wanted.by.is_empty()).then(|| self.begin(Stage::HandOver));
        let on_its_way = self.hand_over(&self.pruner(&api), &wanted.by, &mut record.inventory).await;
        drop(timer);
        let handed_over = on_its_way.settle(&mut record.handing_over_since);
        applied?;
        outcome.left_for = handed_over?;
        // While later waves wait, the prune is not due yet, so its delay is no failure.
        delay.filter(|_| record.barrier.is_none()).map_or(Ok(()), Err)
    }

    /// Applies and prunes the Sync's own objects.
    pub(super) async fn apply_and_prune(
        &self,
        record: &mut Record,
        mut plan: Plan,
        (snapshot, revision): (&Arc<Snapshot>, &str),
        outcome: &mut Outcome,
        api: &Api,
    ) -> Result<(), Failure> {
        let before = record.inventory.clone();
        let whole = record.next.applied_objects.map(|count| usize::try_from(count).unwrap_or(0));
        let live = &self.ctx.cluster.live;
        // Some objects need no confirmation: objects with the annotation that keeps them are released and not deleted,
        // some objects were never made, because the API server refused them, and some are gone, because they were done or had failed.
        let stays = |id: &ObjectId| {
            live.get(id).is_some_and(|live| live.kept) || never_had(live, &before, id) || before.is_over(id)
        };
        let goes: BTreeSet<_> = plan.prune.iter().filter(|id| !stays(id)).cloned().collect();
        let confirmed = record.next.confirmed_prunes.unwrap_or_default();
        let large = large_prune(self.sync, (confirmed, revision, plan.origins.keys()), &before, whole, &goes);
        let is_confirmed = large.as_ref().is_some_and(|prune| prune.is_confirmed);
        outcome.prune_waits = large.filter(|prune| !prune.is_confirmed);
        let awaited = Awaited::of(record, &mut plan, self.sync);
        outcome.has_hooks_on_delete = plan.has_hooks_on_delete;

        let timer = self.begin(Stage::Allow);
        let allowed = allow(&self.ctx.cluster, &self.ctx.keyring, api, self.key, plan, &before).await;
        drop(timer);
        let Allowed { mut plan, refused, claims } = allowed?;
        let expects = self.expect_hand_overs(&mut plan.held, snapshot, &mut record.expects_since);
        self.unless_overtaken(expects).await?;
        outcome.held.clone_from(&plan.held);

        let timer = self.begin(Stage::Widen);
        self.room_for(&plan)?;
        self.widen(record, &plan.inventory, revision).await?;
        claims.keep();
        drop(timer);

        let timer = self.begin(Stage::Apply);
        let pruner = self.pruner(api);
        if outcome.prune_waits.is_none() {
            pruner.open_gates(&mut plan, &mut outcome.pruned).await;
            record.inventory.clone_from(&plan.inventory);
        }
        let applied = Applier::new(self, api, snapshot, &before).apply(plan, refused, &mut outcome.applied).await;
        self.give_up(&before, &mut outcome.applied);
        record.inventory.clone_from(&outcome.applied.inventory);
        outcome.held.append(&mut outcome.applied.held);
        let barrier = awaited.after(record, outcome);
        applied?;
        drop(timer);

        let timer = self.begin(Stage::Prune);
        if outcome.prune_waits.is_none() {
            let prune = std::mem::take(&mut outcome.applied.prune);
            let pruned = pruner.prune(&prune, &mut record.inventory, &mut outcome.pruned).await;
            record.pending.retain(|id, _| record.inventory.contains(id));
            pruned?;
            if is_confirmed && !goes.iter().any(|id| record.inventory.contains(id)) {
                // Another prune of the same revision, after objects were added again, needs another confirmation.
                Arc::make_mut(&mut record.next).confirmed_prunes = Some(confirmed + 1);
            }
        }
        // Hooks for the deletion stay until all of them have succeeded.
        if outcome.held.is_empty() && self.sync.metadata.deletion_timestamp.is_none() {
            self.delete_finished(record, &pruner).await?;
        }
        drop(timer);

        match (held_failure(&outcome.held, barrier.as_ref()), &outcome.prune_waits) {
            (Some(failure), _) => Err(failure),
            (None, Some(prune)) if barrier.is_none() => Err(Failure {
                terminal: true,
                message: prune.message.clone(),
                ..Failure::new(Stage::Prune, NEEDS_CONFIRMATION)
            }),
            (None, _) => Ok(()),
        }
    }

    /// Stores the finalizer, and the inventory with the objects that are about to be created, before the first of these
    /// objects is created. So no object is missing from the inventory after a crash, and a deleted Sync leaves no
    /// objects behind.
    async fn widen(&self, record: &mut Record, wider: &Inventory, revision: &str) -> Result<(), WidenError> {
        let is_wider =
            wider.iter().any(|(id, known)| record.inventory.get(id).is_none_or(|old| old.version != known.version));
        let is_stored = is_wider && self.store_first_inventory(record, wider, revision).await?;
        if !is_stored && self.lacks_finalizer() {
            self.add_finalizer(Value::Null).await?;
        }
        if !is_wider {
            return Ok(());
        }
        let next = Arc::make_mut(&mut record.next);
        next.inventory = wider.write();
        next.last_attempted_revision = Some(revision.to_owned());
        let (message, generation) = (format!("applying {revision}"), self.sync.metadata.generation);
        set_progress(&mut next.conditions, Progress::Working, "Progressing", &message, generation);
        if !is_stored {
            record.write(&self.ctx.api, self.key).await?;
        }
        record.inventory.clone_from(wider);
        Ok(())
    }

    /// Checks whether the inventory will fit into the status even when everything is applied, because the inventory is
    /// larger then.
    fn room_for(&self, plan: &Plan) -> Result<(), WidenError> {
        let bytes = plan.inventory_bytes();
        if bytes < MOST_BYTES / 2 {
            return Ok(());
        }
        let size = |json: Result<String, serde_json::Error>| json.map_or(0, |json| json.len());
        // If somebody applies the Sync with kubectl, the spec is stored twice, because kubectl copies it into an
        // annotation.
        let own = size(serde_json::to_string(&self.sync.metadata)) + 2 * size(serde_json::to_string(&self.sync.spec));
        let most = MOST_BYTES.saturating_sub(SPARE_BYTES + own);
        if bytes <= most {
            return Ok(());
        }
        Err(WidenError::TooLarge { objects: plan.inventory.iter().count(), left: plan.left.len(), bytes, most })
    }

    /// Releases objects that are new in the inventory and were certainly not written. Otherwise, other Syncs could not
    /// have these objects, and they would count as objects to prune.
    fn give_up(&self, before: &Inventory, applied: &mut Applied) {
        for id in std::mem::take(&mut applied.not_written) {
            if never_had(&self.ctx.cluster.live, before, &id) {
                applied.inventory.remove(&id);
                self.ctx.cluster.live.release(self.key, &id);
            }
        }
    }

    /// The pruner for this Sync, with the rights of `api`.
    pub(super) fn pruner<'p>(&'p self, api: &'p Api) -> Pruner<'p> {
        let Self { ctx, key, .. } = *self;
        let cluster = &ctx.cluster;
        let (discovery, live) = (&cluster.discovery, &cluster.live);
        Pruner { api, discovery, live, sync: key, writes: &ctx.writes, keyring: &ctx.keyring }
    }

    /// The API with the rights of the Sync's identity.
    pub(super) fn identity(&self) -> Api {
        let account = self.sync.spec.service_account_name.as_ref();
        match account.or(self.ctx.tenancy.default_service_account.as_ref()) {
            Some(account) => self.ctx.cluster.api.acting_as(&self.key.namespace, account),
            None => self.ctx.cluster.api.clone(),
        }
    }
}

/// Whether the Sync never had the object. After a crash, the inventory may have an object that was only about to be
/// written. The object in the cluster shows whether it was written.
pub(super) fn never_had(live: &Live, before: &Inventory, id: &ObjectId) -> bool {
    let Some(known) = before.get(id) else { return true };
    known.manifest.is_none() && live.get(id).is_none_or(|object| object.fields.is_none())
}

/// How many objects a message names at most: of those that are held back, and again of those that use them.
const NAMED: usize = 20;

/// The failure for objects that were held back: the first cause in full, and the names of the others. `barrier` says
/// what later waves wait for.
pub(super) fn held_failure(held: &[Held], barrier: Option<&Barrier>) -> Option<Failure> {
    let mut causes: Vec<(&Held, Cause)> = held.iter().filter_map(|held| Some((held, held.cause?))).collect();
    // A cause that goes away by itself is reported first only if there is no other cause.
    causes.sort_by_key(|(held, _)| held.waits_for_hand_over());
    let (first, cause) = causes.first()?;
    let users: Vec<_> = held.iter().filter(|held| held.cause.is_none()).map(|held| &held.id).collect();
    let mut message = format!("{}: {}: {}", first.origin, first.id, first.because);
    let others: Vec<_> = causes.iter().skip(1).map(|(held, _)| &held.id).collect();
    if !others.is_empty() {
        message.push_str(&format!("; and {} more: {}", others.len(), named(&others)));
    }
    if !users.is_empty() {
        message.push_str(&format!("; the objects that use it stay as they are, or are not made: {}", named(&users)));
    }
    match barrier {
        None => message.push_str("; everything else is applied"),
        Some(barrier) => {
            message.push_str(&format!("; everything else up to wave {} is applied; {barrier}", barrier.number));
        }
    }
    // The failure is terminal only if another try helps against none of the causes.
    let terminal = causes.iter().all(|(_, cause)| cause.terminal);
    Some(Failure { terminal, waits: first.waits_for_hand_over(), message, ..Failure::new(cause.stage, cause.reason) })
}

fn named(ids: &[&ObjectId]) -> String {
    let mut names: Vec<_> = ids.iter().take(NAMED).map(ToString::to_string).collect();
    if let more @ 1.. = ids.len().saturating_sub(NAMED) {
        names.push(format!("and {more} that are not named here"));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use manifests::Location;

    use super::*;

    #[test]
    fn what_was_held_back_is_named_up_to_a_limit() {
        let held = |kind: &str, name: String, cause| Held {
            id: ObjectId { group: String::new(), kind: kind.into(), namespace: Some("team".into()), name },
            origin: Location { file: "app/a.yaml".into(), line: 1 },
            because: "no key fits".into(),
            cause,
        };
        let cause = Some(Cause { stage: Stage::Apply, reason: "UnsealFailed", terminal: true });
        let told = |secrets: usize, users: usize| {
            let secrets = (0..secrets).map(|number| held("Secret", format!("s{number}"), cause));
            let users = (0..users).map(|number| held("Pod", format!("p{number}"), None));
            let held: Vec<_> = secrets.chain(users).collect();
            held_failure(&held, None).map(|failure| failure.message).unwrap_or_default()
        };
        let first = "app/a.yaml:1: Secret team/s0: no key fits";
        assert_eq!(told(1, 0), format!("{first}; everything else is applied"));
        let users = "the objects that use it stay as they are, or are not made: Pod team/p0, Pod team/p1";
        let expected =
            format!("{first}; and 2 more: Secret team/s1, Secret team/s2; {users}; everything else is applied");
        assert_eq!(told(3, 2), expected);
        let (secret, user) = (held("Secret", "s0".into(), cause), held("Job", "migrate".into(), None));
        let barrier = Barrier { number: -1, awaited: [user.id.clone()].into() };
        let failure = held_failure(&[secret, user], Some(&barrier)).unwrap();
        let end =
            "; everything else up to wave -1 is applied; the waves after -1 wait until Job team/migrate is healthy";
        assert!(failure.message.ends_with(end), "{}", failure.message);
        let long = told(1000, 1000);
        assert!(long.contains("Secret team/s20, and 979 that are not named here; the objects that use it"), "{long}");
        assert!(long.contains("Pod team/p19, and 980 that are not named here; everything"), "{long}");
        assert!(!long.contains("s21,") && !long.contains("p20"), "{long}");
    }
}
