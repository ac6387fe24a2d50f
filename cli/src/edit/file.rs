use std::fs::{self, File, Permissions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::{Builder, NamedTempFile};

/// Replaces a file's content at once or not at all; its mode stays, and a symbolic link stays one.
pub fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let target = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
    let permissions =
        fs::metadata(&target).with_context(|| format!("cannot read the mode of {}", target.display()))?.permissions();
    write(&target, content, Some(permissions)).with_context(|| format!("cannot write {}", path.display()))
}

/// Creates or replaces a file, at once or not at all.
pub fn create(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if path.exists() {
        return replace(path, content);
    }
    write(path, content, None).with_context(|| format!("cannot write {}", path.display()))
}

fn write(target: &Path, content: &[u8], permissions: Option<Permissions>) -> anyhow::Result<()> {
    let folder = match target.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut file = temporary(&folder, permissions.is_none())?;
    file.write_all(content)?;
    if let Some(permissions) = permissions {
        file.as_file().set_permissions(permissions)?;
    }
    file.as_file().sync_all()?;
    file.persist(target)?;
    // The rename itself; not every file system can sync a folder, and the content is safe either way.
    let _ = File::open(&folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// In the target's folder, so that the rename stays inside one file system.
fn temporary(folder: &Path, is_new: bool) -> std::io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(".gitseal-").suffix(".tmp");
    #[cfg(unix)]
    if is_new {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(Permissions::from_mode(0o666)); // less the umask
    }
    builder.tempfile_in(folder)
}
