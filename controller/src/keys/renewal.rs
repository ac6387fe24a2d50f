//! When a new sealing key is made, and which replica makes it.
//!
//! A new key is due if the age of the newest key reaches `--key-renew-period`, if the newest key was made before
//! `--key-cutoff-time`, if somebody asks for a key (SIGUSR1), or if no key can seal. The age of a key is that of its
//! certificate or of its Secret; the same flag that orders the keys decides which of the two. So a restart neither
//! skips a renewal nor repeats one.
//!
//! # Guarantees
//! - If several replicas want to make a key at the same time, only one key is made. Only the leader makes keys, and
//!   only the replica that holds the claim ([`Store::claim`](super::store::Store::claim)) writes a key, after it has
//!   checked again that a key is due.
//! - The name of a key is computed from its certificate. So the name of a deleted key is not used again, and a backup
//!   can be applied at any time without overwriting another key.
//! - Wrong clocks do no harm: by schedule, a process makes at most one key per period. If the validity of a key's
//!   certificate begins in the future, the age of its Secret is used. A new key is always the newest.
//!
//! # Caveat
//! If a replica is frozen between its last check and its write, and for longer than its claim holds, a second key can
//! be made. This is one key more than necessary, but no sealed value is lost.

use std::{fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{
    KeyError, KeyOrder, Keyring, retry_delay,
    set::{KeySet, SealingKey},
    store::{Claim, NewKey},
};

/// The source of the current time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock other than the system's.
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

/// The longest pause between two checks whether a key is due. The pause is limited, because the clock may be changed,
/// and this replica may become the leader, at any time.
const LONGEST_NAP: Duration = Duration::from_secs(30);

/// Why a key is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reason {
    /// A key is due by the schedule.
    Due,
    /// Somebody asked for a key.
    Asked,
}

/// How an attempt to make a key ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The key was made.
    Made,
    /// The key was no longer due, or other keys were added or removed in the meantime. The caller must compute again
    /// when the next key is due.
    NotMade,
}

/// The schedule of keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// The age at which a key is replaced; `None` for never.
    pub(super) period: Option<Duration>,
    /// Keys that were made before this time are replaced.
    pub(super) cutoff: Option<Timestamp>,
    pub(super) order: KeyOrder,
}

impl Schedule {
    /// When the next key is due; `None` for never.
    pub(super) fn due(&self, keys: &KeySet, now: Timestamp) -> Option<Timestamp> {
        let made = keys.iter().filter(|key| key.sealing_certificate().is_some()).map(|key| self.made(key, now)).max();
        let Some(made) = made else { return Some(now) };
        let by_age = self.period.and_then(|period| made.checked_add(SignedDuration::try_from(period).ok()?).ok());
        let by_cutoff = self.cutoff.filter(|cutoff| made < *cutoff);
        by_age.into_iter().chain(by_cutoff).min()
    }

    /// When a key was made. If the validity of its certificate begins in the future, this is the time at which its
    /// Secret was created.
    fn made(&self, key: &SealingKey, now: Timestamp) -> Timestamp {
        [key.time(self.order), key.created].into_iter().find(|time| *time <= now).unwrap_or(now)
    }

    /// The start of a new key's validity: now, or later if the key would not be the newest otherwise.
    pub(super) fn not_before(keys: &KeySet, now: Timestamp) -> Timestamp {
        let newest = keys.certificate().and_then(|newest| newest.not_before().checked_add(ONE_SECOND).ok());
        newest.into_iter().fold(now, Timestamp::max)
    }
}

/// The smallest difference between two times in certificates, which have whole seconds.
const ONE_SECOND: SignedDuration = SignedDuration::from_secs(1);

impl Keyring {
    /// Requests a new key now, even if none is due.
    pub fn renew_now(&self) {
        self.0.asked.notify_one();
    }

    /// Makes keys when they are due.
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
                            // One new key is enough for the cutoff, so the cutoff is not used again.
                            schedule.cutoff = schedule.cutoff.filter(|cutoff| *cutoff > self.now());
                            quiet_until = Instant::now() + schedule.period.unwrap_or_default();
                        }
                    }
                    Err(error) => {
                        failures += 1;
                        warn!(%error, "making a new sealing key failed; the controller tries again");
                    }
                }
            } else if asked {
                asked = false;
                warn!("this replica stands by and makes no keys: ask the leader for a new key");
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
                    // This replica has just become the leader. Malformed keys that it found before are reported now,
                    // because only the leader writes events.
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
        // Other replicas may have made a key in the meantime.
        self.reload().await?;
        if reason == Reason::Due && !self.is_due(schedule) {
            return Ok(Outcome::NotMade);
        }
        self.0.store.may_make()?;
        let before = self.key_set();
        let new = self.0.store.generate(Schedule::not_before(&before, self.now())).await?;
        // The claim is made only after the key was generated, because generating a key takes seconds.
        let claim = self.0.store.claim().await?;
        let written = self.write_unless_changed(&before, &new, &claim).await;
        self.0.store.release(claim).await;
        let outcome = written?;
        self.reload().await?;
        Ok(outcome)
    }

    /// Writes a new key, if the newest key in `before` still is the newest one.
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
        // The result is never zero, so that there is a pause even if a key is due and cannot be made.
        left.max(quiet).clamp(Duration::from_millis(100), LONGEST_NAP)
    }

    fn now(&self) -> Timestamp {
        self.0.store.options().clock.now()
    }
}
