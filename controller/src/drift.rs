//! Objects that drifted: they are healed at once, or more and more slowly if somebody keeps changing them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use manifests::ObjectId;
use tokio::time::Instant;

use crds::ObjectKey;

/// How long an object must stay unchanged, at least, before its pauses begin at zero again.
const PEACE: Duration = Duration::from_secs(600);
/// The object must also stay unchanged this many times longer than it ever did between earlier heals.
const LONGER_THAN_BEFORE: u32 = 4;
/// An object that has not drifted for this long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);
/// How often [`State::forget_old`] looks for objects to forget.
const SWEPT_EVERY: Duration = Duration::from_secs(3600);
/// How many heals in a row have no pause.
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
    /// The time at which each object of a Sync is to be put back.
    waiting: HashMap<ObjectKey, BTreeMap<ObjectId, Instant>>,
    history: HashMap<ObjectId, Heals>,
    /// When [`State::forget_old`] last looked for objects to forget.
    swept: Option<Instant>,
}

impl State {
    /// Forgets objects that have not drifted for [`FORGOTTEN_AFTER`]. This looks at all objects, so it is done only
    /// once per [`SWEPT_EVERY`].
    fn forget_old(&mut self, now: Instant) {
        if self.swept.is_none_or(|swept| now - swept >= SWEPT_EVERY) {
            self.swept = Some(now);
            self.history.retain(|_, heals| !heals.is_over(now));
        }
    }
}

/// The history of an object that drifted.
struct Heals {
    /// Number of heals in a row.
    count: u32,
    /// When the object was last healed.
    last: Instant,
    /// When the object drifted again; `None` while it stays as it was put back.
    drifted: Option<Instant>,
    /// The longest time that the object stayed unchanged between two of the heals in `count`.
    longest_peace: Option<Duration>,
}

impl Heals {
    /// Returns when the object is to be put back. The object drifted at `now`, or drifted earlier and was not put back
    /// since then. If it is changed again while it waits, this does not delay the heal.
    fn due(&mut self, now: Instant) -> Instant {
        if self.drifted.is_none() {
            self.drift(now);
        }
        self.drifted.unwrap_or(now) + pause_after(self.count)
    }

    fn drift(&mut self, now: Instant) {
        self.drifted = Some(now);
        let peace = now - self.last;
        if self.is_forgiven(peace) {
            (self.count, self.longest_peace) = (0, None);
        } else {
            self.longest_peace = Some(self.longest_peace.map_or(peace, |longest| longest.max(peace)));
        }
    }

    /// Whether the other writer has probably stopped, because the object stayed unchanged for the time `peace`. A
    /// writer that changes the object regularly has not stopped, even if it does so only every quarter of an hour.
    fn is_forgiven(&self, peace: Duration) -> bool {
        match self.longest_peace {
            Some(longest) => peace >= PEACE.max(longest * LONGER_THAN_BEFORE).min(FORGOTTEN_AFTER),
            None => peace >= FORGOTTEN_AFTER,
        }
    }

    /// Whether the object's last drift or heal is so long ago that the object can be forgotten.
    fn is_over(&self, now: Instant) -> bool {
        now - self.drifted.unwrap_or(self.last) >= FORGOTTEN_AFTER
    }
}

/// When an object that drifted is put back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PutBack {
    /// At once.
    Now,
    /// After a pause that begins now.
    After(Duration),
    /// At the end of a pause that was reported already.
    Later,
}

impl Drift {
    /// Notes that `id` drifted. Returns when the object will be healed.
    pub fn note(&self, sync: &ObjectKey, id: ObjectId, now: Instant) -> PutBack {
        let mut state = self.lock();
        let due = state.history.get_mut(&id).map_or(now, |heals| heals.due(now));
        let told = state.waiting.entry(sync.clone()).or_default().insert(id, due);
        let pause = due.saturating_duration_since(now);
        if pause.is_zero() {
            PutBack::Now
        } else if told == Some(due) {
            PutBack::Later
        } else {
            PutBack::After(pause)
        }
    }

    /// How long `id`, which has drifted, still waits before it is healed.
    pub fn pause(&self, id: &ObjectId, now: Instant) -> Duration {
        let mut state = self.lock();
        state.history.get_mut(id).map_or(Duration::ZERO, |heals| heals.due(now).saturating_duration_since(now))
    }

    /// The objects of `sync` that must be healed now, and the time at which the next object must be healed. The
    /// returned objects no longer count as waiting.
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

    /// All objects of `sync` that drifted, also those whose pause is not over. This is called when somebody requests a
    /// sync, so that this person does not have to wait. It does not make later pauses shorter.
    pub fn take_all(&self, sync: &ObjectKey) -> BTreeSet<ObjectId> {
        self.lock().waiting.remove(sync).unwrap_or_default().into_keys().collect()
    }

    /// The objects of `sync` that are to be healed later than `now`. `drifted` are all objects of `sync` that differ
    /// from Git now. They are needed because [`note`](Self::note) may not have been called yet for an object that
    /// drifted a moment ago.
    pub fn put_off<'a>(
        &self,
        sync: &ObjectKey,
        drifted: impl IntoIterator<Item = &'a ObjectId>,
        now: Instant,
    ) -> BTreeSet<ObjectId> {
        let mut state = self.lock();
        let State { waiting, history, .. } = &mut *state;
        let noted = waiting.get(sync).into_iter().flatten().filter(|(_, at)| **at > now).map(|(id, _)| id);
        let mut later: BTreeSet<_> = noted.cloned().collect();
        let too_soon = drifted.into_iter().filter(|id| {
            let heals = history.get_mut(*id);
            heals.is_some_and(|heals| heals.due(now) > now)
        });
        later.extend(too_soon.cloned());
        later
    }

    /// Forgets the objects of `sync` that wait for their heal, because none of them is to be healed.
    pub fn forget(&self, sync: &ObjectKey) {
        self.lock().waiting.remove(sync);
    }

    /// Notes that `id` of `sync` was healed. Without `sync`, `id` is the Secret of a SealedSecret that belongs to no
    /// Sync. Returns the number of heals in a row. The object no longer counts as drifted; if it has drifted again
    /// since it was written, this must be noted again.
    pub fn healed(&self, sync: Option<&ObjectKey>, id: &ObjectId, now: Instant) -> u32 {
        let mut state = self.lock();
        if let Some(waiting) = sync.and_then(|sync| state.waiting.get_mut(sync)) {
            waiting.remove(id);
        }
        state.forget_old(now);
        let new = Heals { count: 0, last: now, drifted: None, longest_peace: None };
        let heals = state.history.entry(id.clone()).or_insert(new);
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

    /// Notes that `id("a")` drifted, and returns the pause.
    fn note(drift: &Drift, sync: &ObjectKey, now: Instant) -> Duration {
        match drift.note(sync, id("a"), now) {
            PutBack::Now => Duration::ZERO,
            PutBack::After(pause) => pause,
            PutBack::Later => panic!("told already"),
        }
    }

    /// The pauses before the heals of an object. `peaces` says how long the object stays unchanged before each change.
    fn pauses(peaces: impl IntoIterator<Item = Duration>) -> Vec<u64> {
        let (drift, sync) = (Drift::default(), ObjectKey::new("ns", "sync"));
        let mut now = Instant::now();
        let pause = |peace| {
            now += peace;
            let pause = note(&drift, &sync, now);
            now += pause;
            drift.healed(Some(&sync), &id("a"), now);
            pause.as_secs()
        };
        peaces.into_iter().map(pause).collect()
    }

    #[test]
    fn two_writers_that_fight_slow_down() {
        assert_eq!(pauses([Duration::ZERO; 8]), [0, 0, 0, 1, 2, 4, 8, 16]);
        let (drift, sync, now) = (Drift::default(), ObjectKey::new("ns", "sync"), Instant::now());
        for _ in 0..8 {
            drift.healed(Some(&sync), &id("a"), now);
        }
        assert_eq!(drift.note(&sync, id("b"), now), PutBack::Now, "others are not held up");
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
            drift.healed(Some(&sync), &id("a"), start);
        }
        let seen = [id("a"), id("b")];
        let put_off = |seconds| drift.put_off(&sync, &seen, start + Duration::from_secs(seconds));
        assert_eq!(put_off(1), BTreeSet::from([id("a")]));
        assert_eq!(put_off(9), BTreeSet::new(), "it is due");
        assert_eq!(drift.put_off(&sync, [], start), BTreeSet::new());
    }

    #[test]
    fn drift_that_waits_to_be_healed_is_no_peace() {
        let (drift, sync, start) = (Drift::default(), ObjectKey::new("ns", "sync"), Instant::now());
        for _ in 0..6 {
            drift.note(&sync, id("a"), start);
            drift.healed(Some(&sync), &id("a"), start);
        }
        assert_eq!(note(&drift, &sync, start).as_secs(), 8);
        // The object waited for its heal for a long time, for example because the Sync was suspended. This wait does
        // not reset the pauses; the same time without a change would.
        let later = start + MINUTE * 60;
        assert_eq!(drift.note(&sync, id("a"), later), PutBack::Now, "it waited long enough");
        drift.healed(Some(&sync), &id("a"), later);
        assert_eq!(note(&drift, &sync, later).as_secs(), 16);
    }

    #[test]
    fn a_busy_writer_does_not_put_the_heal_off() {
        let (drift, sync, start) = (Drift::default(), ObjectKey::new("ns", "sync"), Instant::now());
        for _ in 0..6 {
            drift.healed(Some(&sync), &id("a"), start);
        }
        let pause = note(&drift, &sync, start);
        let mut now = start;
        while now < start + pause {
            assert_eq!(drift.take(&sync, now), (BTreeSet::new(), Some(start + pause)));
            now += Duration::from_millis(500);
            if now < start + pause {
                assert_eq!(drift.note(&sync, id("a"), now), PutBack::Later);
            }
        }
        assert_eq!(drift.take(&sync, now), (BTreeSet::from([id("a")]), None));
        // While the pass that heals the object is running, a further change is put back without a pause.
        assert_eq!(drift.note(&sync, id("a"), now), PutBack::Now);
        assert_eq!(drift.put_off(&sync, [&id("a")], now), BTreeSet::new());
        // After each heal, the next pause is longer, even if the object is changed again at once.
        drift.healed(Some(&sync), &id("a"), now);
        assert_eq!(drift.take(&sync, now), (BTreeSet::new(), None));
        assert_eq!(note(&drift, &sync, now), pause * 2);
    }

    #[test]
    fn whoever_asks_does_not_wait_and_makes_no_later_pause_shorter() {
        let (drift, sync, now) = (Drift::default(), ObjectKey::new("ns", "sync"), Instant::now());
        for _ in 0..6 {
            drift.healed(Some(&sync), &id("a"), now);
        }
        assert_eq!(note(&drift, &sync, now).as_secs(), 8);
        assert_eq!(drift.take_all(&ObjectKey::new("ns", "other")), BTreeSet::new());
        assert_eq!(drift.take(&sync, now).0, BTreeSet::new());
        assert_eq!(drift.take_all(&sync), BTreeSet::from([id("a")]));
        drift.healed(Some(&sync), &id("a"), now);
        assert_eq!(note(&drift, &sync, now).as_secs(), 16);
    }

    #[test]
    fn another_objects_drift_brings_no_earlier_heal() {
        let (drift, sync, now) = (Drift::default(), ObjectKey::new("ns", "sync"), Instant::now());
        for _ in 0..4 {
            drift.note(&sync, id("a"), now);
            drift.healed(Some(&sync), &id("a"), now);
        }
        let pause = note(&drift, &sync, now);
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
            drift.healed(None, &id("a"), now);
        }
        let pause = drift.pause(&id("a"), now);
        assert_eq!(pause, Duration::from_secs(2));
        assert_eq!(drift.pause(&id("a"), now + Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(drift.pause(&id("a"), now + pause), Duration::ZERO);
    }

    #[test]
    fn what_a_heal_costs_does_not_depend_on_how_many_objects_were_healed_before() {
        let (drift, now) = (Drift::default(), Instant::now());
        let syncs: Vec<_> = (0..1000).map(|number| ObjectKey::new("ns", format!("sync-{number}"))).collect();
        let ids: Vec<_> = (0..100_000).map(|number| id(&format!("object-{number}"))).collect();
        let heal = || {
            for (number, id) in ids.iter().enumerate() {
                let sync = &syncs[number % syncs.len()];
                drift.note(sync, id.clone(), now);
                drift.healed(Some(sync), id, now);
            }
        };
        let started = std::time::Instant::now();
        heal();
        heal();
        // If every heal looked at all objects, these heals would take many minutes.
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    }

    #[test]
    fn what_was_not_healed_for_a_day_is_forgotten() {
        let (drift, sync, now) = (Drift::default(), ObjectKey::new("ns", "sync"), Instant::now());
        for name in ["a", "b"] {
            drift.healed(Some(&sync), &id(name), now);
        }
        let later = now + FORGOTTEN_AFTER;
        assert_eq!(drift.healed(Some(&sync), &id("c"), later), 1);
        assert_eq!(drift.lock().history.len(), 1);
    }
}
