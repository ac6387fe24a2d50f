//! Which Repositories to fetch, and which Syncs to apply after each.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use crds::{Repository, Sync};
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::Target;
use crate::{managed::Managed, output::Hint};

/// An object of a kind that is known from where it stands.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Name {
    pub namespace: String,
    pub name: String,
}

/// A Repository and those of its Syncs that were asked for.
#[derive(Debug, Eq, PartialEq)]
pub struct Group {
    pub repository: Name,
    /// To be applied once the Repository is fetched.
    pub syncs: Vec<Name>,
}

/// All that is to be done; the groups are independent of each other.
#[derive(Debug, Eq, PartialEq)]
pub struct Plan {
    pub groups: Vec<Group>,
}

impl Plan {
    /// Finds out what `targets` (or everything) means in `namespace`.
    pub async fn new(client: &Client, namespace: &str, targets: &[Target], all: bool) -> anyhow::Result<Self> {
        let list = ListParams::default();
        let (repositories, syncs) = futures::try_join!(
            async { Api::<Repository>::namespaced(client.clone(), namespace).list(&list).await },
            async { Api::<Sync>::namespaced(client.clone(), namespace).list(&list).await },
        )
        .context("cannot list Repositories and Syncs")?;
        Found { namespace, repositories: &repositories.items, syncs: &syncs.items }.plan(targets, all)
    }
}

/// The controller leaves a suspended object alone: waiting for it would be in vain.
pub fn refuse_suspended(object: &impl Managed) -> anyhow::Result<()> {
    if !object.is_suspended() {
        return Ok(());
    }
    let (reference, namespace) = (object.reference(), object.namespace().unwrap_or_default());
    let resume = r#"{"spec":{"suspend":false}}"#;
    Err(Hint::error(
        format!("{reference} is suspended"),
        format!("kubectl --namespace {namespace} patch {reference} --type merge --patch '{resume}'"),
    ))
}

/// What there is.
struct Found<'a> {
    namespace: &'a str,
    repositories: &'a [Repository],
    syncs: &'a [Sync],
}

impl Found<'_> {
    fn plan(&self, targets: &[Target], all: bool) -> anyhow::Result<Plan> {
        let mut wanted: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        if all {
            for repository in self.repositories.iter().filter(|repository| !repository.spec.suspend) {
                self.add_repository(repository, &mut wanted);
            }
            // Those of other Repositories, also of one that does not exist: that it is missing must come out.
            let elsewhere = |sync: &&Sync| {
                let repository = self.repository_of(sync);
                repository.namespace != self.namespace || self.repository(&repository.name).is_none()
            };
            for sync in self.syncs.iter().filter(|sync| !sync.spec.suspend).filter(elsewhere) {
                self.add(sync, &mut wanted);
            }
        } else if targets.is_empty() {
            self.add_named(self.only_sync()?, &mut wanted)?;
        }
        for target in targets {
            let (sync, repository) = match target {
                Target::Sync(name) => (self.sync(name), None),
                Target::Repository(name) => (None, self.repository(name)),
                Target::Either(name) => (self.sync(name), self.repository(name)),
            };
            match (sync, repository) {
                (Some(sync), _) => self.add_named(sync, &mut wanted)?,
                (None, Some(repository)) => {
                    refuse_suspended(repository)?;
                    self.add_repository(repository, &mut wanted);
                }
                (None, None) => return Err(self.missing(target)),
            }
        }
        let groups =
            wanted.into_iter().map(|(repository, syncs)| Group { repository, syncs: syncs.into_iter().collect() });
        Ok(Plan { groups: groups.collect() })
    }

    fn name(&self, name: &str) -> Name {
        Name { namespace: self.namespace.to_owned(), name: name.to_owned() }
    }

    fn sync(&self, name: &str) -> Option<&Sync> {
        self.syncs.iter().find(|sync| sync.name_any() == name)
    }

    fn repository(&self, name: &str) -> Option<&Repository> {
        self.repositories.iter().find(|repository| repository.name_any() == name)
    }

    /// A Repository, and its Syncs but for the suspended.
    fn add_repository(&self, repository: &Repository, wanted: &mut BTreeMap<Name, BTreeSet<Name>>) {
        let name = self.name(&repository.name_any());
        wanted.entry(name.clone()).or_default();
        for sync in self.syncs.iter().filter(|sync| !sync.spec.suspend && self.repository_of(sync) == name) {
            self.add(sync, wanted);
        }
    }

    fn repository_of(&self, sync: &Sync) -> Name {
        let repository = &sync.spec.repository;
        let namespace = repository.namespace.as_deref().unwrap_or(self.namespace);
        Name { namespace: namespace.to_owned(), name: repository.name.clone() }
    }

    /// A Sync that was asked for by name: what is in its way is said before anything is done.
    fn add_named(&self, sync: &Sync, wanted: &mut BTreeMap<Name, BTreeSet<Name>>) -> anyhow::Result<()> {
        refuse_suspended(sync)?;
        let repository = self.repository_of(sync);
        if repository.namespace == self.namespace {
            self.repository(&repository.name).map_or(Ok(()), refuse_suspended)?;
        }
        self.add(sync, wanted);
        Ok(())
    }

    fn add(&self, sync: &Sync, wanted: &mut BTreeMap<Name, BTreeSet<Name>>) {
        wanted.entry(self.repository_of(sync)).or_default().insert(self.name(&sync.name_any()));
    }

    fn only_sync(&self) -> anyhow::Result<&Sync> {
        match self.syncs {
            [sync] => Ok(sync),
            [] => Err(Hint::error(
                format!("namespace {} has no Sync", self.namespace),
                "choose another with --namespace; `gitseal status --all-namespaces` shows all",
            )),
            [..] => Err(Hint::error(
                format!("namespace {} has {} Syncs", self.namespace, self.syncs.len()),
                format!("name one or several, or use --all: {}", self.names()),
            )),
        }
    }

    fn missing(&self, target: &Target) -> anyhow::Error {
        let what = match target {
            Target::Sync(name) => format!("Sync {name}"),
            Target::Repository(name) => format!("Repository {name}"),
            Target::Either(name) => format!("Sync or Repository {name}"),
        };
        let names = self.names();
        let hint = if names.is_empty() {
            "there is none at all; choose another --namespace".into()
        } else {
            format!("there is: {names}")
        };
        Hint::error(format!("namespace {} has no {what}", self.namespace), hint)
    }

    fn names(&self) -> String {
        let repositories = self.repositories.iter().map(|repository| format!("repository/{}", repository.name_any()));
        let syncs = self.syncs.iter().map(|sync| format!("sync/{}", sync.name_any()));
        repositories.chain(syncs).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn repository(name: &str) -> Repository {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"url": "https://git.example/x"}})).unwrap()
    }

    fn sync(name: &str, repository: Value, suspend: bool) -> Sync {
        serde_json::from_value(
            json!({"metadata": {"name": name}, "spec": {"repository": repository, "suspend": suspend}}),
        )
        .unwrap()
    }

    /// What is synced, as `repository: sync sync`.
    fn plan(targets: &[&str], all: bool) -> anyhow::Result<Vec<String>> {
        let repositories = [repository("fleet"), repository("other")];
        let syncs = [
            sync("web", json!({"name": "fleet"}), false),
            sync("db", json!({"name": "fleet"}), false),
            sync("idle", json!({"name": "fleet"}), true),
            sync("shared", json!({"name": "base", "namespace": "platform"}), false),
        ];
        let targets: Vec<Target> = targets.iter().map(|target| target.parse().unwrap()).collect();
        let found = Found { namespace: "team", repositories: &repositories, syncs: &syncs };
        let groups = found.plan(&targets, all)?.groups.into_iter().map(|Group { repository, syncs }| {
            let syncs: Vec<_> = syncs.iter().map(|sync| format!(" {}/{}", sync.namespace, sync.name)).collect();
            format!("{}/{}:{}", repository.namespace, repository.name, syncs.concat())
        });
        Ok(groups.collect())
    }

    #[test]
    fn a_sync_brings_its_repository_which_is_fetched_once() {
        assert_eq!(plan(&["web", "sync/db"], false).unwrap(), ["team/fleet: team/db team/web"]);
        assert_eq!(plan(&["shared"], false).unwrap(), ["platform/base: team/shared"]);
    }

    #[test]
    fn a_repository_brings_its_syncs_but_the_suspended() {
        assert_eq!(plan(&["repository/fleet"], false).unwrap(), ["team/fleet: team/db team/web"]);
        assert_eq!(plan(&["other"], false).unwrap(), ["team/other:"]);
    }

    #[test]
    fn a_suspended_sync_that_is_named_is_not_passed_over() {
        let error = plan(&["idle"], false).unwrap_err();
        assert_eq!(error.to_string(), "sync/idle is suspended");
    }

    #[test]
    fn all_is_everything_of_the_namespace() {
        let all = ["platform/base: team/shared", "team/fleet: team/db team/web", "team/other:"];
        assert_eq!(plan(&[], true).unwrap(), all);
    }

    #[test]
    fn a_wrong_name_lists_the_right_ones() {
        let error = plan(&["wbe"], false).unwrap_err();
        assert_eq!(error.to_string(), "namespace team has no Sync or Repository wbe");
        assert!(plan(&["sync/fleet"], false).is_err());
        assert!(plan(&[], false).unwrap_err().to_string().contains("has 4 Syncs"));
    }
}
