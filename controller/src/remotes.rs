//! The remote repositories that kustomizations use, and the charts that other charts depend on: what is known of them, and their fetches.
//!
//! # Flow
//! A render needs a remote repository that is not there yet ([`Remotes::want`]). It fails, and the remote repository is fetched
//! ([`reconcile`]). After that, the reconciler of the Repository puts what was fetched into the current snapshot, which changes the
//! content of the Syncs that need it. The Repository itself is not fetched for this.
//!
//! # Guarantees
//! - What a tag led to when it was first fetched is used from then on, until somebody accepts what it leads to now. The status of the
//!   Repository records what is used before it is used.
//! - A remote repository that does not answer delays neither its Repository nor Syncs that do not use it.

mod moved;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crds::{AllowedRemote, ObjectKey, RemoteRevision, Repository};
use flags::duration;
use gitstore::{
    Credentials, FetchError, FetchRequest, GitStore, Reference, RemoteRepositories, RemoteRepository, RemoteState,
    RepositoryKey, Revision, RevisionId, Snapshot,
};

#[cfg(test)]
pub(crate) use self::moved::tests::two_commits;
pub(crate) use self::moved::{in_short, tell};
use crate::{
    admission::Lease,
    backoff,
    context::{Context, InStore as _},
    fetches::{self, Fetch},
    queue::{Queue, Tenant},
    render,
    repository::{RepositoryError, git_key, secret_data},
    status::requested_at,
};

/// The pause after the first failure. The pause doubles with each further failure, up to the Repository's interval.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// How many remote repositories of one Repository are kept. When another one is wanted, those that no Sync needs are forgotten.
const MOST: usize = 2 * render::REMOTES;

/// A remote repository that the kustomizations of a Repository use.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RemoteKey {
    repository: ObjectKey,
    remote: RemoteRepository,
}

impl RemoteKey {
    /// The name of its fetches.
    fn fetch(&self) -> ObjectKey {
        let RepositoryKey { namespace, name } = self.on_disk();
        ObjectKey { namespace, name }
    }

    fn on_disk(&self) -> RepositoryKey {
        git_key(&self.repository).remote(&self.remote)
    }
}

impl Tenant for RemoteKey {
    fn tenant(&self) -> &str {
        &self.repository.namespace
    }
}

/// What is known of the remote repositories of all Repositories.
#[derive(Default)]
pub struct Remotes {
    known: Mutex<HashMap<ObjectKey, BTreeMap<RemoteRepository, Known>>>,
    /// The Repositories that want another one and have no room for it.
    without_room: Mutex<HashSet<ObjectKey>>,
    /// Those to fetch.
    pub(crate) queue: Arc<Queue<RemoteKey>>,
}

struct Known {
    /// What is used: what it led to when it was first fetched, or what somebody accepted since then.
    pinned: Option<RevisionId>,
    /// What was fetched and will be used as soon as the status of the Repository records it. If it were used before, and the
    /// controller ended, it would be forgotten, and another commit could be used later.
    arrived: Option<Box<Snapshot>>,
    state: RemoteState,
    failures: u32,
    /// The generation and the last request of the Repository when the last fetch began.
    tried: String,
    /// What it leads to now, if that is something else.
    moved: Option<RevisionId>,
    /// That of `moved` which somebody accepted, until it is used.
    accepted: Option<RevisionId>,
    /// When its server was last asked what it leads to.
    asked: Option<Instant>,
    is_to_ask: bool,
}

/// What is to be done for a remote repository.
#[derive(Debug, Eq, PartialEq)]
enum Task {
    /// To fetch this.
    Fetch(Reference),
    /// To ask what it leads to now.
    Ask,
}

impl Remotes {
    /// Reads what the status of a Repository records, if it was not read before. What is on disk is used without a fetch.
    pub(crate) fn load(&self, git: &GitStore, key: &ObjectKey, recorded: &[RemoteRevision]) {
        if self.lock().contains_key(key) {
            return;
        }
        let known = recorded.iter().take(MOST).filter_map(|recorded| {
            let id = |text: &str| Some(text.parse::<Revision>().ok()?.id);
            let RemoteRevision { url, chart, reference, revision, moved } = recorded;
            let (pinned, moved) = (id(revision)?, moved.as_deref().and_then(id));
            let remote = RemoteRepository::new(url, chart.as_deref(), reference);
            let stored = stored(git, key, &remote, &pinned);
            let state = stored.map_or(RemoteState::Awaited, |snapshot| RemoteState::Fetched(Box::new(snapshot)));
            Some((remote, Known { pinned: Some(pinned), state, moved, ..Known::new() }))
        });
        let known = known.collect();
        self.lock().entry(key.clone()).or_insert(known);
    }

    fn without_room(&self) -> MutexGuard<'_, HashSet<ObjectKey>> {
        self.without_room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a Repository that was deleted.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.without_room().remove(key);
        self.lock().remove(key);
    }

    /// Notes that a render needs a remote repository, which is fetched if it was not fetched yet. Returns whether its Repository
    /// has to put it into the snapshot, or can make room for it.
    pub(crate) fn want(
        &self,
        repository: &ObjectKey,
        remote: &RemoteRepository,
        is_in_use: impl Fn(&RemoteRepository) -> bool,
    ) -> bool {
        let mut all = self.lock();
        let known = all.entry(repository.clone()).or_default();
        match known.get(remote) {
            Some(Known { arrived: Some(_), .. } | Known { state: RemoteState::Fetched(_), .. }) => return true,
            // It is tried again later.
            Some(Known { state: RemoteState::Failed(_), .. }) => return false,
            Some(Known { state: RemoteState::Awaited, .. }) => {}
            // Otherwise each try would fetch the Repository, although nothing can change.
            None if known.len() >= MOST => {
                self.without_room().insert(repository.clone());
                return known.keys().any(|known| !is_in_use(known));
            }
            None => {
                known.insert(remote.clone(), Known::new());
            }
        }
        drop(all);
        self.queue.add(RemoteKey { repository: repository.clone(), remote: remote.clone() });
        false
    }

    /// Forgets remote repositories that are not in use, if another one is wanted and has no room. Returns which were forgotten.
    /// Nothing is forgotten before that: after a restart, it is known only step by step what is in use.
    pub(crate) fn make_room(
        &self,
        repository: &ObjectKey,
        is_in_use: impl Fn(&RemoteRepository) -> bool,
    ) -> Vec<RemoteRepository> {
        if !self.without_room().remove(repository) {
            return Vec::new();
        }
        let mut all = self.lock();
        let Some(known) = all.get_mut(repository).filter(|known| known.len() >= MOST) else { return Vec::new() };
        let unused: Vec<_> = known.keys().filter(|remote| !is_in_use(remote)).cloned().collect();
        known.retain(|remote, _| !unused.contains(remote));
        unused
    }

    /// Fetches again what cannot be read from the disk, and at once what failed before the Repository was edited, or before
    /// somebody requested a fetch.
    pub(crate) fn fetch_again(&self, repository: &Repository) {
        let (key, now) = (ObjectKey::of(repository), occasion(repository));
        let mut all = self.lock();
        for (remote, known) in all.get_mut(&key).into_iter().flatten() {
            let is_due = match &known.state {
                _ if known.arrived.is_some() => false,
                RemoteState::Fetched(snapshot) => snapshot.is_damaged(),
                RemoteState::Failed(_) => known.tried != now,
                RemoteState::Awaited => false,
            };
            if is_due && matches!(known.state, RemoteState::Fetched(_)) {
                known.state = RemoteState::Awaited;
            }
            if is_due {
                self.queue.add(RemoteKey { repository: key.clone(), remote: remote.clone() });
            }
        }
    }

    /// What the kustomizations of a Repository may use now. `allowed` is its `spec.remotes`.
    pub(crate) fn of(&self, repository: &ObjectKey, allowed: &[AllowedRemote]) -> Arc<RemoteRepositories> {
        let allowed = allowed.iter().map(|allowed| allowed.url.clone()).collect();
        let all = self.lock();
        let known = all.get(repository).into_iter().flatten();
        let known = known.map(|(remote, known)| (remote.clone(), known.state.clone()));
        Arc::new(RemoteRepositories::new(allowed, known, MOST))
    }

    /// What the status of a Repository is to record.
    pub(crate) fn record(&self, repository: &ObjectKey) -> Vec<RemoteRevision> {
        let all = self.lock();
        let known = all.get(repository).into_iter().flatten();
        known.filter_map(|(remote, known)| known.record(remote)).collect()
    }

    /// Notes what the status of a Repository records now. Returns whether other files may be used than before.
    pub(crate) fn was_recorded(&self, repository: &ObjectKey, recorded: &[RemoteRevision]) -> bool {
        let mut is_new = false;
        for (remote, known) in self.lock().get_mut(repository).into_iter().flatten() {
            if known.record(remote).is_some_and(|record| recorded.contains(&record)) {
                is_new |= known.use_arrived();
            }
        }
        is_new
    }

    /// What is to be done for a remote repository; `None` if it is nothing. `tried` is noted with a fetch. What is on disk counts as
    /// what it led to, if nothing else is known.
    fn task(&self, key: &RemoteKey, tried: &str, on_disk: Option<RevisionId>) -> Option<Task> {
        let mut all = self.lock();
        let known = all.get_mut(&key.repository)?.get_mut(&key.remote)?;
        if known.arrived.is_some() {
            return None;
        }
        known.pinned = known.pinned.take().or(on_disk);
        if std::mem::take(&mut known.is_to_ask) && known.accepted.is_none() {
            return Some(Task::Ask);
        }
        let reference = match (&known.accepted, &known.state, &known.pinned) {
            (Some(accepted), ..) => key.remote.pinned(accepted),
            (None, RemoteState::Fetched(_), _) => return None,
            (None, _, Some(pinned)) => key.remote.pinned(pinned),
            (None, _, None) => key.remote.reference(),
        };
        tried.clone_into(&mut known.tried);
        Some(Task::Fetch(reference))
    }

    /// Notes how a fetch ended. Returns the number of failures in a row, and whether the Repository has something to do now; `None` if
    /// it was forgotten in the meantime.
    fn note(&self, key: &RemoteKey, result: Result<Snapshot, String>) -> Option<(u32, bool)> {
        let mut all = self.lock();
        let known = all.get_mut(&key.repository)?.get_mut(&key.remote)?;
        Some(match result {
            Ok(snapshot) => {
                if known.pinned.is_none() {
                    known.asked = Some(Instant::now());
                }
                (known.arrived, known.failures) = (Some(Box::new(snapshot)), 0);
                (0, true)
            }
            Err(why) => {
                known.failures = known.failures.saturating_add(1);
                let is_new = match &known.state {
                    // What somebody accepted does not come. What was used before is still used.
                    RemoteState::Fetched(_) => false,
                    RemoteState::Failed(before) if *before == why => false,
                    _ => {
                        known.state = RemoteState::Failed(why);
                        true
                    }
                };
                (known.failures, is_new)
            }
        })
    }

    /// Whether it was not forgotten yet.
    fn knows(&self, key: &RemoteKey) -> bool {
        self.lock().get(&key.repository).is_some_and(|known| known.contains_key(&key.remote))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, BTreeMap<RemoteRepository, Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What is known before the first fetch.
    fn new() -> Self {
        let (pinned, arrived, state, failures) = (None, None, RemoteState::Awaited, 0);
        let (tried, moved, accepted, asked, is_to_ask) = (String::new(), None, None, None, false);
        Self { pinned, arrived, state, failures, tried, moved, accepted, asked, is_to_ask }
    }

    /// What will be used as soon as it is recorded.
    fn used(&self) -> Option<&RevisionId> {
        self.arrived.as_ref().map(|snapshot| &snapshot.revision().id).or(self.pinned.as_ref())
    }

    /// From now on, what was fetched is used. Returns whether that is new.
    fn use_arrived(&mut self) -> bool {
        let Some(snapshot) = self.arrived.take() else { return false };
        let id = snapshot.revision().id.clone();
        self.moved = self.moved.take().filter(|moved| *moved != id);
        (self.pinned, self.accepted, self.state) = (Some(id), None, RemoteState::Fetched(snapshot));
        true
    }

    /// What the status of the Repository is to record; `None` before the first fetch.
    fn record(&self, remote: &RemoteRepository) -> Option<RemoteRevision> {
        let ((url, chart), reference) = (remote.place(), remote.reference.clone());
        let (url, chart) = (url.to_owned(), chart.map(str::to_owned));
        let used = self.used()?;
        let moved = self.moved.as_ref().filter(|moved| *moved != used).map(ToString::to_string);
        Some(RemoteRevision { url, chart, reference, revision: used.to_string(), moved })
    }
}

/// Why nothing was fetched.
enum NotFetched {
    /// The Repository was edited or deleted, or nothing uses this any more.
    Cancelled,
    /// For this reason.
    Failed(String),
}

impl From<String> for NotFetched {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// The files of a remote repository, if this revision of it is on disk.
fn stored(git: &GitStore, repository: &ObjectKey, remote: &RemoteRepository, id: &RevisionId) -> Option<Snapshot> {
    let key = git_key(repository).remote(remote);
    let revision = Revision { reference: remote.reference.clone(), id: id.clone() };
    git.snapshot(&key, &remote.url, &revision).ok()
}

/// Whatever was edited or requested, as one text.
pub(crate) fn occasion(repository: &Repository) -> String {
    let generation = repository.metadata.generation.unwrap_or_default();
    let uid = repository.metadata.uid.as_deref().unwrap_or_default();
    format!("{uid} {generation} {}", requested_at(repository).unwrap_or_default())
}

/// Fetches a remote repository, or asks what it leads to now.
pub(crate) async fn reconcile(ctx: Arc<Context>, key: RemoteKey) {
    // The fetch is noted before the spec is read, so that a later edit cancels this fetch.
    let running = ctx.fetches.begin_remote(&key.fetch());
    let Some(repository) = ctx.repositories.get(&key.repository.to_ref()) else { return };
    let on_disk = {
        let (git, on_disk, url) = (ctx.git.clone(), key.on_disk(), key.remote.url.clone());
        tokio::task::spawn_blocking(move || git.last(&on_disk, &url)).await.ok().flatten().map(|revision| revision.id)
    };
    let reference = match ctx.remotes.task(&key, &occasion(&repository), on_disk) {
        None => return,
        Some(Task::Ask) => return moved::ask(&ctx, key, &repository, &running).await,
        Some(Task::Fetch(reference)) => reference,
    };
    let result = match fetch(&ctx, &key, &repository, reference, &running).await {
        Ok(snapshot) => Ok(snapshot),
        Err(NotFetched::Failed(why)) => Err(format!("{}: {why}", key.remote.root())),
        Err(NotFetched::Cancelled) if ctx.remotes.knows(&key) => {
            ctx.remotes.queue.add(key);
            return;
        }
        Err(NotFetched::Cancelled) => return forget(&ctx, &key.repository, vec![key.remote]).await,
    };
    match &result {
        Ok(snapshot) => {
            tracing::info!(repository = %key.repository, remote = key.remote.root(), revision = %snapshot.revision(), "fetched");
        }
        Err(error) => tracing::warn!(repository = %key.repository, error, "a remote base could not be fetched"),
    }
    let Some((failures, is_new)) = ctx.remotes.note(&key, result) else {
        return forget(&ctx, &key.repository, vec![key.remote]).await;
    };
    if failures > 0 {
        let interval = duration(&repository.spec.interval).unwrap_or(Duration::from_secs(60)).max(FIRST_RETRY);
        ctx.remotes.queue.add_after(key.clone(), backoff::pause(failures, FIRST_RETRY, interval));
    }
    if is_new {
        ctx.queues.repositories.add(key.repository);
    }
}

/// Removes what is on disk of remote repositories that no Repository records: the Repository was deleted while there was no leader,
/// or a fetch had just ended then.
pub(crate) async fn remove_unrecorded(ctx: &Context) {
    let (git, repositories) = (ctx.git.clone(), ctx.repositories.state());
    let remove = move || {
        for key in unrecorded(git.remotes(), repositories.iter().map(AsRef::as_ref)) {
            git.remove(&key);
        }
    };
    if let Err(error) = tokio::task::spawn_blocking(remove).await {
        tracing::error!(%error, "the files of remote bases that are not used any more could not be removed");
    }
}

/// Those that no Repository records. If a status records nothing at all, it may have been lost. Then what is on disk tells what tags
/// led to.
fn unrecorded<'r>(
    on_disk: Vec<RepositoryKey>,
    repositories: impl IntoIterator<Item = &'r Repository>,
) -> Vec<RepositoryKey> {
    let (mut recorded, mut lost) = (HashSet::new(), HashSet::new());
    for repository in repositories {
        let key = git_key(&ObjectKey::of(repository));
        match &repository.status {
            Some(status) if status.revision.is_some() => recorded.extend(
                status
                    .remotes
                    .iter()
                    .map(|one| key.remote(&RemoteRepository::new(&one.url, one.chart.as_deref(), &one.reference))),
            ),
            _ => drop(lost.insert((key.namespace, key.name))),
        }
    }
    let is_lost = |key: &RepositoryKey| lost.contains(&(key.namespace.clone(), key.of_repository().to_owned()));
    on_disk.into_iter().filter(|key| !recorded.contains(key) && !is_lost(key)).collect()
}

/// Forgets what is known of the fetches of remote repositories that are not used any more, and removes their files.
pub(crate) async fn forget(ctx: &Context, repository: &ObjectKey, remotes: Vec<RemoteRepository>) {
    let keys: Vec<_> = remotes.into_iter().map(|remote| RemoteKey { repository: repository.clone(), remote }).collect();
    for key in &keys {
        ctx.remotes.queue.forget(key);
        ctx.fetches.forget(&key.fetch());
    }
    let git = ctx.git.clone();
    let remove = move || keys.iter().for_each(|key| git.remove(&key.on_disk()));
    if let Err(error) = tokio::task::spawn_blocking(remove).await {
        tracing::error!(%repository, %error, "the files of remote bases could not be removed");
    }
}

async fn fetch(
    ctx: &Context,
    key: &RemoteKey,
    repository: &Repository,
    reference: Reference,
    running: &Fetch,
) -> Result<Snapshot, NotFetched> {
    let remote = &key.remote;
    let is_pinned = reference != remote.reference();
    let (request, turn) = request(ctx, key, repository, reference, running).await?;
    let git = ctx.git.clone();
    // The turn lasts as long as the thread works, even if the caller no longer waits for the result.
    let work = move || {
        let _turn = turn;
        git.fetch(&request).map(|revision| git.snapshot(&request.key, &request.url, &revision))
    };
    let fetched = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    ctx.fetches.was_slow(&key.fetch(), matches!(fetched, Err(FetchError::Timeout { .. })));
    let more = match &fetched {
        Err(FetchError::ReferenceNotFound { .. }) if !remote.is_chart() => {
            "; a branch is not used, because it could change at any time: name a tag or a commit"
        }
        Err(FetchError::OtherDigest { version, .. }) => {
            let text = format!(
                "version {version} has another digest now than when it was first fetched (status.remotes of the Repository), so it \
                 is not used: ask who publishes it, and use another version"
            );
            return Err(text.into());
        }
        Err(FetchError::CommitNotFound { .. }) if is_pinned => {
            "; the tag led to this commit when it was first fetched: to use another commit, name it in ?ref="
        }
        _ => "",
    };
    match fetched {
        Ok(snapshot) => Ok(snapshot.map_err(|error| error.to_string())?),
        Err(FetchError::Cancelled) => Err(NotFetched::Cancelled),
        Err(error) => Err((told(&error.into()) + more).into()),
    }
}

/// Waits for the turn to fetch, and makes the request.
async fn request(
    ctx: &Context,
    key: &RemoteKey,
    repository: &Repository,
    reference: Reference,
    running: &Fetch,
) -> Result<(FetchRequest, Lease), NotFetched> {
    let RemoteKey { repository: of, remote } = key;
    let spec = &repository.spec;
    if spec.suspend {
        return Err("it is not fetched, because the Repository is suspended".to_owned().into());
    }
    let allowed = spec.remotes.iter().find(|allowed| remote.is_allowed_by(&allowed.url));
    let allowed = allowed.ok_or_else(|| "spec.remotes of the Repository does not allow it".to_owned())?;
    let timeout = duration(&spec.timeout)?.min(fetches::LONGEST);
    let host = gitstore::host_of(&remote.url);
    let turn = ctx.fetches.turn(running, &host).await.ok_or(NotFetched::Cancelled)?;
    // The Secret may have changed while the fetch waited.
    let credentials = credentials(ctx, of, allowed, remote).await.map_err(|error| told(&error))?;
    let request = FetchRequest {
        key: key.on_disk(),
        url: remote.url.clone(),
        reference,
        credentials,
        fetched: Vec::new(),
        trusted: None,
        timeout,
        cancel: running.cancel(),
    };
    Ok((request, turn))
}

/// The credentials for a remote repository: those of the entry that allows it, and no others. They are sent only to what this entry
/// allows.
async fn credentials(
    ctx: &Context,
    repository: &ObjectKey,
    allowed: &AllowedRemote,
    remote: &RemoteRepository,
) -> Result<Credentials, RepositoryError> {
    let Some(secret) = &allowed.secret_ref else { return Ok(Credentials::none()) };
    let data = secret_data(ctx, repository, &secret.name, SECRET).await?;
    let credentials = Credentials::from_secret(&remote.url, |name| data.get(name).map(|bytes| bytes.as_slice()))?;
    Ok(credentials.only_for(&allowed.url))
}

/// The field with the name of the Secret.
const SECRET: &str = "secretRef in spec.remotes";

/// The text of an error that is about a remote repository, not about the Repository itself.
fn told(error: &RepositoryError) -> String {
    let text = error.to_string();
    text.replace("spec.secretRef", SECRET).replace("check spec.url", "check its URL").replace(" (spec.ref.commit)", "")
}

#[cfg(test)]
mod tests {
    use gitstore::StoreOptions;

    use super::*;

    fn remote(reference: &str) -> RemoteRepository {
        RemoteRepository { url: "https://git.example/app".into(), reference: reference.into() }
    }

    #[test]
    fn a_tag_stays_at_the_commit_that_the_status_records() {
        let folder = tempfile::tempdir().unwrap();
        let git = GitStore::new(folder.path().join("store"), StoreOptions::default()).unwrap();
        let (remotes, repository) = (Remotes::default(), ObjectKey::new("team", "app"));
        let key = |reference| RemoteKey { repository: repository.clone(), remote: remote(reference) };
        let recorded = RemoteRevision {
            url: remote("v1").url,
            chart: None,
            reference: "v1".into(),
            revision: format!("sha1:{}", "4f1c".repeat(10)),
            moved: None,
        };
        remotes.load(&git, &repository, std::slice::from_ref(&recorded));
        let task = |reference| remotes.task(&key(reference), "", None);
        assert_eq!(task("v1"), Some(Task::Fetch(Reference::Commit("4f1c".repeat(10)))));
        assert!(!remotes.want(&repository, &remote("v2"), |_| true));
        assert_eq!(task("v2"), Some(Task::Fetch(Reference::Tag("v2".into()))));
        // A later status does not count.
        remotes.load(&git, &repository, &[]);
        assert_eq!(remotes.record(&repository), [recorded]);

        assert_eq!(remotes.note(&key("v2"), Err("no".into())), Some((1, true)));
        assert_eq!(remotes.note(&key("v2"), Err("no".into())), Some((2, false)));
        assert!(!remotes.want(&repository, &remote("v2"), |_| true), "it is tried again later");
        remotes.forget(&repository);
        assert!(!remotes.knows(&key("v2")) && remotes.note(&key("v2"), Err("no".into())).is_none());
        assert_eq!((remotes.record(&repository), task("v1")), (vec![], None));
    }

    #[test]
    fn what_is_on_disk_counts() {
        let (remotes, repository) = (Remotes::default(), ObjectKey::new("team", "app"));
        let key = RemoteKey { repository: repository.clone(), remote: remote("v1") };
        remotes.want(&repository, &key.remote, |_| true);
        for on_disk in ["4f1c", "2222"] {
            let task = remotes.task(&key, "", Some(RevisionId::Commit(on_disk.repeat(10))));
            assert_eq!(task, Some(Task::Fetch(Reference::Commit("4f1c".repeat(10)))));
        }
    }

    #[test]
    fn what_no_repository_records_is_removed_from_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let git = GitStore::new(folder.path().join("store"), StoreOptions::default()).unwrap();
        let repository = |name: &str, status: serde_json::Value| -> Repository {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository",
                "metadata": {"name": name, "namespace": "team"},
                "spec": {"url": "https://git.example/own"}, "status": status,
            }))
            .unwrap()
        };
        let revision = format!("sha1:{}", "4f1c".repeat(10));
        let known = serde_json::json!({"revision": format!("main@{revision}"), "remotes": [
            {"url": remote("v1").url, "ref": "v1", "revision": revision},
        ]});
        let repositories = [repository("app", known), repository("lost", serde_json::json!({}))];
        let key = |name: &str| RepositoryKey { namespace: "team".into(), name: name.into() };
        let of = |name: &str, reference: &str| key(name).remote(&remote(reference));
        let (kept, lost) = (of("app", "v1"), of("lost", "v1"));
        let gone = [of("app", "v2"), of("gone", "v1")];
        for key in [&kept, &lost, &key("app"), &gone[0], &gone[1]] {
            // The remote repositories of a Repository are together in a folder.
            let name = key.name.replace('@', "@/");
            std::fs::create_dir_all(folder.path().join("store").join(&key.namespace).join(name)).unwrap();
        }
        let found = unrecorded(git.remotes(), &repositories);
        assert_eq!(HashSet::from_iter(found.clone()), HashSet::from(gone));
        for key in &found {
            git.remove(key);
        }
        assert_eq!(HashSet::from_iter(git.remotes()), HashSet::from([kept, lost]));
    }

    #[test]
    fn remote_repositories_do_not_pile_up() {
        let (remotes, repository) = (Remotes::default(), ObjectKey::new("team", "app"));
        for number in 0..MOST {
            assert!(!remotes.want(&repository, &remote(&format!("v{number}")), |_| true));
        }
        let not = |unused: &'static str| move |remote: &RemoteRepository| remote.reference != unused;
        assert_eq!(remotes.make_room(&repository, |_| false), [], "nobody wants another one");
        assert!(!remotes.want(&repository, &remote("new"), not("none")), "there is no room, and none can be made");
        assert!(remotes.want(&repository, &remote("new"), not("v3")), "room can be made");
        assert_eq!(remotes.task(&RemoteKey { repository: repository.clone(), remote: remote("new") }, "", None), None);
        let forgotten = remotes.make_room(&repository, not("v3"));
        assert_eq!(forgotten, [remote("v3")]);
        assert!(!remotes.want(&repository, &remote("new"), not("none")));
    }
}
