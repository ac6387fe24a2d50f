//! Watches Repositories, Syncs and SealedSecrets. The watches fill the stores and the queues.

mod follow;

use std::{collections::HashMap, sync::Arc};

use crds::{
    Condition, ConditionStatus, ObjectKey, Repository, SealedSecret, Sync, conditions, find_condition,
    names::TEMPLATE_INPUTS,
};
use kube::{
    Resource as _, ResourceExt,
    runtime::{reflector, watcher},
};
use manifests::ObjectId;
use pipeline::plan::LiveView as _;
use tokio::sync::SetOnce;
use unsealing::scope;

use self::follow::{Seen, follow};
use crate::{context::Context, metrics::UnsealFailure, sealed_secret::instance, start::Work, sync};

/// For each kind, whether the store has a list that was requested after this replica became the leader.
#[derive(Clone, Default)]
pub(crate) struct Listed {
    repositories: Arc<SetOnce<()>>,
    syncs: Arc<SetOnce<()>>,
    sealed_secrets: Arc<SetOnce<()>>,
}

impl Listed {
    /// Waits until such a list of every kind that `work` needs is in the store.
    pub(crate) async fn all(&self, work: Work) {
        if work == Work::Everything {
            self.repositories.wait().await;
            self.syncs.wait().await;
        }
        self.sealed_secrets.wait().await;
    }
}

/// Watches Repositories. A Repository is fetched when it is new, when it was edited and when a fetch is requested, but
/// not when only its status changes. When somebody accepts what its remote bases lead to now, they are fetched.
pub(crate) async fn repositories(ctx: Arc<Context>, writer: reflector::store::Writer<Repository>, listed: Listed) {
    let mut seen: HashMap<ObjectKey, (Option<i64>, [Option<String>; 2])> = HashMap::new();
    follow(&ctx, watcher::Config::default(), writer, &listed.repositories, |event| {
        let (key, now) = match &event {
            Seen::Put { now, .. } => {
                let asked = [crds::names::RECONCILE_REQUESTED_AT, crds::names::ACCEPT_MOVED];
                let asked = asked.map(|name| now.annotations().get(name).cloned());
                (ObjectKey::of(*now), Some((now.metadata.generation, asked)))
            }
            Seen::Gone(repository) => (ObjectKey::of(*repository), None),
            Seen::WentBack => return ctx.cluster.live.distrust(),
            Seen::Unreadable(_) => return,
        };
        let before = match now.clone() {
            Some(now) => seen.insert(key.clone(), now),
            None => seen.remove(&key),
        };
        if now.is_some() {
            // From now on, the Repository is known to exist. So Syncs do not report it as missing, even if its first
            // fetch has to wait.
            ctx.sources.add(&key);
        }
        let generation =
            |seen: Option<&(Option<i64>, [Option<String>; 2])>| seen.and_then(|(generation, _)| *generation);
        if generation(before.as_ref()) != generation(now.as_ref()) {
            ctx.fetches.cancel(&key);
        }
        if now.is_none() || before != now {
            ctx.queues.repositories.add(key);
        }
    })
    .await;
}

/// Watches Syncs. Every change puts the Sync into the queue, because a reconcile without work costs nothing.
pub(crate) async fn syncs(ctx: Arc<Context>, writer: reflector::store::Writer<Sync>, listed: Listed) {
    follow(&ctx, watcher::Config::default(), writer, &listed.syncs, |event| match event {
        Seen::Put { now, .. } => {
            let key = ObjectKey::of(now);
            ctx.queues.syncs.add(key.clone());
            if is_ready(now) {
                enqueue_dependents(&ctx, &key);
            }
        }
        Seen::Gone(sync) => {
            let key = ObjectKey::of(sync);
            // If another Sync has the deleted Sync as an object and prunes it, the other Sync waits for this deletion.
            // The index says which Sync that is. The labels cannot be trusted, because anybody can write them.
            if let Some(owner) = ctx.cluster.live.owner(&id_of(&key)) {
                ctx.retries.wake(&owner);
                ctx.queues.syncs.add(owner);
            }
            ctx.queues.syncs.add(key);
        }
        Seen::WentBack => ctx.cluster.live.distrust(),
        Seen::Unreadable(_) => {}
    })
    .await;
}

/// Watches SealedSecrets. A SealedSecret is unsealed when something changed that affects its Secret. A write of its
/// status is no such change: after a failure, it must not cause another try at once.
pub(crate) async fn sealed_secrets(ctx: Arc<Context>, writer: reflector::store::Writer<SealedSecret>, listed: Listed) {
    let config = match ctx.unsealing.label_selector.as_str() {
        "" => watcher::Config::default(),
        selector => watcher::Config::default().labels(selector),
    };
    follow(&ctx, config, writer, &listed.sealed_secrets, |event| match event {
        Seen::Put { now, before } => {
            let key = ObjectKey::of(now);
            if let Some(before) = &before
                && instance(before) != instance(now)
            {
                forget_condition(&ctx, before);
            }
            let made_from = |sealed: &SealedSecret| sealed.status.as_ref()?.made_from.clone();
            if let Some(told) = before.as_deref().and_then(made_from)
                && made_from(now).as_ref() != Some(&told)
                && ctx.api.leadership().leads()
            {
                ctx.marks.was_told(key.clone(), &told);
            }
            if before.is_some_and(|before| is_same(&before, now)) {
                ctx.queues.sealed_statuses.add(key);
            } else {
                ctx.queues.sealed_secrets.add(key);
            }
        }
        Seen::WentBack => ctx.cluster.live.distrust(),
        Seen::Gone(sealed) => {
            forget_condition(&ctx, sealed);
            ctx.queues.sealed_secrets.add(ObjectKey::of(sealed));
        }
        Seen::Unreadable(key) => {
            ctx.metrics.unseal_error(UnsealFailure::Fetch, &key.namespace);
            ctx.queues.sealed_secrets.add(key);
        }
    })
    .await;
}

/// Tries everything again that could not be unsealed, whenever the sealing keys change.
pub(crate) async fn keys(ctx: Arc<Context>) {
    let mut changes = ctx.keyring.changes();
    while changes.changed().await.is_ok() {
        for key in ctx.failing_secrets.keys() {
            ctx.queues.sealed_secrets.add(key);
        }
        sync::retry_held(&ctx);
    }
}

/// Whether the same Secret is made from `before` and `now`.
fn is_same(before: &SealedSecret, now: &SealedSecret) -> bool {
    before.metadata.uid == now.metadata.uid
        && before.metadata.generation == now.metadata.generation
        && scope(before.annotations()) == scope(now.annotations())
        && before.annotations().get(TEMPLATE_INPUTS) == now.annotations().get(TEMPLATE_INPUTS)
        && before.metadata.deletion_timestamp == now.metadata.deletion_timestamp
}

fn forget_condition(ctx: &Context, sealed: &SealedSecret) {
    let key = ObjectKey::of(sealed);
    ctx.metrics.forget_sealed_secret(&key.namespace, &key.name, instance(sealed), conditions::SYNCED);
}

/// The id of the Sync `key`, for the case that another Sync has applied it as an object.
fn id_of(key: &ObjectKey) -> ObjectId {
    let (group, kind) = (Sync::group(&()).into_owned(), Sync::kind(&()).into_owned());
    ObjectId { group, kind, namespace: Some(key.namespace.clone()), name: key.name.clone() }
}

fn ready(sync: &Sync) -> Option<&Condition> {
    find_condition(&sync.status.as_ref()?.conditions, conditions::READY)
}

fn is_ready(sync: &Sync) -> bool {
    ready(sync).is_some_and(|ready| ready.status == ConditionStatus::True)
}

fn reason(sync: &Sync) -> Option<&str> {
    ready(sync).map(|ready| ready.reason.as_str())
}

fn enqueue_dependents(ctx: &Context, key: &ObjectKey) {
    for sync in ctx.syncs.state() {
        if !sync.spec.depends_on.is_empty() && sync::depends_on(&sync, key) && !is_ready(&sync) {
            let dependent = ObjectKey::of(&*sync);
            if reason(&sync).is_some_and(sync::is_waiting) {
                ctx.retries.wake(&dependent);
            }
            ctx.queues.syncs.add(dependent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_that_decide_about_the_secret_are_seen() {
        let with = |annotation: &str| {
            let spec = serde_json::from_value(serde_json::json!({"encryptedData": {}})).unwrap();
            let mut sealed = SealedSecret::new("db", spec);
            sealed.metadata.generation = Some(1);
            sealed.annotations_mut().insert(annotation.to_owned(), "true".to_owned());
            sealed
        };
        let before = with("note");
        assert!(is_same(&before, &with("other")));
        for annotation in [TEMPLATE_INPUTS, sealing::NAMESPACE_WIDE_ANNOTATION] {
            assert!(!is_same(&before, &with(annotation)), "{annotation}");
        }
    }
}
