//! Which Repositories to fetch, and which Syncs to apply after each.

use std::collections::{BTreeMap, BTreeSet};

use crds::{ObjectKey, Repository, Sync};
use kube::{Client, ResourceExt};

use crate::{
    found::{Either, Found},
    global::Global,
    managed::Managed,
    output::Hint,
    target::Target,
};

/// A Repository and those of its Syncs that are to be applied.
#[derive(Debug, Eq, PartialEq)]
pub struct Group {
    pub repository: ObjectKey,
    /// The Syncs that are applied after the Repository was fetched.
    pub syncs: Vec<ObjectKey>,
}

/// Everything that is to be done. The groups do not depend on each other.
#[derive(Debug, Eq, PartialEq)]
pub struct Plan {
    pub groups: Vec<Group>,
}

impl Plan {
    /// Finds the objects in the namespace that `targets` name, or all objects in it if `all` is true.
    pub async fn new(client: &Client, global: &Global, targets: &[Target], all: bool) -> anyhow::Result<Self> {
        let found = Found::read(client, global, false, None).await?;
        Planner { namespace: &global.default_namespace(), found: &found }.plan(targets, all)
    }
}

/// Fails if the object is suspended: the controller does nothing for it, so waiting would be pointless.
pub fn refuse_suspended(object: &impl Managed) -> anyhow::Result<()> {
    if !object.is_suspended() {
        return Ok(());
    }
    let (reference, namespace) = (object.reference(), object.namespace().unwrap_or_default());
    let because = object.suspend_reason().map(|reason| format!(": {reason}")).unwrap_or_default();
    Err(Hint::error(
        format!("{reference} is suspended{because}"),
        format!("`gitseal resume --namespace {namespace} {reference}` resumes it"),
    ))
}

/// Makes a [`Plan`] from the objects that were found in a namespace.
struct Planner<'a> {
    namespace: &'a str,
    found: &'a Found,
}

impl Planner<'_> {
    fn plan(&self, targets: &[Target], all: bool) -> anyhow::Result<Plan> {
        let mut wanted: BTreeMap<ObjectKey, BTreeSet<ObjectKey>> = BTreeMap::new();
        if all {
            for repository in self.found.repositories.iter().filter(|repository| !repository.spec.suspend) {
                self.add_repository(repository, &mut wanted);
            }
            // Then the other Syncs: those whose Repository is in another namespace, and those whose Repository does not
            // exist, which must be reported.
            let elsewhere = |sync: &&Sync| {
                let repository = self.repository_of(sync);
                repository.namespace != self.namespace || self.found.repository(&repository.name).is_none()
            };
            for sync in self.found.syncs.iter().filter(|sync| !sync.spec.suspend).filter(elsewhere) {
                self.add(sync, &mut wanted);
            }
        } else if targets.is_empty() {
            self.add_named(self.only_sync()?, &mut wanted)?;
        }
        for target in targets {
            match self.found.find(target)? {
                Either::Sync(sync) => self.add_named(sync, &mut wanted)?,
                Either::Repository(repository) => {
                    refuse_suspended(repository)?;
                    self.add_repository(repository, &mut wanted);
                }
            }
        }
        let groups =
            wanted.into_iter().map(|(repository, syncs)| Group { repository, syncs: syncs.into_iter().collect() });
        Ok(Plan { groups: groups.collect() })
    }

    fn name(&self, name: &str) -> ObjectKey {
        ObjectKey { namespace: self.namespace.to_owned(), name: name.to_owned() }
    }

    /// Adds a Repository and its Syncs, except suspended ones.
    fn add_repository(&self, repository: &Repository, wanted: &mut BTreeMap<ObjectKey, BTreeSet<ObjectKey>>) {
        let name = self.name(&repository.name_any());
        wanted.entry(name.clone()).or_default();
        for sync in self.found.syncs.iter().filter(|sync| !sync.spec.suspend && self.repository_of(sync) == name) {
            self.add(sync, wanted);
        }
    }

    fn repository_of(&self, sync: &Sync) -> ObjectKey {
        let repository = &sync.spec.repository;
        let namespace = repository.namespace.as_deref().unwrap_or(self.namespace);
        ObjectKey { namespace: namespace.to_owned(), name: repository.name.clone() }
    }

    /// Adds a Sync that was named. If the Sync cannot be synced, this is reported before anything is done.
    fn add_named(&self, sync: &Sync, wanted: &mut BTreeMap<ObjectKey, BTreeSet<ObjectKey>>) -> anyhow::Result<()> {
        refuse_suspended(sync)?;
        let repository = self.repository_of(sync);
        if repository.namespace == self.namespace {
            self.found.repository(&repository.name).map_or(Ok(()), refuse_suspended)?;
        }
        self.add(sync, wanted);
        Ok(())
    }

    fn add(&self, sync: &Sync, wanted: &mut BTreeMap<ObjectKey, BTreeSet<ObjectKey>>) {
        wanted.entry(self.repository_of(sync)).or_default().insert(self.name(&sync.name_any()));
    }

    fn only_sync(&self) -> anyhow::Result<&Sync> {
        match self.found.syncs.as_slice() {
            [sync] => Ok(sync),
            [] => Err(Hint::error(
                format!("{} has no Sync", self.found.place),
                "use --namespace for another namespace; `gitseal status --all-namespaces` shows all Syncs",
            )),
            [..] => Err(Hint::error(
                format!("{} has {} Syncs", self.found.place, self.found.syncs.len()),
                format!("name one or several, or use --all: {}", self.found.names()),
            )),
        }
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

    /// The plan as text, in the form `repository: sync sync`.
    fn plan(targets: &[&str], all: bool) -> anyhow::Result<Vec<String>> {
        let repositories = vec![repository("fleet"), repository("other")];
        let syncs = vec![
            sync("web", json!({"name": "fleet"}), false),
            sync("db", json!({"name": "fleet"}), false),
            sync("idle", json!({"name": "fleet"}), true),
            sync("shared", json!({"name": "base", "namespace": "platform"}), false),
        ];
        let targets: Vec<Target> = targets.iter().map(|target| target.parse().unwrap()).collect();
        let found = Found {
            namespace: Some("team".into()),
            selector: None,
            place: "namespace team".into(),
            repositories,
            syncs,
        };
        let groups = Planner { namespace: "team", found: &found }.plan(&targets, all)?.groups.into_iter().map(
            |Group { repository, syncs }| {
                let syncs: Vec<_> = syncs.iter().map(|sync| format!(" {}/{}", sync.namespace, sync.name)).collect();
                format!("{}/{}:{}", repository.namespace, repository.name, syncs.concat())
            },
        );
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
