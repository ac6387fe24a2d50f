//! The files of a repository that may have manifests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use manifests::{Fate, IGNORE_FILE, IgnoreRules, is_manifest_file};

use crate::edit;

const GIT_IGNORE: &str = ".gitignore";

/// The manifest files of the repository at `root`, in the order of their paths. Files that `.gitsealignore` or Git
/// excludes are left out. Hidden files and folders are left out, too; but the folder `named` is read even if its name,
/// or the name of a folder above it, begins with a dot. Symbolic links are not followed. Nothing in the folder `except`
/// is read.
///
/// # Errors
/// A folder or an ignore file cannot be read.
pub fn manifest_files(root: &Path, named: &Path, except: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    if root.is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let named = named.strip_prefix(root).unwrap_or(Path::new("")).to_string_lossy().into_owned();
    let mut walk = Walk {
        everywhere: IgnoreRules::of_manifests(""),
        in_named: IgnoreRules::of_manifests(&named),
        of_git: IgnoreRules::new(),
        named,
        except,
        files: Vec::new(),
    };
    walk.folder(root, "")?;
    Ok(walk.files)
}

struct Walk<'a> {
    /// With these rules, every hidden folder is left out.
    everywhere: IgnoreRules,
    /// With these rules, only hidden folders below the named one are left out.
    in_named: IgnoreRules,
    /// The rules of Git.
    of_git: IgnoreRules,
    /// The path of the named folder.
    named: String,
    except: Option<&'a Path>,
    files: Vec<PathBuf>,
}

impl Walk<'_> {
    /// Adds the files of a folder and below. `inside` is its path in the repository.
    fn folder(&mut self, folder: &Path, inside: &str) -> anyhow::Result<()> {
        if let Some(text) = edit::read_rules(&folder.join(IGNORE_FILE))? {
            self.everywhere.add(inside, &text)?;
            self.in_named.add(inside, &text)?;
        }
        // In Git, a rule that cannot be read has no effect, so such a rule is no reason to stop.
        if let Ok(Some(text)) = edit::read_rules(&folder.join(GIT_IGNORE)) {
            let _ = self.of_git.add(inside, &text);
        }
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut entries = entries.with_context(|| format!("cannot read {}", folder.display()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let kind = entry.file_type().with_context(|| format!("cannot read {}", path.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let inside = if inside.is_empty() { name.clone() } else { format!("{inside}/{name}") };
            if name == ".git" || self.except == Some(&path) || !self.is_read(&inside, kind.is_dir()) {
                continue;
            }
            if kind.is_dir() {
                self.folder(&path, &inside)?;
            } else if kind.is_file() && is_manifest_file(&name) {
                self.files.push(path);
            }
        }
        Ok(())
    }

    fn is_read(&self, path: &str, is_dir: bool) -> bool {
        let is_in = |inner: &str, outer: &str| {
            outer.is_empty() || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let is_named = is_in(path, &self.named) || is_in(&self.named, path);
        let rules = if is_named { &self.in_named } else { &self.everywhere };
        rules.fate(path, is_dir) == Fate::Read && !self.of_git.is_ignored(path, is_dir)
    }
}
