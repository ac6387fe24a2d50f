//! Which events are new and which happened before.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;

use super::EventType;

/// Something that happened to an object.
pub(super) struct Occurrence {
    pub(super) regarding: ObjectReference,
    pub(super) type_: EventType,
    pub(super) reason: String,
    pub(super) note: String,
}

/// What to do about an occurrence.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Write a new event.
    Create,
    /// Write the count into the event `name`.
    Update { name: String, count: i32 },
    /// Count it; the event was updated a moment ago.
    CountOnly,
}

/// The events of the last minutes.
#[derive(Default)]
pub(super) struct Series(HashMap<Key, Known>);

/// How long an event that does not happen again is remembered.
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// How often one event is updated at most, after its first repetition.
const UPDATE: SignedDuration = SignedDuration::from_mins(1);
/// Events remembered at most; beyond that a repetition may become a new event.
const REMEMBERED: usize = 4096;

#[derive(Eq, Hash, PartialEq)]
struct Key {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    type_: EventType,
    reason: String,
    note: String,
}

struct Known {
    name: String,
    count: i32,
    seen: Timestamp,
    written: Timestamp,
}

impl Series {
    /// Counts the occurrence.
    pub(super) fn step(&mut self, occurrence: &Occurrence, now: Timestamp) -> Step {
        let Some(known) = self.0.get_mut(&key(occurrence)) else {
            return Step::Create;
        };
        if now.duration_since(known.seen) > WINDOW {
            return Step::Create;
        }
        known.count = known.count.saturating_add(1);
        known.seen = now;
        if known.count > 2 && now.duration_since(known.written) < UPDATE {
            return Step::CountOnly;
        }
        known.written = now;
        Step::Update { name: known.name.clone(), count: known.count }
    }

    /// The occurrence was written as the event `name`.
    pub(super) fn created(&mut self, occurrence: &Occurrence, name: String, now: Timestamp) {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, known| now.duration_since(known.seen) <= WINDOW);
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(key(occurrence), Known { name, count: 1, seen: now, written: now });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The event could not be written: the next occurrence is a new one.
    pub(super) fn forget(&mut self, occurrence: &Occurrence) {
        self.0.remove(&key(occurrence));
    }
}

fn key(occurrence: &Occurrence) -> Key {
    let ObjectReference { kind, namespace, name, uid, .. } = occurrence.regarding.clone();
    let Occurrence { type_, reason, note, .. } = occurrence;
    Key { kind, namespace, name, uid, type_: *type_, reason: reason.clone(), note: note.clone() }
}
