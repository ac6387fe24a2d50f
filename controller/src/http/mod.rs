//! The controller's HTTP endpoints.
//!
//! On the first address: `/healthz` (the process answers), `/readyz` (every gate of [`Readiness`] is open),
//! `/v1/cert.pem` (the certificate to seal with, as kubeseal fetches it), `/v1/verify` and `/v1/rotate` (as kubeseal
//! uses them), `/v1/which` and `/v1/keys` (which keys are still needed). On the second: `/metrics`. On the third the two
//! probes once more, so that whatever happens on the first one is no reason to restart the controller.
//!
//! Nothing here needs to know who asks: no answer holds anything but public keys, sealed values and numbers. Connections
//! are bounded in number and in time, by peer as well, and who waits gives way to who comes ([`places`]), so that a client
//! that sends or reads nothing takes nobody's place.

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

/// What the endpoints show; clones share it.
#[derive(Clone)]
pub struct HttpState {
    /// The sealing keys, from the moment they are loaded: the endpoints answer before.
    pub keyring: Arc<OnceLock<Keyring>>,
    /// Whether the controller does its work.
    pub readiness: Readiness,
    /// What it counted.
    pub metrics: Metrics,
    /// How long a client may take.
    pub timeouts: Timeouts,
    /// How questions about sealed values are answered.
    pub inquiries: Arc<Inquiries>,
    /// Who is believed for whom he asks.
    pub proxies: Proxies,
}

/// How long a client may take: `--read-timeout` and `--write-timeout`; zero for no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// To send a request; its head, never more than ten seconds.
    pub read: Duration,
    /// To take an answer.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { read: Duration::from_secs(120), write: Duration::from_secs(120) }
    }
}

/// Where to listen, in Go's form: `:8080`, `127.0.0.1:8080`, port 0 for any free one.
#[derive(Clone, Copy, Debug)]
pub struct Listen<'a> {
    /// For everything but metrics.
    pub api: &'a str,
    /// For `/metrics`.
    pub metrics: &'a str,
    /// For `/healthz` and `/readyz` alone.
    pub probes: &'a str,
}

/// The running servers.
#[derive(Debug)]
pub struct Servers {
    /// Where `/healthz`, `/readyz` and `/v1/cert.pem` are.
    pub address: SocketAddr,
    /// Where `/metrics` is.
    pub metrics_address: SocketAddr,
    /// Where `/healthz` and `/readyz` are once more.
    pub probes_address: SocketAddr,
    tasks: [JoinHandle<()>; 3],
}

impl Servers {
    /// Waits until all servers have ended: after the shutdown, when the last answer is out.
    pub async fn ended(self) {
        for task in self.tasks {
            // A panic in there is reported by the panic hook; there is nothing to add at the end.
            let _ = task.await;
        }
    }
}

/// Listens on all addresses and answers until `shutdown`.
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

/// Prometheus asks for OpenMetrics; who does not gets what the Sealed Secrets controller gives.
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

/// A path as a label: only known ones, or a client could fill the memory with labels.
fn path_label(path: &str) -> &'static str {
    PATHS.into_iter().find(|known| *known == path).unwrap_or("other")
}

/// A method as a label, spelled as by the Sealed Secrets controller.
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
