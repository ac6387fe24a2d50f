//! Tests the index [`Live`] as a state machine, without a cluster. The inputs are events of the watch and our own
//! writes; the outputs are the changes that are reported.

use std::{cell::RefCell, collections::HashSet};

use ::fields::Expired;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pipeline::FieldsDigest;
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{watch::live_object, *};
use crate::cluster::{SecretFacts, Written};

struct Scene {
    live: Live,
    changes: RefCell<UnboundedReceiver<Change>>,
}

impl Scene {
    /// An index whose client never sends a request.
    fn new() -> Self {
        let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = kube::Client::try_from(nowhere).unwrap();
        let (live, changes) = Live::new(client, Metrics::new("test"), Namespaces::All);
        let changes = changes.into();
        Self { live, changes }
    }

    /// An index in which the Sync `a` has applied `id` at version 10, and the watch has shown this.
    fn with_applied(id: &ObjectId) -> Self {
        let scene = Self::new();
        scene.live.claim(&sync("a"), id).unwrap();
        scene.apply(id, 10, OURS);
        scene.sees(id, 10, OURS);
        assert_eq!(scene.told(), []);
        scene
    }

    fn apply(&self, id: &ObjectId, version: u64, fields: &str) {
        self.live.begin(id).applied(&answer(version, fields));
    }

    fn sees(&self, id: &ObjectId, version: u64, fields: &str) {
        self.live.observe(id.clone(), version, Some(object(version, fields)), None);
    }

    fn sees_gone(&self, id: &ObjectId, version: u64) {
        self.live.observe(id.clone(), version, None, None);
    }

    /// Simulates the end of a list request. It has found exactly the objects `listed`, and it began when `writes`
    /// writes had ended.
    fn lists(&self, listed: &[&ObjectId], writes: u64) {
        let seen: HashSet<ObjectId> = listed.iter().copied().cloned().collect();
        self.live.sweep(("", "ConfigMap", None), &seen, writes);
    }

    /// The changes that were reported since the last call.
    fn told(&self) -> Vec<Change> {
        std::iter::from_fn(|| self.changes.borrow_mut().try_recv().ok()).collect()
    }
}

const OURS: &str = "00000000000000aa";
const TAKEN: &str = "00000000000000bb";
const TAKEN_MORE: &str = "00000000000000cc";

fn digest(fields: &str) -> Option<FieldsDigest> {
    FieldsDigest::parse(fields)
}

fn sync(name: &str) -> ObjectKey {
    ObjectKey::new("team", name)
}

fn id(kind: &str, name: &str) -> ObjectId {
    ObjectId { group: String::new(), kind: kind.into(), namespace: Some("ns".into()), name: name.into() }
}

fn settings() -> ObjectId {
    id("ConfigMap", "settings")
}

fn object(version: u64, fields: &str) -> LiveObject {
    LiveObject {
        uid: "uid".into(),
        version,
        fields: digest(fields),
        secret: None,
        expires: None,
        kept: false,
        going: false,
        owners: None,
    }
}

fn answer(version: u64, fields: &str) -> Written {
    Written {
        uid: "uid".into(),
        resource_version: version,
        fields: digest(fields),
        secret: None,
        created: false,
        expires: None,
        kept: false,
        going: None,
        managed_fields: Vec::new(),
    }
}

fn drifted(name: &str, id: &ObjectId) -> Change {
    Change::Drifted { sync: sync(name), id: id.clone() }
}

#[tokio::test]
async fn our_own_apply_is_no_drift_when_its_event_comes_before_the_answer() {
    let (scene, id) = (Scene::new(), settings());
    scene.live.claim(&sync("a"), &id).unwrap();
    for (version, fields) in [(10, OURS), (20, TAKEN)] {
        let writing = scene.live.begin(&id);
        scene.sees(&id, version, fields);
        assert_eq!(scene.told(), [], "judged when the write is over");
        writing.applied(&answer(version, fields));
        assert_eq!(scene.told(), []);
        assert!(scene.live.is_untouched(&id));
    }
}

#[tokio::test]
async fn our_own_apply_is_no_drift_when_its_event_comes_after_the_answer() {
    let (scene, id) = (Scene::new(), settings());
    scene.live.claim(&sync("a"), &id).unwrap();
    for (version, fields) in [(10, OURS), (20, TAKEN)] {
        scene.apply(&id, version, fields);
        assert!(scene.live.is_untouched(&id), "known without waiting for the watch");
        scene.sees(&id, version, fields);
        assert_eq!(scene.told(), []);
    }
}

#[tokio::test]
async fn an_object_that_is_being_deleted_is_told_of_once_and_again_when_it_is_gone() {
    let (scene, id) = (Scene::with_applied(&settings()), settings());
    let going = |version| Some(LiveObject { going: true, ..object(version, OURS) });
    for version in [11, 12] {
        scene.live.observe(id.clone(), version, going(version), None);
        assert_eq!(scene.told(), if version == 11 { vec![drifted("a", &id)] } else { vec![] });
        assert!(scene.live.is_touched(&id) && !scene.live.is_untouched(&id));
    }
    // A write to an object that is being deleted does not end the deletion.
    scene.live.begin(&id).applied(&Written { going: Some(vec!["hold".into()]), ..answer(13, OURS) });
    assert_eq!(scene.told(), []);
    assert!(scene.live.is_touched(&id));
    scene.sees_gone(&id, 14);
    assert_eq!(scene.told(), [drifted("a", &id)]);
    // A Job that Kubernetes deletes after its time to live is not reported.
    scene.apply(&id, 20, OURS);
    let expires = LiveObject { going: true, expires: Some(Expired::Failed), ..object(21, OURS) };
    scene.live.observe(id.clone(), 21, Some(expires), None);
    assert_eq!(scene.told(), []);
    assert_eq!(scene.live.expired(&id), None, "it is still there");
    scene.sees_gone(&id, 22);
    assert_eq!(scene.live.expired(&id), Some(Expired::Failed));
    let complete = LiveObject { expires: Some(Expired::Complete), ..object(31, OURS) };
    scene.live.observe(id.clone(), 31, Some(complete), None);
    scene.sees_gone(&id, 32);
    assert_eq!(scene.live.expired(&id), Some(Expired::Complete));
}

#[tokio::test]
async fn events_older_than_our_last_write_say_nothing() {
    let scene = Scene::with_applied(&settings());
    scene.apply(&settings(), 20, TAKEN);
    scene.sees(&settings(), 10, OURS);
    scene.sees(&settings(), 15, TAKEN_MORE);
    scene.sees_gone(&settings(), 19);
    assert_eq!(scene.told(), []);
    assert!(scene.live.is_untouched(&settings()));
}

#[tokio::test]
async fn events_older_than_what_the_watch_showed_say_nothing() {
    let scene = Scene::with_applied(&settings());
    scene.sees(&settings(), 30, OURS);
    scene.sees(&settings(), 25, TAKEN);
    assert_eq!(scene.told(), []);
}

#[tokio::test]
async fn a_taken_field_is_one_drift_until_it_is_put_back() {
    let scene = Scene::with_applied(&settings());
    scene.sees(&settings(), 11, TAKEN);
    assert_eq!(scene.told(), [drifted("a", &settings())]);
    assert!(!scene.live.is_untouched(&settings()));
    scene.sees(&settings(), 12, TAKEN);
    assert_eq!(scene.told(), [], "a status writer on top of it is no other drift");
    scene.sees(&settings(), 13, TAKEN_MORE);
    assert_eq!(scene.told(), [drifted("a", &settings())], "another field is");
    scene.apply(&settings(), 14, OURS);
    scene.sees(&settings(), 14, OURS);
    assert_eq!(scene.told(), []);
    scene.sees(&settings(), 15, TAKEN);
    assert_eq!(scene.told(), [drifted("a", &settings())], "and so is the same one again");
}

#[tokio::test]
async fn a_field_taken_between_our_write_and_its_answer_is_drift() {
    let scene = Scene::with_applied(&settings());
    let writing = scene.live.begin(&settings());
    scene.sees(&settings(), 20, OURS);
    scene.sees(&settings(), 21, TAKEN);
    assert_eq!(scene.told(), []);
    writing.applied(&answer(20, OURS));
    assert_eq!(scene.told(), [drifted("a", &settings())]);
}

#[tokio::test]
async fn a_deletion_is_drift_and_a_recreation_heals_it() {
    let scene = Scene::with_applied(&settings());
    scene.sees_gone(&settings(), 11);
    assert_eq!(scene.told(), [drifted("a", &settings())]);
    assert!(scene.live.get(&settings()).is_none());
    scene.apply(&settings(), 12, OURS);
    scene.sees(&settings(), 12, OURS);
    assert_eq!(scene.told(), []);
    assert!(scene.live.is_untouched(&settings()));
}

#[tokio::test]
async fn a_deletion_between_our_write_and_its_answer_is_drift() {
    let scene = Scene::with_applied(&settings());
    let writing = scene.live.begin(&settings());
    scene.sees(&settings(), 20, OURS);
    scene.sees_gone(&settings(), 21);
    writing.applied(&answer(20, OURS));
    assert_eq!(scene.told(), [drifted("a", &settings())]);
    assert!(scene.live.get(&settings()).is_none(), "the answer is older than the deletion");
}

#[tokio::test]
async fn a_write_that_failed_hides_nothing_and_repeats_nothing() {
    let scene = Scene::with_applied(&settings());
    let writing = scene.live.begin(&settings());
    scene.sees(&settings(), 11, TAKEN);
    assert_eq!(scene.told(), []);
    drop(writing);
    assert_eq!(scene.told(), [drifted("a", &settings())], "somebody else wrote meanwhile");
    drop(scene.live.begin(&settings()));
    assert_eq!(scene.told(), [], "it could not be put back: trying again is the pass's business");
}

#[tokio::test]
async fn two_writes_at_a_time_are_judged_when_both_are_over() {
    let scene = Scene::with_applied(&settings());
    let (first, second) = (scene.live.begin(&settings()), scene.live.begin(&settings()));
    second.applied(&answer(21, TAKEN));
    scene.sees(&settings(), 20, OURS);
    scene.sees(&settings(), 21, TAKEN);
    first.applied(&answer(20, OURS));
    assert_eq!(scene.told(), [], "the later write is what has to stay");
    assert!(scene.live.is_untouched(&settings()));
}

#[tokio::test]
async fn a_status_writer_is_told_of_only_while_health_is_awaited() {
    let scene = Scene::with_applied(&settings());
    scene.sees(&settings(), 11, OURS);
    assert_eq!(scene.told(), []);
    scene.live.await_health(&settings(), true);
    scene.sees(&settings(), 12, OURS);
    assert_eq!(scene.told(), [Change::Progressed { sync: sync("a") }]);
    scene.live.await_health(&settings(), false);
    scene.sees(&settings(), 13, OURS);
    assert_eq!(scene.told(), []);
}

#[tokio::test]
async fn our_own_deletion_is_no_drift() {
    let scene = Scene::with_applied(&settings());
    let writing = scene.live.begin(&settings());
    scene.sees_gone(&settings(), 11);
    writing.deleted();
    scene.live.release(&sync("a"), &settings());
    assert_eq!(scene.told(), []);

    let scene = Scene::with_applied(&settings());
    scene.live.begin(&settings()).deleted();
    scene.live.release(&sync("a"), &settings());
    scene.sees_gone(&settings(), 11);
    assert_eq!(scene.told(), []);
    assert!(scene.live.index().entries.is_empty(), "nothing is kept of it");
}

#[tokio::test]
async fn a_stored_inventory_tells_what_changed_while_nobody_looked() {
    let names = ["same", "changed", "gone", "never-applied"];
    let [same, changed, gone, unknown] = names.map(|name| id("ConfigMap", name));
    let scene = Scene::new();
    for restored in [&same, &changed, &gone] {
        scene.live.restore(&sync("a"), restored, digest(OURS));
    }
    scene.live.restore(&sync("a"), &unknown, None);
    assert_eq!(scene.told(), [], "before the first list nothing is known to be gone");
    scene.sees(&same, 5, OURS);
    scene.sees(&changed, 6, TAKEN);
    scene.lists(&[&same, &changed], 0);
    assert_eq!(scene.told(), [drifted("a", &changed), drifted("a", &gone)]);
    scene.lists(&[&same, &changed], 0);
    assert_eq!(scene.told(), [], "once is enough");
}

#[tokio::test]
async fn a_stored_inventory_is_compared_with_what_is_listed_already() {
    let (scene, other) = (Scene::new(), id("ConfigMap", "other"));
    scene.sees(&settings(), 5, TAKEN);
    scene.sees(&other, 6, OURS);
    scene.live.restore(&sync("a"), &settings(), digest(OURS));
    scene.live.restore(&sync("a"), &other, digest(OURS));
    assert_eq!(scene.told(), [drifted("a", &settings())]);
    scene.live.restore(&sync("b"), &other, digest(TAKEN));
    assert_eq!((scene.told(), scene.live.owner(&other)), (vec![], Some(sync("a"))), "it has an owner");
}

#[tokio::test]
async fn what_a_list_does_not_hold_is_gone() {
    let scene = Scene::with_applied(&settings());
    let writes = scene.live.writes();
    scene.lists(&[], writes);
    assert_eq!(scene.told(), [drifted("a", &settings())]);
    assert!(scene.live.get(&settings()).is_none());
}

#[tokio::test]
async fn what_is_written_while_a_list_is_made_is_not_taken_for_gone() {
    let scene = Scene::with_applied(&settings());
    let writes = scene.live.writes();
    scene.apply(&settings(), 20, OURS);
    scene.lists(&[], writes);
    assert_eq!(scene.told(), []);

    let writes = scene.live.writes();
    let writing = scene.live.begin(&settings());
    scene.lists(&[], writes);
    writing.applied(&answer(21, OURS));
    assert_eq!(scene.told(), []);
    assert!(scene.live.is_untouched(&settings()));
}

#[tokio::test]
async fn a_list_says_nothing_of_other_kinds() {
    let service = id("Service", "web");
    let scene = Scene::with_applied(&service);
    scene.lists(&[], scene.live.writes());
    assert_eq!(scene.told(), []);
}

#[tokio::test]
async fn who_is_refused_an_object_is_told_when_it_is_let_go() {
    let (scene, id) = (Scene::new(), settings());
    scene.live.claim(&sync("a"), &id).unwrap();
    scene.live.wait_for(&sync("b"), &id);
    scene.live.wait_for(&sync("c"), &id);
    scene.live.stop_waiting(&sync("c"));
    assert_eq!(scene.live.waiting(&id), [sync("b")]);
    scene.live.release(&sync("a"), &id);
    assert_eq!(scene.told(), [Change::Released { id: id.clone(), waiting: vec![sync("b")] }]);
    scene.live.wait_for(&sync("b"), &id);
    assert_eq!(scene.told(), [Change::Released { id, waiting: vec![sync("b")] }], "it is free already");
}

#[tokio::test]
async fn what_is_handed_over_is_told_to_both() {
    let (scene, id) = (Scene::with_applied(&settings()), settings());
    scene.live.hand_over(&sync("a"), &id, &sync("b"));
    assert_eq!(scene.told(), [Change::Released { id: id.clone(), waiting: vec![sync("b")] }]);
    assert_eq!(scene.live.owner(&id), None);
    scene.live.claim(&sync("b"), &id).unwrap();
    scene.apply(&id, 20, OURS);
    assert_eq!(scene.told(), [Change::Released { id, waiting: vec![sync("a")] }], "the old one may forget it");
}

#[tokio::test]
async fn of_two_inventories_that_hold_an_object_one_waits() {
    let (scene, id) = (Scene::new(), settings());
    scene.live.restore(&sync("a"), &id, digest(OURS));
    scene.live.restore(&sync("b"), &id, None);
    assert_eq!((scene.live.owner(&id), scene.live.waiting(&id)), (Some(sync("a")), vec![sync("b")]));
}

#[tokio::test]
async fn of_several_inventories_that_hold_an_object_its_labels_decide() {
    let forgers = ["b", "c", "d"];
    // The result is the same for every order in which the inventories are read, and for every moment at which the
    // object is seen.
    for order in [["a", "b", "c", "d"], ["b", "a", "c", "d"], ["b", "c", "d", "a"]] {
        for seen_after in 0..=order.len() {
            let (scene, id) = (Scene::new(), settings());
            let sees = || scene.live.observe(id.clone(), 10, Some(object(10, OURS)), Some(sync("a")));
            let mut refused = Vec::new();
            for (index, name) in order.into_iter().enumerate() {
                if index == seen_after {
                    sees();
                }
                if !scene.live.restore(&sync(name), &id, digest(OURS)) {
                    refused.push(name);
                }
            }
            if seen_after == order.len() {
                sees();
            }
            // As at the start of the controller, each Sync that did not get the object tries again when everything is
            // listed.
            for name in refused {
                scene.live.restore(&sync(name), &id, digest(OURS));
            }
            assert_eq!(scene.live.owner(&id), Some(sync("a")), "{order:?}, seen after {seen_after}");
            assert_eq!(scene.live.says(&id), Some(sync("a")));
            assert!(scene.live.is_untouched(&id), "{order:?}, seen after {seen_after}");
            let mut waiting = scene.live.waiting(&id);
            waiting.sort();
            assert_eq!(waiting, forgers.map(sync), "{order:?}, seen after {seen_after}");
            scene.told();
            // The other Syncs do not get the object by naming it in their inventories again.
            for name in forgers {
                assert!(!scene.live.restore(&sync(name), &id, digest(TAKEN)));
            }
            assert_eq!((scene.told(), scene.live.owner(&id)), (Vec::new(), Some(sync("a"))));
        }
    }
}

#[tokio::test]
async fn of_several_inventories_that_hold_what_is_not_there_the_first_one_has_it() {
    let (scene, id) = (Scene::new(), settings());
    for (name, is_given) in [("a", true), ("b", false), ("a", true), ("c", false), ("b", false)] {
        assert_eq!(scene.live.restore(&sync(name), &id, digest(OURS)), is_given, "{name}");
    }
    assert_eq!(scene.live.says(&id), None, "a pass asks who may write it");
    assert_eq!((scene.live.owner(&id), scene.live.waiting(&id)), (Some(sync("a")), vec![sync("b"), sync("c")]));
}

#[tokio::test]
async fn an_object_that_another_sync_applied_since_is_drift_though_its_fields_are_the_same() {
    let (scene, id) = (Scene::new(), settings());
    scene.live.restore(&sync("a"), &id, digest(OURS));
    scene.live.observe(id.clone(), 10, Some(object(10, OURS)), Some(sync("b")));
    assert_eq!(scene.told(), [drifted("a", &id)]);
    scene.apply(&id, 11, OURS);
    assert!(scene.live.is_untouched(&id));
}

#[tokio::test]
async fn an_object_has_one_owner() {
    let (scene, id) = (Scene::new(), settings());
    assert_eq!(scene.live.claim(&sync("a"), &id), Ok(()));
    assert_eq!(scene.live.claim(&sync("a"), &id), Ok(()));
    assert_eq!(scene.live.claim(&sync("b"), &id), Err(sync("a")));
    assert_eq!(scene.live.owned(), 1);
    scene.live.release(&sync("b"), &id);
    assert_eq!(scene.live.owner(&id), Some(sync("a")), "only its owner gives it up");
    scene.apply(&id, 10, OURS);
    scene.live.release(&sync("a"), &id);
    assert_eq!(scene.live.claim(&sync("b"), &id), Ok(()));
    assert!(!scene.live.is_untouched(&id), "the new owner applied nothing yet");
    scene.sees(&id, 11, TAKEN);
    assert_eq!(scene.told(), []);
    scene.apply(&id, 12, OURS);
    scene.sees(&id, 13, TAKEN);
    assert_eq!(scene.told(), [drifted("b", &id)]);
}

#[tokio::test]
async fn what_is_nobodys_and_not_there_costs_no_memory() {
    let scene = Scene::new();
    scene.sees(&settings(), 5, OURS);
    scene.sees_gone(&settings(), 6);
    drop(scene.live.begin(&settings()));
    scene.live.claim(&sync("a"), &settings()).unwrap();
    scene.live.release(&sync("a"), &settings());
    assert!(scene.live.index().entries.is_empty());
}

fn secret(version: u64, digest: Option<&str>, fields: &serde_json::Value) -> LiveObject {
    let meta: ObjectMeta = serde_json::from_value(json!({
        "name": "db", "namespace": "ns", "uid": "uid", "resourceVersion": version.to_string(),
        "annotations": digest.map(|digest| json!({crds::names::SEALED_DIGEST: digest})),
        "managedFields": [{"manager": crds::FIELD_MANAGER, "operation": "Apply", "apiVersion": "v1", "fieldsV1": fields}],
    }))
    .unwrap();
    live_object(&meta, true)
}

#[tokio::test]
async fn a_secret_is_told_of_when_what_unsealing_goes_by_changes() {
    let (scene, db) = (Scene::new(), id("Secret", "db"));
    let told = || vec![Change::Secret(ObjectKey::new("ns", "db"))];
    let both = json!({"f:data": {"f:user": {}, "f:password": {}}});
    let one = json!({"f:data": {"f:user": {}}});
    let shows = |version, object| {
        scene.live.observe(db.clone(), version, object, None);
        scene.told()
    };
    assert_eq!(shows(5, Some(secret(5, Some("d1"), &both))), told());
    assert_eq!(shows(6, Some(secret(6, Some("d1"), &both))), [], "a foreign label");
    assert_eq!(shows(7, Some(secret(7, Some("d2"), &both))), told(), "other sealed input");
    assert_eq!(shows(8, Some(secret(8, Some("d2"), &one))), told(), "a value is not ours any more");
    assert_eq!(shows(7, Some(secret(7, Some("d2"), &both))), [], "stale");
    assert_eq!(shows(9, None), told());
    assert_eq!(shows(9, None), [], "it is gone already");
    assert!(scene.live.index().entries.is_empty());
}

#[tokio::test]
async fn facts_of_a_secret_are_read_from_its_metadata() {
    let meta: ObjectMeta = serde_json::from_value(json!({
        "name": "db", "namespace": "ns", "uid": "uid", "resourceVersion": "7",
        "annotations": {crds::names::MANAGED: "true", crds::names::PATCH: "yes", crds::names::SEALED_DIGEST: "d1"},
        "ownerReferences": [
            {"apiVersion": "example.com/v1", "kind": "SealedSecret", "name": "x", "uid": "1", "controller": true},
            {"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "name": "x", "uid": "2"},
            {"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "name": "db", "uid": "3", "controller": true},
        ],
        "managedFields": [
            {"manager": "somebody", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:c": {}}}},
            {"manager": crds::FIELD_MANAGER, "operation": "Apply", "apiVersion": "v1",
             "fieldsV1": {"f:data": {".": {}, "f:a": {}, "f:b": {}}}},
        ],
    }))
    .unwrap();
    let facts = *live_object(&meta, true).secret.unwrap();
    assert_eq!(
        facts,
        SecretFacts {
            sealed_secret: Some("3".into()),
            owned_by_others: true,
            managed: true,
            patch: false,
            skips_owner: false,
            is_sealing_key: false,
            old_mark: Some("d1".into()),
            applied_at: None,
            owned_values: 2,
            foreign_values: ["c".into()].into(),
        }
    );
    assert!(facts.is_mixed());
    assert!(!SecretFacts { patch: true, ..facts }.is_mixed(), "it was merged into");
    assert!(live_object(&meta, false).secret.is_none());
}

#[tokio::test]
async fn our_own_write_keeps_what_is_known_of_a_secret() {
    let (scene, db) = (Scene::new(), id("Secret", "db"));
    let fields = json!({"f:data": {"f:user": {}}});
    scene.live.observe(db.clone(), 5, Some(secret(5, Some("d1"), &fields)), None);
    let written = secret(6, Some("d2"), &fields).secret;
    scene.live.begin(&db).applied(&Written { secret: written.clone(), ..answer(6, OURS) });
    let live = scene.live.get(&db).unwrap();
    assert_eq!((live.version, live.secret), (6, written), "whose it is is known before the event");
}

#[tokio::test]
async fn a_value_that_somebody_adds_to_a_secret_is_drift() {
    let (scene, db) = (Scene::new(), id("Secret", "db"));
    let ours = json!({"f:data": {"f:user": {}}});
    let with = |version, keys: &[&str], patch: &str| {
        let data: serde_json::Map<_, _> = keys.iter().map(|key| (format!("f:{key}"), json!({}))).collect();
        let meta: ObjectMeta = serde_json::from_value(json!({
            "name": "db", "namespace": "ns", "uid": "uid", "resourceVersion": format!("{version}"),
            "annotations": {crds::names::PATCH: patch},
            "managedFields": [
                {"manager": crds::FIELD_MANAGER, "operation": "Apply", "apiVersion": "v1", "fieldsV1": ours},
                {"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:data": data}},
            ],
        }))
        .unwrap();
        live_object(&meta, true)
    };
    scene.live.claim(&sync("a"), &db).unwrap();
    let first = with(10, &[], "");
    let written = Written { fields: first.fields, secret: first.secret.clone(), ..answer(10, OURS) };
    scene.live.begin(&db).applied(&written);
    scene.live.observe(db.clone(), 10, Some(first), None);
    assert!(scene.live.is_untouched(&db));
    assert_eq!(scene.told(), []);
    scene.live.observe(db.clone(), 11, Some(with(11, &["by-hand"], "")), None);
    assert!(!scene.live.is_untouched(&db));
    assert_eq!(scene.told(), [drifted("a", &db), Change::Secret(ObjectKey::new("ns", "db"))]);
    scene.live.observe(db.clone(), 12, Some(with(12, &["by-hand"], "true")), None);
    assert!(scene.live.is_untouched(&db), "now it is merged into");
}

#[tokio::test]
async fn a_kind_that_is_no_longer_served_is_gone_with_its_watch() {
    let gadget = ObjectId { group: "example.com".into(), ..id("Gadget", "g") };
    let other = id("ConfigMap", "g");
    let scene = Scene::with_applied(&gadget);
    scene.sees(&other, 5, OURS);
    let resource = pipeline::Resource {
        group: "example.com".into(),
        version: "v1".into(),
        kind: "Gadget".into(),
        plural: "gadgets".into(),
        namespaced: true,
        watchable: true,
    };
    let watch = Watch::start(scene.live.clone(), resource.into(), None);
    let kind = ("example.com".to_owned(), "Gadget".to_owned(), None);
    scene.live.inner.watches.lock().unwrap().insert(kind, watch);

    scene.live.forget_kind("example.com", "gizmos");
    assert_eq!(scene.live.inner.watches.lock().unwrap().len(), 1);
    scene.live.forget_kind("example.com", "gadgets");
    assert!(scene.live.inner.watches.lock().unwrap().is_empty());
    assert_eq!(scene.told(), [drifted("a", &gadget)]);
    assert!(scene.live.get(&gadget).is_none());
    assert!(scene.live.get(&other).is_some());
}

#[tokio::test]
async fn a_fresh_list_counts_more_than_what_was_seen() {
    let (id, other) = (settings(), id("ConfigMap", "other"));
    let scene = Scene::with_applied(&id);
    scene.apply(&id, 200, OURS);
    scene.sees(&id, 200, OURS);
    let writes = scene.live.writes();
    // The store was restored: we own the same fields, but their values are older.
    assert!(scene.live.relist(id.clone(), 90, object(90, OURS), None, writes));
    assert!(scene.live.is_untouched(&id), "nothing tells by itself");
    scene.live.distrust();
    assert_eq!(scene.told(), [Change::WentBack]);
    assert!(!scene.live.is_untouched(&id) && !scene.live.is_touched(&id), "it has to be applied");
    // Later writes and events are not ignored, although higher versions were seen before.
    scene.apply(&id, 95, OURS);
    assert!(scene.live.is_untouched(&id));
    scene.sees(&id, 96, TAKEN);
    assert_eq!(scene.told(), [drifted("a", &id)]);
    // An object that is not in the list may appear again later, also with a lower version.
    scene.live.claim(&sync("a"), &other).unwrap();
    scene.apply(&other, 210, OURS);
    scene.lists(&[&id], scene.live.writes());
    assert_eq!(scene.told(), [drifted("a", &other)]);
    scene.sees(&other, 97, TAKEN);
    assert_eq!(scene.told(), [drifted("a", &other)]);
}

#[tokio::test]
async fn a_write_counts_more_than_what_was_seen_before_it_of_another_store() {
    let id = settings();
    let scene = Scene::with_applied(&id);
    scene.apply(&id, 200, OURS);
    scene.sees(&id, 200, OURS);
    // The cluster was restored from a backup. The list of another kind shows this, before the list of this kind has
    // arrived.
    scene.live.distrust();
    scene.apply(&id, 95, OURS);
    assert!(scene.live.is_untouched(&id));
    scene.sees(&id, 96, TAKEN);
    assert_eq!(scene.told(), [Change::WentBack, drifted("a", &id)]);
}

#[tokio::test]
async fn a_list_that_is_older_than_our_write_says_nothing_about_it() {
    let id = settings();
    let scene = Scene::with_applied(&id);
    let writes = scene.live.writes();
    scene.apply(&id, 20, OURS);
    assert!(!scene.live.relist(id.clone(), 10, object(10, TAKEN), None, writes));
    assert!(scene.live.is_untouched(&id));
    assert_eq!(scene.told(), []);
}

#[tokio::test]
async fn objects_that_say_they_belong_to_a_sync_which_does_not_have_them_are_orphans() {
    let (scene, mine, orphan) = (Scene::new(), settings(), id("ConfigMap", "orphan"));
    scene.live.claim(&sync("a"), &mine).unwrap();
    for id in [&mine, &orphan] {
        scene.live.observe(id.clone(), 10, Some(object(10, OURS)), Some(sync("a")));
    }
    assert_eq!(scene.live.orphans(), [(sync("a"), [orphan.clone()].into())].into());
    scene.live.restore(&sync("a"), &orphan, None);
    assert!(scene.live.orphans().is_empty());
}

#[test]
fn an_object_of_the_index_is_small() {
    assert!(size_of::<(ObjectId, Box<Entry>)>() <= 104, "twice for each object, and three times while the table grows");
    assert!(size_of::<Entry>() <= 256, "the next size that is allocated is a quarter more");
}

#[tokio::test]
async fn what_we_made_is_as_made_until_somebody_writes_it() {
    let scene = Scene::new();
    scene.live.claim(&sync("a"), &settings()).unwrap();
    scene.live.begin(&settings()).applied(&Written { created: true, ..answer(10, OURS) });
    scene.live.await_health(&settings(), true);
    assert!(scene.live.is_as_made(&settings()));
    scene.sees(&settings(), 10, OURS);
    assert!(scene.live.is_as_made(&settings()) && scene.live.version(&settings()) == Some(10));
    assert_eq!(scene.told(), [], "our own write is no progress");
    scene.sees(&settings(), 11, OURS);
    assert!(!scene.live.is_as_made(&settings()) && scene.live.version(&settings()) == Some(11));
    assert_eq!(scene.told(), [Change::Progressed { sync: sync("a") }]);
    // After a write to an existing object, it is not known which state the object's controller has seen.
    scene.apply(&settings(), 12, OURS);
    assert!(!scene.live.is_as_made(&settings()));
}
