//! A fake API server with fixed answers over HTTP on a loopback address, for tests of stages that make requests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Barrier};

use crate::{
    cluster::{Api, Discovery, Live},
    leader::Leadership,
    metrics::Metrics,
};

/// A fake API server. It gives the answers that were set for its requests, and answers any other request with 404 and
/// without a reason, as an API server does for a kind that it does not serve. Clones share everything.
#[derive(Clone, Default)]
pub(crate) struct FakeServer(Arc<Inner>);

/// An answer: a status code and a body.
type Answer = (u16, Value);

#[derive(Default)]
struct Inner {
    answers: Mutex<HashMap<String, Answer>>,
    /// For each first request that has not arrived yet: another request, and the new answer to it as soon as the first
    /// request arrives.
    changes: Mutex<HashMap<String, (String, Answer)>>,
    requests: Mutex<Vec<(String, String)>>,
    /// Requests that begin with this text are answered only when as many as the barrier waits for have arrived.
    gathered: Mutex<Option<(String, Arc<Barrier>)>>,
}

/// The clients with which a stage uses a [`FakeServer`].
pub(crate) struct Client {
    pub(crate) api: Api,
    pub(crate) discovery: Discovery,
    pub(crate) live: Live,
}

impl FakeServer {
    /// A server that serves ConfigMaps, Secrets and Namespaces, none of them watchable.
    pub(crate) async fn start() -> (Self, Client) {
        let server = Self::default();
        let kind = |kind: &str, namespaced: bool| {
            json!({"kind": kind, "name": format!("{}s", kind.to_lowercase()), "singularName": "",
                   "namespaced": namespaced, "verbs": ["get", "patch", "delete"]})
        };
        server.answer(
            "GET /api/v1",
            200,
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1",
                   "resources": [kind("ConfigMap", true), kind("Secret", true), kind("Namespace", false)]}),
        );
        server.answer("GET /apis", 200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let metrics = Metrics::new("test");
        let api = Api::new(client.clone(), Leadership::alone(), metrics.clone());
        let client = Client {
            discovery: Discovery::new(api.clone()),
            live: Live::new(client, metrics, crate::cluster::Namespaces::All).0,
            api,
        };
        (server, client)
    }

    /// Sets the answer to `request`, which is `METHOD /path`.
    pub(crate) fn answer(&self, request: &str, code: u16, body: Value) {
        let mut answers = self.0.answers.lock().unwrap();
        answers.insert(request.into(), (code, body));
    }

    /// Changes the answer to `request` as soon as the request `first` has arrived.
    pub(crate) fn answer_after(&self, first: &str, request: &str, code: u16, body: Value) {
        self.0.changes.lock().unwrap().insert(first.into(), (request.into(), (code, body)));
    }

    /// From now on, requests that begin with `prefix` are answered only when `count` of them have arrived.
    pub(crate) fn gather(&self, prefix: &str, count: usize) {
        *self.0.gathered.lock().unwrap() = Some((prefix.into(), Arc::new(Barrier::new(count))));
    }

    /// All requests so far, as `METHOD /path`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.0.requests.lock().unwrap().iter().map(|(request, _)| request.clone()).collect()
    }

    /// The bodies of all requests that equal `request`, in order.
    pub(crate) fn bodies(&self, request: &str) -> Vec<String> {
        let requests = self.0.requests.lock().unwrap();
        requests.iter().filter(|(asked, _)| asked == request).map(|(_, body)| body.clone()).collect()
    }
}

async fn answer(State(server): State<FakeServer>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let request = format!("{} {}", parts.method, parts.uri.path());
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    server.0.requests.lock().unwrap().push((request.clone(), String::from_utf8_lossy(&body).into_owned()));
    let gathered = server.0.gathered.lock().unwrap().clone().filter(|(prefix, _)| request.starts_with(prefix));
    if let Some((_, barrier)) = gathered {
        barrier.wait().await;
    }
    let mut answers = server.0.answers.lock().unwrap();
    if let Some((later, answer)) = server.0.changes.lock().unwrap().remove(&request) {
        answers.insert(later, answer);
    }
    match answers.get(&request) {
        Some((code, body)) => {
            let code = StatusCode::from_u16(*code).unwrap();
            (code, body.to_string()).into_response()
        }
        None => (StatusCode::NOT_FOUND, "404 page not found").into_response(),
    }
}
