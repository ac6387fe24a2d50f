//! Which Repositories to fetch, and which Syncs to apply after each.

use std::collections::{BTreeMap, BTreeSet};

use crds::{ObjectKey, Repository, Sync};
use kube::{Client, ResourceExt};
use pipeline::other_files;

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
    /// Other Repositories that these Syncs get values or variables from. They are fetched before the Syncs are applied, too.
    pub values: BTreeSet<ObjectKey>,
    /// The Syncs that are applied after the Repository was fetched.
    pub syncs: Vec<ObjectKey>,
}

/// Everything that is to be done. Groups may have the same Repositories for values; otherwise, they do not depend on each other.
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

    /// All Repositories that are fetched.
    pub fn repositories(&self) -> impl Iterator<Item = &ObjectKey> {
        let all = self.groups.iter().flat_map(|group| group.values.iter().chain([&group.repository]));
        all.collect::<BTreeSet<_>>().into_iter()
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

/// The Syncs that are wanted, by their Repository.
type Wanted = BTreeMap<ObjectKey, BTreeSet<ObjectKey>>;

/// Makes a [`Plan`] from the objects that were found in a namespace.
struct Planner<'a> {
    namespace: &'a str,
    found: &'a Found,
}

impl Planner<'_> {
    fn plan(&self, targets: &[Target], all: bool) -> anyhow::Result<Plan> {
        let mut wanted = Wanted::new();
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
        let groups = wanted.into_iter().map(|(repository, syncs)| {
            let values = self.found.syncs.iter().filter(|sync| syncs.contains(&self.name(&sync.name_any())));
            let values = values.flat_map(|sync| self.values_of(sync)).filter(|of_values| *of_values != repository);
            Group { values: values.collect(), repository, syncs: syncs.into_iter().collect() }
        });
        Ok(Plan { groups: groups.collect() })
    }

    fn name(&self, name: &str) -> ObjectKey {
        ObjectKey { namespace: self.namespace.to_owned(), name: name.to_owned() }
    }

    /// Adds a Repository and its Syncs, except suspended ones.
    fn add_repository(&self, repository: &Repository, wanted: &mut Wanted) {
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

    /// The other Repositories that a Sync gets values or variables from, except suspended ones: the controller uses what it
    /// fetched last from those.
    fn values_of(&self, sync: &Sync) -> impl Iterator<Item = ObjectKey> {
        let is_fetched = |key: &ObjectKey| {
            let found = (key.namespace == self.namespace).then(|| self.found.repository(&key.name)).flatten();
            found.is_none_or(|repository| !repository.spec.suspend)
        };
        other_files(sync).map(|file| file.repository()).filter(is_fetched).collect::<Vec<_>>().into_iter()
    }

    /// Adds a Sync that was named. If the Sync cannot be synced, this is reported before anything is done.
    fn add_named(&self, sync: &Sync, wanted: &mut Wanted) -> anyhow::Result<()> {
        refuse_suspended(sync)?;
        let repository = self.repository_of(sync);
        if repository.namespace == self.namespace {
            self.found.repository(&repository.name).map_or(Ok(()), refuse_suspended)?;
        }
        self.add(sync, wanted);
        Ok(())
    }

    fn add(&self, sync: &Sync, wanted: &mut Wanted) {
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

    /// A Sync of a chart, with values of these Repositories.
    fn chart(name: &str, values: &[Value]) -> Sync {
        let from = values.iter().map(|repository| json!({"repository": repository, "file": "a.yaml"}));
        let spec = json!({"repository": {"name": "fleet"}, "helm": {"valuesFrom": from.collect::<Vec<_>>()}});
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "team"}, "spec": spec})).unwrap()
    }

    /// The plan as text, in the form `repository: sync sync` or `repository + values: sync`.
    fn plan(targets: &[&str], all: bool) -> anyhow::Result<Vec<String>> {
        plan_of(targets, all, false)
    }

    fn plan_of(targets: &[&str], all: bool, with_charts: bool) -> anyhow::Result<Vec<String>> {
        let mut paused = repository("paused");
        paused.spec.suspend = true;
        let repositories = vec![repository("fleet"), repository("other"), paused];
        let syncs = vec![
            sync("web", json!({"name": "fleet"}), false),
            sync("db", json!({"name": "fleet"}), false),
            sync("idle", json!({"name": "fleet"}), true),
            sync("shared", json!({"name": "base", "namespace": "platform"}), false),
        ];
        let charts = [
            chart("cache", &[json!({"name": "other"}), json!({"name": "fleet"}), json!({"name": "paused"})]),
            chart("queue", &[json!({"name": "other"}), json!({"name": "config", "namespace": "platform"})]),
        ];
        let syncs: Vec<_> = syncs.into_iter().chain(charts.into_iter().filter(|_| with_charts)).collect();
        let targets: Vec<Target> = targets.iter().map(|target| target.parse().unwrap()).collect();
        let found = Found {
            namespace: Some("team".into()),
            selector: None,
            place: "namespace team".into(),
            repositories,
            syncs,
        };
        let groups = Planner { namespace: "team", found: &found }.plan(&targets, all)?.groups.into_iter().map(
            |Group { repository, values, syncs }| {
                let syncs: Vec<_> = syncs.iter().map(|sync| format!(" {}/{}", sync.namespace, sync.name)).collect();
                let values: Vec<_> = values.iter().map(|of_values| format!(" + {of_values}")).collect();
                format!("{}/{}{}:{}", repository.namespace, repository.name, values.concat(), syncs.concat())
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
    fn the_repositories_with_values_are_fetched_too() {
        let plan = |targets: &[&str]| plan_of(targets, false, true).unwrap();
        assert_eq!(plan(&["web"]), ["team/fleet: team/web"]);
        assert_eq!(plan(&["cache"]), ["team/fleet + team/other: team/cache"]);
        let both = "team/fleet + platform/config + team/other: team/cache team/queue team/web";
        assert_eq!(plan(&["cache", "queue", "web"]), [both]);
        assert_eq!(plan(&["cache", "other"]), ["team/fleet + team/other: team/cache", "team/other:"]);
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
