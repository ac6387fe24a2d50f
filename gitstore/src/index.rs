//! Indexes a pack, so that its objects can be read, and checks that none is missing. An archive becomes a pack first.
//!
//! The author of a pack decides how large its objects are: resolving 130 KB of deltas can take gigabytes. So packs are
//! indexed in a process of their own ([`INDEX_TASK`]) with a memory limit, except in tests, and where the caller chooses
//! otherwise.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use gix::ObjectId;
use gix::odb::pack;
use serde::{Deserialize, Serialize};
use worker::{Cancel, Limits, Task, Worker, WorkerError};

use crate::archive::{self, Flaw, Layout};
use crate::generation::{open_options, sync_folder};
use crate::integrity;
use crate::transport::causes;
use crate::{FetchError, RepositoryKey, StoreError};

/// The task for the controller's program when it runs as a worker: see [`worker::entry`].
pub const INDEX_TASK: Task = ("index", serve);

/// How long indexing may take after the whole pack has arrived.
const TIME: Duration = Duration::from_secs(120);
/// How long indexing waits for memory.
const WAIT: Duration = Duration::from_secs(300);
/// The most bytes of an answer, which has a few names and a message.
const ANSWER_BYTES: u64 = 64 << 10;

/// How packs are indexed.
#[derive(Clone, Default)]
pub enum Indexing {
    /// In this process, for tests and tools that trust what they fetch.
    #[default]
    Here,
    /// In a process of its own.
    Apart {
        /// How to start it.
        worker: Worker,
        /// How much memory the process has at first, in bytes. Most packs need no more. This amount is taken from the
        /// budget before the process starts.
        first: u64,
        /// If this was too little, the pack is indexed again by a process with this many bytes of memory.
        most: u64,
        /// The budget.
        admission: Arc<dyn Admission>,
    },
}

/// A budget of memory.
pub trait Admission: Send + Sync {
    /// Waits for `bytes` for a Repository, at most for `wait`. The bytes are given back when the result is dropped.
    /// `None` if the wait ended or was cancelled before that many bytes were free.
    fn admit(&self, key: &RepositoryKey, bytes: u64, wait: Duration, cancel: &Cancel) -> Option<Box<dyn Send>>;
}

impl std::fmt::Debug for Indexing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Here => "Here",
            Self::Apart { .. } => "Apart",
        })
    }
}

/// What to index, and what must be stored afterwards.
#[derive(Deserialize, Serialize)]
pub(crate) struct Request {
    /// The bare repository that receives the pack.
    pub(crate) repository: PathBuf,
    /// What the server sent, stored in a folder of its own.
    pub(crate) arrived: Arrived,
    /// The largest single object.
    pub(crate) object_bytes: u64,
    /// A tree that is known to be stored completely.
    pub(crate) known: Option<String>,
}

/// What a server sent.
#[derive(Deserialize, Serialize)]
pub(crate) enum Arrived {
    /// A pack.
    Pack {
        /// The file.
        pack: PathBuf,
        /// The requested commit or tag.
        wanted: String,
    },
    /// An archive.
    Archive {
        /// The file.
        archive: PathBuf,
        /// What is in it.
        layout: Layout,
    },
}

impl Arrived {
    fn file(&self) -> &Path {
        match self {
            Self::Pack { pack, .. } => pack,
            Self::Archive { archive, .. } => archive,
        }
    }
}

#[derive(Deserialize, Serialize)]
enum Answer {
    /// This commit is stored with all its objects.
    Commit(String),
    NotACommit {
        wanted: String,
        kind: String,
    },
    Unusable(String),
    /// An archive that is broken or hostile.
    Refused(String),
    TooLarge(String),
    DiskFull,
    TimedOut,
}

/// Why a pack could not be indexed.
pub(crate) enum Refusal {
    /// The same commit would be refused again.
    TooLarge(String),
    /// The process died, and may do so again.
    Died(String),
    /// The same archive would be refused again.
    Archive(String),
    /// Anything else.
    Other(FetchError),
}

/// Carries out the request, and returns the commit that is stored afterwards.
pub(crate) fn index(
    indexing: &Indexing,
    key: &RepositoryKey,
    request: &Request,
    file_bytes: u64,
    cancel: &Cancel,
    unusable: impl Fn(String) -> FetchError,
) -> Result<String, Refusal> {
    let answer = match indexing {
        Indexing::Here => Ok(take_in(request)),
        Indexing::Apart { worker, first, most, admission } => {
            let apart = |memory: u64| {
                let Some(_memory) = admission.admit(key, memory, WAIT, cancel) else {
                    let cancelled = cancel.is_cancelled();
                    let busy = FetchError::MemoryBusy { seconds: WAIT.as_secs() };
                    return Err(Refusal::Other(if cancelled { FetchError::Cancelled } else { busy }));
                };
                let limits = Limits { memory, file: file_bytes, time: TIME, answer: ANSWER_BYTES };
                Ok(apart(worker, request, &limits, cancel))
            };
            let is_small = fs::metadata(request.arrived.file()).is_ok_and(|file| file.len() < first / 4);
            match (is_small && first < most).then(|| apart(*first)).transpose()? {
                Some(done) if !needs_more_memory(&done) => done,
                _ => apart(*most)?,
            }
        }
    };
    let answer = answer.map_err(|error| match error {
        WorkerError::Memory(_) | WorkerError::Size(_) | WorkerError::TimedOut(_) => {
            Refusal::TooLarge(format!("its content cannot be unpacked: {error}"))
        }
        WorkerError::Cancelled => Refusal::Other(FetchError::Cancelled),
        error => Refusal::Died(error.to_string()),
    })?;
    match answer {
        Answer::Commit(commit) => Ok(commit),
        Answer::TooLarge(detail) => Err(Refusal::TooLarge(match indexing {
            Indexing::Here => detail,
            Indexing::Apart { most, .. } => {
                format!("its content cannot be unpacked within {} MiB of memory: {detail}", most >> 20)
            }
        })),
        Answer::TimedOut => {
            Err(Refusal::TooLarge(format!("its content cannot be unpacked within {} s", TIME.as_secs())))
        }
        Answer::Unusable(detail) => Err(Refusal::Other(unusable(detail))),
        Answer::Refused(detail) => Err(Refusal::Archive(detail)),
        Answer::NotACommit { wanted, kind } => Err(Refusal::Other(FetchError::InvalidReference {
            reference: wanted,
            why: format!("it stands for a {kind}, not for a commit"),
        })),
        Answer::DiskFull => {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            Err(Refusal::Other(StoreError::new("write", &request.repository, full).into()))
        }
    }
}

/// Carries out the request in a process of its own.
fn apart(worker: &Worker, request: &Request, limits: &Limits, cancel: &Cancel) -> Result<Answer, WorkerError> {
    let bytes = serde_json::to_vec(request).expect("texts and numbers");
    let answer = worker.run(INDEX_TASK.0, &bytes, limits, cancel)?;
    serde_json::from_slice(&answer)
        .map_err(|error| WorkerError::Failed(format!("the answer of the unpacking process cannot be read: {error}")))
}

/// Whether more memory may help. A process without memory also dies in other ways than by its limit.
fn needs_more_memory(done: &Result<Answer, WorkerError>) -> bool {
    matches!(done, Ok(Answer::TooLarge(_)) | Err(WorkerError::Memory(_) | WorkerError::Died(_)))
}

fn serve(request: &[u8]) -> Result<Vec<u8>, String> {
    let request: Request = serde_json::from_slice(request).map_err(|error| error.to_string())?;
    serde_json::to_vec(&take_in(&request)).map_err(|error| error.to_string())
}

fn take_in(request: &Request) -> Answer {
    let deadline = Instant::now() + TIME;
    let done = (|| {
        let (pack, wanted) = match &request.arrived {
            Arrived::Pack { pack, wanted } => (pack.clone(), wanted.clone()),
            Arrived::Archive { archive, layout } => {
                let pack = archive.with_extension("pack");
                // A process that had too little memory may have left one.
                let _ = fs::remove_file(&pack);
                let commit = archive::to_pack(archive, *layout, &pack).map_err(|flaw| match flaw {
                    Flaw::Refused(detail) => Answer::Refused(detail),
                    Flaw::TooLarge(detail) => Answer::TooLarge(detail),
                    Flaw::Disk(error) => disk(&error),
                })?;
                (pack, commit.to_string())
            }
        };
        write(request, &pack)?;
        complete(request, wanted, deadline)
    })();
    match done {
        Ok(commit) => Answer::Commit(commit),
        Err(answer) => answer,
    }
}

/// Writes the index of the pack in the pack's folder. When both files are complete and on disk, moves them to the
/// repository's other objects.
fn write(request: &Request, pack: &Path) -> Result<(), Answer> {
    let repository = open(request)?;
    let folder = pack.parent().unwrap_or(Path::new("."));
    let pack = File::open(pack).map_err(|error| disk(&error))?;
    let options = pack::bundle::write::Options {
        thread_limit: Some(2),
        iteration_mode: pack::data::input::Mode::Verify,
        alloc_limit_bytes: usize::try_from(request.object_bytes).ok(),
        ..pack::bundle::write::Options::default()
    };
    let outcome = pack::Bundle::write_to_directory(
        &mut BufReader::with_capacity(64 << 10, pack),
        Some(folder),
        &mut gix::progress::Discard,
        &AtomicBool::new(false),
        Some(Box::new(repository.objects.clone())),
        repository.object_hash(),
        options,
    )
    .map_err(|error| refused(&error))?;
    let objects = request.repository.join("objects/pack");
    // The index comes last: a pack without one is not looked at.
    for path in [outcome.data_path, outcome.index_path].into_iter().flatten() {
        let name = path.file_name().unwrap_or_default();
        File::open(&path)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&path, objects.join(name)))
            .map_err(|error| disk(&error))?;
    }
    sync_folder(&objects);
    Ok(())
}

/// Checks that the commit is stored with all its objects.
fn complete(request: &Request, wanted: String, deadline: Instant) -> Result<String, Answer> {
    let repository = open(request)?;
    let id = |hex: &str| ObjectId::from_hex(hex.as_bytes()).map_err(|error| Answer::Unusable(error.to_string()));
    let known = request.known.as_deref().map(id).transpose()?;
    let checked = integrity::commit_of(&repository, id(&wanted)?).and_then(|commit| {
        integrity::check_complete(&repository, commit, known, deadline).map(|()| commit.to_string())
    });
    checked.map_err(|flaw| match flaw {
        integrity::Flaw::TimedOut => Answer::TimedOut,
        integrity::Flaw::Unusable(detail) => Answer::Unusable(detail),
        integrity::Flaw::NotACommit(kind) => Answer::NotACommit { wanted, kind: kind.to_string() },
    })
}

fn open(request: &Request) -> Result<gix::Repository, Answer> {
    gix::open_opts(&request.repository, open_options(request.object_bytes))
        .map_err(|error| Answer::Unusable(causes(&error)))
}

fn refused(error: &gix::Error) -> Answer {
    if let Some(full) = error.downcast_any_ref::<io::Error>().filter(|error| is_full(error)) {
        return disk(full);
    }
    let detail = causes(error);
    if error.is_resource_exhausted() || detail.contains("too large to fit in memory") {
        return Answer::TooLarge(format!("a file in the commit would need more memory than allowed: {detail}"));
    }
    if detail.to_lowercase().contains("failed to spawn thread") {
        return Answer::TooLarge(detail);
    }
    Answer::Unusable(detail)
}

fn disk(error: &io::Error) -> Answer {
    if is_full(error) { Answer::DiskFull } else { Answer::Unusable(format!("the disk: {error}")) }
}

/// The disk is full, or the quota of this user is used up.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A budget that never has memory.
    struct Full;

    impl Admission for Full {
        fn admit(&self, _: &RepositoryKey, _: u64, _: Duration, _: &Cancel) -> Option<Box<dyn Send>> {
            None
        }
    }

    #[test]
    fn what_a_process_left_that_had_too_little_memory_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("bare");
        gix::init_bare(&repository).unwrap();
        let archive = folder.path().join("chart.tgz");
        fs::write(&archive, archive::tests::packed_chart()).unwrap();
        fs::write(folder.path().join("chart.pack"), "half of a pack").unwrap();
        let arrived = Arrived::Archive { archive, layout: Layout::Chart };
        let request = Request { repository, arrived, object_bytes: 1 << 20, known: None };
        assert!(matches!(take_in(&request), Answer::Commit(_)));
    }

    #[test]
    fn without_memory_in_time_a_fetch_says_so_and_is_tried_again() {
        let admission = Arc::new(Full);
        let indexing =
            Indexing::Apart { worker: Worker::of("/nowhere".into()), first: 1 << 20, most: 1 << 20, admission };
        let key = RepositoryKey { namespace: "team".into(), name: "app".into() };
        let request = Request {
            repository: PathBuf::new(),
            arrived: Arrived::Pack { pack: PathBuf::new(), wanted: String::new() },
            object_bytes: 0,
            known: None,
        };
        let cancel = Cancel::new();
        let refused = || index(&indexing, &key, &request, 0, &cancel, |_| unreachable!()).err();
        let Some(Refusal::Other(error)) = refused() else { panic!("it has no memory") };
        assert_eq!((error.reason(), error.is_terminal()), ("MemoryBusy", false));
        cancel.cancel();
        assert!(matches!(refused(), Some(Refusal::Other(FetchError::Cancelled))));
    }
}
