//! Archives in an OCI registry: charts as Helm pushes them, and other artifacts that are one gzipped tar.
//!
//! The protocol is the [distribution specification](https://github.com/opencontainers/distribution-spec). A tag leads to a
//! manifest, and the manifest to the archive, which is one of its layers. Both are named by their digests, so what is received is
//! what was asked for. The digest of the manifest is that of the revision.

mod challenge;
mod manifest;
mod signatures;

use std::fmt;
use std::path::Path;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};
use ureq::http::{HeaderValue, Method, StatusCode, Uri, header};
use zeroize::Zeroizing;

use self::challenge::Challenge;
use self::manifest::Layer;
use crate::archive::Layout;
use crate::error::{FoundDigest, Refusal};
use crate::range::{Range, newest_first};
use crate::transport::http::{Answer, Fault};
use crate::transport::{Requests, Server, hex, presentable, there_are};
use crate::{Credentials, FetchError};
use remotes::{Reference, Revision, RevisionId, is_digest, version};

/// The most bytes of a manifest, as the specification recommends.
const MANIFEST_BYTES: u64 = 4 << 20;
/// The most bytes of one list of tags.
const TAGS_BYTES: u64 = 4 << 20;
/// The most tags of a repository.
const TAGS: usize = 100_000;
/// The most bytes of the answer of a token service.
const TOKEN_BYTES: u64 = 256 << 10;
/// The header with the digest of a manifest.
const DIGEST: &str = "docker-content-digest";

/// A repository of artifacts.
pub(crate) struct Registry<'a> {
    requests: Requests<'a>,
    credentials: &'a Credentials,
}

/// What a reference leads to.
pub(crate) struct Found {
    pub(crate) revision: Revision,
    /// Whether the registry itself sent the manifest, and not another server after a redirect.
    pub(crate) is_own: bool,
    /// `None` if the revision is the known one, because its archive is stored already.
    layer: Option<Layer>,
}

impl<'a> Registry<'a> {
    pub(crate) fn new(requests: Requests<'a>, credentials: &'a Credentials) -> Self {
        Self { requests, credentials }
    }

    pub(crate) fn server(&self) -> Server<'a> {
        self.requests.server
    }

    /// Asks what `reference` leads to. The manifest of the `known` revision is not asked for again.
    pub(crate) fn find(&mut self, reference: &Reference, known: Option<&Revision>) -> Result<Found, FetchError> {
        let invalid =
            |why: &str| Err(FetchError::InvalidReference { reference: reference.to_string(), why: why.to_owned() });
        let (tag, pinned) = match reference {
            Reference::Tag(tag) => (tag_of(tag), None),
            Reference::Semver(range) => (self.highest(&Range::parse(range)?, reference)?, None),
            Reference::Digest { tag, digest } => (tag_of(tag), Some(digest)),
            Reference::Head => return invalid("a registry has no default version: set tag, semver or digest"),
            Reference::Branch(_) | Reference::Commit(_) => {
                return invalid("a registry has neither branches nor commits: set tag, semver or digest");
            }
        };
        if !tag.is_empty() && !is_tag(&tag) {
            return invalid("a tag has at most 128 letters, digits, '.', '_' and '-'");
        }
        let named = if tag.is_empty() { format!("sha256:{}", pinned.map_or("", String::as_str)) } else { tag.clone() };
        let revision = |digest: &str| {
            let reference = version_of(&tag);
            Revision { reference, id: RevisionId::Archive(digest.to_owned()) }
        };
        if let Some(known) = known
            && pinned.is_none()
            && let Some(digest) = self.digest(&named)?
            && digest == known.id.hash()
        {
            return Ok(Found { revision: revision(&digest), is_own: true, layer: None });
        }
        let answer = self.ask(Method::GET, &format!("manifests/{named}"), manifest::TYPES)?;
        if answer.1.status() == StatusCode::NOT_FOUND {
            return Err(self.not_found(reference));
        }
        let answer = self.requests.succeeded(answer)?;
        if kind(&answer).starts_with("text/html") {
            return Err(self.requests.server.explain(Fault::Protocol("it answers with a web page".into())));
        }
        let is_own = self.requests.session.is_own(&answer.0);
        let manifest = self.requests.read(answer, MANIFEST_BYTES)?;
        let digest = hex(Sha256::new().chain_update(&manifest));
        if let Some(pinned) = pinned.filter(|pinned| **pinned != digest) {
            return Err(self.other_digest(&tag, pinned, FoundDigest::of(digest, is_own)));
        }
        let layer = manifest::layer(&manifest)
            .map_err(|detail| FetchError::ArtifactNotSupported { reference: presentable(&named), detail })?;
        Ok(Found { revision: revision(&digest), is_own, layer: Some(layer) })
    }

    /// Receives the archive that was found, as a new file.
    pub(crate) fn receive(&mut self, found: Found, archive: &Path) -> Result<Layout, FetchError> {
        let Found { revision, layer, .. } = found;
        let layer = layer.expect("an archive that is stored already is not received again");
        let answer = self.ask(Method::GET, &format!("blobs/sha256:{}", layer.digest), "*/*")?;
        let host = self.requests.server.host();
        if answer.1.status() == StatusCode::NOT_FOUND {
            let (digest, reference) = (layer.digest, revision.to_string());
            return Err(FetchError::ArchiveNotFound { host, digest, reference });
        }
        let answer = self.requests.succeeded(answer)?;
        self.requests.save_archive(answer, archive, (&revision, &layer.digest), host)?;
        Ok(layer.layout)
    }

    /// The digest that the registry has for a tag, if it says so without sending the manifest. Registries limit how
    /// often a client may ask for a manifest; this request does not count.
    fn digest(&mut self, named: &str) -> Result<Option<String>, FetchError> {
        let answer = self.ask(Method::HEAD, &format!("manifests/{named}"), manifest::TYPES)?;
        if matches!(answer.1.status().as_u16(), 401 | 403 | 429) {
            return self.requests.succeeded(answer).map(|_| None);
        }
        let response = answer.1;
        let digest = response.headers().get(DIGEST).filter(|_| response.status().is_success());
        let digest = digest.and_then(|digest| digest.to_str().ok()?.strip_prefix("sha256:"));
        Ok(digest.filter(|digest| is_digest(digest)).map(str::to_owned))
    }

    fn highest(&mut self, range: &Range, reference: &Reference) -> Result<String, FetchError> {
        let versions: Vec<_> = self.tags()?.iter().map(|tag| version_of(tag)).collect();
        match range.highest(versions.iter().map(String::as_str)) {
            Some(version) => Ok(tag_of(version)),
            None => Err(not_found(reference, versions)),
        }
    }

    /// The error for a tag or digest that does not exist. If the tags cannot be listed, for example because the
    /// repository does not exist either, the error says that.
    fn not_found(&mut self, reference: &Reference) -> FetchError {
        match self.tags() {
            Ok(tags) => not_found(reference, tags.iter().map(|tag| version_of(tag)).collect()),
            Err(error) => error,
        }
    }

    fn other_digest(&self, tag: &str, pinned: &str, found: FoundDigest) -> FetchError {
        let pinned = pinned.to_owned();
        if tag.is_empty() {
            let what = "a manifest".to_owned();
            return FetchError::WrongBytes { host: self.requests.server.host(), what, expected: pinned, found };
        }
        FetchError::OtherDigest { version: version_of(tag), pinned, found }
    }

    /// All tags, read page by page. What cannot be a tag is left out.
    fn tags(&mut self) -> Result<Vec<String>, FetchError> {
        let (mut tags, mut path) = (Vec::new(), "tags/list".to_owned());
        loop {
            let answer = self.ask(Method::GET, &path, "application/json")?;
            let answer = self.requests.succeeded(answer)?;
            let next = next_page(&answer, &path);
            let page = self.requests.read(answer, TAGS_BYTES)?;
            // The server may be another one after a redirect, and an error of the parser would quote its answer.
            let unreadable = |error: serde_json::Error| {
                let detail = format!("its list of tags cannot be read: {}", place_of(&error));
                self.requests.server.explain(Fault::Protocol(detail))
            };
            let Page { tags: of_page } = serde_json::from_slice(&page).map_err(unreadable)?;
            tags.extend(of_page.unwrap_or_default().0);
            if tags.len() > TAGS {
                return Err(FetchError::TooLarge(format!("it has more than {TAGS} tags")));
            }
            match next {
                Some(next) if next != path => path = next,
                _ => return Ok(tags),
            }
        }
    }

    /// The answer to a request for a path of the repository, which may be a refusal. If the registry asks for a login,
    /// this function logs in and sends the request again.
    fn ask(&mut self, method: Method, path: &str, accept: &str) -> Result<Answer, FetchError> {
        let url = format!("{}/{path}", self.requests.server.url.registry_api());
        let headers = [(header::ACCEPT.to_string(), accept.to_owned())];
        // This is false even if there was a login for an earlier request, because its token may have expired.
        let mut is_logged_in = false;
        loop {
            let answer = if method == Method::HEAD {
                let at: Uri = url
                    .parse()
                    .map_err(|_| self.requests.server.explain(Fault::Connection("the address is not a URL".into())))?;
                let response = self.requests.session.send(method.clone(), &at, &headers, &[]);
                let response = response.map_err(|fault| self.requests.explain(Some(&at), fault))?;
                (at, response)
            } else {
                self.requests.get(&url, &headers)?
            };
            let is_refused = answer.1.status() == StatusCode::UNAUTHORIZED && self.requests.session.is_own(&answer.0);
            if !is_refused || std::mem::replace(&mut is_logged_in, true) {
                return Ok(answer);
            }
            match self.log_in(&answer)? {
                Some(authorization) => self.requests.session.authorization = Some(authorization),
                None => return Ok(answer),
            }
        }
    }

    /// The header `Authorization` for the next try of a request that the registry refused; `None` if there are no
    /// credentials that could help.
    fn log_in(&self, (_, response): &Answer) -> Result<Option<HeaderValue>, FetchError> {
        let challenges = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenges = challenges.iter().filter_map(|value| value.to_str().ok()).flat_map(challenge::parse);
        for challenge in challenges {
            match challenge {
                Challenge::Basic => return self.credentials.authorization(),
                Challenge::Bearer { realm, service, scope } => {
                    // The token in the Secret was sent already, and the registry refused it.
                    if self.credentials.is_token() {
                        return Ok(None);
                    }
                    return self.token(&realm, &service, scope).map(Some);
                }
                Challenge::Other => {}
            }
        }
        Ok(None)
    }

    /// Asks the token service that the registry names, with the credentials, if there are any.
    fn token(&self, realm: &str, service: &str, scope: Option<String>) -> Result<HeaderValue, FetchError> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let unusable = |why: &str| {
            self.requests.server.explain(Fault::Protocol(format!("its token service cannot be used: {why}")))
        };
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.requests.server.url.name()));
        let realm: Uri = realm.parse().map_err(|_| unusable("its address is not a URL"))?;
        if realm.scheme_str() != Some("https") || realm.authority().is_none_or(|at| at.as_str().contains('@')) {
            return Err(unusable("its address does not begin with https://"));
        }
        let joint = if realm.query().is_some() { '&' } else { '?' };
        let url = format!("{realm}{joint}service={}&scope={}", encoded(service), encoded(&scope));
        // The credentials may be sent to this service, because the registry names it and has proven by its certificate
        // who it is.
        let session = self.requests.session.of(&url, self.credentials.authorization()?);
        let server = self.requests.server;
        let requests = Requests { server, session, cancel: self.requests.cancel.clone() };
        let at: Uri = url.parse().map_err(|_| unusable("its address is not a URL"))?;
        let host = presentable(at.authority().map_or("", |authority| authority.as_str()));
        let failed = |fault| server.explain_at(host.clone(), fault);
        let response = requests.session.send(Method::GET, &at, &[], &[]).map_err(failed)?;
        let response = requests.session.succeeded(&at, response).map_err(|fault| match fault {
            // An error repeats the text of a server only if the author of the Repository named that server.
            Fault::Status(refusal) if !self.requests.session.is_own(&at) => {
                failed(Fault::Status(Refusal { said: String::new(), ..refusal }))
            }
            fault => failed(fault),
        })?;
        let answer = Zeroizing::new(requests.read((at, response), TOKEN_BYTES)?);
        let answer: Token = serde_json::from_slice(&answer).map_err(|_| unusable("its answer cannot be read"))?;
        let token = answer.token.or(answer.access_token).map(Zeroizing::new);
        let token = token.ok_or_else(|| unusable("its answer has no token"))?;
        let text = Zeroizing::new(format!("Bearer {}", *token));
        let mut header = HeaderValue::from_str(&text).map_err(|_| unusable("its answer has no usable token"))?;
        header.set_sensitive(true);
        Ok(header)
    }
}

/// A page of the list of tags.
#[derive(Deserialize)]
struct Page {
    /// `null` if there are none.
    #[serde(default)]
    tags: Option<Tags>,
}

/// The tags of a page. Whatever else a server sends in their place is dropped while it is read. Of the tags beyond the
/// limit, only one is kept, which shows that there are too many. Otherwise, a few pages of long texts would fill the
/// memory.
#[derive(Default)]
struct Tags(Vec<String>);

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Tags;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tags")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Tags, A::Error> {
                let mut tags = Vec::new();
                while let Some(tag) = all.next_element::<String>()? {
                    if is_tag(&tag) && tags.len() <= TAGS {
                        tags.push(tag);
                    }
                }
                Ok(Tags(tags))
            }
        }

        from.deserialize_seq(Reader)
    }
}

/// Where a server's answer is wrong, without its content.
fn place_of(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

fn not_found(reference: &Reference, versions: Vec<String>) -> FetchError {
    let there_are = there_are("tags", &newest_first(versions));
    FetchError::ReferenceNotFound { reference: reference.to_string(), there_are }
}

/// Whether this can be a tag.
fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || b".-".contains(&byte))
}

/// The tag of a version. A tag cannot contain `+`, so Helm writes `_`.
fn tag_of(version: &str) -> String {
    version.replace('+', "_")
}

/// The version that a tag means, or the tag itself.
fn version_of(tag: &str) -> String {
    let name = tag.replace('_', "+");
    if version(&name).is_some() { name } else { tag.to_owned() }
}

fn kind((_, response): &Answer) -> &str {
    response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default()
}

/// The path of the next page of the list at `path`. The server names it in a header such as `Link:
/// </v2/name/tags/list?last=…>; rel="next"`, of which only the query is used. So all pages are those of the same list of the same
/// server.
fn next_page((_, response): &Answer, path: &str) -> Option<String> {
    let links = response.headers().get_all(header::LINK).iter().filter_map(|link| link.to_str().ok());
    let next = links.flat_map(|links| links.split(',')).find(|link| {
        let relation = link.split(';').skip(1).map(|parameter| parameter.replace(['"', ' '], ""));
        relation.into_iter().any(|parameter| parameter == "rel=next")
    })?;
    let (_, query) = next.split_once('<')?.1.split_once('>')?.0.split_once('?')?;
    let (list, _) = path.split_once('?').unwrap_or((path, ""));
    Some(format!("{list}?{query}"))
}

/// A text in the query of a URL.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            all.push(byte.into());
        } else {
            all.push_str(&format!("%{byte:02X}"));
        }
        all
    })
}

#[cfg(test)]
mod tests;
