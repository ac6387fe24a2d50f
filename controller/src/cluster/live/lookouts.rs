//! Watches on single objects that Syncs wait for (`spec.dependsOn`), or that their charts get values from, and on what these
//! charts look up. The watches on whole kinds do not show such an object if no Sync has applied it, because these watches
//! select objects by the label of applied objects.
//!
//! ## Guarantees
//! - [`Change::Awaited`] is sent when the object was created, changed or deleted since the Sync read it, or when the
//!   kind that the Sync waits for may be served now. [`Change::Input`] is sent when an object with values, or one that is
//!   looked up, was created, changed or deleted since the Sync read it.
//! - A Sync waits for one object of `spec.dependsOn` at a time, so there are at most as many watches as Syncs that wait.
//!   The number of watches for inputs is limited per namespace. Syncs that need the same object share a watch, which ends
//!   when no Sync needs it.
//! - The watches show only metadata. They are made with the controller's own rights, so a Sync may wait only for an
//!   object that its identity may read. From the watch, the Sync learns only when to read the object again.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, Instant},
};

use futures::{StreamExt, pin_mut};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    api::{ApiResource, DynamicObject},
    core::PartialObjectMeta,
    runtime::watcher::{self, Event},
};

use crds::ObjectKey;
use pipeline::Entry;
use renderer::MOST_LOOKED_UP;

use super::{Change, Live};
use crate::cluster::{self, Namespaces, answer::resource_version, api::SharedResource};

/// How many Syncs of one namespace may wait with a watch for what `spec.dependsOn` names. Further Syncs of the
/// namespace read their objects again after the usual pauses.
const MOST: usize = 50;
/// How many watches on inputs there may be for the Syncs of one namespace. Further inputs are read again at the interval of
/// their Sync.
const MOST_INPUTS: usize = 100;
/// How long the API server may take to serve a kind after its CustomResourceDefinition was added or changed.
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

/// All objects of a kind, or those in one namespace.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AllOf {
    /// The kind.
    pub resource: SharedResource,
    /// The namespace; `None` for all namespaces, and for a kind without namespaces.
    pub namespace: Option<String>,
}

/// What a read or a watch showed of an object, or of all objects of a kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sight {
    /// The object exists, with this resource version.
    At(u64),
    /// The object does not exist.
    Missing,
    /// These objects exist: the sum of what [`one_of_all`] returns for each of them.
    All(u64),
    /// There are, or there were for a moment, more objects than a Sync may read.
    TooMany,
}

impl Sight {
    /// What a read showed that returned this object: its resource version.
    pub fn of(object: &serde_json::Value) -> Self {
        let version = object.pointer("/metadata/resourceVersion").and_then(serde_json::Value::as_str);
        Self::At(version.and_then(|version| version.parse().ok()).unwrap_or_default())
    }

    /// The same, if only the metadata of the object are at hand.
    pub fn of_metadata(metadata: &ObjectMeta) -> Self {
        Self::At(resource_version(metadata))
    }

    /// The sight of all objects of a kind that were read.
    pub fn of_all(objects: &[serde_json::Value]) -> Self {
        Self::All(objects.iter().fold(0, |sum, object| {
            let part = |path| object.pointer(path).and_then(serde_json::Value::as_str).unwrap_or_default();
            let Self::At(version) = Self::of(object) else { return sum };
            sum.wrapping_add(one_of_all(&place(part("/metadata/namespace"), part("/metadata/name")), version))
        }))
    }
}

/// What distinguishes an object from all others of its kind.
fn place(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

fn place_of(metadata: &ObjectMeta) -> String {
    place(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// The part of one object in [`Sight::All`].
fn one_of_all(place: &str, version: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (place, version).hash(&mut hasher);
    hasher.finish()
}

/// What a watch shows of all objects of a kind: their places and versions, as long as there are not too many.
#[derive(Default)]
struct Seen {
    versions: HashMap<String, u64>,
    are_too_many: bool,
}

impl Seen {
    fn saw(&mut self, metadata: &ObjectMeta) {
        self.versions.insert(place_of(metadata), resource_version(metadata));
        if self.versions.len() > MOST_LOOKED_UP {
            self.versions.clear();
            self.are_too_many = true;
        }
    }

    fn forget(&mut self, metadata: &ObjectMeta) {
        self.versions.remove(&place_of(metadata));
    }

    fn sight(&self) -> Sight {
        if self.are_too_many {
            return Sight::TooMany;
        }
        Sight::All(self.versions.iter().fold(0, |sum, (place, version)| sum.wrapping_add(one_of_all(place, *version))))
    }
}

/// Who needs a watch.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Waiter {
    sync: ObjectKey,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Purpose {
    /// The Sync waits for an object of `spec.dependsOn`.
    Dependency,
    /// The entry of the Sync names the object, or all objects of the kind, as an input.
    Input(Entry),
}

impl Waiter {
    fn dependency(sync: &ObjectKey) -> Self {
        Self { sync: sync.clone(), purpose: Purpose::Dependency }
    }

    fn input(sync: &ObjectKey, entry: Entry) -> Self {
        Self { sync: sync.clone(), purpose: Purpose::Input(entry) }
    }

    /// The change to send when the object changed.
    fn change(self) -> Change {
        match self.purpose {
            Purpose::Dependency => Change::Awaited { sync: self.sync },
            Purpose::Input(_) => Change::Input { sync: self.sync },
        }
    }
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
    All(AllOf),
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
    waits: HashMap<Waiter, Wait>,
    running: HashMap<Target, Lookout>,
    /// For each Sync that waits for a kind: the API group of this kind.
    groups: HashMap<ObjectKey, String>,
    /// For each of these groups: when one of its CustomResourceDefinitions last changed.
    changed: HashMap<String, Instant>,
}

impl Lookouts {
    /// Notes that `waiter` no longer waits. The watch ends if nobody else needs it.
    fn stop(&mut self, waiter: &Waiter) {
        let Some(wait) = self.waits.remove(waiter) else { return };
        if waiter.purpose == Purpose::Dependency
            && let Some(group) = self.groups.remove(&waiter.sync)
            && !self.groups.values().any(|other| *other == group)
        {
            self.changed.remove(&group);
        }
        if !self.waits.values().any(|other| other.target == wait.target) {
            self.running.remove(&wait.target);
        }
    }

    /// Whether the limits of the namespace of `waiter` allow one more watch, on `target`.
    fn has_room(&self, waiter: &Waiter, target: &Target) -> bool {
        let of_namespace = self.waits.iter().filter(|(other, _)| other.sync.namespace == waiter.sync.namespace);
        let is_input = |purpose| matches!(purpose, Purpose::Input(_));
        let alike = of_namespace.filter(|(other, _)| is_input(other.purpose) == is_input(waiter.purpose));
        if is_input(waiter.purpose) {
            let targets: HashSet<_> = alike.map(|(_, wait)| &wait.target).collect();
            targets.contains(target) || targets.len() < MOST_INPUTS
        } else {
            alike.count() < MOST
        }
    }

    /// Notes what the watch of `target` shows. Returns the waiters that have read the object in another state.
    fn saw(&mut self, target: &Target, seen: Sight) -> Vec<Waiter> {
        if let Some(lookout) = self.running.get_mut(target) {
            lookout.seen = Some(seen);
        }
        let waits = self.waits.iter_mut();
        let changed = waits.filter(|(_, wait)| wait.target == *target && !wait.has_changed && wait.read != seen);
        let mut woken = Vec::new();
        for (waiter, wait) in changed {
            wait.has_changed = true;
            woken.push(waiter.clone());
        }
        woken
    }

    /// Notes that a CustomResourceDefinition of this group exists or has changed. Returns the Syncs that wait for a
    /// kind of the group.
    fn saw_kind(&mut self, group: &str) -> Vec<Waiter> {
        let woken = self.groups.iter().filter(|(_, of)| *of == group).map(|(sync, _)| Waiter::dependency(sync));
        let woken: Vec<_> = woken.collect();
        if !woken.is_empty() {
            self.changed.insert(group.to_owned(), Instant::now());
        }
        for waiter in &woken {
            if let Some(wait) = self.waits.get_mut(waiter) {
                wait.has_changed = true;
            }
        }
        woken
    }
}

impl Live {
    /// Makes `sync` wait until the object differs from what was `read`. From now on, `sync` waits for nothing else.
    pub fn look_out(&self, sync: &ObjectKey, object: Named, read: Sight) {
        self.look_out_for(&Waiter::dependency(sync), object, read);
    }

    /// Sends [`Change::Input`] when the object differs from what was `read` for this entry of `sync`.
    pub fn look_out_for_input(&self, sync: &ObjectKey, entry: Entry, object: Named, read: Sight) {
        self.look_out_for(&Waiter::input(sync, entry), object, read);
    }

    /// Sends [`Change::Input`] when the objects of a kind differ from what was `read` for this entry of `sync`.
    pub fn look_out_for_all(&self, sync: &ObjectKey, entry: Entry, all: AllOf, read: Sight) {
        let waiter = Waiter::input(sync, entry);
        if self.may_watch(&all.resource, all.namespace.as_deref()) {
            self.wait(&waiter, Target::All(all), read, None);
        } else {
            self.lookouts().stop(&waiter);
        }
    }

    fn look_out_for(&self, waiter: &Waiter, object: Named, read: Sight) {
        if self.may_watch(&object.resource, object.namespace.as_deref()) {
            self.wait(waiter, Target::Object(object), read, None);
        } else {
            self.lookouts().stop(waiter);
        }
    }

    fn may_watch(&self, resource: &SharedResource, namespace: Option<&str>) -> bool {
        let is_in_reach = match namespace {
            Some(namespace) => self.inner.namespaces.contains(namespace),
            None => !resource.namespaced || self.inner.namespaces == Namespaces::All,
        };
        resource.watchable && is_in_reach
    }

    /// Makes `sync` wait until a CustomResourceDefinition of this group is added or changed: then the API server may
    /// serve the kind that `sync` needs.
    pub fn look_out_for_kind(&self, sync: &ObjectKey, group: &str) {
        self.wait(&Waiter::dependency(sync), Target::Kinds, Sight::Missing, Some(group.to_owned()));
    }

    fn wait(&self, waiter: &Waiter, target: Target, read: Sight, group: Option<String>) {
        let mut lookouts = self.lookouts();
        if lookouts.waits.get(waiter).is_none_or(|wait| wait.target != target) {
            lookouts.stop(waiter);
            if !lookouts.has_room(waiter, &target) {
                return;
            }
        }
        let seen = lookouts.running.get(&target).and_then(|lookout| lookout.seen);
        // A watch that already runs may have shown the CustomResourceDefinition after the Sync looked for the kind.
        let is_first = !lookouts.waits.contains_key(waiter);
        let has_changed = seen.is_some_and(|seen| if target == Target::Kinds { is_first } else { seen != read });
        lookouts.waits.insert(waiter.clone(), Wait { target: target.clone(), read, has_changed });
        if let Some(group) = group {
            lookouts.groups.insert(waiter.sync.clone(), group);
        }
        let live = self.clone();
        let started = target.clone();
        lookouts.running.entry(target).or_insert_with(|| Lookout {
            seen: None,
            task: tokio::spawn(async move { follow(&live, &started).await }),
        });
        drop(lookouts);
        if has_changed {
            self.send(waiter.clone().change());
        }
    }

    /// Notes that `sync` no longer waits for an object or a kind of `spec.dependsOn`.
    pub fn stop_looking_out(&self, sync: &ObjectKey) {
        self.lookouts().stop(&Waiter::dependency(sync));
    }

    /// Notes that `sync` no longer needs its inputs, except those of the entries that `keep` accepts.
    pub fn stop_looking_out_for_inputs(&self, sync: &ObjectKey, keep: impl Fn(Entry) -> bool) {
        let mut lookouts = self.lookouts();
        let is_over =
            |waiter: &&Waiter| waiter.sync == *sync && matches!(waiter.purpose, Purpose::Input(entry) if !keep(entry));
        let over: Vec<_> = lookouts.waits.keys().filter(is_over).cloned().collect();
        for waiter in &over {
            lookouts.stop(waiter);
        }
    }

    /// Whether a watch will show when what this entry names changes.
    pub fn looks_out_for_input(&self, sync: &ObjectKey, entry: Entry) -> bool {
        let lookouts = self.lookouts();
        let wait = lookouts.waits.get(&Waiter::input(sync, entry));
        wait.is_some_and(|wait| lookouts.running.contains_key(&wait.target))
    }

    /// Whether the object that `sync` waits for is certainly unchanged since `sync` read it.
    pub fn is_as_read(&self, sync: &ObjectKey) -> bool {
        let lookouts = self.lookouts();
        let Some(wait) = lookouts.waits.get(&Waiter::dependency(sync)) else { return false };
        !wait.has_changed && lookouts.running.get(&wait.target).is_some_and(|lookout| lookout.seen.is_some())
    }

    /// Whether the API server may soon serve a new kind of the group, because its CustomResourceDefinition has just
    /// changed.
    pub fn is_kind_on_its_way(&self, group: &str) -> bool {
        self.lookouts().changed.get(group).is_some_and(|at| at.elapsed() < IS_SERVED_WITHIN)
    }

    fn lookouts(&self) -> std::sync::MutexGuard<'_, Lookouts> {
        self.inner.lookouts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn saw(&self, target: &Target, seen: Sight) {
        let woken = self.lookouts().saw(target, seen);
        for waiter in woken {
            self.send(waiter.change());
        }
    }

    fn saw_definition(&self, name: &str) {
        let Some((_, group)) = name.split_once('.') else { return };
        let woken = self.lookouts().saw_kind(group);
        for waiter in woken {
            self.send(waiter.change());
        }
    }
}

async fn follow(live: &Live, target: &Target) {
    let api_resource = match target {
        Target::Object(Named { resource, .. }) | Target::All(AllOf { resource, .. }) => {
            super::watch::api_resource(resource)
        }
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
        Target::All(AllOf { namespace: Some(namespace), .. }) => {
            (kube::Api::namespaced_with(client, namespace, &api_resource), config)
        }
        Target::All(AllOf { namespace: None, .. }) | Target::Kinds => {
            (kube::Api::all_with(client, &api_resource), config)
        }
    };
    let stream = cluster::follow(api, config.clone().streaming_lists(), config);
    pin_mut!(stream);
    let at = |object: &PartialObjectMeta<DynamicObject>| Sight::At(resource_version(&object.metadata));
    let (mut listed, mut all) = (Sight::Missing, Seen::default());
    while let Some(event) = stream.next().await {
        match (event, target) {
            (Ok(Event::Init), _) => {
                listed = Sight::Missing;
                all = Seen::default();
            }
            (Ok(Event::InitApply(object)), Target::All(_)) => all.saw(&object.metadata),
            (Ok(Event::InitDone), Target::All(_)) => live.saw(target, all.sight()),
            (Ok(Event::Apply(object)), Target::All(_)) => {
                all.saw(&object.metadata);
                live.saw(target, all.sight());
            }
            (Ok(Event::Delete(object)), Target::All(_)) => {
                all.forget(&object.metadata);
                live.saw(target, all.sight());
            }
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
                    // This watch ends. Each Sync that needs it reads the object again after the usual pause, and may
                    // then begin a new watch.
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

/// Escapes the name of an object for a field selector. A tenant chose the name, so it may have any characters.
fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for character in name.chars() {
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

    fn key(name: &str) -> Waiter {
        Waiter::dependency(&ObjectKey::new("team", name))
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
    fn all_objects_are_seen_as_they_were_read() {
        let metadata = |name: &str, version: &str| ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        let read = |objects: &[(&str, &str)]| {
            let object = |(name, version): &(&str, &str)| serde_json::to_value(metadata(name, version)).unwrap();
            let objects: Vec<_> =
                objects.iter().map(object).map(|metadata| serde_json::json!({ "metadata": metadata })).collect();
            Sight::of_all(&objects)
        };
        let mut seen = Seen::default();
        assert_eq!(seen.sight(), read(&[]));
        seen.saw(&metadata("a", "1"));
        seen.saw(&metadata("b", "2"));
        assert_eq!(seen.sight(), read(&[("b", "2"), ("a", "1")]));
        assert_ne!(seen.sight(), read(&[("b", "1"), ("a", "2")]));
        let other = ObjectMeta { namespace: Some("other".into()), ..metadata("a", "1") };
        seen.saw(&other);
        assert_ne!(seen.sight(), read(&[("b", "2"), ("a", "1")]), "two namespaces may have objects with the same name");
        seen.forget(&other);
        seen.saw(&metadata("a", "3"));
        assert_eq!(seen.sight(), read(&[("a", "3"), ("b", "2")]));
        seen.forget(&metadata("b", "4"));
        assert_eq!(seen.sight(), read(&[("a", "3")]));
        for number in 0..MOST_LOOKED_UP {
            seen.saw(&metadata(&number.to_string(), "1"));
        }
        assert_eq!(seen.sight(), Sight::TooMany);
    }

    #[test]
    fn a_name_is_one_value_of_the_selector() {
        assert_eq!(escaped("a,metadata.name!=b\\"), "a\\,metadata.name!\\=b\\\\");
    }

    #[test]
    fn a_kind_wakes_those_who_wait_for_its_group() {
        let mut lookouts = with(&[("one", &Target::Kinds, Missing), ("two", &Target::Kinds, Missing)]);
        lookouts.groups.insert(key("one").sync, "example.com".into());
        lookouts.groups.insert(key("two").sync, "other.example.com".into());
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
        let other = Waiter::dependency(&ObjectKey::new("other", "a"));
        assert!(!lookouts.has_room(&key("a"), &target) && lookouts.has_room(&other, &target));
        assert!(
            lookouts.has_room(&Waiter::input(&key("a").sync, Entry::Values(0)), &target),
            "values do not count with dependencies"
        );
    }

    #[test]
    fn a_sync_may_wait_for_a_dependency_and_for_values() {
        let (a, b) = (object("a"), object("b"));
        let mut lookouts = with(&[("one", &a, At(1))]);
        for (index, target) in [(0, &a), (3, &b)] {
            let waiter = Waiter::input(&key("one").sync, Entry::Values(index));
            lookouts.waits.insert(waiter, Wait { target: target.clone(), read: At(1), has_changed: false });
        }
        let sync = key("one").sync;
        let mut woken = lookouts.saw(&a, At(2));
        woken.sort();
        assert_eq!(woken, [key("one"), Waiter::input(&sync, Entry::Values(0))]);
        assert_eq!(lookouts.saw(&b, At(2)), [Waiter::input(&sync, Entry::Values(3))]);
        lookouts.stop(&key("one"));
        assert_eq!(lookouts.waits.len(), 2, "the values are still needed");
    }

    #[test]
    fn one_namespace_has_a_limited_number_of_objects_with_values() {
        let mut lookouts = Lookouts::default();
        let sync = key("one").sync;
        let targets: Vec<_> = (0..MOST_INPUTS).map(|number| object(&number.to_string())).collect();
        for (index, target) in targets.iter().enumerate() {
            assert!(lookouts.has_room(&Waiter::input(&sync, Entry::Values(index)), target), "{index}");
            let wait = Wait { target: target.clone(), read: Missing, has_changed: false };
            lookouts.waits.insert(Waiter::input(&sync, Entry::Values(index)), wait);
        }
        let next = Waiter::input(&sync, Entry::Lookup(0));
        assert!(!lookouts.has_room(&next, &object("another")));
        assert!(lookouts.has_room(&next, &targets[0]), "the watch is shared");
        assert!(lookouts.has_room(&key("one"), &object("another")), "dependencies have room of their own");
    }
}
