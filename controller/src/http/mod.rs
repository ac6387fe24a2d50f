//! The controller's HTTP endpoints.
//!
//! The first address has `/healthz` (the process answers), `/readyz` (every gate of [`Readiness`] is open),
//! `/v1/cert.pem` (the certificate to seal with, as kubeseal fetches it), `/v1/verify` and `/v1/rotate` (as kubeseal
//! uses them), `/v1/which` and `/v1/keys` (which keys are still needed). The second address has `/metrics`. The third
//! address has `/healthz` and `/readyz` again, so that problems on the first address do not restart the controller.
//!
//! No endpoint needs to know who asks, because answers contain only public keys, sealed values and numbers. The number
//! of all connections, the number of connections of one peer, and the time of each connection are limited. If there are
//! too many connections, a new one takes the place of an idle one ([`places`]), so that a client that neither sends nor
//! reads cannot block others.

mod clients;
mod inquiries;
mod limits;
mod listen;
mod places;
mod readiness;
mod request;
mod server;

#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::limits::limited;
pub use self::{clients::Proxies, inquiries::Inquiries, listen::ListenError, readiness::Readiness};
use crate::{
    keys::Keyring,
    metrics::{CONTENT_TYPE, Metrics, TEXT_CONTENT_TYPE},
};

/// The data that the endpoints show. Clones share the data.
#[derive(Clone)]
pub struct HttpState {
    /// The sealing keys, as soon as they are loaded. The endpoints already answer before the keys are loaded.
    pub keyring: Arc<OnceLock<Keyring>>,
    /// Says whether the controller is ready.
    pub readiness: Readiness,
    /// The metrics.
    pub metrics: Metrics,
    /// How long a client may take to send a request, and to read an answer.
    pub timeouts: Timeouts,
    /// Answers questions about sealed values.
    pub inquiries: Arc<Inquiries>,
    /// The proxies whose `X-Forwarded-For` is used.
    pub proxies: Proxies,
}

/// How long a client may take: `--read-timeout` and `--write-timeout`. Zero means no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// How long a client may take to send a request. The headers of a request must arrive within ten seconds in any
    /// case.
    pub read: Duration,
    /// How long a client may take to read an answer.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { read: Duration::from_secs(120), write: Duration::from_secs(120) }
    }
}

/// The addresses to listen on, written as for Go programs: `:8080`, `127.0.0.1:8080`. Port 0 means any free port.
#[derive(Clone, Copy, Debug)]
pub struct Listen<'a> {
    /// The address for everything but metrics.
    pub api: &'a str,
    /// The address for `/metrics`.
    pub metrics: &'a str,
    /// The address for `/healthz` and `/readyz`, and for nothing else.
    pub probes: &'a str,
}

/// The running servers.
#[derive(Debug)]
pub struct Servers {
    /// The address of `/healthz`, `/readyz` and `/v1/`.
    pub address: SocketAddr,
    /// The address of `/metrics`.
    pub metrics_address: SocketAddr,
    /// The address that has only `/healthz` and `/readyz`.
    pub probes_address: SocketAddr,
    tasks: [JoinHandle<()>; 3],
}

impl Servers {
    /// Waits until all servers have ended. They end after the shutdown began, when the last answer was sent.
    pub async fn ended(self) {
        for task in self.tasks {
            // The panic hook has already reported a panic of the task.
            let _ = task.await;
        }
    }
}

/// Listens on the three addresses, and answers until `shutdown` is cancelled.
pub async fn serve(listen: Listen<'_>, state: HttpState, shutdown: CancellationToken) -> Result<Servers, ListenError> {
    let (listener, address) = listen::bind(listen.api).await?;
    let (metrics_listener, metrics_address) = listen::bind(listen.metrics).await?;
    let (probes_listener, probes_address) = listen::bind(listen.probes).await?;
    let timeouts = state.timeouts;
    let start = |listener, router| tokio::spawn(server::run(listener, router, timeouts, shutdown.clone()));
    let tasks = [
        start(listener, api(state.clone())),
        start(metrics_listener, metrics_only(state.clone())),
        start(probes_listener, probes_only(state)),
    ];
    Ok(Servers { address, metrics_address, probes_address, tasks })
}

fn api(state: HttpState) -> Router {
    let inquiries = Router::new()
        .route("/v1/verify", post(inquiries::verify))
        .route("/v1/rotate", post(inquiries::rotate))
        .route("/v1/which", post(inquiries::which))
        .route("/v1/keys", get(inquiries::keys))
        .route_layer(from_fn_with_state(state.clone(), limited))
        .layer(DefaultBodyLimit::max(request::MAX_BYTES));
    probes()
        .merge(inquiries)
        .route("/v1/cert.pem", get(certificate))
        .fallback(async || (StatusCode::NOT_FOUND, "not found\n"))
        .layer(from_fn_with_state(state.clone(), measured))
        .with_state(state)
}

fn probes() -> Router<HttpState> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

fn probes_only(state: HttpState) -> Router {
    probes().layer(from_fn_with_state(state.clone(), measured)).with_state(state)
}

fn metrics_only(state: HttpState) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(state)
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(state): State<HttpState>) -> Response {
    let missing = state.readiness.missing();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", "))).into_response()
}

async fn certificate(State(state): State<HttpState>) -> Response {
    match state.keyring.get().and_then(Keyring::certificate) {
        Some(certificate) => ([(header::CONTENT_TYPE, "application/x-pem-file")], certificate.to_pem()).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the sealing keys are not loaded yet\n").into_response(),
    }
}

/// Answers with the metrics. Clients that accept the format OpenMetrics, for example Prometheus, get this format; all
/// others get the format of the Sealed Secrets controller.
async fn metrics(State(state): State<HttpState>, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepts.contains("application/openmetrics-text") {
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], state.metrics.encode()).into_response()
    } else {
        ([(header::CONTENT_TYPE, TEXT_CONTENT_TYPE)], state.metrics.encode_text()).into_response()
    }
}

async fn measured(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let (path, method) = (path_label(request.uri().path()), method_label(request.method()));
    let response = next.run(request).await;
    state.metrics.http_request(path, method, response.status().as_u16(), start.elapsed());
    response
}

const PATHS: [&str; 7] = ["/healthz", "/readyz", "/v1/cert.pem", "/v1/keys", "/v1/rotate", "/v1/verify", "/v1/which"];

/// A path as the value of a label. All unknown paths have the same value. Otherwise, a client could fill the memory
/// with invented paths.
fn path_label(path: &str) -> &'static str {
    PATHS.into_iter().find(|known| *known == path).unwrap_or("other")
}

/// A method as the value of a label, spelled as in the metrics of the Sealed Secrets controller.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "unknown",
    }
}
