//! A client of the API server that never waits for ever.
//!
//! # Guarantees
//! - Every request has a deadline, the body of its answer included ([`Deadlines::answer`]). Then it fails with
//!   [`NoAnswer`].
//! - A watch has the same deadline until it begins. Then it may be silent, but not for longer than the API server's
//!   bookmarks are apart: it ends, as if the API server had ended it, and whoever watches begins where it stopped.
//! - A request that may be made twice is made once more, on another connection, when its answer is late
//!   ([`Deadlines::repeat`]): an answer that was lost costs seconds, and an admission webhook that is slow still gets
//!   all of its time.
//! - A connection whose other end is gone is noticed by TCP keepalive within half a minute.

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

/// A connection is made within this time, or not at all.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that is silent for so long is asked whether it is alive,
const KEEPALIVE: Duration = Duration::from_secs(10);
/// again after so long,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// and given up after so many questions without an answer.
const KEEPALIVE_RETRIES: u32 = 3;
/// What was sent is acknowledged within this time, or the connection is given up.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
/// Requests that wait for a service which takes one after the other.
const QUEUE: usize = 1024;

/// What sends requests, without deadlines.
pub type Sender = BoxCloneSyncService<Request<Body>, Response<Box<DynBody>>, BoxError>;
/// The beginning of a client: layers can be put around it.
pub type Builder = ClientBuilder<Deadline<Sender>>;

/// The beginning of a client for the cluster of `config`, whose own timeouts and retries are not used. It wants a Tokio
/// runtime around it.
///
/// # Errors
/// `config` cannot be used: a certificate, a key, or a kind of proxy that is not supported.
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

/// A client for programs that somebody waits for, with the retries that `config` asks for. `server` is what people call
/// the server; a request that got no answer fails with [`NoConnection`] to it.
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

/// A request got no answer, or only a part of one.
#[derive(Debug, thiserror::Error)]
#[error("no connection to {server}")]
pub struct NoConnection {
    /// What people call the server.
    pub server: Arc<str>,
    /// Why.
    source: BoxError,
}

/// Sends without a proxy in between.
fn direct(config: &Config) -> kube::Result<Sender> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    // A request is sent in small parts; without this the last one waits for the answer to the one before, up to 40 ms.
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
