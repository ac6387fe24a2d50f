//! The Syncs of a repository, and what each of them applies. The Syncs are found in files, not in a cluster.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use crds::{ObjectKey, Repository, Sync};
use manifests::{Limits, Location, Manifest, ObjectId, parse};
use pipeline::{namespace_for, other_files, path_of, repository_of};
use remotes::OCI;
use renderer::{Capabilities, Renderer};
use schemas::nearest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    chart_inputs::{Clones, Surroundings},
    copies::no_copy,
    folder::{self, GIT},
    manifest_files::manifest_files,
    output::{self, counted, one_line},
    parallel,
};

/// The Syncs of a working copy.
pub struct Fleet {
    /// The top folder of the repository.
    pub root: PathBuf,
    /// The namespace of a Sync that names none.
    namespace: String,
    renderer: Arc<Renderer>,
    /// Clones of other Repositories, which charts get values from.
    clones: Clones,
    /// The Syncs in files of the working copy, in the order of the files, and then the Syncs that other Syncs apply.
    pub syncs: Vec<Found>,
    /// Syncs that are not rendered, because there is no local copy of something that they need.
    pub not_here: Vec<NotHere>,
    /// The CustomResourceDefinitions in all files.
    pub definitions: Vec<Manifest>,
    /// Files, Syncs and Repositories that are not valid.
    pub wrong: Vec<Wrong>,
    /// Objects of other API groups, except CustomResourceDefinitions, in files that also contain objects of gitseal's
    /// own group.
    pub beside: Vec<Manifest>,
    /// The Repositories in all files, as they were read.
    pub repositories: Vec<Manifest>,
    known_repositories: Vec<(ObjectKey, Repository)>,
    remotes: BTreeSet<String>,
    /// How many of the Syncs are in files.
    in_files: usize,
    /// What Syncs without a chart apply. It does not depend on the capabilities of a cluster, so it is rendered only
    /// once.
    unchanging: HashMap<Identity, Arc<Vec<Manifest>>>,
}

/// A Sync in a file, or among the objects of another Sync.
#[derive(Clone)]
pub struct Found {
    /// Where the Sync is.
    pub origin: Location,
    /// The Sync. Its namespace is always set.
    pub sync: Sync,
    /// The Sync's manifest, as it was read.
    pub manifest: Manifest,
}

/// A Sync that is not rendered, because there is no local copy of something that it needs.
pub struct NotHere {
    /// The Sync.
    pub found: Found,
    /// What is missing.
    pub why: String,
    /// How to get it, and the option that names it.
    pub hint: String,
}

impl NotHere {
    /// What is missing, and what to do.
    pub fn message(&self) -> String {
        format!("{}; {}", self.why, self.hint)
    }

    /// For programs.
    pub fn as_json(&self) -> Value {
        let ObjectKey { namespace, name } = self.found.key();
        let Location { file, line } = &self.found.origin;
        json!({"namespace": namespace, "name": name, "file": &**file, "line": line, "why": self.why, "hint": self.hint})
    }
}

/// A file or object that cannot be read.
pub struct Wrong {
    /// Where it is.
    pub origin: Location,
    /// The object, if the file could be read.
    pub object: Option<ObjectId>,
    /// The name of the check in `docs/lint.md`.
    pub check: &'static str,
    /// Why it cannot be read.
    pub why: String,
}

/// The place and the digest of a Sync.
type Identity = (Location, String);

impl Found {
    /// The place and the digest of the Sync. It is often found twice: in a file, and among the objects of another Sync.
    /// Two with the same identity are the same Sync.
    fn identity(&self) -> Identity {
        (self.origin.clone(), self.manifest.digest())
    }

    /// What messages name: the Sync, and where it is.
    pub fn place(&self) -> (ObjectKey, Location) {
        (self.key(), self.origin.clone())
    }

    /// Namespace and name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(&self.sync)
    }
}

/// What a Sync applies.
pub struct Rendered {
    /// The index of the Sync in [`Fleet::syncs`].
    pub sync: usize,
    /// The objects that the Sync applies; the paths of their files begin at the root of the repository. An error if the
    /// objects could not be rendered.
    pub objects: anyhow::Result<Arc<Vec<Manifest>>>,
}

impl Fleet {
    /// Finds the Syncs in the files at `path` and below, except in the folder `golden`. All files of the repository are
    /// searched for CustomResourceDefinitions and Repositories. Files that are not manifests are ignored if they belong
    /// to a chart, or do not contain the API group of Syncs.
    ///
    /// # Errors
    /// The path does not exist, or a file cannot be read.
    pub fn find(path: &Path, namespace: &str, clones: Clones, golden: Option<&Path>) -> anyhow::Result<Self> {
        let (root, _) = folder::place(path)?;
        let below = path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
        let mut fleet = Self {
            remotes: remotes(&root),
            root: root.clone(),
            namespace: namespace.to_owned(),
            renderer: Arc::new(folder::renderer()),
            clones,
            syncs: Vec::new(),
            not_here: Vec::new(),
            definitions: Vec::new(),
            wrong: Vec::new(),
            beside: Vec::new(),
            repositories: Vec::new(),
            known_repositories: Vec::new(),
            in_files: 0,
            unchanging: HashMap::new(),
        };
        let mut syncs = Vec::new();
        let golden = golden.and_then(|golden| golden.canonicalize().ok());
        for file in manifest_files(&root, &below, golden.as_deref())? {
            let size = fs::metadata(&file).map(|metadata| metadata.len());
            if size.is_ok_and(|size| size > Limits::default().file_bytes as u64) {
                continue;
            }
            let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
            let is_below = file.starts_with(&below);
            let manifests = match parse(&name, &bytes, &Limits::default()) {
                Ok(manifests) => manifests,
                // Many files are not manifests but values, patches or templates, so most errors are ignored.
                Err(error) => {
                    if is_below && has_group(&bytes) && !is_in_chart(&file, &root) {
                        fleet.wrong.push(Wrong {
                            origin: error.location().clone(),
                            object: None,
                            check: "not-read",
                            why: format!("{}; {}", error.kind(), error.hint()),
                        });
                    }
                    continue;
                }
            };
            let has_own = is_below && manifests.iter().any(|manifest| manifest.id.group == GROUP);
            for manifest in manifests {
                match kind(&manifest) {
                    Some("Sync") if is_below => syncs.push(manifest),
                    Some("CustomResourceDefinition") => fleet.definitions.push(manifest),
                    Some("Repository") => fleet.add_repository(manifest),
                    Some(unknown) if is_below && unknown != "Sync" => fleet.wrong.push(Wrong {
                        why: unknown_kind(unknown),
                        origin: manifest.origin,
                        object: Some(manifest.id),
                        check: "unknown-kind",
                    }),
                    _ if has_own => fleet.beside.push(manifest),
                    _ => {}
                }
            }
        }
        for sync in syncs {
            let namespace = sync.id.namespace.clone().unwrap_or_else(|| fleet.namespace.clone());
            fleet.add_sync(sync, namespace);
        }
        fleet.in_files = fleet.syncs.len();
        Ok(fleet)
    }

    fn add_repository(&mut self, manifest: Manifest) {
        match self.read::<Repository>(&manifest) {
            Ok(repository) => {
                self.known_repositories.push((ObjectKey::of(&repository), repository));
                self.repositories.push(manifest);
            }
            Err(why) => self.add_wrong(manifest, why),
        }
    }

    fn add_wrong(&mut self, manifest: Manifest, why: String) {
        let object = Some(manifest.id);
        self.wrong.push(Wrong { origin: manifest.origin, object, check: "invalid-sync", why });
    }

    fn add_sync(&mut self, mut manifest: Manifest, namespace: String) {
        if let Some(Value::Object(metadata)) = manifest.body.get_mut("metadata") {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        manifest.id.namespace = Some(namespace);
        match self.read::<Sync>(&manifest) {
            Ok(sync) => {
                let missing = self.place_of_folder(&sync).err();
                let found = Found { origin: manifest.origin.clone(), sync, manifest };
                match missing {
                    Some(error) => self.add_not_here(found, &error),
                    None => self.syncs.push(found),
                }
            }
            Err(why) => self.add_wrong(manifest, why),
        }
    }

    fn read<K: DeserializeOwned + kube::Resource>(&self, manifest: &Manifest) -> Result<K, String> {
        let read = serde_json::from_value::<K>(Value::Object(manifest.body.clone()));
        let mut object = read.map_err(|error| format!("the {} is not valid: {error}", manifest.id.kind))?;
        object.meta_mut().namespace.get_or_insert_with(|| self.namespace.clone());
        Ok(object)
    }

    fn add_not_here(&mut self, found: Found, error: &anyhow::Error) {
        // With other capabilities, the same Sync is found again.
        if self.not_here.iter().any(|known| known.found.identity() == found.identity()) {
            return;
        }
        let (_, why) = self.place_of(&found.sync, error);
        self.not_here.push(NotHere { found, why, hint: output::hint(error).unwrap_or_default() });
    }

    /// The manifests of the Repository of `sync`. It is usually only one.
    fn repositories_of(&self, sync: &Sync) -> impl Iterator<Item = &Repository> {
        let key = repository_of(sync);
        self.known_repositories.iter().filter(move |(known, _)| *known == key).map(|(_, repository)| repository)
    }

    /// Where the content of the Repository of `sync` is.
    ///
    /// # Errors
    /// The Repository is known, it is not this working copy, and there is no local copy of it. Neither a registry nor a chart
    /// repository has the files of a working copy.
    fn place_of_folder(&self, sync: &Sync) -> anyhow::Result<Place<'_>> {
        let (key, copies) = (repository_of(sync), &self.clones.copies);
        let copy = copies.of_repository(&key, sync.metadata.namespace.as_deref());
        if let Some(copy) = copy.or_else(|| self.repositories_of(sync).find_map(|one| copies.of_chart(one))) {
            return Ok(Place { root: &copy.root, shown: Some(&copy.shown) });
        }
        let is_here = |one: &Repository| self.remotes.contains(&same_place(&one.spec.url));
        let is_archive = |one: &&Repository| one.spec.chart.is_some() || one.spec.url.starts_with(OCI);
        // If no Repository has the URL of a remote, this clone was made from a mirror, and no Sync is left out.
        let is_elsewhere =
            self.known_repositories.iter().any(|(_, one)| is_here(one)) && !self.repositories_of(sync).any(is_here);
        let other = self.repositories_of(sync).find(is_archive);
        match other.or_else(|| self.repositories_of(sync).find(|_| is_elsewhere)) {
            Some(other) => Err(no_copy(&format!("what Sync {} applies", ObjectKey::of(sync)), &key, Some(other))),
            None => Ok(Place { root: &self.root, shown: None }),
        }
    }

    /// Whether `repository` is in the files, and has the URL of a remote of this working copy.
    fn is_here(&self, repository: &ObjectKey) -> bool {
        let mut named = self.known_repositories.iter().filter(|(key, _)| key == repository);
        named.any(|(_, one)| one.spec.chart.is_none() && self.remotes.contains(&same_place(&one.spec.url)))
    }

    /// Renders what all Syncs apply, also those that other Syncs apply. If a Sync applies another one from a file and
    /// changes it, for example with a patch, only the changed form counts.
    pub fn render(&mut self, capabilities: &Capabilities) -> Vec<Rendered> {
        // Syncs that an earlier call found among rendered objects are dropped: with other capabilities, charts may
        // render other Syncs.
        self.syncs.truncate(self.in_files);
        let mut known: HashSet<_> = self.syncs.iter().map(Found::identity).collect();
        let mut changed = HashSet::new();
        let mut next: Vec<usize> = (0..self.in_files).collect();
        let mut rendered = Vec::new();
        while !next.is_empty() {
            let batch = std::mem::take(&mut next);
            let objects = parallel::map(parallel::processors(), batch.clone(), |index| {
                match self.unchanging.get(&self.syncs[index].identity()) {
                    Some(known) => Ok(known.clone()),
                    None => self.objects(&self.syncs[index].sync, capabilities).map(Arc::new),
                }
            });
            for (sync, objects) in batch.into_iter().zip(objects) {
                if let (None, Ok(objects)) = (&self.syncs[sync].sync.spec.helm, &objects) {
                    self.unchanging.insert(self.syncs[sync].identity(), objects.clone());
                }
                for manifest in
                    objects.iter().flat_map(|objects| objects.iter()).filter(|manifest| kind(manifest) == Some("Sync"))
                {
                    let before = self.syncs.len();
                    let namespace = namespace_for(&self.syncs[sync].sync, manifest.id.namespace.as_deref()).to_owned();
                    self.add_sync(manifest.clone(), namespace);
                    match self.syncs.get(before) {
                        Some(added) if known.insert(added.identity()) => {
                            changed.insert(added.origin.clone());
                            next.push(before);
                        }
                        Some(_) => self.syncs.truncate(before),
                        None => {}
                    }
                }
                rendered.push(Rendered { sync, objects });
            }
        }
        rendered.retain(|one| one.sync >= self.in_files || !changed.contains(&self.syncs[one.sync].origin));
        let is_not_here = |one: &Rendered| one.objects.as_ref().is_err_and(output::is_not_here);
        let (not_here, rendered): (Vec<_>, _) = rendered.into_iter().partition(is_not_here);
        for Rendered { sync, objects } in not_here {
            if let Err(error) = objects {
                self.add_not_here(self.syncs[sync].clone(), &error);
            }
        }
        rendered
    }

    /// Says which Syncs were not rendered, and what to do.
    pub fn tell_not_here(&self) {
        if self.not_here.is_empty() {
            return;
        }
        for one in &self.not_here {
            output::note(format_args!("{}: Sync {}: {}", one.found.origin, one.found.key(), one.message()));
        }
        let names: Vec<_> = self.not_here.iter().map(|one| one.found.key().to_string()).collect();
        let were = if names.len() == 1 { "was" } else { "were" };
        output::note(format_args!("{} {were} not rendered: {}", counted(names.len(), "Sync"), names.join(", ")));
    }

    /// The Sync at `origin` as another Sync applies it, and the name of this other Sync. `None` if no Sync changes it
    /// with `targetNamespace` or with another field that changes objects.
    pub fn as_changed(&self, origin: &Location, capabilities: &Capabilities) -> Option<(Sync, ObjectKey)> {
        let may_change = |found: &&Found| {
            let spec = &found.sync.spec;
            let changes = spec.target_namespace.is_some() || !spec.overlay.is_empty() || spec.substitution.is_wanted();
            found.origin != *origin && changes
        };
        self.syncs.iter().filter(may_change).find_map(|outer| {
            let objects = self.objects(&outer.sync, capabilities).ok()?;
            let inner = objects.iter().find(|object| object.origin == *origin && kind(object) == Some("Sync"))?;
            let mut sync = self.read::<Sync>(inner).ok()?;
            sync.metadata.namespace = Some(namespace_for(&outer.sync, inner.id.namespace.as_deref()).to_owned());
            Some((sync, outer.key()))
        })
    }

    /// `error` is about the folder of `sync`. Returns the place in Git that `error` names, if it names one, and `error`
    /// as one line, with paths that begin at the root of the repository.
    pub fn place_of(&self, sync: &Sync, error: &anyhow::Error) -> (Option<Location>, String) {
        let text = one_line(error).replace(&format!("{}/", self.root.display()), "");
        let words = text
            .split_whitespace()
            .map(|word| word.trim_matches(|c: char| matches!(c, ':' | ',' | ';' | '(' | ')' | '"' | '\'' | '`')));
        let place = { words }.find_map(|word| self.place_in(sync, word));
        (place, text)
    }

    /// The place that a word such as `apps/web.yaml:3` means. Helm writes paths that begin with the name of the chart.
    fn place_in(&self, sync: &Sync, word: &str) -> Option<Location> {
        let mut parts = word.split(':');
        let (file, line) = (Path::new(parts.next()?), parts.next()?.parse().ok()?);
        let is_inside = file.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let in_chart = file.components().skip(1).collect::<PathBuf>();
        let candidates = [file.to_owned(), Path::new(path_of(sync)).join(in_chart)];
        let mut candidates = candidates.iter().filter(|file| is_inside && self.root.join(file).is_file());
        Some(Location { file: candidates.next()?.display().to_string().into(), line })
    }

    fn objects(&self, sync: &Sync, capabilities: &Capabilities) -> anyhow::Result<Vec<Manifest>> {
        let place = self.place_of_folder(sync)?;
        let path = folder::of_sync(place.root, sync)?;
        let surroundings = self.surroundings_of(sync, capabilities);
        let read = folder::read_in(place.root, &path, sync, surroundings, self.renderer.clone());
        let mut objects = read?.manifests;
        for object in &mut objects {
            let file = Path::new(&*object.origin.file);
            let inside = file.strip_prefix(place.root).unwrap_or(file);
            // The files of remote repositories have URLs.
            let shown = place.shown.filter(|_| inside.is_relative() && !object.origin.file.contains("://"));
            let inside = shown.map_or_else(|| inside.to_owned(), |shown| shown.join(inside));
            object.origin.file = inside.display().to_string().into();
        }
        Ok(objects)
    }

    /// Reads the folder of a Sync, in this working copy or in the local copy of its Repository.
    ///
    /// # Errors
    /// Those of [`folder::read_in`], or there is no local copy of something that the Sync needs.
    pub fn folder_of(&self, sync: &Sync, capabilities: &Capabilities) -> anyhow::Result<folder::Folder> {
        let place = self.place_of_folder(sync)?;
        let path = folder::from_here(folder::of_sync(place.root, sync)?);
        let surroundings = self.surroundings_of(sync, capabilities);
        folder::read_in(place.root, &path, sync, surroundings, self.renderer.clone())
    }

    /// What a Sync is rendered with, besides the files of its Repository.
    fn surroundings_of(&self, sync: &Sync, capabilities: &Capabilities) -> Surroundings {
        let mut clones = self.clones.clone();
        for repository in other_files(sync).map(|file| file.repository()).filter(|key| self.is_here(key)) {
            clones.add(repository, self.root.clone());
        }
        if self.repositories_of(sync).next().is_some() {
            let allowed = self.repositories_of(sync).flat_map(|one| &one.spec.remotes).map(|one| one.url.clone());
            clones.copies = clones.copies.allowing(allowed.collect());
        }
        Surroundings { capabilities: capabilities.clone(), clones }
    }
}

/// The content of a Repository on this machine.
struct Place<'f> {
    root: &'f Path,
    /// The path of a copy, as the user gave it; `None` for the working copy itself.
    shown: Option<&'f Path>,
}

/// The API group of Syncs and Repositories.
const GROUP: &str = "gitseal.dev";

/// The kind of an object, if it is an object of gitseal or a CustomResourceDefinition; `None` for any other object.
fn kind(manifest: &Manifest) -> Option<&str> {
    let id = &manifest.id;
    match (id.group.as_str(), id.kind.as_str()) {
        (GROUP, kind) | ("apiextensions.k8s.io", kind @ "CustomResourceDefinition") => Some(kind),
        _ => None,
    }
}

/// Whether a file may have Syncs: whether its text contains the API group of Syncs.
fn has_group(bytes: &[u8]) -> bool {
    bytes.windows(GROUP.len()).any(|text| text == GROUP.as_bytes())
}

/// Whether a file belongs to a chart, whose templates are no manifests until they are rendered.
fn is_in_chart(file: &Path, root: &Path) -> bool {
    let mut above = file.ancestors().skip(1).take_while(|folder| folder.starts_with(root));
    above.any(|folder| folder.join("Chart.yaml").is_file())
}

fn unknown_kind(kind: &str) -> String {
    let meant = nearest(kind, ["Sync", "Repository"]).map(|meant| format!("; did you mean {meant}?"));
    format!("{GROUP} has no kind {kind}{}", meant.unwrap_or_default())
}

/// The URLs of the remotes of a working copy. In a linked worktree, none are found.
fn remotes(root: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(root.join(GIT).join("config")).unwrap_or_default();
    let mut is_remote = false;
    let mut urls = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            is_remote = line.starts_with("[remote ");
        } else if let Some((name, url)) = line.split_once('=').filter(|_| is_remote)
            && name.trim() == "url"
        {
            urls.insert(same_place(url.trim()));
        }
    }
    urls
}

/// Host and path of a URL, which are the same over HTTPS and over ssh.
fn same_place(url: &str) -> String {
    let url = url.split_once("://").map_or_else(|| url.replacen(':', "/", 1), |(_, rest)| rest.to_owned());
    let url = url.rsplit_once('@').map_or(url.as_str(), |(_, rest)| rest);
    let (host, path) = url.split_once('/').unwrap_or((url, ""));
    let host = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
    format!("{host}/{}", path.trim_end_matches('/').trim_end_matches(".git"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_repository_has_several_urls() {
        let same = [
            "https://git.example.org/team/fleet.git",
            "https://git.example.org/team/fleet",
            "https://user:token@git.example.org/team/fleet/",
            "ssh://git@git.example.org:2222/team/fleet.git",
            "git@git.example.org:team/fleet.git",
            "https://GIT.example.org:8443/team/fleet",
        ];
        for url in same {
            assert_eq!(same_place(url), "git.example.org/team/fleet", "{url}");
        }
        for url in ["https://git.example.org/team/other", "https://example.org/team/fleet", "file:///srv/team/fleet"] {
            assert_ne!(same_place(url), "git.example.org/team/fleet", "{url}");
        }
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn sync(name: &str, repository: &str, path: &str) -> String {
        format!(
            "apiVersion: gitseal.dev/v1alpha1\nkind: Sync\nmetadata: {{name: {name}, namespace: team}}\nspec: {{repository: \
             {{name: {repository}}}, path: {path}}}\n"
        )
    }

    fn repository(name: &str, url: &str) -> String {
        format!(
            "apiVersion: gitseal.dev/v1alpha1\nkind: Repository\nmetadata: {{name: {name}, namespace: team}}\nspec: {{url: {url}}}\n"
        )
    }

    #[test]
    fn syncs_are_found_in_files_and_in_what_other_syncs_apply() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, ".git/config", "[remote \"origin\"]\n\turl = git@example.org:team/fleet.git\n");
        write(root, "clusters/all.yaml", &sync("clusters", "fleet", "clusters/one"));
        write(root, "clusters/other.yaml", &sync("other", "vendor", "anywhere"));
        write(root, "clusters/one/app.yaml", &sync("app", "fleet", "app"));
        write(root, "clusters/one/repositories.yaml", &repository("fleet", "https://example.org/team/fleet"));
        write(root, "clusters/one/vendor.yaml", &repository("vendor", "https://example.org/vendor/parts"));
        write(root, "app/map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
        write(root, "app/values.yaml", "replicas: 1\n");
        write(root, "app/.gitsealignore", "values.yaml\n");
        write(root, "wrong.yaml", "apiVersion: gitseal.dev/v1alpha1\nkind: Sync\nmetadata: {name: wrong}\nspec: {}\n");
        let mut fleet = Fleet::find(&root.join("clusters"), "team", Clones::default(), None).unwrap();
        let names: Vec<_> = fleet.syncs.iter().map(|found| found.key().name).collect();
        assert_eq!(names, ["clusters", "app"]);
        assert_eq!(fleet.not_here.iter().map(|one| one.found.key().name).collect::<Vec<_>>(), ["other"]);
        let rendered = fleet.render(&Capabilities::default());
        assert_eq!(fleet.syncs.len(), 2, "the Sync in clusters/one is the same");
        let of_app = rendered[1].objects.as_ref().unwrap();
        assert_eq!(of_app[0].origin.to_string(), "app/map.yaml:1");
        assert!(Fleet::find(root, "team", Clones::default(), None).unwrap().wrong[0].why.contains("not valid"));
    }
}
