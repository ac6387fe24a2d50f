//! The files of one commit in the user's clone.
//!
//! # Guarantees
//! Nothing is fetched, checked out or written.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::Context as _;
use manifests::{
    Fate, IGNORE_FILE, IgnoreRules, Tree, TreeEntry, TreeFile, is_kustomization, is_manifest_file,
    is_of_another_program,
};
use renderer::{At, Repository};

use crate::working_copy::Unread;

/// How many symbolic links a path may lead through.
const LINKS: usize = 40;

/// A commit, with the names of all its files.
pub struct Commit {
    objects: RefCell<Objects>,
    files: BTreeMap<String, File>,
}

/// A file or a symbolic link.
struct File {
    /// The hash of its content.
    object: String,
    is_link: bool,
}

impl Commit {
    /// The commit in the clone that contains `folder`; `None` if there is no clone, or it does not have the commit.
    pub fn open(folder: &Path, commit: &str) -> Option<Self> {
        let files = list(folder, commit)?;
        Some(Self { objects: RefCell::new(Objects::open(folder)?), files })
    }

    /// The manifests and kustomizations of a folder, as the controller finds them.
    ///
    /// # Errors
    /// git cannot read a file, or an ignore file is not valid.
    pub fn folder(&self, folder: &str) -> anyhow::Result<Folder> {
        let below =
            |path: &str| folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        let mut rules = IgnoreRules::of_manifests(folder);
        let is_ignore_file = |path: &str| name_of(path) == IGNORE_FILE;
        for (path, bytes) in self.read(|path| is_ignore_file(path))? {
            rules.add(parent_of(&path), &String::from_utf8_lossy(&bytes))?;
        }
        let is_read = |path: &str| below(path) && rules.fate(path, false) == Fate::Read;
        let kustomizations: Vec<_> = self.files.keys().filter(|path| is_kustomization(path) && is_read(path)).collect();
        let kustomizations: Vec<_> = kustomizations.into_iter().map(|path| parent_of(path)).collect();
        let is_of_kustomize = |path: &str| {
            let mut above =
                std::iter::successors(Some(parent_of(path)), |folder| (!folder.is_empty()).then(|| parent_of(folder)));
            above.any(|folder| kustomizations.contains(&folder))
        };
        let mut parts = BTreeMap::new();
        for (path, bytes) in self.read(|path| is_read(path) && is_manifest_file(path) && !is_of_kustomize(path))? {
            parts.insert(path, Part::File(bytes));
        }
        for inside in kustomizations.iter().filter(|folder| !is_of_kustomize(folder) || folder.is_empty()) {
            parts.insert((*inside).to_owned(), Part::Kustomization);
        }
        Ok(Folder { parts })
    }

    /// The files that are wanted, with their contents. Symbolic links are left out.
    fn read(&self, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let wanted = self.files.iter().filter(|(path, file)| !file.is_link && wanted(path));
        wanted.map(|(path, _)| Ok((path.clone(), self.content(path)?))).collect()
    }

    fn content(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let read = self.files.get(path).and_then(|file| self.objects.borrow_mut().read(&file.object));
        read.with_context(|| format!("git cannot read {path}"))
    }

    /// The path without `.`, `..` and symbolic links; `None` if it leads out of the repository.
    fn resolved(&self, path: &str) -> Option<String> {
        let mut left: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
        let mut resolved = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    resolved.pop()?;
                    continue;
                }
                _ => resolved.push(name),
            }
            let here = resolved.join("/");
            if self.files.get(&here).is_some_and(|file| file.is_link) {
                links += 1;
                let target = String::from_utf8(self.content(&here).ok()?).ok()?;
                if links > LINKS || target.starts_with('/') {
                    return None;
                }
                resolved.pop();
                left.extend(target.rsplit('/').map(str::to_owned));
            }
        }
        Some(resolved.join("/"))
    }
}

impl Repository for Commit {
    type Error = Unread;

    fn at(&self, path: &str) -> Result<At, Unread> {
        let Some(path) = self.resolved(path) else { return Ok(At::Nothing) };
        if self.files.contains_key(&path) {
            return Ok(At::File(self.content(&path).map_err(Unread)?));
        }
        let below = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut names: Vec<String> = Vec::new();
        for inside in self.files.range(below.clone()..).map_while(|(file, _)| file.strip_prefix(&below)) {
            let name = inside.split('/').next().unwrap_or(inside);
            if names.last().is_none_or(|last| last != name) {
                names.push(name.to_owned());
            }
        }
        Ok(if names.is_empty() { At::Nothing } else { At::Directory(names) })
    }
}

/// A folder of a commit.
pub struct Folder {
    /// The manifest files and the kustomizations of the folder, by their paths in the repository.
    parts: BTreeMap<String, Part>,
}

enum Part {
    File(Vec<u8>),
    Kustomization,
}

impl Tree for Folder {
    type Error = Unread;

    fn each_entry<E: From<Unread>>(
        &self,
        mut measured: impl FnMut(&str, u64) -> Result<(), E>,
        mut visit: impl FnMut(TreeEntry<'_, Unread>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (path, part) in &self.parts {
            match part {
                Part::Kustomization => visit(TreeEntry::Kustomization(path))?,
                Part::File(bytes) if is_of_another_program(path, bytes) => {}
                Part::File(bytes) => {
                    measured(path, bytes.len() as u64)?;
                    visit(TreeEntry::File(TreeFile { path, bytes }))?;
                }
            }
        }
        Ok(())
    }
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The folder that contains `path`; empty for the top folder.
fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// All files of a commit, by their paths. Fails if the clone that contains `folder` does not have the commit.
fn list(folder: &Path, commit: &str) -> Option<BTreeMap<String, File>> {
    let commit = format!("{commit}^{{commit}}");
    let output = git(folder, &["ls-tree", "-r", "-z", "--full-tree", &commit]).stdin(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    let entries = output.stdout.split(|byte| *byte == 0).filter(|line| !line.is_empty()).filter_map(|line| {
        let (about, path) = std::str::from_utf8(line).ok()?.split_once('\t')?;
        let mut words = about.split(' ');
        let (mode, kind, object) = (words.next()?, words.next()?, words.next()?);
        let is_link = mode == "120000";
        (kind == "blob").then(|| (path.to_owned(), File { object: object.to_owned(), is_link }))
    });
    Some(entries.collect())
}

/// Reads objects of a clone, all with one process of git.
struct Objects {
    git: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Objects {
    fn open(folder: &Path) -> Option<Self> {
        let mut git = git(folder, &["cat-file", "--batch"]).stdin(Stdio::piped()).spawn().ok()?;
        let (asked, answers) = (git.stdin.take()?, BufReader::new(git.stdout.take()?));
        Some(Self { git, asked, answers })
    }

    /// The content of an object; `None` if the clone does not have it.
    fn read(&mut self, object: &str) -> Option<Vec<u8>> {
        writeln!(self.asked, "{object}").ok()?;
        // The answer consists of a line whose last word is the size, then the content, and then a line break.
        let mut about = String::new();
        self.answers.read_line(&mut about).ok()?;
        let size: usize = about.trim_end().rsplit(' ').next()?.parse().ok()?;
        let mut content = Vec::new();
        self.answers.by_ref().take(size as u64 + 1).read_to_end(&mut content).ok()?;
        content.pop().filter(|_| content.len() == size)?;
        Some(content)
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        let _ = self.git.kill();
        let _ = self.git.wait();
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Command {
    let mut git = Command::new("git");
    // A folder in the working copy that looks like a repository is not used as one, because its settings could run
    // programs.
    git.current_dir(folder).args(["-c", "safe.bareRepository=explicit"]).args(arguments);
    git.stdout(Stdio::piped()).stderr(Stdio::null());
    // A partial clone must not fetch missing files, whatever the settings and the version of git.
    git.env("GIT_NO_LAZY_FETCH", "1").env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", "none");
    git
}
