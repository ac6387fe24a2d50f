//! What charts get from outside of their own repositories, for commands that render without a controller.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, bail};
use crds::{ObjectKey, Sync};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use manifests::{Limits, Manifest, parse};
use pipeline::{OtherFile, ValuesMap, other_files, repository_of, values_maps};
use renderer::{At, Capabilities, Input, Inputs, Repository};
use serde_json::Value;

use crate::{
    folder,
    manifest_files::manifest_files,
    output::Hint,
    working_copy::{Unread, WorkingCopy},
};

/// Everything that charts are rendered with, except the files of their own repository.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// What templates see of the cluster.
    pub capabilities: Capabilities,
    /// Where the files of other Repositories are.
    pub clones: Clones,
}

/// Flags of commands that render what Syncs apply.
#[derive(clap::Args)]
pub struct InputArgs {
    /// Local clone of a Repository that the field valuesFrom of a Sync names, for example `config=../config`. A
    /// Repository of another namespace is named NAMESPACE/NAME
    #[arg(long, value_name = "NAME=PATH")]
    values_repository: Vec<LocalClone>,

    /// File with a ConfigMap that the field valuesFrom of a Sync names. ConfigMaps in files of the repository are found
    /// without this flag
    #[arg(long, value_name = "FILE")]
    values_config_map: Vec<PathBuf>,
}

impl InputArgs {
    /// The clones, and the files with ConfigMaps, that the user named.
    pub fn clones(&self) -> Clones {
        let (named, map_files) = (self.values_repository.clone(), self.values_config_map.clone());
        Clones { named, map_files, ..Clones::default() }
    }
}

/// A local folder that is a clone of the Repository `name`.
#[derive(Clone, Debug)]
struct LocalClone {
    name: String,
    path: PathBuf,
}

impl FromStr for LocalClone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                Ok(Self { name: name.to_owned(), path: path.into() })
            }
            _ => Err("it is not NAME=PATH, for example config=../config".to_owned()),
        }
    }
}

/// Local clones of Repositories, and where ConfigMaps are.
#[derive(Clone, Default)]
pub struct Clones {
    /// The clones that the user named. A name without a namespace names a Repository in the namespace of the Sync.
    named: Vec<LocalClone>,
    /// The top folders of clones that the command knows without a flag.
    known: BTreeMap<ObjectKey, PathBuf>,
    /// The files with ConfigMaps that the user named.
    map_files: Vec<PathBuf>,
    /// ConfigMaps that were read from the cluster.
    maps: BTreeMap<ObjectKey, BTreeMap<String, String>>,
    /// The top folder of the repository whose files may have ConfigMaps.
    root: Option<PathBuf>,
}

impl Clones {
    /// These clones, for a Sync in the repository with the top folder `root`.
    pub fn in_repository(&self, root: &Path) -> Self {
        Self { root: Some(root.to_owned()), ..self.clone() }
    }

    /// Reads from the cluster the ConfigMaps that the chart of `sync` gets values from. A ConfigMap that is not in the
    /// cluster is no error, because it may be in a file of the repository.
    ///
    /// # Errors
    /// A ConfigMap cannot be read.
    pub async fn read_maps(&mut self, client: &Client, sync: &Sync) -> anyhow::Result<()> {
        for map in values_maps(sync) {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), map.namespace);
            let read = api.get_opt(map.name).await.with_context(|| format!("cannot read {}", map.map()))?;
            let key = ObjectKey::new(map.namespace, map.name);
            self.maps.extend(read.map(|read| (key, read.data.unwrap_or_default())));
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
    /// There is no clone of a Repository, or the clone does not have the file.
    pub fn inputs_of(&self, sync: &Sync, own: &impl Repository<Error = Unread>) -> anyhow::Result<Inputs> {
        let mut inputs = Inputs::new();
        for file in other_files(sync) {
            let repository = file.repository();
            let (found, place) = match self.clone_of(&file, sync) {
                Some(path) => {
                    let (root, _) = folder::place(path)?;
                    (WorkingCopy { root }.at(file.path), path.display().to_string())
                }
                None if repository == repository_of(sync) => (own.at(file.path), "the repository".to_owned()),
                None => return Err(no_clone(&file)),
            };
            match found.map_err(|Unread(error)| error)? {
                At::File(content) => inputs.insert(file.index, Input { name: file.name(), content: content.into() }),
                At::Directory(_) | At::Nothing => {
                    return Err(Hint::error(
                        format!("{}: there is no such file in {place}", file.name()),
                        format!("correct {} of the Sync, or update the clone", file.field()),
                    ));
                }
            };
        }
        for map in values_maps(sync) {
            let content = self.text_of(map)?.into_bytes().into();
            inputs.insert(map.index, Input { name: map.place(), content });
        }
        Ok(inputs)
    }

    /// The values in a ConfigMap. The ConfigMap is in a file that the user named, in the cluster, or in a file of the
    /// repository.
    fn text_of(&self, map: ValuesMap<'_>) -> anyhow::Result<String> {
        let mut found = maps_in(&self.map_files, map, true)?;
        if found.is_empty()
            && let Some(data) = self.maps.get(&ObjectKey::new(map.namespace, map.name))
        {
            return data.get(map.key).cloned().with_context(|| format!("{} has no key {}", map.map(), map.key));
        }
        if found.is_empty()
            && let Some(root) = &self.root
        {
            found = maps_in(&manifest_files(root, root, None)?, map, false)?;
        }
        match found.as_slice() {
            [] => Err(no_map(map)),
            [one] => {
                let text = one.body.get("data").and_then(|data| data.get(map.key)).and_then(Value::as_str);
                text.map(str::to_owned).with_context(|| format!("{}: {} has no key {}", one.origin, map.map(), map.key))
            }
            [one, other, ..] => Err(Hint::error(
                format!("{} is in {} and in {}", map.map(), one.origin, other.origin),
                "name the file whose values count: --values-config-map FILE",
            )),
        }
    }

    fn clone_of(&self, file: &OtherFile<'_>, sync: &Sync) -> Option<&PathBuf> {
        let repository = file.repository();
        let is_in_namespace = sync.metadata.namespace.as_ref() == Some(&repository.namespace);
        let is_it = |name: &str| name == repository.to_string() || is_in_namespace && name == repository.name;
        let named = self.named.iter().find(|clone| is_it(&clone.name)).map(|clone| &clone.path);
        named.or_else(|| self.known.get(&repository))
    }
}

fn no_clone(file: &OtherFile<'_>) -> anyhow::Error {
    let repository = file.repository();
    Hint::error(
        format!(
            "{} of the Sync names a file of Repository {repository}, and this command reads only local files",
            file.field()
        ),
        format!("give the path of a clone: --values-repository {repository}=PATH"),
    )
}

fn no_map(map: ValuesMap<'_>) -> anyhow::Error {
    Hint::error(
        format!("{} of the Sync names {}, and no file of the repository has it", map.field(), map.map()),
        format!(
            "give a file with it: kubectl get configmap -n {} {} -o yaml > FILE, and --values-config-map FILE",
            map.namespace, map.name
        ),
    )
}

/// The ConfigMaps in these files that may be the one that `map` names. With `must_be_read`, a file that is not a
/// manifest is an error.
fn maps_in(files: &[PathBuf], map: ValuesMap<'_>, must_be_read: bool) -> anyhow::Result<Vec<Manifest>> {
    let mut found = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let read = fs::read(file).with_context(|| format!("cannot read {name}"));
        let parsed = read.and_then(|bytes| Ok(parse(&name, &bytes, &Limits::default())?));
        match parsed {
            Ok(manifests) => found.extend(manifests.into_iter().filter(|manifest| {
                let id = &manifest.id;
                id.group.is_empty()
                    && id.kind == "ConfigMap"
                    && id.name == map.name
                    && id.namespace.as_deref().is_none_or(|namespace| namespace == map.namespace)
            })),
            Err(error) if must_be_read => bail!(error),
            // Such a file is not a mistake: many files are templates, values or patches.
            Err(_) => {}
        }
    }
    Ok(found)
}
