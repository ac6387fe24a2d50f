//! Rate limits of requests, with the generic cell rate algorithm, as in Sealed Secrets. Sealed Secrets refuses a
//! request that comes too early; here, a request that comes only a little too early can wait for its turn. Turns are
//! given in the order in which requests come.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// A number of requests per second, and the burst: a number of further requests that may come at once after a pause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    interval: Duration,
    /// How far into the future the requests of a client may be scheduled: the time that the burst and one more request
    /// take.
    tolerance: Duration,
}

/// The state of one client: the time at which its next request would come if it sent exactly one request per interval.
/// Each request moves this time one interval into the future.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due(Instant);

/// What the rate limit says about a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Turn {
    /// How long the request has to wait. `Err` if this time is longer than the client's patience; such a request is not
    /// counted.
    pub(crate) wait: Result<Duration, Duration>,
    /// How many further requests may follow at once.
    pub(crate) remaining: u32,
    /// Time until the client may again send as many requests at once as before its first request.
    pub(crate) reset: Duration,
}

impl Rate {
    /// Allows `per_second` requests per second, which must be above zero, and `burst` further requests at once.
    pub(crate) fn new(per_second: f64, burst: u32) -> Self {
        // The interval is limited to a day, which avoids an overflow. A day between two requests practically means that
        // there are none.
        let interval = Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(DAY).min(DAY);
        Self { interval, tolerance: interval.saturating_mul(burst.saturating_add(1)).min(DAY * 365) }
    }

    /// Counts one more request of the client with the state `due`, and returns how long this request has to wait.
    pub(crate) fn request(&self, due: &mut Due, now: Instant, patience: Duration) -> Turn {
        let rest = due.0.saturating_duration_since(now);
        let after = rest + self.interval;
        let wait = after.saturating_sub(self.tolerance);
        if wait > patience {
            return Turn { wait: Err(wait), remaining: self.remaining(rest), reset: rest };
        }
        due.0 = now + after;
        Turn { wait: Ok(wait), remaining: self.remaining(after), reset: after }
    }

    fn remaining(&self, rest: Duration) -> u32 {
        let room = self.tolerance.saturating_sub(rest);
        u32::try_from(room.as_nanos() / self.interval.as_nanos().max(1)).unwrap_or(u32::MAX)
    }
}

/// A rate that many callers share. Each caller waits for its turn.
pub(crate) struct Turns {
    rate: Rate,
    due: Mutex<Due>,
}

impl Turns {
    /// See [`Rate::new`].
    pub(crate) fn new(per_second: f64, burst: u32) -> Self {
        Self { rate: Rate::new(per_second, burst), due: Mutex::new(Due::new(Instant::now())) }
    }

    /// Waits until it is the caller's turn.
    pub(crate) async fn next(&self) {
        let turn = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            self.rate.request(&mut due, Instant::now(), Duration::MAX)
        };
        let (Ok(wait) | Err(wait)) = turn.wait;
        sleep(wait).await;
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Due {
    /// The state of a client without requests.
    pub(crate) fn new(now: Instant) -> Self {
        Self(now)
    }

    /// Whether the state is the same as before the first request.
    pub(crate) fn is_over(self, now: Instant) -> bool {
        self.0 <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn waits(rate: Rate, times: &[u64], patience: Duration) -> Vec<Result<u128, u128>> {
        let start = Instant::now();
        let mut due = Due::new(start);
        let at = |millis: &u64| start + Duration::from_millis(*millis);
        let millis = |wait: Duration| wait.as_millis();
        times.iter().map(|time| rate.request(&mut due, at(time), patience).wait.map(millis).map_err(millis)).collect()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate::new(2.0, 2);
        let refused = waits(rate, &[0, 0, 0, 0, 400, 500, 500, 1000], Duration::ZERO);
        assert_eq!(refused, [Ok(0), Ok(0), Ok(0), Err(500), Err(100), Ok(0), Err(500), Ok(0)]);
    }

    #[test]
    fn who_is_patient_waits_in_line() {
        let rate = Rate::new(2.0, 0);
        let lined_up = waits(rate, &[0, 0, 0, 0, 0], SECOND);
        assert_eq!(lined_up, [Ok(0), Ok(500), Ok(1000), Err(1500), Err(1500)], "a refusal takes no place in the line");
    }

    #[test]
    fn what_is_left_is_told() {
        let rate = Rate::new(2.0, 2);
        let now = Instant::now();
        let mut due = Due::new(now);
        let first = rate.request(&mut due, now, Duration::ZERO);
        assert_eq!((first.remaining, first.reset), (2, SECOND / 2));
        rate.request(&mut due, now, Duration::ZERO);
        let third = rate.request(&mut due, now, Duration::ZERO);
        assert_eq!((third.remaining, third.reset), (0, SECOND * 3 / 2));
        assert!(!due.is_over(now + SECOND) && due.is_over(now + SECOND * 2));
    }

    #[test]
    fn odd_rates_are_harmless() {
        for (per_second, burst) in [(f64::INFINITY, u32::MAX), (1e-300, u32::MAX), (f64::MIN_POSITIVE, 0), (1e300, 0)] {
            let rate = Rate::new(per_second, burst);
            let now = Instant::now();
            let mut due = Due::new(now);
            for _ in 0..3 {
                rate.request(&mut due, now, SECOND);
            }
        }
    }
}
