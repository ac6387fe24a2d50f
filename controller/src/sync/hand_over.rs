//! What left the folder of one Sync and stands in that of another is handed over with its uid, never deleted.
//!
//! Before anything is pruned, the folders of all Syncs are read that have something to apply, and the Syncs are asked that
//! were refused one of the objects before. Of another repository, the folder of a Sync in another namespace is read only if
//! it has the controller's own rights. What another Sync wants, and may write, is released for it and stays in
//! this Sync's inventory until the other one has applied it: its labels say so. So it is tracked at every moment.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crds::{ObjectKey, Sync};
use manifests::ObjectId;
use pipeline::{
    Failure, Held, Inventory, Stage,
    plan::{LiveView as _, possible_ids},
    repository_of,
};
use tokio::time::Instant;

use super::{
    Pass,
    allow::AllowError,
    prune::Pruner,
    source::{self, Sourced},
};
use crate::{
    cluster::{Api, ApiError, DiscoveryError},
    render::{Patience, RenderError},
};

/// How long a prune waits for a folder that cannot be read: longer than a fix takes to be noticed, and not for ever.
pub(super) const WAITS_FOR: Duration = Duration::from_secs(120);

/// What the folders of Syncs hold that are still to apply it. Cheap to ask; a folder is read once per content.
#[derive(Default)]
pub struct Wants(Mutex<HashMap<ObjectKey, Folder>>);

/// A content, and what stands in it.
type Folder = (String, Arc<BTreeSet<ObjectId>>);

impl Wants {
    fn of(&self, sync: &ObjectKey, content: &str) -> Option<Arc<BTreeSet<ObjectId>>> {
        let wants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wants.get(sync).filter(|(known, _)| known == content).map(|(_, ids)| ids.clone())
    }

    fn remember(&self, sync: &ObjectKey, content: &str, ids: Arc<BTreeSet<ObjectId>>) {
        let mut wants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wants.insert(sync.clone(), (content.to_owned(), ids));
    }

    /// The Sync has what it wants, or is gone.
    pub(super) fn forget(&self, sync: &ObjectKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(sync);
    }
}

/// What became known about objects that left a folder.
#[derive(Default)]
pub(super) struct Wanted {
    /// The objects that are to be handed over, and to whom.
    pub(super) by: BTreeMap<ObjectId, ObjectKey>,
    /// A Sync whose folder of the same revision cannot be read, and why: it may want any of the objects.
    pub(super) unknown: Option<(ObjectKey, String)>,
}

impl Wanted {
    /// Why a prune has to wait since `since`, if it has to.
    pub(super) fn delay(&self, since: &mut Option<Instant>) -> Option<Failure> {
        let Some((sync, why)) = &self.unknown else {
            *since = None;
            return None;
        };
        let waited = since.get_or_insert_with(Instant::now).elapsed();
        (waited < WAITS_FOR).then(|| Failure {
            waits: true,
            message: format!(
                "nothing is pruned yet: Sync {sync}, which this revision touches, may want some of it, and its folder \
                 cannot be read ({why}); after {} s the prune goes on without it",
                WAITS_FOR.as_secs()
            ),
            ..Failure::new(Stage::Prune, "PruneWaitsForSync")
        })
    }
}

impl Pass<'_> {
    /// Which of the objects that `left` this Sync another one wants.
    pub(super) async fn wanted_by_others(
        &self,
        left: &BTreeSet<ObjectId>,
        inventory: &Inventory,
    ) -> Result<Wanted, Failure> {
        let mut wanted = Wanted::default();
        if left.is_empty() {
            return Ok(wanted);
        }
        let live = &self.ctx.cluster.live;
        for id in left {
            let version = version_of(id, inventory);
            for key in live.owner(id).into_iter().chain(live.waiting(id)).filter(|sync| sync != self.key) {
                let Some(other) = self.ctx.syncs.get(&key.to_ref()) else { continue };
                // Perhaps it is only its stored inventory that says so, or it has lost the right since.
                let api = self.like(&other, &key).identity();
                if self.may_take(&api, id, version).await.map_err(AllowError::from)? {
                    wanted.by.insert(id.clone(), key);
                    break;
                }
            }
        }
        let repository = repository_of(self.sync);
        for other in self.ctx.syncs.state() {
            let key = ObjectKey::of(&*other);
            if key == *self.key || other.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let api = self.like(&other, &key).identity();
            // Who waits for an object of another repository is forgotten by a restart. The folders of strangers are not read
            // for that: they would make others read what they like.
            let is_same = repository_of(&other) == repository;
            let is_stranger = key.namespace != self.key.namespace && api.user().is_some();
            if !is_same && is_stranger {
                continue;
            }
            let Ok(sourced) = source::source(&self.ctx.sources, self.ctx.tenancy.allow_cross_namespace, &other) else {
                continue;
            };
            if has_applied(&other, &sourced.content) {
                continue;
            }
            let wants = match self.wants(&key, &other, sourced).await {
                Ok(wants) => wants,
                Err(error) => {
                    if is_same {
                        wanted.unknown.get_or_insert((key, error.to_string()));
                    }
                    continue;
                }
            };
            for id in left.iter().filter(|id| wants.contains(*id)) {
                let version = version_of(id, inventory);
                if !wanted.by.contains_key(id) && self.may_take(&api, id, version).await.map_err(AllowError::from)? {
                    wanted.by.insert(id.clone(), key.clone());
                }
            }
        }
        Ok(wanted)
    }

    /// Everything that stands in the folder of `other`.
    async fn wants(
        &self,
        key: &ObjectKey,
        other: &Sync,
        sourced: Sourced,
    ) -> Result<Arc<BTreeSet<ObjectId>>, RenderError> {
        if let Some(known) = self.ctx.wants.of(key, &sourced.content) {
            return Ok(known);
        }
        let rendered = self.ctx.renderer.render(sourced.snapshot, other, 0, Patience::HasNone).await?;
        let ids =
            Arc::new(rendered.manifests.objects.iter().flat_map(|manifest| possible_ids(other, manifest)).collect());
        self.ctx.wants.remember(key, &sourced.content, Arc::clone(&ids));
        Ok(ids)
    }

    /// Whether the identity of `api` may write the object: what a Sync may not have, it does not keep from being pruned.
    async fn may_take(&self, api: &Api, id: &ObjectId, version: &str) -> Result<bool, ApiError> {
        match self.ctx.cluster.discovery.find(&id.group, version, &id.kind).await {
            Ok(resource) => self.ctx.cluster.reviews.may_write(api, &resource, id, true).await,
            // Its kind is not served now, so nothing of it is pruned either.
            Err(DiscoveryError::UnknownKind { .. }) => Ok(true),
            Err(DiscoveryError::Request { source, .. }) => Err(source),
        }
    }

    /// Tells what other Syncs are going to hand over from what they want themselves. It is waited for since `since`, and not
    /// for ever.
    pub(super) async fn expect_hand_overs(&self, held: &mut [Held], since: &mut Option<Instant>) {
        let mut comes = false;
        for held in held.iter_mut().filter(|held| held.is_owned_by_another()) {
            let Some(owner) = self.ctx.cluster.live.owner(&held.id) else { continue };
            if !self.lets_go(&owner, &held.id).await {
                continue;
            }
            comes = true;
            if since.get_or_insert_with(Instant::now).elapsed() < WAITS_FOR {
                held.wait_for_hand_over(&owner);
            }
        }
        if !comes {
            *since = None;
        }
    }

    /// Whether the Sync `owner` is going to let the object go: what Git says of its folder now does not have it.
    async fn lets_go(&self, owner: &ObjectKey, id: &ObjectId) -> bool {
        let Self { ctx, .. } = *self;
        let Some(other) = ctx.syncs.get(&owner.to_ref()) else { return true };
        if other.metadata.deletion_timestamp.is_some() {
            return true;
        }
        let sourced = source::source(&ctx.sources, ctx.tenancy.allow_cross_namespace, &other);
        let (false, Ok(sourced)) = (other.spec.suspend, sourced) else { return false };
        let has_applied = has_applied(&other, &sourced.content);
        let lets_go = match self.wants(owner, &other, sourced).await {
            Ok(wants) => !wants.contains(id),
            // As long as it applied nothing else, what it had last stands.
            Err(_) => !has_applied,
        };
        if lets_go && has_applied {
            // It has nothing else to do, and does not know that somebody wants what it left.
            ctx.retries.wake(owner);
            ctx.queues.syncs.add(owner.clone());
        }
        lets_go
    }

    /// Releases what others want, and takes out of the inventory what they have.
    pub(super) async fn hand_over(
        &self,
        pruner: &Pruner<'_>,
        by: &BTreeMap<ObjectId, ObjectKey>,
        inventory: &mut Inventory,
    ) -> OnItsWay {
        let mut on_its_way = OnItsWay::default();
        for (id, to) in by {
            let is_suspended = self.ctx.syncs.get(&to.to_ref()).is_some_and(|to| to.spec.suspend);
            let to = to.clone();
            match pruner.is_ours(id, inventory).await {
                Ok(false) => {
                    inventory.remove(id);
                    self.ctx.cluster.live.release(self.key, id);
                }
                Ok(true) => {
                    self.ctx.cluster.live.hand_over(self.key, id, &to);
                    let goes = if is_suspended { &mut on_its_way.to_suspended } else { &mut on_its_way.to_others };
                    goes.push((id.clone(), to));
                }
                Err(error) => {
                    tracing::warn!(sync = %self.key, object = %id, %error, "whose it is could not be asked; it is not pruned");
                    on_its_way.to_others.push((id.clone(), to));
                }
            }
        }
        on_its_way
    }
}

/// What was let go for other Syncs and is not theirs yet. It stays in the inventory until it is.
#[derive(Default)]
pub(super) struct OnItsWay {
    /// To Syncs that may take it at any moment.
    to_others: Vec<(ObjectId, ObjectKey)>,
    /// To Syncs that take nothing as long as they are suspended.
    to_suspended: Vec<(ObjectId, ObjectKey)>,
}

impl OnItsWay {
    /// What is waited for, if anything is.
    pub(super) fn failure(&self) -> Option<Failure> {
        let message = match (moved(&self.to_others), moved(&self.to_suspended)) {
            (Some(moved), _) => format!("{moved}, and is handed over as it is"),
            (None, Some(moved)) => format!("{moved}, which is suspended, and is handed over when that Sync resumes"),
            (None, None) => return None,
        };
        Some(Failure { waits: true, message, ..Failure::new(Stage::Prune, "HandingOver") })
    }

    /// Waits for who may take it since `since`, and not for ever. What is not waited for is told.
    pub(super) fn settle(&self, since: &mut Option<Instant>) -> Result<Option<String>, Failure> {
        let suspended = moved(&self.to_suspended)
            .map(|moved| format!("{moved}, which is suspended, and stays as it is until that Sync takes it"));
        let Some(moved) = moved(&self.to_others) else {
            if suspended.is_some() {
                *since = None;
            }
            return Ok(suspended);
        };
        if since.get_or_insert_with(Instant::now).elapsed() < WAITS_FOR {
            return self.failure().map_or(Ok(None), Err);
        }
        let late = format!(
            "{moved}, which did not take it within {} s (its status says why), and stays as it is until that Sync takes it",
            WAITS_FOR.as_secs()
        );
        Ok(Some([Some(late), suspended].into_iter().flatten().collect::<Vec<_>>().join("; ")))
    }
}

/// The first of the objects, how many more there are, and whose they are going to be.
fn moved(objects: &[(ObjectId, ObjectKey)]) -> Option<String> {
    let (id, to) = objects.first()?;
    let more = match objects.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("{id}{more} moved to the folder of Sync {to}"))
}

fn version_of<'i>(id: &ObjectId, inventory: &'i Inventory) -> &'i str {
    inventory.get(id).map(|known| known.version.as_str()).unwrap_or_default()
}

/// Whether the Sync has applied `content` whole: what it wants, it has.
fn has_applied(sync: &Sync, content: &str) -> bool {
    sync.status.as_ref().and_then(|status| status.applied_content.as_deref()) == Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> (ObjectId, ObjectKey) {
        let id = ObjectId { group: String::new(), kind: "ConfigMap".into(), namespace: None, name: name.into() };
        (id, ObjectKey::new("ns", "taker"))
    }

    #[test]
    fn who_may_take_an_object_is_waited_for_and_not_for_ever() {
        let on_its_way = OnItsWay { to_others: vec![object("a"), object("b")], to_suspended: vec![object("c")] };
        let mut since = None;
        let failure = on_its_way.settle(&mut since).expect_err("it is waited for");
        assert!(failure.waits && failure.message.contains("a and 1 more"), "{}", failure.message);
        since = since.and_then(|since| since.checked_sub(WAITS_FOR));
        assert!(since.is_some());
        let told = on_its_way.settle(&mut since).expect("not for ever").expect("and it is told");
        assert!(told.contains("did not take it") && told.contains("which is suspended"), "{told}");
        assert!(since.is_some(), "the next look does not wait again");
    }

    #[test]
    fn who_is_suspended_is_not_waited_for() {
        let on_its_way = OnItsWay { to_others: Vec::new(), to_suspended: vec![object("c")] };
        let mut since = None;
        let told = on_its_way.settle(&mut since).expect("it is not waited for").expect("it is told");
        assert!(told.contains("Sync ns/taker, which is suspended"), "{told}");
        assert_eq!(since, None);
        assert!(on_its_way.failure().is_some_and(|failure| failure.waits), "whoever goes waits for a while");
        assert!(OnItsWay::default().failure().is_none());
    }

    #[test]
    fn what_cannot_be_read_delays_the_prune_whatever_the_reason() {
        for error in [RenderError::NoMemoryNow, RenderError::Kustomize("a/kustomization.yaml".into())] {
            let wanted =
                Wanted { unknown: Some((ObjectKey::new("ns", "other"), error.to_string())), ..Wanted::default() };
            let mut since = None;
            let failure = wanted.delay(&mut since).expect("it waits");
            assert!(failure.waits && failure.message.contains(&error.to_string()), "{}", failure.message);
            since = since.and_then(|since| since.checked_sub(WAITS_FOR));
            assert!(since.is_some() && wanted.delay(&mut since).is_none(), "it waits for ever");
        }
    }
}
