//! Reads a gzipped tar. Whoever made it may be hostile.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use tar::EntryType;

use super::pack::{Folder, Node, PackWriter};
use super::{Flaw, Layout};
use crate::transport::presentable;

/// The file that makes a folder a chart.
const CHART: &str = "Chart.yaml";

/// Limits of one archive.
pub(super) struct Limits {
    /// Bytes of one file.
    pub(super) file: u64,
    /// Bytes of the whole tar after decompression, with headers and padding.
    pub(super) total: u64,
    /// Number of files and folders.
    pub(super) entries: usize,
    /// Bytes of one path.
    pub(super) path: usize,
    /// Levels of folders.
    pub(super) depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // Larger files and deeper folders are refused, because a Sync could not read them. The other limits are higher
        // than those of Helm.
        let read = crate::Limits::default();
        Self { file: read.file_bytes, total: 128 << 20, entries: 20_000, path: 1024, depth: read.depth }
    }
}

/// How many bytes may be between the contents of two files: the header of a file, its name if that is long, and padding.
const BETWEEN: u64 = 32 << 10;

/// Gives the content of every file to `pack`, and returns the folders.
pub(super) fn unpack(
    archive: impl Read,
    layout: Layout,
    limits: &Limits,
    pack: &mut PackWriter,
) -> Result<Folder, Flaw> {
    let left = Rc::new(Left { total: Cell::new(limits.total), now: Cell::new(0), at: Cell::new(Bound::Total) });
    let mut archive = tar::Archive::new(Metered { inner: MultiGzDecoder::new(archive), left: left.clone() });
    let mut root = Folder::new();
    let (mut count, mut top) = (0, None);
    let broken = |error: io::Error| match left.at.get() {
        Bound::None => Flaw::Refused(format!("it cannot be unpacked: {}", presentable(&error.to_string()))),
        Bound::Total => {
            Flaw::TooLarge(format!("its archive has more than {} MiB when it is unpacked", limits.total >> 20))
        }
        Bound::Between => {
            Flaw::Refused("its archive has more bytes between two files than any program writes there".to_owned())
        }
    };
    left.at.set(Bound::None);
    left.now.set(BETWEEN);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let shown = presentable(&String::from_utf8_lossy(&entry.path_bytes()));
        let refused = |why: &str| Flaw::Refused(format!("its entry {shown:?} {why}"));
        let is_file = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => !entry.path_bytes().ends_with(b"/"),
            EntryType::Directory => false,
            // A comment about the whole archive, as `git archive` writes it.
            EntryType::XGlobalHeader => {
                left.now.set(BETWEEN);
                continue;
            }
            EntryType::Symlink | EntryType::Link => {
                return Err(refused("is a link, and links are not followed: pack the file itself"));
            }
            _ => return Err(refused("is neither a file nor a folder")),
        };
        count += 1;
        if count > limits.entries {
            return Err(Flaw::TooLarge(format!("its archive has more than {} files and folders", limits.entries)));
        }
        let path =
            String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| refused("has a name that is not UTF-8"))?;
        let mut names = names(&path, limits).map_err(|why| refused(&why))?;
        if layout == Layout::Chart && !names.is_empty() {
            let folder = names.remove(0);
            if *top.get_or_insert_with(|| folder.to_owned()) != folder || is_file && names.is_empty() {
                return Err(refused(
                    "is outside of the chart's folder, and a chart's archive may have only this one folder at its root",
                ));
            }
        }
        let node = if is_file {
            let bytes = entry.size();
            if bytes > limits.file {
                let what = format!("its file {shown:?} has {bytes} bytes, but at most {} are allowed", limits.file);
                return Err(Flaw::TooLarge(what));
            }
            left.now.set(bytes + BETWEEN);
            let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
            entry.read_to_end(&mut content).map_err(broken)?;
            if content.len() as u64 != bytes {
                return Err(refused("ends too early"));
            }
            Node::File(pack.add_file(&content).map_err(Flaw::Disk)?)
        } else {
            Node::Folder(Folder::new())
        };
        put(&mut root, &names, node).map_err(refused)?;
        left.now.set(BETWEEN);
    }
    if count == 0 {
        return Err(Flaw::Refused("it is empty".to_owned()));
    }
    if layout == Layout::Chart && !matches!(root.get(CHART), Some(Node::File(_))) {
        return Err(Flaw::Refused(format!("it is no chart: its folder has no {CHART}")));
    }
    Ok(root)
}

/// The names of which a path consists, if nothing is wrong with it.
fn names<'p>(path: &'p str, limits: &Limits) -> Result<Vec<&'p str>, String> {
    if path.len() > limits.path {
        return Err(format!("has a path of {} bytes, but at most {} are allowed", path.len(), limits.path));
    }
    if path.starts_with('/') {
        return Err("has an absolute path".to_owned());
    }
    if path.contains(['\\', '\0']) {
        return Err("has a backslash in its path".to_owned());
    }
    let names: Vec<_> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    if names.contains(&"..") {
        return Err("leads upwards with '..'".to_owned());
    }
    if names.iter().any(|name| name.eq_ignore_ascii_case(".git")) {
        return Err("has the name .git, which Git keeps for itself".to_owned());
    }
    if names.len() > limits.depth {
        return Err(format!("is nested in more than {} folders", limits.depth));
    }
    Ok(names)
}

/// Puts a file or folder at its place.
fn put(root: &mut Folder, names: &[&str], node: Node) -> Result<(), &'static str> {
    let Some((name, above)) = names.split_last() else {
        return if matches!(node, Node::Folder(_)) { Ok(()) } else { Err("has no name") };
    };
    let mut folder = root;
    for name in above {
        let inner = folder.entry((*name).to_owned()).or_insert_with(|| Node::Folder(Folder::new()));
        folder = match inner {
            Node::Folder(inner) => inner,
            Node::File(_) => return Err("is below a file"),
        };
    }
    match (folder.get(*name), &node) {
        (None, _) => {
            folder.insert((*name).to_owned(), node);
            Ok(())
        }
        // An archive may list a folder twice, or list a folder after the files in it.
        (Some(Node::Folder(_)), Node::Folder(_)) => Ok(()),
        (Some(_), _) => Err("is there twice"),
    }
}

/// How many bytes may still be read.
struct Left {
    total: Cell<u64>,
    /// Until the next file.
    now: Cell<u64>,
    /// The limit that was reached.
    at: Cell<Bound>,
}

#[derive(Clone, Copy)]
enum Bound {
    None,
    Total,
    Between,
}

/// Reads no more bytes than `left` allows. Without this limit, the tar library would read names of any length into
/// memory.
struct Metered<R> {
    inner: R,
    left: Rc<Left>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Left { total, now, at } = &*self.left;
        let (most, bound) = if total.get() < now.get() { (total, Bound::Total) } else { (now, Bound::Between) };
        if most.get() == 0 && !buffer.is_empty() {
            at.set(bound);
            return Err(io::Error::other("a limit was reached"));
        }
        let most = usize::try_from(most.get()).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..most])?;
        total.set(total.get() - count as u64);
        now.set(now.get() - count as u64);
        Ok(count)
    }
}
