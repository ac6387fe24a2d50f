//! Reading a stored revision: which folders changed, and the manifests in a folder.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use gix::ObjectId;
use gix::bstr::{BString, ByteSlice as _};
use gix::objs::tree::{EntryKind, EntryMode};
use manifests::{IGNORE_FILE, IgnoreRules};
use sha2::{Digest as _, Sha256};

use super::generation::Generation;
use super::remote::presentable;
use super::{Revision, SnapshotError};

/// How many names an error lists.
const NAMES_SHOWN: usize = 10;
/// A folder's own list of names; a larger one is not a folder of manifests.
const TREE_BYTES: u64 = 16 << 20;
/// An ignore file.
const IGNORE_BYTES: u64 = 256 << 10;
/// How a Git LFS pointer begins.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What one Sync's folder may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// Number of manifest files.
    pub files: usize,
    /// Number of files and folders of any kind that are looked at.
    pub entries: usize,
    /// Folders inside folders.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 10 << 20,
            total_bytes: 256 << 20,
            files: 20_000,
            entries: 200_000,
            depth: 32,
        }
    }
}

/// A manifest file as it is in the commit.
pub struct SourceFile {
    /// From the repository's root, with `/`.
    pub path: String,
    /// Its contents. They may hold a Secret that should not be there: treat them as such.
    pub bytes: Vec<u8>,
}

/// Identity of a folder's contents, its path, and the ignore rules above it: equal identities render equally.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ContentId([u8; 16]);

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A stored revision, open for reading. Cheap to clone; what it reads stays on disk as long as it lives.
#[derive(Clone)]
pub struct Snapshot {
    revision: Revision,
    contents: Arc<Contents>,
}

struct Contents {
    generation: Arc<Generation>,
    repository: gix::ThreadSafeRepository,
    tree: ObjectId,
    /// The folders on the way to those that were asked for, so that a thousand questions decode each once.
    decoded: Mutex<HashMap<ObjectId, Arc<Folder>>>,
}

type Folder = HashMap<BString, (EntryMode, ObjectId)>;

impl Snapshot {
    pub(super) fn open(
        generation: Arc<Generation>,
        revision: Revision,
    ) -> Result<Self, SnapshotError> {
        let not_stored = || SnapshotError::NotStored(revision.to_string());
        let repository = generation.repository();
        let id = ObjectId::from_hex(revision.commit.as_bytes()).map_err(|_| not_stored())?;
        let local = repository.to_thread_local();
        let tree = local
            .find_commit(id)
            .and_then(|commit| commit.tree_id())
            .map_err(|_| not_stored())?
            .detach();
        if !local.has_object(tree) {
            return Err(not_stored());
        }
        let contents = Contents {
            generation,
            repository,
            tree,
            decoded: Mutex::default(),
        };
        Ok(Self {
            revision,
            contents: Arc::new(contents),
        })
    }

    /// Which commit this is.
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// The identity of each folder's contents, in the order asked. Reads no file; folders that several paths have in
    /// common are decoded once.
    ///
    /// # Errors
    /// Per path: refused, not found, or not a folder.
    pub fn content_ids(&self, paths: &[&str]) -> Vec<Result<ContentId, SnapshotError>> {
        let repository = self.contents.repository.to_thread_local();
        paths
            .iter()
            .map(|path| Ok(self.locate(&repository, path)?.content_id()))
            .collect()
    }

    /// The manifest files (`.yaml`, `.yml`, `.json`) in a folder and those below it, sorted by path, without what
    /// `.gitsealignore` files (the root's, the folder's, and any on the way or below) leave out.
    ///
    /// # Errors
    /// On what must not be passed over in silence, naming the file: a symbolic link, a submodule, a Kustomization, a
    /// Git LFS pointer, anything beyond `limits`. A file is measured before it is read.
    pub fn files(&self, path: &str, limits: &Limits) -> Result<Vec<SourceFile>, SnapshotError> {
        let repository = self.contents.repository.to_thread_local();
        let located = self.locate(&repository, path)?;
        let mut rules = IgnoreRules::new();
        for (folder, id, mode) in &located.ignore_files {
            add_rules(self, &repository, &mut rules, folder, *mode, *id)?;
        }
        let parents = located
            .path
            .match_indices('/')
            .map(|(at, _)| &located.path[..at]);
        let on_the_way = parents
            .chain([located.path.as_str()])
            .filter(|folder| !folder.is_empty());
        if on_the_way
            .into_iter()
            .any(|folder| rules.is_ignored(folder, true))
        {
            return Err(SnapshotError::FolderIgnored(located.path));
        }
        let mut reader = Reader {
            snapshot: self,
            repository,
            limits,
            rules,
            entries: 0,
            bytes: 0,
            found: Vec::new(),
        };
        reader.folder(&located.path, located.tree, 0)?;
        reader.found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(reader.found)
    }

    pub(super) fn generation(&self) -> &Arc<Generation> {
        &self.contents.generation
    }

    pub(super) fn tree(&self) -> ObjectId {
        self.contents.tree
    }

    /// The same commit under another name.
    pub(super) fn renamed(&self, revision: Revision) -> Self {
        Self {
            revision,
            contents: self.contents.clone(),
        }
    }

    fn locate(&self, repository: &gix::Repository, path: &str) -> Result<Located, SnapshotError> {
        let path = normalize(path)?;
        let mut located = Located {
            path,
            tree: self.contents.tree,
            ignore_files: Vec::new(),
        };
        let mut above = String::new();
        for name in located.path.split('/').filter(|name| !name.is_empty()) {
            let folder = self.decode(repository, located.tree, &above)?;
            if let Some((mode, id)) = folder.get(IGNORE_FILE.as_bytes().as_bstr()) {
                located.ignore_files.push((above.clone(), *id, *mode));
            }
            let here = join(&above, name);
            let revision = self.revision.to_string();
            located.tree = match folder.get(name.as_bytes().as_bstr()) {
                Some((mode, id)) if mode.is_tree() => *id,
                Some((mode, _)) => {
                    return Err(SnapshotError::NotAFolder {
                        path: here,
                        kind: kind_name(*mode),
                        revision,
                    });
                }
                None => {
                    let there_is = there_is(&above, &folder);
                    return Err(SnapshotError::PathNotFound {
                        path: located.path.clone(),
                        revision,
                        there_is,
                    });
                }
            };
            above = here;
        }
        Ok(located)
    }

    fn decode(
        &self,
        repository: &gix::Repository,
        id: ObjectId,
        path: &str,
    ) -> Result<Arc<Folder>, SnapshotError> {
        let decoded = || {
            self.contents
                .decoded
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(folder) = decoded().get(&id) {
            return Ok(folder.clone());
        }
        let tree = self.tree_at(repository, id, path)?;
        let mut folder = Folder::new();
        for entry in tree.iter() {
            let entry = entry.map_err(|error| self.damaged(&error))?;
            folder.insert(
                entry.filename().to_owned(),
                (entry.mode(), entry.object_id()),
            );
        }
        let folder = Arc::new(folder);
        decoded().insert(id, folder.clone());
        Ok(folder)
    }

    fn tree_at<'r>(
        &self,
        repository: &'r gix::Repository,
        id: ObjectId,
        path: &str,
    ) -> Result<gix::Tree<'r>, SnapshotError> {
        let bytes = repository
            .find_header(id)
            .map_err(|error| self.damaged(&error))?
            .size();
        if bytes > TREE_BYTES {
            return Err(too_large(path, "too many names in one folder".into()));
        }
        repository
            .find_tree(id)
            .map_err(|error| self.damaged(&error))
    }

    /// An object that was there when the revision was recorded cannot be read: have it fetched again.
    fn damaged(&self, error: &dyn fmt::Display) -> SnapshotError {
        self.contents.generation.mark_damaged();
        SnapshotError::Corrupt(presentable(&error.to_string()))
    }
}

/// A folder, found.
struct Located {
    /// Normalized; `""` for the root.
    path: String,
    tree: ObjectId,
    /// The ignore files in the folders above: folder, object, kind of entry.
    ignore_files: Vec<(String, ObjectId, EntryMode)>,
}

impl Located {
    fn content_id(&self) -> ContentId {
        let mut hash = Sha256::new();
        hash.update(self.path.as_bytes());
        hash.update([0]);
        hash.update(self.tree.as_slice());
        for (folder, id, _) in &self.ignore_files {
            hash.update(folder.as_bytes());
            hash.update([0]);
            hash.update(id.as_slice());
        }
        let digest = hash.finalize();
        ContentId(std::array::from_fn(|i| digest[i]))
    }
}

/// Collects a folder's files.
struct Reader<'a> {
    snapshot: &'a Snapshot,
    repository: gix::Repository,
    limits: &'a Limits,
    rules: IgnoreRules,
    entries: usize,
    bytes: u64,
    found: Vec<SourceFile>,
}

impl Reader<'_> {
    fn folder(&mut self, path: &str, tree: ObjectId, depth: usize) -> Result<(), SnapshotError> {
        if depth > self.limits.depth {
            return Err(too_large(
                path,
                format!("more than {} folders inside folders", self.limits.depth),
            ));
        }
        // Owned, so that the loop may read other objects: a decoded tree borrows the repository's buffers.
        let entries: Vec<(BString, EntryMode, ObjectId)> = {
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
                format!("more than {} files and folders", self.limits.entries),
            ));
        }
        if let Some((_, mode, id)) = entries.iter().find(|(name, ..)| name == IGNORE_FILE) {
            add_rules(
                self.snapshot,
                &self.repository,
                &mut self.rules,
                path,
                *mode,
                *id,
            )?;
        }
        for (name, mode, id) in entries {
            self.entry(&join(path, &name.to_str_lossy()), &name, mode, id, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &str,
        name: &BString,
        mode: EntryMode,
        id: ObjectId,
        depth: usize,
    ) -> Result<(), SnapshotError> {
        if name == IGNORE_FILE || self.rules.is_ignored(path, mode.is_tree()) {
            return Ok(());
        }
        match mode.kind() {
            EntryKind::Tree => self.folder(path, id, depth + 1),
            EntryKind::Link => Err(SnapshotError::Symlink(path.to_owned())),
            EntryKind::Commit => Err(SnapshotError::Submodule(path.to_owned())),
            EntryKind::Blob | EntryKind::BlobExecutable => {
                if matches!(
                    name.as_slice(),
                    b"kustomization.yaml" | b"kustomization.yml" | b"Kustomization"
                ) {
                    return Err(SnapshotError::Kustomize(path.to_owned()));
                }
                if manifests::is_manifest_file(path) {
                    self.file(path, name, id)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn file(&mut self, path: &str, name: &BString, id: ObjectId) -> Result<(), SnapshotError> {
        if name.to_str().is_err() {
            return Err(SnapshotError::FileName(path.to_owned()));
        }
        let limits = self.limits;
        if self.found.len() >= limits.files {
            return Err(too_large(
                path,
                format!("more than {} manifest files", limits.files),
            ));
        }
        let bytes = self
            .repository
            .find_header(id)
            .map_err(|error| self.snapshot.damaged(&error))?
            .size();
        if bytes > limits.file_bytes {
            let what = format!(
                "a file of {bytes} bytes, and {} are allowed",
                limits.file_bytes
            );
            return Err(too_large(path, what));
        }
        self.bytes += bytes;
        if self.bytes > limits.total_bytes {
            return Err(too_large(
                path,
                format!("more than {} bytes of manifests", limits.total_bytes),
            ));
        }
        let mut blob = self
            .repository
            .find_blob(id)
            .map_err(|error| self.snapshot.damaged(&error))?;
        if blob.data.starts_with(LFS_POINTER) {
            return Err(SnapshotError::LfsPointer(path.to_owned()));
        }
        self.found.push(SourceFile {
            path: path.to_owned(),
            bytes: blob.take_data(),
        });
        Ok(())
    }
}

fn add_rules(
    snapshot: &Snapshot,
    repository: &gix::Repository,
    rules: &mut IgnoreRules,
    folder: &str,
    mode: EntryMode,
    id: ObjectId,
) -> Result<(), SnapshotError> {
    let path = join(folder, IGNORE_FILE);
    let refuse = |detail: String| {
        Err(SnapshotError::IgnoreFile {
            path: path.clone(),
            detail,
        })
    };
    if !mode.is_blob() {
        return refuse(format!("it is a {}, not a file", kind_name(mode)));
    }
    let bytes = repository
        .find_header(id)
        .map_err(|error| snapshot.damaged(&error))?
        .size();
    if bytes > IGNORE_BYTES {
        return refuse(format!(
            "it has {bytes} bytes, and {IGNORE_BYTES} are allowed"
        ));
    }
    let blob = repository
        .find_blob(id)
        .map_err(|error| snapshot.damaged(&error))?;
    match std::str::from_utf8(&blob.data) {
        Ok(text) => rules
            .add(folder, text)
            .or_else(|error| refuse(error.to_string())),
        Err(_) => refuse("it is not UTF-8".into()),
    }
}

/// `./clusters//production/` → `clusters/production`; the root is `""`.
fn normalize(path: &str) -> Result<String, SnapshotError> {
    let refused = path.starts_with('/')
        || path.contains(['\\', '\0'])
        || path.split('/').any(|name| name == "..");
    if refused {
        return Err(SnapshotError::PathRefused(path.to_owned()));
    }
    let names: Vec<_> = path
        .split('/')
        .filter(|name| !matches!(*name, "" | "."))
        .collect();
    Ok(names.join("/"))
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

fn kind_name(mode: EntryMode) -> &'static str {
    match mode.kind() {
        EntryKind::Tree => "folder",
        EntryKind::Link => "symbolic link",
        EntryKind::Commit => "submodule",
        EntryKind::Blob | EntryKind::BlobExecutable => "file",
    }
}

fn there_is(path: &str, folder: &Folder) -> String {
    let place = if path.is_empty() {
        "the repository's root".to_owned()
    } else {
        format!("{path:?}")
    };
    let mut names: Vec<_> = folder
        .iter()
        .filter(|(_, (mode, _))| mode.is_tree())
        .map(|(name, _)| name)
        .collect();
    if names.is_empty() {
        return format!("{place} has no folders");
    }
    names.sort();
    let shown: Vec<_> = names
        .iter()
        .take(NAMES_SHOWN)
        .map(|name| presentable(&name.to_str_lossy()))
        .collect();
    let more = if names.len() > NAMES_SHOWN {
        ", …"
    } else {
        ""
    };
    format!("{place} has the folders: {}{more}", shown.join(", "))
}

fn too_large(path: &str, what: String) -> SnapshotError {
    let path = if path.is_empty() {
        "the repository's root".to_owned()
    } else {
        path.to_owned()
    };
    SnapshotError::TooLarge { path, what }
}
