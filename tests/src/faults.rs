//! A proxy in front of the API server that makes chosen requests fail.
//!
//! It speaks plain HTTP on this machine, and talks to the API server as the user of the given kubeconfig. The program
//! under test gets [`FaultProxy::kubeconfig`] instead of that kubeconfig.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use axum::body::{Body, Bytes};
use futures::{Stream, StreamExt, stream, stream::BoxStream};
use http::{Method, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The request is accepted and never answered, not even after the fault is lifted. A watch that has begun is silent
    /// from now on.
    Stall,
    /// The request waits until the fault is lifted, and so do the events of a watch, as if the network were
    /// interrupted.
    Hold,
    /// The request is passed on later.
    Delay(Duration),
    /// The connection breaks without an answer.
    Close,
    /// The request is passed on, and its answer is lost.
    LoseAnswer,
    /// The request is passed on, and the connection breaks in the middle of the answer.
    Cut,
    /// The request is passed on, and only the first half of its answer arrives.
    Half,
    /// The request is refused with this status, as by the API server.
    Refuse(u16),
}

/// The requests that get a fault. Without a condition, these are all requests.
#[derive(Clone, Debug, Default)]
pub struct Which {
    methods: Vec<Method>,
    path: Option<String>,
    not: Option<String>,
    watches: Option<bool>,
}

impl Which {
    /// All requests.
    pub fn all() -> Self {
        Self::default()
    }

    /// Requests that change something.
    pub fn writes() -> Self {
        Self { methods: vec![Method::POST, Method::PUT, Method::PATCH, Method::DELETE], ..Self::default() }
    }

    /// Requests with this method.
    pub fn method(method: Method) -> Self {
        Self { methods: vec![method], ..Self::default() }
    }

    /// Watches.
    pub fn watches() -> Self {
        Self { watches: Some(true), ..Self::default() }
    }

    /// Only requests without this text in path and query.
    #[must_use]
    pub fn without(mut self, part: impl Into<String>) -> Self {
        self.not = Some(part.into());
        self
    }

    /// Only requests with this text in path or query.
    #[must_use]
    pub fn path(mut self, part: impl Into<String>) -> Self {
        self.path = Some(part.into());
        self
    }

    fn fits(&self, request: &About) -> bool {
        (self.methods.is_empty() || self.methods.contains(&request.method))
            && self.path.as_ref().is_none_or(|part| request.path.contains(part.as_str()))
            && self.not.as_ref().is_none_or(|part| !request.path.contains(part.as_str()))
            && self.watches.is_none_or(|watches| watches == request.is_watch)
    }
}

/// The parts of a request by which faults are chosen.
#[derive(Clone, Debug)]
struct About {
    method: Method,
    path: String,
    is_watch: bool,
}

struct Rule {
    which: Which,
    fault: Fault,
    hits: AtomicUsize,
    at_most: usize,
}

/// All faults that are active, the oldest first.
#[derive(Clone)]
struct Rules(watch::Sender<Vec<Arc<Rule>>>);

impl Rules {
    /// The fault for a new request: the newest one that matches.
    fn hit(&self, request: &About) -> Option<Arc<Rule>> {
        let fits =
            |rule: &&Arc<Rule>| rule.which.fits(request) && rule.hits.fetch_add(1, Ordering::SeqCst) < rule.at_most;
        self.0.borrow().iter().rev().find(fits).cloned()
    }

    /// The fault for a watch that began earlier.
    fn of_watch(&self, request: &About) -> Option<Arc<Rule>> {
        let fits = |rule: &&Arc<Rule>| rule.which.fits(request) && rule.at_most == usize::MAX;
        self.0.borrow().iter().rev().find(fits).cloned()
    }

    async fn lifted(&self, rule: &Arc<Rule>) {
        let is_lifted = |rules: &Vec<Arc<Rule>>| !rules.iter().any(|other| Arc::ptr_eq(other, rule));
        // This cannot fail, because `self` keeps the sender.
        let _ = self.0.subscribe().wait_for(is_lifted).await;
    }
}

/// A fault that lasts until it is lifted or dropped.
pub struct Injected {
    rules: Rules,
    rule: Arc<Rule>,
}

impl Injected {
    /// How many requests got this fault.
    pub fn hits(&self) -> usize {
        self.rule.hits.load(Ordering::SeqCst).min(self.rule.at_most)
    }

    /// Lifts the fault.
    pub fn lift(self) {}
}

impl Drop for Injected {
    fn drop(&mut self) {
        self.rules.0.send_modify(|rules| rules.retain(|rule| !Arc::ptr_eq(rule, &self.rule)));
    }
}

/// The proxy. It ends when its `FaultProxy` is dropped.
pub struct FaultProxy {
    rules: Rules,
    kubeconfig: PathBuf,
    task: JoinHandle<()>,
    _folder: TempDir,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FaultProxy {
    /// A proxy to the API server of `kubeconfig`, as its user, without faults.
    pub async fn start(kubeconfig: &Path) -> Result<Self> {
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &options).await?;
        config.default_retry = false;
        config.read_timeout = None;
        config.write_timeout = None;
        let client = Client::try_from(config)?;
        let rules = Rules(watch::Sender::default());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(listener, client, rules.clone()));
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("kubeconfig");
        let through_here = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        });
        std::fs::write(&file, through_here.to_string()).context("the proxy's kubeconfig")?;
        Ok(Self { rules, kubeconfig: file, task, _folder: folder })
    }

    /// A kubeconfig that leads to the proxy.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// From now on, requests that match `which` get `fault`, until it is lifted.
    pub fn inject(&self, which: Which, fault: Fault) -> Injected {
        self.add(which, fault, usize::MAX)
    }

    /// The next `times` requests that match `which` get `fault`. Watches that have begun do not get the fault.
    pub fn inject_times(&self, times: usize, which: Which, fault: Fault) -> Injected {
        self.add(which, fault, times)
    }

    fn add(&self, which: Which, fault: Fault, at_most: usize) -> Injected {
        let rule = Arc::new(Rule { which, fault, hits: AtomicUsize::new(0), at_most });
        self.rules.0.send_modify(|rules| rules.push(rule.clone()));
        Injected { rules: self.rules.clone(), rule }
    }
}

async fn serve(listener: TcpListener, client: Client, rules: Rules) {
    // The connections end with this task.
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        let (client, rules) = (client.clone(), rules.clone());
        let service = service_fn(move |request| answer(client.clone(), rules.clone(), request));
        connections.spawn(async move {
            // If a client closes its connection, the proxy has not failed.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
        });
    }
}

/// The connection breaks.
#[derive(Debug, thiserror::Error)]
#[error("broken on purpose")]
struct Broken;

async fn answer(client: Client, rules: Rules, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let query = request.uri().query().unwrap_or_default();
    let is_watch = query.split('&').any(|pair| pair == "watch=true");
    let about = About { method: request.method().clone(), path: request.uri().to_string(), is_watch };
    let rule = rules.hit(&about);
    let fault = rule.as_ref().map(|rule| rule.fault);
    match fault {
        Some(Fault::Stall) => return std::future::pending().await,
        Some(Fault::Close) => return Err(Broken),
        Some(Fault::Refuse(code)) => return Ok(refusal(code)),
        Some(Fault::Delay(pause)) => tokio::time::sleep(pause).await,
        Some(Fault::Hold) => {
            if let Some(rule) = &rule {
                rules.lifted(rule).await;
            }
        }
        _ => {}
    }
    // This fails if the API server breaks the connection or does not run.
    let answer = pass_on(&client, request).await.map_err(|_| Broken)?;
    match fault {
        Some(Fault::LoseAnswer) => std::future::pending().await,
        Some(Fault::Cut) => half(answer, stream::iter([Err(Broken)]).boxed()).await,
        Some(Fault::Half) => half(answer, stream::pending().boxed()).await,
        _ if is_watch => Ok(answer.map(|body| Body::from_stream(told(body, rules, about)))),
        _ => Ok(answer),
    }
}

async fn pass_on(client: &Client, request: Request<Incoming>) -> Result<Response<Body>> {
    let (mut parts, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), usize::MAX).await?;
    parts.headers.remove(header::HOST);
    let answer = client.send(Request::from_parts(parts, kube::client::Body::from(body))).await?;
    Ok(answer.map(Body::new))
}

/// A refusal like that of the API server.
fn refusal(code: u16) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": "InternalError", "message": format!("refused on purpose with {code}"),
    });
    let answer = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    let answer = if code == 429 { answer.header(header::RETRY_AFTER, "1") } else { answer };
    answer.body(Body::from(status.to_string())).expect("every part of it is valid")
}

/// The first half of an answer, followed by `then`.
async fn half(
    answer: Response<Body>,
    then: BoxStream<'static, Result<Bytes, Broken>>,
) -> Result<Response<Body>, Broken> {
    let (parts, body) = answer.into_parts();
    let mut body = body.into_data_stream();
    let mut whole = Vec::new();
    // The answer to a watch has no end, so reading stops when nothing comes for half a second.
    while let Ok(Some(chunk)) = tokio::time::timeout(Duration::from_millis(500), body.next()).await {
        whole.extend_from_slice(&chunk.map_err(|_| Broken)?);
    }
    whole.truncate(whole.len() / 2);
    let chunks = stream::iter([Ok(Bytes::from(whole))]).chain(then);
    Ok(Response::from_parts(parts, Body::from_stream(chunks)))
}

/// The events of a watch, as long as there is no fault for this watch.
fn told(body: Body, rules: Rules, about: About) -> impl Stream<Item = Result<Bytes, Broken>> + Send {
    let changes = rules.0.subscribe();
    let state = (body.into_data_stream(), rules, about, changes);
    stream::unfold(state, |(mut body, rules, about, mut changes)| async move {
        loop {
            let chunk = tokio::select! {
                chunk = body.next() => Some(chunk?.map_err(|_| Broken)),
                _ = changes.changed() => None,
            };
            let rule = rules.of_watch(&about);
            match rule.as_ref().map(|rule| rule.fault) {
                Some(Fault::Stall | Fault::LoseAnswer | Fault::Half) => return std::future::pending().await,
                Some(Fault::Close | Fault::Cut | Fault::Refuse(_)) => {
                    return Some((Err(Broken), (body, rules, about, changes)));
                }
                Some(Fault::Delay(pause)) => tokio::time::sleep(pause).await,
                Some(Fault::Hold) => {
                    if let Some(rule) = &rule {
                        rules.lifted(rule).await;
                    }
                }
                None => {}
            }
            if let Some(chunk) = chunk {
                return Some((chunk, (body, rules, about, changes)));
            }
        }
    })
}
