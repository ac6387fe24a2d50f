//! The Repositories and Syncs of one or all namespaces, and those of them that the command line names.

use anyhow::Context;
use crds::{Repository, Sync};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Resource, ResourceExt, api::ListParams, core::NamespaceResourceScope};

use crate::{
    completion,
    global::Global,
    managed::Managed,
    output::Hint,
    target::{Target, is_kind},
};

/// Which Repositories and Syncs a command is about, chosen as in kubectl.
#[derive(clap::Args)]
pub struct Choice {
    /// The objects: NAME (the Sync of this name or, if there is none, the Repository), sync/NAME or repository/NAME
    #[arg(value_name = "TARGET", add = completion::targets())]
    pub targets: Vec<Target>,

    /// In all namespaces
    #[arg(short = 'A', long, conflicts_with = "targets")]
    pub all_namespaces: bool,

    /// Only objects with these labels, such as team=shop,tier!=test
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "targets")]
    pub selector: Option<String>,
}

impl Choice {
    /// Reads everything that was chosen.
    ///
    /// # Errors
    /// The cluster does not answer, or a named object does not exist.
    pub async fn read(&self, client: &Client, global: &Global) -> anyhow::Result<Found> {
        let found = Found::read(client, global, self.all_namespaces, self.selector.as_deref()).await?;
        if self.targets.is_empty() { Ok(found) } else { found.only(&self.targets) }
    }
}

/// Repositories and Syncs.
pub struct Found {
    /// Their namespace; `None` for all.
    pub namespace: Option<String>,
    /// The namespace as messages name it; see [`Global::told_namespace`].
    pub place: String,
    /// The label selector with which they were chosen.
    pub selector: Option<String>,
    /// The Repositories.
    pub repositories: Vec<Repository>,
    /// The Syncs.
    pub syncs: Vec<Sync>,
}

/// A Repository or a Sync.
#[derive(Debug)]
pub enum Either<'a> {
    Repository(&'a Repository),
    Sync(&'a Sync),
}

impl Found {
    /// Reads the Repositories and Syncs of the namespace, or of all namespaces.
    ///
    /// # Errors
    /// The cluster does not answer or does not allow it, or the namespace does not exist.
    pub async fn read(
        client: &Client,
        global: &Global,
        all_namespaces: bool,
        selector: Option<&str>,
    ) -> anyhow::Result<Self> {
        let namespace = (!all_namespaces).then(|| global.default_namespace());
        let (repositories, syncs) = (api(client, namespace.as_deref()), api(client, namespace.as_deref()));
        let list = ListParams { label_selector: selector.map(str::to_owned), ..ListParams::default() };
        let (repositories, syncs) = futures::try_join!(repositories.list(&list), syncs.list(&list))
            .context("cannot list Repositories and Syncs")?;
        if let (Some(namespace), true) = (&namespace, repositories.items.is_empty() && syncs.items.is_empty()) {
            refuse_missing(client, global, namespace).await?;
        }
        let (place, selector) = (global.told_namespace(), selector.map(str::to_owned));
        Ok(Self { namespace, place, selector, repositories: repositories.items, syncs: syncs.items })
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.repositories.is_empty() && self.syncs.is_empty()
    }

    /// The object that `target` names. A name without a kind means a Sync if there is one.
    ///
    /// # Errors
    /// There is no such object. The hint names the objects that exist.
    pub fn find(&self, target: &Target) -> anyhow::Result<Either<'_>> {
        let (sync, repository) = match target {
            Target::Sync(name) => (self.sync(name), None),
            Target::Repository(name) => (None, self.repository(name)),
            Target::Either(name) => (self.sync(name), self.repository(name)),
        };
        let found = sync.map(Either::Sync).or(repository.map(Either::Repository));
        found.ok_or_else(|| self.missing(target))
    }

    /// The objects that `targets` name, each once.
    ///
    /// # Errors
    /// As for [`Found::find`].
    pub fn only(&self, targets: &[Target]) -> anyhow::Result<Self> {
        let (namespace, place, selector) = (self.namespace.clone(), self.place.clone(), self.selector.clone());
        let mut only = Self { namespace, place, selector, repositories: Vec::new(), syncs: Vec::new() };
        for target in targets {
            match self.find(target)? {
                Either::Sync(sync) if only.sync(&sync.name_any()).is_none() => only.syncs.push(sync.clone()),
                Either::Repository(repository) if only.repository(&repository.name_any()).is_none() => {
                    only.repositories.push(repository.clone());
                }
                Either::Sync(_) | Either::Repository(_) => {}
            }
        }
        Ok(only)
    }

    /// The Sync of this name.
    pub fn sync(&self, name: &str) -> Option<&Sync> {
        self.syncs.iter().find(|sync| sync.name_any() == name)
    }

    /// The Repository of this name.
    pub fn repository(&self, name: &str) -> Option<&Repository> {
        self.repositories.iter().find(|repository| repository.name_any() == name)
    }

    /// All found objects, with the names that the command line accepts.
    pub fn names(&self) -> String {
        /// How many names a hint shows at most.
        const SHOWN: usize = 20;
        let repositories = self.repositories.iter().map(Managed::reference);
        let mut names: Vec<_> = repositories.chain(self.syncs.iter().map(Managed::reference)).collect();
        let more = names.len().saturating_sub(SHOWN);
        names.truncate(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", names.join(", "))
    }

    /// The message that no Repository and no Sync was found, and where else to look.
    pub fn nothing(&self) -> String {
        let labels = self.selector.as_ref().map(|labels| format!(" has the labels {labels}")).unwrap_or_default();
        match &self.namespace {
            Some(_) => {
                format!("No Repository and no Sync in {}{labels}; --all-namespaces looks everywhere.", self.place)
            }
            None => format!("No Repository and no Sync in the cluster{labels}."),
        }
    }

    fn missing(&self, target: &Target) -> anyhow::Error {
        let what = match target {
            Target::Sync(name) => format!("Sync {name}"),
            Target::Repository(name) => format!("Repository {name}"),
            Target::Either(name) => format!("Sync or Repository {name}"),
        };
        let hint = if matches!(target, Target::Either(name) if is_kind(name)) {
            "this is a kind: leave it out to choose all objects; to name one, write sync/NAME or repository/NAME".into()
        } else if self.is_empty() {
            "this namespace has no Sync and no Repository; use --namespace for another namespace".into()
        } else {
            format!("there is: {}", self.names())
        };
        Hint::error(format!("{} has no {what}", self.place), hint)
    }
}

/// The API server answers a list request for a namespace that does not exist with an empty list. So if nothing was
/// found in `namespace`, this checks whether the namespace exists.
///
/// # Errors
/// The namespace does not exist. If this cannot be known, because the user may not read namespaces, it is no error.
pub async fn refuse_missing(client: &Client, global: &Global, namespace: &str) -> anyhow::Result<()> {
    match Api::<Namespace>::all(client.clone()).get_metadata_opt(namespace).await {
        Ok(None) => Err(Hint::error(
            format!("the cluster has no {}", global.told_namespace()),
            "use --namespace for another namespace; `gitseal status --all-namespaces` looks everywhere",
        )),
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

/// Turns the answer to a delete or a change into success if the object does not exist.
pub fn or_gone<T>(answer: kube::Result<T>) -> kube::Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        answer => answer.map(drop),
    }
}

/// The API for one kind in a namespace, or in all.
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hint_names_twenty_objects() {
        let found = |count: usize| {
            Found {
            namespace: None,
            place: "the cluster".into(),
            selector: None,
            repositories: Vec::new(),
            syncs: (0..count)
                .map(|number| {
                    let spec = json!({"repository": {"name": "repo"}});
                    let metadata = json!({"namespace": "team", "name": format!("s{number:02}")});
                    let sync = json!({"apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": metadata, "spec": spec});
                    serde_json::from_value(sync).expect("a Sync")
                })
                .collect(),
        }
        };
        assert!(found(20).names().ends_with(", sync/s19"), "{}", found(20).names());
        assert!(found(25).names().ends_with(", sync/s19 and 5 more"), "{}", found(25).names());
    }
}
