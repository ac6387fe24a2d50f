//! The remote repositories that kustomizations use, and the charts that other charts depend on: what is known of them, and their fetches.
//!
//! # Flow
//! A render needs a remote repository that is not there yet ([`Remotes::want`]). It fails, and the remote repository is fetched
//! ([`reconcile`]). After that, the reconciler of the Repository puts what was fetched into the current snapshot, which changes the
//! content of the Syncs that need it.
//!
//! # Guarantees
//! - What a tag led to when it was first fetched is used from then on. The status of the Repository records it.
//! - A remote repository that does not answer delays neither its Repository nor Syncs that do not use it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::{AllowedRemote, ObjectKey, RemoteRevision, Repository};
use flags::duration;
use gitstore::{
    Credentials, FetchError, FetchRequest, GitStore, Reference, RemoteRepositories, RemoteRepository, RemoteState,
    Revision, RevisionId, Snapshot,
};

use crate::{
    backoff,
    context::{Context, InStore as _},
    fetches,
    queue::{Queue, Tenant},
    repository::{RepositoryError, git_key, secret_data},
    status::requested_at,
};

/// The pause after the first failure. The pause doubles with each further failure, up to the Repository's interval.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// How many remote repositories of one Repository are kept. When there are more, those that no Sync needs are forgotten.
const MOST: usize = 16;

/// A remote repository that the kustomizations of a Repository use.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RemoteKey {
    repository: ObjectKey,
    remote: RemoteRepository,
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
    /// Those to fetch.
    pub(crate) queue: Arc<Queue<RemoteKey>>,
}

struct Known {
    /// What it led to when it was first fetched.
    pinned: Option<RevisionId>,
    state: RemoteState,
    failures: u32,
    /// The generation and the last request of the Repository when the last fetch began.
    tried: String,
}

impl Remotes {
    /// Reads what the status of a Repository records, if it was not read before. What is on disk is used without a fetch.
    pub(crate) fn load(&self, git: &GitStore, key: &ObjectKey, recorded: &[RemoteRevision]) {
        if self.lock().contains_key(key) {
            return;
        }
        let known = recorded.iter().take(MOST).filter_map(|recorded| {
            let pinned = recorded.revision.parse::<Revision>().ok()?.id;
            let RemoteRevision { url, chart, reference, .. } = recorded;
            let remote = RemoteRepository::new(url, chart.as_deref(), reference);
            let stored = stored(git, key, &remote, &pinned);
            let state = stored.map_or(RemoteState::Awaited, |snapshot| RemoteState::Fetched(Box::new(snapshot)));
            Some((remote, Known { pinned: Some(pinned), state, failures: 0, tried: String::new() }))
        });
        let known = known.collect();
        self.lock().entry(key.clone()).or_insert(known);
    }

    /// Forgets a Repository that was deleted.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// Notes that a render needs a remote repository, which is fetched if it was not fetched yet. Returns whether its Repository
    /// has to put it into the snapshot, or to make room for it.
    pub(crate) fn want(&self, repository: &ObjectKey, remote: &RemoteRepository) -> bool {
        let mut all = self.lock();
        let known = all.entry(repository.clone()).or_default();
        match known.get(remote).map(|known| &known.state) {
            Some(RemoteState::Fetched(_)) => return true,
            // It is tried again later.
            Some(RemoteState::Failed(_)) => return false,
            Some(RemoteState::Awaited) => {}
            None if known.len() >= MOST => return true,
            None => {
                known.insert(
                    remote.clone(),
                    Known { pinned: None, state: RemoteState::Awaited, failures: 0, tried: String::new() },
                );
            }
        }
        drop(all);
        self.queue.add(RemoteKey { repository: repository.clone(), remote: remote.clone() });
        false
    }

    /// Forgets remote repositories that are not in use, if there is no room for others. Returns which were forgotten.
    pub(crate) fn make_room(
        &self,
        repository: &ObjectKey,
        is_in_use: impl Fn(&RemoteRepository) -> bool,
    ) -> Vec<RemoteRepository> {
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

    /// What the status of a Repository records.
    pub(crate) fn record(&self, repository: &ObjectKey) -> Vec<RemoteRevision> {
        let all = self.lock();
        let known = all.get(repository).into_iter().flatten();
        let recorded = known.filter_map(|(remote, known)| {
            let ((url, chart), reference) = (remote.place(), remote.reference.clone());
            let (url, chart) = (url.to_owned(), chart.map(str::to_owned));
            Some(RemoteRevision { url, chart, reference, revision: known.pinned.as_ref()?.to_string() })
        });
        recorded.collect()
    }

    /// What to fetch for a remote repository; `None` if nothing is to be fetched any more. `tried` is noted.
    fn reference(&self, key: &RemoteKey, tried: &str) -> Option<Reference> {
        let mut all = self.lock();
        let known = all.get_mut(&key.repository)?.get_mut(&key.remote)?;
        tried.clone_into(&mut known.tried);
        match (&known.state, &known.pinned) {
            (RemoteState::Fetched(_), _) => None,
            (_, Some(pinned)) => Some(key.remote.pinned(pinned)),
            (_, None) => Some(key.remote.reference()),
        }
    }

    /// Notes how a fetch ended. Returns the number of failures in a row, and whether the state is another one than before.
    fn note(&self, key: &RemoteKey, result: Result<Snapshot, String>) -> (u32, bool) {
        let mut all = self.lock();
        let Some(known) = all.get_mut(&key.repository).and_then(|known| known.get_mut(&key.remote)) else {
            return (0, false);
        };
        match result {
            Ok(snapshot) => {
                known.pinned.get_or_insert_with(|| snapshot.revision().id.clone());
                (known.state, known.failures) = (RemoteState::Fetched(Box::new(snapshot)), 0);
                (0, true)
            }
            Err(why) => {
                known.failures = known.failures.saturating_add(1);
                let is_new = !matches!(&known.state, RemoteState::Failed(before) if *before == why);
                known.state = RemoteState::Failed(why);
                (known.failures, is_new)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, BTreeMap<RemoteRepository, Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files of a remote repository, if this revision of it is on disk.
fn stored(git: &GitStore, repository: &ObjectKey, remote: &RemoteRepository, id: &RevisionId) -> Option<Snapshot> {
    let key = git_key(repository).remote(remote);
    let revision = Revision { reference: remote.reference.clone(), id: id.clone() };
    git.snapshot(&key, &remote.url, &revision).ok()
}

/// Whatever was edited or requested, as one text.
fn occasion(repository: &Repository) -> String {
    let generation = repository.metadata.generation.unwrap_or_default();
    format!("{generation} {}", requested_at(repository).unwrap_or_default())
}

/// Fetches a remote repository.
pub(crate) async fn reconcile(ctx: Arc<Context>, key: RemoteKey) {
    let Some(repository) = ctx.repositories.get(&key.repository.to_ref()) else { return };
    let Some(reference) = ctx.remotes.reference(&key, &occasion(&repository)) else { return };
    let result = fetch(&ctx, &key, &repository, reference).await.map_err(|why| format!("{}: {why}", key.remote.root()));
    match &result {
        Ok(snapshot) => {
            tracing::info!(repository = %key.repository, remote = key.remote.root(), revision = %snapshot.revision(), "fetched");
        }
        Err(error) => tracing::warn!(repository = %key.repository, error, "a remote base could not be fetched"),
    }
    let (failures, is_new) = ctx.remotes.note(&key, result);
    if failures > 0 {
        let interval = duration(&repository.spec.interval).unwrap_or(Duration::from_secs(60)).max(FIRST_RETRY);
        ctx.remotes.queue.add_after(key.clone(), backoff::pause(failures, FIRST_RETRY, interval));
    }
    if is_new {
        ctx.queues.repositories.add(key.repository);
    }
}

/// The error says why nothing was fetched.
async fn fetch(
    ctx: &Context,
    key: &RemoteKey,
    repository: &Repository,
    reference: Reference,
) -> Result<Snapshot, String> {
    let RemoteKey { repository: of, remote } = key;
    let spec = &repository.spec;
    if spec.suspend {
        return Err("it is not fetched, because the Repository is suspended".to_owned());
    }
    let allowed = spec.remotes.iter().find(|allowed| remote.is_allowed_by(&allowed.url));
    let Some(allowed) = allowed else { return Err("spec.remotes of the Repository does not allow it".to_owned()) };
    let credentials = credentials(ctx, of, allowed, remote).await.map_err(|error| told(&error))?;
    let timeout = duration(&spec.timeout)?.min(fetches::LONGEST);
    let git_key = git_key(of).remote(remote);
    let fetch_key = ObjectKey::new(&git_key.namespace, &git_key.name);
    let running = ctx.fetches.begin_remote(&fetch_key);
    let turn = ctx.fetches.turn(&running, &gitstore::host_of(&remote.url)).await.ok_or("the fetch was stopped")?;
    let is_pinned = reference != remote.reference();
    let request = FetchRequest {
        key: git_key,
        url: remote.url.clone(),
        reference,
        credentials,
        trusted: None,
        timeout,
        cancel: running.cancel(),
    };
    let git = ctx.git.clone();
    // The turn lasts as long as the thread works, even if the caller no longer waits for the result.
    let work = move || {
        let _turn = turn;
        git.fetch(&request).map(|revision| git.snapshot(&request.key, &request.url, &revision))
    };
    let fetched = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    ctx.fetches.was_slow(&fetch_key, matches!(fetched, Err(FetchError::Timeout { .. })));
    let more = match &fetched {
        Err(FetchError::ReferenceNotFound { .. }) if !remote.is_chart() => {
            "; a branch is not used, because it could change at any time: name a tag or a commit"
        }
        Err(FetchError::OtherDigest { version, .. }) => {
            let text = format!(
                "version {version} has another digest now than when it was first fetched (status.remotes of the Repository), so it \
                 is not used: ask who publishes it, and use another version"
            );
            return Err(text);
        }
        Err(FetchError::CommitNotFound { .. }) if is_pinned => {
            "; the tag led to this commit when it was first fetched: to use another commit, name it in ?ref="
        }
        _ => "",
    };
    match fetched {
        Ok(snapshot) => snapshot.map_err(|error| error.to_string()),
        Err(error) => Err(told(&error.into()) + more),
    }
}

/// The credentials for a remote repository: those of the entry that allows it, and no others.
async fn credentials(
    ctx: &Context,
    repository: &ObjectKey,
    allowed: &AllowedRemote,
    remote: &RemoteRepository,
) -> Result<Credentials, RepositoryError> {
    let Some(secret) = &allowed.secret_ref else { return Ok(Credentials::none()) };
    let data = secret_data(ctx, repository, &secret.name, SECRET).await?;
    Ok(Credentials::from_secret(&remote.url, |name| data.get(name).map(|bytes| bytes.as_slice()))?)
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
        };
        remotes.load(&git, &repository, std::slice::from_ref(&recorded));
        assert_eq!(remotes.reference(&key("v1"), ""), Some(Reference::Commit("4f1c".repeat(10))));
        assert!(!remotes.want(&repository, &remote("v2")));
        assert_eq!(remotes.reference(&key("v2"), ""), Some(Reference::Tag("v2".into())));
        // A later status does not count.
        remotes.load(&git, &repository, &[]);
        assert_eq!(remotes.record(&repository), [recorded]);

        let (failures, is_new) = remotes.note(&key("v2"), Err("no".into()));
        assert!(failures == 1 && is_new);
        assert_eq!(remotes.note(&key("v2"), Err("no".into())), (2, false));
        assert!(!remotes.want(&repository, &remote("v2")), "it is tried again later");
        remotes.forget(&repository);
        assert_eq!((remotes.record(&repository), remotes.reference(&key("v1"), "")), (vec![], None));
    }

    #[test]
    fn remote_repositories_do_not_pile_up() {
        let (remotes, repository) = (Remotes::default(), ObjectKey::new("team", "app"));
        for number in 0..MOST {
            assert!(!remotes.want(&repository, &remote(&format!("v{number}"))));
        }
        assert!(remotes.want(&repository, &remote("new")), "there is no room");
        assert_eq!(remotes.reference(&RemoteKey { repository: repository.clone(), remote: remote("new") }, ""), None);
        let forgotten = remotes.make_room(&repository, |remote| remote.reference != "v3");
        assert_eq!(forgotten, [remote("v3")]);
        assert!(!remotes.want(&repository, &remote("new")));
    }
}
