use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use manifests::{IGNORE_FILE, IgnoreRules, Limits, is_manifest_file};
use zeroize::Zeroizing;

use super::{read_stdin, stdin_is_terminal};
use crate::edit;
use crate::output::Hint;

/// One text to seal.
pub struct Input {
    /// `None` is standard input.
    path: Option<PathBuf>,
    /// Whether the file was found in a folder, and not named by the user.
    pub(in crate::commands) was_found: bool,
}

impl Input {
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Its name for messages.
    pub(in crate::commands) fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "standard input".to_owned(), |path| path.display().to_string())
    }

    pub(in crate::commands) fn is_in_place(&self, asked_for: bool) -> bool {
        self.was_found || asked_for
    }

    /// The text, wiped when dropped.
    pub(in crate::commands) fn read(&self) -> anyhow::Result<Zeroizing<String>> {
        let mut bytes = match &self.path {
            Some(path) => read_file(path)?,
            None => read_stdin()?,
        };
        if bytes.len() > Limits::default().file_bytes {
            anyhow::bail!("{} is larger than a manifest may be", self.name());
        }
        String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            Hint::error(
                format!("{} is not text in UTF-8", self.name()),
                "to make a Secret of a file's bytes: --name NAME --from-file FILE",
            )
        })
    }
}

/// A file's bytes, wiped when dropped.
pub(in crate::commands) fn read_file(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    edit::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The files that the arguments name. Files of folders are in the order of their paths.
pub fn collect(arguments: &[PathBuf]) -> anyhow::Result<Vec<Input>> {
    if arguments.is_empty() {
        if stdin_is_terminal() {
            return Err(Hint::error(
                "no input",
                "name files or folders, pipe a Secret in, or see `gitseal seal --help`",
            ));
        }
        return Ok(vec![Input { path: None, was_found: false }]);
    }
    let mut inputs = Vec::new();
    for argument in arguments {
        if argument == Path::new("-") {
            inputs.push(Input { path: None, was_found: false });
        } else if argument.is_dir() {
            walk(argument, &mut inputs)?;
        } else {
            inputs.push(Input { path: Some(argument.clone()), was_found: false });
        }
    }
    Ok(inputs)
}

fn walk(folder: &Path, inputs: &mut Vec<Input>) -> anyhow::Result<()> {
    let absolute = folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?;
    let root = tree_root(&absolute);
    let below_root = absolute.strip_prefix(&root).unwrap_or(Path::new(""));
    let mut tree = Tree { rules: IgnoreRules::new(), inputs };
    // The ignore rules in the folders above `folder` also apply.
    let mut above = root.clone();
    let mut names = String::new();
    for part in below_root.components() {
        tree.add_rules(&above, &names)?;
        above.push(part);
        names = joined(&names, &part.as_os_str().to_string_lossy());
    }
    tree.walk(folder, &names)
}

/// The top folder of the repository that a folder is in, or the folder itself if it is in none.
fn tree_root(folder: &Path) -> PathBuf {
    folder
        .ancestors()
        .find(|ancestor| ancestor.join(".git").exists() || ancestor.join(super::project::FILE).exists())
        .unwrap_or(folder)
        .to_owned()
}

struct Tree<'i> {
    rules: IgnoreRules,
    inputs: &'i mut Vec<Input>,
}

impl Tree<'_> {
    /// Adds the manifest files of a folder and below; `name` is its path in the tree.
    fn walk(&mut self, folder: &Path, name: &str) -> anyhow::Result<()> {
        self.add_rules(folder, name)?;
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut entries = entries.with_context(|| format!("cannot list {}", folder.display()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let file_name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            let name = joined(name, &file_name);
            // Symbolic links are not followed. The files that links lead to are sealed in their own place, or do not belong
            // to this tree.
            let file_type = entry.file_type().with_context(|| format!("cannot read {}", path.display()))?;
            if file_type.is_dir() {
                if file_name != ".git" && !self.rules.is_ignored(&name, true) {
                    self.walk(&path, &name)?;
                }
            } else if file_type.is_file() && is_manifest_file(&file_name) && !self.rules.is_ignored(&name, false) {
                self.inputs.push(Input { path: Some(path), was_found: true });
            }
        }
        Ok(())
    }

    fn add_rules(&mut self, folder: &Path, name: &str) -> anyhow::Result<()> {
        let text = edit::read_rules(&folder.join(IGNORE_FILE))?;
        text.map_or(Ok(()), |text| Ok(self.rules.add(name, &text)?))
    }
}

fn joined(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}
