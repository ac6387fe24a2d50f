//! Git's smart HTTP transport over a blocking HTTP client.
//!
//! gix speaks the protocol; this module moves the bytes, and limits the size of a response.

use std::any::Any;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use gix_transport::client::blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse};
use ureq::http::{Method, Response, Uri, header};

use super::exchange::{Answer, RequestBody, ResponsePart, exchange};
use super::http::{Fault, Session};
use super::presentable;

/// The most bytes of a list of references. The list is held in memory, unlike a pack.
pub(super) const REFERENCES_BYTES: u64 = 8 << 20;

/// Where a [`SmartHttp`] keeps its first fault, and the URL of the request that failed. It is not taken from gix's error, because
/// gix wraps errors several times.
#[derive(Clone, Default)]
pub(crate) struct FaultSlot(Arc<Mutex<Option<FaultAt>>>);

type FaultAt = (Option<Uri>, Fault);

impl FaultSlot {
    pub(crate) fn take(&self) -> Option<FaultAt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn note(&self, at: Option<Uri>, fault: Fault) -> io::Error {
        let error = io::Error::other(format!("{fault:?}"));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((at, fault));
        error
    }
}

/// The requests of one fetch from a Git server.
#[derive(Clone)]
pub(crate) struct SmartHttp {
    pub(crate) session: Session,
    /// The most bytes of a pack.
    pub(crate) pack_bytes: u64,
    pub(crate) fault: FaultSlot,
    redirected: Option<String>,
}

impl SmartHttp {
    pub(crate) fn new(session: Session, pack_bytes: u64, fault: FaultSlot) -> Self {
        Self { session, pack_bytes, fault, redirected: None }
    }

    fn body(&self, at: Uri, response: Response<ureq::Body>, limit: u64) -> Box<Body> {
        let body = response.into_body().into_with_config().limit(limit);
        Box::new(Body { reader: BufReader::with_capacity(64 << 10, body.reader()), at, fault: self.fault.clone() })
    }

    fn post_now(&self, url: &str, headers: &[(String, String)], request: &[u8]) -> io::Result<Answer> {
        let url: Uri = url.parse().map_err(io::Error::other)?;
        let note = |fault| self.fault.note(Some(url.clone()), fault);
        let response = self.session.send(Method::POST, &url, headers, request).map_err(note)?;
        if response.status().is_redirection() {
            return Err(note(Fault::Redirect("it came in the middle of a fetch".into())));
        }
        let response = self.session.succeeded(&url, response).map_err(note)?;
        // A packet begins with its length, in four hexadecimal digits.
        let asks_for_references = request.get(4..).is_some_and(|packet| packet.starts_with(b"command=ls-refs"));
        let limit = if asks_for_references { REFERENCES_BYTES } else { self.pack_bytes };
        Ok(Answer { headers: header_lines(&response), body: self.body(url, response, limit) })
    }

    /// Follows redirects as Git does: only for the first request, and only if the end of the path stays the same, so
    /// that the new base URL is known. An answer with an error status is an error.
    fn discover(
        &mut self,
        url: &str,
        base_url: &str,
        headers: &[(String, String)],
    ) -> io::Result<(Uri, Response<ureq::Body>)> {
        let tail = url.strip_prefix(base_url).unwrap_or(url);
        let accepts = |target: &str| {
            if target.ends_with(tail) { Ok(()) } else { Err("its target is not a Git repository") }
        };
        let (last, response) =
            self.session.get(url, headers, accepts).map_err(|failed| self.fault.note(failed.0, failed.1))?;
        let note = |fault| self.fault.note(Some(last.clone()), fault);
        let response = self.session.succeeded(&last, response).map_err(note)?;
        let text = last.to_string();
        if text != url {
            self.redirected = text.strip_suffix(tail).map(ToOwned::to_owned);
        }
        Ok((last, response))
    }
}

impl Http for SmartHttp {
    type Headers = ResponsePart;
    type ResponseBody = ResponsePart;
    type PostBody = RequestBody;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<Self::Headers, Self::ResponseBody>> {
        let (at, response) = self.discover(url, base_url, &split_headers(headers)).map_err(gix::Error::from_error)?;
        let kind = content_type(&response);
        if kind != "application/x-git-upload-pack-advertisement" {
            let detail = if kind.starts_with("text/html") {
                "it answers with a web page".to_owned()
            } else if kind.starts_with("text/plain") {
                "it speaks Git's old \"dumb\" HTTP protocol, which cannot send one commit without its history"
                    .to_owned()
            } else {
                format!("it answers with {:?}", presentable(kind))
            };
            return Err(gix::Error::from_error(self.fault.note(Some(at), Fault::Protocol(detail))));
        }
        Ok(GetResponse {
            headers: ResponsePart::ready(Box::new(Cursor::new(header_lines(&response)))),
            body: ResponsePart::ready(self.body(at, response, REFERENCES_BYTES)),
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
    at: Uri,
    fault: FaultSlot,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| note_read(&self.fault, &self.at, error))
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf().map_err(|error| note_read(&self.fault, &self.at, error))
    }

    fn consume(&mut self, amount: usize) {
        self.reader.consume(amount);
    }
}

fn note_read(fault: &FaultSlot, at: &Uri, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Interrupted {
        return error;
    }
    fault.note(Some(at.clone()), Fault::of_reading(error))
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
