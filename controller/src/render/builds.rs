//! Renders kustomizations and charts in separate processes, which get their files from this module.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use gitstore::{At, Folder, Paths, RemoteRepositories, RemoteRepository, RemoteState, Snapshot, SnapshotError};
use manifests::Manifest;
use pipeline::{
    Render as _, Room,
    render::{Base, Kustomize, NotRendered, RenderError},
};
use renderer::{Applied, Changes, Limits, Release, RemoteChart, RemoteFolder, Renderer, Repository};
use worker::Cancel;

use super::closure::{Asked, Root};
use crate::admission::{Claim, Gate, Group, Lease};

/// How many remote repositories the folder of a Sync may use. A Repository keeps twice as many, so that one commit can exchange all
/// of them.
pub(crate) const REMOTES: usize = 16;
/// How long all kustomizations of a folder may take together. For all this time, the pass keeps its turn, and other
/// passes wait.
const FOLDER: Duration = Duration::from_secs(120);

/// The processes that render, and the turns to use one of them. A namespace uses at most one process at a time.
pub(super) struct Processes {
    renderer: Renderer,
    turns: Gate,
}

impl Processes {
    /// Processes that run `program`, each with `memory` bytes.
    pub(super) fn new(program: PathBuf, memory: u64) -> Self {
        let limits = Limits { memory, time: Duration::from_secs(30), files: 32 << 20, asks: 10_000, answer: 32 << 20 };
        Self { renderer: Renderer::new(&program, limits), turns: Gate::new(flags::RENDERERS) }
    }

    /// Waits for a turn to use a process.
    pub(super) async fn turn(&self, namespace: &str) -> Lease {
        self.turns.admit(claim(namespace)).await
    }

    /// A turn to use a process, if one is free and nobody waits for a turn.
    pub(super) fn try_turn(&self, namespace: &str) -> Option<Lease> {
        self.turns.try_admit(claim(namespace))
    }
}

fn claim(namespace: &str) -> Claim {
    let group = Group { name: format!("namespace {namespace}"), most: 1 };
    Claim { namespace: namespace.to_owned(), amount: 1, groups: vec![group] }
}

/// Renders the kustomizations or the chart of one revision, and notes which paths the renderer asked for.
pub(super) struct Builds<'a> {
    processes: &'a Processes,
    has_turn: bool,
    cancel: &'a Cancel,
    files: Files,
    needs_turn: Cell<bool>,
    has_begun: Cell<bool>,
    folders: RefCell<Vec<String>>,
    /// After this time, no further kustomization of the folder is rendered.
    until: Instant,
}

impl<'a> Builds<'a> {
    /// Without a turn, nothing is rendered, and [`Builds::needs_turn`] returns true.
    pub(super) fn new(processes: &'a Processes, has_turn: bool, snapshot: &Snapshot, cancel: &'a Cancel) -> Self {
        let files = Files::of(snapshot);
        let (needs_turn, has_begun) = (Cell::new(false), Cell::new(false));
        let until = Instant::now() + FOLDER;
        Self { processes, has_turn, cancel, files, needs_turn, has_begun, folders: RefCell::default(), until }
    }

    /// Whether a render was necessary, but could not start because there was no turn.
    pub(super) fn needs_turn(&self) -> bool {
        self.needs_turn.get()
    }

    /// Whether Kustomize or Helm was needed to render something.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.get()
    }

    /// What was rendered (the chart, or the folders with kustomizations), and the paths of the files that were needed beside the
    /// folder; `None` if there was nothing to render, and no such file was needed. With inputs, it is never `None`: without the
    /// inputs, the folder could not be rendered again, so the result is stored.
    pub(super) fn asked(self, has_inputs: bool) -> Option<(Vec<String>, Asked)> {
        let asked = self.files.asked.into_inner();
        (self.has_begun.get() || !asked.is_empty() || has_inputs).then(|| (self.folders.into_inner(), asked))
    }

    /// A remote repository that a kustomization needs and that is not on disk.
    pub(super) fn missing(&self) -> Option<RemoteRepository> {
        self.files.missing.borrow().clone()
    }

    /// The objects and the notes of a chart.
    pub(super) fn chart(&self, release: &Release, room: &mut dyn Room) -> Result<Applied, RenderError<SnapshotError>> {
        let folder = &release.chart.path;
        self.begin(folder, "Helm")?;
        let built = self.processes.renderer.release(release, &self.files, room, self.cancel)?;
        built.into_applied().map_err(|why| RenderError::NotRendered { folder: folder.clone(), why })
    }

    /// The notes of a chart, and its objects after the Sync has changed them, for example with patches.
    pub(super) fn changed_chart(
        &self,
        changes: &Changes,
        release: &Release,
        room: &mut dyn Room,
    ) -> Result<Applied, RenderError<SnapshotError>> {
        self.begin(&release.chart.path, "Helm")?;
        self.processes.renderer.changed_release(changes, release, &self.files, room, self.cancel)
    }

    /// The objects of a folder, after the Sync has changed them, for example with patches.
    pub(super) fn changed_folder(
        &self,
        changes: &Changes,
        tree: &Folder,
        folder: &str,
        room: &mut dyn Room,
    ) -> Result<Vec<Manifest>, RenderError<SnapshotError>> {
        if !changes.need_kustomize() {
            let objects = pipeline::render::Files(self).render(tree, room)?.objects;
            return changes.substitute(folder, objects, &self.files, room, self.cancel);
        }
        self.begin(folder, "Kustomize")?;
        let base = Base::read(tree, room)?;
        self.folders.borrow_mut().clone_from(&base.kustomizations);
        self.processes.renderer.changed(changes, folder, base, &self.files, room, self.cancel)
    }

    /// Notes that a render begins. Fails if the pass has not waited for its turn to use a process that renders.
    fn begin(&self, folder: &str, tool: &'static str) -> Result<(), RenderError<SnapshotError>> {
        self.has_begun.set(true);
        if self.has_turn {
            return Ok(());
        }
        self.needs_turn.set(true);
        let message = "every process that renders is in use".to_owned();
        let why = NotRendered { tool, reason: "RendererBusy", message, is_terminal: false };
        Err(RenderError::NotRendered { folder: folder.to_owned(), why })
    }
}

impl Kustomize for &Builds<'_> {
    type Error = SnapshotError;

    fn kustomize(&self, folder: &str, room: &mut dyn Room) -> Result<Vec<Manifest>, RenderError<SnapshotError>> {
        self.folders.borrow_mut().push(folder.to_owned());
        self.begin(folder, "Kustomize")?;
        is_in_time(folder, self.until)?;
        Ok(self.processes.renderer.build(folder, &self.files, room, self.cancel)?.manifests)
    }
}

/// Fails after `until`.
fn is_in_time(folder: &str, until: Instant) -> Result<(), RenderError<SnapshotError>> {
    if Instant::now() < until {
        return Ok(());
    }
    let message = format!(
        "the kustomizations of the folder took longer than {} s together; apply them with several Syncs",
        FOLDER.as_secs()
    );
    let why = NotRendered { tool: "Kustomize", reason: "RenderTimedOut", message, is_terminal: false };
    Err(RenderError::NotRendered { folder: folder.to_owned(), why })
}

/// The files of the whole repository, and the paths that the renderer asked for.
pub(super) struct Files {
    paths: Paths,
    asked: RefCell<Asked>,
    remotes: Arc<RemoteRepositories>,
    /// The remote repositories that the render has needed so far.
    needed: RefCell<BTreeSet<Root>>,
    /// One of them that is not on disk.
    missing: RefCell<Option<RemoteRepository>>,
}

impl Files {
    /// The files of `snapshot`, before the renderer asks for any path.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let (paths, remotes) = (snapshot.paths(gitstore::Limits::default()), snapshot.remotes().clone());
        Self { paths, asked: RefCell::default(), remotes, needed: RefCell::default(), missing: RefCell::default() }
    }
}

impl Repository for Files {
    type Error = SnapshotError;

    fn at(&self, path: &str) -> Result<renderer::At, SnapshotError> {
        self.asked.borrow_mut().insert((Root::default(), path.into()));
        self.paths.at(path).map(found)
    }

    fn at_remote(&self, root: &str, path: &str) -> Result<renderer::At, SnapshotError> {
        self.asked.borrow_mut().insert((root.into(), path.into()));
        self.paths.at_remote(root, path).map(found)
    }

    fn remote_base(&self, entry: &str) -> Result<RemoteFolder, SnapshotError> {
        let base = gitstore::remote_base(entry);
        Ok(base.map_or_else(RemoteFolder::Refused, |(remote, folder)| self.remote(remote, folder)))
    }

    fn remote_chart(&self, chart: &RemoteChart) -> Result<RemoteFolder, SnapshotError> {
        let RemoteChart { repository, name, version } = chart;
        let chart = gitstore::remote_chart(repository, name, version);
        Ok(chart.map_or_else(RemoteFolder::Refused, |chart| self.remote(chart, String::new())))
    }
}

fn found(at: At) -> renderer::At {
    match at {
        At::File(bytes) => renderer::At::File(bytes),
        At::Folder(names) => renderer::At::Directory(names),
        At::Nothing => renderer::At::Nothing,
    }
}

impl Files {
    /// A folder of a remote repository, if that may be used and is on disk.
    fn remote(&self, remote: RemoteRepository, folder: String) -> RemoteFolder {
        let root = remote.root();
        if !self.has_room(&root) {
            let why = format!(
                "{root}: the folder uses more than {REMOTES} other repositories and charts: use fewer of them, or apply its parts \
                 with several Syncs"
            );
            return RemoteFolder::Refused(why);
        }
        // The result depends on whether it is there.
        self.asked.borrow_mut().insert((root.as_str().into(), Box::default()));
        let RemoteRepository { url, reference } = remote.clone();
        let why = match self.remotes.state_of(&remote) {
            Ok(RemoteState::Fetched(_)) => return RemoteFolder::Found { root, folder, url, reference },
            Ok(RemoteState::Awaited) => format!("{root} is being fetched"),
            Ok(RemoteState::Failed(why)) => why,
            Err(why) => return RemoteFolder::Refused(why),
        };
        self.missing.replace(Some(remote));
        RemoteFolder::Refused(why)
    }

    /// Notes that the render needs a remote repository. Returns whether it needs not too many.
    fn has_room(&self, root: &str) -> bool {
        let mut needed = self.needed.borrow_mut();
        needed.contains(root) || needed.len() < REMOTES && needed.insert(root.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_many_slow_kustomizations_gives_its_turn_back() {
        let now = Instant::now();
        assert!(is_in_time("app", now + FOLDER).is_ok());
        let Err(RenderError::NotRendered { folder, why }) = is_in_time("app", now) else { panic!("it goes on") };
        assert_eq!((folder.as_str(), why.reason, why.is_terminal), ("app", "RenderTimedOut", false));
        assert!(why.message.contains("120 s"), "{}", why.message);
    }
}
