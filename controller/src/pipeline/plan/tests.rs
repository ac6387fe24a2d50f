use manifests::{Limits, parse};

use super::*;
use crate::{metrics::Metrics, pipeline::fake_server::FakeServer};

const REVISION: &str = "main@sha1:0123456789abcdef0123456789abcdef01234567";

fn sync(spec: Value) -> Sync {
    let mut all = json!({"repository": {"name": "main"}});
    let fields = all.as_object_mut().unwrap();
    fields.extend(spec.as_object().unwrap().clone());
    let sync = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync",
        "metadata": {"name": "apps", "namespace": "team"}, "spec": all,
    });
    serde_json::from_value(sync).unwrap()
}

fn key() -> ObjectKey {
    ObjectKey::new("team", "apps")
}

fn manifest(yaml: &str) -> Manifest {
    parse("a.yaml", yaml.as_bytes(), &Limits::default()).unwrap().remove(0)
}

fn resource(group: &str, kind: &str, namespaced: bool) -> Resource {
    Resource {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        plural: format!("{}s", kind.to_lowercase()),
        namespaced,
        watchable: true,
    }
}

fn completed(sync: &Sync, yaml: &str, namespaced: bool) -> Manifest {
    let manifest = manifest(yaml);
    let resource = resource(&manifest.id.group, &manifest.id.kind, namespaced);
    complete(sync, &key(), manifest, &resource)
}

fn id(group: &str, kind: &str, name: &str) -> ObjectId {
    ObjectId { group: group.into(), kind: kind.into(), namespace: Some("team".into()), name: name.into() }
}

fn inventory(ids: &[ObjectId]) -> Inventory {
    let mut inventory = Inventory::default();
    for id in ids {
        inventory.widen(id.clone(), "v1");
    }
    inventory
}

fn config_maps(count: usize) -> Vec<ObjectId> {
    (0..count).map(|index| id("", "ConfigMap", &format!("c{index}"))).collect()
}

#[test]
fn every_object_carries_its_sync_and_nothing_that_the_server_writes() {
    let yaml = "
apiVersion: v1
kind: ConfigMap
metadata:
  name: a
  labels: {app: web, gitseal.dev/sync-name: somebody-else}
  uid: 1-2-3
  resourceVersion: '5'
  generation: 3
  creationTimestamp: '2026-01-01T00:00:00Z'
  selfLink: /x
  managedFields: [{manager: kubectl}]
  annotations: {note: kept}
data: {key: value}
status: {phase: Active}
";
    let manifest = completed(&sync(json!({})), yaml, true);
    assert_eq!(
        Value::Object(manifest.body),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"key": "value"},
            "metadata": {
                "name": "a", "namespace": "team", "annotations": {"note": "kept"},
                "labels": {"app": "web", "gitseal.dev/sync-name": "apps", "gitseal.dev/sync-namespace": "team"},
            },
        })
    );
    assert_eq!(manifest.id, id("", "ConfigMap", "a"));
}

#[test]
fn the_namespace_is_the_targets_then_its_own_then_the_syncs() {
    let own = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}}";
    let none = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: null}}";
    let target = json!({"targetNamespace": "target"});
    for (spec, yaml, expected) in
        [(json!({}), own, "shop"), (json!({}), none, "team"), (target.clone(), own, "target"), (target, none, "target")]
    {
        let manifest = completed(&sync(spec), yaml, true);
        assert_eq!(manifest.id.namespace.as_deref(), Some(expected));
        assert_eq!(manifest.body["metadata"]["namespace"], expected);
        assert_eq!(manifest.body["metadata"]["labels"][crds::names::SYNC_NAME], "apps");
    }
}

#[test]
fn an_object_of_a_cluster_wide_kind_has_no_namespace() {
    let yaml = "{apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: stray}}";
    let manifest = completed(&sync(json!({"targetNamespace": "target"})), yaml, false);
    assert_eq!(manifest.id.namespace, None);
    assert!(manifest.body["metadata"].get("namespace").is_none());
}

#[test]
fn what_is_left_to_others_is_left_out_of_the_objects_that_fit() {
    let deployment =
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 3, paused: false}}";
    let cases = [
        (json!({}), true),
        (json!({"kind": "Deployment"}), true),
        (json!({"group": "apps", "kind": "Deployment", "namespace": "team", "name": "web"}), true),
        (json!({"kind": "StatefulSet"}), false),
        (json!({"group": ""}), false),
        (json!({"name": "api"}), false),
        (json!({"namespace": "shop"}), false),
    ];
    for (target, fits) in cases {
        let spec = json!({"ignoreDifferences": [{"target": target, "paths": ["/spec/replicas"]}]});
        let manifest = completed(&sync(spec), deployment, true);
        let left = manifest.body["spec"].as_object().unwrap();
        assert_eq!(left.contains_key("replicas"), !fits, "{target}");
        assert!(left.contains_key("paused"));
    }
}

#[test]
fn what_an_object_is_told_by_cannot_be_left_to_others() {
    let paths = [
        "/metadata",
        "/apiVersion",
        "/kind",
        "/metadata/name",
        "/metadata/namespace",
        "/metadata/labels",
        "/metadata/labels/gitseal.dev~1sync-name",
    ];
    let spec = json!({"ignoreDifferences": [{"paths": paths}]});
    let yaml = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: {app: web}}}";
    let manifest = completed(&sync(spec), yaml, true);
    assert_eq!(
        Value::Object(manifest.body),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": "a", "namespace": "team",
                "labels": {"gitseal.dev/sync-name": "apps", "gitseal.dev/sync-namespace": "team"},
            },
        })
    );
}

#[test]
fn pointers_are_those_of_rfc_6901() {
    let before = json!({
        "kind": "X",
        "a": {"b/c": 1, "d~e": 2, "~1": 3, "": 4, "f": [{"g": 5, "h": 6}, 7]},
        "i": 8,
    });
    let cases = [
        ("/i", json!({"kind": "X", "a": before["a"]})),
        ("/kind", before.clone()),
        ("", before.clone()),
        ("i", before.clone()),
        ("a/f", before.clone()),
        ("/nothing/here", before.clone()),
        ("/i/deeper", before.clone()),
        ("/a/f/9", before.clone()),
        ("/a/f/-", before.clone()),
        ("/a/f/x/g", before.clone()),
    ];
    for (pointer, after) in cases {
        let mut body = before.as_object().unwrap().clone();
        remove_pointer(&mut body, pointer);
        assert_eq!(Value::Object(body), after, "{pointer}");
    }
    let cases = [
        ("/a/b~1c", "/a/b~1c"),
        ("/a/d~0e", "/a/d~0e"),
        ("/a/~01", "/a/~01"),
        ("/a/", "/a/"),
        ("/a/f/0/g", "/a/f/0/g"),
    ];
    for (pointer, gone) in cases {
        assert!(before.pointer(gone).is_some(), "{pointer}");
        let mut body = before.as_object().unwrap().clone();
        remove_pointer(&mut body, pointer);
        assert!(Value::Object(body).pointer(gone).is_none(), "{pointer}");
    }
    let mut body = before.as_object().unwrap().clone();
    remove_pointer(&mut body, "/a/f/0");
    assert_eq!(body["a"]["f"], json!([7]));
}

#[test]
fn a_prune_limit_is_a_count_or_a_percentage() {
    let cases = [
        ("0", 100, 0),
        ("0%", 100, 0),
        ("00%", 100, 0),
        ("7", 100, 7),
        ("7", 3, 7),
        ("50%", 100, 50),
        ("50%", 3, 2),
        ("50%", 1, 1),
        ("1%", 3, 1),
        ("1%", 101, 2),
        ("100%", 3, 3),
        ("50%", 0, 1),
        ("nonsense", 100, 0),
        ("x%", 100, 0),
        ("%", 100, 0),
        ("", 100, 0),
        ("100%", usize::MAX, usize::MAX / 100 + 1),
    ];
    for (limit, total, allowed) in cases {
        assert_eq!(prune_allowance(limit, total), allowed, "{limit} of {total}");
    }
}

#[test]
fn a_prune_beyond_the_limit_waits_and_says_how_to_go_on() {
    let all = config_maps(10);
    let current = inventory(&all);
    let prune = |count: usize| all[..count].iter().cloned().collect();
    let sync = sync(json!({"pruneLimit": "50%"}));
    let waits = |count| waits_for_confirmation(&sync, REVISION, &current, None, &prune(count));
    assert_eq!(waits(0), None);
    assert_eq!(waits(5), None);
    let message = waits(6).unwrap();
    for part in
        [REVISION, "6 of 10", "50%", "kubectl annotate sync -n team apps --overwrite gitseal.dev/confirm-prune="]
    {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn what_was_created_since_does_not_make_a_prune_smaller() {
    let all = config_maps(8);
    let current = inventory(&all);
    let prune = all[..4].iter().cloned().collect();
    let sync = sync(json!({"pruneLimit": "50%"}));
    let waits = |applied| waits_for_confirmation(&sync, REVISION, &current, applied, &prune);
    assert_eq!(waits(None), None);
    assert_eq!(waits(Some(8)), None);
    let message = waits(Some(4)).unwrap();
    assert!(message.contains("4 of 4"), "{message}");
    assert!(waits(Some(0)).is_some_and(|message| message.contains("4 of 4")));
}

#[test]
fn only_the_confirmation_of_this_very_revision_counts() {
    let all = config_maps(4);
    let (current, prune) = (inventory(&all), all.iter().cloned().collect());
    let mut sync = sync(json!({"pruneLimit": "0"}));
    for (confirmed, waits) in [(REVISION, false), ("main@sha1:ffff", true), ("true", true), ("", true)] {
        let annotations = [(crds::names::CONFIRM_PRUNE.to_owned(), confirmed.to_owned())];
        sync.metadata.annotations = Some(annotations.into());
        let message = waits_for_confirmation(&sync, REVISION, &current, None, &prune);
        assert_eq!(message.is_some(), waits, "{confirmed}");
    }
}

#[test]
fn a_sealed_secret_and_its_secret_are_one_object_to_prune() {
    let sealed = |name: &str| id("bitnami.com", "SealedSecret", name);
    let secret = |name: &str| id("", "Secret", name);
    let current = inventory(&[sealed("a"), secret("a"), sealed("b"), secret("b")]);
    let sync = sync(json!({"pruneLimit": "1"}));
    let one = BTreeSet::from([sealed("a"), secret("a")]);
    assert_eq!(waits_for_confirmation(&sync, REVISION, &current, None, &one), None);
    let two = BTreeSet::from([sealed("a"), secret("a"), sealed("b"), secret("b")]);
    let message = waits_for_confirmation(&sync, REVISION, &current, None, &two).unwrap();
    assert!(message.contains("2 of 2"), "{message}");
}

#[test]
fn what_is_held_is_kept_under_every_id_that_it_may_have() {
    let held = |id| Held {
        id,
        origin: Location { file: "a.yaml".into(), line: 1 },
        because: "no key opens it".into(),
        is_cause: true,
    };
    let sealed = id("bitnami.com", "SealedSecret", "db");
    let ids = held_ids(&held(sealed.clone()));
    assert!(ids.contains(&sealed) && ids.contains(&id("", "Secret", "db")));
    let cluster_wide = ObjectId { namespace: None, ..id("example.com", "Gateway", "g") };
    assert!(held_ids(&held(id("example.com", "Gateway", "g"))).contains(&cluster_wide));
}

#[test]
fn waves_put_first_what_others_need() {
    let order = [
        ("", "Namespace", Wave::Foundations),
        ("apiextensions.k8s.io", "CustomResourceDefinition", Wave::Foundations),
        ("", "ServiceAccount", Wave::Access),
        ("", "LimitRange", Wave::Access),
        ("rbac.authorization.k8s.io", "ClusterRole", Wave::Access),
        ("storage.k8s.io", "StorageClass", Wave::Access),
        ("scheduling.k8s.io", "PriorityClass", Wave::Access),
        ("networking.k8s.io", "IngressClass", Wave::Access),
        ("bitnami.com", "SealedSecret", Wave::SealedSecrets),
        ("", "Secret", Wave::Configuration),
        ("", "ConfigMap", Wave::Configuration),
        ("", "Service", Wave::Workloads),
        ("apps", "Deployment", Wave::Workloads),
        ("networking.k8s.io", "Ingress", Wave::Workloads),
        ("example.com", "Secret", Wave::Workloads),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", Wave::Admission),
        ("apiregistration.k8s.io", "APIService", Wave::Admission),
    ];
    let mut waves = Vec::new();
    for (group, kind, wave) in order {
        assert_eq!(Wave::of(&id(group, kind, "x")), wave, "{kind}");
        waves.push(wave);
    }
    assert!(waves.is_sorted());
}

#[test]
fn the_kinds_of_a_revision_are_those_that_its_definitions_serve() {
    let definition = |version: &str, scope: &str| {
        format!(
            "{{apiVersion: {version}, kind: CustomResourceDefinition, metadata: {{name: gadgets.example.com}}, spec: {{group: example.com, scope: {scope}, names: {{kind: Gadget, plural: gadgets}}, versions: [{{name: v1, served: true, storage: true}}, {{name: v1beta1, served: true}}, {{name: v1alpha1, served: false}}]}}}}"
        )
    };
    let objects = |yaml: &str| [Object::Plain(manifest(yaml))];
    for (scope, namespaced) in [("Namespaced", true), ("Cluster", false)] {
        let defined = crd::kinds_defined(&objects(&definition("apiextensions.k8s.io/v1", scope)));
        let mut kinds: Vec<_> = defined.keys().cloned().collect();
        kinds.sort();
        let kind = |version: &str| ("example.com".into(), version.into(), "Gadget".into());
        assert_eq!(kinds, [kind("v1"), kind("v1beta1")]);
        assert_eq!(
            *defined[&kind("v1")],
            Resource { plural: "gadgets".into(), ..resource("example.com", "Gadget", namespaced) }
        );
    }
    assert!(crd::kinds_defined(&objects(&definition("example.com/v1", "Cluster"))).is_empty());
    let hostile = [
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: x}}",
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: x}, spec: []}",
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: x}, spec: {versions: {name: v1}}}",
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: x}, spec: {versions: [1, null, [x]]}}",
    ];
    for yaml in hostile {
        assert!(crd::kinds_defined(&objects(yaml)).is_empty(), "{yaml}");
    }
}

#[tokio::test]
async fn a_plan_that_is_not_carried_out_gives_up_what_it_claimed() {
    let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = kube::Client::try_from(nowhere).unwrap();
    let (live, _changes) = Live::new(client, Metrics::new("test"), crate::cluster::Namespaces::All);
    let (old, new, theirs) = (id("", "ConfigMap", "old"), id("", "ConfigMap", "new"), id("", "ConfigMap", "theirs"));
    let other = ObjectKey::new("team", "other");
    live.claim(&key(), &old).unwrap();
    live.claim(&key(), &new).unwrap();
    live.claim(&other, &theirs).unwrap();
    let current = inventory(std::slice::from_ref(&old));
    let planned = inventory(&[old.clone(), new.clone(), theirs.clone()]);
    abandon(&live, &key(), &planned, &current);
    assert_eq!(live.owner(&old), Some(key()));
    assert_eq!(live.owner(&new), None);
    assert_eq!(live.owner(&theirs), Some(other));
}

/// The plan for `yaml` by a Sync that has `current`, on a server with ConfigMaps, Secrets and Namespaces.
async fn planned(
    client: &crate::pipeline::fake_server::Client,
    spec: Value,
    yaml: &str,
    held: Vec<Held>,
    current: &Inventory,
) -> Result<Plan, PlanError> {
    let manifests = parse("a.yaml", yaml.as_bytes(), &Limits::default()).unwrap();
    let opened = Opened { objects: manifests.into_iter().map(Object::Plain).collect(), held };
    let (discovery, live) = (&client.discovery, &client.live);
    plan(discovery, live, &sync(spec), &key(), opened, current).await
}

const TWO: &str = "
{apiVersion: v1, kind: ConfigMap, metadata: {name: c0}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: new}}
";

#[tokio::test]
async fn a_plan_widens_the_inventory_and_prunes_what_left_git() {
    let (_server, client) = FakeServer::start().await;
    let (kept, gone, new) = (id("", "ConfigMap", "c0"), id("", "ConfigMap", "c1"), id("", "ConfigMap", "new"));
    let current = inventory(&config_maps(2));
    let plan = planned(&client, json!({}), TWO, Vec::new(), &current).await.unwrap();
    let ids: Vec<_> = plan.inventory.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(ids, [kept, gone.clone(), new], "narrowed only when the prune succeeded");
    assert_eq!(plan.prune, BTreeSet::from([gone.clone()]));
    assert_eq!(plan.waves[&Wave::Configuration].len(), 2);

    let plan = planned(&client, json!({"prune": false}), TWO, Vec::new(), &current).await.unwrap();
    assert!(plan.prune.is_empty() && plan.inventory.contains(&gone));
}

#[tokio::test]
async fn what_is_held_is_neither_applied_nor_pruned() {
    let (_server, client) = FakeServer::start().await;
    let sealed = id("bitnami.com", "SealedSecret", "db");
    let cause = Held {
        id: sealed.clone(),
        origin: Location { file: "a.yaml".into(), line: 1 },
        because: "no key opens it".into(),
        is_cause: true,
    };
    let dependent = Held { id: id("", "ConfigMap", "c1"), is_cause: false, ..cause.clone() };
    let all = [sealed, id("", "Secret", "db"), id("", "ConfigMap", "c0"), id("", "ConfigMap", "c1")];
    let plan = planned(&client, json!({}), TWO, vec![cause, dependent], &inventory(&all)).await.unwrap();
    assert_eq!(plan.prune, BTreeSet::new());
    assert_eq!(plan.held.len(), 2);
    assert!(all.iter().all(|id| plan.inventory.contains(id)));
}

#[tokio::test]
async fn an_object_that_is_as_it_was_applied_needs_nothing() {
    let (server, client) = FakeServer::start().await;
    let yaml = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c0}, data: {a: b}}";
    let id = id("", "ConfigMap", "c0");
    let first = planned(&client, json!({}), yaml, Vec::new(), &Inventory::default()).await.unwrap();
    let digest = first.waves[&Wave::Configuration][0].digest.clone();
    let mut current = first.inventory;
    let fields = crate::cluster::FieldsDigest::parse("00000000000000aa");
    let applied = crate::cluster::Applied {
        uid: "uid".into(),
        resource_version: 10,
        fields,
        secret: None,
        created: true,
        managed_fields: Vec::new(),
    };
    client.live.begin(&id).applied(&applied);
    current.applied(&id, digest, fields);
    let asked = server.requests().len();

    let again = planned(&client, json!({}), yaml, Vec::new(), &current).await.unwrap();
    assert!(again.waves.is_empty());
    assert_eq!(again.unchanged, 1);
    assert_eq!(server.requests().len(), asked, "no request at all");

    let other = yaml.replace("a: b", "a: c");
    let changed = planned(&client, json!({}), &other, Vec::new(), &current).await.unwrap();
    assert_eq!(changed.waves[&Wave::Configuration].len(), 1);

    client.live.begin(&id).deleted();
    let touched = planned(&client, json!({}), yaml, Vec::new(), &current).await.unwrap();
    assert_eq!(touched.waves[&Wave::Configuration].len(), 1);
}

#[tokio::test]
async fn an_object_of_another_sync_is_refused_and_nothing_is_claimed() {
    let (_server, client) = FakeServer::start().await;
    let other = ObjectKey::new("team", "other");
    let new = id("", "ConfigMap", "new");
    client.live.claim(&other, &new).unwrap();
    let error = planned(&client, json!({}), TWO, Vec::new(), &Inventory::default()).await.err().unwrap();
    assert_eq!(error.reason(), "ObjectOwnedByAnotherSync");
    let message = error.to_string();
    assert!(message.starts_with("a.yaml:4: ConfigMap team/new belongs to Sync team/other"), "{message}");
    assert_eq!(client.live.owner(&id("", "ConfigMap", "c0")), None);
}

#[tokio::test]
async fn a_kind_is_known_to_the_cluster_or_to_the_revision() {
    let (_server, client) = FakeServer::start().await;
    let gadget = "\n{apiVersion: example.com/v1, kind: Gadget, metadata: {name: g}}";
    let error = planned(&client, json!({}), gadget, Vec::new(), &Inventory::default()).await.err().unwrap();
    assert_eq!(error.reason(), "UnknownKind");
    assert!(error.to_string().starts_with("a.yaml:2: "), "{error}");

    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"kind": "Gadget", "plural": "gadgets"},
                 "versions": [{"name": "v1", "served": true}]},
    });
    let kind = json!({"kind": "CustomResourceDefinition", "name": "customresourcedefinitions", "singularName": "",
                      "namespaced": false, "verbs": ["get"]});
    let (server, client) = FakeServer::start().await;
    server.answer(
        "GET /apis/apiextensions.k8s.io/v1",
        200,
        json!({"groupVersion": "apiextensions.k8s.io/v1", "resources": [kind]}),
    );
    let both = format!("{definition}\n---{gadget}");
    let plan = planned(&client, json!({}), &both, Vec::new(), &Inventory::default()).await.unwrap();
    let waves: Vec<_> = plan.waves.keys().copied().collect();
    assert_eq!(waves, [Wave::Foundations, Wave::Workloads]);
    let crd =
        ObjectId { namespace: None, ..id("apiextensions.k8s.io", "CustomResourceDefinition", "gadgets.example.com") };
    assert!(plan.inventory.contains(&crd));
    assert!(plan.inventory.contains(&id("example.com", "Gadget", "g")));
}

#[tokio::test]
async fn what_somebody_changed_is_told_from_what_git_changed() {
    let (_server, client) = FakeServer::start().await;
    let yaml = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c0}, data: {a: b}}";
    let id = id("", "ConfigMap", "c0");
    let first = planned(&client, json!({}), yaml, Vec::new(), &Inventory::default()).await.unwrap();
    let step = &first.waves[&Wave::Configuration][0];
    assert!(!step.is_heal, "it is new");
    let mut current = first.inventory.clone();
    let fields = crate::cluster::FieldsDigest::parse("00000000000000aa");
    current.applied(&id, step.digest.clone(), fields);
    client.live.release(&key(), &id);
    // As after a restart: nothing is live, so somebody deleted it.
    client.live.restore(&key(), &id, fields);
    for (yaml, is_heal) in [(yaml.to_owned(), true), (yaml.replace("a: b", "a: c"), false)] {
        let plan = planned(&client, json!({}), &yaml, Vec::new(), &current).await.unwrap();
        assert_eq!(plan.waves[&Wave::Configuration][0].is_heal, is_heal, "{yaml}");
    }
}
