//! One POST, in the order in which gix handles it: gix writes the request, drops the writer, reads the headers, and
//! then the body. The request is sent when gix begins to read, so no thread is needed.

use std::io::{self, BufRead, Cursor, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// The most bytes of a request. The requests of a shallow fetch are small.
const REQUEST_BYTES: usize = 4 << 20;

/// A response: its headers, one per line, and its body as a stream.
pub(crate) struct Answer {
    pub(crate) headers: Vec<u8>,
    pub(crate) body: Box<dyn BufRead + Send>,
}

type Sender = Box<dyn FnOnce(&[u8]) -> io::Result<Answer> + Send>;

struct Exchange {
    request: Vec<u8>,
    /// `None` after the request was sent.
    send: Option<Sender>,
    headers: Option<Vec<u8>>,
    body: Option<Box<dyn BufRead + Send>>,
}

/// Prepares a request: a writer for it, and readers for the headers and the body of the response that `send` returns.
pub(crate) fn exchange(
    send: impl FnOnce(&[u8]) -> io::Result<Answer> + Send + 'static,
) -> (RequestBody, ResponsePart, ResponsePart) {
    let exchange =
        Arc::new(Mutex::new(Exchange { request: Vec::new(), send: Some(Box::new(send)), headers: None, body: None }));
    (
        RequestBody(exchange.clone()),
        ResponsePart(Inner::Waiting(exchange.clone(), Part::Headers)),
        ResponsePart(Inner::Waiting(exchange, Part::Body)),
    )
}

/// Collects the body of the request.
pub(crate) struct RequestBody(Arc<Mutex<Exchange>>);

impl Write for RequestBody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut exchange = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if exchange.request.len() + bytes.len() > REQUEST_BYTES {
            return Err(io::Error::other("the request is too large"));
        }
        exchange.request.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The headers or the body of a response. The request may not have been sent yet.
pub(crate) struct ResponsePart(Inner);

enum Inner {
    Waiting(Arc<Mutex<Exchange>>, Part),
    Ready(Box<dyn BufRead + Send>),
}

#[derive(Clone, Copy)]
enum Part {
    Headers,
    Body,
}

impl ResponsePart {
    /// A part that is already there.
    pub(crate) fn ready(reader: Box<dyn BufRead + Send>) -> Self {
        Self(Inner::Ready(reader))
    }

    fn reader(&mut self) -> io::Result<&mut (dyn BufRead + Send)> {
        if let Inner::Waiting(exchange, part) = &self.0 {
            let (exchange, part) = (exchange.clone(), *part);
            let mut exchange = exchange.lock().unwrap_or_else(PoisonError::into_inner);
            self.0 = Inner::Ready(exchange.take(part)?);
        }
        match &mut self.0 {
            Inner::Ready(reader) => Ok(reader.as_mut()),
            Inner::Waiting(..) => unreachable!("made ready above"),
        }
    }
}

impl Exchange {
    fn take(&mut self, part: Part) -> io::Result<Box<dyn BufRead + Send>> {
        if let Some(send) = self.send.take() {
            let request = std::mem::take(&mut self.request);
            let answer = send(&request)?;
            self.headers = Some(answer.headers);
            self.body = Some(answer.body);
        }
        let reader = match part {
            Part::Headers => self.headers.take().map(|headers| Box::new(Cursor::new(headers)) as _),
            Part::Body => self.body.take(),
        };
        reader.ok_or_else(|| io::Error::other("the request failed before"))
    }
}

impl Read for ResponsePart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader()?.read(buffer)
    }
}

impl BufRead for ResponsePart {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader()?.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let Inner::Ready(reader) = &mut self.0 {
            reader.consume(amount);
        }
    }
}
