//! What Syncs get from outside of their own repositories, for commands that render without a controller.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use crds::{ObjectKey, Sync};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
    core::GroupVersionKind,
    discovery::{Scope, oneshot::pinned_kind},
};
use manifests::{Limits, Manifest, parse};
use pipeline::{InputMap, Looked, OtherFile, input_maps, lookups, other_files, repository_of};
use renderer::{At, Capabilities, Input, Inputs, MOST_LOOKED_UP, Repository, looked_up, variables_in};
use schemas::KubernetesVersion;
use serde_json::Value;

use crate::{
    copies::{Copies, CopyArg, no_copy},
    manifest_files::manifest_files,
    output::Hint,
    working_copy::{Unread, WorkingCopy},
};

/// Everything that charts are rendered with, except the files of their own repository.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// What the templates of charts learn about the cluster: its version, and the kinds that it serves.
    pub capabilities: Capabilities,
    /// Where the files of other Repositories and the ConfigMaps with values are.
    pub clones: Clones,
}

/// Flags of commands that render what Syncs apply.
#[derive(clap::Args)]
pub struct InputArgs {
    /// Local copy of something that is not in this repository, because nothing is fetched: a clone, or the archive of a chart.
    /// WHAT is the URL of a remote base as in the kustomization (`https://git.example/team/app?ref=v1`), a chart with its version
    /// (`oci://registry.example/charts/cache:1.2.3` or `https://charts.example/cache-1.2.3.tgz`), or a Repository (NAME, or
    /// NAMESPACE/NAME), for example `config=../config`
    #[arg(long, value_name = "WHAT=PATH")]
    remote: Vec<CopyArg>,

    /// File with a ConfigMap that the field valuesFrom or substituteFrom of a Sync names. ConfigMaps in files of the repository are found
    /// without this flag
    #[arg(long, value_name = "FILE")]
    values_config_map: Vec<PathBuf>,

    /// File with objects that charts may look up in the cluster (helm.lookup of the Sync), as `kubectl get -o yaml` prints
    /// them. If this flag is given, all other objects count as missing
    #[arg(long, value_name = "FILE")]
    lookup: Vec<PathBuf>,
}

/// What the templates of charts of Syncs see if no cluster is asked: what this version of Kubernetes serves, and `more`. A
/// version that is not known counts as the newest one here.
pub fn capabilities(version: Option<&str>, more: &[String]) -> Capabilities {
    let newest = KubernetesVersion::newest();
    let known = version.map_or(Ok(newest), str::parse).unwrap_or(newest);
    let mut api_versions = known.api_versions();
    api_versions.extend(more.iter().cloned());
    api_versions.sort();
    api_versions.dedup();
    Capabilities { kube_version: version.map(str::to_owned), api_versions }
}

impl InputArgs {
    /// The local copies and the files with ConfigMaps that the user named.
    ///
    /// # Errors
    /// Those of [`Copies::open`].
    pub fn clones(&self) -> anyhow::Result<Clones> {
        let Self { remote, values_config_map, lookup } = self;
        Ok(Clones {
            copies: Copies::open(remote)?,
            map_files: values_config_map.clone(),
            lookup_files: lookup.clone(),
            ..Clones::default()
        })
    }
}

/// Local clones of Repositories, and the places where ConfigMaps with values are searched for.
#[derive(Clone, Default)]
pub struct Clones {
    /// The local copies that the user named.
    pub copies: Copies,
    /// The top folders of clones that the command knows without a flag.
    known: BTreeMap<ObjectKey, PathBuf>,
    /// The files with ConfigMaps that the user named.
    map_files: Vec<PathBuf>,
    /// ConfigMaps that were read from the cluster.
    maps: BTreeMap<ObjectKey, BTreeMap<String, String>>,
    /// The files with objects that charts may look up.
    lookup_files: Vec<PathBuf>,
    /// What lookups find in the cluster, by the object or the kind that is looked up.
    looked_up: BTreeMap<String, String>,
    /// The top folder of the repository whose files may have ConfigMaps.
    root: Option<PathBuf>,
}

impl Clones {
    /// These clones, for a Sync in the repository with the top folder `root`.
    pub fn in_repository(&self, root: &Path) -> Self {
        Self { root: Some(root.to_owned()), ..self.clone() }
    }

    /// Reads from the cluster the ConfigMaps that the chart of `sync` gets values from, and what its templates may look up. A
    /// ConfigMap that is not in the cluster is no error, because it may be in a file of the repository.
    ///
    /// # Errors
    /// A ConfigMap, or an object that may be looked up, cannot be read.
    pub async fn read_cluster(&mut self, client: &Client, sync: &Sync) -> anyhow::Result<()> {
        for map in input_maps(sync).filter(|map| !map.is_secret) {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), map.namespace);
            let read = api.get_opt(map.name).await.with_context(|| format!("cannot read {}", map.map()))?;
            let key = ObjectKey::new(map.namespace, map.name);
            self.maps.extend(read.map(|read| (key, read.data.unwrap_or_default())));
        }
        if self.lookup_files.is_empty() {
            for looked in lookups(sync) {
                let text = in_cluster(client, looked).await;
                let text = text.with_context(|| format!("cannot read what {} of the Sync names", looked.entry))?;
                self.looked_up.insert(looked.what(true), text);
            }
        }
        Ok(())
    }

    /// Notes that the folder `root` is a clone of `repository`.
    pub fn add(&mut self, repository: ObjectKey, root: PathBuf) {
        self.known.insert(repository, root);
    }

    /// The values that the chart of `sync` gets from other files (of any repository) and from ConfigMaps. `own` is the
    /// repository of the chart.
    ///
    /// # Errors
    /// No clone of the Repository that should have a file is known, or the clone does not have the file.
    pub fn inputs_of(&self, sync: &Sync, own: &impl Repository<Error = Unread>) -> anyhow::Result<Inputs> {
        let mut inputs = Inputs::new();
        for file in other_files(sync) {
            let repository = file.repository();
            let (found, place) = match self.clone_of(&file, sync) {
                Some(root) => (WorkingCopy { root: root.to_owned() }.at(file.path), root.display().to_string()),
                None if repository == repository_of(sync) => (own.at(file.path), "the repository".to_owned()),
                None => return Err(no_clone(&file)),
            };
            match found.map_err(|Unread(error)| error)? {
                At::File(content) => inputs.insert(file.entry, Input::new(file.name(), content.into())),
                At::Directory(_) | At::Nothing => {
                    return Err(Hint::error(
                        format!("{}: there is no such file in {place}", file.name()),
                        format!("correct {} of the Sync, or update the clone", file.entry),
                    ));
                }
            };
        }
        for map in input_maps(sync) {
            if map.is_secret {
                return Err(no_secret(map));
            }
            let content = self.text_of(map)?.into_bytes().into();
            inputs.insert(map.entry, Input::new(map.place(), content));
        }
        for looked in lookups(sync) {
            let content = self.found_by(looked)?.into_bytes().into();
            inputs.insert(looked.entry, Input::new(looked.what(true), content));
        }
        Ok(inputs)
    }

    /// What a lookup finds: in the files that were named, or in the cluster.
    fn found_by(&self, looked: Looked<'_>) -> anyhow::Result<String> {
        let (group, version) = looked.group_and_version();
        if self.lookup_files.is_empty() {
            let known = self.looked_up.get(&looked.what(true)).cloned();
            return known.ok_or_else(|| not_looked_up(looked));
        }
        let mut found = Vec::new();
        for file in &self.lookup_files {
            found.extend(read_manifests(file)?.into_iter().filter(|manifest| {
                let id = &manifest.id;
                (id.group.as_str(), manifest.version.as_str(), id.kind.as_str()) == (group, version, looked.kind)
                    && (id.namespace.as_deref().zip(looked.namespace)).is_none_or(|(namespace, of)| namespace == of)
                    && looked.name.is_none_or(|name| name == id.name)
            }));
        }
        let is_namespaced = found
            .first()
            .map(|manifest| manifest.id.namespace.is_some())
            .or_else(|| schemas::is_namespaced(group, looked.kind))
            .unwrap_or(true);
        Ok(looked_up(&looked, is_namespaced, found.into_iter().map(|manifest| Value::Object(manifest.body)).collect()))
    }

    /// The values in a ConfigMap. The ConfigMap is in a file that the user named, in the cluster, or in a file of the
    /// repository.
    fn text_of(&self, map: InputMap<'_>) -> anyhow::Result<String> {
        let mut found = maps_in(&self.map_files, map, true)?;
        if found.is_empty()
            && let Some(data) = self.maps.get(&ObjectKey::new(map.namespace, map.name))
        {
            let Some(key) = map.key else { return Ok(variables_in(data)) };
            return data.get(key).cloned().with_context(|| format!("{} has no key {key}", map.map()));
        }
        if found.is_empty()
            && let Some(root) = &self.root
        {
            found = maps_in(&manifest_files(root, root, None)?, map, false)?;
        }
        match found.as_slice() {
            [] if map.is_optional => Ok(String::new()),
            [] => Err(no_map(map)),
            [one] => {
                let data = one.body.get("data");
                let Some(key) = map.key else { return Ok(variables_in(&data)) };
                let text = data.and_then(|data| data.get(key)).and_then(Value::as_str);
                text.map(str::to_owned).with_context(|| format!("{}: {} has no key {key}", one.origin, map.map()))
            }
            [one, other, ..] => Err(Hint::error(
                format!("{} is in {} and in {}", map.map(), one.origin, other.origin),
                "name the file whose values count: --values-config-map FILE",
            )),
        }
    }

    /// The top folder of the repository that has a file.
    fn clone_of(&self, file: &OtherFile<'_>, sync: &Sync) -> Option<&Path> {
        let repository = file.repository();
        let named = self.copies.of_repository(&repository, sync.metadata.namespace.as_deref());
        named.map(|copy| &*copy.root).or_else(|| self.known.get(&repository).map(PathBuf::as_path))
    }
}

fn no_clone(file: &OtherFile<'_>) -> anyhow::Error {
    no_copy(&format!("the file that {} of the Sync names", file.entry), &file.repository(), None)
}

fn no_map(map: InputMap<'_>) -> anyhow::Error {
    Hint::error(
        format!("{} of the Sync names {}, and no file of the repository has it", map.entry, map.map()),
        format!(
            "save the ConfigMap (kubectl get configmap -n {} {} -o yaml > FILE), and pass --values-config-map FILE",
            map.namespace, map.name
        ),
    )
}

fn no_secret(map: InputMap<'_>) -> anyhow::Error {
    Hint::not_here(
        format!("{} of the Sync names {}, and this command reads no Secrets of the cluster", map.entry, map.map()),
        "let only the controller render this Sync, or seal the values in Git (sealedSecret)",
    )
}

fn not_looked_up(looked: Looked<'_>) -> anyhow::Error {
    let kind = match looked.group_and_version() {
        ("", _) => looked.kind.to_owned(),
        (group, version) => format!("{}.{version}.{group}", looked.kind),
    };
    let name = looked.name.map(|name| format!(" {name}")).unwrap_or_default();
    let namespace = looked.namespace.map_or_else(|| "-A".to_owned(), |namespace| format!("-n {namespace}"));
    Hint::error(
        format!("{} of the Sync names {}, and this command asks no cluster", looked.entry, looked.what(true)),
        format!(
            "give a file with what is in the cluster: kubectl get {kind}{name} {namespace} -o yaml > FILE, and --lookup FILE; if there is \
             nothing, give --lookup /dev/null"
        ),
    )
}

/// What a lookup finds in the cluster.
async fn in_cluster(client: &Client, looked: Looked<'_>) -> anyhow::Result<String> {
    let (group, version) = looked.group_and_version();
    let found = pinned_kind(client, &GroupVersionKind::gvk(group, version, looked.kind)).await;
    let (resource, capabilities) = found
        .with_context(|| format!("the cluster does not say how it serves {} {}", looked.api_version, looked.kind))?;
    let is_namespaced = capabilities.scope == Scope::Namespaced;
    let what = looked.what(is_namespaced);
    if looked.kind == "Secret" || resource.plural == "secrets" {
        bail!("{what}: Secrets cannot be looked up");
    }
    let api: Api<DynamicObject> = match looked.namespace.filter(|_| is_namespaced) {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let objects: Vec<DynamicObject> = if let Some(name) = looked.name {
        api.get_opt(name).await.with_context(|| what.clone())?.into_iter().collect()
    } else {
        let params = ListParams::default().limit(u32::try_from(MOST_LOOKED_UP + 1).unwrap_or(u32::MAX));
        api.list(&params).await.with_context(|| what.clone())?.items
    };
    if objects.len() > MOST_LOOKED_UP {
        let (entry, remedy) = (looked.entry, looked.fewer(is_namespaced));
        bail!("{entry} stands for {what}: there are more than {MOST_LOOKED_UP}: {remedy}");
    }
    let objects: Result<_, _> = objects.iter().map(serde_json::to_value).collect();
    Ok(looked_up(&looked, is_namespaced, objects?))
}

/// The objects in a file.
fn read_manifests(file: &Path) -> anyhow::Result<Vec<Manifest>> {
    let name = file.display().to_string();
    let bytes = fs::read(file).with_context(|| format!("cannot read {name}"))?;
    Ok(parse(&name, &bytes, &Limits::default())?)
}

/// The ConfigMaps in these files that may be the one that `map` names. With `must_be_read`, a file that is not a
/// manifest is an error.
fn maps_in(files: &[PathBuf], map: InputMap<'_>, must_be_read: bool) -> anyhow::Result<Vec<Manifest>> {
    let mut found = Vec::new();
    for file in files {
        match read_manifests(file) {
            Ok(manifests) => found.extend(manifests.into_iter().filter(|manifest| {
                let id = &manifest.id;
                id.group.is_empty()
                    && id.kind == "ConfigMap"
                    && id.name == map.name
                    && id.namespace.as_deref().is_none_or(|namespace| namespace == map.namespace)
            })),
            Err(error) if must_be_read => bail!(error),
            // A file that is not a manifest is not a mistake: many files are templates, values or patches.
            Err(_) => {}
        }
    }
    Ok(found)
}
