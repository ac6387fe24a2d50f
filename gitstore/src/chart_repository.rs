//! Charts of an HTTP chart repository: what `helm repo add` takes.
//!
//! A chart repository is a folder with the file `index.yaml`, which lists the versions of each chart with their digests
//! and the URLs of their archives. Of this list, only the versions of one chart are kept. The digest of a revision is
//! the digest of its archive.

mod index;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ureq::http::{StatusCode, Uri, header};

use self::index::{Index, Version};
use crate::FetchError;
use crate::error::FoundDigest;
use crate::range::{Range, newest_first};
use crate::transport::http::{Answer, Fault, may_follow};
use crate::transport::{Requests, Server, there_are};
use crate::verify::TrustedKeys;
use crate::verify::openpgp::Distrust;
use remotes::scheme_of;
use remotes::{Reference, Revision, RevisionId};

/// The most bytes of a provenance file.
const PROVENANCE_BYTES: u64 = 1 << 20;

/// A chart of a chart repository.
pub(crate) struct ChartRepository<'a> {
    requests: Requests<'a>,
    chart: &'a str,
    last: &'a LastIndex,
}

/// What was found in the index last. The index itself is not kept, because a tenant may have many Repositories. It is asked for
/// again only if it has changed, or if something else is looked for.
#[derive(Default)]
pub(crate) struct LastIndex(Mutex<Option<(Validators, Reference, Found)>>);

/// Request headers by which the server can tell whether the index has changed since the last download.
type Validators = Vec<(String, String)>;

/// What a reference leads to.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) revision: Revision,
    digest: String,
    urls: Vec<String>,
}

impl<'a> ChartRepository<'a> {
    pub(crate) fn new(requests: Requests<'a>, chart: &'a str, last: &'a LastIndex) -> Self {
        Self { requests, chart, last }
    }

    pub(crate) fn server(&self) -> Server<'a> {
        self.requests.server
    }

    /// Asks which version `reference` stands for.
    pub(crate) fn find(&self, reference: &Reference) -> Result<Found, FetchError> {
        let mut last = self.last.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.as_ref().filter(|(_, of, _)| of == reference);
        let headers = known.map(|(validators, ..)| validators.clone()).unwrap_or_default();
        let url = format!("{}/index.yaml", self.requests.server.url.as_str());
        let answer = self.requests.get(&url, &headers)?;
        if let Some((.., found)) = known.filter(|_| answer.1.status() == StatusCode::NOT_MODIFIED) {
            return Ok(found.clone());
        }
        let answer = self.requests.succeeded(answer)?;
        let validators = validators(&answer);
        let found = self.find_in(&self.read(answer)?, reference)?;
        *last = (!validators.is_empty()).then(|| (validators, reference.clone(), found.clone()));
        Ok(found)
    }

    fn find_in(&self, index: &Index, reference: &Reference) -> Result<Found, FetchError> {
        if index.versions.is_empty() {
            let there_are = index.names("charts", &index.charts);
            return Err(FetchError::ReferenceNotFound { reference: format!("chart {:?}", self.chart), there_are });
        }
        let (version, pinned) = choose(index, reference)?;
        let name = &version.name;
        let Some(digest) = version.digest.clone() else {
            let detail =
                format!("the index names no SHA-256 digest for version {name}: make the index with `helm repo index`");
            return Err(self.requests.server.explain(Fault::Protocol(detail)));
        };
        if let Some(pinned) = pinned.filter(|pinned| **pinned != digest) {
            let found = FoundDigest(Some(digest));
            return Err(FetchError::OtherDigest { version: name.clone(), pinned: pinned.clone(), found });
        }
        let reference = match reference {
            Reference::Digest { tag, .. } if tag.is_empty() => String::new(),
            _ => name.clone(),
        };
        let revision = Revision { reference, id: RevisionId::Archive(digest.clone()) };
        Ok(Found { revision, digest, urls: version.urls.clone() })
    }

    /// Receives the archive that was found, as a new file, from the first URL that works.
    pub(crate) fn receive(&self, found: &Found, archive: &Path) -> Result<(), FetchError> {
        let mut first = None;
        for url in &found.urls {
            match self.receive_from(url, found, archive) {
                Ok(()) => return Ok(()),
                Err(error @ (FetchError::Cancelled | FetchError::Store(_))) => return Err(error),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| {
            let detail = format!("the index names no URL for the archive of {}", found.revision);
            self.requests.server.explain(Fault::Protocol(detail))
        }))
    }

    /// Checks that a provenance file names the archive of this revision, and that a trusted key signed that file.
    ///
    /// # Errors
    /// [`FetchError::NoProvenance`] if there is no such file, [`FetchError::ProvenanceUntrusted`] if it proves nothing.
    pub(crate) fn verify(&self, revision: &Revision, trusted: &TrustedKeys) -> Result<(), FetchError> {
        let digest = revision.id.hash();
        let found = self.find(&Reference::Digest { tag: revision.reference.clone(), digest: digest.to_owned() })?;
        let (mut last, host) = (None, self.requests.server.host());
        for url in &found.urls {
            match self.provenance(url)? {
                None => {}
                Some((host, message)) => match self.is_signed(&message, revision, trusted) {
                    Ok(()) => return Ok(()),
                    Err(why) => {
                        let revision = revision.to_string();
                        last = Some(FetchError::ProvenanceUntrusted { host, revision, why });
                    }
                },
            }
        }
        Err(last.unwrap_or_else(|| FetchError::NoProvenance { host, revision: revision.to_string() }))
    }

    /// The provenance file beside the archive at `url`, and the host that sent it; `None` if there is none.
    fn provenance(&self, url: &str) -> Result<Option<(String, Vec<u8>)>, FetchError> {
        let Ok(url) = resolve(self.requests.server.url.as_str(), url) else { return Ok(None) };
        let (path, query) = url.find('?').map_or((url.as_str(), ""), |at| url.split_at(at));
        let answer = self.requests.get(&format!("{path}.prov{query}"), &[])?;
        let host = answer.0.host().unwrap_or_default().to_owned();
        if matches!(answer.1.status(), StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN) {
            return Ok(None);
        }
        let answer = self.requests.succeeded(answer)?;
        Ok(Some((host, self.requests.read(answer, PROVENANCE_BYTES)?)))
    }

    /// The error says why the provenance file proves nothing.
    fn is_signed(&self, message: &[u8], revision: &Revision, trusted: &TrustedKeys) -> Result<(), String> {
        let text = trusted.clear_text(message).map_err(|distrust| match distrust {
            Distrust::Unsigned => "it is not a signed message of OpenPGP".to_owned(),
            Distrust::Untrusted(None) => {
                "no trusted key made its signature; ask who signed it, and add the public key of the signer if you trust it".to_owned()
            }
            Distrust::Untrusted(Some(why)) => why,
        })?;
        // The name has the version. So nobody can let the index lead to another version that was signed, too.
        let name = format!("{}-{}.tgz", self.chart, revision.reference);
        let digest = format!("sha256:{}", revision.id.hash());
        let is_named = |(file, of_file): (&str, &str)| {
            of_file == digest && (file == name || revision.reference.is_empty() && file.starts_with(self.chart))
        };
        if files_in(&text).any(is_named) {
            return Ok(());
        }
        Err(format!("the provenance file is signed, but it does not list {name} with the digest of the archive"))
    }

    fn receive_from(&self, url: &str, found: &Found, archive: &Path) -> Result<(), FetchError> {
        let server = self.requests.server;
        let base = server.url.as_str();
        let url = resolve(base, url).map_err(|why| {
            server.explain(Fault::Protocol(format!(
                "the URL of the archive of {} is not followed: {why}",
                found.revision
            )))
        })?;
        let answer = self.requests.get(&url, &[])?;
        let host = answer.0.host().unwrap_or_default().to_owned();
        if matches!(answer.1.status(), StatusCode::NOT_FOUND | StatusCode::GONE) {
            let (digest, reference) = (found.digest.clone(), found.revision.to_string());
            return Err(FetchError::ArchiveNotFound { host, digest, reference });
        }
        let answer = self.requests.succeeded(answer)?;
        self.requests.save_archive(answer, archive, (&found.revision, &found.digest), host)
    }

    fn read(&self, answer: Answer) -> Result<Index, FetchError> {
        let server = self.requests.server;
        let at = answer.0.clone();
        let index = index::read(Requests::stream(answer, index::BYTES), self.chart, &self.requests.cancel);
        let index = index.map_err(|flaw| match flaw {
            index::Flaw::Unreadable(why) => server.explain(Fault::Protocol(why)),
            index::Flaw::TooLarge(what) => FetchError::TooLarge(what),
            index::Flaw::Broken(error) => match Fault::of_reading(error) {
                Fault::TooLarge(limit) => FetchError::TooLarge(format!(
                    "its index.yaml has more than {} MiB: remove old versions from it, or use a registry, which has no index",
                    limit >> 20
                )),
                fault => self.requests.explain(Some(&at), fault),
            },
            index::Flaw::Cancelled => FetchError::Cancelled,
        })?;
        Ok(Index { is_of_elsewhere: !self.requests.session.is_own(&at), ..index })
    }
}

impl Index {
    /// The names in it, for a message. Who chose the host must not learn in this way what another host serves.
    fn names(&self, kind: &str, names: &[String]) -> String {
        if self.is_of_elsewhere {
            return format!("its {kind} are not listed here, because a redirect leads to another index");
        }
        there_are(kind, names)
    }
}

/// The version that a reference means, and the digest that it must have.
fn choose<'v, 'r>(index: &'v Index, reference: &'r Reference) -> Result<(&'v Version, Option<&'r String>), FetchError> {
    let versions = &index.versions;
    let names = || versions.iter().map(|version| version.name.as_str());
    let of = |name: &str| versions.iter().find(|version| version.name == name);
    let (found, pinned) = match reference {
        Reference::Head => (Range::parse("*")?.highest(names()).and_then(of), None),
        Reference::Semver(range) => (Range::parse(range)?.highest(names()).and_then(of), None),
        Reference::Tag(tag) => (of(tag), None),
        Reference::Digest { tag, digest } if tag.is_empty() => {
            (versions.iter().find(|version| version.digest.as_ref() == Some(digest)), None)
        }
        Reference::Digest { tag, digest } => (of(tag), Some(digest)),
        Reference::Branch(_) | Reference::Commit(_) => {
            let why = "a chart has neither branches nor commits: set tag, semver or digest".to_owned();
            return Err(FetchError::InvalidReference { reference: reference.to_string(), why });
        }
    };
    found.map(|found| (found, pinned)).ok_or_else(|| {
        let reference = match reference {
            Reference::Head => "a version that is no pre-release".to_owned(),
            other => other.to_string(),
        };
        let there_are = index.names("versions", &newest_first(names().map(str::to_owned).collect()));
        FetchError::ReferenceNotFound { reference, there_are }
    })
}

/// The files in the text of a provenance file, with their digests. After the `Chart.yaml` and a line with `...`, there is a mapping
/// `files`.
fn files_in(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(str::trim_end).skip_while(|line| *line != "...");
    let of_files = lines.skip_while(|line| *line != "files:").skip(1).take_while(|line| line.starts_with(' '));
    of_files
        .filter_map(|line| line.trim().split_once(": "))
        .map(|(name, digest)| (name.trim_matches(['"', '\'']), digest.trim()))
}

/// The URL of an archive, which may be relative to the folder of the index.
fn resolve(base: &str, url: &str) -> Result<String, &'static str> {
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    let (scheme, rest) = base.split_once("://").ok_or("the repository has no usable URL")?;
    let (host, folder) = rest.split_once('/').unwrap_or((rest, ""));
    let path = if let Some(other) = scheme_of(url) {
        return match other {
            "http" | "https" => checked(base, url.to_owned()),
            "oci" => Err("it leads to a registry: set spec.url to the chart's oci:// URL, and remove spec.chart"),
            _ => Err("it does not begin with https://"),
        };
    } else if url.starts_with("//") {
        return checked(base, format!("{scheme}:{url}"));
    } else if let Some(path) = url.strip_prefix('/') {
        path.to_owned()
    } else {
        format!("{folder}/{url}")
    };
    let (path, query) = path.find('?').map_or((path.as_str(), ""), |at| path.split_at(at));
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    checked(base, format!("{scheme}://{host}/{}{query}", parts.join("/")))
}

fn checked(base: &str, url: String) -> Result<String, &'static str> {
    let from: Uri = base.parse().map_err(|_| "the repository has no usable URL")?;
    let to: Uri = url.parse().map_err(|_| "it is not a URL")?;
    may_follow(&from, &to)?;
    Ok(url)
}

/// The headers to send with the next request, so that the server can answer that the index is unchanged.
fn validators((_, response): &Answer) -> Validators {
    let pairs = [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)];
    let of = |(told, asked): (header::HeaderName, header::HeaderName)| {
        let value = response.headers().get(told)?.to_str().ok().filter(|value| value.len() <= 1024)?;
        Some((asked.to_string(), value.to_owned()))
    };
    pairs.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests;
