//! A work tree to write, commit and push from.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A clone of a [`GitServer`](super::GitServer)'s repository, on the branch `main`. It pushes to the bare repository
/// directly, so this also works while the server is stopped. Its folder is deleted when the `WorkTree` is dropped.
pub struct WorkTree {
    folder: tempfile::TempDir,
    bare: PathBuf,
}

impl WorkTree {
    /// Makes the bare repository `bare` and an empty work tree of it.
    pub fn create(bare: PathBuf) -> Result<Self> {
        let parent = bare.parent().context("the repository has a folder around it")?;
        fs::create_dir_all(parent)?;
        run(
            parent,
            ["init", "--quiet", "--bare", "--initial-branch=main"]
                .map(OsStr::new)
                .into_iter()
                .chain([bare.as_os_str()]),
        )?;
        run(&bare, ["config", "http.receivepack", "true"])?;
        let folder = tempfile::tempdir()?;
        run(folder.path(), ["init", "--quiet", "--initial-branch=main"])?;
        run(folder.path(), ["remote", "add", "origin"].map(OsStr::new).into_iter().chain([bare.as_os_str()]))?;
        Ok(Self { folder, bare })
    }

    /// An empty work tree that pushes to `url`.
    pub(crate) fn of(url: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        run(folder.path(), ["init", "--quiet", "--initial-branch=main"])?;
        run(folder.path(), ["remote", "add", "origin", url])?;
        Ok(Self { folder, bare: PathBuf::new() })
    }

    /// The work tree's folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The bare repository's folder.
    pub fn bare(&self) -> &Path {
        &self.bare
    }

    /// Writes a file, and creates its folders if necessary.
    pub fn write(&self, path: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        let path = self.make_room(path)?;
        fs::write(&path, contents).with_context(|| format!("write {}", path.display()))
    }

    /// Removes a file, or a folder with everything in it.
    pub fn remove(&self, path: &str) -> Result<()> {
        let path = self.path().join(path);
        let result = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        result.with_context(|| format!("remove {}", path.display()))
    }

    /// Makes a symbolic link at `path`.
    pub fn symlink(&self, path: &str, target: &str) -> Result<()> {
        let path = self.make_room(path)?;
        std::os::unix::fs::symlink(target, &path).with_context(|| format!("link {}", path.display()))
    }

    /// Commits everything, even if nothing changed, and returns the commit's hash.
    pub fn commit(&self, message: &str) -> Result<String> {
        self.git(["add", "--all"])?;
        self.git(["commit", "--quiet", "--allow-empty", "--message", message])?;
        self.head()
    }

    /// [`commit`](Self::commit) and [`push`](Self::push).
    pub fn publish(&self, message: &str) -> Result<String> {
        let commit = self.commit(message)?;
        self.push()?;
        Ok(commit)
    }

    /// Pushes the current branch and all tags. This is refused if the remote branch has other commits.
    pub fn push(&self) -> Result<()> {
        // This sets an upstream, so that people who work in the tree can simply push.
        self.git(["push", "--quiet", "--set-upstream", "--tags", "origin", "HEAD"]).map(drop)
    }

    /// Pushes the current branch and all tags, and overwrites those of the remote.
    pub fn force_push(&self) -> Result<()> {
        self.git(["push", "--quiet", "--force", "--tags", "origin", "HEAD"]).map(drop)
    }

    /// Commits the reverse of a commit and returns the new commit's hash.
    pub fn revert(&self, commit: &str) -> Result<String> {
        self.git(["revert", "--no-edit", commit])?;
        self.head()
    }

    /// Moves the branch and the files to a commit. A push after this must be [`force_push`](Self::force_push).
    pub fn reset(&self, commit: &str) -> Result<()> {
        self.git(["reset", "--quiet", "--hard", commit]).map(drop)
    }

    /// Sets or moves a tag to the current commit.
    pub fn tag(&self, name: &str) -> Result<()> {
        self.git(["tag", "--force", name]).map(drop)
    }

    /// Switches to a branch, which starts at the current commit if it is new.
    pub fn switch(&self, branch: &str) -> Result<()> {
        self.git(["checkout", "--quiet", "-B", branch]).map(drop)
    }

    /// The current commit's hash.
    pub fn head(&self) -> Result<String> {
        self.git(["rev-parse", "HEAD"])
    }

    /// Runs `git` in the work tree and returns what it prints.
    pub fn git<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        run(self.path(), arguments)
    }

    fn make_room(&self, path: &str) -> Result<PathBuf> {
        let path = self.path().join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        Ok(path)
    }
}

/// Environment variables with which `git` behaves the same everywhere.
pub(super) fn environment(home: &Path) -> Vec<(&'static str, std::ffi::OsString)> {
    let mut variables: Vec<(&'static str, std::ffi::OsString)> = [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "Test"),
        ("GIT_AUTHOR_EMAIL", "test@example.com"),
        ("GIT_COMMITTER_NAME", "Test"),
        ("GIT_COMMITTER_EMAIL", "test@example.com"),
        ("LC_ALL", "C"),
    ]
    .map(|(name, value)| (name, value.into()))
    .into();
    variables.push(("HOME", home.into()));
    variables.push(("PATH", std::env::var_os("PATH").unwrap_or_default()));
    variables
}

fn run<A: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = A>) -> Result<String> {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder).env_clear().envs(environment(folder));
    let output = command.output().context("run git")?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
