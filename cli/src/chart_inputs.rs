//! What charts get from outside of their own repositories, for commands that render without a controller.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr};

use crds::{ObjectKey, Sync};
use pipeline::{OtherFile, other_files, repository_of};
use renderer::{At, Capabilities, Input, Inputs, Repository};

use crate::{
    folder,
    output::Hint,
    working_copy::{Unread, WorkingCopy},
};

/// Everything besides the files of a repository that charts are rendered with.
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
}

impl InputArgs {
    /// The clones that were given.
    pub fn clones(&self) -> Clones {
        Clones { named: self.values_repository.clone(), known: BTreeMap::new() }
    }
}

/// Which folder is a clone of which Repository.
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

/// Local clones of Repositories.
#[derive(Clone, Default)]
pub struct Clones {
    /// The clones that the user named. A name without a namespace is one of the namespace of the Sync.
    named: Vec<LocalClone>,
    /// The top folders of clones that were found.
    known: BTreeMap<ObjectKey, PathBuf>,
}

impl Clones {
    /// Notes that the folder `root` is a clone of `repository`.
    pub fn add(&mut self, repository: ObjectKey, root: PathBuf) {
        self.known.insert(repository, root);
    }

    /// What the chart of `sync` gets from elsewhere. `own` is the repository of the chart.
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
        Ok(inputs)
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
