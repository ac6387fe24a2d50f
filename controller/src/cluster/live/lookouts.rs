//! Watches on single objects that Syncs wait for (`spec.dependsOn`). The watches on whole kinds do not show such an
//! object if no Sync has applied it, because these watches select objects by the label of applied objects.
//!
//! ## Guarantees
//! - [`Change::Awaited`] is sent when the object was created, changed or deleted since the Sync read it, or when the
//!   kind that the Sync waits for may be served now.
//! - A Sync waits for one object at a time, so there are at most as many watches as Syncs that wait. Syncs that wait
//!   for the same object share a watch, which ends when no Sync waits for the object.
//! - The watches show only metadata. They are made with the controller's own rights, so a Sync may wait only for an
//!   object that its identity may read. From the watch, the Sync learns only when to read the object again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures::{StreamExt, pin_mut};
use kube::{
    api::{ApiResource, DynamicObject},
    core::PartialObjectMeta,
    runtime::watcher::{self, Event},
};

use crds::ObjectKey;

use super::{Change, Live};
use crate::cluster::{self, answer::resource_version, api::SharedResource};

/// How many Syncs of one namespace may wait with such watches. Further Syncs of the namespace read their objects again
/// after the usual pauses.
const MOST: usize = 50;
/// How long it may take, after its CustomResourceDefinition has changed, until a kind is served.
const IS_SERVED_WITHIN: Duration = Duration::from_secs(30);

/// An object that is waited for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Named {
    /// The kind of the object.
    pub resource: SharedResource,
    /// The namespace of the object, if its kind has namespaces.
    pub namespace: Option<String>,
    /// The name of the object.
    pub name: String,
}

/// What a read or a watch showed of an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sight {
    /// The object exists, with this resource version.
    At(u64),
    /// The object does not exist.
    Missing,
}

/// What a Sync waits for.
struct Wait {
    target: Target,
    /// What the Sync saw when it last read the object.
    read: Sight,
    has_changed: bool,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Target {
    Object(Named),
    /// A kind that is not served yet. One watch on all CustomResourceDefinitions serves all Syncs that wait for a kind.
    Kinds,
}

/// A running watch. The watch ends when this value is dropped.
struct Lookout {
    /// What the watch shows now; `None` before the first list.
    seen: Option<Sight>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All Syncs that wait, and the watches for them.
#[derive(Default)]
pub(super) struct Lookouts {
    waits: HashMap<ObjectKey, Wait>,
    running: HashMap<Target, Lookout>,
    /// For each Sync that waits for a kind: the API group of this kind.
    groups: HashMap<ObjectKey, String>,
    /// For each of these groups: when one of its CustomResourceDefinitions last changed.
    changed: HashMap<String, Instant>,
}

impl Lookouts {
    /// Notes that `sync` no longer waits. The watch ends if no other Sync needs it.
    fn stop(&mut self, sync: &ObjectKey) {
        let Some(wait) = self.waits.remove(sync) else { return };
        if let Some(group) = self.groups.remove(sync)
            && !self.groups.values().any(|other| *other == group)
        {
            self.changed.remove(&group);
        }
        if !self.waits.values().any(|other| other.target == wait.target) {
            self.running.remove(&wait.target);
        }
    }

    fn has_room(&self, namespace: &str) -> bool {
        self.waits.keys().filter(|sync| sync.namespace == namespace).count() < MOST
    }

    /// Notes what the watch of `target` shows. Returns the Syncs that have read another state of the object.
    fn saw(&mut self, target: &Target, seen: Sight) -> Vec<ObjectKey> {
        if let Some(lookout) = self.running.get_mut(target) {
            lookout.seen = Some(seen);
        }
        let waits = self.waits.iter_mut();
        let changed = waits.filter(|(_, wait)| wait.target == *target && !wait.has_changed && wait.read != seen);
        let mut woken = Vec::new();
        for (sync, wait) in changed {
            wait.has_changed = true;
            woken.push(sync.clone());
        }
        woken
    }

    /// Notes that a CustomResourceDefinition of this group exists or has changed. Returns the Syncs that wait for a
    /// kind of the group.
    fn saw_kind(&mut self, group: &str) -> Vec<ObjectKey> {
        let woken: Vec<_> = self.groups.iter().filter(|(_, of)| *of == group).map(|(sync, _)| sync.clone()).collect();
        if !woken.is_empty() {
            self.changed.insert(group.to_owned(), Instant::now());
        }
        for sync in &woken {
            if let Some(wait) = self.waits.get_mut(sync) {
                wait.has_changed = true;
            }
        }
        woken
    }
}

impl Live {
    /// Makes `sync` wait until the object differs from what was `read`. From now on, `sync` waits for nothing else.
    pub fn look_out(&self, sync: &ObjectKey, object: Named, read: Sight) {
        let is_elsewhere =
            object.namespace.as_deref().is_some_and(|namespace| !self.inner.namespaces.contains(namespace));
        if !object.resource.watchable || is_elsewhere {
            return self.stop_looking_out(sync);
        }
        self.wait(sync, Target::Object(object), read, None);
    }

    /// Makes `sync` wait until a kind of this group may be served.
    pub fn look_out_for_kind(&self, sync: &ObjectKey, group: &str) {
        self.wait(sync, Target::Kinds, Sight::Missing, Some(group.to_owned()));
    }

    fn wait(&self, sync: &ObjectKey, target: Target, read: Sight, group: Option<String>) {
        let mut lookouts = self.lookouts();
        if lookouts.waits.get(sync).is_none_or(|wait| wait.target != target) {
            lookouts.stop(sync);
            if !lookouts.has_room(&sync.namespace) {
                return;
            }
        }
        let seen = lookouts.running.get(&target).and_then(|lookout| lookout.seen);
        // A watch that already runs may have shown the CustomResourceDefinition after the Sync looked for the kind.
        let is_first = !lookouts.waits.contains_key(sync);
        let has_changed = seen.is_some_and(|seen| if target == Target::Kinds { is_first } else { seen != read });
        lookouts.waits.insert(sync.clone(), Wait { target: target.clone(), read, has_changed });
        if let Some(group) = group {
            lookouts.groups.insert(sync.clone(), group);
        }
        let live = self.clone();
        let started = target.clone();
        lookouts.running.entry(target).or_insert_with(|| Lookout {
            seen: None,
            task: tokio::spawn(async move { follow(&live, &started).await }),
        });
        drop(lookouts);
        if has_changed {
            self.send(Change::Awaited { sync: sync.clone() });
        }
    }

    /// Notes that `sync` no longer waits for an object or a kind.
    pub fn stop_looking_out(&self, sync: &ObjectKey) {
        self.lookouts().stop(sync);
    }

    /// Whether the object that `sync` waits for is certainly unchanged since `sync` read it.
    pub fn is_as_read(&self, sync: &ObjectKey) -> bool {
        let lookouts = self.lookouts();
        let Some(wait) = lookouts.waits.get(sync) else { return false };
        !wait.has_changed && lookouts.running.get(&wait.target).is_some_and(|lookout| lookout.seen.is_some())
    }

    /// Whether a kind of the group may be served in a moment, because its CustomResourceDefinition has just changed.
    pub fn is_kind_on_its_way(&self, group: &str) -> bool {
        self.lookouts().changed.get(group).is_some_and(|at| at.elapsed() < IS_SERVED_WITHIN)
    }

    fn lookouts(&self) -> std::sync::MutexGuard<'_, Lookouts> {
        self.inner.lookouts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn saw(&self, target: &Target, seen: Sight) {
        let woken = self.lookouts().saw(target, seen);
        for sync in woken {
            self.send(Change::Awaited { sync });
        }
    }

    fn saw_definition(&self, name: &str) {
        let Some((_, group)) = name.split_once('.') else { return };
        let woken = self.lookouts().saw_kind(group);
        for sync in woken {
            self.send(Change::Awaited { sync });
        }
    }
}

async fn follow(live: &Live, target: &Target) {
    let api_resource = match target {
        Target::Object(Named { resource, .. }) => super::watch::api_resource(resource),
        Target::Kinds => ApiResource {
            group: "apiextensions.k8s.io".into(),
            version: "v1".into(),
            api_version: "apiextensions.k8s.io/v1".into(),
            kind: "CustomResourceDefinition".into(),
            plural: "customresourcedefinitions".into(),
        },
    };
    let client = live.inner.client.clone();
    let config = watcher::Config::default();
    let (api, config): (kube::Api<PartialObjectMeta<DynamicObject>>, _) = match target {
        Target::Object(Named { namespace, name, .. }) => {
            let config = config.fields(&format!("metadata.name={}", escaped(name)));
            match namespace {
                Some(namespace) => (kube::Api::namespaced_with(client, namespace, &api_resource), config),
                None => (kube::Api::all_with(client, &api_resource), config),
            }
        }
        Target::Kinds => (kube::Api::all_with(client, &api_resource), config),
    };
    let stream = cluster::follow(api, config.clone().streaming_lists(), config);
    pin_mut!(stream);
    let at = |object: &PartialObjectMeta<DynamicObject>| Sight::At(resource_version(&object.metadata));
    let mut listed = Sight::Missing;
    while let Some(event) = stream.next().await {
        match (event, target) {
            (Ok(Event::Init), _) => listed = Sight::Missing,
            (Ok(Event::InitApply(object)), Target::Object(_)) => listed = at(&object),
            (Ok(Event::InitDone), _) => live.saw(target, listed),
            (Ok(Event::Apply(object)), Target::Object(_)) => live.saw(target, at(&object)),
            (Ok(Event::Delete(_)), Target::Object(_)) => live.saw(target, Sight::Missing),
            (Ok(Event::InitApply(object) | Event::Apply(object)), Target::Kinds) => {
                live.saw_definition(object.metadata.name.as_deref().unwrap_or_default());
            }
            (Ok(Event::Delete(_)), Target::Kinds) => {}
            (Err(error), _) => {
                let why = apiclient::words::of_watch(&error);
                tracing::warn!(kind = %api_resource.kind, group = %api_resource.group, error = why, "the watch on an object that a Sync waits for was interrupted");
                live.inner.metrics.watch_interrupted(&api_resource.kind);
                let mut lookouts = live.lookouts();
                if cluster::is_refused(&error) {
                    // This watch ends. Each Sync reads the object again after the usual pause, and may then begin a new
                    // watch.
                    lookouts.running.remove(target);
                    return;
                }
                if let Some(lookout) = lookouts.running.get_mut(target) {
                    lookout.seen = None;
                }
            }
        }
    }
}

/// Escapes a value for a field selector. This is needed because a tenant chose the name.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pipeline::Resource;

    use super::{
        Sight::{At, Missing},
        *,
    };

    fn object(name: &str) -> Target {
        let resource = Arc::new(Resource::service_accounts());
        Target::Object(Named { resource, namespace: Some("team".into()), name: name.into() })
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("team", name)
    }

    fn with(waits: &[(&str, &Target, Sight)]) -> Lookouts {
        let mut lookouts = Lookouts::default();
        for (sync, target, read) in waits {
            let wait = Wait { target: (*target).clone(), read: *read, has_changed: false };
            lookouts.waits.insert(key(sync), wait);
        }
        lookouts
    }

    #[test]
    fn who_read_another_version_is_woken_once() {
        let (a, b) = (object("a"), object("b"));
        let mut lookouts =
            with(&[("old", &a, At(1)), ("none", &a, Missing), ("new", &a, At(2)), ("other", &b, Missing)]);
        let mut woken = lookouts.saw(&a, At(2));
        woken.sort();
        assert_eq!(woken, [key("none"), key("old")]);
        assert_eq!(lookouts.saw(&a, At(3)), [key("new")], "the others are about to read it");
        assert_eq!(lookouts.saw(&b, Missing), [], "it still does not exist");
    }

    #[test]
    fn a_name_is_one_value_of_the_selector() {
        assert_eq!(escaped("a,metadata.name!=b\\"), "a\\,metadata.name!\\=b\\\\");
    }

    #[test]
    fn a_kind_wakes_those_who_wait_for_its_group() {
        let mut lookouts = with(&[("one", &Target::Kinds, Missing), ("two", &Target::Kinds, Missing)]);
        lookouts.groups.insert(key("one"), "example.com".into());
        lookouts.groups.insert(key("two"), "other.example.com".into());
        assert_eq!(lookouts.saw_kind("example.com"), [key("one")]);
        assert_eq!(lookouts.saw_kind("unknown.example.com"), []);
        lookouts.stop(&key("one"));
        assert_eq!((lookouts.waits.len(), lookouts.groups.len(), lookouts.changed.len()), (1, 1, 0));
    }

    #[test]
    fn one_namespace_has_a_limited_number_of_watches() {
        let target = object("a");
        let names: Vec<_> = (0..MOST).map(|number| format!("sync-{number}")).collect();
        let waits: Vec<_> = names.iter().map(|name| (name.as_str(), &target, Missing)).collect();
        let lookouts = with(&waits);
        assert!(!lookouts.has_room("team") && lookouts.has_room("other"));
    }
}
