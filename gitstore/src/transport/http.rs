//! Git's smart HTTP transport over a blocking HTTP client.
//!
//! gix speaks the protocol; this module moves the bytes. It decides what gix leaves to the client: one deadline for a whole
//! fetch, a limit on the size of a response, and which certificate authorities are trusted. Credentials are sent only to the
//! host of the Repository's URL, even after a redirect.

use std::any::Any;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gix_transport::client::blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse};
use rustls::crypto::aws_lc_rs;
use ureq::http::{HeaderValue, Response, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::exchange::{Answer, RequestBody, ResponsePart, exchange};
use super::{presentable, refusal};
use crate::FetchError;
use crate::error::Refusal;

/// How many redirects are followed at most.
const REDIRECTS: usize = 5;
/// The most bytes of a list of references. The list is held in memory, unlike a pack.
const REFERENCES_BYTES: u64 = 8 << 20;

/// A client that trusts the system's certificate authorities and those in `pem`; it keeps connections open for reuse.
pub(crate) fn client(pem: &[u8]) -> Result<ureq::Agent, FetchError> {
    let mut trusted: Vec<Certificate<'static>> = rustls_native_certs::load_native_certs()
        .certs
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    if !pem.is_empty() {
        let own = ureq::tls::parse_pem(pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| FetchError::InvalidCredentials(format!("ca.crt is not PEM: {error}")))?;
        if own.is_empty() {
            return Err(FetchError::InvalidCredentials("ca.crt holds no certificate".into()));
        }
        trusted.extend(own);
    }
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&trusted))
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        // These steps cannot be interrupted when a fetch is cancelled, so they have short timeouts.
        .timeout_resolve(Some(Duration::from_secs(10)))
        .timeout_connect(Some(Duration::from_secs(10)))
        .build();
    Ok(config.new_agent())
}

/// Why a request failed. The condition of the Repository says this.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The status is not a success.
    Status(Refusal),
    /// The time is over.
    Timeout,
    /// A redirect that is not followed.
    Redirect(String),
    /// The server does not speak the smart protocol.
    NotGit(String),
    /// The response is larger than allowed.
    TooLarge(u64),
    /// No connection, a broken connection, or an error of TLS.
    Connection(String),
}

/// Where a [`Session`] stores its first fault, because gix wraps errors several times.
#[derive(Clone, Default)]
pub(crate) struct FaultSlot(Arc<Mutex<Option<Fault>>>);

impl FaultSlot {
    pub(crate) fn take(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, fault: Fault) -> io::Error {
        let error = io::Error::other(format!("{fault:?}"));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
        error
    }
}

/// The requests of one fetch.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) agent: ureq::Agent,
    /// Sent only to the origin of the first URL.
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) deadline: Instant,
    /// The most bytes of a pack.
    pub(crate) pack_bytes: u64,
    pub(crate) fault: FaultSlot,
    origin: Option<Origin>,
    redirected: Option<String>,
}

impl Session {
    pub(crate) fn new(
        agent: ureq::Agent,
        authorization: Option<HeaderValue>,
        deadline: Instant,
        pack_bytes: u64,
        fault: FaultSlot,
    ) -> Self {
        Self { agent, authorization, deadline, pack_bytes, fault, origin: None, redirected: None }
    }

    fn send(&self, url: &Uri, headers: &[(String, String)], body: Option<&[u8]>) -> io::Result<Response<ureq::Body>> {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Err(self.fault.note(Fault::Timeout));
        }
        let authorization = self.authorization.as_ref().filter(|_| Origin::of(url) == self.origin);
        let mut headers: Vec<(&str, HeaderValue)> = headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), HeaderValue::from_str(value).ok()?)))
            .collect();
        headers.extend(authorization.map(|value| (header::AUTHORIZATION.as_str(), value.clone())));
        let result = if let Some(body) = body {
            let request = self.agent.post(url).config().timeout_global(Some(remaining)).build();
            headers.into_iter().fold(request, |request, (name, value)| request.header(name, value)).send(body)
        } else {
            let request = self.agent.get(url).config().timeout_global(Some(remaining)).build();
            headers.into_iter().fold(request, |request, (name, value)| request.header(name, value)).call()
        };
        result.map_err(|error| self.fault.note(fault_of(&error)))
    }

    /// The answer of `url`, if its status is a success.
    fn succeeded(&self, url: &Uri, response: Response<ureq::Body>) -> io::Result<Response<ureq::Body>> {
        if response.status().is_success() {
            return Ok(response);
        }
        let is_own = Origin::of(url) == self.origin;
        Err(self.fault.note(Fault::Status(refusal::read(response, self.authorization.as_ref(), is_own))))
    }

    fn body(&self, response: Response<ureq::Body>, limit: u64) -> Box<Body> {
        let body = response.into_body().into_with_config().limit(limit);
        Box::new(Body { reader: BufReader::with_capacity(64 << 10, body.reader()), fault: self.fault.clone() })
    }

    fn post_now(&self, url: &str, headers: &[(String, String)], request: &[u8]) -> io::Result<Answer> {
        let url: Uri = url.parse().map_err(io::Error::other)?;
        let response = self.send(&url, headers, Some(request))?;
        if response.status().is_redirection() {
            let fault = Fault::Redirect("in the middle of a fetch".into());
            return Err(self.fault.note(fault));
        }
        let response = self.succeeded(&url, response)?;
        // A packet begins with its length, in four hexadecimal digits.
        let asks_for_references = request.get(4..).is_some_and(|packet| packet.starts_with(b"command=ls-refs"));
        let limit = if asks_for_references { REFERENCES_BYTES } else { self.pack_bytes };
        Ok(Answer { headers: header_lines(&response), body: self.body(response, limit) })
    }

    /// Follows redirects as Git does: only for the first request, and only if the end of the path stays the same, so
    /// that the new base URL is known. The answer that is returned has a status of success.
    fn discover(
        &mut self,
        url: &str,
        base_url: &str,
        headers: &[(String, String)],
    ) -> io::Result<Response<ureq::Body>> {
        let tail = url.strip_prefix(base_url).unwrap_or(url).to_owned();
        let mut current = url.to_owned();
        for _ in 0..=REDIRECTS {
            let uri: Uri =
                current.parse().map_err(|_| self.fault.note(Fault::Redirect("it does not lead to a URL".into())))?;
            if self.origin.is_none() {
                self.origin = Origin::of(&uri);
            }
            let response = self.send(&uri, headers, None)?;
            if !response.status().is_redirection() {
                if current != url {
                    self.redirected = current.strip_suffix(&tail).map(ToOwned::to_owned);
                }
                return self.succeeded(&uri, response);
            }
            current = self.follow(&uri, &response, &tail)?;
        }
        Err(self.fault.note(Fault::Redirect(format!("more than {REDIRECTS} in a row"))))
    }

    fn follow(&self, from: &Uri, response: &Response<ureq::Body>, tail: &str) -> io::Result<String> {
        let refuse = |why: &str| Err(self.fault.note(Fault::Redirect(why.to_owned())));
        let Some(location) = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()) else {
            return refuse("it names no location");
        };
        let target = if location.starts_with('/') && !location.starts_with("//") {
            format!(
                "{}://{}{location}",
                from.scheme_str().unwrap_or("https"),
                from.authority().map_or("", |a| a.as_str())
            )
        } else {
            location.to_owned()
        };
        let Ok(uri) = target.parse::<Uri>() else {
            return refuse("it does not lead to a URL");
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return refuse("it names a user");
        }
        match (from.scheme_str(), uri.scheme_str()) {
            (_, Some("https")) | (Some("http"), Some("http")) => {}
            _ => return refuse("it leads away from https"),
        }
        if !target.ends_with(tail) {
            return refuse("it leads to a page that is not a Git repository");
        }
        Ok(target)
    }
}

/// Scheme, host and port.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Origin(String, String, u16);

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some(Self(scheme, uri.host()?.to_ascii_lowercase(), port))
    }
}

impl Http for Session {
    type Headers = ResponsePart;
    type ResponseBody = ResponsePart;
    type PostBody = RequestBody;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<Self::Headers, Self::ResponseBody>> {
        let response = self.discover(url, base_url, &split_headers(headers)).map_err(gix::Error::from_error)?;
        let kind = content_type(&response);
        if kind != "application/x-git-upload-pack-advertisement" {
            let detail = if kind.starts_with("text/html") {
                "it answers with a web page".to_owned()
            } else if kind.starts_with("text/plain") {
                "it speaks Git's old \"dumb\" HTTP protocol, which cannot send a single commit".to_owned()
            } else {
                format!("it answers with {:?}", presentable(kind))
            };
            return Err(gix::Error::from_error(self.fault.note(Fault::NotGit(detail))));
        }
        Ok(GetResponse {
            headers: ResponsePart::ready(Box::new(Cursor::new(header_lines(&response)))),
            body: ResponsePart::ready(self.body(response, REFERENCES_BYTES)),
        })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _kind: PostBodyDataKind,
    ) -> gix::Result<PostResponse<Self::Headers, Self::ResponseBody, Self::PostBody>> {
        let (session, url, header_lines) = (self.clone(), url.to_owned(), split_headers(headers));
        let (post_body, headers, body) = exchange(move |request| session.post_now(&url, &header_lines, request));
        Ok(PostResponse { post_body, headers, body })
    }

    fn configure(&mut self, _config: &dyn Any) -> gix::Result {
        Ok(()) // nothing is taken from Git's configuration files
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.redirected.clone()
    }
}

/// The bytes of a response. A failure while reading is stored.
struct Body {
    reader: BufReader<ureq::BodyReader<'static>>,
    fault: FaultSlot,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| note_read(&self.fault, error))
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf().map_err(|error| note_read(&self.fault, error))
    }

    fn consume(&mut self, amount: usize) {
        self.reader.consume(amount);
    }
}

fn note_read(fault: &FaultSlot, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Interrupted {
        return error;
    }
    fault.note(fault_of(&ureq::Error::from(error)))
}

fn fault_of(error: &ureq::Error) -> Fault {
    match error {
        ureq::Error::Timeout(_) => Fault::Timeout,
        ureq::Error::BodyExceedsLimit(limit) => Fault::TooLarge(*limit),
        ureq::Error::Io(io) => match io.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            Some(inner) => fault_of(inner),
            None if matches!(io.kind(), io::ErrorKind::TimedOut) => Fault::Timeout,
            None => Fault::Connection(io.to_string()),
        },
        other => Fault::Connection(other.to_string()),
    }
}

fn content_type(response: &Response<ureq::Body>) -> &str {
    response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn header_lines(response: &Response<ureq::Body>) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in response.headers() {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.push(b':');
        lines.extend_from_slice(value.as_bytes());
        lines.push(b'\n');
    }
    lines
}

fn split_headers(headers: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<(String, String)> {
    headers
        .into_iter()
        .filter_map(|line| {
            let (name, value) = line.as_ref().split_once(':')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}
