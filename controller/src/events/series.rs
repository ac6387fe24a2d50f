//! Finds out whether an event is new or a repetition.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, Hasher, RandomState},
};

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

/// Two occurrences are the same if they are about the same object and have the same texts, even if the object's
/// resource version differs.
impl Hash for Occurrence {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ObjectReference { kind, namespace, name, uid, .. } = &self.regarding;
        (kind, namespace, name, uid, self.type_, &self.reason, &self.note).hash(state);
    }
}

/// What to do about an occurrence.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Create a new event.
    Create,
    /// Write the count into the event `name`.
    Update { name: String, count: i32 },
    /// Only count the occurrence, because the event was updated a moment ago.
    CountOnly,
}

/// The events of the last minutes.
#[derive(Default)]
pub(super) struct Series {
    /// The events, by a digest of their object and texts. The texts themselves are not kept, because they would take
    /// most of the memory.
    known: HashMap<u64, Known>,
    /// Makes digests with random keys, so that nobody can choose texts with the same digest.
    digests: RandomState,
}

/// How long an event is remembered after it happened last.
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// The shortest time between two updates of an event. The first repetition is written at once.
const UPDATE: SignedDuration = SignedDuration::from_mins(1);
/// How many events are remembered at most. If there are more, a repetition may become a new event.
const REMEMBERED: usize = 4096;

struct Known {
    name: String,
    count: i32,
    seen: Timestamp,
    written: Timestamp,
}

impl Series {
    /// Counts the occurrence, and returns what to do about it.
    pub(super) fn step(&mut self, occurrence: &Occurrence, now: Timestamp) -> Step {
        let Some(known) = self.known.get_mut(&self.digests.hash_one(occurrence)) else {
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

    /// Remembers that the occurrence was written as the event `name`.
    pub(super) fn created(&mut self, occurrence: &Occurrence, name: String, now: Timestamp) {
        if self.known.len() >= REMEMBERED {
            self.known.retain(|_, known| now.duration_since(known.seen) <= WINDOW);
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(self.digests.hash_one(occurrence), Known { name, count: 1, seen: now, written: now });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Forgets the event, because it could not be written. The next occurrence becomes a new event.
    pub(super) fn forget(&mut self, occurrence: &Occurrence) {
        self.known.remove(&self.digests.hash_one(occurrence));
    }
}
