//! The remote repositories that the kustomizations and charts of a Repository use: remote bases, and charts that other charts depend on.
//! Also decides which of them may be used.
//!
//! What a tag led to when it was first fetched is kept by the caller, so that the same kustomization always gives the same objects.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use remotes::RemoteRepository;

use super::{ContentId, RepositoryKey, Snapshot};

/// What is between the name of a Repository and the digest of one of its remote repositories.
const REMOTE_OF: char = '@';

impl RepositoryKey {
    /// The key of another repository that this Repository's kustomizations use. It is removed together with this Repository.
    #[must_use]
    pub fn remote(&self, remote: &RemoteRepository) -> Self {
        let digest = ContentId::of_text(&remote.root());
        Self { namespace: self.namespace.clone(), name: format!("{}{REMOTE_OF}{digest}", self.name) }
    }

    /// The name of the Repository: of itself, or of the one whose kustomizations use it.
    pub fn of_repository(&self) -> &str {
        self.parts().0
    }

    /// The name of the Repository, and the digest of one of its remote repositories.
    pub(super) fn parts(&self) -> (&str, Option<&str>) {
        self.name.split_once(REMOTE_OF).map_or((&self.name, None), |(name, digest)| (name, Some(digest)))
    }

    /// Its folder in a store: `<namespace>/<name>`, or `<namespace>/<name>@/<digest>` for a remote repository. So the name of a
    /// Repository may be almost as long as that of a file.
    pub(super) fn folder(&self) -> PathBuf {
        let namespace = PathBuf::from(&self.namespace);
        match self.parts() {
            (name, Some(digest)) => namespace.join(format!("{name}{REMOTE_OF}")).join(digest),
            (name, None) => namespace.join(name),
        }
    }

    /// The key that has this folder in a store.
    pub(super) fn of_folder(folder: &Path) -> Option<Self> {
        let mut names = folder.ancestors().filter_map(|folder| folder.file_name()?.to_str());
        let (last, above) = (names.next()?, names.next()?);
        let (namespace, name) = if above.ends_with(REMOTE_OF) {
            (names.next()?, format!("{above}{last}"))
        } else {
            (above, last.to_owned())
        };
        Some(Self { namespace: namespace.to_owned(), name })
    }

    /// Whether a folder in that of a namespace has the remote repositories of a Repository.
    pub(super) fn has_remotes(folder: &Path) -> bool {
        folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(REMOTE_OF))
    }
}

/// A remote repository, as far as it was fetched.
#[derive(Clone)]
pub enum RemoteState {
    /// It is being fetched for the first time.
    Awaited,
    /// It could not be fetched, for this reason.
    Failed(String),
    /// It is on disk.
    Fetched(Box<Snapshot>),
}

/// Which remote repositories a Repository may use, and those that were fetched.
#[derive(Clone, Default)]
pub struct RemoteRepositories {
    allowed: Vec<String>,
    known: BTreeMap<String, (RemoteRepository, RemoteState)>,
    most: usize,
}

impl RemoteRepositories {
    /// `allowed` are the URLs of `spec.remotes`, and `most` is how many remote repositories there can be.
    pub fn new(
        allowed: Vec<String>,
        known: impl IntoIterator<Item = (RemoteRepository, RemoteState)>,
        most: usize,
    ) -> Self {
        let known = known.into_iter().map(|(remote, state)| (remote.root(), (remote, state))).collect();
        Self { allowed, known, most }
    }

    /// The state of a remote repository.
    ///
    /// # Errors
    /// It is not allowed, and why.
    pub fn state_of(&self, remote: &RemoteRepository) -> Result<RemoteState, String> {
        if !self.is_allowed(remote) {
            return Err(remote.not_allowed());
        }
        Ok(match self.known.get(&remote.root()) {
            Some((_, state)) => state.clone(),
            None if self.known.len() < self.most => RemoteState::Awaited,
            None => RemoteState::Failed(format!(
                "{}: there is no room for it: a Repository keeps at most {} other repositories and charts, and Syncs use these, or may \
                 use them because they were not rendered completely yet: {}; use fewer of them, or add a Repository for some of the folders",
                remote.root(),
                self.most,
                self.known.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
            )),
        })
    }

    /// Identifies all of this: what is allowed, and the content of what was fetched.
    pub fn identity(&self) -> String {
        let mut text = if self.known.len() < self.most { String::new() } else { "full\0".to_owned() };
        for allowed in &self.allowed {
            let _ = write!(text, "{allowed}\0");
        }
        for root in self.known.keys() {
            let _ = write!(text, "\0{root}\0{}", self.identity_of(root));
        }
        text
    }

    /// Whether stored objects could not be read.
    pub fn is_damaged(&self) -> bool {
        self.known.values().any(|(_, state)| matches!(state, RemoteState::Fetched(snapshot) if snapshot.is_damaged()))
    }

    /// The files of the remote repository of this name, if they may be read.
    pub(super) fn files(&self, root: &str) -> Option<&Snapshot> {
        match self.known.get(root) {
            Some((remote, RemoteState::Fetched(snapshot))) if self.is_allowed(remote) => Some(snapshot),
            _ => None,
        }
    }

    /// Identifies the state of the remote repository of this name, but of its content only the tree.
    pub(super) fn identity_of(&self, root: &str) -> String {
        match self.known.get(root) {
            Some((remote, _)) if !self.is_allowed(remote) => "not allowed".to_owned(),
            Some((_, RemoteState::Fetched(snapshot))) => format!("tree {}", snapshot.tree()),
            Some((_, RemoteState::Failed(why))) => format!("failed {why}"),
            Some((_, RemoteState::Awaited)) => "awaited".to_owned(),
            None => {
                let (url, reference) = root.rsplit_once('@').unwrap_or((root, ""));
                let (url, chart) = url.split_once('#').map_or((url, None), |(url, chart)| (url, Some(chart)));
                let remote = RemoteRepository::new(url, chart, reference);
                match self.is_allowed(&remote) {
                    true if self.known.len() < self.most => "awaited".to_owned(),
                    true => "no room".to_owned(),
                    false => "not allowed".to_owned(),
                }
            }
        }
    }

    fn is_allowed(&self, remote: &RemoteRepository) -> bool {
        self.allowed.iter().any(|allowed| remote.is_allowed_by(allowed))
    }
}

#[cfg(test)]
mod tests {
    use remotes::remote_chart;

    use super::*;

    #[test]
    fn a_chart_is_known_by_the_text_that_names_it() {
        for repository in ["https://charts.example/stable", "oci://registry.example:5000/team"] {
            let chart = remote_chart(repository, "cache", "1.2.3").unwrap();
            let allowing = |allowed: &str| RemoteRepositories::new(vec![allowed.to_owned()], [], 1);
            assert_eq!(allowing(chart.place().0).identity_of(&chart.root()), "awaited");
            assert_eq!(allowing("https://other.example/").identity_of(&chart.root()), "not allowed");
            assert_eq!(crate::host_of(&chart.url), repository.split('/').nth(2).unwrap());
        }
    }

    #[test]
    fn a_remote_repository_is_stored_beside_its_repository() {
        let key = RepositoryKey { namespace: "team".into(), name: "app".into() };
        let remote =
            |reference: &str| RemoteRepository { url: "https://git.example/a".into(), reference: reference.into() };
        let (one, two) = (key.remote(&remote("v1")), key.remote(&remote("v2")));
        assert_ne!(one, two);
        assert_eq!((one.of_repository(), key.of_repository()), ("app", "app"));
        for key in [key, one, two] {
            let folder = Path::new("/store").join(key.folder());
            assert_eq!(RepositoryKey::of_folder(&folder), Some(key));
        }
    }
}
