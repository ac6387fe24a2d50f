//! Decides whether there is anything to do for a Sync. The decision is a pure function.

use tokio::time::Instant;

/// The facts about a Sync at the beginning of a reconcile.
#[derive(Clone, Debug)]
pub(super) struct Situation<'a> {
    /// The current time.
    pub(super) now: Instant,
    /// Whether the spec of the Sync was edited since the last pass.
    pub(super) is_edited: bool,
    /// Whether objects of the Sync drifted.
    pub(super) has_drift: bool,
    /// Whether somebody requested a reconcile, and the request is not answered yet.
    pub(super) is_asked: bool,
    /// Whether something has happened that the Sync waited for: for example, a sealing key was added, another Sync
    /// released an object, or the objects that the next wave waits for are healthy.
    pub(super) is_woken: bool,
    /// Whether the prune that waits was confirmed.
    pub(super) is_confirmed: bool,
    /// The content that Git has now.
    pub(super) wanted: &'a str,
    /// The content that was applied completely, or up to the waves that wait until objects are healthy. `None` after a
    /// failure.
    pub(super) applied: Option<&'a str>,
    /// The content whose last pass failed.
    pub(super) failed: Option<&'a str>,
    /// When the failed content is tried again.
    pub(super) retry_at: Option<Instant>,
    /// When the whole folder is compared with the cluster again in any case.
    pub(super) compare_at: Instant,
    /// Whether the health of objects is awaited.
    pub(super) awaits_health: bool,
    /// Whether later waves wait for some of these objects.
    pub(super) next_wave_waits: bool,
}

/// The decision: what to do with the Sync.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decision {
    /// A pass over the whole folder.
    Pass,
    /// Only the objects that drifted are put back.
    Heal,
    /// The health of the awaited objects is checked.
    PollHealth {
        /// When a pass is due.
        next: Option<Instant>,
    },
    /// Nothing is to be done, except to answer a request.
    Rest {
        /// When a pass is due.
        next: Option<Instant>,
    },
}

/// Decides what to do with the Sync. Makes no requests.
pub(super) fn decide(now: &Situation<'_>) -> Decision {
    let is_applied = now.applied == Some(now.wanted);
    let is_retry = now.failed == Some(now.wanted);
    let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.now);
    if now.is_edited || now.is_confirmed || now.is_woken || now.is_asked && now.applied.is_none() {
        return Decision::Pass;
    }
    if !is_applied {
        let is_new = !is_retry;
        return if is_new || now.has_drift || is_due(now.retry_at) {
            Decision::Pass
        } else if now.next_wave_waits {
            Decision::PollHealth { next: now.retry_at }
        } else {
            Decision::Rest { next: now.retry_at }
        };
    }
    if is_due(Some(now.compare_at)) {
        Decision::Pass
    } else if now.has_drift {
        Decision::Heal
    } else if now.awaits_health {
        Decision::PollHealth { next: Some(now.compare_at) }
    } else {
        Decision::Rest { next: Some(now.compare_at) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A Sync that is applied and healthy, with nothing new.
    fn quiet() -> Situation<'static> {
        let now = Instant::now();
        Situation {
            now,
            is_edited: false,
            has_drift: false,
            is_asked: false,
            is_woken: false,
            is_confirmed: false,
            wanted: "a",
            applied: Some("a"),
            failed: None,
            retry_at: None,
            compare_at: now + Duration::from_secs(600),
            awaits_health: false,
            next_wave_waits: false,
        }
    }

    #[test]
    fn every_situation_has_one_decision() {
        let rest = |next| Decision::Rest { next };
        let quiet = quiet();
        // A Sync whose last try with the newest content failed, and whose next try is not due yet.
        let failed = Situation {
            applied: None,
            failed: Some("a"),
            retry_at: Some(quiet.now + Duration::from_secs(60)),
            ..quiet.clone()
        };
        let due = Some(quiet.now);
        let look = Some(quiet.compare_at);
        let cases = [
            ("nothing new", quiet.clone(), rest(look)),
            ("never applied", Situation { applied: None, ..quiet.clone() }, Decision::Pass),
            ("a commit", Situation { wanted: "b", ..quiet.clone() }, Decision::Pass),
            ("an edit", Situation { is_edited: true, ..quiet.clone() }, Decision::Pass),
            ("drift", Situation { has_drift: true, ..quiet.clone() }, Decision::Heal),
            ("drift and a commit", Situation { has_drift: true, wanted: "b", ..quiet.clone() }, Decision::Pass),
            ("drift and an edit", Situation { has_drift: true, is_edited: true, ..quiet.clone() }, Decision::Pass),
            ("asked, and all is applied", Situation { is_asked: true, ..quiet.clone() }, rest(look)),
            ("the interval", Situation { compare_at: quiet.now, ..quiet.clone() }, Decision::Pass),
            (
                "the interval and drift",
                Situation { compare_at: quiet.now, has_drift: true, ..quiet.clone() },
                Decision::Pass,
            ),
            (
                "health is awaited",
                Situation { awaits_health: true, ..quiet.clone() },
                Decision::PollHealth { next: look },
            ),
            ("health and drift", Situation { awaits_health: true, has_drift: true, ..quiet.clone() }, Decision::Heal),
            ("woken: an object was let go for it", Situation { is_woken: true, ..quiet.clone() }, Decision::Pass),
            ("failed", failed.clone(), rest(failed.retry_at)),
            ("failed, and time to retry", Situation { retry_at: due, ..failed.clone() }, Decision::Pass),
            ("failed, and another commit", Situation { wanted: "b", ..failed.clone() }, Decision::Pass),
            ("failed, and asked", Situation { is_asked: true, ..failed.clone() }, Decision::Pass),
            ("failed, and woken", Situation { is_woken: true, ..failed.clone() }, Decision::Pass),
            ("failed, and drift", Situation { has_drift: true, ..failed.clone() }, Decision::Pass),
            ("a confirmed prune", Situation { is_confirmed: true, ..failed.clone() }, Decision::Pass),
            ("failed, health is awaited", Situation { awaits_health: true, ..failed.clone() }, rest(failed.retry_at)),
            (
                "an object was held back, and the next wave waits for others",
                Situation { awaits_health: true, next_wave_waits: true, ..failed.clone() },
                Decision::PollHealth { next: failed.retry_at },
            ),
            (
                "the next wave waits, and a newer commit",
                Situation { awaits_health: true, next_wave_waits: true, wanted: "b", ..quiet.clone() },
                Decision::Pass,
            ),
            (
                "the next wave waits, and its turn comes",
                Situation { awaits_health: true, is_woken: true, ..quiet.clone() },
                Decision::Pass,
            ),
            (
                "the next wave waits, and drift",
                Situation { awaits_health: true, next_wave_waits: true, has_drift: true, ..quiet.clone() },
                Decision::Heal,
            ),
            (
                "failed with another content, then taken back",
                Situation { applied: Some("a"), failed: Some("b"), ..failed.clone() },
                rest(look),
            ),
        ];
        for (name, situation, decision) in cases {
            assert_eq!(decide(&situation), decision, "{name}");
        }
    }
}
