//! Accepts connections, and limits their number and their time.

use std::{net::SocketAddr, pin::pin, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    Timeouts,
    places::{Bounds, Place, Places},
};

/// Limits for the connections of one listener. Normally there are only a few probes, scrapers and people. But all
/// clients that use the API server's proxy come from the same address, that of the API server.
const BOUNDS: Bounds = Bounds { all: 256, per_peer: 64 };
/// How long the headers of a request may take to arrive, even if `--read-timeout` is longer.
const HEAD: Duration = Duration::from_secs(10);
/// How many bytes of headers, and of a body, are read ahead. A connection without a request takes no more memory than
/// this.
const HEAD_BYTES: usize = 32 << 10;
/// How long answers may still take after the shutdown began.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The pause after a connection could not be accepted, for example because the process has no free file descriptors.
const BREATH: Duration = Duration::from_secs(1);

/// Accepts connections until `shutdown`, then waits for the answers in progress.
pub(super) async fn run(listener: TcpListener, router: Router, timeouts: Timeouts, shutdown: CancellationToken) {
    let places = Places::new(BOUNDS);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = places.take(peer.ip()) else {
                    debug!(%peer, "an HTTP connection is refused: all allowed connections are busy with requests");
                    continue;
                };
                connections.spawn(connection(stream, peer, place, router.clone(), timeouts, shutdown.clone()));
            }
            Err(error) => {
                warn!(%error, "accepting an HTTP connection failed");
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = sleep(BREATH) => {}
                }
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    router: Router,
    timeouts: Timeouts,
    shutdown: CancellationToken,
) {
    let (read, write) = (limit(timeouts.read), limit(timeouts.write));
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        if request.body().is_end_stream() {
            place.answers();
        } else {
            place.receives();
        }
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(place.clone());
        let (answer, place) = (router.call(request), place.clone());
        async move {
            let answer = answer.await;
            place.idles();
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(read.min(HEAD))
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let end = tokio::select! {
        result = connection.as_mut() => return ended(result),
        () = place.is_lost() => return debug!(%peer, "an idle HTTP connection is closed to make room for another one"),
        // The connection is closed after the sum of the read timeout and the write timeout. A client with more requests
        // opens a new connection; a client that does not read its answer loses the connection.
        () = sleep(read + write) => write,
        () = shutdown.cancelled() => LAST_ANSWERS,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        result = timeout(end, connection) => result.map_or((), ended),
        () = place.is_lost() => {}
    }
}

/// The time that a timeout flag allows. In Go, a timeout of zero means no limit. Here it means one day, which is long
/// enough for any normal client.
fn limit(timeout: Duration) -> Duration {
    if timeout.is_zero() { DAY } else { timeout }
}

fn ended(result: hyper::Result<()>) {
    if let Err(error) = result {
        // Clients may disconnect at any time, so a broken connection is not a problem.
        debug!(%error, "an HTTP connection broke");
    }
}
