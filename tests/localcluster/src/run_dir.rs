//! The directories of running clusters. If the process that made a directory was killed, another process deletes the
//! directory later.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use crate::error::{At, Result};

const PREFIX: &str = "localcluster-";
const LOCK: &str = "owner.lock";

/// A directory that is deleted when its `RunDir` is dropped. If the process was killed, the next process that makes
/// such a directory deletes it.
#[derive(Debug)]
pub(crate) struct RunDir {
    dir: tempfile::TempDir,
    _owned: File,
}

impl RunDir {
    pub(crate) fn new() -> Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let dir =
            tempfile::Builder::new().prefix(PREFIX).tempdir_in(&parent).at("cannot create a directory in", &parent)?;
        let owned = own(dir.path()).at("cannot lock a file in", dir.path())?;
        Ok(Self { dir, _owned: owned })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file that other users cannot read, because most of these files hold keys.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path().join(name);
        // Other users cannot enter the directory.
        fs::write(&path, content).at("cannot write", &path)?;
        Ok(path)
    }
}

/// The lock file gets its final name only when it is locked. So `sweep` never deletes a directory that is just being made.
fn own(dir: &Path) -> std::io::Result<File> {
    let new = dir.join("owner.lock.new");
    let lock = File::create(&new)?;
    lock.lock()?;
    fs::rename(new, dir.join(LOCK))?;
    Ok(lock)
}

/// Deletes the directories of processes that have ended. Errors are ignored.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if ours
            && let Ok(lock) = File::open(entry.path().join(LOCK))
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_takes_what_is_orphaned_and_leaves_what_is_owned() {
        let parent = tempfile::tempdir().unwrap();
        let [owned, orphaned, foreign] = ["localcluster-a", "localcluster-b", "c"].map(|n| parent.path().join(n));
        for dir in [&owned, &orphaned, &foreign] {
            fs::create_dir(dir).unwrap();
        }
        let _owner = own(&owned).unwrap();
        drop(own(&orphaned).unwrap());
        drop(own(&foreign).unwrap());

        sweep(parent.path());

        assert!(owned.exists());
        assert!(!orphaned.exists());
        assert!(foreign.exists());
    }
}
