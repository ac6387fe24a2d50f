//! `gitseal history`: for each Sync, the revisions of its folder that it applied.

use std::collections::BTreeSet;

use crds::Sync;
use jiff::Timestamp;
use kube::{ResourceExt, runtime::watcher};
use serde::Serialize;

use crate::{
    following,
    found::{Choice, Found, api},
    global::Global,
    managed::{Managed, short_revision},
    output::{self, BAD, FAINT, GOOD, GrowingTable, styled},
    time,
};

/// Show which revisions Syncs applied, newest first
///
/// A Sync remembers the last ten revisions that changed its folder, and their
/// results. For a Repository, all its Syncs are shown.
#[derive(clap::Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    choice: Choice,

    /// Follow: print each new revision, until interrupted
    #[arg(short, long)]
    watch: bool,
}

pub async fn run(args: HistoryArgs, global: &Global) -> anyhow::Result<()> {
    let HistoryArgs { choice, watch } = args;
    let client = global.client().await?;
    let all = Found::read(&client, global, choice.all_namespaces, choice.selector.as_deref()).await?;
    let chosen = if choice.targets.is_empty() { None } else { Some(all.only(&choice.targets)?) };
    let is_meant = |sync: &Sync| chosen.as_ref().is_none_or(|chosen| is_chosen(chosen, sync));
    let syncs = all.syncs.iter().filter(|sync| is_meant(sync));
    let entries = newest_first(syncs.flat_map(Entry::all));
    let mut shown = Shown::new(choice.all_namespaces);
    match global.output {
        Some(format) if !watch => return output::print(format.text(&entries)?),
        Some(format) => shown.print_as(format, entries)?,
        None if all.is_empty() && !watch => output::note(all.nothing()),
        None if entries.is_empty() && !watch => output::note("No revision was applied yet."),
        None => shown.print(entries)?,
    }
    if !watch {
        return Ok(());
    }
    let config = choice.selector.iter().fold(watcher::Config::default(), |config, labels| config.labels(labels));
    let syncs = api::<Sync>(&client, all.namespace.as_deref());
    let new = |syncs: Vec<Sync>| {
        let mut entries = newest_first(syncs.iter().filter(|sync| is_meant(sync)).flat_map(Entry::all));
        // With --watch, later entries are printed below, so the newest comes last.
        entries.reverse();
        match global.output {
            Some(format) => shown.print_as(format, entries),
            None => shown.print(entries),
        }
    };
    following::follow(syncs, config, new).await
}

/// Whether the user named `sync` or its Repository.
fn is_chosen(chosen: &Found, sync: &Sync) -> bool {
    let repository = pipeline::repository_of(sync);
    let is_of = |found: &crds::Repository| crds::ObjectKey::of(found) == repository;
    chosen.sync(&sync.name_any()).is_some() || chosen.repositories.iter().any(is_of)
}

/// A revision of a Sync's folder. The fields are also those of the machine-readable output.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
struct Entry {
    namespace: String,
    sync: String,
    revision: String,
    time: String,
    outcome: String,
    summary: String,
}

impl Entry {
    fn all(sync: &Sync) -> impl Iterator<Item = Self> {
        let history = sync.status.iter().flat_map(|status| &status.history);
        history.map(|entry| Self {
            namespace: sync.namespace().unwrap_or_default(),
            sync: sync.name_any(),
            revision: entry.revision.clone(),
            time: entry.time.clone(),
            outcome: entry.outcome.clone(),
            summary: entry.summary.clone(),
        })
    }

    fn cells(&self, with_namespace: bool, now: Timestamp) -> Vec<String> {
        let style = if self.outcome == "Applied" { GOOD } else { BAD };
        let at = self.time.parse::<Timestamp>();
        let age = at.map_or_else(|_| self.time.clone(), |at| format!("{} ago", time::short(now.duration_since(at))));
        let summary = if self.summary.is_empty() { styled(FAINT, "-") } else { self.summary.clone() };
        let sync = format!("{}/{}", Sync::KIND, self.sync);
        let namespace = with_namespace.then(|| self.namespace.clone());
        let cells = [sync, short_revision(&self.revision), styled(style, &self.outcome), age, summary];
        namespace.into_iter().chain(cells).collect()
    }
}

/// Newest first. Entries of the same time are in the order of the names, and entries of one Sync in the order of its
/// status.
fn newest_first(entries: impl Iterator<Item = Entry>) -> Vec<Entry> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| (&a.namespace, &a.sync).cmp(&(&b.namespace, &b.sync))));
    entries
}

/// What has been printed so far.
struct Shown {
    with_namespace: bool,
    table: GrowingTable,
    entries: BTreeSet<Entry>,
}

impl Shown {
    fn new(with_namespace: bool) -> Self {
        let header = with_namespace.then_some("NAMESPACE").into_iter();
        let table = GrowingTable::new(header.chain(["NAME", "REVISION", "OUTCOME", "LAST TRIED", "DID"]));
        Self { with_namespace, table, entries: BTreeSet::new() }
    }

    fn new_ones(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        entries.into_iter().filter(|entry| self.entries.insert(entry.clone())).collect()
    }

    fn print(&mut self, entries: Vec<Entry>) -> anyhow::Result<()> {
        output::print(self.text(entries, Timestamp::now()))
    }

    fn print_as(&mut self, format: output::OutputFormat, entries: Vec<Entry>) -> anyhow::Result<()> {
        self.new_ones(entries).iter().try_for_each(|entry| output::print(format.document(entry)?))
    }

    /// The lines for new entries; with a header the first time.
    fn text(&mut self, entries: Vec<Entry>, now: Timestamp) -> String {
        let new = self.new_ones(entries);
        self.table.lines(new.iter().map(|entry| entry.cells(self.with_namespace, now)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sync(name: &str, history: Value) -> Sync {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "team"}, "spec": {"repository": {"name": "fleet"}},
            "status": {"history": history},
        }))
        .unwrap()
    }

    fn entry(revision: &str, time: &str, outcome: &str, summary: &str) -> Value {
        json!({"revision": revision, "time": time, "outcome": outcome, "summary": summary})
    }

    #[test]
    fn the_newest_comes_first_and_nothing_twice() {
        let (one, two) = ("main@sha1:1111111111", "main@sha1:2222222222");
        let web = sync(
            "web",
            json!([
                entry(two, "2026-01-01T00:00:50Z", "ApplyFailed", ""),
                entry(one, "2026-01-01T00:00:10Z", "Applied", "2 created")
            ]),
        );
        let db = sync("db", json!([entry(one, "2026-01-01T00:00:30Z", "Applied", "1 changed")]));
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let mut shown = Shown::new(false);
        let text = shown.text(newest_first([&web, &db].into_iter().flat_map(Entry::all)), now);
        let expected = "\
NAME      REVISION       OUTCOME      LAST TRIED  DID
sync/web  main@22222222  ApplyFailed  10s ago     -
sync/db   main@11111111  Applied      30s ago     1 changed
sync/web  main@11111111  Applied      50s ago     2 created
";
        assert_eq!(output::plain(&text), expected);
        assert_eq!(shown.text(Entry::all(&web).collect(), now), "");
    }

    #[test]
    fn what_was_applied_within_one_second_is_in_the_order_of_the_status() {
        let now = "2026-01-01T00:00:10Z";
        let history =
            ["main@sha1:2222", "main@sha1:3333", "main@sha1:1111"].map(|revision| entry(revision, now, "Applied", ""));
        let entries = newest_first(Entry::all(&sync("web", json!(history))));
        let revisions: Vec<_> = entries.iter().map(|entry| entry.revision.as_str()).collect();
        assert_eq!(revisions, ["main@sha1:2222", "main@sha1:3333", "main@sha1:1111"]);
    }

    #[test]
    fn a_repository_stands_for_its_syncs() {
        let repository = serde_json::from_value(
            json!({"metadata": {"name": "fleet", "namespace": "team"}, "spec": {"url": "https://git.example/x"}}),
        );
        let mut chosen = Found {
            namespace: None,
            selector: None,
            place: String::new(),
            repositories: vec![repository.unwrap()],
            syncs: Vec::new(),
        };
        assert!(is_chosen(&chosen, &sync("web", json!([]))));
        chosen.repositories.clear();
        assert!(!is_chosen(&chosen, &sync("web", json!([]))));
    }
}
