//! The manifests of a local folder, as the controller would read them from Git.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use crds::Sync;
use manifests::{
    Fate, IGNORE_FILE, IgnoreRules, Location, Manifest, ObjectId, Tree, TreeEntry, TreeFile, in_one_line,
    is_kustomization, is_manifest_file, is_of_another_program,
};
use pipeline::{
    Render as _, Room, path_of,
    plan::possible_ids_of_hidden,
    render::{Base, Files, Kustomize, RenderError, Unlimited, each_object},
};
use renderer::{Changes, IS_CHART, Renderer, Repository, SUBSTITUTE, release_of};
use worker::Cancel;

use crate::{
    chart_inputs::Surroundings,
    copies::{Copies, WithCopies},
    edit,
    output::Hint,
    working_copy::{Unread, WorkingCopy},
};

/// Every working copy of Git has this in its top folder.
pub const GIT: &str = ".git";

/// A local folder, or one file of it.
pub struct Folder {
    /// The top folder of its repository, or the folder itself if it is in none.
    pub root: PathBuf,
    /// Its path below the root, with `/` between the parts.
    pub inside: String,
    /// Its path as it was given.
    pub path: PathBuf,
    /// The objects in it.
    pub manifests: Vec<Manifest>,
    /// The renderer that rendered the kustomizations in the folder, or the chart.
    renderer: Arc<Renderer>,
    /// What charts are rendered with besides their files.
    surroundings: Surroundings,
    is_chart: bool,
}

/// Reads a file, or all manifests of a folder and its subfolders, sorted by path.
///
/// # Errors
/// The path does not exist, a file is not a manifest (with file and line), or the folder has a symbolic link, which
/// the controller would refuse, too.
pub fn read(path: &Path) -> anyhow::Result<Folder> {
    read_with(path, &Copies::default())
}

/// Reads a file or a folder as [`read`] does. Kustomizations may use the local copies of what is elsewhere.
///
/// # Errors
/// As of [`read`].
pub fn read_with(path: &Path, copies: &Copies) -> anyhow::Result<Folder> {
    let renderer = Arc::new(renderer());
    let (root, inside) = place(path)?;
    let is_named = path.is_file();
    let local = Local { entries: entries(path, &root, &inside, false)?, is_named };
    let copy = WorkingCopy { root: root.clone() };
    let with_copies = WithCopies::new(&copy, copies);
    let kustomizations = Kustomizations { repository: &with_copies, renderer: &renderer };
    let rendered = Files(kustomizations).render(&local, &mut Unlimited);
    let rendered = rendered.map_err(|error| explained(with_copies.explained(error), &copy))?;
    let (path, manifests, surroundings) = (path.to_owned(), rendered.objects, Surroundings::default());
    Ok(Folder { root, inside, path, manifests, renderer, surroundings, is_chart: false })
}

/// Reads a folder as the controller does for `sync`: as a chart, if the Sync says so.
///
/// # Errors
/// Those of [`read`] and [`SyncFolder::objects`].
pub fn read_for(path: &Path, sync: &Sync, surroundings: Surroundings) -> anyhow::Result<Folder> {
    read_sharing(path, sync, surroundings, Arc::new(renderer()))
}

/// Reads a folder as [`read_for`] does, with a renderer that is also used for other folders.
///
/// # Errors
/// Those of [`read_for`].
pub fn read_sharing(
    path: &Path,
    sync: &Sync,
    surroundings: Surroundings,
    renderer: Arc<Renderer>,
) -> anyhow::Result<Folder> {
    read_at(path, place(path)?, sync, surroundings, renderer)
}

/// Reads a folder that has the whole content of the Repository of `sync`, for example a chart pulled from a registry.
///
/// # Errors
/// As of [`read_for`].
pub fn read_whole(path: &Path, sync: &Sync, surroundings: Surroundings) -> anyhow::Result<Folder> {
    let root = fs::canonicalize(path).with_context(|| format!("cannot read {}", path.display()))?;
    read_at(path, (root, String::new()), sync, surroundings, Arc::new(renderer()))
}

/// Reads the folder at `path` as [`read_for`] does. It is in a repository with the top folder `root`.
///
/// # Errors
/// Those of [`read_for`].
pub fn read_in(
    root: &Path,
    path: &Path,
    sync: &Sync,
    surroundings: Surroundings,
    renderer: Arc<Renderer>,
) -> anyhow::Result<Folder> {
    let folder = fs::canonicalize(path).with_context(|| format!("cannot read {}", path.display()))?;
    let root = fs::canonicalize(root).with_context(|| format!("cannot read {}", root.display()))?;
    let inside = relative(&folder, &root);
    read_at(path, (root, inside), sync, surroundings, renderer)
}

/// Reads the folder at `path`. `root` is the top folder of the repository, and `inside` the path from there to `path`.
fn read_at(
    path: &Path,
    (root, inside): (PathBuf, String),
    sync: &Sync,
    surroundings: Surroundings,
    renderer: Arc<Renderer>,
) -> anyhow::Result<Folder> {
    check_values(sync)?;
    let surroundings = Surroundings { clones: surroundings.clones.in_repository(&root), ..surroundings };
    let copy = WorkingCopy { root: root.clone() };
    let tree = || Ok(Local { entries: entries(path, &root, &inside, false)?, is_named: path.is_file() });
    let folder = SyncFolder { path: &inside, sync, surroundings: &surroundings, renderer: &renderer };
    let manifests = folder.objects(tree, &copy);
    let manifests = manifests.map_err(|error| explained(error, &copy));
    let is_chart = sync.spec.helm.is_some();
    let manifests = if is_chart || Changes::of(sync).is_some() {
        manifests.with_context(|| format!("cannot render {}", path.display()))
    } else {
        manifests.map_err(|error| maybe_chart(error, path))
    };
    Ok(Folder { root, inside, path: path.to_owned(), manifests: manifests?, renderer, surroundings, is_chart })
}

/// A folder of a repository, with all that decides what a Sync applies from it.
pub struct SyncFolder<'a> {
    /// The path of the folder from the root of the repository.
    pub path: &'a str,
    /// The Sync.
    pub sync: &'a Sync,
    /// What is rendered with besides the files of the repository.
    pub surroundings: &'a Surroundings,
    /// What renders kustomizations and charts.
    pub renderer: &'a Renderer,
}

impl SyncFolder<'_> {
    /// The objects that the Sync applies from the folder, which is in `repository`. `tree` reads the folder, if it is not a chart. The
    /// places of the objects are paths from the root of the repository.
    ///
    /// # Errors
    /// The folder cannot be read or rendered, or it is a chart that no Sync can apply: it may give other objects at the
    /// next render, or it reads from the cluster.
    pub fn objects<T: Tree<Error = Unread>, R: Repository<Error = Unread>>(
        &self,
        tree: impl FnOnce() -> anyhow::Result<T>,
        repository: &R,
    ) -> Result<Vec<Manifest>, RenderError<Unread>> {
        let repository = &WithCopies::new(repository, &self.surroundings.clones.copies);
        self.rendered(tree, repository).map_err(|error| repository.explained(error))
    }

    fn rendered<T: Tree<Error = Unread>, R: Repository<Error = Unread>>(
        &self,
        tree: impl FnOnce() -> anyhow::Result<T>,
        repository: &R,
    ) -> Result<Vec<Manifest>, RenderError<Unread>> {
        let &Self { path, sync, surroundings, renderer } = self;
        let (room, cancel) = (&mut Unlimited, &Cancel::new());
        let tree = || tree().map_err(|error| RenderError::Files(Unread(error)));
        let inputs = surroundings.clones.inputs_of(sync, repository);
        let inputs = inputs.map_err(|error| RenderError::Files(Unread(error)))?;
        let release = release_of(sync, &surroundings.capabilities, &inputs);
        let release = release.map_err(|why| RenderError::NotRendered { folder: path.to_owned(), why })?;
        let release = release.map(|mut release| {
            path.clone_into(&mut release.chart.path);
            release
        });
        match (release, Changes::of(sync).map(|changes| changes.with(inputs))) {
            (Some(release), Some(changes)) => {
                Ok(renderer.changed_release(&changes, &release, repository, room, cancel)?.objects)
            }
            (Some(release), None) => {
                let built = renderer.release(&release, repository, room, cancel)?;
                let applied = built.into_applied();
                Ok(applied.map_err(|why| RenderError::NotRendered { folder: path.to_owned(), why })?.objects)
            }
            (None, Some(changes)) if !changes.need_kustomize() => {
                let objects = Files(Kustomizations { repository, renderer }).render(&tree()?, room)?.objects;
                changes.substitute(path, objects, repository, room, cancel)
            }
            (None, Some(changes)) => {
                let base = Base::read(&tree()?, room)?;
                renderer.changed(&changes, path, base, repository, room, cancel)
            }
            (None, None) => Ok(Files(Kustomizations { repository, renderer }).render(&tree()?, room)?.objects),
        }
    }
}

/// Refuses entries of `valuesFrom` and `substituteFrom` that the API server would refuse in the Sync.
fn check_values(sync: &Sync) -> anyhow::Result<()> {
    let entries = sync.spec.helm.iter().flat_map(|helm| &helm.values_from).enumerate();
    if let Some((index, mistake)) = { entries }.find_map(|(index, entry)| Some((index, entry.mistake()?))) {
        bail!("spec.helm.valuesFrom[{index}]: {mistake}");
    }
    let entries = sync.spec.helm.iter().flat_map(|helm| &helm.lookup).enumerate();
    if let Some((index, mistake)) = { entries }.find_map(|(index, entry)| Some((index, entry.mistake()?))) {
        bail!("spec.helm.lookup[{index}]: {mistake}");
    }
    let entries = sync.spec.substitution.substitute_from.iter().enumerate();
    match { entries }.find_map(|(index, entry)| Some((index, entry.mistake()?))) {
        None => Ok(()),
        Some((index, mistake)) => bail!("spec.substituteFrom[{index}]: {mistake}"),
    }
}

/// If a folder could not be read because it is a chart, makes an error that says what to do.
fn maybe_chart(error: anyhow::Error, path: &Path) -> anyhow::Error {
    let is_chart = path.join("Chart.yaml").is_file() && is_rendered(path).is_ok_and(|is_rendered| !is_rendered);
    if is_chart { anyhow!("{}: {IS_CHART}", path.display()) } else { error }
}

/// Whether the folder has a kustomization that no ignore file excludes. Then it is rendered with Kustomize, as the controller
/// does; otherwise its manifests are read.
///
/// # Errors
/// The path does not exist, or an ignore file cannot be read.
pub fn is_rendered(path: &Path) -> anyhow::Result<bool> {
    if path.is_file() {
        return Ok(false);
    }
    let (root, inside) = place(path)?;
    let mut reader = Reader::below(&root, &inside, false)?;
    reader.add_rules(path, &inside)?;
    reader.is_kustomization(path, &inside)
}

/// The renderer in the folder of this program.
pub fn renderer() -> Renderer {
    Renderer::new(&renderer::program(), renderer::Limits::default())
}

/// Why a folder of `copy` was not rendered, as a message for people.
pub fn explained(error: RenderError<Unread>, copy: &WorkingCopy) -> anyhow::Error {
    match error {
        RenderError::NotRendered { why, .. } if why.tool != SUBSTITUTE && !copy.root.join(GIT).exists() => Hint::error(
            in_one_line(&why.message),
            "outside of a Git repository, only the files of the folder itself are read; if the folder needs other \
            files, render it in a clone of its repository",
        ),
        error => unrendered(error),
    }
}

/// Why a folder was not rendered, without a hint.
pub fn unrendered(error: RenderError<Unread>) -> anyhow::Error {
    match error {
        RenderError::Files(Unread(error)) => error,
        RenderError::Parse(wrong) => anyhow!("{wrong}").context("cannot read the manifests"),
        RenderError::NotRendered { why, .. } => anyhow!("{}", in_one_line(&why.message)),
        RenderError::NoRoom { path, .. } => anyhow!("{path}: there is not enough memory to read it"),
    }
}

struct Kustomizations<'a, R> {
    repository: &'a R,
    renderer: &'a Renderer,
}

impl<R: Repository<Error = Unread>> Kustomize for Kustomizations<'_, R> {
    type Error = Unread;

    fn kustomize(&self, folder: &str, room: &mut dyn Room) -> Result<Vec<Manifest>, RenderError<Unread>> {
        Ok(self.renderer.build(folder, self.repository, room, &Cancel::new())?.manifests)
    }
}

impl Folder {
    /// Reads the folder of another Sync as [`read_for`] does, with the same renderer, so that its processes are used
    /// again.
    ///
    /// # Errors
    /// Those of [`read_for`].
    pub fn read_another(&self, path: &Path, sync: &Sync) -> anyhow::Result<Self> {
        read_sharing(path, sync, self.surroundings.clone(), self.renderer.clone())
    }

    /// Reads the same folder for `sync`, with the same renderer.
    ///
    /// # Errors
    /// Those of [`read_for`].
    pub fn read_again(&self, sync: &Sync) -> anyhow::Result<Self> {
        let place = (self.root.clone(), self.inside.clone());
        read_at(&self.path, place, sync, self.surroundings.clone(), self.renderer.clone())
    }

    /// Whether the folder is in a working copy of Git. Then its path in the repository is known.
    pub fn is_in_repository(&self) -> bool {
        self.root.join(GIT).exists()
    }

    /// Which of the objects `wanted` are in hidden files of the folder, and in which files. An object is found by the
    /// name that it has in its file, and by the name that `sync` makes of it.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn hidden(&self, sync: &Sync, wanted: &BTreeSet<ObjectId>) -> anyhow::Result<BTreeMap<ObjectId, Location>> {
        let mut found = BTreeMap::new();
        // A chart has its own rules for hidden files.
        if wanted.is_empty() || self.path.is_file() || self.is_chart {
            return Ok(found);
        }
        let entries = entries(&self.path, &self.root, &self.inside, true)?;
        let local = Local { entries, is_named: false };
        let copy = WorkingCopy { root: self.root.clone() };
        let inputs = self.surroundings.clones.inputs_of(sync, &copy)?;
        let changes = Changes::of(sync).map(|changes| changes.with(inputs));
        let names = changes.map(|changes| changes.names(&self.inside, &copy, &mut Unlimited));
        let names = names.transpose().map_err(unrendered)?.unwrap_or_default();
        let mut names = names.of_folder();
        let read = each_object(&local, &mut Unlimited, |manifest| {
            let ids = possible_ids_of_hidden(sync, &names.of(manifest)).into_iter().filter(|id| wanted.contains(id));
            found.extend(ids.map(|id| (id, manifest.origin.clone())));
        });
        read.map_err(|error| anyhow!("cannot read the hidden files: {error}"))?;
        Ok(found)
    }
}

/// A file or folder that was found in the folder, and that is either read or refused.
enum Entry {
    File(PathBuf),
    /// A folder for Kustomize, and its path below the root of the repository, with `/` between the parts.
    Kustomization(PathBuf, String),
    /// A symbolic link that may lead to manifests.
    Link(PathBuf),
}

impl Entry {
    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Kustomization(path, _) | Self::Link(path) => path,
        }
    }
}

/// The manifest files and kustomizations of a folder, sorted by path. With `hidden`, only the hidden files.
fn entries(path: &Path, root: &Path, inside: &str, hidden: bool) -> anyhow::Result<Vec<Entry>> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !metadata.is_dir() {
        return Ok(vec![Entry::File(path.to_owned())]);
    }
    let mut reader = Reader::below(root, inside, hidden)?;
    reader.folder(path, inside)?;
    let mut entries = reader.entries;
    // Sorted by the whole path, as Git sorts: `a-b/` comes before `a/`.
    entries.sort_by(|a, b| a.path().as_os_str().cmp(b.path().as_os_str()));
    Ok(entries)
}

/// The manifest files of a local folder.
struct Local {
    entries: Vec<Entry>,
    /// Whether this is a single file that the user named.
    is_named: bool,
}

impl Local {
    fn read(file: &Path) -> Result<Vec<u8>, Unread> {
        fs::read(file).with_context(|| format!("cannot read {}", file.display())).map_err(Unread)
    }
}

impl Tree for Local {
    type Error = Unread;

    fn each_entry<E: From<Unread>>(
        &self,
        mut measured: impl FnMut(&str, u64) -> Result<(), E>,
        mut visit: impl FnMut(TreeEntry<'_, Unread>) -> Result<(), E>,
    ) -> Result<(), E> {
        for entry in &self.entries {
            let file = match entry {
                Entry::File(file) => file,
                Entry::Link(link) => {
                    visit(TreeEntry::Refused { error: Unread(linked(link)), reason: "SymlinkRefused" })?;
                    continue;
                }
                Entry::Kustomization(_, inside) => {
                    visit(TreeEntry::Kustomization(inside))?;
                    continue;
                }
            };
            let (path, bytes) = (file.display().to_string(), Self::read(file)?);
            measured(&path, bytes.len() as u64)?;
            if !self.is_named && is_of_another_program(&path, &bytes) {
                continue;
            }
            visit(TreeEntry::File(TreeFile { path: &path, bytes: &bytes }))?;
        }
        Ok(())
    }
}

/// The folder with the path that `sync` names, in the repository with the top folder `root`.
///
/// # Errors
/// The folder does not exist, or the path leads out of the repository, perhaps through a symbolic link.
pub fn of_sync(root: &Path, sync: &Sync) -> anyhow::Result<PathBuf> {
    let path = root.join(path_of(sync));
    let cannot_read = || format!("cannot read the folder {}, which spec.path of the Sync names", path.display());
    let real = fs::canonicalize(&path).with_context(cannot_read)?;
    let real_root = fs::canonicalize(root).with_context(|| format!("cannot read {}", root.display()))?;
    if !real.starts_with(&real_root) {
        return Err(Hint::error(
            format!("spec.path {} leads out of the repository", in_one_line(&sync.spec.path)),
            "name a folder of the repository",
        ));
    }
    Ok(path)
}

/// The path in a shorter form for messages: relative to the working directory, if the path is below that.
pub fn from_here(path: PathBuf) -> PathBuf {
    let here = std::env::current_dir().and_then(fs::canonicalize);
    match here.ok().and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned)) {
        Some(inside) if inside == Path::new("") => ".".into(),
        Some(inside) => inside,
        None => path,
    }
}

/// The top folder of the repository that `path` is in, and the path from there to `path`, with `/` between the parts.
/// If `path` is in no repository, `path` itself is the top folder. The top folder has no symbolic links in its path.
///
/// # Errors
/// The path does not exist.
pub fn place(path: &Path) -> anyhow::Result<(PathBuf, String)> {
    let folder = fs::canonicalize(path).with_context(|| format!("cannot read {}", path.display()))?;
    let root = folder.ancestors().find(|folder| folder.join(GIT).exists()).unwrap_or(&folder);
    let inside = relative(&folder, root);
    Ok((root.to_owned(), inside))
}

/// The path of `folder` below `root`, with `/` between the parts.
fn relative(folder: &Path, root: &Path) -> String {
    let inside = folder.strip_prefix(root).unwrap_or(folder);
    inside.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

struct Reader<'a> {
    /// The repository's top folder.
    root: &'a Path,
    rules: IgnoreRules,
    /// Whether only hidden files are looked for.
    hidden: bool,
    entries: Vec<Entry>,
}

impl<'a> Reader<'a> {
    /// A reader with the ignore rules of the folders above `inside`.
    fn below(root: &'a Path, inside: &str, hidden: bool) -> anyhow::Result<Self> {
        let mut reader = Self { root, rules: IgnoreRules::of_manifests(inside), hidden, entries: Vec::new() };
        let mut above = root.to_owned();
        for name in inside.split('/').filter(|name| !name.is_empty()) {
            reader.add_rules(&above, &relative(&above, root))?;
            above.push(name);
        }
        Ok(reader)
    }

    fn add_rules(&mut self, folder: &Path, inside: &str) -> anyhow::Result<()> {
        let text = edit::read_rules(&folder.join(IGNORE_FILE))?;
        text.map_or(Ok(()), |text| Ok(self.rules.add(inside, &text)?))
    }

    /// Reads a folder and those below it. `inside` is the folder's path in the repository.
    fn folder(&mut self, folder: &Path, inside: &str) -> anyhow::Result<()> {
        self.add_rules(folder, inside)?;
        if self.is_kustomization(folder, inside)? {
            if !self.hidden {
                self.entries.push(Entry::Kustomization(folder.to_owned(), inside.to_owned()));
            }
            return Ok(());
        }
        let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { bail!("{}: its name is not UTF-8", entry.path().display()) };
            let inside = if inside.is_empty() { name.to_owned() } else { format!("{inside}/{name}") };
            let kind = entry.file_type().with_context(|| format!("cannot read {}", entry.path().display()))?;
            let fate = self.rules.fate(&inside, kind.is_dir());
            if name == ".git" || fate == Fate::Ignored || fate == Fate::Hidden && !self.hidden {
                continue;
            }
            let path = entry.path();
            let is_read = is_manifest_file(name);
            if self.hidden && !kind.is_dir() && (fate == Fate::Read || kind.is_symlink()) {
                continue;
            }
            if kind.is_symlink() {
                if is_read || !self.leads_to_a_file(&path) {
                    self.entries.push(Entry::Link(path));
                }
            } else if kind.is_dir() {
                self.folder(&path, &inside)?;
            } else if is_read {
                self.entries.push(Entry::File(path));
            }
        }
        Ok(())
    }

    /// Whether the folder has a file `kustomization.yaml` (or with another of Kustomize's names) that is not ignored.
    fn is_kustomization(&self, folder: &Path, inside: &str) -> anyhow::Result<bool> {
        for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_kustomization(name)) else { continue };
            let path = if inside.is_empty() { name.to_owned() } else { format!("{inside}/{name}") };
            if self.rules.fate(&path, false) == Fate::Read && !entry.path().is_dir() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a link leads to a file of the repository.
    fn leads_to_a_file(&self, link: &Path) -> bool {
        fs::canonicalize(link).is_ok_and(|target| target.starts_with(self.root) && target.is_file())
    }
}

fn linked(path: &Path) -> anyhow::Error {
    anyhow!(
        "{} is a symbolic link, which the controller refuses, too; if it should not be applied, list it in {IGNORE_FILE}",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_map(name: &str) -> String {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n")
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn names(path: &Path) -> Vec<String> {
        read(path).unwrap().manifests.into_iter().map(|manifest| manifest.id.name).collect()
    }

    #[test]
    fn folders_below_count_and_ignore_files_are_obeyed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir(root.join(".git")).unwrap();
        write(root, ".gitsealignore", "values.yaml\n");
        write(root, "app/a.yaml", &config_map("a"));
        write(root, "app/deep/b.json", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}}"#);
        write(root, "app/values.yaml", "not: a manifest");
        write(root, "app/notes.txt", "not a manifest");
        assert_eq!(names(&root.join("app")), ["a", "b"]);
        assert_eq!(names(&root.join("app/a.yaml")), ["a"]);
    }

    #[test]
    fn files_come_in_the_order_of_git() {
        let root = tempfile::tempdir().unwrap();
        for path in ["web/a.yaml", "web-2/b.yaml", "web.yaml", "w/z/c.yaml"] {
            write(root.path(), path, &config_map(&path.replace('/', ".")));
        }
        assert_eq!(names(root.path()), ["w.z.c.yaml", "web-2.b.yaml", "web.yaml", "web.a.yaml"]);
    }

    #[test]
    fn what_is_no_manifest_by_default_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir(root.join(".git")).unwrap();
        write(root, ".deploy/a.yaml", &config_map("a"));
        write(root, ".deploy/.github/ci.yml", "on: [push]\n");
        write(root, ".deploy/package.json", "{}");
        write(root, ".deploy/values.yaml", &config_map("b"));
        write(root, "README.md", "read");
        std::os::unix::fs::symlink("../README.md", root.join(".deploy/README.md")).unwrap();
        assert_eq!(names(&root.join(".deploy")), ["a", "b"]);
        assert!(names(root).is_empty());
        assert!(read(&root.join(".deploy/package.json")).is_err(), "it was asked for by name");
        write(root, ".gitsealignore", "!.deploy/\n");
        assert_eq!(names(root), ["a", "b"]);
        for target in ["/etc/hostname", "gone", "..", "../deep"] {
            fs::create_dir_all(root.join("deep")).unwrap();
            let link = root.join(".deploy/link");
            std::os::unix::fs::symlink(target, &link).unwrap();
            let error = format!("{:#}", read(root).err().unwrap());
            assert!(error.contains(".deploy/link is a symbolic link"), "{target}: {error}");
            fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn an_error_names_file_and_line() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "a.yaml", &format!("{}---\nkind: ConfigMap\n", config_map("a")));
        let error = format!("{:#}", read(root.path()).err().unwrap());
        assert!(error.contains("a.yaml:5"), "{error}");
    }

    #[test]
    fn a_kustomization_hides_the_files_beside_and_below_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "plain/a.yaml", &config_map("a"));
        write(root, "plain/sub/kustomization.yaml", "resources: []");
        write(root, "plain/sub/b.yaml", &config_map("b"));
        let paths = || -> Vec<_> {
            let found = entries(&root.join("plain"), root, "plain", false).unwrap();
            found.iter().map(|entry| entry.path().strip_prefix(root).unwrap().to_owned()).collect()
        };
        assert_eq!(paths(), [Path::new("plain/a.yaml"), Path::new("plain/sub")]);
        write(root, "plain/.gitsealignore", "kustomization.yaml\n");
        assert_eq!(paths(), [Path::new("plain/a.yaml"), Path::new("plain/sub/b.yaml")]);
    }
}
