//! Reads a stored revision: which folders changed, and the manifests in a folder.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use gix::ObjectId;
use gix::bstr::ByteSlice as _;
use gix::hash::Kind;
use gix::objs::TreeRefIter;
use gix::objs::tree::{EntryKind, EntryMode, EntryRef};
use manifests::IGNORE_FILE;
use sha2::{Digest as _, Sha256};

use super::generation::{Generation, RENDERS};
use super::transport::{causes, presentable};
use super::{RemoteRepositories, Revision, SnapshotError};

/// How many names an error lists.
const NAMES_SHOWN: usize = 10;
/// The most bytes of the list of names of a single folder. The list of a folder with manifests is shorter.
const TREE_BYTES: u64 = 4 << 20;
/// How many bytes of lists of names are kept while paths are looked for.
const RECENT_BYTES: usize = 8 << 20;

/// Identifies a folder's contents, its path, and the ignore rules above it. Folders with equal identities contain the
/// same objects.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ContentId(pub(super) [u8; 16]);

impl ContentId {
    /// The identity of a text.
    pub fn of_text(text: &str) -> Self {
        Self::of(Sha256::new().chain_update(text))
    }

    /// The first 16 bytes of a digest.
    pub(super) fn of(hash: Sha256) -> Self {
        let digest = hash.finalize();
        Self(std::array::from_fn(|i| digest[i]))
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A stored revision, open for reading. Cheap to clone. Its objects stay on the disk until the snapshot is dropped.
#[derive(Clone)]
pub struct Snapshot {
    revision: Revision,
    contents: Arc<Contents>,
    remotes: Arc<RemoteRepositories>,
}

struct Contents {
    generation: Arc<Generation>,
    repository: gix::ThreadSafeRepository,
    commit: ObjectId,
    tree: ObjectId,
}

/// The entries of a folder in Git's form, sorted by name.
#[derive(Default)]
pub(super) struct Names {
    entries: Vec<u8>,
    /// Where each entry begins, so that an entry can be found without reading all of them.
    starts: Vec<u32>,
}

impl Names {
    /// The error says why this is not a list of names.
    fn read(entries: Vec<u8>, hash: Kind) -> Result<Self, String> {
        let mut starts = Vec::new();
        let mut rest = TreeRefIter::from_bytes(&entries, hash);
        loop {
            let start = rest.offset_to_next_entry(&entries);
            let Some(entry) = rest.next() else { break };
            entry.map_err(|error| error.to_string())?;
            starts.push(u32::try_from(start).expect("a list of names is far smaller than 4 GiB"));
        }
        starts.shrink_to_fit();
        Ok(Self { entries, starts })
    }

    /// The folder or file of this name.
    pub(super) fn find(&self, name: &str, hash: Kind) -> Option<(EntryMode, ObjectId)> {
        let none = ObjectId::null(hash);
        // Git sorts folders as if their names ended with `/`.
        [EntryKind::Tree, EntryKind::Blob].into_iter().find_map(|kind| {
            let wanted = EntryRef { mode: kind.into(), filename: name.into(), oid: &none };
            let at = |start: u32| TreeRefIter::from_bytes(&self.entries[start as usize..], hash).next()?.ok();
            let found = self.starts.binary_search_by(|start| at(*start).map_or(Ordering::Less, |one| one.cmp(&wanted)));
            at(self.starts[found.ok()?]).map(|entry| (entry.mode, entry.oid.to_owned()))
        })
    }

    /// The size of the list in memory, in bytes.
    fn size(&self) -> usize {
        self.entries.len() + size_of_val(self.starts.as_slice())
    }
}

/// Folders that were read a moment ago. If many paths are looked for, a folder that several of them have in common is
/// read only once. The list of names of a folder may be long, so the lists are kept in Git's form, and their total size
/// is limited.
#[derive(Default)]
pub(super) struct Recent {
    folders: HashMap<ObjectId, Rc<Names>>,
    bytes: usize,
    /// The size of all lists that were read, also of those that are not kept.
    pub(super) read: usize,
}

impl Recent {
    fn keep(&mut self, id: ObjectId, names: Rc<Names>) {
        self.read += names.size();
        if self.bytes + names.size() > RECENT_BYTES {
            *self = Self { read: self.read, ..Self::default() };
        }
        self.bytes += names.size();
        self.folders.insert(id, names);
    }
}

impl Snapshot {
    /// Opens a stored revision. `commit` is the hash of its commit.
    pub(super) fn open(generation: Arc<Generation>, revision: Revision, commit: &str) -> Result<Self, SnapshotError> {
        let not_stored = || SnapshotError::NotStored(revision.to_string());
        let repository = generation.repository();
        let commit = ObjectId::from_hex(commit.as_bytes()).map_err(|_| not_stored())?;
        let local = repository.to_thread_local();
        let tree = local.find_commit(commit).and_then(|commit| commit.tree_id()).map_err(|_| not_stored())?.detach();
        if !local.has_object(tree) {
            return Err(not_stored());
        }
        let contents = Contents { generation, repository, commit, tree };
        Ok(Self { revision, contents: Arc::new(contents), remotes: Arc::default() })
    }

    /// Which commit this is.
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// This snapshot, with these remote repositories that its kustomizations may use.
    #[must_use]
    pub fn with_remotes(&self, remotes: Arc<RemoteRepositories>) -> Self {
        Self { revision: self.revision.clone(), contents: self.contents.clone(), remotes }
    }

    /// The remote repositories that its kustomizations may use.
    pub fn remotes(&self) -> &Arc<RemoteRepositories> {
        &self.remotes
    }

    /// Identifies the whole content, with that of the remote repositories.
    pub fn whole(&self) -> String {
        format!("{}{}", self.revision.id, self.remotes.identity())
    }

    /// The identity of each folder's contents, in the order of the paths. A path may also be that of an archive of a chart. Reads no
    /// file. Folders that consecutive paths have in common are read once.
    ///
    /// # Errors
    /// For each path: the path is refused, not found, or neither a folder nor an archive.
    pub fn content_ids(&self, paths: &[&str]) -> Vec<Result<ContentId, SnapshotError>> {
        let (repository, mut recent) = (self.repository(), Recent::default());
        paths.iter().map(|path| Ok(self.locate_source(&repository, path, &mut recent)?.content_id())).collect()
    }

    /// Whether objects could not be read. The next fetch then returns another snapshot, perhaps of the same revision.
    pub fn is_damaged(&self) -> bool {
        self.contents.generation.is_damaged()
    }

    /// A folder on the disk for what was rendered from this repository. It need not exist. It is deleted together with
    /// the repository.
    pub fn renders(&self) -> PathBuf {
        self.contents.generation.path().with_file_name(RENDERS)
    }

    pub(super) fn repository(&self) -> gix::Repository {
        self.contents.repository.to_thread_local()
    }

    pub(super) fn generation(&self) -> &Arc<Generation> {
        &self.contents.generation
    }

    pub(super) fn commit(&self) -> ObjectId {
        self.contents.commit
    }

    pub(super) fn tree(&self) -> ObjectId {
        self.contents.tree
    }

    /// This snapshot, with another name for the same commit.
    pub(super) fn renamed(&self, revision: Revision) -> Self {
        Self { revision, contents: self.contents.clone(), remotes: self.remotes.clone() }
    }

    /// The folder at a path.
    pub(super) fn locate(
        &self,
        repository: &gix::Repository,
        path: &str,
        recent: &mut Recent,
    ) -> Result<Located, SnapshotError> {
        let located = self.locate_source(repository, path, recent)?;
        match located.archive {
            None => Ok(located),
            Some(mode) => Err(self.not_a_folder(located.path, mode)),
        }
    }

    fn not_a_folder(&self, path: String, mode: EntryMode) -> SnapshotError {
        SnapshotError::NotAFolder { path, kind: kind_name(mode), revision: self.revision.to_string() }
    }

    /// The folder at a path, or the archive of a chart.
    fn locate_source(
        &self,
        repository: &gix::Repository,
        path: &str,
        recent: &mut Recent,
    ) -> Result<Located, SnapshotError> {
        let path = normalize(path)?;
        let mut located = Located { path, tree: self.contents.tree, archive: None, ignore_files: Vec::new() };
        let mut above = String::new();
        for name in located.path.split('/').filter(|name| !name.is_empty()) {
            let names = self.names(repository, located.tree, &above, recent)?;
            let hash = repository.object_hash();
            if let Some((mode, id)) = names.find(IGNORE_FILE, hash) {
                located.ignore_files.push((above.clone(), id, mode));
            }
            let here = join(&above, name);
            located.tree = match names.find(name, hash) {
                Some((mode, id)) if mode.is_tree() => id,
                Some((mode, id)) if here == located.path && is_archive(&here) && mode.is_blob() => {
                    located.archive = Some(mode);
                    id
                }
                Some((mode, _)) => return Err(self.not_a_folder(here, mode)),
                None => {
                    let there_is = there_is(&above, TreeRefIter::from_bytes(&names.entries, hash));
                    let revision = self.revision.to_string();
                    return Err(SnapshotError::PathNotFound { path: located.path.clone(), revision, there_is });
                }
            };
            above = here;
        }
        Ok(located)
    }

    /// The entry at a path, if there is no link on the way.
    pub(super) fn entry(
        &self,
        repository: &gix::Repository,
        path: &str,
        recent: &mut Recent,
    ) -> Result<Option<(EntryMode, ObjectId)>, SnapshotError> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let located = match self.locate(repository, above, recent) {
            Err(SnapshotError::PathNotFound { .. } | SnapshotError::NotAFolder { .. }) => return Ok(None),
            located => located?,
        };
        let names = self.names(repository, located.tree, above, recent)?;
        Ok(names.find(name, repository.object_hash()))
    }

    /// The entries of a folder, in Git's form.
    pub(super) fn names(
        &self,
        repository: &gix::Repository,
        id: ObjectId,
        path: &str,
        recent: &mut Recent,
    ) -> Result<Rc<Names>, SnapshotError> {
        if let Some(names) = recent.folders.get(&id) {
            return Ok(names.clone());
        }
        let entries = self.tree_at(repository, id, path)?.data.clone();
        let names = Rc::new(Names::read(entries, repository.object_hash()).map_err(|error| self.damaged(&error))?);
        recent.keep(id, names.clone());
        Ok(names)
    }

    pub(super) fn tree_at<'r>(
        &self,
        repository: &'r gix::Repository,
        id: ObjectId,
        path: &str,
    ) -> Result<gix::Tree<'r>, SnapshotError> {
        let bytes = repository.find_header(id).map_err(|error| self.damaged(&error))?.size();
        if bytes > TREE_BYTES {
            return Err(too_large(path, "too many names in one folder".into()));
        }
        let _turn = self.contents.generation.reading();
        let mut tree = repository.find_tree(id).map_err(|error| self.unreadable(path, &error))?;
        // The memory that reading the tree's deltas needed is given back.
        tree.data.shrink_to_fit();
        Ok(tree)
    }

    /// The content of a file. The caller has checked its size.
    pub(super) fn read(
        &self,
        repository: &gix::Repository,
        id: ObjectId,
        path: &str,
    ) -> Result<Vec<u8>, SnapshotError> {
        let _turn = self.contents.generation.reading();
        let mut blob = repository.find_blob(id).map_err(|error| self.unreadable(path, &error))?;
        let mut bytes = blob.take_data();
        bytes.shrink_to_fit();
        Ok(bytes)
    }

    /// A stored object cannot be read: it is damaged or too large.
    fn unreadable(&self, path: &str, error: &gix::Error) -> SnapshotError {
        if error.is_resource_exhausted() || causes(error).contains("too large to fit in memory") {
            return too_large(path, "it is stored as a delta of an object that is too large to be read".into());
        }
        self.damaged(error)
    }

    /// An object that existed when the revision was recorded cannot be read, so it has to be fetched again.
    pub(super) fn damaged(&self, error: &dyn fmt::Display) -> SnapshotError {
        self.contents.generation.mark_damaged();
        SnapshotError::Corrupt(presentable(&error.to_string()))
    }
}

/// Whether a file of this name is the archive of a chart.
fn is_archive(path: &str) -> bool {
    std::path::Path::new(path).extension().is_some_and(|extension| extension == "tgz")
}

/// A folder that was found, or the archive of a chart.
pub(super) struct Located {
    /// Normalized; `""` for the root.
    pub(super) path: String,
    pub(super) tree: ObjectId,
    /// Set if it is the archive of a chart: then `tree` is the file.
    archive: Option<EntryMode>,
    /// The ignore files in the folders above: folder, object, kind of entry.
    pub(super) ignore_files: Vec<(String, ObjectId, EntryMode)>,
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
        ContentId::of(hash)
    }
}

/// Cleans a path: `./clusters//production/` becomes `clusters/production`. The root is `""`.
fn normalize(path: &str) -> Result<String, SnapshotError> {
    let refused = path.starts_with('/') || path.contains(['\\', '\0']) || path.split('/').any(|name| name == "..");
    if refused {
        return Err(SnapshotError::PathRefused(path.to_owned()));
    }
    let names: Vec<_> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    Ok(names.join("/"))
}

pub(super) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

pub(super) fn kind_name(mode: EntryMode) -> &'static str {
    match mode.kind() {
        EntryKind::Tree => "folder",
        EntryKind::Link => "symbolic link",
        EntryKind::Commit => "submodule",
        EntryKind::Blob | EntryKind::BlobExecutable => "file",
    }
}

fn there_is(path: &str, folder: TreeRefIter<'_>) -> String {
    let place = if path.is_empty() { "the repository's root".to_owned() } else { format!("{path:?}") };
    let mut names: Vec<_> = folder.flatten().filter(|entry| entry.mode.is_tree()).map(|entry| entry.filename).collect();
    if names.is_empty() {
        return format!("{place} has no folders");
    }
    names.sort();
    let shown: Vec<_> = names.iter().take(NAMES_SHOWN).map(|name| presentable(&name.to_str_lossy())).collect();
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("the folders in {place} are: {}{more}", shown.join(", "))
}

pub(super) fn too_large(path: &str, what: String) -> SnapshotError {
    let path = if path.is_empty() { "the repository's root".to_owned() } else { path.to_owned() };
    SnapshotError::TooLarge { path, what }
}

#[cfg(test)]
mod tests {
    use gix::bstr::ByteSlice as _;
    use gix::objs::{Tree, WriteTo as _, tree::Entry};

    use super::*;

    #[test]
    fn names_are_found_as_git_sorts_them() {
        let id = ObjectId::null(Kind::Sha1);
        let entry = |kind: EntryKind, name: &str| Entry { mode: kind.into(), filename: name.into(), oid: id };
        let mut entries = vec![
            entry(EntryKind::Tree, "a"),
            entry(EntryKind::Blob, "a-b"),
            entry(EntryKind::Blob, "a.b"),
            entry(EntryKind::Blob, IGNORE_FILE),
            entry(EntryKind::Link, "link"),
            entry(EntryKind::BlobExecutable, "run"),
            entry(EntryKind::Tree, "z"),
        ];
        entries.sort();
        let mut bytes = Vec::new();
        Tree { entries: entries.clone() }.write_to(&mut bytes).unwrap();
        let names = Names::read(bytes, Kind::Sha1).unwrap();
        for Entry { mode, filename, .. } in &entries {
            assert_eq!(names.find(filename.to_str().unwrap(), Kind::Sha1), Some((*mode, id)), "{filename}");
        }
        for missing in ["", "A", "a-", "b", "zz", "lin"] {
            assert_eq!(names.find(missing, Kind::Sha1), None, "{missing}");
        }
        assert_eq!(Names::default().find("a", Kind::Sha1), None);
        assert!(Names::read(b"100644 cut".to_vec(), Kind::Sha1).is_err());
    }

    #[test]
    fn a_hint_names_ten_folders() {
        let hint = |count: usize| {
            let entry = |number| Entry {
                mode: EntryKind::Tree.into(),
                filename: format!("f{number:02}").into(),
                oid: ObjectId::null(Kind::Sha1),
            };
            let mut bytes = Vec::new();
            Tree { entries: (0..count).map(entry).collect() }.write_to(&mut bytes).unwrap();
            there_is("apps", TreeRefIter::from_bytes(&bytes, Kind::Sha1))
        };
        let ten = "the folders in \"apps\" are: f00, f01, f02, f03, f04, f05, f06, f07, f08, f09";
        assert_eq!(hint(10), ten);
        assert_eq!(hint(15), format!("{ten} and 5 more"));
        assert_eq!(hint(0), "\"apps\" has no folders");
    }

    #[test]
    fn what_is_kept_of_large_folders_has_a_bound() {
        let mut recent = Recent::default();
        for number in 0..100_u8 {
            let mut id = [0; 20];
            id[0] = number;
            let names = Names { entries: vec![0; 3 << 20], starts: Vec::new() };
            recent.keep(ObjectId::Sha1(id), Rc::new(names));
            let held: usize = recent.folders.values().map(|names| names.size()).sum();
            assert!(held == recent.bytes && held <= RECENT_BYTES, "{held}");
        }
        assert_eq!(recent.folders.len(), 2);
    }
}
