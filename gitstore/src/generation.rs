//! The folders and files of a store.
//!
//! ```text
//! <root>/<namespace>/<name>/<digest of the URL>/              a Repository
//! <root>/<namespace>/<name>@/<digest>/<digest of the URL>/    what it uses of another repository
//!     current         which revision is good, and in which generation: JSON, replaced atomically
//!     generation-3/   a bare Git repository with the objects of the last revisions
//!         archives/   for each archive that was unpacked, the commit that was made from it
//!     renders/        what was rendered from them, written by whoever renders
//! ```
//! A generation only grows. When it holds too many packs, the next commit is fetched into a new generation, and the old
//! generation is deleted when its last reader has finished. A file under its final name is complete; anything else was
//! left by a crash.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use gix::ThreadSafeRepository;
use serde::{Deserialize, Serialize};

use super::transport::store_error;
use super::{Damaged, FetchError, RepositoryKey, Revision, RevisionId};

/// The largest object that is unpacked in this process. This also limits each object that must be unpacked first,
/// because Git stores another object as a difference to it. Unpacking uses about three times as much memory.
const READ_BYTES: u64 = 12 << 20;
/// How many objects are unpacked at the same time.
const READERS: usize = 2;
const PREFIX: &str = "generation-";
const CURRENT: &str = "current";
const INCOMING: &str = "incoming";
const ARCHIVES: &str = "archives";
/// What was rendered from a repository.
pub(super) const RENDERS: &str = "renders";

/// The generations that this process may be reading.
pub(super) struct Generations {
    object_bytes: u64,
    damaged: Damaged,
    /// How many objects are being unpacked.
    reading: Mutex<usize>,
    read: Condvar,
    in_use: Mutex<HashSet<PathBuf>>,
}

impl Generations {
    /// `object_bytes` is the largest object that a repository may have. Manifests are smaller.
    pub(super) fn new(object_bytes: u64, damaged: Damaged) -> Arc<Self> {
        let object_bytes = object_bytes.min(READ_BYTES);
        let (reading, read, in_use) = (Mutex::default(), Condvar::new(), Mutex::default());
        Arc::new(Self { object_bytes, damaged, reading, read, in_use })
    }

    /// Forgets the last good revision in `folder` and deletes all generations that are not in use. Generations in use
    /// are deleted when they are retired and their last reader has finished.
    pub(super) fn clear(&self, folder: &Path) {
        let _ = fs::remove_file(folder.join(CURRENT));
        let _ = fs::remove_dir_all(folder.join(RENDERS));
        self.remove_all_but(folder, None);
        let _ = fs::remove_dir(folder);
    }

    fn remove_all_but(&self, folder: &Path, keep: Option<u64>) {
        let in_use = self.in_use();
        for (number, path) in on_disk(folder) {
            if Some(number) != keep && !in_use.contains(&path) {
                let _ = fs::remove_dir_all(path);
            }
        }
    }

    fn in_use(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bare repository. Its folder is deleted after the generation was retired and dropped.
pub(super) struct Generation {
    pub(super) number: u64,
    path: PathBuf,
    repository: RwLock<ThreadSafeRepository>,
    options: gix::open::Options,
    retired: AtomicBool,
    damaged: AtomicBool,
    all: Arc<Generations>,
}

impl Generation {
    /// Creates a new, empty generation.
    pub(super) fn create(all: &Arc<Generations>, folder: &Path) -> Result<Self, FetchError> {
        let number = on_disk(folder).map(|(number, _)| number).max().map_or(1, |highest| highest + 1);
        let path = folder.join(format!("{PREFIX}{number}"));
        fs::create_dir_all(&path).map_err(store_error("create", &path))?;
        let options = open_options(all.object_bytes);
        let repository = ThreadSafeRepository::init_opts(
            &path,
            gix::create::Kind::Bare,
            gix::create::Options::default(),
            options.clone(),
        )
        .map_err(|error| {
            // Otherwise every try would leave a folder behind.
            let _ = fs::remove_dir_all(&path);
            store_error("create a Git repository in", &path)(std::io::Error::other(error.to_string()))
        })?;
        Ok(Self::new(all, number, path, repository, options))
    }

    /// Opens an existing generation. Files that a crash left are deleted first.
    fn open(all: &Arc<Generations>, folder: &Path, number: u64) -> Option<Self> {
        let path = folder.join(format!("{PREFIX}{number}"));
        remove_leftovers(&path);
        let options = open_options(all.object_bytes);
        let repository = ThreadSafeRepository::open_opts(&path, options.clone())
            .inspect_err(
                |error| tracing::warn!(path = %path.display(), %error, "cannot open the stored Git repository"),
            )
            .ok()?;
        Some(Self::new(all, number, path, repository, options))
    }

    fn new(
        all: &Arc<Generations>,
        number: u64,
        path: PathBuf,
        repository: ThreadSafeRepository,
        options: gix::open::Options,
    ) -> Self {
        all.in_use().insert(path.clone());
        Self {
            number,
            path,
            repository: RwLock::new(repository),
            options,
            retired: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            all: all.clone(),
        }
    }

    pub(super) fn repository(&self) -> ThreadSafeRepository {
        self.repository.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens the repository again, to see new packs. A repository that is already open has room only for a limited
    /// number of new packs.
    pub(super) fn reopen(&self) -> gix::Result {
        let repository = ThreadSafeRepository::open_opts(&self.path, self.options.clone())?;
        *self.repository.write().unwrap_or_else(PoisonError::into_inner) = repository;
        Ok(())
    }

    pub(super) fn packs(&self) -> usize {
        let Ok(entries) = fs::read_dir(self.path.join("objects/pack")) else {
            return 0;
        };
        entries.flatten().filter(|entry| entry.path().extension().is_some_and(|e| e == "idx")).count()
    }

    /// Waits for the turn to unpack an object, because a few bytes may unpack to very many.
    pub(super) fn reading(&self) -> Reading<'_> {
        let reading = self.all.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |reading: &mut usize| *reading >= READERS;
        let mut reading = self.all.read.wait_while(reading, full).unwrap_or_else(PoisonError::into_inner);
        *reading += 1;
        Reading(&self.all)
    }

    /// The bare repository's folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes which commit was made from an archive.
    pub(super) fn note_archive(&self, digest: &str, commit: &str) -> Result<(), FetchError> {
        let folder = self.path.join(ARCHIVES);
        let path = folder.join(digest);
        fs::create_dir_all(&folder).and_then(|()| fs::write(&path, commit)).map_err(store_error("write", &path))
    }

    /// The commit of a revision, if it was stored here.
    pub(super) fn commit_of(&self, id: &RevisionId) -> Option<String> {
        match id {
            RevisionId::Commit(commit) => Some(commit.clone()),
            RevisionId::Archive(digest) => fs::read_to_string(self.path.join(ARCHIVES).join(digest)).ok(),
        }
    }

    /// An empty folder for data that arrives. The data counts only after it was moved to the other objects.
    pub(super) fn incoming(&self) -> Result<Incoming, FetchError> {
        let path = self.path.join(INCOMING);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).map_err(store_error("create", &path))?;
        Ok(Incoming(path))
    }

    /// Marks the generation, so that its folder is deleted when its last reader has finished.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Notes that an object could not be read, so that the next fetch starts a new generation.
    pub(super) fn mark_damaged(&self) {
        if self.damaged.swap(true, Ordering::Relaxed) {
            return;
        }
        // <folder of the Repository>/<digest of the URL>/generation-3
        if let Some(key) = self.path.ancestors().nth(2).and_then(RepositoryKey::of_folder) {
            self.all.damaged.tell(&key);
        }
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }
}

/// See [`Generation::reading`].
pub(super) struct Reading<'a>(&'a Generations);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        *self.0.reading.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.read.notify_one();
    }
}

/// See [`Generation::incoming`]. The folder is deleted when this is dropped.
pub(super) struct Incoming(PathBuf);

impl Incoming {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Relaxed) {
            let _ = fs::remove_dir_all(&self.path);
            // Something may have been rendered after the repository was forgotten. Without a last good revision, nobody
            // needs such results.
            if let Some(folder) = self.path.parent()
                && !folder.join(CURRENT).exists()
                && on_disk(folder).next().is_none()
            {
                let _ = fs::remove_dir_all(folder.join(RENDERS));
            }
            // The folders of the URL, of the Repository and of the namespace are deleted, too, if they are empty.
            let of_key = self.path.ancestors().nth(2).and_then(RepositoryKey::of_folder);
            let above = of_key.map_or(0, |key| key.folder().components().count());
            for folder in self.path.ancestors().skip(1).take(1 + above) {
                if fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
        self.all.in_use().remove(&self.path);
    }
}

/// The content of the file `current`.
#[derive(Deserialize, Serialize)]
struct Current {
    generation: u64,
    commit: String,
    reference: String,
    /// The digest of the archive that the commit was made from. `None` if the commit is one of a Git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    archive: Option<String>,
}

/// The last good revision, its commit, and the generation with its objects. Everything else in `folder` was left by a crash,
/// and is deleted.
pub(super) fn load(all: &Arc<Generations>, folder: &Path) -> Option<(Generation, Revision, String)> {
    let record: Option<Current> =
        fs::read(folder.join(CURRENT)).ok().and_then(|record| serde_json::from_slice(&record).ok());
    all.remove_all_but(folder, record.as_ref().map(|record| record.generation));
    let Current { generation, commit, reference, archive } = record?;
    let id = archive.map_or_else(|| RevisionId::Commit(commit.clone()), RevisionId::Archive);
    Some((Generation::open(all, folder, generation)?, Revision { reference, id }, commit))
}

/// Records `revision` as the last good revision. The file is replaced in one step.
pub(super) fn record(
    folder: &Path,
    generation: &Generation,
    revision: &Revision,
    commit: String,
) -> Result<(), FetchError> {
    let archive = match &revision.id {
        RevisionId::Commit(_) => None,
        RevisionId::Archive(digest) => Some(digest.clone()),
    };
    let record = Current { generation: generation.number, commit, reference: revision.reference.clone(), archive };
    let bytes = serde_json::to_vec(&record).expect("strings and a number");
    let (path, temporary) = (folder.join(CURRENT), folder.join("current.new"));
    File::create(&temporary)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, &path))
        .map_err(store_error("write", &path))?;
    sync_folder(folder);
    Ok(())
}

/// The generations on the disk.
fn on_disk(folder: &Path) -> impl Iterator<Item = (u64, PathBuf)> {
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let number = entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
        Some((number, entry.path()))
    })
}

pub(super) fn open_options(object_bytes: u64) -> gix::open::Options {
    gix::open::Options::isolated().with(gix::sec::Trust::Full).open_path_as_is(true).config_overrides([
        format!("gitoxide.objects.allocLimit={object_bytes}"),
        "pack.threads=2".to_owned(),
        "core.logAllRefUpdates=false".to_owned(),
    ])
}

/// Deletes locks and incomplete files of a process that was killed.
fn remove_leftovers(repository: &Path) {
    let _ = fs::remove_dir_all(repository.join(INCOMING));
    let mut folders = vec![repository.to_owned()];
    let pack_folder = repository.join("objects/pack");
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if is_leftover(&path, folder == pack_folder) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn is_leftover(path: &Path, in_pack_folder: bool) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if !in_pack_folder {
        return extension == "lock";
    }
    let complete = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"pack-"))
        && path.with_extension("idx").exists()
        && path.with_extension("pack").exists();
    extension == "keep" || !complete
}

pub(super) fn sync_folder(folder: &Path) {
    // Not every file system can sync a folder. If it cannot, a fetch may have to be repeated after a power failure.
    let _ = File::open(folder).and_then(|file| file.sync_all());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_that_cannot_be_made_leaves_no_folder() {
        let root = tempfile::tempdir().unwrap();
        // The path of the folder is so long that the folder can be made, but not the files in it.
        let mut folder = root.path().to_owned();
        while folder.as_os_str().len() < 3850 {
            folder.push("x".repeat(200));
        }
        folder.push("x".repeat(4070 - folder.as_os_str().len()));
        let all = Generations::new(READ_BYTES, Damaged::default());
        for _ in 0..2 {
            assert!(Generation::create(&all, &folder).is_err());
            assert_eq!(on_disk(&folder).count(), 0);
        }
    }
}
