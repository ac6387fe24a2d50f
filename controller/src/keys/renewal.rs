//! When a new sealing key is made, and by whom.
//!
//! A key is due when the newest one reaches `--key-renew-period`, when it is from before `--key-cutoff-time`, when
//! somebody asks (SIGUSR1), and when none seals. Its age is told by its certificate or its Secret, whichever orders the
//! keys, so that a restart neither skips a renewal nor doubles one.
//!
//! # Guarantees
//! - Replicas that want to make the same key make one: only the leader makes keys, and only who holds the claim
//!   ([`Store::claim`](super::store::Store::claim)) writes one, after it looked once more whether it still is due.
//! - A key's name follows from its certificate. Names of keys that were deleted are not given again, so that a backup of
//!   them can be applied at any time and overwrites nothing.
//! - Whatever the clocks say: by schedule a process makes no two keys within one period, a key from the future is as old as
//!   its Secret, and a new key is the newest.
//!
//! # Caveat
//! Who is frozen for longer than a claim is respected, between the last look and the write, can make a second key. That
//! is one key more than was due; nothing sealed is lost by it.

use std::{fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{
    KeyError, KeyOrder, Keyring, retry_delay,
    set::{KeySet, SealingKey},
    store::{Claim, NewKey},
};

/// Where the time comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// Another clock than the system's.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// The clock may be set and the lease may be won at any time: it is looked at again after this long.
const LONGEST_NAP: Duration = Duration::from_secs(30);

/// Why a key is made now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reason {
    /// It is due.
    Due,
    /// Somebody asked.
    Asked,
}

/// How an attempt to make a key ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// It is there.
    Made,
    /// It was not due any more, or other keys came and went meanwhile: what is due is to be told anew.
    NotMade,
}

/// When keys are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// The longest that a key seals.
    pub(super) period: Option<Duration>,
    /// Keys from before this do not seal after it.
    pub(super) cutoff: Option<Timestamp>,
    pub(super) order: KeyOrder,
}

impl Schedule {
    /// When the next key is due; none for never.
    pub(super) fn due(&self, keys: &KeySet, now: Timestamp) -> Option<Timestamp> {
        let made = keys.iter().filter(|key| key.sealing_certificate().is_some()).map(|key| self.made(key, now)).max();
        let Some(made) = made else { return Some(now) };
        let by_age = self.period.and_then(|period| made.checked_add(SignedDuration::try_from(period).ok()?).ok());
        let by_cutoff = self.cutoff.filter(|cutoff| made < *cutoff);
        by_age.into_iter().chain(by_cutoff).min()
    }

    /// When a key was made, as far as that can be in the past.
    fn made(&self, key: &SealingKey, now: Timestamp) -> Timestamp {
        [key.time(self.order), key.created].into_iter().find(|time| *time <= now).unwrap_or(now)
    }

    /// The start of a new key's validity: now, or later if that makes it the newest.
    pub(super) fn not_before(keys: &KeySet, now: Timestamp) -> Timestamp {
        let newest = keys.certificate().and_then(|newest| newest.not_before().checked_add(ONE_SECOND).ok());
        newest.into_iter().fold(now, Timestamp::max)
    }
}

/// Certificates tell no shorter times.
const ONE_SECOND: SignedDuration = SignedDuration::from_secs(1);

impl Keyring {
    /// Asks for a new key now, whatever the schedule says.
    pub fn renew_now(&self) {
        self.0.asked.notify_one();
    }

    /// Makes keys as they become due.
    pub(super) async fn renew(&self) {
        let mut changes = self.changes();
        let mut schedule = self.schedule();
        let mut quiet_until = Instant::now();
        let (mut asked, mut failures) = (false, 0);
        let leadership = self.0.store.leadership();
        let mut stands_by = !leadership.leads();
        loop {
            changes.borrow_and_update();
            let due = self.is_due(schedule) && (Instant::now() >= quiet_until || self.certificate().is_none());
            let reason = if asked { Reason::Asked } else { Reason::Due };
            if (asked || due) && leadership.leads() {
                match self.make(schedule, reason).await {
                    Ok(outcome) => {
                        (asked, failures) = (false, 0);
                        if outcome == Outcome::Made {
                            // One key answers it.
                            schedule.cutoff = schedule.cutoff.filter(|cutoff| *cutoff > self.now());
                            quiet_until = Instant::now() + schedule.period.unwrap_or_default();
                        }
                    }
                    Err(error) => {
                        failures += 1;
                        warn!(%error, "no new sealing key was made; it is tried again");
                    }
                }
            } else if asked {
                asked = false;
                warn!("this replica stands by and makes no keys: ask the leader for a new one");
            }
            let nap = match failures {
                0 if leadership.leads() => self.nap(schedule, quiet_until),
                0 => LONGEST_NAP,
                failures => retry_delay(failures),
            };
            tokio::select! {
                () = self.0.asked.notified() => asked = true,
                _ = changes.changed() => {}
                () = leadership.begun(), if stands_by => {
                    stands_by = false;
                    // What was found out before could not be told.
                    self.key_set().malformed().iter().for_each(|secret| self.0.store.tell(secret));
                }
                () = sleep(nap) => {}
            }
        }
    }

    /// Makes the first key.
    pub(super) async fn make_first(&self) -> Result<(), KeyError> {
        self.make(self.schedule(), Reason::Due).await.map(drop)
    }

    pub(super) async fn make(&self, schedule: Schedule, reason: Reason) -> Result<Outcome, KeyError> {
        // What others did meanwhile counts.
        self.reload().await?;
        if reason == Reason::Due && !self.is_due(schedule) {
            return Ok(Outcome::NotMade);
        }
        self.0.store.may_make()?;
        let before = self.key_set();
        let new = self.0.store.generate(Schedule::not_before(&before, self.now())).await?;
        // Not before: making a key takes seconds.
        let claim = self.0.store.claim().await?;
        let written = self.write_unless_changed(&before, &new, &claim).await;
        self.0.store.release(claim).await;
        let outcome = written?;
        self.reload().await?;
        Ok(outcome)
    }

    /// Writes a new key that succeeds the newest one of `before`, if that still is the newest.
    async fn write_unless_changed(&self, before: &KeySet, new: &NewKey, claim: &Claim) -> Result<Outcome, KeyError> {
        self.reload().await?;
        if self.key_set().newest() != before.newest() || !claim.is_valid() {
            return Ok(Outcome::NotMade);
        }
        self.0.store.write(new).await?;
        Ok(Outcome::Made)
    }

    pub(super) fn schedule(&self) -> Schedule {
        let options = self.0.store.options();
        Schedule { period: options.renew_period, cutoff: options.cutoff, order: options.order }
    }

    fn is_due(&self, schedule: Schedule) -> bool {
        let now = self.now();
        schedule.due(&self.key_set(), now).is_some_and(|due| due <= now)
    }

    fn nap(&self, schedule: Schedule, quiet_until: Instant) -> Duration {
        let now = self.now();
        let due = schedule.due(&self.key_set(), now).map(|due| due.duration_since(now));
        let left = due.map_or(LONGEST_NAP, |left| Duration::try_from(left).unwrap_or_default());
        let quiet = quiet_until.saturating_duration_since(Instant::now());
        // Never none: what is due and cannot be done is looked at again.
        left.max(quiet).clamp(Duration::from_millis(100), LONGEST_NAP)
    }

    fn now(&self) -> Timestamp {
        self.0.store.options().clock.now()
    }
}
