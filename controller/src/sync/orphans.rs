//! Reports orphans: objects that were applied for a Sync and are not in its inventory, so that nothing will prune them.
//!
//! An object becomes an orphan only if the API server's store was restored, if somebody edited the status of the Sync,
//! or by a fault of the controller. Orphans are reported and not deleted, because people have to decide about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crds::{ObjectKey, Sync};
use manifests::ObjectId;
use tokio::time::Instant;

use crate::{
    context::{Context, InStore as _},
    events::EventType,
    status::reference,
};

/// How often the index of live objects, which is in memory, is searched.
const PAUSE: Duration = Duration::from_secs(15);
/// The shortest time between two events about orphans of the same Sync.
const AGAIN: Duration = Duration::from_secs(3600);
/// An event names at most this many objects.
const NAMED: usize = 5;

/// Reports orphans as long as the controller runs.
pub(crate) async fn follow(ctx: Arc<Context>) {
    let mut before = BTreeMap::new();
    let mut told = Told::default();
    loop {
        tokio::time::sleep(PAUSE).await;
        let mut now = ctx.cluster.live.orphans();
        now.retain(|key, orphans| {
            // A Sync that was deleted with `prune: false` leaves objects on purpose.
            let sync = ctx.syncs.get(&key.to_ref()).filter(|sync| sync.metadata.deletion_timestamp.is_none());
            let Some(sync) = sync else { return false };
            let is_bound = sync.spec.service_account_name.is_some() || ctx.tenancy.default_service_account.is_some();
            let places = Places::of(&sync, is_bound);
            orphans.retain(|id| places.contain(id));
            !orphans.is_empty()
        });
        // Objects can look like orphans for a moment while a pass works on them.
        let lasting = lasting(&before, &now);
        before = now;
        ctx.metrics.objects_orphaned(lasting.values().map(BTreeSet::len).sum());
        for (sync, orphans) in &lasting {
            if told.is_news(sync, orphans, Instant::now()) {
                tell(&ctx, sync, orphans);
            }
        }
        told.forget(&lasting, Instant::now());
    }
}

/// The orphans that were reported last for each Sync, and when.
#[derive(Default)]
struct Told(BTreeMap<ObjectKey, (BTreeSet<ObjectId>, Instant)>);

impl Told {
    /// Whether to report the orphans of the Sync now. If so, they are remembered as reported.
    fn is_news(&mut self, sync: &ObjectKey, orphans: &BTreeSet<ObjectId>, now: Instant) -> bool {
        let is_told = self.0.get(sync).is_some_and(|(known, at)| known == orphans || now.duration_since(*at) < AGAIN);
        if !is_told {
            self.0.insert(sync.clone(), (orphans.clone(), now));
        }
        !is_told
    }

    /// Forgets Syncs that no longer have orphans, but not too soon: if labels come and go, there must not be an event
    /// each time.
    fn forget(&mut self, lasting: &BTreeMap<ObjectKey, BTreeSet<ObjectId>>, now: Instant) {
        self.0.retain(|sync, (_, at)| lasting.contains_key(sync) || now.duration_since(*at) < AGAIN);
    }
}

/// The namespaces in which a Sync may have had objects. Anybody can write labels, so objects in other namespaces are
/// not reported.
struct Places<'a> {
    namespaces: BTreeSet<String>,
    /// Whether the Sync writes as a service account. Objects without a namespace are not reported for such a Sync.
    is_bound: bool,
    sync: &'a Sync,
}

impl<'a> Places<'a> {
    /// The namespaces of `sync`. `is_bound` says whether the Sync writes as a service account.
    fn of(sync: &'a Sync, is_bound: bool) -> Self {
        let inventory = sync.status.iter().flat_map(|status| &status.inventory);
        let namespaces = inventory.filter_map(|entry| ObjectId::from_inventory(&entry.id)?.namespace).collect();
        Self { namespaces, is_bound, sync }
    }

    fn contain(&self, id: &ObjectId) -> bool {
        let Some(namespace) = &id.namespace else { return !self.is_bound };
        let own = [self.sync.metadata.namespace.as_ref(), self.sync.spec.target_namespace.as_ref()];
        own.contains(&Some(namespace)) || self.namespaces.contains(namespace)
    }
}

/// The orphans that were found both at the last search and at this one.
fn lasting(
    before: &BTreeMap<ObjectKey, BTreeSet<ObjectId>>,
    now: &BTreeMap<ObjectKey, BTreeSet<ObjectId>>,
) -> BTreeMap<ObjectKey, BTreeSet<ObjectId>> {
    let lasting = |(sync, orphans): (&ObjectKey, &BTreeSet<ObjectId>)| {
        let both: BTreeSet<_> = before.get(sync)?.intersection(orphans).cloned().collect();
        (!both.is_empty()).then(|| (sync.clone(), both))
    };
    now.iter().filter_map(lasting).collect()
}

fn tell(ctx: &Context, key: &ObjectKey, orphans: &BTreeSet<ObjectId>) {
    let named: Vec<_> = orphans.iter().take(NAMED).map(ToString::to_string).collect();
    let more = orphans.len().saturating_sub(named.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let note = format!(
        "objects have the labels of this Sync and are not in its inventory, so nothing prunes them: {}{more}; delete \
         them, or add them to Git: then they belong to the Sync again",
        named.join(", ")
    );
    tracing::warn!(sync = %key, count = orphans.len(), "{note}");
    if let Some(sync) = ctx.syncs.get(&key.to_ref()) {
        ctx.events.publish(&reference(&*sync), EventType::Warning, "Orphaned", note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_in_a_strangers_namespace_tell_nothing() {
        let sync: Sync = serde_json::from_value(serde_json::json!({
            "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "app", "namespace": "team"},
            "spec": {"repository": {"name": "repo"}, "path": "./app", "targetNamespace": "target"},
            "status": {"inventory": [{"id": "has_one__ConfigMap", "v": "v1"}]},
        }))
        .unwrap();
        let id = |namespace: Option<&str>| ObjectId {
            group: String::new(),
            kind: "ConfigMap".into(),
            namespace: namespace.map(str::to_owned),
            name: "x".into(),
        };
        let bound = Places::of(&sync, true);
        assert!(["team", "target", "has"].iter().all(|namespace| bound.contain(&id(Some(namespace)))));
        assert!(!bound.contain(&id(Some("stranger"))) && !bound.contain(&id(None)));
        assert!(Places::of(&sync, false).contain(&id(None)));
    }

    #[test]
    fn labels_that_come_and_go_are_told_of_once_an_hour() {
        let sync = ObjectKey::new("team", "app");
        let orphans = |name: &str| {
            BTreeSet::from([ObjectId {
                group: String::new(),
                kind: "ConfigMap".into(),
                namespace: Some("team".into()),
                name: name.into(),
            }])
        };
        let (mut told, start) = (Told::default(), Instant::now());
        assert!(told.is_news(&sync, &orphans("a"), start));
        told.forget(&BTreeMap::new(), start + PAUSE);
        assert!(!told.is_news(&sync, &orphans("a"), start + 2 * PAUSE), "it came back");
        assert!(!told.is_news(&sync, &orphans("b"), start + 3 * PAUSE));
        assert!(told.is_news(&sync, &orphans("b"), start + AGAIN), "and is told in the end");
        let lasting = BTreeMap::from([(sync.clone(), orphans("b"))]);
        told.forget(&lasting, start + 3 * AGAIN);
        assert!(!told.is_news(&sync, &orphans("b"), start + 3 * AGAIN), "what stays as it is, is told once");
    }

    #[test]
    fn only_what_lasts_is_told() {
        let id = |name: &str| ObjectId {
            group: String::new(),
            kind: "ConfigMap".into(),
            namespace: None,
            name: name.into(),
        };
        let of = |names: &[&str]| {
            BTreeMap::from([(ObjectKey::new("ns", "app"), names.iter().map(|name| id(name)).collect())])
        };
        assert_eq!(lasting(&of(&["a", "b"]), &of(&["b", "c"])), of(&["b"]));
        assert!(lasting(&of(&["a"]), &of(&["b"])).is_empty());
        assert!(lasting(&BTreeMap::new(), &of(&["b"])).is_empty());
    }
}
