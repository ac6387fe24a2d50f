//! ConfigMaps that charts get values from.
//!
//! # Guarantees
//! - A ConfigMap is read with the rights of the Sync's identity.
//! - A ConfigMap is read once, and again when a watch shows that it changed. If it cannot be watched, it is read again
//!   after `spec.interval`.
//! - What was read for one Sync is used for no other Sync.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::{ObjectKey, Sync};
use pipeline::{Resource, Stage, StageError, ValuesMap, values_maps};
use serde_json::Value;
use tokio::time::Instant;

use super::{FIRST_RETRY, Pass, Record, account::FORBIDDEN};
use crate::{
    backoff,
    cluster::{ApiError, Named, Sight},
    fair::Asker,
    inputs::{Content, InputValues},
};

/// The shortest time between two reads of ConfigMaps that change all the time.
const APART: Duration = Duration::from_secs(1);
/// How many bytes the values from all ConfigMaps of one chart may have together. They are kept in memory, like the values in
/// the spec of a Sync.
const MOST_BYTES: usize = 1 << 20;
/// How many keys of a ConfigMap an error lists.
const KEYS_SHOWN: usize = 10;

/// Why values were not read from a ConfigMap.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    /// The ConfigMap does not exist.
    #[error("there is no {map}: create it, or correct {field}; nothing is applied or deleted until it can be read")]
    NoMap {
        /// The ConfigMap.
        map: String,
        /// The field of the Sync that names it.
        field: String,
    },
    /// The ConfigMap does not have the key.
    #[error(
        "{place}: there is no such key with a text; {there_is}. Add it, or correct {field}; nothing is applied or deleted until it can be read"
    )]
    NoKey {
        /// The ConfigMap and the key.
        place: String,
        /// The keys of the ConfigMap.
        there_is: String,
        /// The field of the Sync that names it.
        field: String,
    },
    /// The values are too large.
    #[error("{0}: the values from ConfigMaps have more than {most} MiB together: put them into files of a repository", most = MOST_BYTES >> 20)]
    TooLarge(String),
    /// The Sync's identity may not read the ConfigMap.
    #[error("it may not read {map}, which {field} names; give its service account the right to `get` it: {source}")]
    Forbidden {
        /// The ConfigMap.
        map: String,
        /// The field of the Sync that names it.
        field: String,
        /// The API server's refusal.
        source: ApiError,
    },
    /// The ConfigMap could not be read.
    #[error("{map}, which {field} names, could not be read: {source}")]
    NotRead {
        /// The ConfigMap.
        map: String,
        /// The field of the Sync that names it.
        field: String,
        /// The error of the request.
        source: ApiError,
    },
}

impl StageError for InputError {
    const STAGE: Stage = Stage::Source;

    fn reason(&self) -> &'static str {
        match self {
            Self::NoMap { .. } | Self::NoKey { .. } => "ValuesNotFound",
            Self::TooLarge(_) => "TooLarge",
            Self::Forbidden { .. } => FORBIDDEN,
            Self::NotRead { .. } => "ValuesNotRead",
        }
    }

    fn is_terminal(&self) -> bool {
        match self {
            Self::NoMap { .. } | Self::NoKey { .. } | Self::TooLarge(_) => true,
            Self::Forbidden { .. } | Self::NotRead { .. } => false,
        }
    }
}

/// The values of a Sync from ConfigMaps, or why there are none.
pub(super) type ReadMaps = Result<Arc<[InputValues]>, Arc<InputError>>;

/// What was read for each Sync.
#[derive(Default)]
pub struct ReadInputs(Mutex<State>);

#[derive(Default)]
struct State {
    known: HashMap<ObjectKey, Known>,
    /// The Syncs of which a watch has shown that a ConfigMap changed since they began to read.
    changed: HashSet<ObjectKey>,
}

struct Known {
    /// UID and generation of the Sync for which this was read.
    of: (Option<String>, Option<i64>),
    at: Instant,
    failures: u32,
    maps: ReadMaps,
}

fn identity(sync: &Sync) -> (Option<String>, Option<i64>) {
    (sync.metadata.uid.clone(), sync.metadata.generation)
}

impl ReadInputs {
    /// What was last read for `sync`; `None` if nothing was read since it was made or edited.
    pub(super) fn of(&self, sync: &Sync) -> Option<ReadMaps> {
        let state = self.lock();
        let known = state.known.get(&ObjectKey::of(sync)).filter(|known| known.of == identity(sync))?;
        Some(known.maps.clone())
    }

    /// Notes that a ConfigMap of this Sync has changed.
    pub(super) fn changed(&self, sync: &ObjectKey) {
        self.lock().changed.insert(sync.clone());
    }

    /// Notes that the ConfigMaps of this Sync are about to be read. What changes from now on may not be in what is read.
    fn begins(&self, sync: &ObjectKey) {
        self.lock().changed.remove(sync);
    }

    /// Notes that everything that was read may be wrong.
    pub(super) fn doubt_everything(&self) {
        let State { known, changed } = &mut *self.lock();
        changed.extend(known.keys().cloned());
    }

    /// Forgets a Sync. Returns whether something was known.
    pub(super) fn forget(&self, sync: &ObjectKey) -> bool {
        let mut state = self.lock();
        state.changed.remove(sync);
        state.known.remove(sync).is_some()
    }

    /// When the ConfigMaps of `sync` have to be read; `None` if they need not be read before a watch shows a change.
    fn due(&self, sync: &Sync, is_asked: bool, is_watched: bool, interval: Duration) -> Option<Instant> {
        let (state, key) = (self.lock(), ObjectKey::of(sync));
        let Some(known) = state.known.get(&key).filter(|known| known.of == identity(sync)) else {
            return Some(Instant::now());
        };
        if state.changed.contains(&key) || is_asked {
            return Some(known.at + APART);
        }
        match &known.maps {
            Err(error) if !error.is_terminal() => {
                Some(known.at + backoff::pause(known.failures, FIRST_RETRY, interval))
            }
            _ if is_watched => None,
            _ => Some(known.at + interval),
        }
    }

    fn remember(&self, sync: &Sync, maps: ReadMaps) {
        let (mut state, key) = (self.lock(), ObjectKey::of(sync));
        let failures = state.known.get(&key).map_or(0, |known| known.failures);
        let failures = if maps.is_err() { failures.saturating_add(1) } else { 0 };
        state.known.insert(key, Known { of: identity(sync), at: Instant::now(), failures, maps });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// Reads the ConfigMaps that the chart gets values from, if it is not certain that they are as they were read before.
    pub(super) async fn read_inputs(&self, record: &Record) {
        let (inputs, live) = (&self.ctx.inputs, &self.ctx.cluster.live);
        let maps: Vec<_> = values_maps(self.sync).collect();
        if maps.is_empty() {
            if inputs.forget(self.key) {
                live.stop_looking_out_for_inputs(self.key, |_| false);
            }
            return;
        }
        let is_watched = maps.iter().all(|map| live.looks_out_for_input(self.key, map.index));
        let Some(due) = inputs.due(self.sync, self.has_request(record), is_watched, self.interval()) else { return };
        if due > Instant::now() {
            return self.come_back(Some(due));
        }
        inputs.begins(self.key);
        live.stop_looking_out_for_inputs(self.key, |index| maps.iter().any(|map| map.index == index));
        let (mut all, mut bytes) = (Vec::new(), 0);
        let mut read = Ok(());
        for map in maps {
            match self.read_map(map, &mut bytes).await {
                Ok(values) => all.push(values),
                Err(error) => {
                    read = Err(Arc::new(error));
                    break;
                }
            }
        }
        inputs.remember(self.sync, read.map(|()| all.into()));
        let is_watched = values_maps(self.sync).all(|map| live.looks_out_for_input(self.key, map.index));
        self.come_back(inputs.due(self.sync, false, is_watched, self.interval()));
    }

    async fn read_map(&self, map: ValuesMap<'_>, bytes: &mut usize) -> Result<InputValues, InputError> {
        let live = &self.ctx.cluster.live;
        let ValuesMap { index, namespace, name, key } = map;
        let resource = Arc::new(Resource::config_maps());
        let place = self.ctx.health_reads.take(Asker::Namespace(&self.key.namespace)).await;
        let read = self.identity().get(&resource, Some(namespace), name).await;
        let named = Named { resource, namespace: Some(namespace.to_owned()), name: name.to_owned() };
        let (field, of) = (map.field(), map.map());
        let object = match read {
            Ok(object) => object,
            Err(error) if error.is_gone() => {
                live.look_out_for_input(self.key, index, named, Sight::Missing);
                return Err(InputError::NoMap { map: of, field });
            }
            Err(source) => {
                live.stop_looking_out_for_inputs(self.key, |other| other != index);
                return Err(match source.code() {
                    Some(403) => InputError::Forbidden { map: of, field, source },
                    _ => InputError::NotRead { map: of, field, source },
                });
            }
        };
        live.look_out_for_input(self.key, index, named, Sight::of(&object));
        let data = object.get("data").and_then(Value::as_object);
        let Some(text) = data.and_then(|data| data.get(key)?.as_str()) else {
            let keys: Vec<_> = data.iter().flat_map(|data| data.keys()).map(String::as_str).collect();
            let more = keys.len().saturating_sub(KEYS_SHOWN);
            let shown = keys[..keys.len() - more].join(", ");
            let there_is = match (keys.is_empty(), more) {
                (true, _) => "it has no keys".to_owned(),
                (false, 0) => format!("it has {shown}"),
                (false, more) => format!("it has {shown} and {more} more"),
            };
            return Err(InputError::NoKey { place: map.place(), there_is, field });
        };
        *bytes += text.len();
        if *bytes > MOST_BYTES {
            return Err(InputError::TooLarge(map.place()));
        }
        let content = Content::text(&self.ctx.keyring, text);
        drop(place);
        Ok(InputValues { index, name: map.place(), content })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        inputs.remember(&sync, Ok(Arc::default()));
        assert_eq!(waits(&inputs, &sync, true), None, "a watch shows changes");
        inputs.changed(&key);
        assert!(waits(&inputs, &sync, true).is_some_and(|pause| pause <= APART));
        inputs.begins(&key);
        inputs.changed(&key);
        inputs.remember(&sync, Ok(Arc::default()));
        assert!(waits(&inputs, &sync, true).is_some_and(|pause| pause <= APART), "the change is lost");
    }

    #[test]
    fn what_was_read_before_an_edit_does_not_count() {
        let inputs = ReadInputs::default();
        inputs.remember(&sync(1), Ok(Arc::default()));
        assert!(inputs.of(&sync(1)).is_some() && inputs.of(&sync(2)).is_none());
        assert_eq!(waits(&inputs, &sync(2), true), Some(Duration::ZERO));
        assert!(inputs.forget(&ObjectKey::of(&sync(1))) && inputs.of(&sync(1)).is_none());
    }

    #[test]
    fn what_cannot_be_watched_is_read_at_the_interval_and_failures_are_tried_again() {
        let (inputs, sync) = (ReadInputs::default(), sync(1));
        inputs.remember(&sync, Ok(Arc::default()));
        assert!(waits(&inputs, &sync, false).is_some_and(|pause| pause > INTERVAL / 2));
        let error = || InputError::NotRead { map: "a".into(), field: "b".into(), source: ApiError::Busy };
        for most in [1, 2, 4] {
            inputs.remember(&sync, Err(Arc::new(error())));
            assert!(waits(&inputs, &sync, true).is_some_and(|pause| pause <= Duration::from_secs(2 * most)));
        }
        inputs.remember(&sync, Err(Arc::new(InputError::TooLarge("a".into()))));
        assert_eq!(waits(&inputs, &sync, true), None, "only a change helps");
    }
}
