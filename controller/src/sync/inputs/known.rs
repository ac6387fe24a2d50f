//! What was read from the cluster for each Sync, and when it has to be read again.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::{ObjectKey, Sync};
use pipeline::{Entry, StageError as _, lookups};
use tokio::time::Instant;

use super::{InputError, unsettled::Unsettled};
use crate::{backoff, inputs::OneInput, sync::FIRST_RETRY};

/// The shortest time between two reads of ConfigMaps that change all the time.
const APART: Duration = Duration::from_secs(1);
/// The same for a Sync whose chart looks something up. Programs change such objects more often than people change ConfigMaps.
const LOOKUPS_APART: Duration = Duration::from_secs(5);

/// What a Sync gets from the cluster, or why it was not read.
pub(in crate::sync) type ReadEntries = Result<Arc<[OneInput]>, Arc<InputError>>;

/// The shortest time between two reads for `sync`.
fn apart(sync: &Sync) -> Duration {
    if lookups(sync).next().is_some() { LOOKUPS_APART } else { APART }
}

/// The first entry whose input is not as it was before.
fn changed(before: &ReadEntries, now: &ReadEntries) -> Option<Entry> {
    let (Ok(before), Ok(now)) = (before, now) else { return None };
    let is_as_before = |one: &OneInput| {
        before.iter().any(|other| other.entry == one.entry && other.content.identity() == one.content.identity())
    };
    now.iter().find(|one| !is_as_before(one)).map(|one| one.entry)
}

/// What was read for each Sync.
#[derive(Default)]
pub struct ReadInputs(Mutex<State>);

#[derive(Default)]
struct State {
    known: HashMap<ObjectKey, Known>,
    /// The Syncs of which a watch has shown that an object changed since they began to read.
    changed: HashSet<ObjectKey>,
}

struct Known {
    /// UID and generation of the Sync for which this was read.
    of: (Option<String>, Option<i64>),
    at: Instant,
    failures: u32,
    /// What was read.
    read: ReadEntries,
    /// When the API server last said that the Sync's service account may read everything in `read`.
    allowed_at: Instant,
    /// How often in a row the inputs have changed.
    unsettled: Option<Unsettled>,
}

fn identity(sync: &Sync) -> (Option<String>, Option<i64>) {
    (sync.metadata.uid.clone(), sync.metadata.generation)
}

impl ReadInputs {
    /// What was last read for `sync`; `None` if nothing was read since it was made or edited.
    pub(in crate::sync) fn of(&self, sync: &Sync) -> Option<ReadEntries> {
        let state = self.lock();
        let known = state.known.get(&ObjectKey::of(sync)).filter(|known| known.of == identity(sync))?;
        Some(known.read.clone())
    }

    /// Notes that an object that this Sync reads has changed.
    pub(in crate::sync) fn changed(&self, sync: &ObjectKey) {
        self.lock().changed.insert(sync.clone());
    }

    /// Notes that the objects of this Sync are about to be read. What changes from now on may not be in what is read.
    pub(super) fn begins(&self, sync: &ObjectKey) {
        self.lock().changed.remove(sync);
    }

    /// Notes that everything that was read may be wrong.
    pub(in crate::sync) fn doubt_everything(&self) {
        let State { known, changed } = &mut *self.lock();
        changed.extend(known.keys().cloned());
    }

    /// Forgets a Sync. Returns whether something was known.
    pub(in crate::sync) fn forget(&self, sync: &ObjectKey) -> bool {
        let mut state = self.lock();
        state.changed.remove(sync);
        state.known.remove(sync).is_some()
    }

    /// When the objects of `sync` have to be read; `None` if they need not be read before a watch shows a change.
    pub(super) fn due(&self, sync: &Sync, is_asked: bool, is_watched: bool, interval: Duration) -> Option<Instant> {
        let (state, key) = (self.lock(), ObjectKey::of(sync));
        let Some(known) = state.known.get(&key).filter(|known| known.of == identity(sync)) else {
            return Some(Instant::now());
        };
        if is_asked {
            return Some(known.at + apart(sync));
        }
        if state.changed.contains(&key) {
            let pause = (apart(sync), interval);
            let unsettled = known.unsettled.filter(|unsettled| Instant::now() < unsettled.ends(pause));
            return Some(known.at + unsettled.map_or(pause.0, |unsettled| unsettled.pause(pause)));
        }
        match &known.read {
            Err(error) if !error.is_terminal() => {
                Some(known.at + backoff::pause(known.failures, FIRST_RETRY, interval))
            }
            _ if is_watched => None,
            _ => Some(known.at + interval),
        }
    }

    /// When the API server has to be asked again whether the identity of `sync` may read what it has read. `None` if it has
    /// read nothing.
    pub(super) fn rights_due(&self, sync: &Sync, interval: Duration) -> Option<Instant> {
        let state = self.lock();
        let known = state.known.get(&ObjectKey::of(sync))?;
        known.read.is_ok().then(|| known.allowed_at + interval)
    }

    /// Notes that the API server has just said that the identity of this Sync may read what it has read.
    pub(super) fn is_allowed(&self, sync: &ObjectKey) {
        if let Some(known) = self.lock().known.get_mut(sync) {
            known.allowed_at = Instant::now();
        }
    }

    /// If inputs of `sync` change again and again: the entry and the name of one that changed last, and the time when it counts
    /// as settled if it changes no more.
    pub(super) fn unsettled(&self, sync: &Sync, interval: Duration) -> Option<(Entry, String, Instant)> {
        let state = self.lock();
        let known = state.known.get(&ObjectKey::of(sync)).filter(|known| known.of == identity(sync))?;
        let (unsettled, read) = (known.unsettled?, known.read.as_ref().ok()?);
        let (entry, ends) = (unsettled.entry()?, unsettled.ends((apart(sync), interval)));
        let name = read.iter().find(|one| one.entry == entry)?.name.clone();
        (Instant::now() < ends).then_some((entry, name, ends))
    }

    /// Stores what was read for `sync`.
    pub(super) fn remember(&self, sync: &Sync, read: ReadEntries, interval: Duration) {
        let (mut state, key, at) = (self.lock(), ObjectKey::of(sync), Instant::now());
        let before = state.known.remove(&key);
        let failures = before.as_ref().map_or(0, |known| known.failures);
        let failures = if read.is_err() { failures.saturating_add(1) } else { 0 };
        // An edit of the Sync may have ended the changes.
        let before = before.filter(|known| known.of == identity(sync));
        let unsettled = before.as_ref().and_then(|known| known.unsettled);
        let changed = before.and_then(|known| changed(&known.read, &read));
        let after = |entry| Unsettled::after(unsettled, entry, at, (apart(sync), interval));
        let unsettled = changed.map(after).or(unsettled);
        state.known.insert(key, Known { of: identity(sync), at, failures, read, allowed_at: at, unsettled });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{cluster::ApiError, inputs::Texts};

    const INTERVAL: Duration = Duration::from_secs(600);

    fn sync(generation: i64) -> Sync {
        let spec = json!({"repository": {"name": "repo"}, "helm": {"valuesFrom": [{"configMap": "a"}]}});
        let metadata = json!({"name": "app", "namespace": "team", "uid": "1", "generation": generation});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn waits(inputs: &ReadInputs, sync: &Sync, is_watched: bool) -> Option<Duration> {
        let due = inputs.due(sync, false, is_watched, INTERVAL)?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    #[test]
    fn a_change_while_it_is_read_is_not_lost() {
        let (inputs, sync) = (ReadInputs::default(), sync(1));
        let key = ObjectKey::of(&sync);
        assert_eq!(waits(&inputs, &sync, true), Some(Duration::ZERO), "it was never read");
        inputs.begins(&key);
        inputs.remember(&sync, Ok(Arc::default()), INTERVAL);
        assert_eq!(waits(&inputs, &sync, true), None, "a watch shows changes");
        inputs.changed(&key);
        assert!(waits(&inputs, &sync, true).is_some_and(|pause| pause <= APART));
        inputs.begins(&key);
        inputs.changed(&key);
        inputs.remember(&sync, Ok(Arc::default()), INTERVAL);
        assert!(waits(&inputs, &sync, true).is_some_and(|pause| pause <= APART), "the change is lost");
    }

    #[test]
    fn what_a_chart_looks_up_is_not_read_again_at_once() {
        let inputs = ReadInputs::default();
        let mut sync = sync(1);
        sync.spec.helm = serde_json::from_value(json!({"lookup": [{"apiVersion": "v1", "kind": "Node"}]})).unwrap();
        inputs.remember(&sync, Ok(Arc::default()), INTERVAL);
        inputs.changed(&ObjectKey::of(&sync));
        assert!(waits(&inputs, &sync, true).is_some_and(|pause| pause > APART && pause <= LOOKUPS_APART));
    }

    #[test]
    fn what_was_read_before_an_edit_does_not_count() {
        let inputs = ReadInputs::default();
        inputs.remember(&sync(1), Ok(Arc::default()), INTERVAL);
        assert!(inputs.of(&sync(1)).is_some() && inputs.of(&sync(2)).is_none());
        assert_eq!(waits(&inputs, &sync(2), true), Some(Duration::ZERO));
        assert!(inputs.forget(&ObjectKey::of(&sync(1))) && inputs.of(&sync(1)).is_none());
    }

    #[test]
    fn what_cannot_be_watched_is_read_at_the_interval_and_failures_are_tried_again() {
        let (inputs, sync) = (ReadInputs::default(), sync(1));
        inputs.remember(&sync, Ok(Arc::default()), INTERVAL);
        assert!(waits(&inputs, &sync, false).is_some_and(|pause| pause > INTERVAL / 2));
        let error = || InputError::NotRead { what: "a".into(), field: "b".into(), source: ApiError::Busy };
        for most in [1, 2, 4] {
            inputs.remember(&sync, Err(Arc::new(error())), INTERVAL);
            assert!(waits(&inputs, &sync, true).is_some_and(|pause| pause <= Duration::from_secs(2 * most)));
        }
        inputs.remember(&sync, Err(Arc::new(InputError::TooLarge("a".into()))), INTERVAL);
        assert_eq!(waits(&inputs, &sync, true), None, "only a change helps");
        assert_eq!(inputs.rights_due(&sync, INTERVAL), None, "it has nothing that it might not read any more");
    }

    #[test]
    fn rights_are_checked_once_per_interval() {
        let (inputs, sync) = (ReadInputs::default(), sync(1));
        assert_eq!(inputs.rights_due(&sync, INTERVAL), None, "nothing was read");
        inputs.remember(&sync, Ok(Arc::default()), INTERVAL);
        let first = inputs.rights_due(&sync, INTERVAL).unwrap();
        assert!(first > Instant::now() + INTERVAL / 2, "the read was allowed");
        inputs.is_allowed(&ObjectKey::of(&sync));
        assert!(inputs.rights_due(&sync, INTERVAL).unwrap() > first);
    }

    #[test]
    fn inputs_that_change_at_each_read_are_read_less_and_less_often() {
        let (inputs, texts) = (ReadInputs::default(), Texts::new(1 << 20));
        let (sync, edited) = (sync(1), sync(2));
        let read = |text: &str| {
            let content = texts.keep("team", format!("digest of {text}"), text).expect("room");
            let one = OneInput { entry: Entry::Values(0), name: "ConfigMap team/a".into(), content };
            inputs.remember(&sync, Ok([one].into()), INTERVAL);
            inputs.changed(&ObjectKey::of(&sync));
            waits(&inputs, &sync, true).expect("a change was seen")
        };
        let told = || inputs.unsettled(&sync, INTERVAL).map(|(entry, what, _)| (entry, what));
        for text in ["1", "2", "2", "3", "2", "2"] {
            assert!(read(text) <= APART, "{text}");
            assert_eq!(told(), None, "{text}");
        }
        assert!(read("4") > APART);
        assert_eq!(told(), Some((Entry::Values(0), "ConfigMap team/a".to_owned())));
        let asked = inputs.due(&sync, true, true, INTERVAL).expect("somebody asks for it");
        assert!(asked.saturating_duration_since(Instant::now()) <= APART);
        inputs.remember(&edited, Ok(Arc::default()), INTERVAL);
        assert_eq!(inputs.unsettled(&edited, INTERVAL), None, "the Sync was edited");
    }
}
