//! Archives as other programs write them, and as nobody should.

use std::io::{Cursor, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::pack::{Folder, Node};
use super::unpack::{Limits, unpack};
use super::*;
use crate::tests::git;

/// A tar that is being written.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Regular, path, content.as_ref())
    }

    /// The path is written as it is, without any check.
    fn entry(mut self, kind: EntryType, path: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn link(mut self, kind: EntryType, path: &str, target: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    fn packed(self) -> Vec<u8> {
        packed(&self.0.into_inner().unwrap())
    }
}

fn packed(tar: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(tar).unwrap();
    packed.finish().unwrap()
}

/// The archive of a chart.
pub(crate) fn packed_chart() -> Vec<u8> {
    chart().packed()
}

fn chart() -> Tar {
    Tar::new()
        .file("hello/Chart.yaml", "name: hello\nversion: 1.0.0\n")
        .file("hello/templates/b.yaml", "b")
        .file("hello/templates/a.yaml", "a")
        .file("hello/templates-b", "a")
}

/// Small limits.
const SMALL: Limits = Limits { file: 2000, total: 100_000, entries: 20, path: 90, depth: 4 };

fn unpacked_within(archive: &[u8], layout: Layout, limits: &Limits) -> Result<Folder, Flaw> {
    let folder = tempfile::tempdir().unwrap();
    let mut pack = PackWriter::create(&folder.path().join("pack")).unwrap();
    unpack(Cursor::new(archive), layout, limits, &mut pack)
}

/// Why the archive is refused. The same archive would be refused as a chart, too.
fn refused(archive: &[u8]) -> String {
    match unpacked_within(archive, Layout::Files, &SMALL) {
        Err(Flaw::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn too_large(archive: &[u8]) -> String {
    match unpacked_within(archive, Layout::Files, &SMALL) {
        Err(Flaw::TooLarge(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// The commit of an archive, and a repository with it.
fn stored(archive: &[u8], layout: Layout) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let (path, pack) = (folder.path().join("archive"), folder.path().join("new.pack"));
    std::fs::write(&path, archive).unwrap();
    let commit = to_pack(&path, layout, &pack).unwrap_or_else(|flaw| panic!("{flaw:?}")).to_string();
    git(folder.path(), &["init", "--quiet", "--bare"]);
    // `index-pack` checks every object, and the digest of the whole pack.
    git(folder.path(), &["index-pack", "--strict", "new.pack"]);
    for file in ["new.pack", "new.idx"] {
        let into = folder.path().join("objects/pack").join(file.replace("new", "pack-1234"));
        std::fs::rename(folder.path().join(file), into).unwrap();
    }
    (folder, commit)
}

#[test]
fn a_chart_becomes_a_commit_with_its_files_at_the_root() {
    let (folder, commit) = stored(&chart().packed(), Layout::Chart);
    let git = |arguments: &[&str]| git(folder.path(), arguments);
    git(&["fsck", "--strict"]);
    let files = git(&["ls-tree", "-r", "--name-only", &commit]);
    assert_eq!(files, "Chart.yaml\ntemplates-b\ntemplates/a.yaml\ntemplates/b.yaml");
    assert_eq!(git(&["show", &format!("{commit}:templates/b.yaml")]), "b");
    assert_eq!(git(&["log", "--format=%an %at %s", &commit]), "gitseal 0 An archive");
    let (_folder, files) = stored(&chart().packed(), Layout::Files);
    assert_ne!(files, commit);
}

#[test]
fn equal_content_gives_an_equal_commit() {
    let (_folder, commit) = stored(&chart().packed(), Layout::Chart);
    let other = Tar::new()
        .entry(EntryType::XGlobalHeader, "pax_global_header", b"20 comment=a commit\n")
        .entry(EntryType::Directory, "./hello/", b"")
        .entry(EntryType::Directory, "./hello/empty/", b"")
        // As old programs write a folder.
        .file("./hello/empty-too/", "")
        .file("./hello/templates-b", "a")
        .file("./hello/templates/a.yaml", "a")
        .entry(EntryType::Directory, "./hello/templates/", b"")
        .file("./hello//templates/./b.yaml", "b")
        .file("./hello/Chart.yaml", "name: hello\nversion: 1.0.0\n");
    let (_folder, again) = stored(&other.packed(), Layout::Chart);
    assert_eq!(again, commit);
}

#[test]
fn long_names_are_read_in_both_forms() {
    let long = format!("app/{}/{}.yaml", "folder-".repeat(10), "name-".repeat(10));
    let mut gnu = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    gnu.append_data(&mut header, &long, &b"a"[..]).unwrap();
    let mut pax = Builder::new(Vec::new());
    pax.append_pax_extensions([("path", long.as_bytes())]).unwrap();
    let mut header = Header::new_ustar();
    header.set_path("short").unwrap();
    header.set_size(1);
    header.set_cksum();
    pax.append(&header, &b"a"[..]).unwrap();
    for tar in [gnu, pax] {
        let (folder, commit) = stored(&packed(&tar.into_inner().unwrap()), Layout::Files);
        assert_eq!(git(folder.path(), &["ls-tree", "-r", "--name-only", &commit]), long);
    }
}

#[test]
fn what_could_leave_its_folder_is_refused() {
    let with = |path: &str| refused(&Tar::new().file("a", "").file(path, "x").packed());
    for (path, why) in [
        ("/etc/passwd", "absolute"),
        ("../a", "'..'"),
        ("app/../../a", "'..'"),
        ("app/..", "'..'"),
        ("app\\..\\..\\a", "backslash"),
        (".git/config", "Git keeps"),
        ("app/.GIT/config", "Git keeps"),
        ("b/c/d/e/f", "more than 4 folders"),
        ("a", "is there twice"),
        ("./a", "is there twice"),
        ("a/b", "is below a file"),
        (".", "has no name"),
    ] {
        let told = with(path);
        assert!(told.contains(why), "{path}: {told}");
    }
    for kind in [EntryType::Symlink, EntryType::Link] {
        let told = refused(&Tar::new().link(kind, "app/link", "/etc/passwd").packed());
        assert!(told.contains("\"app/link\" is a link"), "{told}");
    }
    for kind in [EntryType::Fifo, EntryType::Char, EntryType::Block, EntryType::GNUSparse] {
        refused(&Tar::new().entry(kind, "device", b"").packed());
    }
    let told = refused(&Tar::new().file("app/b", "").file("app", "").packed());
    assert!(told.contains("is there twice"), "{told}");
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..2].copy_from_slice(&[b'a', 0xff]);
    header.set_size(0);
    header.set_cksum();
    let mut tar = Builder::new(Vec::new());
    tar.append(&header, &[][..]).unwrap();
    assert!(refused(&packed(&tar.into_inner().unwrap())).contains("not UTF-8"));
}

#[test]
fn what_is_beside_the_folder_of_a_chart_is_refused() {
    let refused = |tar: Tar| match unpacked_within(&tar.packed(), Layout::Chart, &SMALL) {
        Err(Flaw::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    for tar in [chart().file("other/a", ""), chart().file("a", ""), Tar::new().file("Chart.yaml", "")] {
        let told = refused(tar);
        assert!(told.contains("one folder"), "{told}");
    }
    for tar in [Tar::new().file("hello/values.yaml", ""), Tar::new().entry(EntryType::Directory, "a/Chart.yaml/", b"")]
    {
        let told = refused(tar);
        assert!(told.contains("has no Chart.yaml"), "{told}");
    }
}

#[test]
fn more_than_the_limits_is_refused() {
    let told = too_large(&Tar::new().file("a", [0; 2001]).packed());
    assert!(told.contains("\"a\" has 2001 bytes, but at most 2000 are allowed"), "{told}");
    let many = (0..21).fold(Tar::new(), |tar, number| tar.file(&number.to_string(), ""));
    let told = too_large(&many.packed());
    assert!(told.contains("more than 20 files"), "{told}");
    let told = refused(&Tar::new().file(&"a/".repeat(46), "").packed());
    assert!(told.contains("path of"), "{told}");
}

#[test]
fn what_grows_without_an_end_is_stopped() {
    // Every file is within its limit, and together they are a thousand times as large as the archive.
    let limits = Limits { file: 1 << 20, total: 8 << 20, entries: 1000, ..SMALL };
    let large = (0..20).fold(Tar::new(), |tar, number| tar.file(&number.to_string(), vec![0; 1 << 20])).packed();
    assert!(large.len() < 300_000, "{}", large.len());
    let told = unpacked_within(&large, Layout::Files, &limits).err();
    assert!(matches!(&told, Some(Flaw::TooLarge(why)) if why.contains("more than 8 MiB")), "{told:?}");

    // Names of files are read into memory, so their size has a limit of its own.
    for kind in [EntryType::GNULongName, EntryType::XHeader, EntryType::XGlobalHeader, EntryType::Directory] {
        let archive = Tar::new().entry(kind, "x", &vec![b'a'; 2 << 20]).file("a", "").packed();
        let told = unpacked_within(&archive, Layout::Files, &limits).err();
        assert!(matches!(&told, Some(Flaw::Refused(why)) if why.contains("between two files")), "{told:?}");
    }

    // A header may state a larger size than the archive has.
    let mut header = Header::new_gnu();
    header.set_path("a").unwrap();
    header.set_size(u64::MAX >> 2);
    header.set_cksum();
    let told = too_large(&packed(header.as_bytes()));
    assert!(told.contains("are allowed"), "{told}");
}

#[test]
fn a_broken_archive_is_refused() {
    let good = Tar::new().file("a", "0123456789".repeat(100)).packed();
    assert!(unpacked_within(&good, Layout::Files, &SMALL).is_ok());
    for broken in [&[][..], b"no archive", &good[..good.len() / 2], &packed(b"no tar, but long enough to be a header")]
    {
        refused(broken);
    }
    let tar = Tar::new().file("a", [0; 1000]).0.into_inner().unwrap();
    assert!(refused(&packed(&tar[..1000])).contains("ends too early"));
    assert!(refused(&packed(&[0; 1024])).contains("is empty"));
}

#[test]
fn files_that_are_equal_are_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let mut pack = PackWriter::create(&path).unwrap();
    let ids = [b"a", b"b", b"a"].map(|content| pack.add_file(content).unwrap());
    let root = Folder::from([("a".to_owned(), Node::File(ids[0])), ("b".to_owned(), Node::File(ids[1]))]);
    pack.finish(root).unwrap();
    assert_eq!(std::fs::read(path).unwrap()[..12], *b"PACK\0\0\0\x02\0\0\0\x04");
}
