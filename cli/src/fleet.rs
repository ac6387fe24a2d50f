//! The Syncs of a repository, and what each of them applies. The Syncs are found in files, not in a cluster.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use crds::{ObjectKey, Repository, Sync};
use manifests::{Limits, Location, Manifest, parse};
use pipeline::other_files;
use renderer::{Capabilities, Renderer};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    chart_inputs::{Clones, Surroundings},
    commands::inputs,
    folder::{self, GIT},
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
    /// Syncs whose folder is in another repository.
    pub elsewhere: Vec<ObjectKey>,
    /// The CustomResourceDefinitions in all files.
    pub definitions: Vec<Manifest>,
    /// Syncs and Repositories that are not valid, with the reason.
    pub wrong: Vec<(Manifest, String)>,
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
pub struct Found {
    /// Where the Sync is.
    pub origin: Location,
    /// The Sync, with a namespace.
    pub sync: Sync,
    /// The object as it was read.
    pub manifest: Manifest,
}

/// The place and the digest of a Sync.
type Identity = (Location, String);

impl Found {
    /// The place and the digest of the Sync. It is often found twice: in a file, and among the objects of another Sync.
    /// Two with the same identity are the same Sync.
    fn identity(&self) -> Identity {
        (self.origin.clone(), self.manifest.digest())
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
    /// The objects that the Sync applies, with paths from the root of the repository; or why they could not be
    /// rendered.
    pub objects: anyhow::Result<Arc<Vec<Manifest>>>,
}

impl Fleet {
    /// Finds the Syncs in the files at `path` and below. All files of the repository are searched for
    /// CustomResourceDefinitions and Repositories. Files that are not manifests are ignored.
    ///
    /// # Errors
    /// The path does not exist, or a file cannot be read.
    pub fn find(path: &Path, namespace: &str, clones: Clones) -> anyhow::Result<Self> {
        let (root, _) = folder::place(path)?;
        let below = path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
        let mut fleet = Self {
            remotes: remotes(&root),
            root: root.clone(),
            namespace: namespace.to_owned(),
            renderer: Arc::new(folder::renderer()),
            clones,
            syncs: Vec::new(),
            elsewhere: Vec::new(),
            definitions: Vec::new(),
            wrong: Vec::new(),
            repositories: Vec::new(),
            known_repositories: Vec::new(),
            in_files: 0,
            unchanging: HashMap::new(),
        };
        let mut syncs = Vec::new();
        for input in inputs::collect(std::slice::from_ref(&root))? {
            let Some(file) = input.path() else { continue };
            let size = fs::metadata(file).map(|metadata| metadata.len());
            if size.is_ok_and(|size| size > Limits::default().file_bytes as u64) {
                continue;
            }
            let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let name = file.strip_prefix(&root).unwrap_or(file).display().to_string();
            // A file that cannot be read is skipped: many files are templates, values or patches.
            let Ok(manifests) = parse(&name, &bytes, &Limits::default()) else { continue };
            for manifest in manifests {
                match kind(&manifest) {
                    Some("Sync") if file.starts_with(&below) => syncs.push(manifest),
                    Some("CustomResourceDefinition") => fleet.definitions.push(manifest),
                    Some("Repository") => fleet.add_repository(manifest),
                    _ => {}
                }
            }
        }
        for sync in syncs {
            fleet.add_sync(sync);
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
            Err(why) => self.wrong.push((manifest, why)),
        }
    }

    fn add_sync(&mut self, manifest: Manifest) {
        match self.read::<Sync>(&manifest) {
            Ok(sync) if self.is_elsewhere(&sync) => self.elsewhere.push(ObjectKey::of(&sync)),
            Ok(sync) => self.syncs.push(Found { origin: manifest.origin.clone(), sync, manifest }),
            Err(why) => self.wrong.push((manifest, why)),
        }
    }

    fn read<K: DeserializeOwned + kube::Resource>(&self, manifest: &Manifest) -> Result<K, String> {
        let read = serde_json::from_value::<K>(Value::Object(manifest.body.clone()));
        let mut object = read.map_err(|error| format!("the {} is not valid: {error}", manifest.id.kind))?;
        object.meta_mut().namespace.get_or_insert_with(|| self.namespace.clone());
        Ok(object)
    }

    /// Whether the URL of the Sync's Repository is known, and is not that of this working copy. Neither a registry nor a
    /// chart repository has the files of a working copy.
    fn is_elsewhere(&self, sync: &Sync) -> bool {
        let reference = &sync.spec.repository;
        let namespace = reference.namespace.as_ref().or(sync.metadata.namespace.as_ref());
        let is_it = |key: &ObjectKey| namespace == Some(&key.namespace) && reference.name == key.name;
        let named = self.known_repositories.iter().filter(|(key, _)| is_it(key));
        let specs: Vec<_> = named.map(|(_, repository)| &repository.spec).collect();
        let urls: Vec<_> = specs.iter().map(|spec| spec.url.as_str()).collect();
        let is_known = self.known_repositories.iter().any(|(_, one)| self.remotes.contains(&same_place(&one.spec.url)));
        if specs.iter().any(|spec| spec.chart.is_some() || spec.url.starts_with("oci://")) {
            return true;
        }
        // If no Repository has the URL of a remote, this clone was made from a mirror, and no Sync is left out.
        is_known && !urls.is_empty() && !urls.iter().any(|url| self.remotes.contains(&same_place(url)))
    }

    /// Whether a Repository of the files has the URL of this working copy.
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
                    self.add_sync(manifest.clone());
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
        rendered
    }

    fn objects(&self, sync: &Sync, capabilities: &Capabilities) -> anyhow::Result<Vec<Manifest>> {
        let path = folder::of_sync(&self.root, sync)?;
        let mut clones = self.clones.clone();
        for repository in other_files(sync).map(|file| file.repository()).filter(|key| self.is_here(key)) {
            clones.add(repository, self.root.clone());
        }
        let surroundings = Surroundings { capabilities: capabilities.clone(), clones };
        let read = folder::read_sharing(&path, sync, surroundings, self.renderer.clone());
        let mut objects = read?.manifests;
        for object in &mut objects {
            if let Ok(inside) = Path::new(&*object.origin.file).strip_prefix(&self.root) {
                object.origin.file = inside.display().to_string().into();
            }
        }
        Ok(objects)
    }
}

/// The kind of an object; `None` if its group does not matter here.
fn kind(manifest: &Manifest) -> Option<&str> {
    let id = &manifest.id;
    match id.group.as_str() {
        "gitseal.dev" | "apiextensions.k8s.io" => Some(&id.kind),
        _ => None,
    }
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
        let mut fleet = Fleet::find(&root.join("clusters"), "team", Clones::default()).unwrap();
        let names: Vec<_> = fleet.syncs.iter().map(|found| found.key().name).collect();
        assert_eq!(names, ["clusters", "app"]);
        assert_eq!(fleet.elsewhere.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["other"]);
        let rendered = fleet.render(&Capabilities::default());
        assert_eq!(fleet.syncs.len(), 2, "the Sync in clusters/one is the same");
        let of_app = rendered[1].objects.as_ref().unwrap();
        assert_eq!(of_app[0].origin.to_string(), "app/map.yaml:1");
        assert!(Fleet::find(root, "team", Clones::default()).unwrap().wrong[0].1.contains("not valid"));
    }
}
