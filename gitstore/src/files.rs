//! The manifests in a folder of a snapshot, one at a time.

use gix::ObjectId;
use gix::bstr::{BString, ByteSlice as _};
use gix::objs::tree::{EntryKind, EntryMode};
use manifests::{Fate, IGNORE_FILE, IgnoreRules, Tree, TreeEntry, TreeFile, is_manifest_file};

use super::snapshot::{Recent, join, kind_name, too_large};
use super::{Snapshot, SnapshotError};

/// How many bytes all ignore files that apply to one folder may have together. The rules that are parsed from these
/// files take about forty times as much memory, and some time.
const IGNORE_BYTES: u64 = 256 << 10;
/// The most bytes of the text of a symbolic link.
pub(super) const LINK_BYTES: u64 = 4 << 10;
/// How many links in a row are followed, from link to link.
const LINKS: usize = 8;
/// The most links in one folder that are followed to find out whether they lead to a file. To follow a link may mean to
/// read large folders.
const LINKS_FOLLOWED: usize = 500;
/// The beginning of a Git LFS pointer.
pub(super) const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Limits for the folder of one Sync.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// Number of manifest files.
    pub files: usize,
    /// Number of files and folders of any kind that are read.
    pub entries: usize,
    /// Levels of folders inside folders.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_bytes: 10 << 20, total_bytes: 256 << 20, files: 20_000, entries: 200_000, depth: 32 }
    }
}

/// A folder of a snapshot, with its subfolders.
///
/// Its files are the manifests, except those that `.gitsealignore` files exclude (in the root, in the folder, and in
/// the folders between and below), and those that are left out by default. Some things must not be ignored silently, so
/// they are errors that name them: a symbolic link that may lead to manifests, a submodule, a Git LFS pointer, anything
/// above the limits. The size of a file is checked before it is read, and only one file is in memory at a time.
pub struct Folder {
    snapshot: Snapshot,
    path: String,
    limits: Limits,
    /// See [`Folder::hidden`].
    hidden: bool,
}

impl Snapshot {
    /// A folder. It need not exist.
    pub fn folder(&self, path: &str, limits: Limits) -> Folder {
        Folder { snapshot: self.clone(), path: path.to_owned(), limits, hidden: false }
    }
}

impl Folder {
    /// Reads other files than the folder's own: those that are left out only because they are hidden, which means that
    /// their name, or that of a folder above them, begins with a dot. Links and submodules among them are skipped.
    #[must_use]
    pub fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    /// Identifies the folder's contents and everything that decides which files count. Two
    /// folders with the same identity contain the same manifests.
    ///
    /// # Errors
    /// The same errors as [`Snapshot::content_ids`].
    pub fn identity(&self) -> Result<String, SnapshotError> {
        let mut identities = self.snapshot.content_ids(&[&self.path]);
        identities.pop().expect("one path, one identity").map(|identity| identity.to_string())
    }
}

impl Tree for Folder {
    type Error = SnapshotError;

    fn each_entry<E: From<SnapshotError>>(
        &self,
        mut measured: impl FnMut(&str, u64) -> Result<(), E>,
        mut visit: impl FnMut(TreeEntry<'_, SnapshotError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { snapshot, path, limits, hidden } = self;
        let repository = snapshot.repository();
        let mut reader = Reader { hidden: *hidden, ..Reader::at(snapshot, repository, path, limits)? };
        let (path, tree) = (reader.path.clone(), reader.tree);
        reader.folder(&path, tree, 0, &mut measured, &mut visit)
    }
}

/// The name of a file or folder, what it is, and its content.
type Entry = (BString, EntryMode, ObjectId);

/// Reads a folder and its subfolders.
struct Reader<'a> {
    snapshot: &'a Snapshot,
    repository: gix::Repository,
    limits: &'a Limits,
    rules: IgnoreRules,
    /// Bytes of all ignore files so far.
    ignore_bytes: u64,
    /// The folders that links lead to.
    recent: Recent,
    links_followed: usize,
    hidden: bool,
    path: String,
    tree: ObjectId,
    entries: usize,
    bytes: u64,
    files: usize,
}

impl<'a> Reader<'a> {
    fn at(
        snapshot: &'a Snapshot,
        repository: gix::Repository,
        path: &str,
        limits: &'a Limits,
    ) -> Result<Self, SnapshotError> {
        let located = snapshot.locate(&repository, path, &mut Recent::default())?;
        let mut reader = Self {
            snapshot,
            repository,
            limits,
            rules: IgnoreRules::of_manifests(&located.path),
            ignore_bytes: 0,
            recent: Recent::default(),
            links_followed: 0,
            hidden: false,
            path: String::new(),
            tree: located.tree,
            entries: 0,
            bytes: 0,
            files: 0,
        };
        for (folder, id, mode) in &located.ignore_files {
            reader.add_rules(folder, *mode, *id)?;
        }
        let parents = located.path.match_indices('/').map(|(at, _)| &located.path[..at]);
        let on_the_way = parents.chain([located.path.as_str()]).filter(|folder| !folder.is_empty());
        if on_the_way.into_iter().any(|folder| reader.rules.is_ignored(folder, true)) {
            return Err(SnapshotError::FolderIgnored(located.path));
        }
        reader.path = located.path;
        Ok(reader)
    }

    fn folder<E: From<SnapshotError>>(
        &mut self,
        path: &str,
        tree: ObjectId,
        depth: usize,
        measured: &mut impl FnMut(&str, u64) -> Result<(), E>,
        visit: &mut impl FnMut(TreeEntry<'_, SnapshotError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let entries = self.list(path, tree, depth)?;
        if self.is_kustomization(path, &entries) {
            if !self.hidden {
                visit(TreeEntry::Kustomization(path))?;
            }
            self.rules.remove(path);
            return Ok(());
        }
        // The entries are in Git's order, which is the order of the whole paths.
        for (name, mode, id) in entries {
            let path = join(path, &name.to_str_lossy());
            let fate = self.rules.fate(&path, mode.is_tree());
            if name == IGNORE_FILE || fate == Fate::Ignored || fate == Fate::Hidden && !self.hidden {
                continue;
            }
            match mode.kind() {
                EntryKind::Tree => self.folder(&path, id, depth + 1, measured, visit)?,
                _ if self.hidden && (fate == Fate::Read || !mode.is_blob()) => {}
                EntryKind::Link if !is_manifest_file(&path) && self.leads_to_a_file(&path, id)? => {}
                EntryKind::Link => visit(refused(SnapshotError::Symlink(path)))?,
                EntryKind::Commit => visit(refused(SnapshotError::Submodule(path)))?,
                EntryKind::Blob | EntryKind::BlobExecutable => {
                    if is_manifest_file(&path) {
                        measured(&path, self.measure(&path, &name, id)?)?;
                        let bytes = self.snapshot.read(&self.repository, id, &path)?;
                        if manifests::is_of_another_program(&path, &bytes) {
                            continue;
                        }
                        if bytes.starts_with(LFS_POINTER) {
                            if self.hidden {
                                continue;
                            }
                            visit(refused(SnapshotError::LfsPointer(path)))?;
                            continue;
                        }
                        visit(TreeEntry::File(TreeFile { path: &path, bytes: &bytes }))?;
                    }
                }
            }
        }
        self.rules.remove(path);
        Ok(())
    }

    /// Whether one of the entries of a folder is a kustomization file that is not ignored.
    fn is_kustomization(&self, folder: &str, entries: &[Entry]) -> bool {
        entries.iter().any(|(name, mode, _)| {
            let is_file = mode.is_blob() || mode.is_link();
            let path = || join(folder, &name.to_str_lossy());
            is_file
                && name.to_str().is_ok_and(manifests::is_kustomization)
                && self.rules.fate(&path(), false) == Fate::Read
        })
    }

    /// Whether a link leads to a file of this revision, possibly through other links.
    fn leads_to_a_file(&mut self, path: &str, id: ObjectId) -> Result<bool, SnapshotError> {
        let (mut path, mut id) = (path.to_owned(), id);
        for _ in 0..LINKS {
            self.links_followed += 1;
            if self.links_followed > LINKS_FOLLOWED {
                let what = format!("more than {LINKS_FOLLOWED} symbolic links; list them in a {IGNORE_FILE}");
                return Err(too_large(&path, what));
            }
            let bytes = self.repository.find_header(id).map_err(|error| self.snapshot.damaged(&error))?.size();
            if bytes > LINK_BYTES {
                return Ok(false);
            }
            let target = self.snapshot.read(&self.repository, id, &path)?;
            let Some(target) = std::str::from_utf8(&target).ok().and_then(|target| beside(&path, target)) else {
                return Ok(false);
            };
            match self.snapshot.entry(&self.repository, &target, &mut self.recent)? {
                Some((mode, _)) if mode.is_blob() => return Ok(true),
                Some((mode, next)) if mode.is_link() => (path, id) = (target, next),
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    /// The entries of a folder, without those that its ignore file excludes.
    fn list(&mut self, path: &str, tree: ObjectId, depth: usize) -> Result<Vec<Entry>, SnapshotError> {
        if depth > self.limits.depth {
            return Err(too_large(path, format!("folders are nested more than {} deep", self.limits.depth)));
        }
        // Copied, so that the loop can read other objects: a decoded tree borrows the repository's buffers.
        let entries: Vec<Entry> = {
            let tree = self.snapshot.tree_at(&self.repository, tree, path)?;
            let entries = tree.iter().map(|entry| {
                let entry = entry.map_err(|error| self.snapshot.damaged(&error))?;
                Ok((entry.filename().to_owned(), entry.mode(), entry.object_id()))
            });
            entries.collect::<Result<_, SnapshotError>>()?
        };
        self.entries += entries.len();
        if self.entries > self.limits.entries {
            return Err(too_large(
                path,
                format!("with this folder, there are more than {} files and folders", self.limits.entries),
            ));
        }
        if let Some((_, mode, id)) = entries.iter().find(|(name, ..)| name == IGNORE_FILE) {
            self.add_rules(path, *mode, *id)?;
        }
        Ok(entries)
    }

    fn add_rules(&mut self, folder: &str, mode: EntryMode, id: ObjectId) -> Result<(), SnapshotError> {
        let path = join(folder, IGNORE_FILE);
        let refuse = |detail: String| Err(SnapshotError::IgnoreFile { path: path.clone(), detail });
        if !mode.is_blob() {
            return refuse(format!("it is a {}, not a file", kind_name(mode)));
        }
        self.ignore_bytes += self.repository.find_header(id).map_err(|error| self.snapshot.damaged(&error))?.size();
        if self.ignore_bytes > IGNORE_BYTES {
            return refuse(format!(
                "together with this one, the {IGNORE_FILE} files of the folder, and of the folders above and below it, \
                 have {} bytes, but at most {IGNORE_BYTES} are allowed",
                self.ignore_bytes
            ));
        }
        let bytes = self.snapshot.read(&self.repository, id, &path)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => self.rules.add(folder, text).or_else(|error| refuse(error.to_string())),
            Err(_) => refuse("it is not UTF-8".into()),
        }
    }

    fn measure(&mut self, path: &str, name: &BString, id: ObjectId) -> Result<u64, SnapshotError> {
        if name.to_str().is_err() {
            return Err(SnapshotError::FileName(path.to_owned()));
        }
        let limits = self.limits;
        self.files += 1;
        if self.files > limits.files {
            return Err(too_large(
                path,
                format!("with this file, the folder has more than {} manifest files", limits.files),
            ));
        }
        let bytes = self.repository.find_header(id).map_err(|error| self.snapshot.damaged(&error))?.size();
        if bytes > limits.file_bytes {
            let what = format!("a file of {bytes} bytes, but at most {} are allowed", limits.file_bytes);
            return Err(too_large(path, what));
        }
        self.bytes += bytes;
        if self.bytes > limits.total_bytes {
            return Err(too_large(
                path,
                format!("with this file, the folder has more than {} bytes of manifests", limits.total_bytes),
            ));
        }
        Ok(bytes)
    }
}

fn refused(error: SnapshotError) -> TreeEntry<'static, SnapshotError> {
    TreeEntry::Refused { reason: error.reason(), error }
}

/// The path in the revision to which a link at `path` leads; `None` if it leads out of the revision.
fn beside(path: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut names: Vec<&str> = path.split('/').collect();
    names.pop();
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}
