//! Decides which fetches run and which fetch is next. Also cancels fetches.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crds::ObjectKey;
use gitstore::Cancel;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Claim, Gate, Group, Lease},
    http::Readiness,
    repository::git_key,
};

/// How long one fetch may take at most, even if `spec.timeout` is longer. The CustomResourceDefinition has the same
/// limit for `spec.timeout`.
pub(crate) const LONGEST: Duration = Duration::from_secs(600);
/// How many fetches run at the same time.
const AT_A_TIME: u64 = 16;
/// How many fetches of one namespace run at the same time.
const OF_A_NAMESPACE: u64 = 4;
/// How many of them are fetches of what Repositories use of other repositories, so that the Repositories themselves need not wait.
const OF_REMOTES: u64 = 2;
/// How many fetches from one host run at the same time.
const FROM_A_HOST: u64 = 8;
/// How many fetches run at the same time for Repositories whose last fetch ran into its timeout.
const OF_SLOW_ONES: u64 = 8;
/// `/readyz` reports a fetch that has waited for this long, unless it waits because of the limit of its namespace or
/// host.
const STARVED: Duration = Duration::from_secs(120);

/// The fetches of this replica.
pub struct Fetches {
    gate: Gate,
    running: Arc<Mutex<HashMap<ObjectKey, Running>>>,
    slow: Mutex<HashSet<ObjectKey>>,
    next: Mutex<HashMap<ObjectKey, Next>>,
}

/// The next fetch of a Repository.
struct Next {
    /// What the last fetch was for.
    occasion: String,
    at: Instant,
}

#[derive(Clone)]
struct Running {
    cancel: Cancel,
    cancelled: CancellationToken,
}

/// A fetch that waits or runs.
pub(crate) struct Fetch {
    key: ObjectKey,
    is_remote: bool,
    this: Running,
    all: Arc<Mutex<HashMap<ObjectKey, Running>>>,
}

impl Default for Fetches {
    fn default() -> Self {
        Self { gate: Gate::new(AT_A_TIME), running: Arc::default(), slow: Mutex::default(), next: Mutex::default() }
    }
}

impl Fetches {
    /// The gate, which knows how many fetches run and wait.
    pub(crate) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Makes `/readyz` report when fetches have waited for too long. `now` returns the current time.
    pub(crate) fn show_in(&self, readiness: &Readiness, now: impl Fn() -> Instant + Send + 'static) {
        let gate = self.gate();
        let text = "git (fetches have waited for minutes, because other fetches take too long)";
        readiness.watch(text, move || gate.starved_for(now()).is_none_or(|time| time < STARVED));
    }

    /// Notes that `key` is about to be fetched, so that the fetch can be cancelled.
    pub(crate) fn begin(&self, key: &ObjectKey) -> Fetch {
        let this = Running { cancel: Cancel::new(), cancelled: CancellationToken::new() };
        lock(&self.running).insert(key.clone(), this.clone());
        Fetch { key: key.clone(), is_remote: false, this, all: self.running.clone() }
    }

    /// The same for what a Repository uses of another repository.
    pub(crate) fn begin_remote(&self, key: &ObjectKey) -> Fetch {
        let mut fetch = self.begin(key);
        fetch.is_remote = true;
        fetch
    }

    /// Cancels the fetch of `key` and the fetches of what it uses of other repositories, because the Repository was edited or
    /// deleted.
    pub(crate) fn cancel(&self, key: &ObjectKey) {
        let ended: Vec<_> = lock(&self.running).extract_if(|other, _| belongs_to(other, key)).collect();
        for (_, running) in ended {
            running.cancel.cancel();
            running.cancelled.cancel();
        }
    }

    /// The same for something that is not fetched any more. What is known of its fetches is forgotten.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.cancel(key);
        lock(&self.slow).retain(|other| !belongs_to(other, key));
        lock(&self.next).remove(key);
    }

    /// Notes how long the next fetch of a Repository has to wait after a fetch for this `occasion`, which changes when somebody
    /// edits the Repository or requests a fetch.
    pub(crate) fn wait(&self, key: &ObjectKey, occasion: String, pause: Duration) {
        lock(&self.next).insert(key.clone(), Next { occasion, at: Instant::now() + pause });
    }

    /// How long the next fetch of a Repository still has to wait. `None` if it is due, because the time has come or because this
    /// is another occasion; then nothing is noted any more.
    pub(crate) fn waits(&self, key: &ObjectKey, occasion: &str) -> Option<Duration> {
        let mut all = lock(&self.next);
        let next = all.remove(key)?;
        let left = next.at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        if next.occasion != occasion {
            return None;
        }
        all.insert(key.clone(), next);
        Some(left)
    }

    /// From now on, the next fetch of every Repository is due.
    pub(crate) fn wait_no_more(&self) {
        lock(&self.next).clear();
    }

    /// Waits for the turn to fetch from `host`; `None` if the fetch is cancelled first.
    pub(crate) async fn turn(&self, fetch: &Fetch, host: &str) -> Option<Lease> {
        let mut groups = vec![
            Group { name: format!("namespace {}", fetch.key.namespace), most: OF_A_NAMESPACE },
            Group { name: format!("host {host}"), most: FROM_A_HOST },
        ];
        if fetch.is_remote {
            groups.push(Group { name: format!("remotes of {}", fetch.key.namespace), most: OF_REMOTES });
        }
        if lock(&self.slow).contains(&fetch.key) {
            groups.push(Group { name: "slow ones".into(), most: OF_SLOW_ONES });
        }
        let claim = Claim { namespace: fetch.key.namespace.clone(), amount: 1, groups };
        tokio::select! {
            biased;
            () = fetch.this.cancelled.cancelled() => None,
            turn = self.gate.admit(claim) => Some(turn),
        }
    }

    /// Notes whether the last fetch of `key` ran into its timeout. Repositories with such fetches together get at most
    /// half of the fetches that may run at the same time, so that they never stop the others.
    pub(crate) fn was_slow(&self, key: &ObjectKey, was_slow: bool) {
        let mut slow = lock(&self.slow);
        if was_slow {
            slow.insert(key.clone());
        } else {
            slow.remove(key);
        }
    }
}

impl Fetch {
    /// The handle by which the thread that fetches sees that the fetch was cancelled.
    pub(crate) fn cancel(&self) -> Cancel {
        self.this.cancel.clone()
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.key);
    }
}

/// Whether `other` is `key`, or something that the Repository `key` uses of another repository.
fn belongs_to(other: &ObjectKey, key: &ObjectKey) -> bool {
    other == key || other.namespace == key.namespace && git_key(other).of_repository() == key.name
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_edit_of_a_repository_cancels_what_it_fetches_of_others() {
        let (fetches, key) = (Fetches::default(), |name: &str| ObjectKey::new("team", name));
        let [one, two, other] = ["app@1f", "app@2f", "app-b@1f"].map(|name| {
            fetches.was_slow(&key(name), true);
            fetches.begin_remote(&key(name))
        });
        let is_cancelled = || [&one, &two, &other].map(|fetch| fetch.cancel().is_cancelled());
        fetches.cancel(&key("app@2f"));
        assert_eq!(is_cancelled(), [false, true, false]);
        fetches.forget(&key("app"));
        assert_eq!(is_cancelled(), [true, true, false]);
        assert!(fetches.turn(&one, "git.example").now_or_never().is_some_and(|turn| turn.is_none()));
        assert_eq!(*lock(&fetches.slow), HashSet::from([key("app-b@1f")]));
    }

    #[test]
    fn a_repository_that_waits_is_fetched_only_at_its_time_or_on_another_occasion() {
        let (fetches, key) = (Fetches::default(), ObjectKey::new("team", "app"));
        let hour = Duration::from_secs(3600);
        assert_eq!(fetches.waits(&key, "1"), None, "it was never fetched");
        fetches.wait(&key, "1".into(), hour);
        assert!(fetches.waits(&key, "1").is_some_and(|left| left <= hour));
        assert!(fetches.waits(&key, "1").is_some(), "it waits still");
        assert_eq!(fetches.waits(&key, "2"), None);
        assert_eq!(fetches.waits(&key, "1"), None, "it is being fetched");
        fetches.wait(&key, "2".into(), Duration::ZERO);
        assert_eq!(fetches.waits(&key, "2"), None);
        fetches.wait(&key, "2".into(), hour);
        fetches.wait_no_more();
        assert_eq!(fetches.waits(&key, "2"), None);
        fetches.wait(&key, "2".into(), hour);
        fetches.forget(&key);
        assert_eq!(fetches.waits(&key, "2"), None);
    }

    fn key(namespace: &str, name: u64) -> ObjectKey {
        ObjectKey::new(namespace, name.to_string())
    }

    #[tokio::test]
    async fn one_namespace_leaves_room_for_the_others() {
        let fetches = Fetches::default();
        let mut held = Vec::new();
        for number in 0..OF_A_NAMESPACE {
            held.push(fetches.turn(&fetches.begin(&key("greedy", number)), "hole.example").await);
        }
        let fifth = fetches.begin(&key("greedy", 99));
        assert!(fetches.turn(&fifth, "hole.example").now_or_never().is_none());
        assert!(fetches.turn(&fetches.begin(&key("modest", 0)), "git.example").now_or_never().is_some());
        fetches.cancel(&key("greedy", 99));
        assert!(fifth.cancel().is_cancelled());
        assert!(fetches.turn(&fifth, "hole.example").await.is_none());
    }

    #[tokio::test]
    async fn remote_bases_leave_room_for_their_repositories() {
        let (fetches, mut held) = (Fetches::default(), Vec::new());
        for number in 0..OF_REMOTES {
            let host = format!("hole-{number}.example");
            held.push(fetches.turn(&fetches.begin_remote(&key("team", number)), &host).await);
        }
        let third = fetches.begin_remote(&key("team", 98));
        assert!(fetches.turn(&third, "other.example").now_or_never().is_none());
        assert!(fetches.turn(&fetches.begin(&key("team", 99)), "git.example").now_or_never().is_some());
        assert!(fetches.turn(&fetches.begin_remote(&key("other", 0)), "git.example").now_or_never().is_some());
    }

    #[tokio::test]
    async fn slow_ones_of_many_namespaces_leave_half_of_the_room() {
        let fetches = Fetches::default();
        let mut held = Vec::new();
        for number in 0..OF_SLOW_ONES {
            let key = key(&format!("tenant-{number}"), 0);
            fetches.was_slow(&key, true);
            held.push(fetches.turn(&fetches.begin(&key), &format!("hole-{number}.example")).await);
        }
        let next = key("tenant-next", 0);
        fetches.was_slow(&next, true);
        assert!(fetches.turn(&fetches.begin(&next), "hole.example").now_or_never().is_none());
        fetches.was_slow(&next, false);
        assert!(fetches.turn(&fetches.begin(&next), "hole.example").now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_fetch_that_waits_for_two_minutes_is_reported_until_it_gets_its_turn() {
        let (fetches, readiness) = (Fetches::default(), Readiness::default());
        let clock = Arc::new(Mutex::new(Instant::now()));
        let shown = clock.clone();
        fetches.show_in(&readiness, move || *lock(&shown));
        let mut held = Vec::new();
        for number in 0..AT_A_TIME {
            let key = key(&format!("tenant-{number}"), 0);
            held.push(fetches.turn(&fetches.begin(&key), &format!("git-{number}.example")).await);
        }
        let late = fetches.begin(&key("late", 0));
        let mut turn = Box::pin(fetches.turn(&late, "late.example"));
        assert!(turn.as_mut().now_or_never().is_none());
        // After half of the time, the fetch is not reported yet. It began to wait a little after the clock began, so
        // more than the other half must pass.
        *lock(&clock) += STARVED / 2;
        assert_eq!(readiness.missing(), [] as [&str; 0]);
        *lock(&clock) += STARVED;
        let missing = readiness.missing();
        assert!(missing.len() == 1 && missing[0].starts_with("git "), "{missing:?}");
        held.pop();
        assert_eq!(readiness.missing(), [] as [&str; 0]);
        assert!(turn.now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn one_host_leaves_room_for_the_others() {
        let fetches = Fetches::default();
        let mut held = Vec::new();
        for number in 0..FROM_A_HOST {
            held.push(fetches.turn(&fetches.begin(&key(&format!("tenant-{number}"), 0)), "hole.example").await);
        }
        let late = fetches.begin(&key("late", 0));
        assert!(fetches.turn(&late, "hole.example").now_or_never().is_none());
        assert!(fetches.turn(&late, "git.example").now_or_never().is_some());
    }
}
