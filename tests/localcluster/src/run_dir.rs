//! Directories of running clusters, swept up after owners that were killed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use crate::error::{At, Result};

const PREFIX: &str = "localcluster-";
const LOCK: &str = "owner.lock";

/// A directory which is removed on drop; when its owner was killed instead, by the next owner that comes along.
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

    /// Writes a file that only the owner may read: most of them hold keys.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path().join(name);
        // The directory itself is closed to others.
        fs::write(&path, content).at("cannot write", &path)?;
        Ok(path)
    }
}

/// The lock's name appears only once it is held: a sweep never sees a directory that is just being set up.
fn own(dir: &Path) -> std::io::Result<File> {
    let new = dir.join("owner.lock.new");
    let lock = File::create(&new)?;
    lock.lock()?;
    fs::rename(new, dir.join(LOCK))?;
    Ok(lock)
}

/// Removes what owners that no longer live have left. Failing to is nobody's error here.
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
