//! Our own kinds: watches fill the stores and the queues.

use std::{collections::HashMap, fmt::Debug, sync::Arc};

use crds::{ConditionStatus, Repository, SealedSecret, Sync, conditions, find_condition};
use futures::StreamExt;
use kube::{
    ResourceExt,
    api::Api,
    runtime::{
        WatchStreamExt, reflector,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use crate::{context::Context, key::ObjectKey, reconcile};

/// Follows Repositories; one is fetched when it is new, edited or asked for, not when its status changes.
pub(crate) async fn repositories(ctx: Arc<Context>, writer: reflector::store::Writer<Repository>) {
    let mut seen: HashMap<ObjectKey, (Option<i64>, Option<String>)> = HashMap::new();
    let all = Api::<Repository>::all(ctx.api.client());
    follow(all, writer, |event| {
        let (repository, gone) = object(event);
        let Some(repository) = repository else { return };
        let key = ObjectKey::of(repository);
        let asked = repository.annotations().get(crds::names::RECONCILE_REQUESTED_AT).cloned();
        let now = (repository.metadata.generation, asked);
        if gone {
            seen.remove(&key);
        } else if seen.insert(key.clone(), now.clone()).as_ref() == Some(&now) {
            return;
        }
        ctx.queues.repositories.add(key);
    })
    .await;
}

/// Follows Syncs; a reconcile without work costs nothing.
pub(crate) async fn syncs(ctx: Arc<Context>, writer: reflector::store::Writer<Sync>) {
    let all = Api::<Sync>::all(ctx.api.client());
    follow(all, writer, |event| {
        let (Some(sync), gone) = object(event) else {
            return;
        };
        ctx.queues.syncs.add(ObjectKey::of(sync));
        if !gone && is_ready(sync) {
            enqueue_dependents(&ctx, &ObjectKey::of(sync));
        }
    })
    .await;
}

/// Follows SealedSecrets.
pub(crate) async fn sealed_secrets(ctx: Arc<Context>, writer: reflector::store::Writer<SealedSecret>) {
    let all = Api::<SealedSecret>::all(ctx.api.client());
    follow(all, writer, |event| {
        let (Some(sealed), gone) = object(event) else { return };
        let key = ObjectKey::of(sealed);
        if gone {
            let instance = sealed.labels().get("app.kubernetes.io/instance").map_or("", String::as_str);
            ctx.metrics.forget_sealed_secret(&key.namespace, &key.name, instance, conditions::SYNCED);
        }
        ctx.queues.sealed_secrets.add(key);
    })
    .await;
}

/// A new sealing key is worth another try of everything that could not be unsealed.
pub(crate) async fn keys(ctx: Arc<Context>) {
    let mut changes = ctx.keyring.changes();
    while changes.changed().await.is_ok() {
        for key in ctx.failing_secrets.keys() {
            ctx.queues.sealed_secrets.add(key);
        }
        reconcile::sync::retry_held(&ctx).await;
    }
}

/// Runs a watch for ever: the store first, then `seen`.
async fn follow<K>(api: Api<K>, mut writer: reflector::store::Writer<K>, mut seen: impl FnMut(&Event<K>))
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + std::marker::Sync + 'static,
{
    let config = watcher::Config::default().streaming_lists();
    let stream = watcher(api, config).default_backoff().modify(|object| {
        // Half of an object's size, and nobody here reads it.
        object.managed_fields_mut().clear();
    });
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                writer.apply_watcher_event(&event);
                seen(&event);
            }
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted; it resumes by itself");
            }
        }
    }
}

/// The object that an event is about, and whether it is gone.
fn object<K>(event: &Event<K>) -> (Option<&K>, bool) {
    match event {
        Event::Apply(object) | Event::InitApply(object) => (Some(object), false),
        Event::Delete(object) => (Some(object), true),
        Event::Init | Event::InitDone => (None, false),
    }
}

fn is_ready(sync: &Sync) -> bool {
    let status = sync.status.as_ref();
    let ready = status.and_then(|status| find_condition(&status.conditions, conditions::READY));
    ready.is_some_and(|ready| ready.status == ConditionStatus::True)
}

fn enqueue_dependents(ctx: &Context, key: &ObjectKey) {
    for sync in ctx.syncs.state() {
        if !sync.spec.depends_on.is_empty() && reconcile::depends_on(&sync, key) && !is_ready(&sync) {
            ctx.queues.syncs.add(ObjectKey::of(&*sync));
        }
    }
}
