//! One conversation with a Git server: asks what a reference points to, and receives a shallow pack with the new objects.
//!
//! One deadline holds for a whole fetch, and the size of a response is limited. Credentials are sent only to the host of the
//! Repository's URL, even after a redirect.

mod exchange;
pub(crate) mod http;
mod refusal;
mod requests;
mod server;
mod smart;
pub(crate) mod ssh;

use std::fs::File;
use std::io::{self, BufRead, Write as _};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use gix::ObjectId;
use gix::bstr::ByteSlice as _;
use gix::protocol::Handshake;
use gix::protocol::fetch::refmap::Source;
use gix::protocol::fetch::{self, Arguments, RefMap, Shallow, Tags, negotiate};
use gix::protocol::handshake::Ref;
use gix_transport::client::blocking_io::Transport;
use gix_transport::client::blocking_io::http::Transport as HttpTransport;
use gix_transport::{Protocol, Service};
use worker::Cancel;

use self::http::Fault;
pub(crate) use self::requests::{Requests, hex};
pub(crate) use self::server::Server;
pub(crate) use self::smart::{FaultSlot, SmartHttp};
use self::ssh::Ssh;
use crate::range::Range;
use crate::{FetchError, StoreError};
use remotes::{Reference, Revision, RevisionId};

/// The local side of the refspec. It is given only because the refspec must have one.
const LOCAL_REFERENCE: &str = "refs/gitseal/head";
/// How many names an error lists.
const NAMES_SHOWN: usize = 10;

type BoxedTransport = Box<dyn Transport + Send>;

/// A Git server, and the deadline for the conversation with it.
pub(crate) struct Remote<'a> {
    pub(crate) server: Server<'a>,
    pub(crate) wire: Wire<'a>,
    pub(crate) deadline: Instant,
    pub(crate) cancel: Cancel,
    pub(crate) fault: FaultSlot,
}

/// How the bytes get to the server and back.
pub(crate) enum Wire<'a> {
    Http(Box<SmartHttp>),
    Ssh(Box<Ssh<'a>>),
    /// The server is the program `git` on this machine.
    File,
}

/// What the remote answered before any object is transferred.
pub(crate) struct Found {
    pub(crate) revision: Revision,
    pub(crate) id: ObjectId,
    said: Said,
}

/// A conversation in which the remote has listed its references.
struct Said {
    transport: BoxedTransport,
    handshake: Handshake,
    references: RefMap,
}

/// Where the received data goes, and what is stored already.
pub(crate) struct Arrival<'a> {
    /// The file for the received pack.
    pub(crate) pack: &'a Path,
    /// Git's list of commits whose parents are left out.
    pub(crate) shallow_file: PathBuf,
    /// A commit that is stored with all its objects.
    pub(crate) have: Option<ObjectId>,
}

impl Remote<'_> {
    /// Asks what `reference` points to.
    pub(crate) fn find(&self, reference: &Reference) -> Result<Found, FetchError> {
        match self.find_now(reference) {
            // The reference was pushed at this very moment. The next try finds the reference, unless it is gone again.
            Err(FetchError::ReferenceAppeared { .. }) => self.find_now(reference),
            found => found,
        }
    }

    fn find_now(&self, reference: &Reference) -> Result<Found, FetchError> {
        let (source, name) = match reference {
            Reference::Head => ("HEAD".to_owned(), None),
            Reference::Branch(name) => (full_name("refs/heads/", name, reference)?, Some(name.clone())),
            Reference::Tag(name) => (full_name("refs/tags/", name, reference)?, Some(name.clone())),
            Reference::Semver(range) => {
                let tag = self.highest_tag(range, reference)?;
                (full_name("refs/tags/", &tag, reference)?, Some(tag))
            }
            Reference::Commit(commit) => (commit.clone(), Some(String::new())),
            Reference::Digest { .. } => {
                let why = "a digest identifies an archive, and this is a Git repository: set commit instead".to_owned();
                return Err(FetchError::InvalidReference { reference: reference.to_string(), why });
            }
        };
        let said = self.ask(&format!("+{source}:{LOCAL_REFERENCE}"))?;
        let mapping = said.references.mappings.first().map(|mapping| mapping.remote.clone());
        let (id, found_name) = match mapping {
            Some(Source::ObjectId(id)) => (id, None),
            Some(Source::Ref(found)) => {
                let Some(id) = target(&found) else {
                    drop(said);
                    return Err(self.not_found(reference, branch_of_head(&found).as_deref()));
                };
                (id, branch_of_head(&found))
            }
            None => {
                drop(said);
                return Err(self.not_found(reference, None));
            }
        };
        let reference = name.or(found_name).unwrap_or_else(|| "HEAD".to_owned());
        Ok(Found { revision: Revision { reference, id: RevisionId::Commit(id.to_string()) }, id, said })
    }

    /// Receives the found commit as one pack, without the objects that are stored already. The pack is not read here.
    pub(crate) fn receive(&self, found: Found, into: &Arrival<'_>) -> Result<(), FetchError> {
        let interrupt = Arc::new(AtomicBool::new(false));
        let _alarm = Alarm::set(self.deadline, interrupt.clone());
        let wanted_no_more = interrupt.clone();
        let _stop = self.cancel.on_cancel(move || wanted_no_more.store(true, Ordering::Relaxed));
        let Found { revision, id, said: Said { mut transport, mut handshake, references } } = found;
        if references.object_hash != gix::hash::Kind::Sha1 {
            let format = references.object_hash.to_string();
            return Err(FetchError::ObjectFormat { url: self.server.url.as_str().to_owned(), format });
        }
        if let Wire::Ssh(ssh) = &self.wire {
            ssh.expect_pack();
        }
        let mut disk = None;
        let received = gix::protocol::fetch(
            &mut OneCommit { want: id, have: into.have },
            |reader, _, interrupt| match save(reader, into.pack, interrupt) {
                Ok(()) => Ok(true),
                Err(Unsaved::Read(error)) => Err(gix::Error::from_error(error)),
                Err(Unsaved::Written(error)) => {
                    disk = Some(store_error("write", into.pack)(error));
                    Err(gix::Error::from_error(io::Error::other("the pack could not be stored")))
                }
            },
            gix::progress::Discard,
            &interrupt,
            fetch::Context {
                handshake: &mut handshake,
                transport: &mut transport,
                user_agent: user_agent(),
                trace_packetlines: false,
            },
            fetch::Options {
                shallow_file: into.shallow_file.clone(),
                shallow: &Shallow::DepthAtRemote(NonZeroU32::MIN),
                tags: Tags::None,
                reject_shallow_remote: false,
            },
        );
        if let Some(error) = disk {
            return Err(error);
        }
        let outcome = received.map_err(|error| {
            if interrupt.load(Ordering::Relaxed) {
                return self.server.timed_out();
            }
            self.explain(&error, Some(revision.id.hash()))
        })?;
        if outcome.is_none() {
            return Err(self.server.unusable("it did not send the commit that it names".to_owned()));
        }
        if handshake.server_protocol_version == Protocol::V2 {
            // A failure does not matter: over HTTP this does nothing, and the program `git` of a `file://` URL ends
            // anyway.
            let _ = gix::protocol::indicate_end_of_interaction(&mut transport, false);
        }
        Ok(())
    }

    fn ask(&self, refspec: &str) -> Result<Said, FetchError> {
        let explain = |error: gix::Error| self.explain(&error, None);
        let mut transport = self.transport()?;
        let nothing = |_| Ok(None);
        let mut handshake = gix::protocol::handshake(
            &mut transport,
            Service::UploadPack,
            nothing,
            Vec::new(),
            &mut gix::progress::Discard,
        )
        .map_err(explain)?;
        if let Some(format) =
            handshake.capabilities.capability("object-format").and_then(|format| Some(format.value()?.to_string()))
            && format != "sha1"
        {
            return Err(FetchError::ObjectFormat {
                url: self.server.url.as_str().to_owned(),
                format: presentable(&format),
            });
        }
        let refspec = gix::refspec::parse(refspec.into(), gix::refspec::parse::Operation::Fetch)
            .map_err(|error| self.server.unusable(error.to_string()))?
            .to_owned();
        let context = fetch::refmap::init::Context { fetch_refspecs: vec![refspec], extra_refspecs: Vec::new() };
        let references = handshake
            .prepare_lsrefs_or_extract_refmap(user_agent(), true, context)
            .and_then(|asked| asked.fetch_blocking(gix::progress::Discard, &mut transport, false))
            .map_err(explain)?;
        Ok(Said { transport, handshake, references })
    }

    fn transport(&self) -> Result<BoxedTransport, FetchError> {
        let url = self.server.url.as_gix().clone();
        match &self.wire {
            Wire::Http(http) => Ok(Box::new(HttpTransport::new_http((**http).clone(), url, Protocol::V2, false))),
            Wire::Ssh(ssh) => ssh.transport().map_err(|fault| self.server.explain(fault)),
            Wire::File => gix_transport::client::blocking_io::file::connect(url.path, Protocol::V2, false)
                .map(|transport| -> BoxedTransport { Box::new(transport) })
                .map_err(|error| FetchError::Network { host: self.server.host(), detail: error.to_string() }),
        }
    }

    fn highest_tag(&self, range: &str, reference: &Reference) -> Result<String, FetchError> {
        let range = Range::parse(range)?;
        let names = names(&self.ask("+refs/tags/*:refs/gitseal/tags/*")?, "refs/tags/");
        match range.highest(names.iter().map(String::as_str)) {
            Some(tag) => Ok(tag.to_owned()),
            None => Err(self.not_found(reference, None)),
        }
    }

    /// Asks again, for all references, so that the error can list the existing ones. `default` is the branch that the
    /// remote names as its default.
    fn not_found(&self, reference: &Reference, default: Option<&str>) -> FetchError {
        let (prefix, kind) = match reference {
            Reference::Tag(_) | Reference::Semver(_) => ("refs/tags/", "tags"),
            _ => ("refs/heads/", "branches"),
        };
        let list = |prefix: &str| -> Result<Vec<String>, FetchError> {
            Ok(names(&self.ask(&format!("+{prefix}*:refs/gitseal/all/*"))?, prefix))
        };
        let found = match list(prefix) {
            Ok(found) => found,
            Err(error) => return error,
        };
        let has_none_of = |prefix| list(prefix).is_ok_and(|all| all.is_empty());
        if found.is_empty() && has_none_of("refs/heads/") && has_none_of("refs/tags/") {
            return FetchError::EmptyRepository;
        }
        let is_there = match reference {
            Reference::Head => default.is_some_and(|default| found.iter().any(|name| name == default)),
            Reference::Branch(name) | Reference::Tag(name) => found.contains(name),
            Reference::Semver(range) => {
                Range::parse(range).is_ok_and(|range| range.highest(found.iter().map(String::as_str)).is_some())
            }
            Reference::Commit(_) | Reference::Digest { .. } => false,
        };
        if is_there {
            return FetchError::ReferenceAppeared { reference: reference.to_string() };
        }
        let mut there_are = there_are(kind, &found);
        let mut name = reference.to_string();
        if *reference == Reference::Head {
            there_are.push_str("; name one in spec.ref.branch, or set another default branch on the server");
            if let Some(default) = default {
                name = format!("{name} {:?}", presentable(default));
            }
        }
        FetchError::ReferenceNotFound { reference: name, there_are }
    }

    fn explain(&self, error: &gix::Error, commit: Option<&str>) -> FetchError {
        if let Some((at, fault)) = self.fault.take() {
            return match &self.wire {
                Wire::Http(http) => self.server.explain_of(&http.session, at.as_ref(), fault),
                Wire::Ssh(_) | Wire::File => self.server.explain(fault),
            };
        }
        let detail = causes(error);
        let lower = detail.to_lowercase();
        if let Some(commit) = commit
            && (lower.contains("not our ref") || lower.contains("unadvertised object"))
        {
            return FetchError::CommitNotFound { host: self.server.host(), commit: commit.to_owned() };
        }
        if lower.contains("feature \"shallow\"") {
            return self.server.explain(Fault::Protocol(detail));
        }
        if error.is_resource_exhausted() || lower.contains("too large to fit in memory") {
            return FetchError::TooLarge(format!("a file in the commit would need more memory than allowed: {detail}"));
        }
        self.server.unusable(detail)
    }
}

/// Requests one commit, and offers at most one stored commit. So the negotiation needs only one message.
struct OneCommit {
    want: ObjectId,
    have: Option<ObjectId>,
}

impl fetch::Negotiate for OneCommit {
    fn mark_complete_and_common_ref(&mut self) -> gix::Result<negotiate::Action> {
        Ok(negotiate::Action::MustNegotiate { remote_ref_target_known: vec![false] })
    }

    fn add_wants(&mut self, arguments: &mut Arguments, _: &[bool]) -> bool {
        arguments.want(self.want);
        true
    }

    fn one_round(
        &mut self,
        _: &mut negotiate::one_round::State,
        arguments: &mut Arguments,
        _: Option<&fetch::Response>,
    ) -> gix::Result<(negotiate::Round, bool)> {
        let haves_sent = usize::from(self.have.is_some());
        if let Some(have) = self.have {
            arguments.have(have);
        }
        let round = negotiate::Round {
            haves_sent,
            in_vain: 0,
            haves_to_send: haves_sent,
            previous_response_had_at_least_one_in_common: false,
        };
        Ok((round, true))
    }
}

/// Why a pack could not be saved.
enum Unsaved {
    Read(io::Error),
    Written(io::Error),
}

fn save(reader: &mut dyn BufRead, path: &Path, interrupt: &AtomicBool) -> Result<(), Unsaved> {
    let mut file = File::create(path).map_err(Unsaved::Written)?;
    loop {
        if interrupt.load(Ordering::Relaxed) {
            return Err(Unsaved::Read(io::Error::from(io::ErrorKind::TimedOut)));
        }
        let bytes = match reader.fill_buf() {
            Ok([]) => return Ok(()),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Unsaved::Read(error)),
        };
        file.write_all(bytes).map_err(Unsaved::Written)?;
        let length = bytes.len();
        reader.consume(length);
    }
}

fn user_agent() -> gix::protocol::command::Feature {
    ("agent", Some(concat!("git/gitseal-", env!("CARGO_PKG_VERSION")).to_owned()))
}

/// Sets `interrupt` when the time is over, unless the alarm is dropped before.
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

/// The commit (or peeled tag) that a remote reference points to; `None` if nothing was ever pushed to it.
fn target(found: &Ref) -> Option<ObjectId> {
    let (_, target, peeled) = found.unpack();
    peeled.or(target).filter(|id| !id.is_null()).map(ToOwned::to_owned)
}

fn branch_of_head(found: &Ref) -> Option<String> {
    match found {
        Ref::Symbolic { target, .. } | Ref::Unborn { target, .. } => {
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

fn names(said: &Said, prefix: &str) -> Vec<String> {
    let references = &said.references.remote_refs;
    references
        .iter()
        .filter(|found| target(found).is_some())
        .filter_map(|found| found.unpack().0.to_str().ok()?.strip_prefix(prefix).map(ToOwned::to_owned))
        .collect()
}

pub(crate) fn there_are(kind: &str, names: &[String]) -> String {
    if names.is_empty() {
        return format!("the repository has no {kind}");
    }
    let shown: Vec<_> = names.iter().take(NAMES_SHOWN).map(|name| presentable(name)).collect();
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("the {kind} are: {}{more}", shown.join(", "))
}

/// The chain of causes in one line, each cause once.
pub(crate) fn causes(error: &gix::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.iter_errors() {
        let text = cause.to_string();
        if !text.is_empty() && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
    }
    presentable(&parts.join(": "))
}

/// A text of others in a form that fits a status: one line, no control characters, not too long.
pub(crate) fn presentable(text: &str) -> String {
    const LENGTH: usize = 300;
    let mut line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LENGTH).collect::<String>().trim().to_owned();
    if text.chars().count() > LENGTH {
        line.push('…');
    }
    line
}

/// The disk refused to create or write something.
pub(crate) fn store_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_owned();
    move |error| StoreError::new(action, &path, error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_ten_branches() {
        let branches = |count: usize| (0..count).map(|number| format!("b{number:02}")).collect::<Vec<_>>();
        let ten = "the branches are: b00, b01, b02, b03, b04, b05, b06, b07, b08, b09";
        assert_eq!(there_are("branches", &branches(10)), ten);
        assert_eq!(there_are("branches", &branches(15)), format!("{ten} and 5 more"));
        assert_eq!(there_are("branches", &[]), "the repository has no branches");
    }
}
