//! The Git server.

use std::ops::Deref;
use std::sync::Arc;

use anyhow::Result;
use axum::http::{Method, Response, StatusCode};

use super::{WorkTree, backend};
use crate::web::{Access, WebServer, plain};

/// How a server behaves.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Who may read.
    pub access: Access,
    /// Serve `https`, with a self-signed certificate for `localhost`.
    pub tls: bool,
    /// Speak only Git's old protocol, which serves plain files.
    pub dumb: bool,
}

/// A Git server on a loopback address, with repositories in its own folder. The folder is deleted when the `GitServer`
/// is dropped. Repositories stay while it is stopped, and their work trees can still push to them.
pub struct GitServer {
    web: WebServer,
    folder: tempfile::TempDir,
}

impl GitServer {
    /// Starts a server on a free port.
    pub fn new(options: ServerOptions) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (root, dumb) = (folder.path().to_owned(), options.dumb);
        let handler = Arc::new(move |mut request: axum::http::Request<axum::body::Body>| {
            let root = root.clone();
            Box::pin(async move {
                if dumb {
                    if request.method() != Method::GET {
                        return plain(Response::builder().status(StatusCode::METHOD_NOT_ALLOWED), "files only");
                    }
                    let path = request.uri().path().to_owned();
                    *request.uri_mut() = path.parse().unwrap_or_default();
                }
                match backend::answer(&root, request).await {
                    Ok(response) => response,
                    Err(error) => {
                        let failed = Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR);
                        plain(failed, &format!("{error:#}"))
                    }
                }
            }) as crate::web::Answer
        });
        Ok(Self { web: WebServer::new(options.access, options.tls, handler)?, folder })
    }

    /// Creates an empty repository, `<name>.git`, with a work tree.
    pub fn create(&self, name: &str) -> Result<WorkTree> {
        WorkTree::create(self.folder.path().join(format!("{name}.git")))
    }

    /// The URL of a repository, whether it exists or not.
    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}.git", self.web.base())
    }

    /// From now on, requests for the repository `name` are redirected to the same path below `base`, for example the
    /// URL of another repository.
    pub fn redirect(&self, name: &str, base: &str) {
        self.web.move_to(&format!("{name}.git"), base);
    }
}

impl Deref for GitServer {
    type Target = WebServer;

    fn deref(&self) -> &WebServer {
        &self.web
    }
}
