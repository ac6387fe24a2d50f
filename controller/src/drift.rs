//! Objects that drifted: they are healed at once, or more and more slowly if somebody keeps changing them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use manifests::ObjectId;
use tokio::time::Instant;

use crds::ObjectKey;

/// Peace of this length, at least, until an object is trusted again.
const PEACE: Duration = Duration::from_secs(600);
/// And peace of so many times the longest that its drift ever stayed away before.
const LONGER_THAN_BEFORE: u32 = 4;
/// After this long without drift nothing is remembered of an object.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Heals in a row that are not put off.
const FREE_HEALS: u32 = 3;
/// The longest pause between two heals of one object.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Objects that drifted, by Sync.
#[derive(Default)]
pub struct Drift {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With when each is to be put back.
    waiting: HashMap<ObjectKey, BTreeMap<ObjectId, Instant>>,
    history: HashMap<ObjectId, Heals>,
}

/// What is known of an object that drifted.
struct Heals {
    /// Heals in a row.
    count: u32,
    /// The last of them.
    last: Instant,
    /// When it drifted again; nothing, while it stays as it was put back.
    drifted: Option<Instant>,
    /// The longest that it stayed as it was put back, between two heals of this row.
    longest_peace: Option<Duration>,
}

impl Heals {
    /// It drifted at `now`, or earlier and was not put back since.
    fn drift(&mut self, now: Instant) {
        if self.drifted.is_some() {
            return;
        }
        self.drifted = Some(now);
        let peace = now - self.last;
        if self.is_forgiven(peace) {
            (self.count, self.longest_peace) = (0, None);
        } else {
            self.longest_peace = Some(self.longest_peace.map_or(peace, |longest| longest.max(peace)));
        }
    }

    /// It has drifted: how long to wait yet before it is healed once more.
    fn pause(&mut self, now: Instant) -> Duration {
        self.drift(now);
        pause_after(self.count).saturating_sub(now - self.last)
    }

    /// Whether so long a peace says that whoever changed the object has stopped: somebody who comes back every quarter
    /// of an hour has not.
    fn is_forgiven(&self, peace: Duration) -> bool {
        match self.longest_peace {
            Some(longest) => peace >= PEACE.max(longest * LONGER_THAN_BEFORE).min(FORGOTTEN_AFTER),
            None => peace >= FORGOTTEN_AFTER,
        }
    }

    /// Whether nothing has to be known of it any more.
    fn is_over(&self, now: Instant) -> bool {
        now - self.drifted.unwrap_or(self.last) >= FORGOTTEN_AFTER
    }
}

impl Drift {
    /// `id` drifted: how long to wait before it is healed.
    pub fn note(&self, sync: &ObjectKey, id: ObjectId, now: Instant) -> Duration {
        let mut state = self.lock();
        let pause = state.history.get_mut(&id).map_or(Duration::ZERO, |heals| {
            heals.drift(now);
            pause_after(heals.count)
        });
        state.waiting.entry(sync.clone()).or_default().insert(id, now + pause);
        pause
    }

    /// `id` has drifted: how long to wait yet before it is healed once more.
    pub fn pause(&self, id: &ObjectId, now: Instant) -> Duration {
        self.lock().history.get_mut(id).map_or(Duration::ZERO, |heals| heals.pause(now))
    }

    /// The objects of `sync` that are to be healed now, whoever woke it; and when the next is.
    pub fn take(&self, sync: &ObjectKey, now: Instant) -> (BTreeSet<ObjectId>, Option<Instant>) {
        let mut state = self.lock();
        let Some(waiting) = state.waiting.remove(sync) else { return Default::default() };
        let (due, later): (BTreeMap<_, _>, BTreeMap<_, _>) = waiting.into_iter().partition(|(_, at)| *at <= now);
        let next = later.values().min().copied();
        if next.is_some() {
            state.waiting.insert(sync.clone(), later);
        }
        (due.into_keys().collect(), next)
    }

    /// The objects of `sync` that are to be healed later than `now`. `drifted` are some that are seen to have drifted: of one
    /// that drifted just now it may not be noted yet.
    pub fn put_off<'a>(
        &self,
        sync: &ObjectKey,
        drifted: impl IntoIterator<Item = &'a ObjectId>,
        now: Instant,
    ) -> BTreeSet<ObjectId> {
        let mut state = self.lock();
        let State { waiting, history } = &mut *state;
        let noted = waiting.get(sync).into_iter().flatten().filter(|(_, at)| **at > now).map(|(id, _)| id);
        let mut later: BTreeSet<_> = noted.cloned().collect();
        let too_soon = drifted.into_iter().filter(|id| {
            let heals = history.get_mut(*id);
            heals.is_some_and(|heals| !heals.pause(now).is_zero())
        });
        later.extend(too_soon.cloned());
        later
    }

    /// Nothing of `sync` is to be healed any more.
    pub fn forget(&self, sync: &ObjectKey) {
        self.lock().waiting.remove(sync);
    }

    /// `id` was healed: how many times in a row now.
    pub fn healed(&self, id: &ObjectId, now: Instant) -> u32 {
        let mut state = self.lock();
        state.history.retain(|_, heals| !heals.is_over(now));
        let heals = state.history.entry(id.clone()).or_insert(Heals {
            count: 0,
            last: now,
            drifted: None,
            longest_peace: None,
        });
        heals.count += 1;
        heals.last = now;
        heals.drifted = None;
        heals.count
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pause_after(heals: u32) -> Duration {
    match heals.checked_sub(FREE_HEALS) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(1 << more.min(9)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ObjectId {
        ObjectId { group: String::new(), kind: "ConfigMap".into(), namespace: Some("ns".into()), name: name.into() }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    /// How long the heals of an object wait that is changed again after each of `peaces`.
    fn pauses(peaces: impl IntoIterator<Item = Duration>) -> Vec<u64> {
        let (drift, sync) = (Drift::default(), ObjectKey::new("ns", "sync"));
        let mut now = Instant::now();
        let pause = |peace| {
            now += peace;
            let pause = drift.note(&sync, id("a"), now);
            now += pause;
            drift.healed(&id("a"), now);
            pause.as_secs()
        };
        peaces.into_iter().map(pause).collect()
    }

    #[test]
    fn two_writers_that_fight_slow_down() {
        assert_eq!(pauses([Duration::ZERO; 8]), [0, 0, 0, 1, 2, 4, 8, 16]);
        let (drift, sync, now) = (Drift::default(), ObjectKey::new("ns", "sync"), Instant::now());
        for _ in 0..8 {
            drift.healed(&id("a"), now);
        }
        assert_eq!(drift.note(&sync, id("b"), now), Duration::ZERO, "others are not held up");
    }

    #[test]
    fn whoever_comes_back_every_quarter_of_an_hour_is_not_forgiven() {
        assert_eq!(pauses([MINUTE * 15; 8]), [0, 0, 0, 1, 2, 4, 8, 16]);
        assert_eq!(*pauses([MINUTE * 15; 40]).last().unwrap(), LONGEST_PAUSE.as_secs());
        assert_eq!(pauses([Duration::ZERO, MINUTE, MINUTE, MINUTE, MINUTE * 11, MINUTE]), [0, 0, 0, 1, 0, 0]);
        let fight_then_peace = [MINUTE * 15; 5].into_iter().chain([MINUTE * 59, MINUTE * 500]);
        assert_eq!(pauses(fight_then_peace), [0, 0, 0, 1, 2, 4, 0], "four times as long as ever before");
    }

    #[test]
    fn what_drifted_again_before_it_was_noted_is_put_off_as_well() {
        let (drift, sync, start) = (Drift::default(), ObjectKey::new("ns", "sync"), Instant::now());
        for _ in 0..6 {
            drift.healed(&id("a"), start);
        }
        let seen = [id("a"), id("b")];
        let put_off = |seconds| drift.put_off(&sync, &seen, start + Duration::from_secs(seconds));
        assert_eq!(put_off(1), BTreeSet::from([id("a")]));
        assert_eq!(put_off(8), BTreeSet::new(), "it is due");
        assert_eq!(drift.put_off(&sync, [], start), BTreeSet::new());
    }

    #[test]
    fn drift_that_waits_to_be_healed_is_no_peace() {
        let (drift, sync, start) = (Drift::default(), ObjectKey::new("ns", "sync"), Instant::now());
        for _ in 0..6 {
            drift.note(&sync, id("a"), start);
            drift.healed(&id("a"), start);
        }
        assert_eq!(drift.note(&sync, id("a"), start).as_secs(), 8);
        // The Sync was suspended, or its pass failed, for longer than it takes to be forgiven.
        let later = start + MINUTE * 60;
        assert_eq!(drift.note(&sync, id("a"), later).as_secs(), 8);
    }

    #[test]
    fn another_objects_drift_brings_no_earlier_heal() {
        let (drift, sync, now) = (Drift::default(), ObjectKey::new("ns", "sync"), Instant::now());
        for _ in 0..4 {
            drift.note(&sync, id("a"), now);
            drift.healed(&id("a"), now);
        }
        let pause = drift.note(&sync, id("a"), now);
        drift.note(&sync, id("b"), now);
        assert_eq!(drift.put_off(&sync, [], now), BTreeSet::from([id("a")]));
        assert_eq!(drift.take(&sync, now), (BTreeSet::from([id("b")]), Some(now + pause)));
        assert_eq!(drift.put_off(&sync, [], now), BTreeSet::from([id("a")]));
        assert_eq!(drift.put_off(&sync, [], now + pause), BTreeSet::new());
        assert_eq!(drift.take(&sync, now + pause), (BTreeSet::from([id("a")]), None));
        assert_eq!(drift.take(&sync, now + pause), (BTreeSet::new(), None));
    }

    #[test]
    fn a_pause_passes() {
        let (drift, now) = (Drift::default(), Instant::now());
        for _ in 0..4 {
            assert_eq!(drift.pause(&id("b"), now), Duration::ZERO);
            drift.healed(&id("a"), now);
        }
        let pause = drift.pause(&id("a"), now);
        assert_eq!(pause, Duration::from_secs(2));
        assert_eq!(drift.pause(&id("a"), now + Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(drift.pause(&id("a"), now + pause), Duration::ZERO);
    }
}
