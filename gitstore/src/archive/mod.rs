//! Archives of charts and other artifacts: from the bytes that a server sent to a commit of the store.
//!
//! An archive is a gzipped tar. It is unpacked in memory, file by file, within limits, and becomes a pack of Git with one commit.
//! From there on, it is a revision like any other. Equal content gives equal hashes, also in another archive.

mod pack;
mod unpack;

use std::fs::File;
use std::io;
use std::path::Path;

use gix::ObjectId;
use serde::{Deserialize, Serialize};

use self::pack::PackWriter;

/// The most bytes of an archive.
pub(crate) const ARCHIVE_BYTES: u64 = 64 << 20;

/// What is in an archive.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Layout {
    /// Files and folders.
    Files,
    /// A folder with a chart, and nothing beside it. The content of this folder becomes the root of the commit.
    Chart,
}

/// Why an archive is not used.
#[derive(Debug)]
pub(crate) enum Flaw {
    /// The archive is broken, or contains something that is refused, for example a link.
    Refused(String),
    /// The archive exceeds a limit.
    TooLarge(String),
    /// The disk failed.
    Disk(io::Error),
}

/// Writes the content of `archive` as a pack, and returns the commit in it.
pub(crate) fn to_pack(archive: &Path, layout: Layout, pack: &Path) -> Result<ObjectId, Flaw> {
    let archive = File::open(archive).map_err(Flaw::Disk)?;
    let mut writer = PackWriter::create(pack).map_err(Flaw::Disk)?;
    let root = unpack::unpack(archive, layout, &unpack::Limits::default(), &mut writer)?;
    writer.finish(root).map_err(Flaw::Disk)
}

#[cfg(test)]
pub(crate) mod tests;
