//! The details that `gitseal status` prints below the line of an object that the user named.

use std::{collections::BTreeMap, fmt::Write as _};

use crds::{Dependency, ObjectReference, Repository, Sync};
use manifests::ObjectId;

use crate::{
    managed::{Managed, short_revision},
    output::{FAINT, styled},
};

/// How many kinds have a count of their own. The objects of all other kinds are counted together.
const KINDS: usize = 8;

/// Indented lines: names, each with a value of one or more lines.
#[derive(Default)]
pub struct Details(Vec<(&'static str, Vec<String>)>);

impl Details {
    /// The details of a Sync.
    pub fn of_sync(sync: &Sync) -> Self {
        let mut details = Self::default();
        details.add("Repository", Some(named(&sync.spec.repository)));
        details.add("Path", Some(sync.spec.path.clone()));
        details.add("Depends on", joined(sync.spec.depends_on.iter().map(dependency)));
        details.add("Writes as", sync.spec.service_account_name.as_ref().map(|name| format!("service account {name}")));
        let status = sync.status.as_ref();
        let tried = status.and_then(|status| status.last_attempted_revision.as_deref());
        details.add("Last tried", tried.filter(|tried| Some(*tried) != sync.revision()).map(short_revision));
        let objects =
            status.map(|status| status.inventory.iter().filter_map(|entry| ObjectId::from_inventory(&entry.id)));
        details.add("Objects", objects.and_then(counted));
        details.add_suspension(sync);
        let notes = status.and_then(|status| status.notes.as_deref());
        details.0.extend(notes.map(|notes| ("Notes", notes.lines().map(str::to_owned).collect())));
        details
    }

    /// The details of a Repository.
    pub fn of_repository(repository: &Repository) -> Self {
        let mut details = Self::default();
        details.add("URL", Some(repository.spec.url.clone()));
        details.add("Chart", repository.spec.chart.clone());
        let reference = repository.spec.reference.as_ref();
        let follows = reference.and_then(|reference| {
            let fields = [
                ("branch", &reference.branch),
                ("tag", &reference.tag),
                ("versions", &reference.semver),
                ("commit", &reference.commit),
                ("digest", &reference.digest),
            ];
            let set = fields.into_iter().filter_map(|(what, value)| Some(format!("{what} {}", value.as_ref()?)));
            // A digest may stand beside a tag.
            Some(set.collect::<Vec<_>>().join(" with ")).filter(|set| !set.is_empty())
        });
        let default = if repository.spec.chart.is_some() { "the newest version" } else { "the default branch" };
        details.add("Follows", Some(follows.unwrap_or_else(|| default.into())));
        details.add("Secret", repository.spec.secret_ref.as_ref().map(|secret| secret.name.clone()));
        details.add_suspension(repository);
        details
    }

    fn add(&mut self, name: &'static str, value: Option<String>) {
        self.0.extend(value.map(|value| (name, vec![value])));
    }

    fn add_suspension(&mut self, object: &impl Managed) {
        let reason = || object.suspend_reason().unwrap_or("no reason was given").to_owned();
        self.add("Suspended", object.is_suspended().then(reason));
    }

    /// Adds the lines to `out`.
    pub fn write(&self, out: &mut String) {
        let width = self.0.iter().map(|(name, _)| name.len() + 1).max().unwrap_or_default();
        for (name, lines) in &self.0 {
            for (number, line) in lines.iter().enumerate() {
                let line = manifests::in_one_line(line);
                match number {
                    0 => {
                        let name = styled(FAINT, format!("{:width$}", format!("{name}:")));
                        writeln!(out, "    {name}  {line}")
                    }
                    _ if line.is_empty() => writeln!(out),
                    _ => writeln!(out, "    {:width$}  {line}", ""),
                }
                .expect("text grows");
            }
        }
    }
}

fn named(reference: &ObjectReference) -> String {
    reference.namespace.as_ref().map_or_else(|| reference.name.clone(), |ns| format!("{ns}/{}", reference.name))
}

fn dependency(on: &Dependency) -> String {
    let reference = ObjectReference { name: on.name.clone(), namespace: on.namespace.clone() };
    on.kind().map_or_else(|| named(&reference), |(_, kind)| format!("{kind} {}", named(&reference)))
}

fn joined(names: impl Iterator<Item = String>) -> Option<String> {
    let names: Vec<_> = names.collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// `3: 2 ConfigMap, 1 Deployment`.
fn counted(objects: impl Iterator<Item = ObjectId>) -> Option<String> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for id in objects {
        *kinds.entry(id.kind).or_default() += 1;
    }
    let total: usize = kinds.values().sum();
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let more: usize = kinds.iter().skip(KINDS).map(|(_, count)| count).sum();
    let mut parts: Vec<_> = kinds.iter().take(KINDS).map(|(kind, count)| format!("{count} {kind}")).collect();
    if more > 0 {
        parts.push(format!("{more} of other kinds"));
    }
    (total > 0).then(|| format!("{total}: {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(details: &Details) -> String {
        let mut text = String::new();
        details.write(&mut text);
        crate::output::plain(&text)
    }

    #[test]
    fn a_sync_says_what_it_is_made_of() {
        let sync: Sync = serde_json::from_value(json!({
            "metadata": {"name": "web", "annotations": {"gitseal.dev/suspend-reason": "freeze\nuntil Monday"}},
            "spec": {"repository": {"name": "fleet", "namespace": "platform"}, "path": "./web", "suspend": true,
                "dependsOn": [{"name": "db"}, {"name": "crds", "namespace": "platform"},
                    {"apiVersion": "example.com/v1", "kind": "Database", "name": "orders"}]},
            "status": {"lastAppliedRevision": "main@sha1:11111111aa", "lastAttemptedRevision": "main@sha1:22222222aa",
                "inventory": [{"id": "t_a__ConfigMap", "v": "v1"}, {"id": "t_b__ConfigMap", "v": "v1"},
                    {"id": "t_c_apps_Deployment", "v": "v1"}],
                "notes": "Visit\n\n  https://web\u{1b}[2J"},
        }))
        .unwrap();
        let expected = "    Repository:  platform/fleet
    Path:        ./web
    Depends on:  db, platform/crds, Database orders
    Last tried:  main@22222222
    Objects:     3: 2 ConfigMap, 1 Deployment
    Suspended:   freeze\\nuntil Monday
    Notes:       Visit

                   https://web\\u{1b}[2J
";
        assert_eq!(text(&Details::of_sync(&sync)), expected);
    }

    #[test]
    fn a_repository_says_what_it_follows() {
        let repository = |reference| -> Repository {
            let spec = json!({"url": "https://git.example/x.git", "ref": reference});
            serde_json::from_value(json!({"metadata": {"name": "fleet"}, "spec": spec})).unwrap()
        };
        let told = text(&Details::of_repository(&repository(json!({"semver": ">=1.2"}))));
        assert_eq!(told, "    URL:      https://git.example/x.git\n    Follows:  versions >=1.2\n");
        assert!(text(&Details::of_repository(&repository(json!(null)))).contains("the default branch"));
    }
}
