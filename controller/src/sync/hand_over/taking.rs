//! A Sync that finds an object of another Sync in its folder waits for the object if the other Sync is going to release it.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
};

use crds::ObjectKey;
use gitstore::Snapshot;
use manifests::ObjectId;
use pipeline::{Held, plan::LiveView as _};
use tokio::time::Instant;

use super::{Unread, WAITS_FOR, has_applied};
use crate::{
    context::InStore as _,
    sync::{
        Pass,
        source::{self, SourceError},
    },
};

/// Which of its objects a Sync is going to release, according to its folder at one revision.
enum LetsGo {
    /// All its objects.
    Everything,
    /// All objects except those in the Sync's folder.
    AllBut(Arc<BTreeSet<ObjectId>>),
    /// No object is known to be released.
    Nothing,
    /// Not known, because the controller cannot read the Sync's folder now.
    Unknown,
}

impl LetsGo {
    fn contains(&self, id: &ObjectId) -> bool {
        match self {
            Self::Everything => true,
            Self::AllBut(wants) => !wants.contains(id),
            Self::Nothing | Self::Unknown => false,
        }
    }
}

impl Pass<'_> {
    /// Marks the objects in `held` that other Syncs are going to hand over. The Sync waits for these objects for a
    /// limited time, which began at `since`. `snapshot` is the snapshot of this pass.
    pub(in crate::sync) async fn expect_hand_overs(
        &self,
        held: &mut [Held],
        snapshot: &Arc<Snapshot>,
        since: &mut Option<Instant>,
    ) {
        let (mut owners, mut letting_go) = (HashMap::new(), BTreeSet::new());
        for held in held.iter_mut().filter(|held| held.is_owned_by_another()) {
            let Some(owner) = self.ctx.cluster.live.owner(&held.id) else {
                // The object was released after the plan was made. The release has put this Sync into the queue.
                held.was_released();
                continue;
            };
            let views = match owners.entry(owner.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(self.lets_go(&owner, snapshot).await),
            };
            if views.iter().any(|lets_go| lets_go.contains(&held.id)) {
                if since.get_or_insert_with(Instant::now).elapsed() < WAITS_FOR {
                    held.wait_for_hand_over(&owner);
                }
                letting_go.insert(owner);
            } else if views.iter().any(|lets_go| matches!(lets_go, LetsGo::Unknown)) {
                held.may_be_handed_over(&owner);
            }
        }
        if letting_go.is_empty() {
            *since = None;
        }
        for owner in letting_go {
            self.wake_if_done(&owner);
        }
    }

    /// Which objects the Sync `owner` is going to release: those that are not in its folder, at the newest revision or
    /// at the revision of this pass.
    async fn lets_go(&self, owner: &ObjectKey, snapshot: &Arc<Snapshot>) -> Vec<LetsGo> {
        let Some(other) = self.ctx.syncs.get(&owner.to_ref()) else { return vec![LetsGo::Everything] };
        if other.metadata.deletion_timestamp.is_some() {
            return vec![LetsGo::Everything];
        }
        let views = match (other.spec.suspend, self.views(&other, Some(snapshot))) {
            (false, Ok(views)) => views,
            (false, Err(SourceError::Values(_))) => return vec![LetsGo::Unknown],
            (true, _) | (false, Err(_)) => return Vec::new(),
        };
        let mut all = Vec::new();
        for sourced in views {
            let has_applied = has_applied(&other, &sourced.content);
            all.push(match self.wants(owner, &other, sourced).await {
                Ok(wants) => LetsGo::AllBut(wants),
                Err(Unread::NoMemory | Unread::Unable(_) | Unread::Inputs(_)) => LetsGo::Unknown,
                // The other Sync has already applied this content of its folder, so it keeps its objects.
                Err(Unread::Folder(_)) if has_applied => LetsGo::Nothing,
                Err(Unread::Folder(_)) => LetsGo::Everything,
            });
        }
        all
    }

    /// Makes the Sync `owner` run a pass if it has nothing else to do. Without this pass, it would not notice that this
    /// Sync wants an object that left the folder of `owner`.
    fn wake_if_done(&self, owner: &ObjectKey) {
        let Self { ctx, .. } = *self;
        let Some(other) = ctx.syncs.get(&owner.to_ref()) else { return };
        let sourced = source::source(ctx, &other);
        if sourced.is_ok_and(|sourced| has_applied(&other, &sourced.content)) {
            ctx.retries.wake(owner);
            ctx.queues.syncs.add(owner.clone());
        }
    }
}
