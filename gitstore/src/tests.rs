//! Tests with real repositories that the `git` program makes, read over `file://`. HTTP is tested in `tests/`, with the
//! harness's Git server.

mod fetching;
mod reading;
mod refusals;
mod remotes;
mod storing;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use manifests::{Tree as _, TreeEntry};

use super::*;

/// A bare repository, a work tree that pushes to it, and a store that reads from it.
struct Fixture {
    folder: tempfile::TempDir,
    store: GitStore,
}

impl Fixture {
    fn new() -> Self {
        Self::with(StoreOptions::default())
    }

    fn with(options: StoreOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        git(folder.path(), &["init", "--quiet", "--bare", "--initial-branch=main", "remote.git"]);
        git(folder.path(), &["init", "--quiet", "--initial-branch=main", "work"]);
        git(&folder.path().join("work"), &["remote", "add", "origin", "../remote.git"]);
        let options = StoreOptions { allow_file_urls: true, ..options };
        let store = GitStore::new(folder.path().join("store"), options).unwrap();
        Self { folder, store }
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn url(&self) -> String {
        format!("file://{}", self.folder.path().join("remote.git").display())
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(&self.work(), arguments)
    }

    fn write(&self, path: &str, contents: impl AsRef<[u8]>) -> &Self {
        let path = self.work().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
        self
    }

    /// Commits everything, pushes, and returns the commit.
    fn push(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=change"]);
        self.git(&["push", "--quiet", "--force", "origin", "HEAD"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn request(&self, reference: Reference) -> FetchRequest {
        FetchRequest {
            key: key(),
            url: self.url(),
            reference,
            credentials: Credentials::none(),
            fetched: Vec::new(),
            trusted: None,
            timeout: Duration::from_secs(30),
            cancel: Cancel::new(),
        }
    }

    fn fetch(&self, reference: Reference) -> Result<Revision, FetchError> {
        self.store.fetch(&self.request(reference))
    }

    fn fetch_main(&self) -> Snapshot {
        let revision = self.fetch(branch("main")).unwrap();
        self.snapshot(&revision)
    }

    fn snapshot(&self, revision: &Revision) -> Snapshot {
        self.store.snapshot(&key(), &self.url(), revision).unwrap()
    }

    /// The store of another process that uses the same disk.
    fn restarted(&self) -> GitStore {
        let options = StoreOptions { allow_file_urls: true, ..StoreOptions::default() };
        GitStore::new(self.folder.path().join("store"), options).unwrap()
    }

    fn generations(&self) -> Vec<PathBuf> {
        let urls = self.folder.path().join("store/team/app");
        let urls = fs::read_dir(urls).into_iter().flatten().flatten();
        let inner = urls.flat_map(|url| fs::read_dir(url.path()).unwrap().flatten().map(|entry| entry.path()));
        inner.filter(|path| path.is_dir()).collect()
    }

    fn packs(&self) -> Vec<PathBuf> {
        let folders = self.generations().into_iter().map(|generation| generation.join("objects/pack"));
        let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()));
        files.filter(|path| path.extension().is_some_and(|extension| extension == "pack")).collect()
    }
}

fn key() -> RepositoryKey {
    RepositoryKey { namespace: "team".into(), name: "app".into() }
}

fn branch(name: &str) -> Reference {
    Reference::Branch(name.into())
}

pub(super) fn git(folder: &Path, arguments: &[&str]) -> String {
    git_reading(folder, arguments, Stdio::null())
}

/// Runs `git` without any configuration.
pub(super) fn git_reading(folder: &Path, arguments: &[&str], input: Stdio) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "Test"), ("GIT_AUTHOR_EMAIL", "test@example.com")])
        .envs([("GIT_COMMITTER_NAME", "Test"), ("GIT_COMMITTER_EMAIL", "test@example.com")])
        .stdin(input)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn paths(files: &[SourceFile]) -> Vec<&str> {
    files.iter().map(|file| file.path.as_str()).collect()
}

/// One file that was read.
struct SourceFile {
    path: String,
    bytes: Vec<u8>,
}

fn files(snapshot: &Snapshot, path: &str) -> Result<Vec<SourceFile>, SnapshotError> {
    files_within(snapshot, path, Limits::default())
}

fn files_within(snapshot: &Snapshot, path: &str, limits: Limits) -> Result<Vec<SourceFile>, SnapshotError> {
    let mut files = Vec::new();
    let sizes = std::cell::RefCell::new(Vec::new());
    let measured = |path: &str, bytes: u64| {
        sizes.borrow_mut().push((path.to_owned(), bytes));
        Ok::<_, SnapshotError>(())
    };
    snapshot.folder(path, limits).each_entry(measured, |entry| {
        let file = match entry {
            TreeEntry::File(file) => file,
            TreeEntry::Kustomization(_) => return Ok(()),
            TreeEntry::Refused { error, .. } => return Err(error),
        };
        assert_eq!(sizes.borrow().last(), Some(&(file.path.to_owned(), file.bytes.len() as u64)));
        files.push(SourceFile { path: file.path.to_owned(), bytes: file.bytes.to_vec() });
        Ok(())
    })?;
    assert!(files.is_sorted_by_key(|file| &file.path));
    Ok(files)
}
