//! Fixed answers over real HTTP on loopback, for the stages that ask the API server.

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
use tokio::net::TcpListener;

use crate::{
    cluster::{Api, Discovery, Live},
    leader::Leadership,
    metrics::Metrics,
};

/// An API server that knows what it was told; anything else it answers with a bare 404, as for a kind that it does not
/// serve. Clones share everything.
#[derive(Clone, Default)]
pub(super) struct FakeServer(Arc<Inner>);

#[derive(Default)]
struct Inner {
    answers: Mutex<HashMap<String, (u16, Value)>>,
    requests: Mutex<Vec<String>>,
}

/// What a stage needs to talk to a [`FakeServer`].
pub(super) struct Client {
    pub(super) api: Api,
    pub(super) discovery: Discovery,
    pub(super) live: Live,
}

impl FakeServer {
    /// A server that serves ConfigMaps, Secrets and Namespaces, none of them watchable.
    pub(super) async fn start() -> (Self, Client) {
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

    /// `request` is `METHOD /path`.
    pub(super) fn answer(&self, request: &str, code: u16, body: Value) {
        let mut answers = self.0.answers.lock().unwrap();
        answers.insert(request.into(), (code, body));
    }

    /// Requests so far, as `METHOD /path`.
    pub(super) fn requests(&self) -> Vec<String> {
        self.0.requests.lock().unwrap().clone()
    }
}

async fn answer(State(server): State<FakeServer>, request: Request) -> Response {
    let request = format!("{} {}", request.method(), request.uri().path());
    server.0.requests.lock().unwrap().push(request.clone());
    match server.0.answers.lock().unwrap().get(&request) {
        Some((code, body)) => {
            let code = StatusCode::from_u16(*code).unwrap();
            (code, body.to_string()).into_response()
        }
        None => (StatusCode::NOT_FOUND, "404 page not found").into_response(),
    }
}
