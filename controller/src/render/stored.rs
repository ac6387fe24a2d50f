//! Keeps rendered folders on disk, in the store of their Repository, so that a restart or a heal does not render them
//! again.
//!
//! There is one file per folder, with lines of JSON. The first line says what the folder depends on, and which program
//! made the file: the results of another program are not used, because its code may make other objects; only the remote repositories that
//! the folder used are read from it. Each object has
//! two lines, its place in Git and the object itself. The last line is a digest of the objects. A file is written only
//! after the stage guard has found no plaintext Secret, so values in the file are sealed.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use gitstore::{ContentId, Snapshot};
use manifests::{Limits, Location, Manifest, json_for_yaml};
use pipeline::{Room, Target, render::reserve};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::closure::Closure;

/// The version of the format of these files. It must change, too, if remote repositories get other names.
const FORMAT: u32 = 6;
/// The most bytes that the first line may have.
const HEAD_BYTES: u64 = 1 << 20;
/// The length of the last line, in bytes.
const DIGEST_BYTES: usize = 64;

/// How many bytes all stored files of a Repository may have together. This is limited, because each edit of a Sync may
/// name another folder.
const MOST_BYTES: u64 = 256 << 20;

/// The first line of a file.
#[derive(Deserialize, Serialize)]
struct Head {
    format: u32,
    /// The library that rendered, and its version.
    renderer: String,
    /// See [`program`].
    program: String,
    closure: Closure,
    /// The identity of everything that the objects depend on.
    identity: String,
    /// The notes of the chart.
    #[serde(default)]
    notes: Option<String>,
}

/// Where an object is in Git.
#[derive(Deserialize, Serialize)]
struct Place {
    file: String,
    line: u32,
}

/// What [`read`] found.
pub(super) struct Found {
    pub(super) objects: Vec<Manifest>,
    pub(super) content: ContentId,
    pub(super) closure: Closure,
    pub(super) notes: Option<String>,
}

/// What a stored folder depends on.
pub(super) struct Identity<'a> {
    pub(super) closure: &'a Closure,
    /// The identity of everything that the objects depend on.
    pub(super) identity: &'a str,
}

/// What a folder depended on when it was last rendered.
pub(crate) struct LastRender {
    /// What it depended on.
    pub(crate) closure: Closure,
    /// Whether this program rendered it. Otherwise, the closure only says which remote repositories were used: this program may make
    /// other objects of the same files, and has to read all of them once more.
    pub(crate) is_own: bool,
}

/// What `target` depended on when it was last rendered, by this program or by another one, for example before an upgrade.
pub(crate) fn last_render(snapshot: &Snapshot, target: &Target) -> Option<LastRender> {
    let (head, _) = open(snapshot, target).ok()??;
    let is_own = head.is_own().ok()?;
    Some(LastRender { closure: head.closure, is_own })
}

/// The stored objects of `target`, if everything that they depend on is the same in `snapshot` as when they were
/// stored. Memory is taken from `room`; if there is not enough, the result is `None`. `folder` is the identity of the
/// folder itself. `identity` takes the identity of the content in Git, and returns the identity of everything that the
/// objects depend on.
pub(super) fn read(
    snapshot: &Snapshot,
    target: &Target,
    folder: ContentId,
    identity: impl Fn(ContentId) -> ContentId,
    room: &mut dyn Room,
) -> Option<Found> {
    let path = target.path.as_str();
    let (head, mut file) = open(snapshot, target).ok()??;
    if !head.is_own().ok()? {
        return None;
    }
    let content = head.closure.content(snapshot, folder);
    if identity(content).to_string() != head.identity {
        return None;
    }
    let bytes = file.get_ref().metadata().ok()?.len();
    reserve::<()>(room, path, bytes.saturating_mul(2)).ok()?;
    let mut text = Vec::new();
    file.by_ref().take(bytes).read_to_end(&mut text).ok()?;
    let (objects, told) = text.split_at(text.len().checked_sub(DIGEST_BYTES)?);
    if digest(objects).as_bytes() != told {
        tracing::warn!(path, "the stored objects of the folder are damaged; the folder is rendered again");
        return None;
    }
    let mut manifests = Vec::new();
    let mut lines = objects.split(|byte| *byte == b'\n');
    while let (Some(place), Some(object)) = (lines.next(), lines.next()) {
        let Place { file, line } = serde_json::from_slice(place).ok()?;
        let left = usize::try_from(room.left().saturating_sub(bytes)).unwrap_or(usize::MAX);
        let limits = Limits { memory: left, ..Limits::default() };
        let parsed = manifests::parse_measured(&file, object, &limits).ok()?;
        room.use_up(parsed.memory as u64);
        let origin = Location { file: file.into(), line };
        manifests.extend(parsed.manifests.into_iter().map(|manifest| Manifest { origin: origin.clone(), ..manifest }));
    }
    Some(Found { objects: manifests, content, closure: head.closure, notes: head.notes })
}

/// Stores the rendered objects of `target`, and the notes of the chart. `objects` must have no plaintext Secret.
pub(super) fn write(
    snapshot: &Snapshot,
    target: &Target,
    Identity { closure, identity }: Identity<'_>,
    objects: &[Manifest],
    notes: Option<&str>,
) -> io::Result<()> {
    let target = file_of(snapshot, target);
    // The folder above this one is not created: if it is missing, the Repository was deleted.
    if let Err(error) = fs::create_dir(snapshot.renders())
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    let program = program()?.to_owned();
    let (renderer, closure, identity) = (closure.renderer(), closure.clone(), identity.to_owned());
    let notes = notes.map(str::to_owned);
    // Each thread uses its own temporary name, because two passes may store the same folder at the same time.
    let temporary = target.with_extension(format!("{:?}", std::thread::current().id()));
    let written = (|| {
        let mut file = BufWriter::new(fs::File::create(&temporary)?);
        serde_json::to_writer(&mut file, &Head { format: FORMAT, renderer, program, closure, identity, notes })?;
        file.write_all(b"\n")?;
        let mut hashed = Hashed { to: &mut file, hash: Sha256::new() };
        for Manifest { origin, body, .. } in objects {
            serde_json::to_writer(&mut hashed, &Place { file: origin.file.to_string(), line: origin.line })?;
            hashed.write_all(b"\n")?;
            // The line is read by the YAML parser, which needs more characters to be escaped than a JSON parser.
            hashed.write_all(&json_for_yaml(Zeroizing::new(serde_json::to_vec(body)?)))?;
            hashed.write_all(b"\n")?;
        }
        let digest = hex(hashed.hash);
        file.write_all(digest.as_bytes())?;
        file.flush()?;
        // The file is not synced to the disk. If a power failure damages it, its digest does not fit, and the folder is
        // rendered again.
        fs::rename(&temporary, &target)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    make_room(&snapshot.renders(), MOST_BYTES);
    written
}

/// Deletes the oldest files until no more than `most` bytes are left.
fn make_room(folder: &Path, most: u64) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut files: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let of = entry.metadata().ok()?;
            Some((of.modified().ok()?, of.len(), entry.path()))
        })
        .collect();
    files.sort();
    let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, of_file, path) in files {
        if bytes <= most {
            return;
        }
        bytes -= of_file;
        let _ = fs::remove_file(path);
    }
}

/// Deletes what is stored of targets that are not in `targets`.
pub(crate) fn retain<'t>(snapshot: &Snapshot, targets: impl Iterator<Item = &'t Target>) {
    let Ok(entries) = fs::read_dir(snapshot.renders()) else { return };
    let wanted: BTreeSet<PathBuf> = targets.map(|target| file_of(snapshot, target)).collect();
    for entry in entries.flatten().filter(|entry| !wanted.contains(&entry.path())) {
        let _ = fs::remove_file(entry.path());
    }
}

/// The first line, and a reader of the rest of the file. `None` if the file has another format.
fn open(snapshot: &Snapshot, target: &Target) -> io::Result<Option<(Head, BufReader<fs::File>)>> {
    let mut file = BufReader::new(fs::File::open(file_of(snapshot, target))?);
    let mut line = Vec::new();
    file.by_ref().take(HEAD_BYTES).read_until(b'\n', &mut line)?;
    let head: Option<Head> = serde_json::from_slice(&line).ok();
    Ok(head.filter(|head| head.format == FORMAT).map(|head| (head, file)))
}

impl Head {
    /// Whether this program made the file, with the same version of the library that renders.
    fn is_own(&self) -> io::Result<bool> {
        Ok(self.renderer == self.closure.renderer() && self.program == program()?)
    }
}

/// What tells this program from others: a digest of its file, and the build of the process that renders. The result of a render
/// depends on much of the code in both, and so nobody has to remember to change a number when this code changes.
///
/// # Errors
/// The file cannot be read. It is tried again the next time.
fn program() -> io::Result<&'static str> {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    if let Some(known) = PROGRAM.get() {
        return Ok(known);
    }
    // Unlike the path of the program, this leads to the running program even after another one was installed.
    let own = digest_of(Path::new("/proc/self/exe"))?;
    Ok(PROGRAM.get_or_init(|| format!("{own} {}", renderer::WORKER)))
}

fn digest_of(file: &Path) -> io::Result<String> {
    let mut hashed = Hashed { to: io::sink(), hash: Sha256::new() };
    io::copy(&mut BufReader::with_capacity(128 << 10, fs::File::open(file)?), &mut hashed)?;
    Ok(hex(hashed.hash))
}

fn file_of(snapshot: &Snapshot, Target { path, chart, changes }: &Target) -> PathBuf {
    let mut name = chart.as_ref().map_or_else(|| path.clone(), |chart| format!("{path}\n{chart}"));
    name.extend(changes.iter().flat_map(|changes| ["\nchanged ", changes]));
    snapshot.renders().join(&digest(name.as_bytes())[..32])
}

fn digest(bytes: &[u8]) -> String {
    hex(Sha256::new().chain_update(bytes))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Writes everything to the inner writer, and hashes it.
struct Hashed<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, SystemTime},
    };

    use crds::ObjectKey;

    use super::*;
    use crate::{
        remotes::two_commits,
        render::Root,
        sources::{Keeps, Sources},
    };

    #[test]
    fn what_another_program_rendered_is_not_used_but_the_remote_repositories_of_it_are_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let [snapshot, _] = two_commits(folder.path());
        let (target, key) = (Target::folder(""), ObjectKey::new("team", "app"));
        let [one, two] = ["one", "two"].map(|name| format!("https://git.example/{name}@v1"));
        let asked = [(Root::from(one.as_str()), "base/kustomization.yaml".into())].into();
        let closure = Closure::new("", &[String::new()], &asked);
        let content = closure.content(&snapshot, ContentId::of_text("")).to_string();
        write(&snapshot, &target, Identity { closure: &closure, identity: &content }, &[], None).unwrap();
        let after_start = || {
            let sources = Sources::default();
            sources.update(&key, Arc::new(snapshot.clone()), &[(target.clone(), Keeps::Possible)].into());
            let is_known = sources.closure(&key, &target).is_some();
            (is_known, [&one, &two].map(|root| sources.uses(&key, root)))
        };
        assert_eq!(after_start(), (true, [true, false]));
        let file = file_of(&snapshot, &target);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen(program().unwrap(), "another program", 1)).unwrap();
        assert_eq!(after_start(), (false, [true, false]));
        fs::write(&file, text.replacen(&format!(":{FORMAT},"), ":0,", 1)).unwrap();
        assert_eq!(after_start(), (false, [true, true]), "its format is not known");
    }

    #[test]
    fn another_program_has_another_digest() {
        assert!(!renderer::WORKER.is_empty(), "the build of the process that renders is known");
        let known = program().unwrap();
        assert!(known.ends_with(renderer::WORKER) && program().unwrap() == known, "{known}");
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            fs::write(folder.path().join(name), bytes).unwrap();
            digest_of(&folder.path().join(name)).unwrap()
        };
        let large = vec![7; 300_000];
        let same = file("a", &large);
        assert_eq!(same, file("b", &large));
        assert_ne!(same, file("c", &[&large[..], b"x"].concat()));
        assert!(digest_of(&folder.path().join("none")).is_err());
    }

    #[test]
    fn what_is_stored_has_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        for (age, name) in [(30, "old"), (10, "newest"), (20, "newer")] {
            let path = folder.path().join(name);
            fs::write(&path, [0; 100]).unwrap();
            let written = SystemTime::now() - Duration::from_secs(age);
            fs::File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        }
        make_room(folder.path(), 300);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        make_room(folder.path(), 299);
        assert!(!folder.path().join("old").exists() && folder.path().join("newer").exists());
        make_room(folder.path(), 150);
        assert!(!folder.path().join("newer").exists() && folder.path().join("newest").exists());
    }
}
