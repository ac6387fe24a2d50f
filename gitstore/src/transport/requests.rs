//! Requests for archives. They follow redirects. A failure names the host that failed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use ureq::http::Uri;
use worker::Cancel;

use super::http::{Answer, Fault, Session};
use super::{Server, store_error};
use crate::FetchError;
use crate::archive::ARCHIVE_BYTES;
use crate::error::FoundDigest;
use remotes::Revision;

/// The requests of one fetch.
pub(crate) struct Requests<'a> {
    pub(crate) server: Server<'a>,
    pub(crate) session: Session,
    pub(crate) cancel: Cancel,
}

impl Requests<'_> {
    /// The answer to a GET request, whatever its status is.
    pub(crate) fn get(&self, url: &str, headers: &[(String, String)]) -> Result<Answer, FetchError> {
        self.session.get(url, headers, |_| Ok(())).map_err(|failed| self.explain(failed.0.as_ref(), failed.1))
    }

    /// The answer, if its status is a success.
    pub(crate) fn succeeded(&self, (url, response): Answer) -> Result<Answer, FetchError> {
        match self.session.succeeded(&url, response) {
            Ok(response) => Ok((url, response)),
            Err(fault) => Err(self.explain(Some(&url), fault)),
        }
    }

    /// The body of an answer, at most this many bytes.
    pub(crate) fn read(&self, (url, response): Answer, most: u64) -> Result<Vec<u8>, FetchError> {
        let body = response.into_body().into_with_config().limit(most).read_to_vec();
        body.map_err(|error| self.explain(Some(&url), Fault::of(&error)))
    }

    /// The body of an answer as a stream. Reading fails after this many bytes.
    pub(crate) fn stream((_, response): Answer, most: u64) -> impl io::Read {
        response.into_body().into_with_config().limit(most).reader()
    }

    /// Writes the body of an answer to a new file. The body is the archive of `revision`, and must have this SHA-256
    /// digest, in hex digits. An error names `host`.
    pub(crate) fn save_archive(
        &self,
        (url, response): Answer,
        path: &Path,
        (revision, expected): (&Revision, &str),
        host: String,
    ) -> Result<(), FetchError> {
        let mut body = response.into_body().into_with_config().limit(ARCHIVE_BYTES).reader();
        let mut file = File::create(path).map_err(store_error("create", path))?;
        let (mut digest, mut bytes) = (Sha256::new(), 0_u64);
        let mut buffer = vec![0; 64 << 10];
        loop {
            if self.cancel.is_cancelled() {
                return Err(FetchError::Cancelled);
            }
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.explain(Some(&url), Fault::of_reading(error))),
            };
            digest.update(&buffer[..count]);
            bytes += count as u64;
            file.write_all(&buffer[..count]).map_err(store_error("write", path))?;
        }
        let found = hex(digest);
        if found == expected {
            return Ok(());
        }
        let is_own = self.session.is_own(&url);
        let size = if is_own { format!(", {bytes} bytes,") } else { String::new() };
        let what = format!("the archive of {revision}{size}");
        let found = FoundDigest(is_own.then_some(found));
        Err(FetchError::WrongBytes { host, what, expected: expected.to_owned(), found })
    }

    /// Explains why a request to `at` failed; without `at`, a request to the Repository's own server.
    pub(crate) fn explain(&self, at: Option<&Uri>, fault: Fault) -> FetchError {
        self.server.explain_of(&self.session, at, fault)
    }
}

/// The hex digits of a digest.
pub(crate) fn hex(digest: Sha256) -> String {
    digest.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
