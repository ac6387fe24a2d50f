//! Syncs whose inputs change after every render: because other programs write them all the time, or because the Sync itself
//! applies what it is rendered with. The pauses between the renders of such a Sync get longer, and its status says why.

use std::time::Duration;

use manifests::ObjectId;
use pipeline::Entry;
use tokio::time::Instant;

use super::{Wanted, wanted};
use crate::sync::{Pass, Record};

/// After how many changes in a row the pauses get longer. A chart that looks up an object of its own is rendered a few times
/// until nothing changes.
const FREE: u32 = 3;
/// An input that changed again sooner than this has not settled: between two changes, a Sync may have to render, to apply, and to
/// be read by another Sync.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// Changes of an input, each found soon after the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsettled {
    in_a_row: u32,
    last: Instant,
    /// The entry of the Sync that names the input.
    entry: Entry,
}

impl Unsettled {
    /// The state after another change was found now. `pause` is what [`Unsettled::pause`] needs.
    pub(super) fn after(before: Option<Self>, entry: Entry, now: Instant, pause: (Duration, Duration)) -> Self {
        let before = before.filter(|before| now < before.ends(pause)).map_or(0, |before| before.in_a_row);
        Self { in_a_row: before + 1, last: now, entry }
    }

    /// The pause between two reads: `first` as long as there were few changes, then twice as long after each one, at most
    /// `longest`.
    pub(super) fn pause(&self, (first, longest): (Duration, Duration)) -> Duration {
        let doubled = first.saturating_mul(1 << self.in_a_row.saturating_sub(FREE).min(16));
        doubled.min(longest.max(first))
    }

    /// The time from which on the input counts as settled, if it does not change until then.
    pub(super) fn ends(&self, pause: (Duration, Duration)) -> Instant {
        self.last + (2 * self.pause(pause)).max(SETTLED_AFTER)
    }

    /// The entry that names the input, if the input has changed so often that the pauses are longer.
    pub(super) fn entry(&self) -> Option<Entry> {
        (self.in_a_row > FREE).then_some(self.entry)
    }
}

impl Wanted<'_> {
    /// Whether the entry names this object, perhaps among others.
    fn is(&self, id: &ObjectId) -> bool {
        let (group, kind, namespace, name) = match self {
            Self::Map(map) => ("", map.kind(), Some(map.namespace), Some(map.name)),
            Self::Looked(looked) => (looked.group_and_version().0, looked.kind, looked.namespace, looked.name),
        };
        (id.group.as_str(), id.kind.as_str()) == (group, kind)
            && id.namespace.as_deref().zip(namespace).is_none_or(|(own, namespace)| own == namespace)
            && name.is_none_or(|name| name == id.name)
    }
}

impl Pass<'_> {
    /// The sentence about an input that changes after every render.
    pub(in crate::sync) fn what_changes(&self, record: &Record) -> Option<String> {
        let (entry, what, ends) = self.ctx.inputs.unsettled(self.sync, self.interval())?;
        // When the input is settled, the sentence is removed.
        self.come_back(Some(ends));
        let one = wanted(self.sync).find(|one| one.entry() == entry)?;
        let own = record.inventory.iter().map(|(id, _)| id).find(|id| one.is(id));
        let (applies, remedy) = match own {
            Some(id) => (
                format!(", and this Sync itself applies {id}"),
                "Let the result stay the same when it is rendered with its own object, or remove the entry",
            ),
            None => (String::new(), "Name an object that changes seldom, or set the value in the Sync"),
        };
        Some(format!(
            "{what} ({entry}) has changed after each of the last renders{applies}; until it stays the same, each render waits \
             longer than the one before, up to spec.interval. {remedy}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

    #[test]
    fn pauses_get_longer_while_every_read_finds_a_change() {
        let mut now = Instant::now();
        let (mut unsettled, mut pauses) = (None, Vec::new());
        for _ in 0..9 {
            let next = Unsettled::after(unsettled, Entry::Lookup(0), now, PAUSE);
            pauses.push((next.pause(PAUSE).as_secs(), next.entry().is_some()));
            now += next.pause(PAUSE) + Duration::from_secs(1);
            unsettled = Some(next);
        }
        let quiet = [(5, false), (5, false), (5, false)];
        let told = [(10, true), (20, true), (40, true), (60, true), (60, true), (60, true)];
        assert_eq!(pauses, [&quiet[..], &told].concat());
    }

    #[test]
    fn changes_that_are_some_seconds_apart_are_in_a_row() {
        let (mut now, mut unsettled) = (Instant::now(), None);
        let pause = (Duration::from_secs(1), Duration::from_secs(60));
        for _ in 0..=FREE {
            unsettled = Some(Unsettled::after(unsettled, Entry::Lookup(0), now, pause));
            now += Duration::from_secs(8);
        }
        assert_eq!(unsettled.and_then(|unsettled| unsettled.entry()), Some(Entry::Lookup(0)));
    }

    #[test]
    fn a_change_after_a_quiet_time_is_the_first_one() {
        let start = Instant::now();
        let mut unsettled = Unsettled::after(None, Entry::Lookup(0), start, PAUSE);
        for _ in 0..5 {
            unsettled = Unsettled::after(Some(unsettled), Entry::Lookup(0), start, PAUSE);
        }
        assert_eq!(unsettled.ends(PAUSE), start + Duration::from_secs(80));
        let later = |seconds| {
            let now = start + Duration::from_secs(seconds);
            Unsettled::after(Some(unsettled), Entry::Lookup(1), now, PAUSE).entry()
        };
        assert_eq!((later(79), later(80)), (Some(Entry::Lookup(1)), None));
    }
}
