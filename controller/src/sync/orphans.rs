//! Objects that were applied for a Sync and that its inventory does not have: nobody prunes them.
//!
//! It takes a store that was restored, a status that somebody edited, or a fault of ours. They are told, not taken: what
//! becomes of them is up to people.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crds::{ObjectKey, Sync};
use manifests::ObjectId;
use tokio::time::Instant;

use crate::{context::Context, events::EventType, status::reference};

/// How often what is live is looked through. It is all in memory.
const PAUSE: Duration = Duration::from_secs(15);
/// How soon a Sync is told of others, after some.
const AGAIN: Duration = Duration::from_secs(3600);
/// Objects that are named.
const NAMED: usize = 5;

/// Tells of orphans as long as the controller runs.
pub(crate) async fn follow(ctx: Arc<Context>) {
    let mut before = BTreeMap::new();
    let mut told = Told::default();
    loop {
        tokio::time::sleep(PAUSE).await;
        let mut now = ctx.cluster.live.orphans();
        now.retain(|key, orphans| {
            // A Sync that was deleted with `prune: false` leaves them on purpose.
            let sync = ctx.syncs.get(&key.to_ref()).filter(|sync| sync.metadata.deletion_timestamp.is_none());
            let Some(sync) = sync else { return false };
            let is_bound = sync.spec.service_account_name.is_some() || ctx.tenancy.default_service_account.is_some();
            let places = Places::of(&sync, is_bound);
            orphans.retain(|id| places.contain(id));
            !orphans.is_empty()
        });
        // What is under way passes through such a state.
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

/// What each Sync was told of last, and when.
#[derive(Default)]
struct Told(BTreeMap<ObjectKey, (BTreeSet<ObjectId>, Instant)>);

impl Told {
    /// Whether the Sync is to be told; if so, it counts as told.
    fn is_news(&mut self, sync: &ObjectKey, orphans: &BTreeSet<ObjectId>, now: Instant) -> bool {
        let is_told = self.0.get(sync).is_some_and(|(known, at)| known == orphans || now.duration_since(*at) < AGAIN);
        if !is_told {
            self.0.insert(sync.clone(), (orphans.clone(), now));
        }
        !is_told
    }

    /// Labels that come and go are no news each time they come.
    fn forget(&mut self, lasting: &BTreeMap<ObjectKey, BTreeSet<ObjectId>>, now: Instant) {
        self.0.retain(|sync, (_, at)| lasting.contains_key(sync) || now.duration_since(*at) < AGAIN);
    }
}

/// Where a Sync may have had objects. Labels can be written by anybody: what stands elsewhere is nothing to tell of.
struct Places<'a> {
    namespaces: BTreeSet<String>,
    /// Whether it may write what is in no namespace.
    is_bound: bool,
    sync: &'a Sync,
}

impl<'a> Places<'a> {
    /// `is_bound` says that it writes with the rights of a service account.
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

/// What was there before and still is.
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
        "objects carry the labels of this Sync and are not in its inventory, so that nothing prunes them: {}{more}; \
         delete them, or put them into Git, and they are taken over",
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
