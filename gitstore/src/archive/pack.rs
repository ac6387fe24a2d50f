//! Writes objects to a pack: a header, each object compressed by itself, and a digest of all that.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use gix::ObjectId;
use gix::actor::Signature;
use gix::objs::tree::EntryKind;
use gix::objs::{Commit, Kind, Tree, WriteTo as _, tree::Entry};
use gix::odb::pack::data::{Version, entry, header};

const HASH: gix::hash::Kind = gix::hash::Kind::Sha1;

/// The author of every commit. It does not depend on who fetches and when, so that the same files always make the same
/// commit.
const AUTHOR: &str = "gitseal";

/// The content of a folder by name.
pub(super) type Folder = BTreeMap<String, Node>;

/// A file or folder.
#[derive(Debug)]
pub(super) enum Node {
    File(ObjectId),
    Folder(Folder),
}

/// A pack that is being written.
pub(super) struct PackWriter {
    file: BufWriter<File>,
    /// The objects so far; each is written once.
    written: HashSet<ObjectId>,
}

impl PackWriter {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        let mut file = BufWriter::with_capacity(64 << 10, file);
        // The number of objects is not known yet.
        file.write_all(&header::encode(Version::V2, 0))?;
        Ok(Self { file, written: HashSet::new() })
    }

    /// Adds the content of a file.
    pub(super) fn add_file(&mut self, bytes: &[u8]) -> io::Result<ObjectId> {
        self.add(Kind::Blob, entry::Header::Blob, bytes)
    }

    /// Adds the folders and the commit, and completes the pack.
    pub(super) fn finish(mut self, root: Folder) -> io::Result<ObjectId> {
        let tree = self.add_folder(root)?;
        let author = Signature { name: AUTHOR.into(), email: AUTHOR.into(), time: gix::date::Time::default() };
        let commit = Commit {
            tree,
            parents: std::iter::empty().collect(),
            author: author.clone(),
            committer: author,
            encoding: None,
            message: "An archive\n".into(),
            extra_headers: Vec::new(),
        };
        let mut bytes = Vec::new();
        commit.write_to(&mut bytes)?;
        let commit = self.add(Kind::Commit, entry::Header::Commit, &bytes)?;
        let count = u32::try_from(self.written.len()).map_err(io::Error::other)?;
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header::encode(Version::V2, count))?;
        let digest = digest(&mut file)?;
        file.write_all(digest.as_slice())?;
        Ok(commit)
    }

    fn add_folder(&mut self, folder: Folder) -> io::Result<ObjectId> {
        let mut entries = Vec::new();
        for (name, node) in folder {
            let (kind, oid) = match node {
                Node::File(id) => (EntryKind::Blob, id),
                // Git has no empty folders.
                Node::Folder(folder) if is_empty(&folder) => continue,
                Node::Folder(folder) => (EntryKind::Tree, self.add_folder(folder)?),
            };
            entries.push(Entry { mode: kind.into(), filename: name.into(), oid });
        }
        entries.sort();
        let mut bytes = Vec::new();
        Tree { entries }.write_to(&mut bytes)?;
        self.add(Kind::Tree, entry::Header::Tree, &bytes)
    }

    fn add(&mut self, kind: Kind, header: entry::Header, bytes: &[u8]) -> io::Result<ObjectId> {
        let id = gix::objs::compute_hash(HASH, kind, bytes).map_err(|error| io::Error::other(error.to_string()))?;
        if self.written.insert(id) {
            header.write_to(bytes.len() as u64, &mut self.file)?;
            let mut compressed = ZlibEncoder::new(&mut self.file, Compression::fast());
            compressed.write_all(bytes)?;
            compressed.finish()?;
        }
        Ok(id)
    }
}

/// Whether there is no file in it.
fn is_empty(folder: &Folder) -> bool {
    folder.values().all(|node| matches!(node, Node::Folder(inner) if is_empty(inner)))
}

/// The digest of a whole file. Afterwards, the next write is at its end.
fn digest(file: &mut File) -> io::Result<ObjectId> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = gix::hash::hasher(HASH);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return hasher.try_finalize().map_err(|error| io::Error::other(error.to_string())),
            count => hasher.update(&buffer[..count]),
        }
    }
}
