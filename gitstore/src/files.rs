//! The manifests in a folder of a snapshot.

use gix::ObjectId;
use gix::bstr::{BString, ByteSlice as _};
use gix::objs::tree::{EntryKind, EntryMode};
use manifests::{IGNORE_FILE, IgnoreRules};

use super::snapshot::{join, kind_name, too_large};
use super::{Snapshot, SnapshotError};

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
        Self { file_bytes: 10 << 20, total_bytes: 256 << 20, files: 20_000, entries: 200_000, depth: 32 }
    }
}

/// A manifest file as it is in the commit.
pub struct SourceFile {
    /// From the repository's root, with `/`.
    pub path: String,
    /// Its contents. They may hold a Secret that should not be there: treat them as such.
    pub bytes: Vec<u8>,
}

impl Snapshot {
    /// The manifest files (`.yaml`, `.yml`, `.json`) in a folder and those below it, sorted by path, without what
    /// `.gitsealignore` files (the root's, the folder's, and any on the way or below) leave out.
    ///
    /// # Errors
    /// On what must not be passed over in silence, naming the file: a symbolic link, a submodule, a Kustomization, a
    /// Git LFS pointer, anything beyond `limits`. A file is measured before it is read.
    pub fn files(&self, path: &str, limits: &Limits) -> Result<Vec<SourceFile>, SnapshotError> {
        let repository = self.repository();
        let located = self.locate(&repository, path)?;
        let mut rules = IgnoreRules::new();
        for (folder, id, mode) in &located.ignore_files {
            add_rules(self, &repository, &mut rules, folder, *mode, *id)?;
        }
        let parents = located.path.match_indices('/').map(|(at, _)| &located.path[..at]);
        let on_the_way = parents.chain([located.path.as_str()]).filter(|folder| !folder.is_empty());
        if on_the_way.into_iter().any(|folder| rules.is_ignored(folder, true)) {
            return Err(SnapshotError::FolderIgnored(located.path));
        }
        let mut reader = Reader { snapshot: self, repository, limits, rules, entries: 0, bytes: 0, found: Vec::new() };
        reader.folder(&located.path, located.tree, 0)?;
        reader.found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(reader.found)
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
            return Err(too_large(path, format!("more than {} folders inside folders", self.limits.depth)));
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
            return Err(too_large(path, format!("more than {} files and folders", self.limits.entries)));
        }
        if let Some((_, mode, id)) = entries.iter().find(|(name, ..)| name == IGNORE_FILE) {
            add_rules(self.snapshot, &self.repository, &mut self.rules, path, *mode, *id)?;
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
                if matches!(name.as_slice(), b"kustomization.yaml" | b"kustomization.yml" | b"Kustomization") {
                    return Err(SnapshotError::Kustomize(path.to_owned()));
                }
                if manifests::is_manifest_file(path) { self.file(path, name, id) } else { Ok(()) }
            }
        }
    }

    fn file(&mut self, path: &str, name: &BString, id: ObjectId) -> Result<(), SnapshotError> {
        if name.to_str().is_err() {
            return Err(SnapshotError::FileName(path.to_owned()));
        }
        let limits = self.limits;
        if self.found.len() >= limits.files {
            return Err(too_large(path, format!("more than {} manifest files", limits.files)));
        }
        let bytes = self.repository.find_header(id).map_err(|error| self.snapshot.damaged(&error))?.size();
        if bytes > limits.file_bytes {
            let what = format!("a file of {bytes} bytes, and {} are allowed", limits.file_bytes);
            return Err(too_large(path, what));
        }
        self.bytes += bytes;
        if self.bytes > limits.total_bytes {
            return Err(too_large(path, format!("more than {} bytes of manifests", limits.total_bytes)));
        }
        let mut blob = self.repository.find_blob(id).map_err(|error| self.snapshot.damaged(&error))?;
        if blob.data.starts_with(LFS_POINTER) {
            return Err(SnapshotError::LfsPointer(path.to_owned()));
        }
        self.found.push(SourceFile { path: path.to_owned(), bytes: blob.take_data() });
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
    let refuse = |detail: String| Err(SnapshotError::IgnoreFile { path: path.clone(), detail });
    if !mode.is_blob() {
        return refuse(format!("it is a {}, not a file", kind_name(mode)));
    }
    let bytes = repository.find_header(id).map_err(|error| snapshot.damaged(&error))?.size();
    if bytes > IGNORE_BYTES {
        return refuse(format!("it has {bytes} bytes, and {IGNORE_BYTES} are allowed"));
    }
    let blob = repository.find_blob(id).map_err(|error| snapshot.damaged(&error))?;
    match std::str::from_utf8(&blob.data) {
        Ok(text) => rules.add(folder, text).or_else(|error| refuse(error.to_string())),
        Err(_) => refuse("it is not UTF-8".into()),
    }
}
