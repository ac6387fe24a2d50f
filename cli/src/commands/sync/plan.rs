//! Which Repositories to fetch, and which Syncs to apply after each.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use crds::{Repository, Sync};
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::Target;
use crate::output::Hint;

/// An object of a kind that is known from where it stands.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Name {
    pub namespace: String,
    pub name: String,
}

/// A Repository and those of its Syncs that were asked for.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Group {
    pub repository: Option<Name>,
    /// Empty: those that the Repository changes.
    pub syncs: Vec<Name>,
}

/// All that is to be done; the groups are independent of each other.
#[derive(Debug, Eq, PartialEq)]
pub struct Plan {
    pub groups: Vec<Group>,
}

impl Plan {
    /// Finds out what `targets` (or everything) means in `namespace`.
    pub async fn new(
        client: &Client,
        namespace: &str,
        targets: &[Target],
        all: bool,
    ) -> anyhow::Result<Self> {
        let list = ListParams::default();
        let (repositories, syncs) = futures::try_join!(
            async {
                Api::<Repository>::namespaced(client.clone(), namespace)
                    .list(&list)
                    .await
            },
            async {
                Api::<Sync>::namespaced(client.clone(), namespace)
                    .list(&list)
                    .await
            },
        )
        .context("cannot list Repositories and Syncs")?;
        Found {
            namespace,
            repositories: &repositories.items,
            syncs: &syncs.items,
        }
        .plan(targets, all)
    }
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
            for repository in self
                .repositories
                .iter()
                .filter(|repository| !repository.spec.suspend)
            {
                wanted.entry(self.name(&repository.name_any())).or_default();
            }
            for sync in self.syncs.iter().filter(|sync| !sync.spec.suspend) {
                self.add(sync, &mut wanted);
            }
        } else if targets.is_empty() {
            self.add(self.only_sync()?, &mut wanted);
        }
        for target in targets {
            match target {
                Target::Sync(name) => self.add(
                    self.sync(name).ok_or_else(|| self.missing("Sync", name))?,
                    &mut wanted,
                ),
                Target::Repository(name) if !self.has_repository(name) => {
                    return Err(self.missing("Repository", name));
                }
                Target::Repository(name) => _ = wanted.entry(self.name(name)).or_default(),
                Target::Either(name) => match self.sync(name) {
                    Some(sync) => self.add(sync, &mut wanted),
                    None if self.has_repository(name) => {
                        wanted.entry(self.name(name)).or_default();
                    }
                    None => return Err(self.missing("Sync or Repository", name)),
                },
            }
        }
        let groups = wanted.into_iter().map(|(repository, syncs)| Group {
            repository: Some(repository),
            syncs: syncs.into_iter().collect(),
        });
        Ok(Plan {
            groups: groups.collect(),
        })
    }

    fn name(&self, name: &str) -> Name {
        Name {
            namespace: self.namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn sync(&self, name: &str) -> Option<&Sync> {
        self.syncs.iter().find(|sync| sync.name_any() == name)
    }

    fn has_repository(&self, name: &str) -> bool {
        self.repositories
            .iter()
            .any(|repository| repository.name_any() == name)
    }

    fn add(&self, sync: &Sync, wanted: &mut BTreeMap<Name, BTreeSet<Name>>) {
        let repository = &sync.spec.repository;
        let namespace = repository.namespace.as_deref().unwrap_or(self.namespace);
        let repository = Name {
            namespace: namespace.to_owned(),
            name: repository.name.clone(),
        };
        wanted
            .entry(repository)
            .or_default()
            .insert(self.name(&sync.name_any()));
    }

    fn only_sync(&self) -> anyhow::Result<&Sync> {
        match self.syncs {
            [sync] => Ok(sync),
            [] => Err(Hint::error(
                format!("namespace {} has no Sync", self.namespace),
                "choose another with --namespace; `gitseal status --all-namespaces` shows all",
            )),
            [..] => Err(Hint::error(
                format!(
                    "namespace {} has {} Syncs",
                    self.namespace,
                    self.syncs.len()
                ),
                format!("name one or several, or use --all: {}", self.names()),
            )),
        }
    }

    fn missing(&self, kind: &str, name: &str) -> anyhow::Error {
        let names = self.names();
        let hint = if names.is_empty() {
            "there is none at all; choose another --namespace".into()
        } else {
            names
        };
        Hint::error(
            format!("namespace {} has no {kind} {name}", self.namespace),
            format!("there is: {hint}"),
        )
    }

    fn names(&self) -> String {
        let repositories = self
            .repositories
            .iter()
            .map(|repository| format!("repository/{}", repository.name_any()));
        let syncs = self
            .syncs
            .iter()
            .map(|sync| format!("sync/{}", sync.name_any()));
        repositories.chain(syncs).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn repository(name: &str) -> Repository {
        serde_json::from_value(
            json!({"metadata": {"name": name}, "spec": {"url": "https://git.example/x"}}),
        )
        .unwrap()
    }

    fn sync(name: &str, repository: serde_json::Value) -> Sync {
        serde_json::from_value(
            json!({"metadata": {"name": name}, "spec": {"repository": repository}}),
        )
        .unwrap()
    }

    fn name(namespace: &str, name: &str) -> Name {
        Name {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    fn plan(targets: &[&str], all: bool) -> anyhow::Result<Plan> {
        let repositories = [repository("fleet"), repository("other")];
        let syncs = [
            sync("web", json!({"name": "fleet"})),
            sync("db", json!({"name": "fleet"})),
            sync("shared", json!({"name": "base", "namespace": "platform"})),
        ];
        let targets: Vec<Target> = targets
            .iter()
            .map(|target| target.parse().unwrap())
            .collect();
        Found {
            namespace: "team",
            repositories: &repositories,
            syncs: &syncs,
        }
        .plan(&targets, all)
    }

    #[test]
    fn a_sync_brings_its_repository_which_is_fetched_once() {
        let plan = plan(&["web", "sync/db"], false).unwrap();
        let syncs = vec![name("team", "db"), name("team", "web")];
        assert_eq!(
            plan.groups,
            [Group {
                repository: Some(name("team", "fleet")),
                syncs
            }]
        );
    }

    #[test]
    fn a_repository_brings_no_sync() {
        let plan = plan(&["repository/fleet"], false).unwrap();
        assert_eq!(
            plan.groups,
            [Group {
                repository: Some(name("team", "fleet")),
                syncs: vec![]
            }]
        );
    }

    #[test]
    fn a_repository_of_another_namespace_is_fetched_there() {
        let plan = plan(&["shared"], false).unwrap();
        assert_eq!(plan.groups[0].repository, Some(name("platform", "base")));
        assert_eq!(plan.groups[0].syncs, [name("team", "shared")]);
    }

    #[test]
    fn all_is_everything_of_the_namespace() {
        let plan = plan(&[], true).unwrap();
        let of: Vec<_> = plan
            .groups
            .iter()
            .map(|g| (g.repository.clone().unwrap().name, g.syncs.len()))
            .collect();
        assert_eq!(
            of,
            [("base".into(), 1), ("fleet".into(), 2), ("other".into(), 0)]
        );
    }

    #[test]
    fn a_wrong_name_lists_the_right_ones() {
        let error = plan(&["wbe"], false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "namespace team has no Sync or Repository wbe"
        );
        assert!(
            plan(&[], false)
                .unwrap_err()
                .to_string()
                .contains("has 3 Syncs")
        );
    }
}
