//! Shows what others changed in the cluster and gitseal put back. This comes from the controller's events.

use std::collections::HashMap;

use crds::ObjectKey;
use futures::{TryStreamExt, future::ready};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::{
    Client,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use manifests::in_one_line;

use crate::{found::api, output};

/// The field selector of events about drift.
const OF_SYNCS: &str = "reason=Drifted,regarding.kind=Sync";
/// The most drifts of one Sync that are kept in memory.
const MOST: usize = 100;

/// One object that was put back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Drift {
    /// When it happened last.
    pub at: Timestamp,
    /// How it was changed, and by whom.
    pub what: String,
}

/// The drift that the events report, as long as the API server keeps these events; newest first.
#[derive(Default)]
pub struct Drifts(HashMap<ObjectKey, Vec<Drift>>);

impl Drifts {
    /// Reads the events of the namespace, or of all namespaces. If the user may not read them, a note says that drift
    /// is not shown.
    pub async fn read(client: &Client, namespace: Option<&str>) -> Option<Self> {
        match api::<Event>(client, namespace).list(&ListParams::default().fields(OF_SYNCS)).await {
            Ok(events) => Some(Self::of_events(events.items)),
            Err(error) => {
                let error = anyhow::Error::new(error);
                output::warn(format_args!("drift is not shown: cannot read events: {}", output::one_line(&error)));
                None
            }
        }
    }

    fn of_events(events: Vec<Event>) -> Self {
        let mut all: HashMap<_, Vec<_>> = HashMap::new();
        for event in events {
            let Some((sync, drift)) = drift(event) else { continue };
            all.entry(sync).or_default().push(drift);
        }
        for drifts in all.values_mut() {
            drifts.sort_by_key(|drift| std::cmp::Reverse(drift.at));
        }
        Self(all)
    }

    /// The drift of the objects of `sync`, newest first.
    pub fn of(&self, sync: &ObjectKey) -> &[Drift] {
        self.0.get(sync).map(Vec::as_slice).unwrap_or_default()
    }

    /// Adds `drift` to what is known of `sync`. Returns whether this drift, or a later one of the Sync, was known
    /// already.
    pub fn note(&mut self, sync: ObjectKey, drift: &Drift) -> bool {
        let known = self.0.entry(sync).or_default();
        let is_known = known.first().is_some_and(|last| last.at >= drift.at);
        if !is_known {
            known.insert(0, drift.clone());
            known.truncate(MOST);
        }
        is_known
    }
}

/// Watches the events about drift. Those that exist already come first.
pub fn follow(
    client: &Client,
    namespace: Option<&str>,
) -> impl futures::Stream<Item = Result<(ObjectKey, Drift), watcher::Error>> + use<> {
    let config = watcher::Config::default().fields(OF_SYNCS);
    let events = watcher(api::<Event>(client, namespace), config).default_backoff().map_ok(|event| match event {
        watcher::Event::InitApply(event) | watcher::Event::Apply(event) => drift(event),
        watcher::Event::Init | watcher::Event::InitDone | watcher::Event::Delete(_) => None,
    });
    events.try_filter_map(|drift| ready(Ok(drift)))
}

/// The Sync that an event about drift belongs to, and what the event says.
fn drift(event: Event) -> Option<(ObjectKey, Drift)> {
    let sync = event
        .regarding
        .filter(|regarding| regarding.kind.as_deref() == Some("Sync") && event.reason.as_deref() == Some("Drifted"))?;
    let first = event.event_time.map(|time| time.0);
    let last = event.series.map(|series| series.last_observed_time.0);
    let at = last.or(first).or(event.metadata.creation_timestamp.map(|time| time.0))?;
    let what = in_one_line(event.note.as_deref()?).into_owned();
    Some((ObjectKey { namespace: sync.namespace?, name: sync.name? }, Drift { at, what }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn events(events: Value) -> Drifts {
        Drifts::of_events(serde_json::from_value(events).unwrap())
    }

    #[test]
    fn the_newest_comes_first_and_a_series_counts_from_its_last() {
        let event = |note: &str, at: &str, more: Value| {
            let mut event = json!({"metadata": {}, "reason": "Drifted", "note": note, "eventTime": at,
                "regarding": {"kind": "Sync", "namespace": "team", "name": "web"}});
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            event
        };
        let series = json!({"series": {"count": 3, "lastObservedTime": "2026-01-01T00:09:00.000000Z"}});
        let other = json!({"reason": "Applied"});
        let all = events(json!([
            event("first", "2026-01-01T00:01:00.000000Z", json!({})),
            event("often\u{1b}[31m", "2026-01-01T00:00:00.000000Z", series),
            event("second", "2026-01-01T00:02:00.000000Z", json!({})),
            event("no drift", "2026-01-01T00:03:00.000000Z", other),
        ]));
        let told: Vec<_> = all.of(&ObjectKey::new("team", "web")).iter().map(|drift| drift.what.as_str()).collect();
        assert_eq!(told, ["often\\u{1b}[31m", "second", "first"]);
        assert!(all.of(&ObjectKey::new("team", "other")).is_empty());
    }
}
