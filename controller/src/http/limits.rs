//! Limits: requests per second of one client, as in Sealed Secrets, and how many requests wait at the same time.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::HttpState;
use crate::rate::{Due, Rate, Turn};

/// How many clients are remembered, the same number as in Sealed Secrets. All further clients share one limit.
const CLIENTS: usize = 65536;
/// How long a request waits for its turn before it is refused. Because requests wait, a script that processes a folder
/// file by file becomes slower, but does not fail.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many requests may wait at the same time. There is a limit, because a waiting request holds a connection that
/// others may need.
const WAITING: usize = 32;

/// Limits the requests per second for each path and client, and the number of requests that wait.
pub(super) struct Limits {
    rate: Rate,
    burst: u32,
    clients: Mutex<HashMap<u64, Due>>,
    hasher: RandomState,
    waiting: Semaphore,
}

impl Limits {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        Self {
            rate: Rate::new(per_second.into(), burst),
            burst,
            clients: Mutex::default(),
            hasher: RandomState::new(),
            waiting: Semaphore::new(WAITING),
        }
    }

    fn turn(&self, path: &str, client: IpAddr, now: Instant, patience: Duration) -> Turn {
        let mut id = self.hasher.hash_one((path, client));
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS && !clients.contains_key(&id) {
            clients.retain(|_, due| !due.is_over(now));
            if clients.len() >= CLIENTS {
                id = 0;
            }
        }
        self.rate.request(clients.entry(id).or_insert_with(|| Due::new(now)), now, patience)
    }
}

/// Lets a request wait for its turn, or refuses it with status 429 and the time after which to try again, as Sealed
/// Secrets does.
pub(super) async fn limited(
    State(state): State<HttpState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let client = state.proxies.client(peer.ip(), request.headers());
    let limits = &state.inquiries.limits;
    let place = limits.waiting.try_acquire();
    let patience = if place.is_ok() { PATIENCE } else { Duration::ZERO };
    let turn = limits.turn(request.uri().path(), client, Instant::now(), patience);
    let mut response = match turn.wait {
        Ok(wait) => {
            sleep(wait).await;
            drop(place);
            next.run(request).await
        }
        Err(wait) => {
            let retry_after = [("retry-after", seconds(wait).to_string())];
            (StatusCode::TOO_MANY_REQUESTS, retry_after, "limit exceeded\n").into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", limits.burst.saturating_add(1).into());
    headers.insert("x-ratelimit-remaining", turn.remaining.into());
    headers.insert("x-ratelimit-reset", seconds(turn.reset).into());
    response
}

/// `duration` in seconds, rounded up.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: usize) -> IpAddr {
        IpAddr::from(u128::try_from(number).unwrap().to_be_bytes())
    }

    #[test]
    fn paths_and_clients_have_their_own_limits() {
        let limits = Limits::new(1, 0);
        let now = Instant::now();
        let is_allowed = |path, number| limits.turn(path, client(number), now, Duration::ZERO).wait.is_ok();
        assert!(is_allowed("/v1/verify", 1));
        assert!(!is_allowed("/v1/verify", 1));
        assert!(is_allowed("/v1/rotate", 1));
        assert!(is_allowed("/v1/verify", 2));
    }

    #[test]
    fn many_clients_fill_no_memory() {
        let limits = Limits::new(1, 0);
        let now = Instant::now();
        for number in 0..CLIENTS + 100 {
            limits.turn("/v1/verify", client(number), now, Duration::ZERO);
        }
        assert!(limits.clients.lock().unwrap().len() <= CLIENTS + 1);
        assert!(
            limits.turn("/v1/verify", client(CLIENTS + 200), now, Duration::ZERO).wait.is_err(),
            "they share one limit"
        );
        let later = now + Duration::from_secs(2);
        assert!(limits.turn("/v1/verify", client(CLIENTS + 300), later, Duration::ZERO).wait.is_ok());
        assert_eq!(limits.clients.lock().unwrap().len(), 1, "who is long gone is forgotten");
    }
}
