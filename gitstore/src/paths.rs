//! Reads the paths of a snapshot that a renderer requests, one by one and in any folder.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use gix::ObjectId;
use gix::bstr::ByteSlice as _;
use gix::objs::tree::EntryMode;
use sha2::{Digest as _, Sha256};

use super::files::{LFS_POINTER, LINK_BYTES};
use super::snapshot::{ContentId, Recent, join, too_large};
use super::{Limits, Snapshot, SnapshotError};

/// How many symbolic links one path may lead through.
const LINKS: usize = 40;

/// How many names are followed for one path, including the names in links. Neither Git nor a file system allows a path
/// of so many names.
const STEPS: usize = 2000;

/// How many bytes of lists of names may be read to identify the content of some paths.
const IDENTITY_BYTES: usize = 16 << 20;

/// The entry at a path.
#[derive(Debug, Eq, PartialEq)]
pub enum At {
    /// A file, and its content.
    File(Vec<u8>),
    /// A folder, and the names in it that are UTF-8, in Git's order.
    Folder(Vec<String>),
    /// Nothing.
    Nothing,
}

/// The files and folders of a snapshot by their paths. Symbolic links are followed, but not out of the repository.
pub struct Paths {
    snapshot: Snapshot,
    repository: gix::Repository,
    recent: RefCell<Recent>,
    limits: Limits,
    /// How many bytes of lists of names may be read.
    names_bytes: usize,
    /// The paths of remote repositories that were read, by their names.
    remotes: RefCell<BTreeMap<String, Rc<Paths>>>,
}

/// Where a path leads.
enum Target {
    File(ObjectId),
    Folder(ObjectId),
    Nothing,
}

impl Snapshot {
    /// Access to single paths. Only [`Limits::file_bytes`] counts.
    pub fn paths(&self, limits: Limits) -> Paths {
        let (snapshot, repository) = (self.clone(), self.repository());
        let (recent, remotes) = (RefCell::default(), RefCell::default());
        Paths { snapshot, repository, recent, limits, names_bytes: usize::MAX, remotes }
    }

    /// Identifies the content of all paths together, and the text `besides`. If this identity is equal in two
    /// revisions, [`Paths::at`] and [`Paths::at_remote`] give the same for each of these paths in both. No file is read. With each path
    /// comes the [name](super::RemoteRepository::root) of the remote repository that it is in, if it is in one.
    ///
    /// If too many names would have to be read, the identity is that of the whole revision.
    pub fn content_at<'p>(
        &self,
        besides: &str,
        paths: impl IntoIterator<Item = (Option<&'p str>, &'p str)>,
    ) -> ContentId {
        let known = Paths { names_bytes: IDENTITY_BYTES, ..self.paths(Limits::default()) };
        known.content_at(besides, paths).unwrap_or_else(|| {
            let whole = format!("{besides}\0{}", self.whole());
            ContentId::of(Sha256::new().chain_update(whole))
        })
    }
}

impl Paths {
    /// What there is at `path` in the remote repository with this [name](super::RemoteRepository::root). If it may not be used, or
    /// was not fetched, there is nothing.
    ///
    /// # Errors
    /// As of [`Paths::at`].
    pub fn at_remote(&self, root: &str, path: &str) -> Result<At, SnapshotError> {
        self.remote(root).map_or(Ok(At::Nothing), |remote| remote.at(path))
    }

    /// What there is at `path`, which is relative to the repository's root.
    ///
    /// # Errors
    /// The path leads out of the repository, into a submodule, to a Git LFS pointer, or to a file above the limit; or
    /// the stored objects are damaged.
    pub fn at(&self, path: &str) -> Result<At, SnapshotError> {
        match self.target(path)? {
            Target::Nothing => Ok(At::Nothing),
            Target::Folder(tree) => {
                let tree = self.snapshot.tree_at(&self.repository, tree, path)?;
                let mut names = Vec::new();
                for entry in tree.iter() {
                    let entry = entry.map_err(|error| self.snapshot.damaged(&error))?;
                    names.extend(entry.filename().to_str().ok().map(str::to_owned));
                }
                Ok(At::Folder(names))
            }
            Target::File(id) => {
                let bytes = self.size(id)?;
                if bytes > self.limits.file_bytes {
                    let what = format!("a file of {bytes} bytes, but at most {} are allowed", self.limits.file_bytes);
                    return Err(too_large(path, what));
                }
                let bytes = self.snapshot.read(&self.repository, id, path)?;
                if bytes.starts_with(LFS_POINTER) {
                    return Err(SnapshotError::LfsPointer(path.to_owned()));
                }
                Ok(At::File(bytes))
            }
        }
    }

    /// The identity of the file at `path`; `None` if there is no file. No file is read, except symbolic links.
    ///
    /// # Errors
    /// The path leads out of the repository or into a submodule, or the stored objects are damaged.
    pub fn file_id(&self, path: &str) -> Result<Option<ContentId>, SnapshotError> {
        Ok(match self.target(path)? {
            Target::File(id) => Some(ContentId::of_text(&id.to_string())),
            Target::Folder(_) | Target::Nothing => None,
        })
    }

    /// `None` if too many names would have to be read.
    fn content_at<'p>(
        &self,
        besides: &str,
        paths: impl IntoIterator<Item = (Option<&'p str>, &'p str)>,
    ) -> Option<ContentId> {
        let mut hash = Sha256::new();
        hash.update(besides.as_bytes());
        hash.update([0]);
        for (root, path) in paths {
            if let Some(root) = root {
                match self.remote(root) {
                    Some(remote) => {
                        let inside = remote.content_at(root, [(None, path)])?;
                        hash.update(inside.0);
                    }
                    None => hash.update(format!("{root}\0{path}\0{}\0", self.snapshot.remotes().identity_of(root))),
                }
                if self.has_read_too_much() {
                    return None;
                }
                continue;
            }
            hash.update(path.as_bytes());
            let (kind, identity) = match self.target(path) {
                Ok(Target::Nothing) => (0, None),
                Ok(Target::File(id)) => (1, Some(id)),
                Ok(Target::Folder(id)) => (2, Some(id)),
                Err(_) => (3, None),
            };
            hash.update([0, kind]);
            match identity {
                // Only the names count: the renderer gets nothing else of a folder, and a change inside the folder does
                // not change them.
                Some(id) if kind == 2 => match self.snapshot.tree_at(&self.repository, id, path) {
                    Ok(tree) => {
                        self.recent.borrow_mut().read += tree.data.len();
                        tree.iter().flatten().for_each(|entry| {
                            hash.update(entry.filename());
                            hash.update([0]);
                        });
                    }
                    Err(_) => hash.update(id.as_slice()),
                },
                Some(id) => hash.update(id.as_slice()),
                None => {}
            }
            hash.update([0]);
            if self.has_read_too_much() {
                return None;
            }
        }
        Some(ContentId::of(hash))
    }

    /// The paths of the remote repository of this name, if it may be read.
    fn remote(&self, root: &str) -> Option<Rc<Self>> {
        let mut remotes = self.remotes.borrow_mut();
        if let Some(known) = remotes.get(root) {
            return Some(known.clone());
        }
        let mut paths = self.snapshot.remotes().files(root)?.paths(self.limits);
        paths.names_bytes = self.names_bytes;
        let paths = Rc::new(paths);
        remotes.insert(root.to_owned(), paths.clone());
        Some(paths)
    }

    fn has_read_too_much(&self) -> bool {
        let of_remotes: usize = self.remotes.borrow().values().map(|remote| remote.recent.borrow().read).sum();
        self.recent.borrow().read + of_remotes > self.names_bytes
    }

    fn size(&self, id: ObjectId) -> Result<u64, SnapshotError> {
        Ok(self.repository.find_header(id).map_err(|error| self.snapshot.damaged(&error))?.size())
    }

    /// Follows `path`, name by name and link by link.
    fn target(&self, path: &str) -> Result<Target, SnapshotError> {
        let out = || SnapshotError::LinkOutside(path.to_owned());
        // The names that are still to be followed; the last one is followed next.
        let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut above: Vec<(String, ObjectId)> = Vec::new();
        let mut here = (String::new(), self.snapshot.tree());
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = rest.pop() {
            steps += 1;
            if steps > STEPS || self.has_read_too_much() {
                return Err(out());
            }
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    here = above.pop().ok_or_else(out)?;
                    continue;
                }
                _ => {}
            }
            let Some((mode, id)) = self.entry(&here, &name)? else { return Ok(Target::Nothing) };
            let is_last = rest.iter().all(|name| matches!(name.as_str(), "" | "."));
            if mode.is_tree() {
                let path = join(&here.0, &name);
                above.push(std::mem::replace(&mut here, (path, id)));
            } else if mode.is_link() {
                links += 1;
                let target = self.link(id, path)?;
                if links > LINKS || target.starts_with('/') {
                    return Err(out());
                }
                rest.extend(target.split('/').rev().map(str::to_owned));
            } else if mode.is_commit() {
                return Err(SnapshotError::Submodule(join(&here.0, &name)));
            } else if is_last {
                return Ok(Target::File(id));
            } else {
                return Ok(Target::Nothing);
            }
        }
        Ok(Target::Folder(here.1))
    }

    fn entry(&self, folder: &(String, ObjectId), name: &str) -> Result<Option<(EntryMode, ObjectId)>, SnapshotError> {
        let mut recent = self.recent.borrow_mut();
        let names = self.snapshot.names(&self.repository, folder.1, &folder.0, &mut recent)?;
        Ok(names.find(name, self.repository.object_hash()))
    }

    /// The text of a symbolic link.
    fn link(&self, id: ObjectId, path: &str) -> Result<String, SnapshotError> {
        let refused = || SnapshotError::LinkOutside(path.to_owned());
        if self.size(id)? > LINK_BYTES {
            return Err(refused());
        }
        String::from_utf8(self.snapshot.read(&self.repository, id, path)?).map_err(|_| refused())
    }
}
