//! Objects that were applied for a Sync and that its inventory does not have: nobody prunes them.
//!
//! It takes a store that was restored, a status that somebody edited, or a fault of ours. They are told, not taken: what
//! becomes of them is up to people.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use manifests::ObjectId;

use crds::ObjectKey;

use crate::{context::Context, events::EventType, status::reference};

/// How often what is live is looked through. It is all in memory.
const PAUSE: Duration = Duration::from_secs(15);
/// Objects that are named.
const NAMED: usize = 5;

/// Tells of orphans as long as the controller runs.
pub(crate) async fn follow(ctx: Arc<Context>) {
    let mut before = BTreeMap::new();
    let mut told: BTreeMap<ObjectKey, BTreeSet<ObjectId>> = BTreeMap::new();
    loop {
        tokio::time::sleep(PAUSE).await;
        let mut now = ctx.cluster.live.orphans();
        // A Sync that was deleted with `prune: false` leaves them on purpose.
        now.retain(|sync, _| {
            ctx.syncs.get(&sync.to_ref()).is_some_and(|sync| sync.metadata.deletion_timestamp.is_none())
        });
        // What is under way passes through such a state.
        let lasting = lasting(&before, &now);
        before = now;
        ctx.metrics.objects_orphaned(lasting.values().map(BTreeSet::len).sum());
        for (sync, orphans) in &lasting {
            if told.get(sync) != Some(orphans) {
                tell(&ctx, sync, orphans);
            }
        }
        told = lasting;
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
