//! A fake API server with the few verbs that key Secrets and events need. It uses real HTTP on loopback.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures::stream;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

/// A fake API server, which has objects by their paths. Clones share the objects.
#[derive(Clone)]
pub(crate) struct FakeApi(Arc<Inner>);

struct Inner {
    objects: Mutex<BTreeMap<String, Value>>,
    requests: Mutex<Vec<String>>,
    /// The number of changes, which is also the resource version of the last change.
    version: watch::Sender<u64>,
    /// The status code with which requests are refused, by method.
    refused: Mutex<BTreeMap<String, u16>>,
}

impl FakeApi {
    /// An empty API server, and a client for it.
    pub(crate) async fn start() -> (Self, kube::Client) {
        let (api, url) = Self::listening().await;
        let mut config = kube::Config::new(url);
        // Otherwise, the client would send refused requests again for minutes.
        config.default_retry = false;
        (api, kube::Client::try_from(config).unwrap())
    }

    /// An empty API server, and its address.
    pub(crate) async fn listening() -> (Self, Uri) {
        let api = Self(Arc::new(Inner {
            objects: Mutex::default(),
            requests: Mutex::default(),
            version: watch::Sender::new(1),
            refused: Mutex::default(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (api, url.parse().unwrap())
    }

    /// Stores an object at `path`, as if a user had written it.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        self.0.version.send_modify(|version| {
            *version += 1;
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            if object["metadata"]["uid"].is_null() {
                object["metadata"]["uid"] = json!(format!("uid-{version}"));
            }
            self.0.objects.lock().unwrap().insert(path.into(), object);
        });
    }

    pub(crate) fn delete(&self, path: &str) {
        self.0.version.send_modify(|version| {
            *version += 1;
            self.0.objects.lock().unwrap().remove(path);
        });
    }

    /// The objects whose path starts with `start`.
    pub(crate) fn objects(&self, start: &str) -> Vec<Value> {
        let objects = self.0.objects.lock().unwrap();
        objects.iter().filter(|(path, _)| path.starts_with(start)).map(|(_, object)| object.clone()).collect()
    }

    /// Requests so far, as `METHOD path?query`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.0.requests.lock().unwrap().clone()
    }

    /// From now on, answers every request with this method with an error. The code 0 ends this.
    pub(crate) fn refuse(&self, method: &str, code: u16) {
        self.0.refused.lock().unwrap().insert(method.into(), code);
    }
}

async fn answer(State(api): State<FakeApi>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    api.0.requests.lock().unwrap().push(format!("{} {}", parts.method, parts.uri));
    if let Some(code) = api.0.refused.lock().unwrap().get(parts.method.as_str()).filter(|code| **code != 0) {
        return failure(*code, "Refused");
    }
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    match parts.method {
        Method::GET if query.contains("watch=") => watch_changes(&api, &query),
        Method::GET => get(&api, &path, &query),
        Method::POST => create(&api, &path, &body),
        Method::PUT => replace(&api, &path, &body),
        Method::PATCH if query.contains("dryRun=") => get(&api, &path, &query),
        Method::PATCH => merge(&api, &path, &body),
        Method::DELETE => delete(&api, &path, &body),
        _ => failure(405, "MethodNotAllowed"),
    }
}

fn get(api: &FakeApi, path: &str, query: &str) -> Response {
    if !path.ends_with("/secrets") {
        return match api.0.objects.lock().unwrap().get(path) {
            Some(object) => object.to_string().into_response(),
            None => failure(404, "NotFound"),
        };
    }
    let labelled = |object: &Value| !object["metadata"]["labels"][crds::names::SEALING_KEY].is_null();
    let items: Vec<_> =
        api.objects(path).into_iter().filter(|object| !query.contains("labelSelector") || labelled(object)).collect();
    let version = api.0.version.borrow().to_string();
    json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items})
        .to_string()
        .into_response()
}

/// Sends one event for each change since the requested version. The object in the event does not matter, because the
/// controller reads the objects itself after an event.
fn watch_changes(api: &FakeApi, query: &str) -> Response {
    let since = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
    let since: u64 = since.and_then(|version| version.parse().ok()).unwrap_or_default();
    let mut version = api.0.version.subscribe();
    if *version.borrow() > since {
        version.mark_changed();
    }
    let changes = stream::unfold(version, |mut version| async move {
        version.changed().await.ok()?;
        let now = version.borrow_and_update().to_string();
        let event = json!({"type": "MODIFIED", "object": {
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "some", "resourceVersion": now}}});
        Some((Ok::<_, Infallible>(Bytes::from(format!("{event}\n"))), version))
    });
    Body::from_stream(changes).into_response()
}

fn create(api: &FakeApi, path: &str, body: &[u8]) -> Response {
    let mut object: Value = serde_json::from_slice(body).unwrap();
    let version = *api.0.version.borrow();
    let name = match (&object["metadata"]["name"], &object["metadata"]["generateName"]) {
        (Value::String(name), _) => name.clone(),
        (_, Value::String(prefix)) => format!("{prefix}x{version:04}"),
        _ => return failure(422, "Invalid"),
    };
    let path = format!("{path}/{name}");
    if api.0.objects.lock().unwrap().contains_key(&path) {
        return failure(409, "AlreadyExists");
    }
    object["metadata"]["name"] = json!(name);
    api.put(&path, object);
    (StatusCode::CREATED, api.objects(&path).remove(0).to_string()).into_response()
}

fn delete(api: &FakeApi, path: &str, body: &[u8]) -> Response {
    let options: Value = serde_json::from_slice(body).unwrap();
    let Some(object) = api.0.objects.lock().unwrap().get(path).cloned() else {
        return failure(404, "NotFound");
    };
    let wanted = &options["preconditions"]["uid"];
    if !wanted.is_null() && *wanted != object["metadata"]["uid"] {
        return failure(409, "Conflict");
    }
    api.delete(path);
    object.to_string().into_response()
}

fn replace(api: &FakeApi, path: &str, body: &[u8]) -> Response {
    let object: Value = serde_json::from_slice(body).unwrap();
    let Some(before) = api.0.objects.lock().unwrap().get(path).cloned() else {
        return failure(404, "NotFound");
    };
    if before["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
        return failure(409, "Conflict");
    }
    api.put(path, object);
    api.objects(path).remove(0).to_string().into_response()
}

fn merge(api: &FakeApi, path: &str, body: &[u8]) -> Response {
    let changes: Value = serde_json::from_slice(body).unwrap();
    let Some(mut object) = api.0.objects.lock().unwrap().get(path).cloned() else {
        return failure(404, "NotFound");
    };
    for (field, value) in changes.as_object().unwrap() {
        object[field] = value.clone();
    }
    api.put(path, object.clone());
    object.to_string().into_response()
}

fn failure(code: u16, reason: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": format!("{reason} by the fake API server")});
    (StatusCode::from_u16(code).unwrap(), status.to_string()).into_response()
}
