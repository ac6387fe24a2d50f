//! The store: its repositories, and how one of them is brought up to date.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use worker::{Cancel, OnCancel};

use super::chart_repository::{ChartRepository, LastIndex};
use super::generation::{self, Generation, Generations};
use super::index::{self, Indexing, Refusal};
use super::registry::Registry;
use super::remote::{Found, Remote};
use super::transport::http::{self, Reach, Session};
use super::transport::ssh::{self, Login, Ssh};
use super::transport::{self, FaultSlot, Requests, Server, SmartHttp, Wire, presentable};
use super::url::{RemoteUrl, Serves};
use super::verify::TrustedKeys;
use super::{Credentials, FetchError, Reference, Revision, RevisionId, Snapshot, SnapshotError, StoreError};
use remotes::{is_commit_id, is_digest};

/// Limits and permissions of a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Whether `file://` URLs are allowed. If they are, anybody who may create a Repository can read every Git
    /// repository that the controller's process can read.
    pub allow_file_urls: bool,
    /// The most bytes that one transfer may take.
    pub transfer_bytes: u64,
    /// The largest single object, in bytes. Unpacking an object takes as much memory as its size.
    pub object_bytes: u64,
    /// How packs are indexed.
    pub indexing: Indexing,
    /// Called when stored objects turn out to be damaged. The next fetch then fetches everything again.
    pub damaged: Damaged,
    /// The program that speaks SSH: `gitseal-ssh`.
    pub ssh: PathBuf,
    /// When a repository has this many packs, the next commit is fetched into a new generation, so that old objects are
    /// deleted.
    pub packs: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            allow_file_urls: false,
            transfer_bytes: 1 << 30,
            object_bytes: 128 << 20,
            indexing: Indexing::Here,
            damaged: Damaged::default(),
            ssh: beside(),
            packs: 50,
        }
    }
}

/// `gitseal-ssh` in the folder of this program.
fn beside() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.with_file_name(ssh::PROGRAM)
}

/// A Repository object's namespace and name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RepositoryKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Called when the objects of a Repository turn out to be damaged.
#[derive(Clone, Default)]
pub struct Damaged(Option<Arc<Tell>>);

type Tell = dyn Fn(&RepositoryKey) + Send + Sync;

impl Damaged {
    /// A value that calls `tell` once for each set of stored objects that is damaged.
    pub fn told(tell: impl Fn(&RepositoryKey) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(super) fn tell(&self, key: &RepositoryKey) {
        if let Some(tell) = &self.0 {
            tell(key);
        }
    }
}

impl std::fmt::Debug for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Damaged").field(&self.0.is_some()).finish()
    }
}

/// A version of an archive that was fetched before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FetchedVersion {
    /// The version, as the registry or index names it.
    pub version: String,
    /// 64 lowercase hex digits, of SHA-256.
    pub digest: String,
    /// When it was fetched first (RFC 3339).
    pub since: String,
}

/// A request for a fetch.
pub struct FetchRequest {
    /// The Repository.
    pub key: RepositoryKey,
    /// The URL: `spec.url`.
    pub url: String,
    /// What to follow.
    pub reference: Reference,
    /// The credentials for the server.
    pub credentials: Credentials,
    /// The versions of archives that were fetched before. Each keeps its digest, unless `reference` names another one.
    pub fetched: Vec<FetchedVersion>,
    /// If set, only what one of these keys signed is used. This works for OCI registries and chart repositories only.
    pub trusted: Option<TrustedKeys>,
    /// How long the whole fetch may take.
    pub timeout: Duration,
    /// Cancels it.
    pub cancel: Cancel,
}

/// Git repositories on disk; see the [module's page](super).
pub struct GitStore {
    root: PathBuf,
    options: StoreOptions,
    entries: Mutex<HashMap<EntryKey, Arc<Entry>>>,
    generations: Arc<Generations>,
    /// Idle HTTP clients; each keeps its connections for reuse. Only one fetch uses a client at a time, so that ending a
    /// fetch does not end another one.
    clients: Mutex<HashMap<ClientKind, Vec<ureq::Agent>>>,
}

/// The certificate authorities that a client trusts, and where it may connect to.
type ClientKind = ([u8; 32], Reach);

/// A Repository and its URL. Another URL means another repository.
type EntryKey = (RepositoryKey, String);

/// How many idle clients are kept.
const CLIENTS: usize = 64;

struct Entry {
    folder: PathBuf,
    /// Held during a fetch.
    fetching: Mutex<()>,
    /// What the index of a chart repository said last.
    last_index: LastIndex,
    /// The last revision whose signature was checked, and the digest of the trusted keys.
    verified: Mutex<Option<(Revision, [u8; 32])>>,
    /// The last commit or archive that could not be stored, why, and when.
    refused: Mutex<Option<(RevisionId, Refused, Instant)>>,
    state: RwLock<State>,
}

/// Why a commit is not tried again at once.
#[derive(Clone)]
enum Refused {
    TooLarge(String),
    Died(String),
    Archive(String),
}

/// A commit that could not be stored is tried again only after this time. Another commit is tried at once.
const LEFT_ALONE: Duration = Duration::from_secs(600);

enum State {
    /// The disk has not been read yet.
    Unread,
    Read(Option<Snapshot>),
}

impl GitStore {
    /// A store in the folder `root`, which is created if necessary. A repository is opened when it is first needed.
    pub fn new(root: PathBuf, options: StoreOptions) -> Result<Self, StoreError> {
        fs::create_dir_all(&root).map_err(|error| StoreError::new("create", &root, error))?;
        let root = fs::canonicalize(&root).map_err(|error| StoreError::new("open", &root, error))?;
        Ok(Self::at(root, options))
    }

    /// A store without a folder, for a controller that fetches nothing.
    pub fn unused(options: StoreOptions) -> Self {
        Self::at(PathBuf::new(), options)
    }

    fn at(root: PathBuf, options: StoreOptions) -> Self {
        let generations = Generations::new(options.object_bytes, options.damaged.clone());
        Self { root, options, entries: Mutex::default(), generations, clients: Mutex::default() }
    }

    /// Brings the stored repository up to date and returns the revision that the reference stands for now.
    ///
    /// The store asks the remote first, and transfers nothing if the remote has nothing new. A commit or archive that was
    /// named by its hash and is stored is not asked for again. Fetches of the same Repository wait for each other. If the
    /// transferred objects do not fit the stored ones, or stored objects are damaged, everything is fetched again
    /// within the same call.
    pub fn fetch(&self, request: &FetchRequest) -> Result<Revision, FetchError> {
        let (url, entry) = self.checked(request)?;
        let revision = self.talk(request, &url, &entry, |remote| self.update(&entry, remote, request))?;
        self.retire_other_urls(&request.key, &entry.folder);
        Ok(revision)
    }

    /// Asks the remote which revision the reference stands for now. Nothing is transferred or stored, and no signature is checked.
    pub fn ask(&self, request: &FetchRequest) -> Result<Revision, FetchError> {
        let (url, entry) = self.checked(request)?;
        let ask = |remote: &mut Remote<'_>| Ok(remote.find(&request.reference, None)?.revision().clone());
        self.talk(request, &url, &entry, ask)
    }

    /// Checks a request before anything is sent.
    fn checked(&self, request: &FetchRequest) -> Result<(RemoteUrl, Arc<Entry>), FetchError> {
        let url = RemoteUrl::parse(&request.url, self.options.allow_file_urls)?;
        if url.is_plain_http() && !request.credentials.is_anonymous() {
            return Err(FetchError::CredentialsOverHttp);
        }
        if let Some(trusted) = &request.trusted
            && url.serves() != trusted.signed()
        {
            return Err(FetchError::NoSignaturesThere(trusted.signed()));
        }
        let wrong = match &request.reference {
            Reference::Commit(commit) if !is_commit_id(commit) => {
                Some("a commit is written as 40 lowercase hex digits")
            }
            Reference::Digest { digest, .. } if !is_digest(digest) => {
                Some("a digest is written as sha256: and 64 lowercase hex digits")
            }
            _ => None,
        };
        if let Some(why) = wrong {
            let (reference, why) = (request.reference.to_string(), why.to_owned());
            return Err(FetchError::InvalidReference { reference, why });
        }
        let entry = self.entry(&request.key, &url)?;
        Ok((url, entry))
    }

    /// Talks to the remote, until the request is cancelled. Conversations for the same Repository wait for each other.
    fn talk<T>(
        &self,
        request: &FetchRequest,
        url: &RemoteUrl,
        entry: &Entry,
        talk: impl FnOnce(&mut Remote<'_>) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let _one_at_a_time = lock(&entry.fetching);
        let kind = (request.credentials.trust_digest(), Reach::of(url.as_str()));
        let needs_client = !url.is_file() && url.ssh().is_none();
        let client = if needs_client { Some(self.client(kind, &request.credentials)?) } else { None };
        let mut remote = remote(request, url, client.as_ref(), &entry.last_index, &self.options)?;
        let result = {
            let _stop = client.clone().map(|client| shut_down_with(&request.cancel, client));
            talk(&mut remote)
        };
        if request.cancel.is_cancelled() {
            return Err(FetchError::Cancelled);
        }
        if let Some(client) = client {
            self.keep(kind, client);
        }
        result
    }

    /// The last good revision, read from disk if necessary, never from the network.
    pub fn last(&self, key: &RepositoryKey, url: &str) -> Option<Revision> {
        Some(self.existing(key, url)?.revision().clone())
    }

    /// Opens a stored revision for reading. This is cheap. The snapshot stays readable, even if other commits are fetched or
    /// removed later.
    ///
    /// # Errors
    /// [`SnapshotError::NotStored`] if the revision was never fetched or has been removed since then.
    pub fn snapshot(&self, key: &RepositoryKey, url: &str, revision: &Revision) -> Result<Snapshot, SnapshotError> {
        let current = self.existing(key, url).ok_or_else(|| SnapshotError::NotStored(revision.to_string()))?;
        if current.revision() == revision {
            return Ok(current);
        }
        let not_stored = || SnapshotError::NotStored(revision.to_string());
        let commit = current.generation().commit_of(&revision.id).ok_or_else(not_stored)?;
        Snapshot::open(current.generation().clone(), revision.clone(), &commit).map_err(|_| not_stored())
    }

    /// Forgets a Repository that was deleted, with the remote repositories that only it uses. If a fetch of it is running, waits
    /// for its end. Files that a snapshot still reads are deleted when the snapshot is dropped.
    pub fn remove(&self, key: &RepositoryKey) {
        let in_memory: Vec<_> = lock(&self.entries).keys().map(|(key, _)| key.clone()).collect();
        let on_disk = remotes_in(&self.root.join(&key.namespace));
        for other in in_memory.into_iter().chain(on_disk).collect::<BTreeSet<_>>() {
            if other != *key && other.namespace == key.namespace && other.of_repository() == key.name {
                self.remove_one(&other);
            }
        }
        self.remove_one(key);
    }

    /// The remote repositories of which something is on disk.
    pub fn remotes(&self) -> Vec<RepositoryKey> {
        subfolders(&self.root).flat_map(|namespace| remotes_in(&namespace)).collect()
    }

    fn remove_one(&self, key: &RepositoryKey) {
        let Ok(folder) = self.folder(key) else { return };
        let entries: Vec<_> = {
            let mut all = lock(&self.entries);
            let keys: Vec<_> = all.keys().filter(|(owner, _)| owner == key).cloned().collect();
            keys.iter().filter_map(|key| all.remove(key)).collect()
        };
        for entry in &entries {
            let _no_fetch = lock(&entry.fetching);
            entry.retire();
        }
        for url_folder in subfolders(&folder) {
            self.generations.clear(&url_folder);
        }
        // A folder with something else in it stays.
        for empty in folder.ancestors().take_while(|folder| *folder != self.root) {
            let _ = fs::remove_dir(empty);
        }
    }

    fn update(&self, entry: &Entry, remote: &mut Remote<'_>, request: &FetchRequest) -> Result<Revision, FetchError> {
        let reference = &request.reference;
        let current = entry.current(&self.generations).filter(|snapshot| !snapshot.generation().is_damaged());
        let Some(current) = current else {
            return self.start_over(entry, remote, request);
        };
        if let Some(revision) = stored(reference, current.revision()) {
            entry.verify(remote, request, &revision)?;
            return entry.accept(current, revision);
        }
        let found = entry.find(remote, request, Some(current.revision()))?;
        if found.revision().id == current.revision().id {
            let revision = found.revision().clone();
            return entry.accept(current, revision);
        }
        if current.generation().packs() >= self.options.packs {
            drop(found);
            return self.start_over(entry, remote, request);
        }
        match self.transfer(entry, remote, request, found, current.generation(), Some(&current)) {
            Err(error) if is_of_what_is_stored(&error) => {
                let folder = entry.folder.display();
                tracing::warn!(%folder, %error, "the fetched objects cannot be added to the stored ones: everything is fetched again");
                self.start_over(entry, remote, request)
            }
            result => result.and_then(|snapshot| entry.publish(snapshot)),
        }
    }

    /// Fetches everything into a new generation. The old one is deleted when its last reader has finished.
    fn start_over(
        &self,
        entry: &Entry,
        remote: &mut Remote<'_>,
        request: &FetchRequest,
    ) -> Result<Revision, FetchError> {
        let new = Arc::new(Generation::create(&self.generations, &entry.folder)?);
        let found = entry.find(remote, request, None);
        let result = found.and_then(|found| self.transfer(entry, remote, request, found, &new, None));
        match result {
            Ok(snapshot) => entry.publish(snapshot),
            Err(error) => {
                new.retire();
                Err(error)
            }
        }
    }

    /// Receives what was found, indexes and checks it, and opens it.
    fn transfer(
        &self,
        entry: &Entry,
        remote: &mut Remote<'_>,
        request: &FetchRequest,
        found: Found,
        into: &Arc<Generation>,
        known: Option<&Snapshot>,
    ) -> Result<Snapshot, FetchError> {
        let revision = found.revision().clone();
        entry.is_left_alone(&revision.id)?;
        let incoming = into.incoming()?;
        let have = known.map(Snapshot::commit);
        let arrived = remote.receive(found, incoming.path(), into.path(), have)?;
        let what = index::Request {
            repository: into.path().to_owned(),
            arrived,
            object_bytes: self.options.object_bytes,
            known: known.map(|known| known.tree().to_string()),
        };
        // A thin pack gets larger when it is completed with objects that are stored already.
        let file_bytes = self.options.transfer_bytes.saturating_mul(2);
        let server = remote.server();
        let unusable = |detail| server.unusable(detail);
        let indexed = index::index(&self.options.indexing, &request.key, &what, file_bytes, &request.cancel, unusable);
        let commit = indexed.map_err(|refusal| entry.refuse(&revision.id, refusal))?;
        drop(incoming);
        let id = match revision.id {
            RevisionId::Commit(_) => RevisionId::Commit(commit.clone()),
            RevisionId::Archive(digest) => {
                into.note_archive(&digest, &commit)?;
                RevisionId::Archive(digest)
            }
        };
        into.reopen().map_err(|error| server.unusable(presentable(&error.to_string())))?;
        let revision = Revision { id, ..revision };
        Snapshot::open(into.clone(), revision, &commit).map_err(|error| server.unusable(error.to_string()))
    }

    fn client(&self, kind: ClientKind, credentials: &Credentials) -> Result<ureq::Agent, FetchError> {
        let idle = lock(&self.clients).get_mut(&kind).and_then(Vec::pop);
        idle.map_or_else(|| http::client(credentials.certificate_authorities(), kind.1), Ok)
    }

    /// Keeps the client for the next fetch of the same kind.
    fn keep(&self, kind: ClientKind, client: ureq::Agent) {
        let mut clients = lock(&self.clients);
        if clients.values().map(Vec::len).sum::<usize>() >= CLIENTS {
            clients.clear();
        }
        clients.entry(kind).or_default().push(client);
    }

    fn existing(&self, key: &RepositoryKey, url: &str) -> Option<Snapshot> {
        let url = RemoteUrl::parse(url, self.options.allow_file_urls).ok()?;
        self.entry(key, &url).ok()?.current(&self.generations)
    }

    fn entry(&self, key: &RepositoryKey, url: &RemoteUrl) -> Result<Arc<Entry>, FetchError> {
        let folder = self.folder(key)?.join(url_folder(url));
        let mut entries = lock(&self.entries);
        let entry = entries.entry((key.clone(), url.identity())).or_insert_with(|| {
            Arc::new(Entry {
                folder,
                fetching: Mutex::default(),
                last_index: LastIndex::default(),
                verified: Mutex::default(),
                refused: Mutex::default(),
                state: RwLock::new(State::Unread),
            })
        });
        Ok(entry.clone())
    }

    fn folder(&self, key: &RepositoryKey) -> Result<PathBuf, FetchError> {
        let (name, remote) = key.parts();
        for part in [key.namespace.as_str(), name].into_iter().chain(remote) {
            let usable = part.len() <= 253
                && part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
            if !usable {
                return Err(FetchError::InvalidKey(part.to_owned()));
            }
        }
        Ok(self.root.join(key.folder()))
    }

    /// When the URL of a Repository has changed and the new one works, the objects of the old one are deleted.
    fn retire_other_urls(&self, key: &RepositoryKey, keep: &Path) {
        let Ok(folder) = self.folder(key) else { return };
        for other in subfolders(&folder).filter(|other| other != keep) {
            let mut entries = lock(&self.entries);
            let owner = entries.iter().find(|(_, entry)| entry.folder == other).map(|(key, _)| key.clone());
            if let Some(entry) = owner.and_then(|owner| entries.remove(&owner)) {
                entry.retire();
            }
            drop(entries);
            self.generations.clear(&other);
        }
    }
}

impl Entry {
    /// Asks what the reference of a request stands for, and checks that it may be used. `known` is the revision that is stored.
    fn find(
        &self,
        remote: &mut Remote<'_>,
        request: &FetchRequest,
        known: Option<&Revision>,
    ) -> Result<Found, FetchError> {
        let found = remote.find(&request.reference, known)?;
        keeps_its_digest(request, known, &found)?;
        self.verify(remote, request, found.revision())?;
        Ok(found)
    }

    /// Checks the signature of a revision, if keys are trusted. What these keys signed is not asked for again.
    fn verify(&self, remote: &mut Remote<'_>, request: &FetchRequest, revision: &Revision) -> Result<(), FetchError> {
        let Some(trusted) = &request.trusted else { return Ok(()) };
        // A provenance file names the version, too.
        let checked = Some((revision.clone(), trusted.digest()));
        if *lock(&self.verified) != checked {
            remote.verify(revision, trusted)?;
            *lock(&self.verified) = checked;
        }
        Ok(())
    }

    /// Refuses a commit or archive that could not be stored a short time ago, if another try would fail in the same
    /// way.
    fn is_left_alone(&self, id: &RevisionId) -> Result<(), FetchError> {
        match &*lock(&self.refused) {
            Some((refused, why, at)) if refused == id && at.elapsed() < LEFT_ALONE => Err(why.clone().into()),
            _ => Ok(()),
        }
    }

    fn refuse(&self, id: &RevisionId, refusal: Refusal) -> FetchError {
        let why = match refusal {
            Refusal::TooLarge(detail) => Refused::TooLarge(detail),
            Refusal::Died(detail) => Refused::Died(detail),
            Refusal::Archive(detail) => Refused::Archive(detail),
            Refusal::Other(error) => return error,
        };
        *lock(&self.refused) = Some((id.clone(), why.clone(), Instant::now()));
        why.into()
    }

    fn current(&self, generations: &Arc<Generations>) -> Option<Snapshot> {
        if let State::Read(current) = &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            return current.clone();
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let State::Read(current) = &*state {
            return current.clone();
        }
        let current = generation::load(generations, &self.folder)
            .and_then(|(generation, revision, commit)| Snapshot::open(Arc::new(generation), revision, &commit).ok());
        *state = State::Read(current.clone());
        current
    }

    /// Nothing new was fetched, but the revision may have another name.
    fn accept(&self, current: Snapshot, revision: Revision) -> Result<Revision, FetchError> {
        if *current.revision() == revision {
            return Ok(revision);
        }
        self.publish(current.renamed(revision))
    }

    fn publish(&self, snapshot: Snapshot) -> Result<Revision, FetchError> {
        let commit = snapshot.commit().to_string();
        generation::record(&self.folder, snapshot.generation(), snapshot.revision(), commit)?;
        let revision = snapshot.revision().clone();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let State::Read(Some(before)) = &*state
            && before.generation().number != snapshot.generation().number
        {
            before.generation().retire();
        }
        *state = State::Read(Some(snapshot));
        Ok(revision)
    }

    fn retire(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let State::Read(Some(snapshot)) = std::mem::replace(&mut *state, State::Read(None)) {
            snapshot.generation().retire();
        }
    }
}

impl From<Refused> for FetchError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooLarge(detail) => Self::TooLarge(detail),
            Refused::Archive(detail) => Self::InvalidArchive(detail),
            Refused::Died(detail) => Self::IndexingFailed { detail, minutes: LEFT_ALONE.as_secs() / 60 },
        }
    }
}

impl std::fmt::Display for RepositoryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Refuses another digest for a version that was fetched before, unless the request names the digest. `known` is the revision
/// that is stored.
fn keeps_its_digest(request: &FetchRequest, known: Option<&Revision>, found: &Found) -> Result<(), FetchError> {
    let Some((version, digest)) = found.revision().as_version() else { return Ok(()) };
    if matches!(request.reference, Reference::Digest { .. }) {
        return Ok(());
    }
    let before = request.fetched.iter().find(|before| before.version == version);
    let before = before.map(|before| (before.digest.as_str(), Some(before.since.clone())));
    let stored =
        known.and_then(Revision::as_version).filter(|(of, _)| *of == version).map(|(_, digest)| (digest, None));
    match before.or(stored) {
        Some((fetched, since)) if fetched != digest => {
            let (version, fetched) = (version.to_owned(), fetched.to_owned());
            Err(FetchError::DigestChanged { version, fetched, since, found: found.digest() })
        }
        _ => Ok(()),
    }
}

/// Whether a transfer may have failed because stored objects are missing, damaged, or not those that the server
/// expects.
fn is_of_what_is_stored(error: &FetchError) -> bool {
    match error {
        FetchError::Transfer { .. } => true,
        FetchError::Store(error) => !error.is_full_disk(),
        _ => false,
    }
}

/// The current revision, if the reference is its hash: then the remote need not be asked.
fn stored(reference: &Reference, current: &Revision) -> Option<Revision> {
    match (reference, &current.id) {
        (Reference::Commit(wanted), RevisionId::Commit(commit)) if wanted == commit => {
            Some(Revision { reference: String::new(), id: current.id.clone() })
        }
        // If the tag is another one, the registry must be asked, because that tag may stand for another digest.
        (Reference::Digest { tag, digest: wanted }, RevisionId::Archive(digest)) if wanted == digest => {
            (tag.is_empty() || *tag == current.reference)
                .then(|| Revision { reference: tag.clone(), id: current.id.clone() })
        }
        _ => None,
    }
}

/// The remote to talk to, with its limits.
fn remote<'a>(
    request: &'a FetchRequest,
    url: &'a RemoteUrl,
    client: Option<&ureq::Agent>,
    last_index: &'a LastIndex,
    options: &StoreOptions,
) -> Result<Remote<'a>, FetchError> {
    let (credentials, cancel) = (&request.credentials, request.cancel.clone());
    let deadline = Instant::now() + request.timeout;
    let authorization = credentials.authorization()?;
    let server = Server { url, with_credentials: !credentials.is_anonymous(), timeout: request.timeout };
    let serves = url.serves();
    let session = |authorization, url: &str| {
        let until = (deadline, request.cancel.clone());
        let session = client.map(|client| Session::new(client.clone(), authorization, until, url));
        session.map(|session| session.only_below(credentials.prefixes(serves)))
    };
    if serves == Serves::Artifacts {
        // A registry says first how it wants to get a password, so only a token is sent with the first request.
        let authorization = authorization.filter(|_| credentials.is_token());
        let session = session(authorization, &url.registry_api()).expect("only file:// URLs have no client");
        return Ok(Remote::Registry(Registry::new(Requests { server, session, cancel }, credentials)));
    }
    if let Some(chart) = url.chart() {
        let session = session(authorization, url.as_str()).expect("only file:// URLs have no client");
        let requests = Requests { server, session, cancel };
        return Ok(Remote::Charts(ChartRepository::new(requests, chart, last_index)));
    }
    let (fault, bytes) = (FaultSlot::default(), options.transfer_bytes);
    let wire = match (url.ssh(), session(authorization, url.as_str())) {
        (Some(url), _) => {
            let key = credentials.key().ok_or(FetchError::SshNeedsKey)?;
            let login = Login { program: options.ssh.clone(), url, key, deadline, cancel: cancel.clone() };
            Wire::Ssh(Box::new(Ssh::new(login, bytes, fault.clone())))
        }
        (None, Some(session)) => Wire::Http(Box::new(SmartHttp::new(session, bytes, fault.clone()))),
        (None, None) => Wire::File,
    };
    Ok(Remote::Git(transport::Remote { server, wire, deadline, cancel, fault }))
}

/// A cancellation ends everything that `client` waits for.
fn shut_down_with(cancel: &Cancel, client: ureq::Agent) -> OnCancel {
    cancel.on_cancel(move || client.shutdown())
}

fn url_folder(url: &RemoteUrl) -> String {
    let digest = Sha256::digest(url.identity());
    digest[..8].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// The remote repositories of which something is in the folder of a namespace.
fn remotes_in(namespace: &Path) -> Vec<RepositoryKey> {
    let all = subfolders(namespace).filter(|folder| RepositoryKey::has_remotes(folder));
    all.flat_map(|folder| subfolders(&folder)).filter_map(|folder| RepositoryKey::of_folder(&folder)).collect()
}

fn subfolders(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
