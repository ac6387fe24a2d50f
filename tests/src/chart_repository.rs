//! An HTTP chart repository on a loopback address: a folder with archives and the index that the real `helm` makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};

use crate::charts::Helm;
use crate::registry::digest_of;
use crate::web::{Access, LoggedRequest, WebServer, plain};

/// A chart repository. Its content is deleted when this is dropped.
pub struct ChartServer {
    server: WebServer,
    folder: tempfile::TempDir,
    downloads: Arc<AtomicUsize>,
}

impl ChartServer {
    /// Starts a server with TLS on a free port.
    pub fn start(access: Access) -> Result<Self> {
        let (folder, downloads) = (tempfile::tempdir()?, Arc::new(AtomicUsize::new(0)));
        let (root, count) = (folder.path().to_owned(), downloads.clone());
        let handler = Arc::new(move |request: Request<Body>| {
            Box::pin(std::future::ready(answer(&root, &count, &request))) as crate::web::Answer
        });
        Ok(Self { server: WebServer::new(access, true, handler)?, folder, downloads })
    }

    /// The folder of the archives.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file of the index.
    pub fn index(&self) -> PathBuf {
        self.folder.path().join("index.yaml")
    }

    /// The URL for `helm repo add` and for `spec.url`.
    pub fn url(&self) -> String {
        format!("{}/stable", self.server.base())
    }

    /// Makes the index of all archives with `helm repo index`. With `base`, the URLs of the archives in the index are
    /// absolute, and begin with `base`.
    pub fn publish(&self, base: Option<&str>) -> Result<()> {
        let mut arguments = vec!["repo".into(), "index".into(), self.folder.path().as_os_str().to_owned()];
        arguments.extend(base.map(|base| format!("--url={base}").into()));
        Helm::new()?.run(&arguments).map(drop)
    }

    /// The certificates (PEM) that a client must trust.
    pub fn certificate_authority(&self) -> &str {
        self.server.certificate_authority().unwrap_or_default()
    }

    /// How often the whole index was sent.
    pub fn downloads(&self) -> usize {
        self.downloads.load(Ordering::SeqCst)
    }

    /// The server.
    pub fn web(&self) -> &WebServer {
        &self.server
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.server.requests()
    }
}

fn answer(root: &Path, downloads: &AtomicUsize, request: &Request<Body>) -> Response<Body> {
    let name = request.uri().path().strip_prefix("/stable/").filter(|name| !name.contains('/'));
    let Some(content) = name.and_then(|name| fs::read(root.join(name)).ok()) else {
        return plain(Response::builder().status(StatusCode::NOT_FOUND), "there is no such file");
    };
    let tag = format!("\"{}\"", digest_of(&content));
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known == Some(&tag) {
        return plain(Response::builder().status(StatusCode::NOT_MODIFIED), "");
    }
    if name == Some("index.yaml") {
        downloads.fetch_add(1, Ordering::SeqCst);
    }
    let answer = Response::builder().header(header::ETAG, tag).body(Body::from(content));
    answer.expect("status and headers are valid")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
