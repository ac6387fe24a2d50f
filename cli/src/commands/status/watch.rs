//! `gitseal status --watch`: prints the table once, then a line for each change. It uses watches and does not poll.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
};

use crds::{ObjectKey, Repository, Sync};
use futures::{
    StreamExt, TryStreamExt,
    future::ready,
    stream::{self, select},
};
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};

use serde_json::Value;

use super::{
    drift::{self, Drift, Drifts},
    row::{Row, Rows},
};
use crate::{
    following::interrupted,
    found::{Choice, Found, api},
    managed::{self, Managed},
    output::{self, OutputFormat},
};

/// What identifies an object: its namespace and its reference, for example `sync/NAME`.
type Key = (String, String);

/// A watch event, with all that is shown of the object.
enum Change {
    Restarted(&'static str),
    Listed(&'static str, Row),
    Complete(&'static str),
    Applied(Row),
    Deleted(Row),
    Drifted(ObjectKey, Drift),
}

/// The objects that are followed.
pub struct Watched {
    client: Client,
    namespace: Option<String>,
    repositories: Api<Repository>,
    syncs: Api<Sync>,
    config: watcher::Config,
    with_namespace: bool,
    /// The objects that were named; `None` for all.
    only: Option<BTreeSet<Key>>,
}

impl Watched {
    /// Watches the objects of `choice`; `found` are those that exist now.
    pub fn new(client: &Client, choice: &Choice, found: &Found) -> Self {
        let namespace = found.namespace.as_deref();
        let names = found.repositories.iter().map(key_of).chain(found.syncs.iter().map(key_of));
        let config = watcher::Config::default();
        Self {
            client: client.clone(),
            namespace: found.namespace.clone(),
            repositories: api(client, namespace),
            syncs: api(client, namespace),
            config: match &choice.selector {
                Some(labels) => config.labels(labels),
                None => config,
            },
            with_namespace: choice.all_namespaces,
            only: (!choice.targets.is_empty()).then(|| names.collect()),
        }
    }

    /// Prints every change until the user interrupts the command: the stream of changes does not end by itself.
    pub async fn follow(self, format: Option<OutputFormat>) -> anyhow::Result<()> {
        let Self { client, namespace, repositories, syncs, config, with_namespace, only } = self;
        let only = only.as_ref();
        if let Some(format) = format {
            let objects = select(objects(repositories, &config, only), objects(syncs, &config, only));
            return print_each(objects, format).await;
        }
        let drifts = Drifts::read(&client, namespace.as_deref()).await;
        let drifted = match &drifts {
            Some(_) => drift::follow(&client, namespace.as_deref()).left_stream(),
            // The user may not read events; `Drifts::read` has printed a warning.
            None => stream::empty().right_stream(),
        };
        let drifted = drifted.map_ok(|(sync, drift)| Change::Drifted(sync, drift));
        let mut screen = Screen::new(with_namespace, drifts.unwrap_or_default());
        let changes = select(changes(repositories, &config, only), changes(syncs, &config, only));
        let mut changes = pin!(select(changes, drifted));
        while let Some(change) = changes.next().await {
            match change {
                Ok(change) => output::print(screen.text(change, Timestamp::now()))?,
                Err(error) => interrupted(&error),
            }
        }
        Ok(())
    }
}

fn changes<K: Managed>(
    api: Api<K>,
    config: &watcher::Config,
    only: Option<&BTreeSet<Key>>,
) -> impl futures::Stream<Item = Result<Change, watcher::Error>> {
    let is_meant = move |object: &K| only.is_none_or(|only| only.contains(&key_of(object)));
    let changes = watcher(api, config.clone()).default_backoff().map_ok(move |event| match event {
        Event::Init => Some(Change::Restarted(K::KIND)),
        Event::InitApply(object) => is_meant(&object).then(|| Change::Listed(K::KIND, Row::of(&object))),
        Event::InitDone => Some(Change::Complete(K::KIND)),
        Event::Apply(object) => is_meant(&object).then(|| Change::Applied(Row::of(&object))),
        Event::Delete(object) => is_meant(&object).then(|| Change::Deleted(Row::of(&object))),
    });
    changes.try_filter_map(|change| ready(Ok(change)))
}

/// Every chosen object as it is now, and again whenever it changes.
fn objects<K: Managed>(
    api: Api<K>,
    config: &watcher::Config,
    only: Option<&BTreeSet<Key>>,
) -> impl futures::Stream<Item = Result<anyhow::Result<Value>, watcher::Error>> {
    let is_meant = move |object: &K| only.is_none_or(|only| only.contains(&key_of(object)));
    let objects = watcher(api, config.clone()).default_backoff().applied_objects();
    objects.try_filter_map(move |object| ready(Ok(is_meant(&object).then(|| managed::as_shown(&object)))))
}

/// Prints objects one after the other, as kubectl does.
async fn print_each(
    objects: impl futures::Stream<Item = Result<anyhow::Result<Value>, watcher::Error>>,
    format: OutputFormat,
) -> anyhow::Result<()> {
    let mut objects = pin!(objects);
    while let Some(object) = objects.next().await {
        match object {
            Ok(object) => output::print(format.document(&object?)?)?,
            Err(error) => interrupted(&error),
        }
    }
    Ok(())
}

/// What has been printed so far.
struct Screen {
    rows: Rows,
    with_namespace: bool,
    shown: BTreeMap<Key, Row>,
    /// Kinds whose first list has not arrived yet.
    missing: BTreeSet<&'static str>,
    /// For each kind, the objects that the list in progress has shown so far.
    listed: BTreeMap<&'static str, BTreeMap<Key, Row>>,
    /// The drift that was printed so far, or that the first table will show.
    drifts: Drifts,
}

impl Screen {
    fn new(with_namespace: bool, drifts: Drifts) -> Self {
        Self {
            rows: Rows::new(with_namespace, []),
            with_namespace,
            shown: BTreeMap::new(),
            missing: BTreeSet::from([Repository::KIND, Sync::KIND]),
            listed: BTreeMap::new(),
            drifts,
        }
    }

    /// The text to print for `change`; may be empty.
    fn text(&mut self, change: Change, now: Timestamp) -> String {
        match change {
            Change::Restarted(kind) => {
                self.listed.insert(kind, BTreeMap::new());
                String::new()
            }
            Change::Listed(kind, row) => {
                self.listed.entry(kind).or_default().insert(key(&row), row);
                String::new()
            }
            Change::Complete(kind) => self.complete(kind, now),
            Change::Applied(row) => self.update(row, now),
            Change::Deleted(row) => self.delete(&key(&row), now),
            Change::Drifted(sync, drift) => self.drifted(sync, drift, now),
        }
    }

    fn complete(&mut self, kind: &'static str, now: Timestamp) -> String {
        let listed = self.listed.remove(kind).unwrap_or_default();
        let first = self.missing.remove(kind);
        if first {
            self.shown.extend(listed);
            if !self.missing.is_empty() {
                return String::new();
            }
            let with_drift = |row: &Row| match row.reference.strip_prefix("sync/") {
                Some(sync) => row.clone().with_drift(self.drifts.of(&ObjectKey::new(&*row.namespace, sync))),
                None => row.clone(),
            };
            self.rows = Rows::new(self.with_namespace, self.shown.values().map(with_drift));
            return self.rows.table(now);
        }
        let prefix = format!("{kind}/");
        let gone: Vec<Key> =
            self.shown.keys().filter(|key| key.1.starts_with(&prefix) && !listed.contains_key(*key)).cloned().collect();
        let mut text: String = gone.iter().map(|key| self.delete(key, now)).collect();
        for row in listed.into_values() {
            text.push_str(&self.update(row, now));
        }
        text
    }

    fn update(&mut self, row: Row, now: Timestamp) -> String {
        if self.shown.get(&key(&row)) == Some(&row) {
            return String::new();
        }
        let text = if self.missing.is_empty() { self.rows.line(&row, now) } else { String::new() };
        self.shown.insert(key(&row), row);
        text
    }

    /// Prints the line of the Sync again, with the new drift below it.
    fn drifted(&mut self, sync: ObjectKey, drift: Drift, now: Timestamp) -> String {
        let key = (sync.namespace.clone(), format!("{}/{}", Sync::KIND, sync.name));
        if self.drifts.note(sync, &drift) || !self.missing.is_empty() {
            return String::new();
        }
        self.shown.get(&key).map(|row| self.rows.line(&row.clone().with_drift(&[drift]), now)).unwrap_or_default()
    }

    fn delete(&mut self, key: &Key, now: Timestamp) -> String {
        match self.shown.remove(key) {
            Some(row) if self.missing.is_empty() => self.rows.line(&row.deleted(), now),
            _ => String::new(),
        }
    }
}

fn key_of(object: &impl Managed) -> Key {
    (object.namespace().unwrap_or_default(), object.reference())
}

fn key(row: &Row) -> Key {
    (row.namespace.clone(), row.reference.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(name: &str, ready: &str) -> Row {
        let sync: Sync = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "team", "generation": 1},
            "spec": {"repository": {"name": "fleet"}},
            "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": ready, "reason": "R"}]},
        }))
        .unwrap();
        Row::of(&sync)
    }

    fn started(rows: &[&str]) -> (Screen, String) {
        let mut screen = Screen::new(false, Drifts::default());
        let now = Timestamp::UNIX_EPOCH;
        let mut text = screen.text(Change::Restarted(Sync::KIND), now);
        for name in rows {
            text += &screen.text(Change::Listed(Sync::KIND, row(name, "True")), now);
        }
        text += &screen.text(Change::Complete(Sync::KIND), now);
        assert_eq!(text, "", "the table waits for both kinds");
        text += &screen.text(Change::Complete(Repository::KIND), now);
        (screen, crate::output::plain(&text))
    }

    #[test]
    fn the_table_comes_once_and_then_only_what_changed() {
        let (mut screen, text) = started(&["a", "b"]);
        assert_eq!(text.lines().count(), 3, "{text}");
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(screen.text(Change::Applied(row("a", "True")), now), "");
        assert!(screen.text(Change::Applied(row("a", "False")), now).contains("sync/a"));
        assert!(screen.text(Change::Deleted(row("b", "True")), now).contains("deleted"));
    }

    #[test]
    fn drift_is_told_once_when_it_happens() {
        let (mut screen, _) = started(&["a"]);
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let drifted = |name: &str, second: u32| {
            let at = format!("2026-01-01T00:00:0{second}Z").parse().unwrap();
            Change::Drifted(ObjectKey::new("team", name), Drift { at, what: "ConfigMap team/c was changed".into() })
        };
        let text = crate::output::plain(&screen.text(drifted("a", 1), now));
        assert!(text.starts_with("sync/a "), "{text}");
        assert!(text.ends_with("\n    drifted 9s ago: ConfigMap team/c was changed\n"), "{text}");
        for known in [drifted("a", 1), drifted("a", 0), drifted("of-somebody-else", 1)] {
            assert_eq!(screen.text(known, now), "");
        }
        assert_eq!(screen.text(drifted("a", 2), now).lines().count(), 2);
    }

    #[test]
    fn a_deletion_during_an_interruption_is_noticed() {
        let (mut screen, _) = started(&["a", "b"]);
        let now = Timestamp::UNIX_EPOCH;
        screen.text(Change::Restarted(Sync::KIND), now);
        screen.text(Change::Listed(Sync::KIND, row("a", "True")), now);
        let text = screen.text(Change::Complete(Sync::KIND), now);
        assert!(text.contains("sync/b") && text.contains("deleted") && !text.contains("sync/a"), "{text}");
    }
}
