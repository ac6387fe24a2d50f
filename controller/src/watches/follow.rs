//! One kind, in all namespaces or in some: watches → a store, and what changed in it.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::Arc,
};

use futures::{StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        reflector::{Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use crate::{context::Context, key::ObjectKey};

/// What a watch showed. The store has it already.
pub(super) enum Seen<'a, K> {
    /// An object is there, and what was known of it before.
    Put {
        /// As it is.
        now: &'a K,
        /// As it was.
        before: Option<Arc<K>>,
    },
    /// An object is gone.
    Gone(&'a K),
    /// An object is there and cannot be read: it is not in the store. An old CustomResourceDefinition lets it be written.
    Unreadable(ObjectKey),
}

/// Watches a kind for ever, in all namespaces or with one watch in each: the store first, then `seen`.
///
/// The store is ready when every watch has either listed or failed once: a namespace without the rights for it does not
/// hold up the others.
pub(super) async fn follow<K>(
    ctx: &Context,
    config: watcher::Config,
    writer: Writer<K>,
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
    let config = config.streaming_lists();
    let namespaces = ctx.namespaces.each();
    let mut kind = Kind::new(writer, namespaces.len());
    let watches = namespaces.into_iter().enumerate().map(|(index, namespace)| {
        let api: Api<DeserializeGuard<K>> = match &namespace {
            Some(namespace) => Api::namespaced(ctx.api.client(), namespace),
            None => Api::all(ctx.api.client()),
        };
        let namespace: Option<Arc<str>> = namespace.map(Into::into);
        watcher(api, config.clone()).default_backoff().map(move |event| (index, namespace.clone(), event)).boxed()
    });
    let mut events = stream::select_all(watches);
    while let Some((watch, namespace, event)) = events.next().await {
        match event {
            Ok(event) => kind.take(watch, namespace.as_deref(), event, &mut seen),
            Err(error) => {
                let namespace = namespace.as_deref().unwrap_or("all");
                tracing::warn!(kind = %K::kind(&()), namespace, %error, "watch interrupted; it resumes by itself");
                kind.is_listed(watch);
            }
        }
    }
}

/// The store of a kind, written by several watches.
struct Kind<K: kube::Resource<DynamicType = ()> + Clone + 'static> {
    writer: Writer<K>,
    store: Store<K>,
    /// Watches whose first list is not in. Until it is empty the writer collects, and readers see nothing.
    waiting: HashSet<usize>,
    /// Objects of the list that a watch is in the middle of.
    listed: HashMap<usize, HashSet<ObjectKey>>,
    /// What went away before the store was ready.
    gone: HashMap<ObjectKey, K>,
}

impl<K> Kind<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + 'static,
{
    fn new(writer: Writer<K>, watches: usize) -> Self {
        let store = writer.as_reader();
        Self { writer, store, waiting: (0..watches).collect(), listed: HashMap::new(), gone: HashMap::new() }
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
                for object in self.store.state() {
                    if is_watched(&object) && !listed.contains(&ObjectKey::of(&*object)) {
                        self.remove((*object).clone(), seen);
                    }
                }
                self.is_listed(watch);
            }
            Event::Apply(object) => self.put(object, seen),
            Event::Delete(DeserializeGuard(Ok(object))) => self.remove(object, seen),
            Event::Delete(DeserializeGuard(Err(_))) => {}
        }
    }

    fn put(&mut self, object: DeserializeGuard<K>, seen: &mut impl FnMut(Seen<'_, K>)) {
        let key = ObjectKey::of(&object);
        let before = self.store.get(&key.to_ref());
        let mut object = match object.0 {
            Ok(object) => object,
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), object = %key, %error, "it is not understood, and passed over");
                if let Some(before) = before {
                    self.remove((*before).clone(), seen);
                }
                return seen(Seen::Unreadable(key));
            }
        };
        // Half of an object's size, and nobody here reads it.
        object.meta_mut().managed_fields = None;
        self.gone.remove(&key);
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

    /// The first list of a watch is in, or will not be soon.
    fn is_listed(&mut self, watch: usize) {
        if self.waiting.remove(&watch) && self.waiting.is_empty() {
            self.writer.apply_watcher_event(&Event::InitDone);
            for (_, object) in self.gone.drain() {
                self.writer.apply_watcher_event(&Event::Delete(object));
            }
        }
    }
}
