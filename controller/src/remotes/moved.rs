//! Tags of remote repositories that were moved since they were first fetched, and versions of charts that have another content now.
//!
//! # Flow
//! After a fetch of the Repository, the servers of its remote repositories are asked what they lead to now ([`Remotes::ask`]). What
//! is different is told ([`tell`]) and recorded in the status, but not used. It is fetched when an annotation of the Repository names
//! it ([`Remotes::accept`]).

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use crds::{ObjectKey, RemoteRevision, Repository, names::ACCEPT_MOVED};
use gitstore::{FetchError, Reference, RemoteRepository, RemoteState, RevisionId};

use super::{NotFetched, RemoteKey, Remotes, request};
use crate::{context::Context, events::EventType, fetches::Fetch, status::reference};

/// The shortest time between two questions what a remote repository leads to, unless somebody requests a fetch.
const ASKED_AGAIN: Duration = Duration::from_secs(600);

/// How many values of the annotation count: more than a Repository can have remote repositories.
const MOST_ACCEPTED: usize = 64;

impl Remotes {
    /// Asks the servers what tags and versions lead to now. Each is asked only from time to time, unless a fetch `is_requested`.
    pub(crate) fn ask(&self, repository: &ObjectKey, is_requested: bool) {
        let mut all = self.lock();
        for (remote, known) in all.get_mut(repository).into_iter().flatten() {
            let can_move = !matches!(remote.reference(), Reference::Commit(_));
            let is_pinned = known.pinned.is_some();
            let is_due = is_requested || known.asked.is_none_or(|asked| asked.elapsed() >= ASKED_AGAIN);
            if can_move && is_pinned && is_due {
                (known.asked, known.is_to_ask) = (Some(Instant::now()), true);
                self.queue.add(RemoteKey { repository: repository.clone(), remote: remote.clone() });
            }
        }
    }

    /// Notes what a remote repository leads to now. Returns whether there is something to tell.
    fn leads_to(&self, key: &RemoteKey, id: RevisionId) -> bool {
        let mut all = self.lock();
        let Some(known) = all.get_mut(&key.repository).and_then(|known| known.get_mut(&key.remote)) else {
            return false;
        };
        let moved = Some(id).filter(|id| known.used() != Some(id));
        std::mem::replace(&mut known.moved, moved.clone()) != moved
    }

    /// Whether a remote repository is on disk.
    fn is_there(&self, key: &RemoteKey) -> bool {
        let all = self.lock();
        let known = all.get(&key.repository).and_then(|known| known.get(&key.remote));
        known.is_none_or(|known| known.arrived.is_some() || matches!(known.state, RemoteState::Fetched(_)))
    }

    /// Fetches what remote repositories lead to now, if that is among the `accepted` values, which are separated by commas. What is
    /// not among them any more, and has not arrived, is not fetched any more.
    pub(crate) fn accept(&self, repository: &ObjectKey, accepted: &str) {
        let values = accepted.split(',').map(str::trim).filter(|value| !value.is_empty());
        // The set is made before the lock is taken, because whoever writes the annotation chooses its length.
        let accepted: HashSet<&str> = values.take(MOST_ACCEPTED).collect();
        let is_accepted = |moved: &RevisionId| accepted.contains(moved.to_string().as_str());
        let mut all = self.lock();
        for (remote, known) in all.get_mut(repository).into_iter().flatten() {
            if known.arrived.is_some() {
                continue;
            }
            known.accepted = known.accepted.take().filter(is_accepted);
            if let Some(moved) = known.moved.clone().filter(is_accepted)
                && known.accepted.as_ref() != Some(&moved)
            {
                known.accepted = Some(moved);
                self.queue.add(RemoteKey { repository: repository.clone(), remote: remote.clone() });
            }
        }
    }
}

/// Asks the server of a remote repository what it leads to now. If it does not say, it is asked again another time.
pub(super) async fn ask(ctx: &Arc<Context>, key: RemoteKey, repository: &Repository, running: &Fetch) {
    let found = async {
        let (request, turn) = request(ctx, &key, repository, key.remote.reference(), running).await?;
        let git = ctx.git.clone();
        let work = move || {
            let _turn = turn;
            git.ask(&request)
        };
        let found = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
        ctx.fetches.was_slow(&key.fetch(), matches!(found, Err(FetchError::Timeout { .. })));
        found.map_err(|error| NotFetched::Failed(error.to_string()))
    };
    let found = found.await;
    // It may be due to be fetched, too.
    if !ctx.remotes.is_there(&key) {
        ctx.remotes.queue.add(key.clone());
    }
    match found {
        Ok(revision) => {
            if ctx.remotes.leads_to(&key, revision.id) {
                ctx.queues.repositories.add(key.repository);
            }
        }
        Err(NotFetched::Failed(why)) => {
            tracing::debug!(repository = %key.repository, remote = key.remote.root(), why, "it is not known whether it was moved");
        }
        Err(NotFetched::Cancelled) => {}
    }
}

/// Publishes an event for each remote repository that leads to something new, if the status did not record this `before`.
pub(crate) fn tell(
    ctx: &Context,
    key: &ObjectKey,
    repository: &Repository,
    (before, now): (&[RemoteRevision], &[RemoteRevision]),
) {
    for one in now.iter().filter(|one| !before.contains(one)) {
        if let Some(text) = text(key, one) {
            tracing::warn!(repository = %key, "{text}");
            ctx.events.publish(&reference(repository), EventType::Warning, "RemoteMoved", text);
        }
    }
}

/// What the condition of a Repository says of remote repositories that lead to something new.
pub(crate) fn in_short(now: &[RemoteRevision]) -> Option<String> {
    let moved: Vec<_> = now.iter().filter(|one| one.moved.is_some()).map(root).collect();
    let (first, more) = (moved.first()?, moved.len() - 1);
    let more = if more > 0 { format!(", and {more} more, lead") } else { " leads".to_owned() };
    Some(format!("{first}{more} to something else now than what is used: see `moved` in status.remotes"))
}

fn root(one: &RemoteRevision) -> String {
    RemoteRepository::new(&one.url, one.chart.as_deref(), &one.reference).root()
}

fn text(key: &ObjectKey, one: &RemoteRevision) -> Option<String> {
    let moved = one.moved.as_ref()?;
    let (root, ObjectKey { namespace, name }) = (root(one), key);
    Some(format!(
        "{root} leads to {moved} now, and {} is still used, as when it was first fetched: name another tag or version; or, if you trust \
         what is there now, run `kubectl annotate repository -n {namespace} {name} --overwrite {ACCEPT_MOVED}={moved}`",
        one.revision
    ))
}

#[cfg(test)]
pub(super) mod tests {
    use std::{path::Path, process::Command};

    use crds::AllowedRemote;
    use gitstore::{Cancel, Credentials, FetchRequest, GitStore, RepositoryKey, Snapshot, StoreOptions};

    use super::{super::Task, *};

    fn git(folder: &Path, arguments: &[&str]) {
        let own = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
        let status = Command::new("git").args(own).args(arguments).current_dir(folder).status().unwrap();
        assert!(status.success(), "git {arguments:?}");
    }

    /// Two commits, one after the other.
    pub(crate) fn two_commits(folder: &Path) -> [Snapshot; 2] {
        let options = StoreOptions { allow_file_urls: true, ..StoreOptions::default() };
        let store = GitStore::new(folder.join("store"), options).unwrap();
        let work = folder.join("work");
        std::fs::create_dir(&work).unwrap();
        git(&work, &["init", "--quiet", "--initial-branch=main"]);
        ["one", "two"].map(|text| {
            std::fs::write(work.join("a.yaml"), text).unwrap();
            git(&work, &["add", "--all"]);
            git(&work, &["commit", "--quiet", "--message", text]);
            let request = FetchRequest {
                key: RepositoryKey { namespace: "team".into(), name: "app".into() },
                url: format!("file://{}", work.display()),
                reference: Reference::Branch("main".into()),
                credentials: Credentials::none(),
                fetched: Vec::new(),
                trusted: None,
                timeout: Duration::from_secs(60),
                cancel: Cancel::new(),
            };
            let revision = store.fetch(&request).unwrap();
            store.snapshot(&request.key, &request.url, &revision).unwrap()
        })
    }

    #[test]
    fn what_is_fetched_or_accepted_is_used_when_the_status_records_it() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = two_commits(folder.path());
        let (first, second) = (one.revision().id.clone(), two.revision().id.clone());
        let (remotes, repository) = (Remotes::default(), ObjectKey::new("team", "app"));
        let remote = RemoteRepository::new("https://git.example/app", None, "v1");
        let key = RemoteKey { repository: repository.clone(), remote: remote.clone() };
        let allowed = [AllowedRemote { url: remote.url.clone(), secret_ref: None }];
        let used = || match remotes.of(&repository, &allowed).state_of(&remote).unwrap() {
            RemoteState::Fetched(snapshot) => Some(snapshot.revision().id.clone()),
            RemoteState::Awaited => None,
            RemoteState::Failed(why) => panic!("{why}"),
        };
        let task = || remotes.task(&key, "", None);
        let recorded = || {
            let mut all = remotes.record(&repository);
            all.pop().map(|one| (one.revision, one.moved))
        };

        assert!(!remotes.want(&repository, &remote, |_| true));
        assert_eq!(task(), Some(Task::Fetch(Reference::Tag("v1".into()))));
        assert_eq!((remotes.note(&key, Ok(one)), task(), used()), (Some((0, true)), None, None));
        assert!(remotes.want(&repository, &remote, |_| true), "the Repository has to record it");
        assert!(!remotes.was_recorded(&repository, &[]) && used().is_none());
        assert!(remotes.was_recorded(&repository, &remotes.record(&repository)));
        assert_eq!(used().as_ref(), Some(&first));
        assert!(!remotes.was_recorded(&repository, &remotes.record(&repository)), "nothing is new");

        // Its server said a moment ago what it leads to. Only a request asks again.
        remotes.ask(&repository, false);
        assert_eq!(task(), None);
        remotes.ask(&repository, true);
        assert_eq!((task(), task()), (Some(Task::Ask), None));
        assert!(!remotes.leads_to(&key, first.clone()));
        assert!(remotes.leads_to(&key, second.clone()) && !remotes.leads_to(&key, second.clone()));
        assert_eq!(recorded(), Some((first.to_string(), Some(second.to_string()))));
        let told = text(&repository, &remotes.record(&repository)[0]).unwrap();
        assert!(
            told.contains(&format!("{} leads to {second} now, and {first} is still used", remote.root())),
            "{told}"
        );
        let condition = in_short(&remotes.record(&repository)).unwrap();
        assert!(condition.starts_with("https://git.example/app@v1 leads to something else now"), "{condition}");

        // Somebody accepts another commit, and then this one.
        remotes.accept(&repository, &first.to_string());
        assert_eq!(task(), None);
        remotes.accept(&repository, &format!("sha1:0000, {second}"));
        assert_eq!(task(), Some(Task::Fetch(Reference::Commit(second.hash().to_owned()))));
        assert_eq!((remotes.note(&key, Err("no".into())), used().as_ref()), (Some((1, false)), Some(&first)));
        assert_eq!((remotes.note(&key, Ok(two)), used().as_ref()), (Some((0, true)), Some(&first)));
        assert_eq!(recorded(), Some((second.to_string(), None)));
        assert!(remotes.was_recorded(&repository, &remotes.record(&repository)));
        assert_eq!((used().as_ref(), task()), (Some(&second), None));
        assert!(in_short(&remotes.record(&repository)).is_none());
    }

    #[test]
    fn what_cannot_be_moved_is_not_asked_for() {
        let (remotes, repository) = (Remotes::default(), ObjectKey::new("team", "app"));
        let recorded = |reference: &str| RemoteRevision {
            url: "https://git.example/app".into(),
            reference: reference.into(),
            revision: format!("sha1:{}", "4f1c".repeat(10)),
            ..RemoteRevision::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let git = GitStore::new(folder.path().join("store"), StoreOptions::default()).unwrap();
        let commit = "4f1c".repeat(10);
        let moved = RemoteRevision { moved: Some(format!("sha1:{}", "2222".repeat(10))), ..recorded("v1") };
        remotes.load(&git, &repository, &[recorded(&commit), moved.clone()]);
        assert!(remotes.record(&repository).contains(&moved), "it is told only once");
        remotes.ask(&repository, false);
        let task = |reference: &str| {
            let remote = RemoteRepository::new("https://git.example/app", None, reference);
            remotes.task(&RemoteKey { repository: repository.clone(), remote }, "", None)
        };
        let pinned = || Some(Task::Fetch(Reference::Commit(commit.clone())));
        assert_eq!((task(&commit), task("v1"), task("v1")), (pinned(), Some(Task::Ask), pinned()));
    }
}
