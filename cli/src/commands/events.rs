//! `gitseal events`: the events that the controller wrote.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    str::FromStr,
};

use anyhow::Context;
use crds::{Repository, SealedSecret, Sync};
use jiff::Timestamp;
use k8s_openapi::{api::events::v1::Event, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams, runtime::watcher};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    completion, following,
    found::{api, refuse_missing},
    global::Global,
    managed::with_short_revisions,
    output::{self, GOOD, GrowingTable, Hint, OutputFormat, WARN, styled},
    target::Target,
    time,
};

/// Show what happened to Repositories, Syncs and SealedSecrets
///
/// The newest comes last. The API server keeps events for an hour by default.
#[derive(clap::Args)]
pub struct EventsArgs {
    /// Events of these objects: NAME (of any of the three kinds), sync/NAME, repository/NAME or sealedsecret/NAME
    #[arg(value_name = "TARGET", add = completion::from_cluster(names))]
    targets: Vec<About>,

    /// In all namespaces
    #[arg(short = 'A', long, conflicts_with = "targets")]
    all_namespaces: bool,

    /// Only events of objects with these labels, such as team=shop,tier!=test
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "targets")]
    selector: Option<String>,

    /// Follow: print each new event, until interrupted
    #[arg(short, long)]
    watch: bool,
}

pub async fn run(args: EventsArgs, global: &Global) -> anyhow::Result<()> {
    let client = global.client().await?;
    let namespace = (!args.all_namespaces).then(|| global.default_namespace());
    let wanted = match &args.selector {
        Some(labels) => Wanted::Objects(labelled(&client, namespace.as_deref(), labels).await?),
        None if args.targets.is_empty() => Wanted::All,
        None => Wanted::Named(args.targets),
    };
    let all: Api<Event> = api(&client, namespace.as_deref());
    let events = all.list(&ListParams::default()).await.context("cannot list events")?;
    let events = in_order(events.items, &wanted);
    if let (true, Some(namespace)) = (events.is_empty(), &namespace) {
        refuse_missing(&client, global, namespace).await?;
    }
    if let (Wanted::Named(all), Some(namespace)) = (&wanted, &namespace) {
        for about in all.iter().filter(|about| !events.iter().any(|event| about.is_of(event))) {
            about.must_exist(&client, global, namespace).await?;
        }
    }
    let mut shown = Shown::new(args.all_namespaces);
    match global.output {
        Some(format) if !args.watch => {
            let items: Vec<_> = events.iter().map(as_shown).collect::<Result<_, _>>()?;
            return output::print(format.text(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?);
        }
        Some(format) => shown.print_as(format, events)?,
        None if events.is_empty() && !args.watch => {
            let place = namespace.map_or_else(|| "the cluster".into(), |_| global.told_namespace());
            output::note(format_args!("No event of gitseal in {place}; the API server forgets events after a while."));
        }
        None => shown.print(events)?,
    }
    if !args.watch {
        return Ok(());
    }
    let new = |events: Vec<Event>| {
        let events = in_order(events, &wanted);
        match global.output {
            Some(format) => shown.print_as(format, events),
            None => shown.print(events),
        }
    };
    following::follow(all, watcher::Config::default(), new).await
}

/// The names of objects in the namespace that events may be about, for completions.
async fn names(client: &Client, global: &Global, typed: &str) -> anyhow::Result<Vec<String>> {
    let namespace = global.default_namespace();
    let sealed = completion::names::<SealedSecret>(client, &namespace);
    let (mut names, sealed) = futures::join!(completion::named(client, global, typed), sealed);
    names.extend(sealed.unwrap_or_default().iter().map(|name| format!("sealedsecret/{name}")));
    Ok(names)
}

/// An object that events are about, as it is named on the command line.
#[derive(Clone, Debug, Eq, PartialEq)]
struct About {
    /// `None` means any of the three kinds.
    kind: Option<&'static str>,
    name: String,
}

const KINDS: [&str; 3] = ["Repository", "Sync", "SealedSecret"];

impl FromStr for About {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sealed = text.split_once('/').filter(|(kind, name)| {
            let kind = kind.to_ascii_lowercase();
            let kind = kind.strip_suffix(".bitnami.com").unwrap_or(&kind);
            matches!(kind, "sealedsecret" | "sealedsecrets") && !name.is_empty() && !name.contains('/')
        });
        if let Some((_, name)) = sealed {
            return Ok(Self { kind: Some("SealedSecret"), name: name.to_owned() });
        }
        let target = text.parse::<Target>();
        let target = target.map_err(|_| "expected NAME, sync/NAME, repository/NAME or sealedsecret/NAME")?;
        Ok(match target {
            Target::Repository(name) => Self { kind: Some("Repository"), name },
            Target::Sync(name) => Self { kind: Some("Sync"), name },
            Target::Either(name) => Self { kind: None, name },
        })
    }
}

impl About {
    fn is_of(&self, event: &Event) -> bool {
        let regarding = event.regarding.as_ref();
        let is_kind = |kind| regarding.and_then(|regarding| regarding.kind.as_deref()) == Some(kind);
        regarding.and_then(|regarding| regarding.name.as_ref()) == Some(&self.name) && self.kind.is_none_or(is_kind)
    }

    /// # Errors
    /// There is no such object. If the user may not read a kind, it cannot be known whether the object exists, and
    /// there is no error.
    async fn must_exist(&self, client: &Client, global: &Global, namespace: &str) -> anyhow::Result<()> {
        let namespace = Some(namespace);
        let (repository, sync, sealed) = futures::join!(
            self.may_be::<Repository>(api(client, namespace)),
            self.may_be::<Sync>(api(client, namespace)),
            self.may_be::<SealedSecret>(api(client, namespace)),
        );
        if repository || sync || sealed {
            return Ok(());
        }
        let kinds = self.kind.map_or_else(|| "Sync, Repository or SealedSecret".into(), str::to_owned);
        Err(Hint::error(
            format!("{} has no {kinds} {}, and no event about one", global.told_namespace(), self.name),
            "use --namespace for another namespace; without a name, `gitseal events` shows all that happened in the \
            namespace",
        ))
    }

    /// Whether an object of this kind and name may exist: it exists, or the cluster does not say.
    async fn may_be<K>(&self, api: Api<K>) -> bool
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.kind.is_none_or(|kind| kind == K::kind(&()))
            && api.get_metadata_opt(&self.name).await.map_or(true, |found| found.is_some())
    }
}

/// Kind, namespace, name.
type Key = (String, String, String);

/// Which events are shown.
enum Wanted {
    All,
    Named(Vec<About>),
    Objects(BTreeSet<Key>),
}

impl Wanted {
    fn has(&self, event: &Event) -> bool {
        let Some(regarding) = &event.regarding else { return false };
        let (kind, name) =
            (regarding.kind.as_deref().unwrap_or_default(), regarding.name.as_deref().unwrap_or_default());
        let group = regarding.api_version.as_deref().unwrap_or_default().split('/').next().unwrap_or_default();
        let is_of_ours = KINDS.contains(&kind) && matches!(group, "gitseal.dev" | "bitnami.com" | "");
        // Events that the controller writes about its own Secrets, such as a new sealing key.
        let is_ours = is_of_ours || event.reporting_controller.as_deref() == Some("gitseal-controller");
        is_ours
            && match self {
                Self::All => true,
                Self::Named(all) => all.iter().any(|about| about.is_of(event)),
                Self::Objects(all) => {
                    let namespace = regarding.namespace.clone().unwrap_or_default();
                    all.contains(&(kind.to_owned(), namespace, name.to_owned()))
                }
            }
    }
}

/// The objects with these labels.
async fn labelled(client: &Client, namespace: Option<&str>, labels: &str) -> anyhow::Result<BTreeSet<Key>> {
    let (repositories, syncs, sealed) =
        (api::<Repository>(client, namespace), api::<Sync>(client, namespace), api::<SealedSecret>(client, namespace));
    let list = ListParams::default().labels(labels);
    let found =
        futures::try_join!(repositories.list_metadata(&list), syncs.list_metadata(&list), sealed.list_metadata(&list));
    let (repositories, syncs, sealed) = found.context("cannot list Repositories, Syncs and SealedSecrets")?;
    let key = |kind: &str, meta: &ObjectMeta| {
        let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
        (kind.to_owned(), namespace.unwrap_or_default(), name.unwrap_or_default())
    };
    let repositories = repositories.iter().map(|object| key("Repository", &object.metadata));
    let syncs = syncs.iter().map(|object| key("Sync", &object.metadata));
    let sealed = sealed.iter().map(|object| key("SealedSecret", &object.metadata));
    Ok(repositories.chain(syncs).chain(sealed).collect())
}

/// The events that are wanted, the newest last.
fn in_order(events: Vec<Event>, wanted: &Wanted) -> Vec<Event> {
    let mut events: Vec<_> = events.into_iter().filter(|event| wanted.has(event)).collect();
    events.sort_by_cached_key(|event| (last_seen(event), event.name_any()));
    events
}

/// When the event happened last. The two forms of events store this time in different fields.
fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    let last = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    series.or(last).or(first).or(event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn times(event: &Event) -> i32 {
    event.series.as_ref().map(|series| series.count).or(event.deprecated_count).unwrap_or(1)
}

/// The event as kubectl shows it.
fn as_shown(event: &Event) -> anyhow::Result<Value> {
    let mut event = event.clone();
    event.metadata.managed_fields = None;
    serde_json::to_value(event).context("cannot represent the event as JSON")
}

fn cells(event: &Event, with_namespace: bool, now: Timestamp) -> Vec<String> {
    let age = last_seen(event).map_or_else(|| "-".into(), |at| time::short(now.duration_since(at)));
    let times = times(event);
    let age = if times > 1 { format!("{age} (x{times})") } else { age };
    let type_ = event.type_.as_deref().unwrap_or("Normal");
    let regarding = event.regarding.clone().unwrap_or_default();
    let kind = regarding.kind.unwrap_or_default().to_ascii_lowercase();
    let object = format!("{kind}/{}", regarding.name.unwrap_or_default());
    let style = if type_ == "Normal" { GOOD } else { WARN };
    let reason = event.reason.clone().unwrap_or_default();
    let note = with_short_revisions(event.note.as_deref().unwrap_or_default());
    let namespace = with_namespace.then(|| regarding.namespace.unwrap_or_default());
    namespace.into_iter().chain([age, styled(style, type_), reason, object, note]).collect()
}

/// The events that have been printed so far.
struct Shown {
    with_namespace: bool,
    table: GrowingTable,
    /// How often each event had happened when it was printed.
    events: BTreeMap<String, i32>,
}

impl Shown {
    fn new(with_namespace: bool) -> Self {
        let header = with_namespace.then_some("NAMESPACE").into_iter();
        let table = GrowingTable::new(header.chain(["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]));
        Self { with_namespace, table, events: BTreeMap::new() }
    }

    fn new_ones(&mut self, events: Vec<Event>) -> Vec<Event> {
        let is_new = |event: &Event| {
            let key = event.uid().unwrap_or_else(|| event.name_any());
            self.events.insert(key, times(event)) != Some(times(event))
        };
        events.into_iter().filter(is_new).collect()
    }

    fn print(&mut self, events: Vec<Event>) -> anyhow::Result<()> {
        output::print(self.text(events, Timestamp::now()))
    }

    fn print_as(&mut self, format: OutputFormat, events: Vec<Event>) -> anyhow::Result<()> {
        self.new_ones(events).iter().try_for_each(|event| output::print(format.document(&as_shown(event)?)?))
    }

    /// The lines for new events; with a header the first time.
    fn text(&mut self, events: Vec<Event>, now: Timestamp) -> String {
        let new = self.new_ones(events);
        self.table.lines(new.iter().map(|event| cells(event, self.with_namespace, now)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, name: &str, note: &str, more: Value) -> Event {
        let mut event = json!({"metadata": {"name": note, "uid": note}, "reason": "R", "note": note, "type": "Normal",
            "eventTime": "2026-01-01T00:00:10.000000Z",
            "regarding": {"kind": kind, "namespace": "team", "name": name, "apiVersion": "gitseal.dev/v1alpha1"}});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn targets_name_what_events_are_about() {
        let about = |kind, name: &str| Ok(About { kind, name: name.into() });
        assert_eq!("web".parse(), about(None, "web"));
        assert_eq!("sync/web".parse(), about(Some("Sync"), "web"));
        assert_eq!("SealedSecret.bitnami.com/db".parse(), about(Some("SealedSecret"), "db"));
        for wrong in ["", "pod/web", "sealedsecret/", "sealedsecret/a/b"] {
            assert!(wrong.parse::<About>().is_err(), "{wrong} was read");
        }
    }

    #[test]
    fn the_newest_comes_last_and_others_are_left_out() {
        let of_theirs = json!({"eventTime": null, "deprecatedLastTimestamp": "2026-01-01T00:00:30Z", "deprecatedCount": 3,
            "type": "Warning", "regarding": {"kind": "SealedSecret", "namespace": "team", "name": "db", "apiVersion": "bitnami.com/v1alpha1"}});
        let events = vec![
            event("SealedSecret", "db", "theirs", of_theirs),
            event("Sync", "web", "ours", json!({})),
            event("Pod", "web", "other", json!({})),
        ];
        let of_key = event("Secret", "key", "made", json!({"reportingController": "gitseal-controller"}));
        assert_eq!(in_order(vec![of_key], &Wanted::All).len(), 1);
        let mut shown = Shown::new(false);
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let text = shown.text(in_order(events.clone(), &Wanted::All), now);
        let expected = "\
LAST SEEN  TYPE     REASON  OBJECT           MESSAGE
50s        Normal   R       sync/web         ours
30s (x3)   Warning  R       sealedsecret/db  theirs
";
        assert_eq!(output::plain(&text), expected);
        assert_eq!(shown.text(in_order(events.clone(), &Wanted::All), now), "");
        let named = Wanted::Named(vec!["db".parse().unwrap()]);
        assert_eq!(in_order(events, &named).len(), 1);
    }
}
