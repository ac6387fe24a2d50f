use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Name of an ignore file. It lists, in gitignore syntax, files that are not manifests.
pub const IGNORE_FILE: &str = ".gitsealignore";

/// Names of files that other programs use, and that are not manifests.
const OF_OTHERS: &[&str] = &[
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "composer.json",
    "renovate.json",
    "pnpm-lock.yaml",
    "pnpm-workspace.yaml",
    "docker-compose.yaml",
    "docker-compose.yml",
    "docker-compose.*.yaml",
    "docker-compose.*.yml",
    "compose.yaml",
    "compose.yml",
    "compose.*.yaml",
    "compose.*.yml",
    "values.yaml",
    "values.yml",
    "values-*.yaml",
    "values-*.yml",
    "values.*.yaml",
    "values.*.yml",
    "values.schema.json",
    "appveyor.yml",
    "azure-pipelines.yml",
    "bitbucket-pipelines.yml",
    "buildspec.yml",
    "cloudbuild.yaml",
    "codecov.yml",
    "codeship-services.yml",
    "codeship-steps.yml",
    "mkdocs.yml",
    "_config.yml",
    "Taskfile.yaml",
    "Taskfile.yml",
];

/// Every Kubernetes object has this field.
const FIELD: &[u8] = b"apiVersion";

/// Whether a file belongs to another program: it has one of the names above, and does not contain the word
/// `apiVersion`, which every Kubernetes object has. A manifest with such a name is read.
pub fn is_of_another_program(path: &str, bytes: &[u8]) -> bool {
    static NAMES: LazyLock<Gitignore> = LazyLock::new(|| {
        let mut names = GitignoreBuilder::new(".");
        for name in OF_OTHERS {
            names.add_line(None, name).expect("a pattern");
        }
        names.build().expect("patterns")
    });
    let name = path.rsplit('/').next().unwrap_or(path);
    NAMES.matched(Path::new(name), false).is_ignore() && !bytes.windows(FIELD.len()).any(|text| text == FIELD)
}

/// Whether a file or a folder is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It is read.
    Read,
    /// No rule applies, but the name of the file, or of a folder above it, begins with a dot.
    Hidden,
    /// A rule excludes the file or folder.
    Ignored,
}

/// The rules of all `.gitsealignore` files of a tree.
///
/// As in Git, the rules of a file apply to its folder and below, those of a deeper file win, and a file in an ignored
/// folder cannot be included again with `!`. Paths are relative to the tree, with `/`.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    /// Below this folder, hidden names are ignored unless a rule says otherwise.
    hidden_below: Option<String>,
    /// The rules of each folder that has an ignore file. The root folder of the tree is `""`.
    folders: BTreeMap<String, Gitignore>,
}

/// A line of a `.gitsealignore` that is not a pattern.
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

    /// Rules for the manifests of a folder (`""` for the root). Below it, files and folders whose names begin with a dot are
    /// ignored, unless a rule includes them again (`!.name`). The folder itself may have any name, because the user or the
    /// Sync named it.
    pub fn of_manifests(folder: &str) -> Self {
        Self { hidden_below: Some(folder.trim_matches('/').to_owned()), ..Self::default() }
    }

    /// Adds the rules of the `.gitsealignore` in a folder (`""` for the root). The new rules replace earlier rules of
    /// this folder.
    pub fn add(&mut self, folder: &str, text: &str) -> Result<(), IgnoreError> {
        let folder = folder.trim_matches('/');
        let refuse = |line: usize| IgnoreError {
            file: if folder.is_empty() { IGNORE_FILE.to_owned() } else { format!("{folder}/{IGNORE_FILE}") },
            line: u32::try_from(line).unwrap_or(u32::MAX),
        };
        // Paths are made relative to the folder before they are matched, so the root of the matcher does not matter.
        let mut builder = GitignoreBuilder::new(".");
        for (index, line) in text.trim_start_matches(crate::text::BOM).lines().enumerate() {
            builder.add_line(None, line).map_err(|_| refuse(index + 1))?;
        }
        let rules = builder.build().map_err(|_| refuse(1))?;
        self.folders.insert(folder.to_owned(), rules);
        Ok(())
    }

    /// Removes the rules of a folder, after everything in it was read.
    pub fn remove(&mut self, folder: &str) {
        self.folders.remove(folder.trim_matches('/'));
    }

    /// Whether a file or a folder of the tree is ignored, because of its own name or that of a folder above it.
    pub fn is_ignored(&self, path: &str, is_dir: bool) -> bool {
        self.fate(path, is_dir) != Fate::Read
    }

    /// Whether a file or a folder of the tree is read. This depends on its own name and on the names of the folders
    /// above it.
    pub fn fate(&self, path: &str, is_dir: bool) -> Fate {
        let mut fate = Fate::Read;
        if self.folders.is_empty() && self.hidden_below.is_none() {
            return fate;
        }
        let path = path.trim_matches('/');
        for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
            match self.fate_by_name(&path[..end], is_dir || end < path.len()) {
                Fate::Ignored => return Fate::Ignored,
                Fate::Hidden => fate = Fate::Hidden,
                Fate::Read => {}
            }
        }
        fate
    }

    fn fate_by_name(&self, path: &str, is_dir: bool) -> Fate {
        let folders = path.rmatch_indices('/').map(|(at, _)| (&path[..at], &path[at + 1..])).chain([("", path)]);
        for (folder, rest) in folders {
            let Some(rules) = self.folders.get(folder) else {
                continue;
            };
            match rules.matched(Path::new(rest), is_dir) {
                Match::Ignore(_) => return Fate::Ignored,
                Match::Whitelist(_) => return Fate::Read,
                Match::None => {}
            }
        }
        if self.is_hidden(path) { Fate::Hidden } else { Fate::Read }
    }

    fn is_hidden(&self, path: &str) -> bool {
        let Some(folder) = &self.hidden_below else { return false };
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let below = parent.strip_prefix(folder.as_str());
        let is_below = folder.is_empty() || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_below && name.starts_with('.')
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
    fn what_is_only_hidden_is_told_from_what_a_rule_leaves_out() {
        let mut rules = IgnoreRules::of_manifests("app");
        rules.add("", "!.k8s/\n.old/\n").unwrap();
        rules.add("app/.hidden", "notes.yaml\n").unwrap();
        for (path, fate) in [
            ("app/a.yaml", Fate::Read),
            ("app/.k8s/a.yaml", Fate::Read),
            ("app/.k8s/.b.yaml", Fate::Hidden),
            ("app/.hidden/deep/a.yaml", Fate::Hidden),
            ("app/.hidden/notes.yaml", Fate::Ignored),
            ("app/.old/a.yaml", Fate::Ignored),
            (".github/a.yaml", Fate::Read),
        ] {
            assert_eq!(rules.fate(path, false), fate, "{path}");
        }
    }

    #[test]
    fn hidden_names_are_no_manifests_until_a_rule_takes_them_back() {
        let mut rules = IgnoreRules::of_manifests("apps/.shop");
        let hidden = [
            ("apps/.shop", true, false),
            ("apps/.shop/a.yaml", false, false),
            ("apps/.shop/.github/workflows/ci.yml", false, true),
            ("apps/.shop/deep/.yamllint.yaml", false, true),
            ("apps/.shop/.deploy/a.yaml", false, true),
            ("apps/.shopping/.a.yaml", false, false),
        ];
        for (path, is_dir, ignored) in hidden {
            assert_eq!(rules.is_ignored(path, is_dir), ignored, "{path}");
        }
        rules.add("", "!.deploy/\n").unwrap();
        assert!(!rules.is_ignored("apps/.shop/.deploy/a.yaml", false));
        assert!(rules.is_ignored("apps/.shop/.deploy/.a.yaml", false));
        assert!(rules.is_ignored("apps/.shop/.github/a.yaml", false));
        assert!(IgnoreRules::of_manifests("").is_ignored(".a.yaml", false));
        assert!(!IgnoreRules::new().is_ignored(".a.yaml", false));
    }

    #[test]
    fn files_of_other_programs_are_known_by_name_and_hold_no_object() {
        let is = |path, text: &str| is_of_another_program(path, text.as_bytes());
        assert!(is("apps/package.json", "{}"));
        assert!(is("values-prod.yaml", "replicas: 2"));
        assert!(is("docker-compose.override.yml", ""));
        assert!(!is("values.yaml", "a: b\n---\napiVersion: v1\nkind: List"));
        assert!(!is("my-package.json", "{}"));
        assert!(!is("package.json/a.yaml", "{}"));
        let page = include_str!("../../docs/sync.md");
        for name in OF_OTHERS {
            assert!(page.contains(&format!("`{name}`")), "docs/sync.md does not say that {name} is left out");
        }
    }

    #[test]
    fn names_the_line_of_a_bad_pattern() {
        let error = IgnoreRules::new().add("apps", "a\n[z-a]\n").unwrap_err();
        assert_eq!(error.to_string(), "apps/.gitsealignore:2: not a gitignore pattern");
    }
}
