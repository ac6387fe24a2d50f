//! One conversation with a remote: what does the reference stand for, and a shallow pack with what is new.

mod exchange;
pub(crate) mod http;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gix::ObjectId;
use gix::bstr::ByteSlice as _;
use gix::protocol::fetch::refmap::Source;
use gix::protocol::handshake::Ref;
use gix::remote::Direction;
use gix::remote::fetch::{Prepare, Shallow, Status, Tags};
use gix_transport::Protocol;
use gix_transport::client::blocking_io::Transport;
use gix_transport::client::blocking_io::http::Transport as HttpTransport;

use self::http::{Fault, FaultSlot, Session};
use crate::generation::Generation;
use crate::revision::{Range, Reference, Revision};
use crate::url::RemoteUrl;
use crate::{FetchError, StoreError};

/// The one local reference; what it points at is what the server is told that we have.
const LOCAL_REFERENCE: &str = "refs/gitseal/head";
/// How many names an error lists.
const NAMES_SHOWN: usize = 10;

type BoxedTransport = Box<dyn Transport + Send>;

/// A remote and the time there is to talk to it.
pub(crate) struct Remote<'a> {
    pub(crate) url: &'a RemoteUrl,
    /// `None` for `file://`.
    pub(crate) session: Option<Session>,
    pub(crate) with_credentials: bool,
    pub(crate) deadline: Instant,
    pub(crate) timeout: Duration,
    pub(crate) fault: FaultSlot,
}

/// What the remote said, before any object is transferred.
pub(crate) struct Found<'repo> {
    pub(crate) revision: Revision,
    pub(crate) id: ObjectId,
    prepared: Prepare<'static, 'repo, BoxedTransport>,
}

impl Remote<'_> {
    /// Asks what `reference` stands for.
    pub(crate) fn find<'repo>(
        &self,
        repo: &'repo gix::Repository,
        reference: &Reference,
    ) -> Result<Found<'repo>, FetchError> {
        let (source, name) = match reference {
            Reference::Head => ("HEAD".to_owned(), None),
            Reference::Branch(name) => (full_name("refs/heads/", name, reference)?, Some(name.clone())),
            Reference::Tag(name) => (full_name("refs/tags/", name, reference)?, Some(name.clone())),
            Reference::Semver(range) => {
                let tag = self.highest_tag(repo, range, reference)?;
                (full_name("refs/tags/", &tag, reference)?, Some(tag))
            }
            Reference::Commit(commit) => (commit.clone(), Some(String::new())),
        };
        let prepared = self.prepare(repo, &format!("+{source}:{LOCAL_REFERENCE}"))?;
        let mapping = prepared.ref_map().mappings.first().map(|mapping| mapping.remote.clone());
        let (id, found_name) = match mapping {
            Some(Source::ObjectId(id)) => (id, None),
            Some(Source::Ref(found)) => match target(&found) {
                Some(id) => (id, branch_of_head(&found)),
                None => return Err(FetchError::EmptyRepository),
            },
            None => {
                drop(prepared);
                return Err(self.not_found(repo, reference));
            }
        };
        let reference = name.or(found_name).unwrap_or_else(|| "HEAD".to_owned());
        Ok(Found { revision: Revision { reference, commit: id.to_string() }, id, prepared })
    }

    /// Transfers the commit that was found and what of it is not in `generation` yet.
    pub(crate) fn receive(&self, found: Found<'_>, generation: &Generation) -> Result<(), FetchError> {
        let interrupt = Arc::new(AtomicBool::new(false));
        let _alarm = Alarm::set(self.deadline, interrupt.clone());
        let commit = found.revision.commit.clone();
        let outcome = found
            .prepared
            .with_shallow(Shallow::DepthAtRemote(NonZeroU32::MIN))
            .receive(gix::progress::Discard, &interrupt)
            .map_err(|error| {
                if interrupt.load(Ordering::Relaxed) { self.timed_out() } else { self.explain(&error, Some(&commit)) }
            })?;
        if let Status::Change { write_pack_bundle, .. } = outcome.status {
            let files = [write_pack_bundle.data_path, write_pack_bundle.index_path];
            generation.make_durable(files.iter().flatten(), write_pack_bundle.keep_path.as_deref())?;
        }
        Ok(())
    }

    fn prepare<'repo>(
        &self,
        repo: &'repo gix::Repository,
        refspec: &str,
    ) -> Result<Prepare<'static, 'repo, BoxedTransport>, FetchError> {
        let explain = |error: gix::Error| self.explain(&error, None);
        let remote = repo
            .remote_at_without_url_rewrite(self.url.as_gix().clone())
            .and_then(|remote| remote.with_refspecs([refspec], Direction::Fetch))
            .map_err(explain)?
            .with_fetch_tags(Tags::None);
        remote
            .to_connection_with_transport(self.transport()?)
            .with_credentials(|_| Ok(None))
            .prepare_fetch(gix::progress::Discard, gix::remote::ref_map::Options::default())
            .map_err(explain)
    }

    fn transport(&self) -> Result<BoxedTransport, FetchError> {
        let url = self.url.as_gix().clone();
        if let Some(session) = &self.session {
            return Ok(Box::new(HttpTransport::new_http(session.clone(), url, Protocol::V2, false)));
        }
        let path = url.path;
        let transport = gix_transport::client::blocking_io::file::connect(path, Protocol::V2, false)
            .map_err(|error| FetchError::Network { host: self.url.host(), detail: error.to_string() })?;
        Ok(Box::new(transport))
    }

    fn highest_tag(&self, repo: &gix::Repository, range: &str, reference: &Reference) -> Result<String, FetchError> {
        let range = Range::parse(range)?;
        let prepared = self.prepare(repo, "+refs/tags/*:refs/gitseal/tags/*")?;
        let names = names(&prepared, "refs/tags/");
        if let Some(tag) = range.highest(names.iter().map(String::as_str)) {
            return Ok(tag.to_owned());
        }
        drop(prepared);
        Err(self.not_found(repo, reference))
    }

    /// Asks once more, for everything, so that the error says what there is.
    fn not_found(&self, repo: &gix::Repository, reference: &Reference) -> FetchError {
        let (prefix, kind) = match reference {
            Reference::Tag(_) | Reference::Semver(_) => ("refs/tags/", "tags"),
            _ => ("refs/heads/", "branches"),
        };
        let list = |prefix: &str| -> Result<Vec<String>, FetchError> {
            Ok(names(&self.prepare(repo, &format!("+{prefix}*:refs/gitseal/all/*"))?, prefix))
        };
        let found = match list(prefix) {
            Ok(found) => found,
            Err(error) => return error,
        };
        if found.is_empty() && list("refs/").is_ok_and(|all| all.is_empty()) {
            return FetchError::EmptyRepository;
        }
        FetchError::ReferenceNotFound { reference: reference.to_string(), there_are: there_are(kind, &found) }
    }

    /// What came is not what was asked for.
    pub(crate) fn unusable(&self, detail: String) -> FetchError {
        FetchError::Transfer { host: self.url.host(), detail }
    }

    pub(crate) fn timed_out(&self) -> FetchError {
        FetchError::Timeout { host: self.url.host(), seconds: self.timeout.as_secs() }
    }

    fn explain(&self, error: &gix::Error, commit: Option<&str>) -> FetchError {
        if let Some(fault) = self.fault.take() {
            return self.explain_fault(fault);
        }
        let detail = causes(error);
        let lower = detail.to_lowercase();
        if let Some(commit) = commit
            && (lower.contains("not our ref") || lower.contains("unadvertised object"))
        {
            return FetchError::CommitNotFound { commit: commit.to_owned(), detail };
        }
        if lower.contains("feature \"shallow\"")
            || lower.contains("for object hashes")
            || lower.contains("object format")
        {
            return FetchError::NotAGitServer { url: self.url.as_str().to_owned(), detail };
        }
        if error.is_resource_exhausted() || lower.contains("too large to fit in memory") {
            return FetchError::TooLarge(format!("a file in it would need more memory than allowed: {detail}"));
        }
        self.unusable(detail)
    }

    fn explain_fault(&self, fault: Fault) -> FetchError {
        let host = self.url.host();
        let url = self.url.as_str().to_owned();
        match fault {
            Fault::Timeout => self.timed_out(),
            Fault::Status(status @ (401 | 403)) => {
                FetchError::AuthenticationFailed { host, status, with_credentials: self.with_credentials }
            }
            Fault::Status(404 | 410) => FetchError::RepositoryNotFound { url, with_credentials: self.with_credentials },
            Fault::Status(status) => {
                FetchError::Network { host, detail: format!("the server answers with status {status}") }
            }
            Fault::Redirect(why) => FetchError::Network { host, detail: format!("a redirect is not followed: {why}") },
            Fault::NotGit(detail) => FetchError::NotAGitServer { url, detail },
            Fault::TooLarge(limit) => {
                FetchError::TooLarge(format!("a single commit of it takes more than {} MiB to transfer", limit >> 20))
            }
            Fault::Connection(detail) => {
                let mut detail = presentable(&detail);
                if detail.contains("UnknownIssuer") {
                    detail.push_str("; put its certificate authority into ca.crt of spec.secretRef");
                }
                FetchError::Network { host, detail }
            }
        }
    }
}

/// Sets `interrupt` when time is up, unless dropped before.
struct Alarm {
    _stop: mpsc::Sender<()>,
}

impl Alarm {
    fn set(deadline: Instant, interrupt: Arc<AtomicBool>) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let remaining = deadline.saturating_duration_since(Instant::now());
            if stopped.recv_timeout(remaining) == Err(mpsc::RecvTimeoutError::Timeout) {
                interrupt.store(true, Ordering::Relaxed);
            }
        });
        Self { _stop: stop }
    }
}

/// The commit (or peeled tag) a remote reference stands for; `None` when nothing was ever pushed to it.
fn target(found: &Ref) -> Option<ObjectId> {
    let (_, target, peeled) = found.unpack();
    peeled.or(target).filter(|id| !id.is_null()).map(ToOwned::to_owned)
}

fn branch_of_head(found: &Ref) -> Option<String> {
    match found {
        Ref::Symbolic { target, .. } => {
            let name = target.to_str().ok()?;
            Some(name.strip_prefix("refs/heads/").unwrap_or(name).to_owned())
        }
        _ => None,
    }
}

fn full_name(prefix: &str, name: &str, reference: &Reference) -> Result<String, FetchError> {
    let full = format!("{prefix}{name}");
    match gix::refs::FullName::try_from(full.as_str()) {
        Ok(_) => Ok(full),
        Err(error) => Err(FetchError::InvalidReference { reference: reference.to_string(), why: error.to_string() }),
    }
}

fn names(prepared: &Prepare<'_, '_, BoxedTransport>, prefix: &str) -> Vec<String> {
    let references = &prepared.ref_map().remote_refs;
    references
        .iter()
        .filter(|found| target(found).is_some())
        .filter_map(|found| found.unpack().0.to_str().ok()?.strip_prefix(prefix).map(ToOwned::to_owned))
        .collect()
}

fn there_are(kind: &str, names: &[String]) -> String {
    if names.is_empty() {
        return format!("the repository has no {kind}");
    }
    let shown: Vec<_> = names.iter().take(NAMES_SHOWN).map(|name| presentable(name)).collect();
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("the {kind} are: {}{more}", shown.join(", "))
}

/// The chain of causes on one line, each said once.
fn causes(error: &gix::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.iter_errors() {
        let text = cause.to_string();
        if !text.is_empty() && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
    }
    presentable(&parts.join(": "))
}

/// What others wrote, fit for a status: one line, no control characters, not too long.
pub(crate) fn presentable(text: &str) -> String {
    const LENGTH: usize = 300;
    let mut line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LENGTH).collect::<String>().trim().to_owned();
    if text.chars().count() > LENGTH {
        line.push('…');
    }
    line
}

/// The disk's refusal to create or write something.
pub(crate) fn store_error(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> FetchError {
    let path = path.to_owned();
    move |error| StoreError::new(action, &path, error).into()
}
