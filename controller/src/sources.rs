//! Keeps the current snapshot of each Repository, with the identity of each folder that a Sync uses.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crds::ObjectKey;
use gitstore::{ContentId, Snapshot, SnapshotError};
use pipeline::Target;

use crate::render::{
    Closure,
    stored::{self, LastRender},
};

/// The current snapshot of every Repository.
#[derive(Default)]
pub struct Sources {
    repositories: Mutex<HashMap<ObjectKey, Source>>,
}

/// How many identities are remembered for folders that no Sync used when the snapshot came.
const ASKED: usize = 1000;

/// How many bytes of [`Closure`]s (what a folder depends on) are remembered for folders that no Sync used when the
/// snapshot came.
const CLOSURE_BYTES: usize = 16 << 20;

/// A Sync of another namespace that was not rendered completely may use any remote repository. For so long after the first snapshot of
/// the Repository, all of them count as used because of such a Sync. By then, everything that can be rendered was rendered.
const DOUBTS_FOR: Duration = Duration::from_secs(600);

/// Which remote repositories are kept for a folder because Syncs render it. If several Syncs render the folder, the greatest value counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Keeps {
    /// None: only suspended Syncs of other namespaces render it. They need nothing until they are resumed. Those who own the Repository
    /// cannot resume or delete such a Sync.
    None,
    /// Those that it is known to use and, for [`DOUBTS_FOR`], those that it may use: Syncs of other namespaces render it.
    Known,
    /// All that it may use: a Sync of the namespace of the Repository renders it.
    Possible,
}

/// The folders in use.
pub(crate) type Users = BTreeMap<Target, Keeps>;

#[derive(Default)]
struct Source {
    snapshot: Option<Arc<Snapshot>>,
    /// When the first snapshot came.
    since: Option<Instant>,
    users: Users,
    first_fetch: FirstFetch,
    contents: Contents,
    /// What charts and folders with kustomizations depend on. This is known only for those that were rendered.
    closures: HashMap<Target, Arc<Closure>>,
    /// The same for those that only another program has rendered, before the controller started. It says nothing about their content.
    earlier: HashMap<Target, Arc<Closure>>,
    /// For which folders and charts it is known what they depend on, even if it is nothing else than the folder.
    learned: HashSet<Target>,
}

impl Source {
    /// Whether something that is in use depends on the remote repository with this name, or may depend on it because it was not
    /// rendered yet.
    fn uses(&self, root: &str, now: Instant) -> bool {
        let has_doubts = self.since.is_none_or(|since| now < since + DOUBTS_FOR);
        self.users.iter().any(|(target, keeps)| {
            let in_doubt = match keeps {
                Keeps::None => return false,
                Keeps::Known => has_doubts,
                Keeps::Possible => true,
            };
            let is_learned = self.learned.contains(target);
            let earlier = || self.earlier.get(target).filter(|_| !is_learned);
            if let Some(closure) = self.closures.get(target).or_else(earlier) {
                return closure.uses(root, in_doubt);
            }
            // What cannot be read is not rendered.
            in_doubt && !is_learned && self.contents.get(target).is_none_or(Result::is_ok)
        })
    }

    /// Forgets the closures of folders that are not in use, if they and the new one would take too many bytes. Each
    /// edit of a Sync may name another folder, so there may be many closures. Forgotten folders are rendered again when
    /// they are needed.
    fn make_room(&mut self, target: &Target, bytes: usize) {
        let Self { closures, contents, learned, .. } = self;
        let is_in_use = |target: &Target| contents.in_use.contains_key(target);
        let others = closures.iter().filter(|(known, _)| !is_in_use(known));
        let bytes = others.fold(bytes, |bytes, (known, closure)| bytes + known.path.len() + closure.bytes());
        if !is_in_use(target) && bytes > CLOSURE_BYTES {
            closures.retain(|known, _| is_in_use(known));
            contents.asked.clear();
            learned.retain(is_in_use);
        } else if learned.len() >= ASKED {
            learned.retain(|known| is_in_use(known) || closures.contains_key(known));
        }
    }
}

/// The identity of a folder in `snapshot`. If the folder depends on anything outside of it, as far as this is known,
/// the identity changes with that, too.
fn content(
    snapshot: &Snapshot,
    folder: Result<ContentId, SnapshotError>,
    closure: Option<&Arc<Closure>>,
) -> Result<ContentId, SnapshotError> {
    folder.map(|folder| closure.map_or(folder, |closure| closure.content(snapshot, folder)))
}

/// Identities of folders: of the folders in use, and of folders that were first asked for after the snapshot came.
#[derive(Default)]
struct Contents {
    in_use: HashMap<Target, Result<ContentId, SnapshotError>>,
    asked: HashMap<Target, Result<ContentId, SnapshotError>>,
    /// The identities of files that were asked for; `None` if there is no file.
    files: HashMap<String, FileId>,
}

/// The identity of a file; `None` if there is no file at its path.
pub(crate) type FileId = Result<Option<ContentId>, SnapshotError>;

impl Contents {
    fn get(&self, target: &Target) -> Option<&Result<ContentId, SnapshotError>> {
        self.in_use.get(target).or_else(|| self.asked.get(target))
    }

    /// Remembers the identity of a folder that is not in use. Each edit of a Sync may name another folder, so if there
    /// are too many, the earlier ones are forgotten.
    fn remember(&mut self, target: &Target, content: Result<ContentId, SnapshotError>) {
        if self.asked.len() >= ASKED {
            self.asked.clear();
        }
        self.asked.insert(target.clone(), content);
    }

    fn remember_file(&mut self, path: &str, file: FileId) {
        if self.files.len() >= ASKED {
            self.files.clear();
        }
        self.files.insert(path.to_owned(), file);
    }
}

/// The state of the first fetch of a Repository.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FirstFetch {
    /// The fetch is about to begin, or is running.
    #[default]
    Begun,
    /// The fetch waits for its turn, or takes long.
    Slow,
    /// The fetch failed.
    Failed,
}

/// What [`Sources::lookup`] or [`Sources::file`] found. `C` is the identity of the folder or file.
pub enum Lookup<C = Result<ContentId, SnapshotError>> {
    /// There is no Repository with this name.
    NoRepository,
    /// The Repository was never fetched.
    NotFetched(FirstFetch),
    /// A snapshot, and the identity of the folder or file in it.
    Found {
        /// The snapshot.
        snapshot: Arc<Snapshot>,
        /// The identity, or why the folder or file cannot be read.
        content: C,
    },
}

impl Sources {
    /// Records that a Repository exists.
    pub fn add(&self, repository: &ObjectKey) {
        self.lock().entry(repository.clone()).or_default();
    }

    /// Records that the first fetch of the Repository is slow or failed. Returns whether this was not known yet: then
    /// the Syncs that wait for the Repository have to report it.
    pub fn no_snapshot_yet(&self, repository: &ObjectKey, first_fetch: FirstFetch) -> bool {
        let mut repositories = self.lock();
        let source = repositories.entry(repository.clone()).or_default();
        source.snapshot.is_none() && std::mem::replace(&mut source.first_fetch, first_fetch) != first_fetch
    }

    /// Forgets a Repository that no longer exists.
    pub fn remove(&self, repository: &ObjectKey) {
        self.lock().remove(repository);
    }

    /// Records a new snapshot of the Repository. The identities of all folders in use are looked up in one go, so that each Git tree is
    /// read only once.
    pub(crate) fn update(&self, repository: &ObjectKey, snapshot: Arc<Snapshot>, users: &Users) {
        stored::retain(&snapshot, users.keys());
        let known =
            self.lock().get(repository).map(|source| (source.since, source.closures.clone(), source.earlier.clone()));
        let (since, mut closures, mut earlier) = known.unwrap_or_default();
        closures.retain(|target, _| users.contains_key(target));
        earlier.retain(|target, _| users.contains_key(target));
        if since.is_none() {
            for target in users.keys() {
                let Some(LastRender { closure, is_own }) = stored::last_render(&snapshot, target) else { continue };
                let known = if is_own { &mut closures } else { &mut earlier };
                known.insert(target.clone(), Arc::new(closure));
            }
        }
        let since = since.or_else(|| Some(Instant::now()));
        let paths: Vec<_> = users.keys().map(|target| target.path.as_str()).collect();
        let folders: Vec<_> = users.keys().zip(snapshot.content_ids(&paths)).collect();
        let mut in_use: HashMap<Target, Result<ContentId, SnapshotError>> = HashMap::new();
        loop {
            for (target, folder) in &folders {
                if !in_use.contains_key(*target) {
                    in_use.insert((*target).clone(), content(&snapshot, folder.clone(), closures.get(*target)));
                }
            }
            let mut repositories = self.lock();
            // In the meantime, a pass may have learned what a folder depends on. The identity of such a folder is
            // computed anew, so that a commit to the files that it depends on is not missed.
            let now = repositories.get(repository).map(|source| &source.closures);
            let learned = users.keys().filter_map(|target| Some((target, now?.get(target)?)));
            let learned: Vec<_> = learned.filter(|(target, now)| closures.get(*target) != Some(now)).collect();
            if learned.is_empty() {
                let contents = Contents { in_use, ..Contents::default() };
                let (snapshot, first_fetch) = (Some(snapshot), FirstFetch::Begun);
                let mut learned = repositories.remove(repository).unwrap_or_default().learned;
                learned.retain(|target| users.contains_key(target));
                let users = users.clone();
                let source = Source { snapshot, since, users, first_fetch, contents, closures, earlier, learned };
                repositories.insert(repository.clone(), source);
                return;
            }
            for (target, closure) in learned {
                in_use.remove(target);
                closures.insert(target.clone(), closure.clone());
            }
        }
    }

    /// Records which folders are in use now.
    pub(crate) fn are_used(&self, repository: &ObjectKey, users: Users) {
        if let Some(source) = self.lock().get_mut(repository) {
            source.users = users;
        }
    }

    /// Records what was learned when `target` was rendered from `snapshot`: the identity of its content there, and its
    /// `closure`, that is, what it depends on. The closure is `None` if `target` is no chart and has no kustomizations.
    pub(crate) fn learn(
        &self,
        repository: &ObjectKey,
        target: &Target,
        (snapshot, content): (&Arc<Snapshot>, ContentId),
        closure: Option<Arc<Closure>>,
    ) {
        let mut repositories = self.lock();
        let Some(source) = repositories.get_mut(repository) else { return };
        // The dependencies of an older revision say nothing about the current one.
        let is_current = source.snapshot.as_ref().is_some_and(|current| Arc::ptr_eq(current, snapshot));
        if !is_current {
            return;
        }
        source.make_room(target, closure.as_ref().map_or(0, |closure| closure.bytes()));
        source.learned.insert(target.clone());
        if source.closures.get(target) == closure.as_ref() {
            return;
        }
        match closure {
            Some(closure) => source.closures.insert(target.clone(), closure),
            None => source.closures.remove(target),
        };
        match source.contents.in_use.get_mut(target) {
            Some(known) => *known = Ok(content),
            None => source.contents.remember(target, Ok(content)),
        }
    }

    /// What `target` depends on; `None` if it was not rendered yet, or if it is no chart and has no kustomizations.
    pub(crate) fn closure(&self, repository: &ObjectKey, target: &Target) -> Option<Arc<Closure>> {
        self.lock().get(repository)?.closures.get(target).cloned()
    }

    /// The same, also if only another program has rendered `target` so far. It says which remote repositories were used, but nothing
    /// about the content.
    pub(crate) fn last_closure(&self, repository: &ObjectKey, target: &Target) -> Option<Arc<Closure>> {
        let repositories = self.lock();
        let source = repositories.get(repository)?;
        source.closures.get(target).or_else(|| source.earlier.get(target)).cloned()
    }

    /// Whether something that is in use depends on the remote repository with this name, or may depend on it because it was not
    /// rendered yet.
    pub(crate) fn uses(&self, repository: &ObjectKey, root: &str) -> bool {
        self.lock().get(repository).is_none_or(|source| source.snapshot.is_none() || source.uses(root, Instant::now()))
    }

    /// The snapshot of `repository`, if there is one.
    pub fn snapshot(&self, repository: &ObjectKey) -> Option<Arc<Snapshot>> {
        self.lock().get(repository)?.snapshot.clone()
    }

    /// The snapshot of `repository` and the identity of `target` in it.
    pub fn lookup(&self, repository: &ObjectKey, target: &Target) -> Lookup {
        let (snapshot, closure) = {
            let repositories = self.lock();
            let Some(source) = repositories.get(repository) else {
                return Lookup::NoRepository;
            };
            let Some(snapshot) = source.snapshot.clone() else {
                return Lookup::NotFetched(source.first_fetch);
            };
            if let Some(content) = source.contents.get(target) {
                return Lookup::Found { snapshot, content: content.clone() };
            }
            (snapshot, source.closures.get(target).cloned())
        };
        let folder = snapshot.content_ids(&[&target.path]).pop().expect("one path, one identity");
        let content = content(&snapshot, folder, closure.as_ref());
        let mut repositories = self.lock();
        if let Some(source) = repositories.get_mut(repository)
            && source.snapshot.as_ref().is_some_and(|current| Arc::ptr_eq(current, &snapshot))
            && source.closures.get(target) == closure.as_ref()
        {
            source.contents.remember(target, content.clone());
        }
        Lookup::Found { snapshot, content }
    }

    /// The snapshot of `repository` and the identity of the file `path` in it.
    pub(crate) fn file(&self, repository: &ObjectKey, path: &str) -> Lookup<FileId> {
        let snapshot = {
            let repositories = self.lock();
            let Some(source) = repositories.get(repository) else {
                return Lookup::NoRepository;
            };
            let Some(snapshot) = source.snapshot.clone() else {
                return Lookup::NotFetched(source.first_fetch);
            };
            if let Some(file) = source.contents.files.get(path) {
                return Lookup::Found { snapshot, content: file.clone() };
            }
            snapshot
        };
        let file = snapshot.paths(gitstore::Limits::default()).file_id(path);
        let mut repositories = self.lock();
        if let Some(source) = repositories.get_mut(repository)
            && source.snapshot.as_ref().is_some_and(|current| Arc::ptr_eq(current, &snapshot))
        {
            source.contents.remember_file(path, file.clone());
        }
        Lookup::Found { snapshot, content: file }
    }

    /// The identity of `target` in a snapshot of `repository` that need not be the current one.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn content_in(
        &self,
        snapshot: &Snapshot,
        repository: &ObjectKey,
        target: &Target,
    ) -> Result<ContentId, SnapshotError> {
        let folder = snapshot.content_ids(&[&target.path]).pop().expect("one path, one identity");
        content(snapshot, folder, self.closure(repository, target).as_ref())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Source>> {
        self.repositories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::render::Root;

    /// What a folder depends on that uses only the remote repository with this name.
    fn closure(root: &str) -> Arc<Closure> {
        let asked = BTreeSet::from([(root.into(), "base/kustomization.yaml".into())]);
        Arc::new(Closure::new("app", &["app".to_owned()], &asked))
    }

    #[test]
    fn closures_of_folders_that_are_not_in_use_do_not_pile_up() {
        let asked = (0..1000).map(|number| (Root::default(), format!("base/{number:04}.yaml").into())).collect();
        let closure = Arc::new(Closure::new("app", &["app".to_owned()], &asked));
        let mut source = Source::default();
        source.contents.in_use.insert(Target::folder("app"), Err(SnapshotError::PathRefused("..".into())));
        for path in std::iter::once("app".to_owned()).chain((0..1000).map(|number| number.to_string())) {
            let target = Target::folder(&path);
            source.make_room(&target, closure.bytes());
            source.closures.insert(target, closure.clone());
            let bytes: usize = source.closures.values().map(|closure| closure.bytes()).sum();
            assert!(closure.bytes() > 0 && bytes <= CLOSURE_BYTES + closure.bytes(), "{bytes}");
        }
        assert!(
            source.closures.contains_key(&Target::folder("app"))
                && source.closures.contains_key(&Target::folder("999"))
        );
    }

    #[test]
    fn a_folder_that_was_not_rendered_may_use_everything() {
        let (app, plain, gone) = (Target::folder("app"), Target::folder("plain"), Target::folder("gone"));
        let mut source = Source::default();
        source.contents.in_use.insert(gone.clone(), Err(SnapshotError::PathRefused("..".into())));
        source.users = [app.clone(), plain.clone(), gone].map(|target| (target, Keeps::Possible)).into();
        let (one, two) = ("https://git.example/one@v1", "https://git.example/two@v1");
        source.learned.insert(plain);
        let uses = |source: &Source| [one, two].map(|root| source.uses(root, Instant::now()));
        assert_eq!(uses(&source), [true, true]);
        source.closures.insert(app.clone(), closure(one));
        assert_eq!(uses(&source), [true, false]);
        // What another program found out counts until this one has rendered the folder.
        source.closures.clear();
        source.earlier.insert(app.clone(), closure(two));
        assert_eq!(uses(&source), [false, true]);
        source.learned.insert(app);
        assert_eq!(uses(&source), [false, false]);

        let (sources, key) = (Sources::default(), ObjectKey::new("team", "app"));
        sources.add(&key);
        assert!(sources.uses(&key, one), "nothing is rendered before there is a snapshot");
    }

    #[test]
    fn syncs_of_other_namespaces_do_not_keep_places_for_ever() {
        let (app, root, start) = (Target::folder("app"), "https://git.example/one@v1", Instant::now());
        let mut source = Source { since: Some(start), ..Source::default() };
        let mut uses = |keeps, known: Option<Arc<Closure>>, later| {
            source.users = [(app.clone(), keeps)].into();
            source.closures = known.map(|closure| (app.clone(), closure)).into_iter().collect();
            source.uses(root, start + later)
        };
        // It was not rendered yet, or not completely.
        for unknown in [None, Some(Arc::new(Closure::of_chart(&BTreeSet::new(), false).and_before(None)))] {
            let mut uses = |keeps, later| uses(keeps, unknown.clone(), later);
            assert!(uses(Keeps::Possible, DOUBTS_FOR) && uses(Keeps::Known, Duration::ZERO));
            assert!(!uses(Keeps::Known, DOUBTS_FOR) && !uses(Keeps::None, Duration::ZERO));
        }
        assert!(uses(Keeps::Known, Some(closure(root)), DOUBTS_FOR), "it is known");
        assert!(!uses(Keeps::None, Some(closure(root)), Duration::ZERO), "it is suspended");
    }

    #[test]
    fn paths_that_were_asked_for_do_not_pile_up() {
        let refused = || Err(SnapshotError::PathRefused("..".into()));
        let mut contents = Contents::default();
        contents.in_use.insert(Target::folder("app"), refused());
        for number in 0..10 * ASKED {
            let target = Target::folder(&number.to_string());
            contents.remember(&target, refused());
            assert!(contents.asked.len() <= ASKED);
            assert!(contents.get(&target).is_some());
            contents.remember_file(&number.to_string(), Ok(None));
            assert!(contents.files.len() <= ASKED);
        }
        assert!(contents.get(&Target::folder("app")).is_some(), "it is in use");
    }
}
