//! Connections, bounded in number and in time.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::Timeouts;

/// Connections at once: a few probes, scrapers and people. More wait in the system's queue.
const CONNECTIONS: usize = 128;
/// How long answers that are under way may take after the shutdown.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A pause where accepting fails, which it does when the process is out of file descriptors.
const BREATH: Duration = Duration::from_secs(1);

/// Accepts connections until `shutdown`, then waits for the answers that are under way.
pub(super) async fn run(listener: TcpListener, router: Router, timeouts: Timeouts, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone(), timeouts, shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
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

async fn connection(stream: TcpStream, router: Router, timeouts: Timeouts, shutdown: CancellationToken) {
    let (read, write) = (limit(timeouts.read), limit(timeouts.write));
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(read)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let end = tokio::select! {
        result = connection.as_mut() => return ended(result),
        // Whoever asks on and on opens a new connection now and then; whoever takes no answer loses this one.
        () = sleep(read + write) => write,
        () = shutdown.cancelled() => LAST_ANSWERS,
    };
    connection.as_mut().graceful_shutdown();
    if let Ok(result) = timeout(end, connection).await {
        ended(result);
    }
}

/// Zero means no limit, as in Go; a day is that for everybody who behaves.
fn limit(timeout: Duration) -> Duration {
    if timeout.is_zero() { DAY } else { timeout }
}

fn ended(result: hyper::Result<()>) {
    if let Err(error) = result {
        // Clients go away; it is nobody's concern here.
        debug!(%error, "an HTTP connection broke");
    }
}
