//! The files of the repository that a folder is in, as Kustomize may read them.

use std::{
    fs,
    io::ErrorKind,
    path::{Component, PathBuf},
};

use anyhow::Context as _;
use renderer::{At, Repository};

use crate::{folder::GIT, output::Hint};

/// The files of a working copy, or of a folder that is in no working copy.
pub struct WorkingCopy {
    /// The top folder; its path has no symbolic links.
    pub root: PathBuf,
}

/// Why a file cannot be read, or must not be read.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Unread(pub anyhow::Error);

impl Repository for WorkingCopy {
    type Error = Unread;

    fn at(&self, path: &str) -> Result<At, Unread> {
        self.read(path).map_err(Unread)
    }
}

impl WorkingCopy {
    fn read(&self, path: &str) -> anyhow::Result<At> {
        let named = self.root.join(path);
        let cannot_read = || format!("cannot read {}", named.display());
        let real = match fs::canonicalize(&named) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(At::Nothing);
            }
            real => real.with_context(cannot_read)?,
        };
        if !real.starts_with(&self.root) {
            return Err(Hint::error(
                format!("{} leads out of the repository", named.display()),
                "only files of the repository are read; the controller does not read others either",
            ));
        }
        // Git's own files are not part of the repository, and may contain credentials. A symbolic link can lead to them.
        let is_gits = |part: Component<'_>| part.as_os_str().eq_ignore_ascii_case(GIT);
        if real.strip_prefix(&self.root).is_ok_and(|inside| inside.components().any(is_gits)) {
            return Ok(At::Nothing);
        }
        if !real.is_dir() {
            return Ok(At::File(fs::read(&real).with_context(cannot_read)?));
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&real).with_context(cannot_read)? {
            // A name that is not UTF-8 is left out, because the renderer asks for paths only in UTF-8.
            names.extend(entry.with_context(cannot_read)?.file_name().to_str().map(str::to_owned));
        }
        Ok(At::Directory(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gits_own_files_are_not_read_whatever_leads_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for path in [".git/config", "nested/.git/config", "apps/a.yaml"] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), "token: hunter2").unwrap();
        }
        for (link, target) in [("apps/link", "../.git/config"), ("apps/folder", "../.git"), ("b.yaml", "apps/a.yaml")] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        let copy = WorkingCopy { root };
        for path in
            [".git", ".git/config", "apps/../.git/config", "nested/.git/config", "apps/link", "apps/folder/config"]
        {
            assert!(matches!(copy.at(path), Ok(At::Nothing)), "{path}");
        }
        assert!(matches!(copy.at("b.yaml"), Ok(At::File(bytes)) if bytes == b"token: hunter2"));
    }
}
