//! Plan → the cluster: allow, widen, apply, prune. A pass and a heal are carried out alike.

use std::{collections::BTreeSet, sync::Arc};

use gitstore::Snapshot;
use manifests::ObjectId;
use pipeline::{Cause, Failure, Held, Inventory, Plan, Stage, StageError, prune::waits_for_confirmation};
use serde_json::Value;

use super::{
    Pass, Record,
    allow::{Allowed, allow},
    apply::{Applied, Applier},
    poll_health::kinds_to_judge,
    prune::Pruner,
};
use crate::{
    cluster::{Api, ApiError, Live},
    status::{Progress, set_progress},
};

/// What a pass did, also when it ended early.
#[derive(Default)]
pub(super) struct Outcome {
    /// What was written.
    pub(super) applied: Applied,
    /// What was deleted.
    pub(super) pruned: Vec<ObjectId>,
    /// What keeps its last good version.
    pub(super) held: Vec<Held>,
    /// Why a prune waits.
    pub(super) prune_waits: Option<String>,
    /// What left the folder and stays for a Sync that does not take it now.
    pub(super) left_for: Option<String>,
    /// What left the folder and stays because its file is only hidden.
    pub(super) hidden: Option<String>,
}

/// etcd takes requests of 1.5 MiB, if nothing else is set. A Sync is stored as a whole.
const MOST_BYTES: usize = 1_572_864;
/// What conditions, history and the list of field managers may take of it, besides what a Sync holds of its own.
const SPARE_BYTES: usize = 96 * 1024;

/// The inventory is not stored.
#[derive(Debug, thiserror::Error)]
enum WidenError {
    /// It could not be.
    #[error("the inventory could not be stored, so nothing was applied: {0}")]
    NotStored(#[from] ApiError),
    /// It has no room in the status.
    #[error(
        "{objects} objects{} do not fit into the inventory of one Sync: it would have {bytes} bytes, and the API server \
         stores at most {most}; nothing was applied. Split the folder: move a part of it to the folder of another Sync",
        if *.left > 0 { format!(", of which {left} left Git and are still to be pruned,") } else { String::new() }
    )]
    TooLarge {
        /// Objects in it.
        objects: usize,
        /// How many of them are not in Git any more.
        left: usize,
        /// Its size.
        bytes: usize,
        /// The room.
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
    /// Brings the cluster to where `plan`, which was made of `snapshot`, says. The record's inventory is right whatever the
    /// result.
    pub(super) async fn carry_out(
        &self,
        record: &mut Record,
        mut plan: Plan,
        (snapshot, revision): (&Snapshot, &str),
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let api = self.identity();
        let wanted = self.wanted_by_others(&plan.left, &record.inventory).await;
        plan.prune.retain(|id| !wanted.by.contains_key(id));
        let mut delay = wanted.delay(&mut record.prune_delayed_since).filter(|_| !plan.prune.is_empty());
        match self.keep_hidden(&mut plan, snapshot).await {
            Ok(hidden) => outcome.hidden = hidden,
            Err(failure) => delay = delay.or(Some(failure)),
        }
        if delay.is_some() {
            plan.prune.clear();
        }
        let applied = self.apply_and_prune(record, plan, revision, outcome, &api).await;
        // Also when the rest failed: who waits for an object cannot help that.
        let on_its_way = self.hand_over(&self.pruner(&api), &wanted.by, &mut record.inventory).await;
        let handed_over = on_its_way.settle(&mut record.handing_over_since);
        applied?;
        outcome.left_for = handed_over?;
        delay.map_or(Ok(()), Err)
    }

    /// Brings what the Sync itself wants to where `plan` says.
    async fn apply_and_prune(
        &self,
        record: &mut Record,
        plan: Plan,
        revision: &str,
        outcome: &mut Outcome,
        api: &Api,
    ) -> Result<(), Failure> {
        let before = record.inventory.clone();
        let whole = record.next.applied_objects.map(|count| usize::try_from(count).unwrap_or(0));
        // What asks to be kept is let go of, and not deleted.
        let is_kept = |id: &ObjectId| self.ctx.cluster.live.get(id).is_some_and(|live| live.kept);
        let goes: BTreeSet<_> = plan.prune.iter().filter(|id| !is_kept(id)).cloned().collect();
        outcome.prune_waits = waits_for_confirmation(self.sync, revision, &before, whole, &goes);
        let pending_kinds = kinds_to_judge(record, &plan);

        let timer = self.begin(Stage::Allow);
        let allowed = allow(&self.ctx.cluster, &self.ctx.keyring, api, self.key, plan, &before).await;
        drop(timer);
        let Allowed { mut plan, refused, claims } = allowed?;
        self.expect_hand_overs(&mut plan.held, &mut record.expects_since).await;
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
        let applied = Applier::new(self, api, &before).apply(plan, refused, &mut outcome.applied).await;
        self.give_up(&before, &mut outcome.applied);
        record.inventory.clone_from(&outcome.applied.inventory);
        outcome.held.append(&mut outcome.applied.held);
        applied?;
        drop(timer);

        let timer = self.begin(Stage::Prune);
        if outcome.prune_waits.is_none() {
            let prune = std::mem::take(&mut outcome.applied.prune);
            let pruned = pruner.prune(&prune, &mut record.inventory, &mut outcome.pruned).await;
            record.pending.retain(|id, _| record.inventory.contains(id));
            pruned?;
        }
        drop(timer);

        record.pending.extend(pending_kinds);
        match (held_failure(&outcome.held), &outcome.prune_waits) {
            (Some(failure), _) => Err(failure),
            (None, Some(message)) => Err(Failure {
                terminal: true,
                message: message.clone(),
                ..Failure::new(Stage::Prune, "PruneNeedsConfirmation")
            }),
            (None, None) => Ok(()),
        }
    }

    /// Stores what is about to exist before anything of it does, and the finalizer: a crash from here on leaves nothing
    /// untracked, and a deleted Sync leaves nothing behind.
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

    /// Whether the status has room for the inventory, also when everything is applied: it is larger then.
    fn room_for(&self, plan: &Plan) -> Result<(), WidenError> {
        let bytes = plan.inventory_bytes();
        if bytes < MOST_BYTES / 2 {
            return Ok(());
        }
        let size = |json: Result<String, serde_json::Error>| json.map_or(0, |json| json.len());
        // The spec is there twice when somebody applies it with kubectl.
        let own = size(serde_json::to_string(&self.sync.metadata)) + 2 * size(serde_json::to_string(&self.sync.spec));
        let most = MOST_BYTES.saturating_sub(SPARE_BYTES + own);
        if bytes <= most {
            return Ok(());
        }
        Err(WidenError::TooLarge { objects: plan.inventory.iter().count(), left: plan.left.len(), bytes, most })
    }

    /// What is new in the inventory and was certainly not written is nobody's: what a Sync may not write stays free for
    /// whoever may, and is not counted as something to prune.
    fn give_up(&self, before: &Inventory, applied: &mut Applied) {
        for id in std::mem::take(&mut applied.not_written) {
            if never_had(&self.ctx.cluster.live, before, &id) {
                applied.inventory.remove(&id);
                self.ctx.cluster.live.release(self.key, &id);
            }
        }
    }

    /// What prunes for this Sync, by the rights of `api`.
    pub(super) fn pruner<'p>(&'p self, api: &'p Api) -> Pruner<'p> {
        let Self { ctx, key, .. } = *self;
        let cluster = &ctx.cluster;
        let (discovery, live) = (&cluster.discovery, &cluster.live);
        Pruner { api, discovery, live, sync: key, writes: &ctx.writes, keyring: &ctx.keyring }
    }

    /// The API with the rights that the Sync writes with.
    pub(super) fn identity(&self) -> Api {
        let account = self.sync.spec.service_account_name.as_ref();
        match account.or(self.ctx.tenancy.default_service_account.as_ref()) {
            Some(account) => self.ctx.cluster.api.acting_as(&self.key.namespace, account),
            None => self.ctx.cluster.api.clone(),
        }
    }
}

/// Whether the Sync never had the object. After a crash an inventory may hold what was about to be written: whether it
/// was, the object says.
pub(super) fn never_had(live: &Live, before: &Inventory, id: &ObjectId) -> bool {
    let Some(known) = before.get(id) else { return true };
    known.manifest.is_none() && live.get(id).is_none_or(|object| object.fields.is_none())
}

/// What is told when objects were held back: the first cause, and how many more there are.
fn held_failure(held: &[Held]) -> Option<Failure> {
    let mut causes: Vec<(&Held, Cause)> = held.iter().filter_map(|held| Some((held, held.cause?))).collect();
    // What comes by itself is told when there is nothing else.
    causes.sort_by_key(|(held, _)| held.waits_for_hand_over());
    let (first, cause) = causes.first()?;
    let users: Vec<_> = held.iter().filter(|held| held.cause.is_none()).map(|held| held.id.to_string()).collect();
    let mut message = format!("{}: {}: {}", first.origin, first.id, first.because);
    if causes.len() > 1 {
        message.push_str(&format!("; and {} more", causes.len() - 1));
    }
    if let Some((user, more)) = users.split_first() {
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        message.push_str(&format!("; {user}{more} that use it stay as they are, or are not made"));
    }
    message.push_str("; everything else is applied");
    // One of them may be worth another try.
    let terminal = causes.iter().all(|(_, cause)| cause.terminal);
    Some(Failure { terminal, waits: first.waits_for_hand_over(), message, ..Failure::new(cause.stage, cause.reason) })
}
