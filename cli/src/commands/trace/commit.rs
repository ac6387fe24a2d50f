//! The files of one commit in the user's clone.
//!
//! # Guarantees
//! Nothing is fetched, checked out or written.

use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, anyhow};
use manifests::{
    Fate, IGNORE_FILE, IgnoreRules, Tree, TreeEntry, TreeFile, is_kustomization, is_manifest_file,
    is_of_another_program,
};
use renderer::{At, Repository};

use crate::working_copy::Unread;

/// How many symbolic links a path may lead through.
const LINKS: usize = 40;

/// A commit, with the names of all its files.
pub struct Commit<'a> {
    clone: Clone<'a>,
    files: BTreeMap<String, File>,
}

/// A file or a symbolic link.
struct File {
    /// The hash of its content.
    object: String,
    is_link: bool,
}

impl<'a> Commit<'a> {
    /// The commit in the clone that contains `folder`; `None` if there is no clone, or it does not have the commit.
    pub fn open(folder: &'a Path, commit: &str) -> Option<Self> {
        let clone = Clone { folder };
        clone.run(&["cat-file", "-e", &format!("{commit}^{{commit}}")])?;
        let files = clone.list(commit)?;
        Some(Self { clone, files })
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
        let wanted: Vec<_> = self.files.iter().filter(|(path, file)| !file.is_link && wanted(path)).collect();
        let contents = self.clone.read(wanted.iter().map(|(_, file)| file.object.as_str()));
        let contents = contents.context("git cannot read the files of the commit")?;
        Ok(wanted.into_iter().map(|(path, _)| path.clone()).zip(contents).collect())
    }

    fn content(&self, path: &str) -> Option<Vec<u8>> {
        self.clone.read(std::iter::once(self.files.get(path)?.object.as_str()))?.pop()
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
                let target = String::from_utf8(self.content(&here)?).ok()?;
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

impl Repository for Commit<'_> {
    type Error = Unread;

    fn at(&self, path: &str) -> Result<At, Unread> {
        let Some(path) = self.resolved(path) else { return Ok(At::Nothing) };
        if self.files.contains_key(&path) {
            let bytes = self.content(&path).ok_or_else(|| Unread(anyhow!("git cannot read {path}")))?;
            return Ok(At::File(bytes));
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
    /// The parts by their paths in the repository.
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

/// Reads objects of a clone.
struct Clone<'a> {
    folder: &'a Path,
}

impl Clone<'_> {
    /// All files of a commit, by their paths.
    fn list(&self, commit: &str) -> Option<BTreeMap<String, File>> {
        let listed = self.run(&["ls-tree", "-r", "-z", "--full-tree", commit])?;
        let entries = listed.split(|byte| *byte == 0).filter(|line| !line.is_empty()).filter_map(|line| {
            let (about, path) = std::str::from_utf8(line).ok()?.split_once('\t')?;
            let mut words = about.split(' ');
            let (mode, kind, object) = (words.next()?, words.next()?, words.next()?);
            let is_link = mode == "120000";
            (kind == "blob").then(|| (path.to_owned(), File { object: object.to_owned(), is_link }))
        });
        Some(entries.collect())
    }

    /// The contents of objects, in their order.
    fn read<'o>(&self, objects: impl Iterator<Item = &'o str>) -> Option<Vec<Vec<u8>>> {
        let objects: Vec<&str> = objects.collect();
        let mut child = self.command(&["cat-file", "--batch"]).stdin(Stdio::piped()).spawn().ok()?;
        let mut input = child.stdin.take()?;
        let asked = objects.join("\n") + "\n";
        // git answers while it still reads. So reading and writing must happen at the same time, or both would block.
        let writer = std::thread::spawn(move || input.write_all(asked.as_bytes()));
        let output = child.wait_with_output().ok()?;
        let _ = writer.join();
        let mut rest = output.stdout.as_slice();
        let mut all = Vec::with_capacity(objects.len());
        for _ in objects {
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let size: usize = std::str::from_utf8(&rest[..end]).ok()?.rsplit(' ').next()?.parse().ok()?;
            all.push(rest.get(end + 1..end + 1 + size)?.to_vec());
            rest = rest.get(end + 2 + size..)?;
        }
        Some(all)
    }

    fn run(&self, arguments: &[&str]) -> Option<Vec<u8>> {
        let output = self.command(arguments).stdin(Stdio::null()).output().ok()?;
        output.status.success().then_some(output.stdout)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut git = Command::new("git");
        // A folder in the working copy that looks like a repository is not used as one, because its settings could run
        // programs.
        git.current_dir(self.folder).args(["-c", "safe.bareRepository=explicit"]).args(arguments);
        git.stdout(Stdio::piped()).stderr(Stdio::null());
        // A partial clone must not fetch missing files now, with any settings and any version of git.
        git.env("GIT_NO_LAZY_FETCH", "1").env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", "none");
        git
    }
}
