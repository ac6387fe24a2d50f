use std::cell::RefCell;

use crds::SealedSecret;
use kube::runtime::reflector;
use serde_json::json;

use super::*;

/// A store to which two watches write, and the changes that were reported.
struct Scene {
    kind: RefCell<Kind<SealedSecret>>,
    told: RefCell<Vec<String>>,
}

fn sealed(namespace: &str, name: &str) -> DeserializeGuard<SealedSecret> {
    let object = json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "spec": {},
        "metadata": {"name": name, "namespace": namespace, "annotations": {LAST_APPLIED: "everything"}},
    });
    serde_json::from_value(object).unwrap()
}

impl Scene {
    fn new() -> Self {
        let (_, writer) = reflector::store();
        let mut kind = Kind::new(writer);
        kind.begin(2);
        Self { kind: kind.into(), told: RefCell::default() }
    }

    fn shows(&self, namespace: &str, event: Event<DeserializeGuard<SealedSecret>>) {
        let watch = usize::from(namespace == "b");
        let mut told = |seen: Seen<'_, SealedSecret>| {
            let text = match seen {
                Seen::Put { now, before: None } => format!("new {}", ObjectKey::of(now)),
                Seen::Put { now, before: Some(_) } => format!("put {}", ObjectKey::of(now)),
                Seen::Gone(object) => format!("gone {}", ObjectKey::of(object)),
                Seen::Unreadable(key) => format!("unreadable {key}"),
                Seen::WentBack => "went back".into(),
            };
            self.told.borrow_mut().push(text);
        };
        self.kind.borrow_mut().take(watch, Some(namespace), event, &mut told);
    }

    fn lists(&self, namespace: &str, names: &[&str]) {
        self.shows(namespace, Event::Init);
        for name in names {
            self.shows(namespace, Event::InitApply(sealed(namespace, name)));
        }
        self.shows(namespace, Event::InitDone);
    }

    /// The changes that were reported since the last call.
    fn told(&self) -> Vec<String> {
        self.told.take()
    }

    /// The objects in the store.
    fn stored(&self) -> Vec<String> {
        let state = self.kind.borrow().store.state();
        let mut keys: Vec<_> = state.iter().map(|object| ObjectKey::of(&**object).to_string()).collect();
        keys.sort();
        keys
    }
}

#[test]
fn the_store_is_ready_when_every_namespace_is_listed() {
    let scene = Scene::new();
    scene.lists("a", &["one", "two"]);
    assert_eq!(scene.told(), ["new a/one", "new a/two"]);
    assert!(scene.stored().is_empty(), "the other list is not in");
    scene.shows("a", Event::Delete(sealed("a", "two")));
    scene.shows("a", Event::Apply(sealed("a", "three")));
    assert_eq!(scene.told(), ["gone a/two", "new a/three"]);
    scene.lists("b", &["one"]);
    assert_eq!(scene.stored(), ["a/one", "a/three", "b/one"]);
    let object = scene.kind.borrow().store.state()[0].clone();
    assert!(object.annotations().is_empty(), "nobody needs what kubectl keeps in there");
}

#[test]
fn a_namespace_without_rights_holds_up_no_other() {
    let scene = Scene::new();
    scene.kind.borrow_mut().is_listed(1);
    scene.lists("a", &["one"]);
    assert_eq!(scene.stored(), ["a/one"]);
    scene.lists("b", &["late"]);
    assert_eq!(scene.stored(), ["a/one", "b/late"]);
}

#[test]
fn what_went_away_while_nobody_looked_is_told_and_only_of_its_namespace() {
    let scene = Scene::new();
    scene.lists("a", &["one", "two"]);
    scene.lists("b", &["one"]);
    scene.told();
    scene.lists("a", &["two", "three"]);
    assert_eq!(scene.told(), ["put a/two", "new a/three", "gone a/one"]);
    assert_eq!(scene.stored(), ["a/three", "a/two", "b/one"]);
}

#[test]
fn when_this_replica_begins_to_lead_everything_is_new() {
    let scene = Scene::new();
    scene.lists("a", &["one", "two"]);
    scene.lists("b", &[]);
    scene.told();
    scene.kind.borrow_mut().begin(2);
    assert_eq!(scene.stored(), ["a/one", "a/two"], "readers see what was before");
    scene.lists("a", &["two"]);
    scene.lists("b", &[]);
    assert_eq!(scene.told(), ["new a/two"]);
    assert_eq!(scene.stored(), ["a/two"]);
}

#[test]
fn what_is_not_understood_is_told_and_not_stored() {
    let scene = Scene::new();
    scene.lists("a", &["one"]);
    scene.lists("b", &[]);
    scene.told();
    let broken: DeserializeGuard<SealedSecret> = serde_json::from_value(json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "spec": {"encryptedData": {"a": 5}},
        "metadata": {"name": "one", "namespace": "a"},
    }))
    .unwrap();
    scene.shows("a", Event::Apply(broken));
    assert_eq!(scene.told(), ["gone a/one", "unreadable a/one"]);
    assert!(scene.stored().is_empty());
}
