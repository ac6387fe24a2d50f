//! Requests for a pass. Each new value of the annotation `gitseal.dev/reconcile-requested-at` is a request.
//!
//! A request ends the pauses of its Sync: the pause before the next try, and the pauses of objects that somebody keeps
//! changing. If every request did this, anybody who may edit the Sync could keep the controller busy all the time. So a
//! request that comes too soon after another one has to wait, if there is a pause that it would end.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two requests of a Sync that end its pauses.
const APART: Duration = Duration::from_secs(10);

/// The last request that ended the pauses of a Sync.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    last: Option<(String, Instant)>,
}

impl Requests {
    /// Lets `request` end the pauses, unless it comes too soon after another request.
    pub(super) fn admit(&mut self, request: &str, now: Instant) {
        if !self.is_admitted(request) && self.due().is_none_or(|due| due <= now) {
            self.last = Some((request.to_owned(), now));
        }
    }

    /// Whether `request` was the last request that was allowed to end the pauses.
    pub(super) fn is_admitted(&self, request: &str) -> bool {
        self.last.as_ref().is_some_and(|(last, _)| last == request)
    }

    /// When the next request may end the pauses; `None` if it may at any time.
    pub(super) fn due(&self) -> Option<Instant> {
        self.last.as_ref().map(|(_, at)| *at + APART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_end_the_pauses_once_in_ten_seconds() {
        let (mut requests, start) = (Requests::default(), Instant::now());
        let mut admitted = 0;
        for tenth in 0..300 {
            let (request, now) = (format!("request {tenth}"), start + Duration::from_millis(100 * tenth));
            requests.admit(&request, now);
            admitted += usize::from(requests.is_admitted(&request));
        }
        assert_eq!(admitted, 3, "in 30 s");
    }

    #[test]
    fn a_request_that_came_too_soon_is_admitted_later() {
        let (mut requests, start) = (Requests::default(), Instant::now());
        requests.admit("first", start);
        requests.admit("second", start + Duration::from_secs(1));
        assert!(requests.is_admitted("first") && !requests.is_admitted("second"));
        let due = requests.due().unwrap();
        assert_eq!(due, start + APART);
        requests.admit("second", due);
        assert!(requests.is_admitted("second"));
        requests.admit("second", due + APART * 2);
        assert_eq!(requests.due(), Some(due + APART), "it is the same request");
    }
}
