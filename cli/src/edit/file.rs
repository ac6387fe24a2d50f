use std::collections::BTreeSet;
use std::fs::{self, DirEntry, File, Permissions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tempfile::{Builder, NamedTempFile};
use zeroize::Zeroizing;

use super::uninterrupted::uninterrupted;
use crate::output::{self, Hint};

/// The most bytes of a file with rules for a repository.
const MOST_RULES: u64 = 256 << 10;

/// The beginning and the end of the names of temporary files.
const TEMPORARY: (&str, &str) = (".gitseal-", ".tmp");

/// A temporary file that is younger than this is not removed, because its program may only just have made it.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(60);

/// A file's bytes, wiped when dropped.
pub fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path)?;
    let size = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.min(64 << 20) + 1));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a file with rules for a repository (`.gitsealignore`, `.gitseal.yaml`), if it exists. The repository
/// may be somebody else's. So a link is not followed: it could lead to a device that never ends, or to another file
/// of the user, whose content an error message would quote.
///
/// # Errors
/// The file cannot be read, is a link or a folder, or is too large.
pub fn read_rules(path: &Path) -> anyhow::Result<Option<String>> {
    let told = || format!("cannot read {}", path.display());
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.with_context(told)?,
    };
    if !metadata.is_file() {
        return Err(Hint::error(
            format!("{} is a link or a folder", path.display()),
            "replace it by a regular file: a link could lead to any other file, so it is not followed",
        ));
    }
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(MOST_RULES + 1).read_to_string(&mut text)).with_context(told)?;
    if text.len() as u64 > MOST_RULES {
        return Err(Hint::error(
            format!("{} is larger than {MOST_RULES} bytes", path.display()),
            "use fewer and shorter rules in this file",
        ));
    }
    Ok(Some(text))
}

/// All of standard input, wiped when dropped.
pub fn read_stdin() -> io::Result<Zeroizing<Vec<u8>>> {
    // The buffer is so large that it rarely has to grow, because a buffer that is moved leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(1 << 20));
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Replaces a file's content completely or not at all. The mode of the file stays, and a symbolic link stays a link.
pub fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let target = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
    let permissions =
        fs::metadata(&target).with_context(|| format!("cannot read the mode of {}", target.display()))?.permissions();
    write(&target, content, Some(permissions)).with_context(|| format!("cannot write {}", path.display()))
}

/// Creates or replaces a file, completely or not at all.
pub fn create(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if path.exists() {
        return replace(path, content);
    }
    write(path, content, None).with_context(|| format!("cannot write {}", path.display()))
}

/// Creates or replaces a file that only its owner can read, completely or not at all. If `path` is not a regular file
/// (`/dev/stdout`, for example), it is not replaced: the content is written into it.
pub fn create_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if fs::metadata(&target).is_ok_and(|metadata| !metadata.is_file()) {
        return Ok(File::options().write(true).open(&target)?.write_all(content)?);
    }
    put(&target, content, None, false)
}

fn write(target: &Path, content: &[u8], permissions: Option<Permissions>) -> anyhow::Result<()> {
    let is_public = permissions.is_none();
    put(target, content, permissions, is_public)
}

fn put(target: &Path, content: &[u8], permissions: Option<Permissions>, is_public: bool) -> anyhow::Result<()> {
    let folder = folder_of(target);
    remove_left_over(&folder);
    uninterrupted(|| persist(temporary(&folder, is_public)?, target, content, permissions))
}

fn folder_of(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn persist(
    mut file: NamedTempFile,
    target: &Path,
    content: &[u8],
    permissions: Option<Permissions>,
) -> anyhow::Result<()> {
    file.write_all(content)?;
    if let Some(permissions) = permissions {
        file.as_file().set_permissions(permissions)?;
    }
    file.as_file().sync_all()?;
    file.persist(target)?;
    // This makes the rename durable. If the file system cannot do this for a folder, that is no error, because the
    // content of the file is safe anyway.
    let _ = File::open(folder_of(target)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// A temporary file in the folder of the target, so that the rename stays in one file system. If `is_public`, the
/// file has the mode of new files; otherwise only its owner can read it.
fn temporary(folder: &Path, is_public: bool) -> std::io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(TEMPORARY.0).suffix(TEMPORARY.1);
    #[cfg(unix)]
    if is_public {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(Permissions::from_mode(0o666)); // less the umask
    }
    let file = builder.tempfile_in(folder)?;
    // While the file is locked, no other gitseal process mistakes it for a temporary file that was left over. An error
    // is ignored, because some file systems cannot lock.
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// Removes temporary files of programs that were killed while they wrote. Such a file may have values in plain text.
fn remove_left_over(folder: &Path) {
    static SEEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if !SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned()) {
        return;
    }
    // If the folder cannot be listed, nothing is removed: then the write either fails by itself, or succeeds although
    // the folder cannot be listed.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(is_left_over) {
        let path = entry.path();
        if fs::remove_file(&path).is_ok() {
            output::warn(format_args!(
                "removed {}, left by a gitseal that was killed while it wrote a file",
                path.display()
            ));
        }
    }
}

fn is_left_over(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let is_ours = name.to_str().is_some_and(|name| name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1));
    let is_old = || -> io::Result<bool> {
        let metadata = entry.metadata()?;
        let age = metadata.modified()?.elapsed().unwrap_or_default();
        Ok(metadata.is_file() && age >= LEFT_OVER_AFTER && File::open(entry.path())?.try_lock().is_ok())
    };
    is_ours && is_old().unwrap_or(false)
}
