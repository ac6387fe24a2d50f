//! A small HTTP(S) server in the process of a test, so nothing keeps running when the test fails.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode, header};
use base64::Engine as _;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio_rustls::server::TlsStream;

/// Who may read.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// Everybody.
    #[default]
    Anonymous,
    /// Clients with the user name and the password.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// Clients with the token.
    Bearer(String),
}

/// A request that reached the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LoggedRequest {
    /// `GET` or `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Whether the request had credentials, no matter whether they were right.
    pub with_credentials: bool,
    /// When it came.
    pub at: Instant,
}

/// The function that answers a request that the server has not refused.
pub type Handler = Arc<dyn Fn(Request<Body>) -> Answer + Send + Sync>;
/// See [`Handler`].
pub type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A server on a loopback address.
pub struct WebServer {
    address: SocketAddr,
    tls: Option<Tls>,
    shared: Arc<Shared>,
    running: Mutex<Option<Runtime>>,
}

/// A self-signed certificate for `localhost`.
pub struct Tls {
    acceptor: TlsAcceptor,
    /// The certificate, PEM. It is self-signed, so clients also use it as the certificate authority.
    pub authority: String,
    /// Its private key, PEM.
    pub key: String,
}

struct Shared {
    access: Access,
    handler: Handler,
    log: Mutex<Vec<LoggedRequest>>,
    /// For the first part of a path, the status and the URL with which requests are redirected.
    moved: Mutex<HashMap<String, (u16, String)>>,
    /// The `Retry-After` of refusals, in seconds.
    busy: Mutex<Option<u64>>,
}

impl WebServer {
    /// Starts a server on a free port. With TLS, it has a self-signed certificate for `localhost`.
    pub fn new(access: Access, tls: bool, handler: Handler) -> Result<Self> {
        let tls = tls.then(Tls::new).transpose()?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let (log, moved, busy) = (Mutex::default(), Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { access, handler, log, moved, busy });
        let server = Self { address, tls, shared, running: Mutex::default() };
        server.serve(listener)?;
        Ok(server)
    }

    /// The certificate (PEM) that a client must trust, if the server has TLS.
    pub fn certificate_authority(&self) -> Option<&str> {
        self.tls.as_ref().map(|tls| tls.authority.as_str())
    }

    /// The requests so far, in the order they came.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        lock(&self.shared.log).clone()
    }

    /// How many requests came so far.
    pub fn request_count(&self) -> usize {
        lock(&self.shared.log).len()
    }

    /// From now on, requests whose path begins with `name` are redirected to the same path below `base`.
    pub fn move_to(&self, name: &str, base: &str) {
        self.move_with(StatusCode::FOUND.as_u16(), name, base);
    }

    /// The same, with this status.
    pub fn move_with(&self, status: u16, name: &str, base: &str) {
        lock(&self.shared.moved).insert(name.to_owned(), (status, base.to_owned()));
    }

    /// From now on, requests whose path begins with `name` are no longer redirected.
    pub fn stay(&self, name: &str) {
        lock(&self.shared.moved).remove(name);
    }

    /// From now on, every request is refused with status 429 and with `Retry-After` of this many seconds. With `None`, the server
    /// answers again.
    pub fn be_busy(&self, seconds: Option<u64>) {
        *lock(&self.shared.busy) = seconds;
    }

    /// Closes the port and every connection.
    pub fn stop(&self) {
        if let Some(runtime) = lock(&self.running).take() {
            // A runtime must not be dropped in asynchronous code, and tests are asynchronous code.
            let stopping = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(30)));
            let _ = stopping.join();
        }
    }

    /// Opens the same port again.
    pub fn start(&self) -> Result<()> {
        if lock(&self.running).is_some() {
            return Ok(());
        }
        let listener = TcpListener::bind(self.address).with_context(|| format!("listen on {} again", self.address))?;
        self.serve(listener)
    }

    /// Its URL, without a slash at the end.
    pub fn base(&self) -> String {
        let port = self.address.port();
        if self.tls.is_some() { format!("https://localhost:{port}") } else { format!("http://127.0.0.1:{port}") }
    }

    fn serve(&self, listener: TcpListener) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let service = Router::new().fallback(handle).with_state(self.shared.clone());
        match &self.tls {
            Some(tls) => {
                let listener = TlsListener { listener, acceptor: tls.acceptor.clone() };
                runtime.spawn(async move { axum::serve(listener, service).await });
            }
            None => {
                runtime.spawn(async move { axum::serve(listener, service).await });
            }
        }
        *lock(&self.running) = Some(runtime);
        Ok(())
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Tls {
    /// A new one.
    pub fn new() -> Result<Self> {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)?;
        let (authority, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), authority, key })
    }
}

impl Tls {
    /// The TLS connector of clients that trust this certificate.
    pub fn connector(&self) -> Result<tokio_rustls::TlsConnector> {
        use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};
        let mut roots = tokio_rustls::rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes())?)?;
        let config = tokio_rustls::rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config).into())
    }
}

/// Accepts connections with TLS.
struct TlsListener {
    listener: tokio::net::TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
            // A client that does not trust the certificate closes the connection here.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let target = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    lock(&shared.log).push(LoggedRequest {
        method: request.method().to_string(),
        target: target.clone(),
        with_credentials: authorization.is_some(),
        at: Instant::now(),
    });
    if let Some(seconds) = *lock(&shared.busy) {
        let busy = Response::builder().status(StatusCode::TOO_MANY_REQUESTS);
        let busy = busy.header(header::RETRY_AFTER, seconds).header(header::CONTENT_TYPE, "text/plain");
        return plain(busy, "come again later");
    }
    if let Some((status, location)) = moved(&shared, &target) {
        return plain(Response::builder().status(status).header(header::LOCATION, location), "moved");
    }
    if !shared.access.admits(authorization) {
        let (status, text) = match authorization {
            None => (StatusCode::UNAUTHORIZED, "who are you?"),
            Some(_) => (StatusCode::FORBIDDEN, "not you"),
        };
        let challenge = Response::builder().status(status).header(header::WWW_AUTHENTICATE, "Basic realm=\"tests\"");
        return plain(challenge, text);
    }
    (shared.handler)(request).await
}

impl Access {
    fn admits(&self, authorization: Option<&str>) -> bool {
        let expected = match self {
            Self::Anonymous => return true,
            Self::Basic { username, password } => {
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
                format!("Basic {pair}")
            }
            Self::Bearer(token) => format!("Bearer {token}"),
        };
        authorization == Some(expected.as_str())
    }
}

fn moved(shared: &Shared, target: &str) -> Option<(u16, String)> {
    let (name, tail) = target.trim_start_matches('/').split_once('/')?;
    let (status, base) = lock(&shared.moved).get(name)?.clone();
    Some((status, format!("{base}/{tail}")))
}

/// A port that nobody can connect to: a connection is neither accepted nor refused.
pub struct FullPort {
    listener: TcpListener,
    _waiting: Vec<std::net::TcpStream>,
}

impl FullPort {
    /// Takes a free port, and fills its queue of connections that wait to be accepted.
    pub fn new() -> Result<Self> {
        /// More than any queue has room for.
        const MOST: usize = 10_000;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let mut waiting = Vec::new();
        while let Ok(connection) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            waiting.push(connection);
            ensure!(waiting.len() < MOST, "the queue of the port has no end");
        }
        Ok(Self { listener, _waiting: waiting })
    }

    /// Its URL, without a slash at the end.
    pub fn base(&self) -> Result<String> {
        Ok(format!("http://{}", self.listener.local_addr()?))
    }

    /// Whether somebody tries to connect now.
    pub fn is_tried(&self) -> Result<bool> {
        /// The state of a connection that was not answered yet.
        const SYN_SENT: &str = "02";
        let to = format!("0100007F:{:04X}", self.listener.local_addr()?.port());
        let connections = std::fs::read_to_string("/proc/net/tcp").context("the connections of this machine")?;
        let is_to = |line: &str| {
            let mut fields = line.split_whitespace().skip(2);
            fields.next() == Some(&to) && fields.next() == Some(SYN_SENT)
        };
        Ok(connections.lines().any(is_to))
    }
}

/// A short text.
pub(crate) fn plain(response: axum::http::response::Builder, text: &str) -> Response<Body> {
    response.body(Body::from(text.to_owned())).expect("status and headers are valid")
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
