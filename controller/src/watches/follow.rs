//! Watches one kind, in all namespaces or in some. Fills a store with the objects, and reports what changed.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::Arc,
};

use futures::{StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{
        reflector::{Store, store::Writer},
        watcher::{self, Event, InitialListStrategy},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::SetOnce;

use crds::ObjectKey;

use crate::context::InStore as _;
use crate::{cluster, context::Context};

/// The annotation in which `kubectl apply` keeps a copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An event of a watch. The store already has the change when the event is reported.
pub(super) enum Seen<'a, K> {
    /// An object is new or was changed.
    Put {
        /// The object as it is now.
        now: &'a K,
        /// The object as it was before, if it was known.
        before: Option<Arc<K>>,
    },
    /// The list that has just arrived shows objects in an earlier state: the API server's store was restored.
    WentBack,
    /// An object was deleted.
    Gone(&'a K),
    /// An object exists that cannot be parsed, so it is not in the store. This is possible with an old
    /// CustomResourceDefinition.
    Unreadable(ObjectKey),
}

/// Watches a kind for ever, with one watch for all namespaces together or one for each namespace. A change is first
/// written into the store. After that, `seen` is called, if this replica leads. When the replica begins to lead,
/// everything is listed again, but not from the cache of an API server, because the cache may not have the last writes
/// of the previous leader yet.
///
/// The store is ready, and `listed` is set, when every watch has listed or was refused. So a namespace in which the
/// controller lacks rights does not delay the others. If the API server does not answer, the store is not ready,
/// because an empty store would mean that there are no objects.
pub(super) async fn follow<K>(
    ctx: &Context,
    config: watcher::Config,
    writer: Writer<K>,
    listed: &SetOnce<()>,
    mut seen: impl FnMut(Seen<'_, K>),
) where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let mut kind = Kind::new(writer);
    if !ctx.api.leadership().leads() {
        let (standing_by, ignored) = (config.clone().streaming_lists(), SetOnce::new());
        let mut ignore = |_: Seen<'_, K>| {};
        tokio::select! {
            () = ctx.api.leadership().begun() => {}
            () = watch(ctx, standing_by, &mut kind, &ignored, &mut ignore) => {}
        }
    }
    watch(ctx, config, &mut kind, listed, &mut seen).await;
}

async fn watch<K>(
    ctx: &Context,
    config: watcher::Config,
    kind: &mut Kind<K>,
    listed: &SetOnce<()>,
    seen: &mut impl FnMut(Seen<'_, K>),
) where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let namespaces = ctx.namespaces.each();
    kind.begin(namespaces.len());
    let watches = namespaces.into_iter().enumerate().map(|(index, namespace)| {
        let api: Api<DeserializeGuard<K>> = match &namespace {
            Some(namespace) => Api::namespaced(ctx.api.client(), namespace),
            None => Api::all(ctx.api.client()),
        };
        let namespace: Option<Arc<str>> = namespace.map(Into::into);
        let again = watcher::Config { initial_list_strategy: InitialListStrategy::ListWatch, ..config.clone() };
        cluster::follow(api, config.clone(), again).map(move |event| (index, namespace.clone(), event)).boxed()
    });
    let mut events = stream::select_all(watches);
    while let Some((watch, namespace, event)) = events.next().await {
        match event {
            Ok(event) => kind.take(watch, namespace.as_deref(), event, seen),
            Err(error) => {
                let namespace = namespace.as_deref().unwrap_or("all");
                let why = apiclient::words::of_watch(&error);
                tracing::warn!(kind = %K::kind(&()), namespace, error = why, "the watch was interrupted; it begins again by itself");
                if cluster::is_refused(&error) {
                    kind.is_listed(watch);
                }
            }
        }
        if kind.waiting.is_empty() {
            // `listed` stays set: later lists do not change it.
            let _ = listed.set(());
        }
    }
}

/// The store of a kind, to which several watches write.
struct Kind<K: kube::Resource<DynamicType = ()> + Clone + 'static> {
    writer: Writer<K>,
    store: Store<K>,
    /// The watches whose first list has not arrived. While there are any, the writer collects objects, and readers see
    /// the previous state.
    waiting: HashSet<usize>,
    /// The objects that a watch has listed so far, while its list is in progress.
    listed: HashMap<usize, HashSet<ObjectKey>>,
    /// Objects that were deleted before all first lists had arrived.
    gone: HashMap<ObjectKey, K>,
    /// Whether a list shows an object in an earlier state.
    went_back: bool,
}

impl<K> Kind<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + 'static,
{
    fn new(writer: Writer<K>) -> Self {
        let store = writer.as_reader();
        Self { writer, store, waiting: HashSet::new(), listed: HashMap::new(), gone: HashMap::new(), went_back: false }
    }

    /// Prepares the store for a number of new watches, which list everything again.
    fn begin(&mut self, watches: usize) {
        self.waiting = (0..watches).collect();
        self.listed.clear();
        self.gone.clear();
        self.writer.apply_watcher_event(&Event::Init);
    }

    fn take(
        &mut self,
        watch: usize,
        namespace: Option<&str>,
        event: Event<DeserializeGuard<K>>,
        seen: &mut impl FnMut(Seen<'_, K>),
    ) {
        match event {
            Event::Init => {
                self.listed.insert(watch, HashSet::new());
            }
            Event::InitApply(object) => {
                let key = ObjectKey::of(&object);
                self.put(object, seen);
                self.listed.entry(watch).or_default().insert(key);
            }
            Event::InitDone => {
                let listed = self.listed.remove(&watch).unwrap_or_default();
                let is_watched = |object: &K| namespace.is_none() || object.meta().namespace.as_deref() == namespace;
                // First lists replace the previous state completely, so there is nothing to remove after them.
                let known = if self.waiting.is_empty() { self.store.state() } else { Vec::new() };
                for object in known {
                    if is_watched(&object) && !listed.contains(&ObjectKey::of(&*object)) {
                        self.remove((*object).clone(), seen);
                    }
                }
                self.is_listed(watch);
                if std::mem::take(&mut self.went_back) {
                    seen(Seen::WentBack);
                }
            }
            Event::Apply(object) => self.put(object, seen),
            Event::Delete(DeserializeGuard(Ok(object))) => self.remove(object, seen),
            Event::Delete(DeserializeGuard(Err(_))) => {}
        }
    }

    fn put(&mut self, object: DeserializeGuard<K>, seen: &mut impl FnMut(Seen<'_, K>)) {
        let key = ObjectKey::of(&object);
        let before = self.store.get(&key.to_ref()).filter(|_| self.waiting.is_empty());
        let mut object = match object.0 {
            Ok(object) => object,
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), object = %key, %error, "the object cannot be read and is ignored");
                if let Some(before) = before {
                    self.remove((*before).clone(), seen);
                }
                return seen(Seen::Unreadable(key));
            }
        };
        // These two fields are two thirds of an object's size, and the controller does not need them.
        object.meta_mut().managed_fields = None;
        object.annotations_mut().remove(LAST_APPLIED);
        self.gone.remove(&key);
        self.went_back |= before.as_ref().is_some_and(|before| version(&**before) > version(&object));
        let event = if self.waiting.is_empty() { Event::Apply(object) } else { Event::InitApply(object) };
        self.writer.apply_watcher_event(&event);
        if let Event::Apply(now) | Event::InitApply(now) = &event {
            seen(Seen::Put { now, before });
        }
    }

    fn remove(&mut self, object: K, seen: &mut impl FnMut(Seen<'_, K>)) {
        let event = Event::Delete(object);
        if self.waiting.is_empty() {
            self.writer.apply_watcher_event(&event);
        }
        if let Event::Delete(object) = event {
            seen(Seen::Gone(&object));
            if !self.waiting.is_empty() {
                self.gone.insert(ObjectKey::of(&object), object);
            }
        }
    }

    /// Notes that the first list of a watch has arrived, or will not arrive soon.
    fn is_listed(&mut self, watch: usize) {
        if self.waiting.remove(&watch) && self.waiting.is_empty() {
            self.writer.apply_watcher_event(&Event::InitDone);
            for (_, object) in self.gone.drain() {
                self.writer.apply_watcher_event(&Event::Delete(object));
            }
        }
    }
}

/// The resource version of an object. The versions of two objects of the same kind can be compared.
fn version<K: kube::Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
