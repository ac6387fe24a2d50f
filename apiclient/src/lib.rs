//! A client of the API server that never waits for ever.
//!
//! # Guarantees
//! - Every request has a deadline, which includes the body of its answer ([`Deadlines::answer`]). At the deadline, the
//!   request fails with [`NoAnswer`].
//! - For a watch, this deadline holds until the API server begins to answer. From then on, the watch may be silent only
//!   for a little longer than the time between two bookmarks of the API server. A watch that is silent for longer ends
//!   as if the API server had ended it, and can be continued from its last event.
//! - A request that may be sent twice is sent again on another connection if its answer is late
//!   ([`Deadlines::repeat`]). So a lost answer delays the request by a few seconds only, and a slow admission webhook
//!   can still answer the first request until its deadline.
//! - If the other end of a connection is gone, TCP keepalive notices it within half a minute.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod deadline;
mod silence;
pub mod words;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt, DynBody, retry::RetryPolicy},
};
use tower::{
    BoxError, ServiceBuilder, ServiceExt as _,
    buffer::Buffer,
    layer::layer_fn,
    retry::RetryLayer,
    util::{BoxCloneSyncService, MapErrLayer},
};

pub use self::{
    deadline::{Answer, Deadline, Deadlines, MayWrite, NoAnswer, Repeats},
    silence::Silence,
};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// After this time of silence, TCP sends a keepalive probe to find out whether the other end is alive.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The time between two keepalive probes without an answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// After this number of keepalive probes without an answer, the connection is closed.
const KEEPALIVE_RETRIES: u32 = 3;
/// If data is not acknowledged within this time, the connection is closed.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
/// If the cluster is reached through a proxy: how many requests can wait in the client until it begins to send them,
/// one after another.
const QUEUE: usize = 1024;

/// Sends requests, without deadlines.
pub type Sender = BoxCloneSyncService<Request<Body>, Response<Box<DynBody>>, BoxError>;
/// A client to which layers can still be added.
pub type Builder = ClientBuilder<Deadline<Sender>>;

/// Begins a client for the cluster of `config`. The timeouts and retries in `config` are not used. This function must
/// be called inside a Tokio runtime.
///
/// # Errors
/// `config` has a certificate or a key that cannot be used, or a kind of proxy that is not supported.
pub fn builder(mut config: Config, deadlines: Deadlines) -> kube::Result<Builder> {
    config.default_retry = false;
    config.read_timeout = None;
    config.write_timeout = None;
    let sender = if config.proxy_url.is_some() {
        let cloned = layer_fn(|service| BoxCloneSyncService::new(Buffer::new(service, QUEUE)));
        ClientBuilder::try_from(config)?.with_layer(&cloned)
    } else {
        let namespace = config.default_namespace.clone();
        ClientBuilder::new(direct(&config)?, namespace)
    };
    Ok(sender.with_layer(&layer_fn(|sender| Deadline::new(sender, deadlines.clone()))))
}

/// A client for programs that a person waits for, with the retries of `config`. A request that gets no answer fails
/// with [`NoConnection`], whose message names the server as `server`.
///
/// # Errors
/// As for [`builder`].
pub fn for_people(config: Config, server: &str) -> kube::Result<Client> {
    let retries = config.default_retry;
    let server: Arc<str> = server.into();
    let named =
        MapErrLayer::new(move |source: BoxError| BoxError::from(NoConnection { server: server.clone(), source }));
    let builder = builder(config, Deadlines::for_people())?;
    if !retries {
        return Ok(builder.with_layer(&named).build());
    }
    Ok(builder.with_layer(&RetryLayer::new(RetryPolicy::server_retry())).with_layer(&named).build())
}

/// A request had no answer, or only a part of one.
#[derive(Debug, thiserror::Error)]
#[error("no connection to {server}")]
pub struct NoConnection {
    /// How messages name the server.
    pub server: Arc<str>,
    /// The cause.
    source: BoxError,
}

/// A sender without a proxy.
fn direct(config: &Config) -> kube::Result<Sender> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    // A request is sent in small parts. Without this option, the last part waits up to 40 ms until the part before it
    // is acknowledged.
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let connector = config.rustls_https_connector_with_connector(tcp)?;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http)
        .map_response(|answer: Response<_>| {
            answer.map(|body: hyper::body::Incoming| Box::new(body.map_err(BoxError::from)) as Box<DynBody>)
        });
    Ok(BoxCloneSyncService::new(service))
}
