//! Servers whose answers a test chooses, and the controller's Git store as their client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode, header};
use futures::{StreamExt as _, stream};
use gitstore::{
    Cancel, Credentials, FetchError, FetchRequest, FetchedVersion, GitStore, Reference, RepositoryKey, Revision,
    StoreOptions, TrustedKeys,
};
use zeroize::Zeroizing;

use crate::registry::USERNAME;
use crate::web::{Access, WebServer, lock, plain};

pub(crate) const PASSWORD: &str = "hunter2-of-a-fetch";

/// What a server answers to a path.
#[derive(Clone)]
pub(crate) enum Said {
    Bytes(Vec<u8>),
    /// A redirect to this URL.
    Elsewhere(String),
    /// A status, and the name and the value of a header.
    Refusal(u16, &'static str, String),
    /// Zeros without an end.
    Endless,
    /// The beginning of an answer, and then nothing.
    Stalls,
    /// A byte from time to time, without an end.
    Drips,
}

impl Said {
    pub(crate) fn response(self) -> Response<Body> {
        let body = match self {
            Self::Bytes(bytes) => Body::from(bytes),
            Self::Elsewhere(url) => {
                return plain(
                    Response::builder().status(StatusCode::TEMPORARY_REDIRECT).header(header::LOCATION, url),
                    "",
                );
            }
            Self::Refusal(status, name, value) => {
                return plain(Response::builder().status(status).header(name, value), "no");
            }
            Self::Endless => {
                Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![0; 1 << 20]))))
            }
            Self::Drips => Body::from_stream(stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
            })),
            Self::Stalls => Body::from_stream(
                stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"a"))]).chain(stream::pending()),
            ),
        };
        Response::new(body)
    }
}

/// A server with an answer for each path.
pub(crate) struct Fake {
    pub(crate) web: WebServer,
    pub(crate) said: Arc<Mutex<BTreeMap<String, Said>>>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self::with(Access::Anonymous, true)
    }

    pub(crate) fn with(access: Access, tls: bool) -> Self {
        let said: Arc<Mutex<BTreeMap<String, Said>>> = Arc::default();
        let known = said.clone();
        let handler = Arc::new(move |request: Request<Body>| {
            let answer = lock(&known).get(request.uri().path()).cloned();
            let answer = answer.unwrap_or(Said::Refusal(404, "x-none", "1".into())).response();
            Box::pin(std::future::ready(answer)) as crate::web::Answer
        });
        Self { web: WebServer::new(access, tls, handler).unwrap(), said }
    }

    pub(crate) fn say(&self, path: &str, said: Said) {
        lock(&self.said).insert(path.to_owned(), said);
    }
}

/// A Git store, and what its fetches need, for example the certificate authorities of the servers.
pub(crate) struct Client {
    _folder: tempfile::TempDir,
    pub(crate) store: GitStore,
    pub(crate) authorities: Vec<u8>,
    pub(crate) with_password: bool,
    /// A public key of cosign, in PEM, that must have signed what is fetched.
    pub(crate) trusted: Option<String>,
    /// The versions that a Repository records.
    pub(crate) fetched: Vec<FetchedVersion>,
    pub(crate) timeout: Duration,
    pub(crate) cancel: Cancel,
}

impl Client {
    pub(crate) fn of(servers: &[&Fake]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = GitStore::new(folder.path().join("store"), StoreOptions::default()).unwrap();
        let authorities: Vec<_> = servers.iter().filter_map(|server| server.web.certificate_authority()).collect();
        let authorities = authorities.concat().into_bytes();
        let timeout = Duration::from_secs(30);
        let (with_password, trusted, fetched) = (false, None, Vec::new());
        Self { _folder: folder, store, authorities, with_password, trusted, fetched, timeout, cancel: Cancel::new() }
    }

    pub(crate) fn fetch_from(&self, url: String, reference: Reference) -> Result<Revision, FetchError> {
        let credentials = if self.with_password {
            Credentials::basic(USERNAME, Zeroizing::new(PASSWORD.as_bytes().to_vec()))
        } else {
            Credentials::none()
        };
        self.fetch_with(url, reference, credentials)
    }

    pub(crate) fn fetch_with(
        &self,
        url: String,
        reference: Reference,
        credentials: Credentials,
    ) -> Result<Revision, FetchError> {
        self.store.fetch(&self.request(url, reference, credentials))
    }

    pub(crate) fn request(&self, url: String, reference: Reference, credentials: Credentials) -> FetchRequest {
        FetchRequest {
            key: RepositoryKey { namespace: "team".into(), name: "app".into() },
            url,
            reference,
            credentials: credentials.with_certificate_authorities(self.authorities.clone()),
            fetched: self.fetched.clone(),
            trusted: self
                .trusted
                .as_ref()
                .map(|key| TrustedKeys::from_secret([("cosign.pub", key.as_bytes())]).unwrap()),
            timeout: self.timeout,
            cancel: self.cancel.clone(),
        }
    }

    /// The reason and the message of a fetch that failed.
    pub(crate) fn told(result: Result<Revision, FetchError>) -> (&'static str, String) {
        let error = result.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains(PASSWORD), "{text}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
        (error.reason(), error.to_string())
    }
}

/// For each request, whether it had credentials.
pub(crate) fn with_credentials(server: &Fake) -> Vec<bool> {
    server.web.requests().iter().map(|request| request.with_credentials).collect()
}
