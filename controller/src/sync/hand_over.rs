//! Hands objects over: an object that left the folder of one Sync and is in the folder of another Sync is not deleted,
//! and keeps its UID. This file finds out which Sync wants an object; [`giving`] releases it for that Sync, and [`taking`]
//! lets a Sync wait for objects that another Sync is going to release.
//!
//! Before anything is pruned, the controller looks for Syncs that want one of the objects. It reads the folders of all
//! Syncs that still have something to apply, and also considers the Syncs that tried to apply one of these objects
//! before and could not have it. If a Sync has another Repository and another namespace, its folder is read only if the
//! Sync writes with the controller's own rights. A commit that arrives during a pass may move the objects once more, so
//! the pass reads the folders both at its own revision and at the newest one. If another Sync wants an object and may
//! write it, the object is released for that Sync. The object stays in the inventory of this Sync until its labels show
//! that the other Sync has applied it. So at every moment, some inventory has the object.

mod giving;
mod taking;
mod wants;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crds::{ObjectKey, Sync};
use futures::{StreamExt as _, stream};
use gitstore::Snapshot;
use manifests::ObjectId;
use pipeline::{
    Failure, Inventory, OtherFile, Stage, StageError as _, Target, other_files,
    plan::{LiveView as _, wanted_ids},
    repository_of,
};
use tokio::time::Instant;

pub use self::wants::Wants;
use super::{
    Pass, Record,
    account::FORBIDDEN,
    allow::AT_ONCE,
    source::{self, SourceError, Sourced, content_with_settings},
};
use crate::{
    cluster::{ApiError, Cluster, DiscoveryError},
    context::InStore as _,
    render::{Patience, RenderError},
};

/// How long a prune waits for a folder that cannot be read. This is long enough for somebody to correct the folder.
pub(super) const WAITS_FOR: Duration = Duration::from_secs(120);

/// Why the objects in a folder are not known.
#[derive(Debug)]
enum Unread {
    /// The folder cannot be read.
    Folder(Arc<str>),
    /// There is no memory now to read the folder. The next pass reads it first.
    NoMemory,
    /// The controller cannot read it now, which is not the fault of its owners.
    Unable(String),
    /// Its inputs may stay unread for as long as its owners like: somebody has suspended the Sync, or the Repository with the
    /// values; or the cause is one that only the owners of another namespace can end.
    Inputs(String),
}

impl Unread {
    /// What the Sync is rendered with cannot be read from another Repository or from the cluster. `is_of_own_namespace` says whether
    /// the Sync is in the namespace of the Sync that prunes.
    fn of_values(error: &SourceError, is_of_own_namespace: bool) -> Self {
        match error.itself() {
            // The controller has just started.
            SourceError::Pending(_) | SourceError::Unread => Self::Unable(error.to_string()),
            SourceError::Cluster(cause) if !cause.is_terminal() && cause.reason() != FORBIDDEN => {
                if is_of_own_namespace || cause.is_unanswered() {
                    Self::Unable(format!(
                        "{error}. If this lasts, suspend that Sync: then the prune waits {} s at most",
                        WAITS_FOR.as_secs()
                    ))
                } else {
                    Self::Inputs(error.to_string())
                }
            }
            error => Self::Folder(error.to_string().into()),
        }
    }
}

/// A Sync that still has something to apply, with one view of its folder, or why there is none.
type FolderToApply = (ObjectKey, Arc<Sync>, Result<Sourced, Unread>);

/// Why it is not known whether another Sync may write an object.
enum Unasked {
    /// The API server did not answer about a Sync of another Repository and namespace. Such a Sync could cause this on
    /// purpose, by keeping the API server busy with requests of its service account.
    Stranger(ApiError),
    /// The API server did not answer about a Sync of the same Repository or namespace, or one with the controller's own
    /// rights.
    Anybody(ApiError),
}

/// What is known about the objects that left a folder: who gets them, or why this is not known.
#[derive(Default)]
pub(super) struct Wanted {
    /// The objects that are to be handed over, each with the Sync that gets it.
    pub(super) by: BTreeMap<ObjectId, ObjectKey>,
    /// Set if another Sync may want any of the objects, but its folder cannot be read, or its service account keeps the
    /// API server from answering. The owners of the other Sync must correct this. The text says which Sync, and why.
    unsaid: Option<String>,
    /// Why the controller cannot find out whether another Sync wants any of the objects.
    unasked: Option<String>,
}

impl Wanted {
    /// Why a prune has to wait, if it has to. If others must correct something, the prune waits only for a limited
    /// time, which began at `since`. If the controller itself cannot find out which objects are wanted, the prune waits
    /// until the controller can.
    pub(super) fn delay(&self, since: &mut Option<Instant>) -> Option<Failure> {
        if self.unsaid.is_none() {
            *since = None;
        }
        let waits = |_: &&String| since.get_or_insert_with(Instant::now).elapsed() < WAITS_FOR;
        let unsaid = self.unsaid.as_ref().filter(waits);
        let message = match (&self.unasked, unsaid) {
            (Some(unasked), _) => {
                format!("nothing is pruned yet: {unasked}; the controller tries again until it knows")
            }
            (None, Some(unsaid)) => {
                format!(
                    "nothing is pruned yet: {unsaid}; after {} s the prune no longer waits for this",
                    WAITS_FOR.as_secs()
                )
            }
            (None, None) => return None,
        };
        let may_pass = self.unasked.is_some();
        Some(Failure { waits: true, may_pass, message, ..Failure::new(Stage::Prune, "PruneWaitsForSync") })
    }
}

impl Pass<'_> {
    /// Finds out which of the objects `left` other Syncs want. These are the objects that left this Sync's folder.
    /// `snapshot` is the snapshot of this pass, if it has one.
    pub(super) async fn wanted_by_others(
        &self,
        left: &BTreeSet<ObjectId>,
        inventory: &Inventory,
        snapshot: Option<&Arc<Snapshot>>,
    ) -> Wanted {
        let mut wanted = Wanted::default();
        let mut takers = self.named_by_the_cluster(left);
        self.named_in_folders(left, snapshot, &mut takers, &mut wanted).await;
        let unanswered = Mutex::default();
        let mut answers = stream::iter(takers)
            .map(|(id, takers)| async {
                let taker = self.first_that_may_take(&id, version_of(&id, inventory), takers, &unanswered).await;
                (id, taker)
            })
            .buffered(AT_ONCE);
        while let Some((id, taker)) = answers.next().await {
            let because = |error| {
                format!(
                    "another Sync may want some of these objects, and the API server did not say whether that Sync may \
                     write {id} ({error})"
                )
            };
            match taker {
                Ok(taker) => wanted.by.extend(taker.map(|taker| (id, taker))),
                Err(Unasked::Stranger(error)) => drop(wanted.unsaid.get_or_insert_with(|| because(error))),
                // The questions about the other objects would probably fail in the same way.
                Err(Unasked::Anybody(error)) => {
                    wanted.unasked = Some(because(error));
                    break;
                }
            }
        }
        wanted
    }

    /// The Syncs that have one of the objects `left`, or are remembered as waiting for one. For some of these Syncs,
    /// only a stored inventory says that they have the object. A Sync that is being deleted takes nothing.
    fn named_by_the_cluster(&self, left: &BTreeSet<ObjectId>) -> BTreeMap<ObjectId, Vec<Arc<Sync>>> {
        let live = &self.ctx.cluster.live;
        let stays = |sync: &Arc<Sync>| sync.metadata.deletion_timestamp.is_none();
        let named = left.iter().map(|id| {
            let keys = live.owner(id).into_iter().chain(live.waiting(id)).filter(|sync| sync != self.key);
            (id.clone(), keys.filter_map(|key| self.ctx.syncs.get(&key.to_ref())).filter(stays).collect::<Vec<_>>())
        });
        named.filter(|(_, takers)| !takers.is_empty()).collect()
    }

    /// Adds to `takers` the Syncs that have one of the objects `left` in their folders. If the objects of a folder
    /// cannot be found out, `wanted` gets the reason.
    async fn named_in_folders(
        &self,
        left: &BTreeSet<ObjectId>,
        snapshot: Option<&Arc<Snapshot>>,
        takers: &mut BTreeMap<ObjectId, Vec<Arc<Sync>>>,
        wanted: &mut Wanted,
    ) {
        if left.is_empty() {
            return;
        }
        for (key, other, sourced) in self.folders_to_apply(snapshot) {
            let wants = match sourced {
                Ok(sourced) => self.wants(&key, &other, sourced).await,
                Err(unread) => Err(unread),
            };
            match wants {
                Ok(wants) => {
                    for id in left.iter().filter(|id| wants.contains(*id)) {
                        let takers = takers.entry(id.clone()).or_default();
                        if !takers.iter().any(|taker| ObjectKey::of(&**taker) == key) {
                            takers.push(other.clone());
                        }
                    }
                }
                Err(Unread::NoMemory) => {
                    let because = "may want some of these objects, and there is no memory now to read its folder";
                    wanted.unasked.get_or_insert_with(|| format!("Sync {key} {because}"));
                }
                Err(Unread::Unable(why)) => {
                    let because = "may want some of these objects, and its folder cannot be read now";
                    wanted.unasked.get_or_insert_with(|| format!("Sync {key} {because} ({why})"));
                }
                Err(Unread::Inputs(why)) => {
                    let because = "may want some of these objects, and what it is rendered with cannot be read";
                    wanted.unsaid.get_or_insert_with(|| format!("Sync {key} {because} ({why})"));
                }
                Err(Unread::Folder(why)) if repository_of(&other) == repository_of(self.sync) => {
                    let because = "may want some of these objects, and its folder cannot be read";
                    wanted.unsaid.get_or_insert_with(|| format!("Sync {key} {because} ({why})"));
                }
                Err(Unread::Folder(_)) => {}
            }
        }
    }

    /// Whether the values of a Sync may stay unread for as long as somebody likes.
    fn is_suspended(&self, other: &Sync) -> bool {
        let repository = |file: OtherFile<'_>| self.ctx.repositories.get(&file.repository().to_ref());
        other.spec.suspend || other_files(other).filter_map(repository).any(|repository| repository.spec.suspend)
    }

    /// The folders of other Syncs that still have something to apply. The folders of Syncs that have nothing to do with
    /// this Sync ([`Pass::is_stranger`]) are not read. Otherwise, anybody could make the controller read large folders
    /// for other Syncs. A stranger gets an object only if it is remembered as waiting for the object, which is
    /// forgotten at a restart. A Sync whose values cannot be read may want anything that its chart makes.
    fn folders_to_apply(&self, snapshot: Option<&Arc<Snapshot>>) -> Vec<FolderToApply> {
        let mut folders = Vec::new();
        for other in self.ctx.syncs.state() {
            let key = ObjectKey::of(&*other);
            let is_going = other.metadata.deletion_timestamp.is_some();
            if key == *self.key || is_going || self.is_stranger(&other, &key) {
                continue;
            }
            let views = match self.views(&other, snapshot) {
                Ok(views) => views,
                Err(SourceError::Values(error)) => {
                    let unread = if self.is_suspended(&other) {
                        Unread::Inputs(format!("the Sync or the source of its values is suspended: {error}"))
                    } else {
                        Unread::of_values(&error, key.namespace == self.key.namespace)
                    };
                    folders.push((key, other, Err(unread)));
                    continue;
                }
                Err(_) => continue,
            };
            for sourced in views {
                if !self.has_surely_applied(&key, &other, &sourced.content) {
                    folders.push((key.clone(), other.clone(), Ok(sourced)));
                }
            }
        }
        folders
    }

    /// The folder of `other` at the newest revision. If `other` has the same Repository, and this pass is at an older
    /// revision with another content of the folder, also the folder at this older revision.
    fn views(&self, other: &Sync, snapshot: Option<&Arc<Snapshot>>) -> Result<Vec<Sourced>, SourceError> {
        let newest = source::source(self.ctx, other)?;
        let repository = repository_of(other);
        let is_older = |snapshot: &&Arc<Snapshot>| {
            repository == repository_of(self.sync) && snapshot.revision() != newest.snapshot.revision()
        };
        let older = snapshot.filter(is_older).and_then(|snapshot| {
            // A folder that did not exist at the older revision has no objects there.
            let content = self.ctx.sources.content_in(snapshot, &repository, &Target::of(other)).ok()?;
            let inputs = newest.inputs.clone();
            let content = content_with_settings(content, other, &inputs);
            let (snapshot, revision) = (snapshot.clone(), snapshot.revision().clone());
            (content != newest.content).then(|| Sourced { snapshot, revision, content, inputs, notes: None })
        });
        Ok([Some(newest), older].into_iter().flatten().collect())
    }

    /// Whether the Sync certainly has applied `content` completely, and nothing else since then. The watch may show the
    /// status of the Sync late, so if a pass of this Sync is running, the result is false.
    fn has_surely_applied(&self, key: &ObjectKey, sync: &Sync, content: &str) -> bool {
        let is_in_record = |record: &tokio::sync::Mutex<Record>| {
            record.try_lock().is_ok_and(|record| record.content.as_deref() == Some(content))
        };
        has_applied(sync, content) && self.ctx.records.get(key).is_none_or(|record| is_in_record(&record))
    }

    /// All objects in the folder of `other`. If this pass holds memory, it does not wait for more memory to read the
    /// folder.
    async fn wants(&self, key: &ObjectKey, other: &Sync, sourced: Sourced) -> Result<Arc<BTreeSet<ObjectId>>, Unread> {
        let wants = &self.ctx.wants;
        if let Some(known) = wants.of(key, &sourced.content) {
            return known.map_err(Unread::Folder);
        }
        let patience = if self.holds_memory() { Patience::HasNone } else { Patience::Waits };
        let mut content = sourced.content;
        let inputs = &sourced.inputs;
        let rendered = match self.ctx.renderer.render(sourced.snapshot, other, inputs, 0, patience).await {
            Ok(rendering) => {
                content = content_with_settings(rendering.content, other, inputs);
                rendering.result
            }
            Err(error) => Err(error),
        };
        let rendered = match rendered {
            Ok(rendered) => rendered,
            Err(RenderError::NoMemoryNow) => {
                wants.put_off(self.key, key);
                return Err(Unread::NoMemory);
            }
            Err(RenderError::NotRendered { why, .. }) if why.reason == renderer::MISSING => {
                return Err(Unread::Unable(why.message));
            }
            // The API server did not answer, or the disk failed.
            Err(error @ RenderError::Capabilities(_)) => return Err(Unread::Unable(error.to_string())),
            Err(RenderError::Files(error)) if !error.is_terminal() => return Err(Unread::Unable(error.to_string())),
            Err(error) => {
                let why: Arc<str> = error.to_string().into();
                if error.is_terminal() {
                    wants.remember(key, &content, Err(why.clone()));
                }
                return Err(Unread::Folder(why));
            }
        };
        let ids = Arc::new(wanted_ids(other, &rendered.manifests.objects));
        wants.remember(key, &content, Ok(ids.clone()));
        Ok(ids)
    }

    /// Reads the folders that the last pass could not read because it held memory itself. At this point, the pass holds
    /// no memory, so it can wait for its turn. So a neighbour that uses much memory delays a prune by one turn only.
    /// The objects in these folders are remembered.
    pub(super) async fn read_what_was_put_off(&self) {
        let put_off = self.ctx.wants.take_put_off(self.key);
        if put_off.is_empty() {
            return;
        }
        let _timer = self.begin(Stage::Render);
        self.holds(None);
        for key in put_off {
            let Some(other) = self.ctx.syncs.get(&key.to_ref()) else { continue };
            let sourced = source::source(self.ctx, &other);
            if let Ok(sourced) = sourced
                && let Err(unread) = self.wants(&key, &other, sourced).await
            {
                tracing::debug!(sync = %self.key, other = %key, ?unread, "the objects in the folder of the other Sync are not known");
            }
        }
    }

    /// Whether `other` has nothing to do with this Sync: it has another Repository, another namespace, and a service
    /// account of its own.
    fn is_stranger(&self, other: &Sync, key: &ObjectKey) -> bool {
        repository_of(other) != repository_of(self.sync)
            && key.namespace != self.key.namespace
            && self.like(other, key).identity().user().is_some()
    }

    /// The first of `takers` that may write the object. A Sync that may not write the object cannot keep it from being
    /// pruned. Syncs in `unanswered` are skipped, because the API server did not answer about them before.
    async fn first_that_may_take(
        &self,
        id: &ObjectId,
        version: &str,
        takers: Vec<Arc<Sync>>,
        unanswered: &Mutex<BTreeSet<ObjectKey>>,
    ) -> Result<Option<ObjectKey>, Unasked> {
        let Cluster { discovery, reviews, .. } = &self.ctx.cluster;
        let resource = match discovery.find_in_any_version(&id.group, version, &id.kind).await {
            Ok(resource) => Some(resource),
            // No version of the object's kind is served now, so the object is not pruned either.
            Err(DiscoveryError::UnknownKind { .. }) => None,
            Err(DiscoveryError::Request { source, .. }) => return Err(Unasked::Anybody(source)),
        };
        let unanswered = || unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = None;
        for taker in takers {
            let key = ObjectKey::of(&*taker);
            let Some(resource) = &resource else { return Ok(Some(key)) };
            if unanswered().contains(&key) {
                continue;
            }
            match reviews.may_write(&self.like(&taker, &key).identity(), resource, id, true).await {
                Ok(true) => return Ok(Some(key)),
                Ok(false) => {}
                Err(error) if self.is_stranger(&taker, &key) => {
                    unanswered().insert(key);
                    failed.get_or_insert(Unasked::Stranger(error));
                }
                Err(error) => failed = Some(Unasked::Anybody(error)),
            }
        }
        failed.map_or(Ok(None), Err)
    }
}

fn version_of<'i>(id: &ObjectId, inventory: &'i Inventory) -> &'i str {
    inventory.get(id).map(|known| known.version.as_str()).unwrap_or_default()
}

/// Whether the Sync has applied `content` completely.
fn has_applied(sync: &Sync, content: &str) -> bool {
    sync.status.as_ref().and_then(|status| status.applied_content.as_deref()) == Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::inputs::InputError;

    /// What `delay` returns for a prune that has already waited as long as it may, [`WAITS_FOR`].
    fn delayed(wanted: &Wanted, since: &mut Option<Instant>) -> Option<Failure> {
        *since = since.and_then(|since| since.checked_sub(WAITS_FOR));
        wanted.delay(since)
    }

    #[test]
    fn what_cannot_be_read_delays_the_prune_and_not_for_ever() {
        let wanted = Wanted { unsaid: Some("Sync ns/other cannot be read".to_owned()), ..Wanted::default() };
        let mut since = None;
        let failure = wanted.delay(&mut since).expect("it waits");
        assert!(failure.message.contains("Sync ns/other cannot be read; after 120 s"), "{}", failure.message);
        assert!(failure.waits && since.is_some() && delayed(&wanted, &mut since).is_none(), "it waits for ever");
    }

    #[test]
    fn inputs_that_a_neighbour_of_another_namespace_cannot_read_do_not_delay_a_prune_for_ever() {
        let of = |cause: InputError, is_of_own_namespace| {
            let error = SourceError::Values(Box::new(SourceError::Cluster(Arc::new(cause))));
            match Unread::of_values(&error, is_of_own_namespace) {
                Unread::Unable(why) => (true, why),
                Unread::Inputs(why) => (false, why),
                unread => panic!("{unread:?}"),
            }
        };
        let not_read =
            |source| InputError::NotRead { what: "v1 Node a".into(), field: "spec.helm.lookup[0]".into(), source };
        let refused = |code| ApiError::Refused { code, reason: String::new(), message: "no".into() };
        let own_doing: [&dyn Fn() -> InputError; 4] = [
            &|| InputError::NoRoom { what: "ConfigMap ns/a".into(), most: 1 << 20 },
            &|| InputError::NoKind { what: "v1 Node".into(), field: "spec.helm.lookup[0]".into() },
            &|| not_read(ApiError::TooLong(1)),
            &|| not_read(refused(400)),
        ];
        for cause in own_doing {
            assert!(!of(cause(), false).0, "{}", cause());
            let (waits, why) = of(cause(), true);
            assert!(
                waits && why.ends_with("If this lasts, suspend that Sync: then the prune waits 120 s at most"),
                "{why}"
            );
        }
        // Without an answer of the API server, nothing that may have moved is deleted.
        for source in [ApiError::Transport("reset".into()), ApiError::NotReady, refused(503), refused(429)] {
            assert!(of(not_read(source.clone()), false).0 && of(not_read(source), true).0);
        }
    }

    #[test]
    fn what_the_controller_could_not_tell_is_nobodys_fault_however_long_it_takes() {
        let unasked = Some("there is no memory now to read the folder of Sync ns/other".to_owned());
        let wanted = Wanted { unasked: unasked.clone(), ..Wanted::default() };
        let mut since = None;
        let failure = wanted.delay(&mut since).expect("it waits");
        assert!(failure.waits && failure.may_pass && failure.message.contains("no memory now"), "{}", failure.message);
        assert!(!failure.message.contains("continues without"), "{}", failure.message);
        assert_eq!(since, None, "no time runs");
        // The two causes do not change each other's time limits.
        let both = Wanted { unasked, unsaid: Some("Sync ns/broken cannot be read".to_owned()), ..Wanted::default() };
        assert!(both.delay(&mut since).is_some() && since.is_some());
        assert!(delayed(&both, &mut since).is_some());
        let broken = Wanted { unasked: None, ..both };
        assert!(broken.delay(&mut since).is_none(), "its time was over meanwhile");
    }
}
