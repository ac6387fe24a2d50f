//! Local copies of what a render needs from elsewhere: other Repositories, the remote bases of kustomizations, and charts of registries and
//! chart repositories. The option `--remote` names them.
//!
//! # Guarantees
//! Nothing is fetched. A copy is read like a repository of its own: nothing outside of it is read.

use std::{
    cell::RefCell,
    fs::{self, File},
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use crds::{ObjectKey, Repository as RepositoryObject};
use flate2::read::MultiGzDecoder;
use manifests::in_one_line;
use pipeline::render::RenderError;
use remotes::{OCI, Reference, RemoteRepository, remote_base, remote_chart};
use renderer::{At, RemoteChart, RemoteFolder, Repository};
use tempfile::TempDir;

use crate::{
    output::Hint,
    working_copy::{Unread, WorkingCopy},
};

/// How many bytes an archive may have when it is unpacked. The controller has the same limit.
const ARCHIVE_BYTES: u64 = 128 << 20;

/// A value of `--remote`: what is elsewhere, and the path of its local copy.
#[derive(Clone, Debug)]
pub struct CopyArg {
    of: Of,
    path: PathBuf,
}

/// What a local copy is of.
#[derive(Clone, Debug)]
enum Of {
    /// A Repository, by its name, or by `NAMESPACE/NAME`.
    Repository(String),
    /// A remote base or a chart.
    Remote(RemoteRepository),
}

impl FromStr for CopyArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = split(text).filter(|(name, path)| !name.is_empty() && !path.is_empty()).ok_or(
            "it is not WHAT=PATH, for example config=../config, or https://git.example/team/app?ref=v1=../app",
        )?;
        let is_remote = name.contains("://") || name.contains('?') || name.contains('@');
        let of = if is_remote { Of::Remote(RemoteRepository::of_text(name)?) } else { Of::Repository(name.to_owned()) };
        Ok(Self { of, path: path.into() })
    }
}

/// The parts before and after the `=` that is not a part of a URL's query.
fn split(text: &str) -> Option<(&str, &str)> {
    let mut at = text.find('=')?;
    if text[..at].contains('?') {
        // Each `&` begins another pair with a `=` of its own.
        loop {
            let next = at + 1 + text[at + 1..].find('=')?;
            let is_of_pair = text[at..next].contains('&');
            at = next;
            if !is_of_pair {
                break;
            }
        }
    }
    Some((&text[..at], &text[at + 1..]))
}

/// A local copy.
#[derive(Clone)]
pub struct LocalCopy {
    of: Of,
    /// Its top folder; the path has no symbolic links.
    pub root: PathBuf,
    /// The path of the folder or archive, as it was given.
    pub shown: PathBuf,
    /// The folder into which an archive was unpacked, which is removed with the last of these.
    _unpacked: Option<Arc<TempDir>>,
}

/// The local copies that the user named, and what may be used of them.
#[derive(Clone, Default)]
pub struct Copies {
    all: Vec<LocalCopy>,
    /// The URLs in `spec.remotes` of the Repository, if the Repository is known.
    allowed: Option<Vec<String>>,
}

impl Copies {
    /// The copies that the user named. Archives are unpacked.
    ///
    /// # Errors
    /// A path does not exist, or is no archive of a chart.
    pub fn open(named: &[CopyArg]) -> anyhow::Result<Self> {
        let open = |CopyArg { of, path }: &CopyArg| {
            let root = fs::canonicalize(path)
                .with_context(|| format!("cannot read {}, which --remote names", path.display()))?;
            let is_git = matches!(of, Of::Remote(remote) if !remote.is_chart());
            let shown = path.clone();
            if root.is_dir() {
                return Ok(LocalCopy { of: of.clone(), root, shown, _unpacked: None });
            }
            if is_git {
                return Err(Hint::error(
                    format!("{} is no folder, so it is no clone of a Git repository", path.display()),
                    "give --remote the path of a clone",
                ));
            }
            let unpacked = unpack(&root).with_context(|| format!("cannot unpack {}", path.display()))?;
            let root = top(unpacked.path())?;
            Ok(LocalCopy { of: of.clone(), root, shown, _unpacked: Some(Arc::new(unpacked)) })
        };
        let all: anyhow::Result<_> = named.iter().map(open).collect();
        Ok(Self { all: all?, allowed: None })
    }

    /// These copies, for a Sync whose Repository has these URLs in `spec.remotes`.
    #[must_use]
    pub fn allowing(&self, allowed: Vec<String>) -> Self {
        Self { allowed: Some(allowed), ..self.clone() }
    }

    /// The copy of a Repository. `namespace` is that of the Sync: in it, the name of a Repository is enough.
    pub fn of_repository(&self, repository: &ObjectKey, namespace: Option<&str>) -> Option<&LocalCopy> {
        let is_in_namespace = namespace == Some(&repository.namespace);
        let is_it = |name: &str| name == repository.to_string() || is_in_namespace && name == repository.name;
        self.all.iter().find(|copy| matches!(&copy.of, Of::Repository(name) if is_it(name)))
    }

    /// The copy of the chart that a Repository names with a tag.
    pub fn of_chart(&self, repository: &RepositoryObject) -> Option<&LocalCopy> {
        let spec = &repository.spec;
        let tag = spec.reference.as_ref()?.tag.as_ref()?;
        let chart = RemoteRepository::new(&spec.url, spec.chart.as_deref(), tag);
        self.of_remote(&RemoteRepository::of_text(&chart.text()).ok().filter(RemoteRepository::is_chart)?)
    }

    fn of_remote(&self, remote: &RemoteRepository) -> Option<&LocalCopy> {
        self.all.iter().find(|copy| matches!(&copy.of, Of::Remote(one) if one == remote))
    }

    /// The copy of the remote repository that has this name in the paths of its files.
    fn named(&self, name: &str) -> Option<&LocalCopy> {
        self.all.iter().find(|copy| matches!(&copy.of, Of::Remote(one) if one.root() == name))
    }
}

/// The files of a repository, together with the local copies of what its kustomizations and charts use from elsewhere.
pub struct WithCopies<'r, R> {
    repository: &'r R,
    copies: &'r Copies,
    /// What to do, if a copy was needed and is not there.
    lacking: RefCell<Option<String>>,
}

impl<'r, R: Repository<Error = Unread>> WithCopies<'r, R> {
    /// The files of `repository`, and of the copies.
    pub fn new(repository: &'r R, copies: &'r Copies) -> Self {
        Self { repository, copies, lacking: RefCell::new(None) }
    }

    /// Adds to the error of a render what to do if only a local copy is missing.
    pub fn explained(&self, error: RenderError<Unread>) -> RenderError<Unread> {
        match (error, self.lacking.take()) {
            (RenderError::NotRendered { why, .. }, Some(next)) => {
                RenderError::Files(Unread(Hint::not_here(in_one_line(&why.message), next)))
            }
            (error, _) => error,
        }
    }

    /// A folder in the copy of a remote repository.
    fn find(&self, remote: RemoteRepository, folder: String) -> RemoteFolder {
        let allowed = self.copies.allowed.as_ref();
        if allowed.is_some_and(|allowed| !allowed.iter().any(|one| remote.is_allowed_by(one))) {
            return RemoteFolder::Refused(remote.not_allowed());
        }
        if self.copies.of_remote(&remote).is_none() {
            self.lacking.replace(Some(how_to_get(&remote)));
            return RemoteFolder::Refused(format!("{} is remote, and this command fetches nothing", remote.text()));
        }
        let root = remote.root();
        RemoteFolder::Found { root, folder, url: remote.url, reference: remote.reference }
    }
}

impl<R: Repository<Error = Unread>> Repository for WithCopies<'_, R> {
    type Error = Unread;

    fn at(&self, path: &str) -> Result<At, Unread> {
        self.repository.at(path)
    }

    fn at_remote(&self, root: &str, path: &str) -> Result<At, Unread> {
        let copy = self.copies.named(root).map(|copy| WorkingCopy { root: copy.root.clone() });
        copy.map_or(Ok(At::Nothing), |copy| copy.at(path))
    }

    fn remote_base(&self, entry: &str) -> Result<RemoteFolder, Unread> {
        Ok(remote_base(entry).map_or_else(RemoteFolder::Refused, |(remote, folder)| self.find(remote, folder)))
    }

    fn remote_chart(&self, chart: &RemoteChart) -> Result<RemoteFolder, Unread> {
        let RemoteChart { repository, name, version } = chart;
        let chart = remote_chart(repository, name, version);
        Ok(chart.map_or_else(RemoteFolder::Refused, |chart| self.find(chart, String::new())))
    }

    fn expect(&self, bytes: u64) -> Result<(), Unread> {
        self.repository.expect(bytes)
    }
}

/// How to get a local copy of something remote, and the option that names it.
fn how_to_get(remote: &RemoteRepository) -> String {
    let (text, version) = (remote.text(), &remote.reference);
    let (get, path) = match (remote.place(), remote.reference()) {
        ((url, chart), _) if remote.is_chart() => {
            let name = chart.unwrap_or_else(|| url.rsplit('/').next().unwrap_or_default());
            (pull(url, chart, Some(version)), format!("{name}-{version}.tgz"))
        }
        ((url, _), Reference::Commit(commit)) => {
            (format!("git clone {} PATH && git -C PATH checkout {commit}", word(url)), "PATH".to_owned())
        }
        ((url, _), _) => (format!("git clone --branch {} {} PATH", word(version), word(url)), "PATH".to_owned()),
    };
    format!("get it with `{get}`, and add the option --remote {}", quoted(&format!("{text}={path}")))
}

/// A text as one word of a shell. People copy commands from messages, and others may have chosen the text.
fn word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/+@-".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) { text.to_owned() } else { quoted(text) }
}

/// A text in quotes of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The command that fetches the archive of a chart.
pub fn pull(url: &str, chart: Option<&str>, version: Option<&str>) -> String {
    let from = chart.map_or_else(|| word(url), |chart| format!("{} --repo {}", word(chart), word(url)));
    let version = version.map(|version| format!(" --version {}", quoted(version))).unwrap_or_default();
    format!("helm pull {from}{version}")
}

/// Why the content of a Repository is not known, if it is not this repository; the hint says how to get a copy of it.
pub fn no_copy(what: &str, key: &ObjectKey, repository: Option<&RepositoryObject>) -> anyhow::Error {
    let option = format!("add the option --remote {key}=PATH");
    let Some(RepositoryObject { spec, .. }) = repository else {
        return Hint::not_here(
            format!("{what} is in Repository {key}, and this command fetches nothing"),
            format!("{option} with the path of a clone"),
        );
    };
    let reference = spec.reference.as_ref();
    let version = reference.and_then(|reference| reference.tag.as_deref().or(reference.semver.as_deref()));
    let (place, get) = match &spec.chart {
        Some(chart) => (format!("the chart {chart} of {}", spec.url), pull(&spec.url, Some(chart), version)),
        None if spec.url.starts_with(OCI) => (spec.url.clone(), pull(&spec.url, None, version)),
        None => (spec.url.clone(), format!("git clone {} PATH", word(&spec.url))),
    };
    let of = if spec.chart.is_some() || spec.url.starts_with(OCI) { "the archive" } else { "the clone" };
    Hint::not_here(
        format!("{what} is in {place}, not in this repository, and this command fetches nothing"),
        format!("get it with `{get}`, and {option} with the path of {of}"),
    )
}

/// Unpacks an archive into a new folder.
fn unpack(archive: &Path) -> anyhow::Result<TempDir> {
    let folder = tempfile::tempdir().context("cannot create a folder")?;
    let mut unpacked = MultiGzDecoder::new(File::open(archive)?).take(ARCHIVE_BYTES);
    let mut tar = tar::Archive::new(&mut unpacked);
    let entries = || -> anyhow::Result<()> {
        for entry in tar.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let kind = entry.header().entry_type();
            let is_inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            if !is_inside || !(kind.is_file() || kind.is_dir() || kind.is_pax_global_extensions()) {
                bail!("its entry {} is a link, or leads out of the archive", in_one_line(&path.display().to_string()));
            }
            if kind.is_pax_global_extensions() {
                continue;
            }
            let place = folder.path().join(&path);
            if kind.is_dir() {
                fs::create_dir_all(&place)?;
                continue;
            }
            fs::create_dir_all(place.parent().unwrap_or(folder.path()))?;
            io::copy(&mut entry, &mut File::create_new(&place)?)?;
        }
        Ok(())
    };
    let result = { entries }();
    if unpacked.limit() == 0 {
        bail!("it has more than {} MiB when it is unpacked", ARCHIVE_BYTES >> 20);
    }
    result.context("it is no archive of a chart (.tgz)")?;
    Ok(folder)
}

/// The top folder of what was unpacked. An archive of a chart has a folder with the name of the chart.
fn top(unpacked: &Path) -> anyhow::Result<PathBuf> {
    let root = fs::canonicalize(unpacked)?;
    let mut inner = fs::read_dir(&root)?;
    let first = inner.next().transpose()?.map(|entry| entry.path());
    Ok(match first.filter(|folder| folder.join("Chart.yaml").is_file() && inner.next().is_none()) {
        Some(chart) => chart,
        None => root,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_equals_sign_of_a_query_does_not_end_the_url() {
        for (text, parts) in [
            ("config=../config", Some(("config", "../config"))),
            ("shop/config=/a=b", Some(("shop/config", "/a=b"))),
            ("https://h.example/t/app?ref=v1=../app", Some(("https://h.example/t/app?ref=v1", "../app"))),
            (
                "https://h.example/t/app//x?ref=v1&timeout=9s=a",
                Some(("https://h.example/t/app//x?ref=v1&timeout=9s", "a")),
            ),
            ("oci://h.example/app:1.2.3=app.tgz", Some(("oci://h.example/app:1.2.3", "app.tgz"))),
            ("https://h.example/t/app?ref=v1", None),
            ("config", None),
        ] {
            assert_eq!(split(text), parts, "{text}");
        }
        for text in ["=a", "config=", "https://h.example/t/app=../app", "git@h.example:t/app?ref=v1=../app"] {
            assert!(text.parse::<CopyArg>().is_err(), "{text}");
        }
    }

    #[test]
    fn archives_lead_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let archive = |add: &dyn Fn(&mut tar::Builder<flate2::write::GzEncoder<File>>)| {
            let path = folder.path().join("a.tgz");
            let file = File::create(&path).unwrap();
            let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
            add(&mut tar);
            tar.into_inner().unwrap().finish().unwrap();
            path
        };
        let file = |name: &[u8], kind: tar::EntryType| {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
            header.set_entry_type(kind);
            header.set_link_name("/etc/hostname").unwrap();
            header.set_size(0);
            header.set_mode(0o644);
            header.set_cksum();
            header
        };
        for (name, kind) in [
            (&b"app/../../out.yaml"[..], tar::EntryType::Regular),
            (b"/out.yaml", tar::EntryType::Regular),
            (b"app/link", tar::EntryType::Symlink),
            (b"app/link", tar::EntryType::Link),
        ] {
            let path = archive(&|tar| tar.append(&file(name, kind), io::empty()).unwrap());
            let told = format!("{:#}", unpack(&path).unwrap_err());
            assert!(told.contains("is a link, or leads out of the archive"), "{told}");
        }
        let path = archive(&|tar| tar.append(&file(b"app/Chart.yaml", tar::EntryType::Regular), io::empty()).unwrap());
        let unpacked = unpack(&path).unwrap();
        assert!(top(unpacked.path()).unwrap().ends_with("app"));
        fs::write(&path, "no archive").unwrap();
        assert!(format!("{:#}", unpack(&path).unwrap_err()).contains("it is no archive of a chart"));
    }
}
