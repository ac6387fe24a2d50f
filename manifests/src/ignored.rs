use std::collections::BTreeMap;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Name of the files that list what is no manifest, in gitignore syntax.
pub const IGNORE_FILE: &str = ".gitsealignore";

/// The rules of all `.gitsealignore` files of a tree.
///
/// As for Git: a file's rules hold for its folder and below, a deeper file's win, and what is in an ignored folder cannot
/// be taken back by `!`. Paths are relative to the tree, with `/`.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    /// By folder; the tree's own is `""`.
    folders: BTreeMap<String, Gitignore>,
}

/// A line of a `.gitsealignore` that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: not a gitignore pattern")]
pub struct IgnoreError {
    /// The file's path in the tree.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
}

impl IgnoreRules {
    /// No rules: nothing is ignored.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the rules of the `.gitsealignore` in a folder (`""` for the tree's own), in place of those it had.
    pub fn add(&mut self, folder: &str, text: &str) -> Result<(), IgnoreError> {
        let folder = folder.trim_matches('/');
        let refuse = |line: usize| IgnoreError {
            file: if folder.is_empty() { IGNORE_FILE.to_owned() } else { format!("{folder}/{IGNORE_FILE}") },
            line: u32::try_from(line).unwrap_or(u32::MAX),
        };
        // Paths are made relative to the folder before they are matched, so the matcher's own root is neutral.
        let mut builder = GitignoreBuilder::new(".");
        for (index, line) in text.trim_start_matches(crate::text::BOM).lines().enumerate() {
            builder.add_line(None, line).map_err(|_| refuse(index + 1))?;
        }
        let rules = builder.build().map_err(|_| refuse(1))?;
        self.folders.insert(folder.to_owned(), rules);
        Ok(())
    }

    /// Whether a file or a folder of the tree is ignored, itself or by a folder above it.
    pub fn is_ignored(&self, path: &str, is_dir: bool) -> bool {
        if self.folders.is_empty() {
            return false;
        }
        let path = path.trim_matches('/');
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.into_iter().any(|end| self.is_ignored_itself(&path[..end], is_dir || end < path.len()))
    }

    fn is_ignored_itself(&self, path: &str, is_dir: bool) -> bool {
        let folders = path.rmatch_indices('/').map(|(at, _)| (&path[..at], &path[at + 1..])).chain([("", path)]);
        for (folder, rest) in folders {
            let Some(rules) = self.folders.get(folder) else {
                continue;
            };
            match rules.matched(Path::new(rest), is_dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_gitignore() {
        let mut rules = IgnoreRules::new();
        assert!(!rules.is_ignored("a.yaml", false));
        rules.add("", "# comment\n*.tmp.yaml\r\n/values.yaml\nbuild/\n!keep.tmp.yaml\n").unwrap();
        rules.add("apps/web", "!web.tmp.yaml\nsecret.yaml\n").unwrap();
        for (path, ignored) in [
            ("a.yaml", false),
            ("a.tmp.yaml", true),
            ("keep.tmp.yaml", false),
            ("apps/x.tmp.yaml", true),
            ("apps/web/web.tmp.yaml", false),
            ("apps/web/deep/web.tmp.yaml", false),
            ("apps/web/secret.yaml", true),
            ("apps/secret.yaml", false),
            ("values.yaml", true),
            ("apps/values.yaml", false),
            ("build/a.yaml", true),
            ("apps/build/keep.tmp.yaml", true),
            ("builder/a.yaml", false),
        ] {
            assert_eq!(rules.is_ignored(path, false), ignored, "{path}");
        }
        assert!(rules.is_ignored("apps/build", true));
        assert!(!rules.is_ignored("apps/build", false), "a file of a folder's name");
    }

    #[test]
    fn names_the_line_of_a_bad_pattern() {
        let error = IgnoreRules::new().add("apps", "a\n[z-a]\n").unwrap_err();
        assert_eq!(error.to_string(), "apps/.gitsealignore:2: not a gitignore pattern");
    }
}
