//! Finds out what a rendered folder depends on.

use std::collections::BTreeSet;

use gitstore::{ContentId, Snapshot};
use manifests::IGNORE_FILE;
use serde::{Deserialize, Serialize};

/// What a folder with kustomizations, or with a chart, depends on: the paths that the renderer asked for while it
/// rendered the folder. As long as the answers are the same, rendering gives the same result, because each request
/// depends only on the answers to the earlier ones.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Closure {
    /// Whether the folder is a chart.
    is_chart: bool,
    /// Whether Kustomize changed the objects of the chart.
    #[serde(default)]
    is_changed: bool,
    /// Whether the folder has manifests of its own beside its kustomizations, so that the result depends on everything
    /// in the folder.
    is_mixed: bool,
    /// The paths that the renderer asked for and, for kustomizations, those of the ignore files; sorted. `None` if
    /// there were too many paths to remember; then any commit may change the result.
    asked: Option<Box<[Place]>>,
    /// The remote repositories that are used, by their names. They are known even if there were too many paths to remember.
    remotes: Box<[Root]>,
    #[serde(default)]
    before: Before,
}

/// What a folder may use of remote repositories, besides those that its last render asked for.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
enum Before {
    /// Nothing: the last render was complete.
    #[default]
    Nothing,
    /// Those of its last complete render.
    These(Box<[Root]>),
    /// All: it is not known what its last complete render used.
    All,
}

/// The name of the remote repository that a path is in; empty for the Repository itself.
pub(crate) type Root = Box<str>;

/// The paths that were asked for, each with the repository that it is in.
pub(crate) type Asked = BTreeSet<Place>;

type Place = (Root, Box<str>);

/// How many bytes of paths are remembered for one folder. This also limits the time that it takes to look up all these
/// paths.
const BYTES: usize = 128 << 10;
/// How many bytes a path takes besides its text.
const PER_PATH: usize = 64;

impl Closure {
    /// What a chart depends on, after a render that asked for the paths `asked`. `is_changed` says whether Kustomize
    /// changed the objects of the chart.
    pub(crate) fn of_chart(asked: &Asked, is_changed: bool) -> Self {
        let remotes = remotes(asked);
        let asked = is_short(asked).then(|| asked.iter().cloned().collect());
        Self { is_chart: true, is_changed, is_mixed: false, asked, remotes, before: Before::Nothing }
    }

    /// What the folder `path` depends on, after a render of the kustomizations in `folders` that asked for the paths
    /// `asked`.
    pub(crate) fn new(path: &str, folders: &[String], asked: &Asked) -> Self {
        let names: Vec<_> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        let path = names.join("/");
        let is_mixed = folders != [path.as_str()];
        let remotes = remotes(asked);
        let asked = is_short(asked).then(|| {
            let mut asked = asked.clone();
            // The result also depends on the ignore files, because they decide whether the kustomization in the folder is
            // used.
            asked.extend(ignore_files(&path).into_iter().map(|path| (Root::default(), path.into())));
            asked.into_iter().collect()
        });
        Self { is_chart: false, is_changed: false, is_mixed, asked, remotes, before: Before::Nothing }
    }

    /// The same after a render that was not complete: what the last complete render used is still used. `before` is the closure
    /// before this render.
    #[must_use]
    pub(crate) fn and_before(mut self, before: Option<&Self>) -> Self {
        self.before = match before {
            None => Before::All,
            Some(Self { before: Before::Nothing, remotes, .. }) => Before::These(remotes.clone()),
            Some(Self { before, .. }) => before.clone(),
        };
        self
    }

    /// The names and versions of the libraries that render. Another version may give another result.
    pub(crate) fn renderer(&self) -> String {
        let (helm, kustomize) =
            (|| format!("helm {}", renderer::HELM), || format!("kustomize {}", renderer::KUSTOMIZE));
        match (self.is_chart, self.is_changed) {
            (true, false) => helm(),
            (true, true) => format!("{} {}", helm(), kustomize()),
            (false, _) => kustomize(),
        }
    }

    /// About how much memory this closure takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let asked: usize = self.asked.iter().flatten().map(bytes_of).sum();
        let before: &[Root] = match &self.before {
            Before::These(before) => before,
            Before::Nothing | Before::All => &[],
        };
        asked + self.remotes.iter().chain(before).map(|root| root.len() + PER_PATH).sum::<usize>()
    }

    /// Whether the folder depends on the remote repository with this name. If it is not known, the answer is `in_doubt`.
    pub(crate) fn uses(&self, root: &str, in_doubt: bool) -> bool {
        let is_among = |all: &[Root]| all.iter().any(|used| **used == *root);
        is_among(&self.remotes)
            || match &self.before {
                Before::Nothing => false,
                Before::These(before) => is_among(before),
                Before::All => in_doubt,
            }
    }

    /// The identity of everything in `snapshot` that the folder depends on. `folder` is the identity of the folder
    /// itself.
    pub(crate) fn content(&self, snapshot: &Snapshot, folder: ContentId) -> ContentId {
        let folder = if self.is_mixed { folder.to_string() } else { String::new() };
        let besides = format!("{} {folder}", self.renderer());
        match &self.asked {
            Some(asked) => snapshot.content_at(&besides, asked.iter().map(place)),
            None => snapshot.content_at(&format!("{besides} {}", snapshot.whole()), []),
        }
    }
}

/// Whether these paths are few enough to be remembered.
fn is_short(asked: &Asked) -> bool {
    asked.iter().map(bytes_of).sum::<usize>() <= BYTES
}

fn bytes_of((root, path): &Place) -> usize {
    root.len() + path.len() + PER_PATH
}

fn place((root, path): &Place) -> (Option<&str>, &str) {
    (Some(&**root).filter(|root| !root.is_empty()), path)
}

/// The remote repositories of these paths.
fn remotes(asked: &Asked) -> Box<[Root]> {
    let roots: BTreeSet<_> = asked.iter().map(|(root, _)| root).filter(|root| !root.is_empty()).collect();
    roots.into_iter().cloned().collect()
}

/// The paths of the ignore files that apply to the folder `path`.
fn ignore_files(path: &str) -> Vec<String> {
    let folders = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path]);
    let below = folders.filter(|folder| !folder.is_empty()).map(|folder| format!("{folder}/{IGNORE_FILE}"));
    std::iter::once(IGNORE_FILE.to_owned()).chain(below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignore_files_of_the_folder_and_above_it_count() {
        assert_eq!(ignore_files(""), [".gitsealignore"]);
        assert_eq!(ignore_files("a/b"), [".gitsealignore", "a/.gitsealignore", "a/b/.gitsealignore"]);
    }

    #[test]
    fn a_closure_is_sorted_and_has_a_bound() {
        let asked = |count: usize| -> Asked {
            (0..count).map(|number| (Root::default(), format!("base/file-{number:06}.yaml").into())).collect()
        };
        let paths = |closure: Closure| closure.asked.map(|asked| asked.len());
        let is_mixed = |folders: &[String]| Closure::new("app", folders, &asked(1)).is_mixed;
        assert!(!is_mixed(&["app".to_owned()]) && is_mixed(&["app/a".to_owned()]));
        assert!(is_mixed(&["app/a".to_owned(), "app/b".to_owned()]));
        assert_eq!(paths(Closure::new("./app/", &["app".to_owned()], &asked(100))), Some(102));
        assert_eq!(paths(Closure::new("app", &["app".to_owned()], &asked(10_000))), None);
    }

    #[test]
    fn a_long_closure_still_knows_its_remote_repositories() {
        let (one, two, three) =
            ("https://git.example/one@v1", "https://git.example/two@v1", "https://git.example/three@v1");
        let mut asked: Asked = (0..10_000).map(|number| (one.into(), format!("{number}.yaml").into())).collect();
        asked.insert((Root::default(), format!("{three}//a.yaml").into()));
        let uses = |closure: &Closure| [one, two, three].map(|root| closure.uses(root, true));
        for closure in [Closure::new("app", &["app".to_owned()], &asked), Closure::of_chart(&asked, false)] {
            assert!(closure.asked.is_none() && uses(&closure) == [true, false, false]);
        }
    }

    #[test]
    fn what_the_last_complete_render_used_is_used_until_the_next_one_is_complete() {
        let [one, two, three, four] =
            ["one", "two", "three", "four"].map(|name| format!("https://git.example/{name}@v1"));
        let uses = |closure: &Closure| [&one, &two, &three, &four].map(|root| closure.uses(root, true));
        let render = |root: &str| Closure::of_chart(&Asked::from([(root.into(), "".into())]), false);
        let complete = render(&one);
        assert_eq!(uses(&complete), [true, false, false, false]);
        // Two commits in a row need remote repositories that do not come.
        let first = render(&two).and_before(Some(&complete));
        assert_eq!(uses(&first), [true, true, false, false]);
        let second = render(&three).and_before(Some(&first));
        assert_eq!(uses(&second), [true, false, true, false]);
        assert_eq!(uses(&render(&three)), [false, false, true, false]);
        // After a restart, no render was complete yet.
        let unknown = render(&two).and_before(None);
        assert_eq!(uses(&render(&three).and_before(Some(&unknown))), [true; 4]);
        assert!(unknown.uses(&two, false) && !unknown.uses(&one, false));
        assert!(first.bytes() > render(&two).bytes());
    }
}
