use manifests::{Limits, parse};
use serde_json::json;

use super::{as_applied::remove_pointer, *};
use crate::{
    FieldsDigest,
    fixtures::{config_maps, id, inventory, sync},
};

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
    let mut manifest = manifest(yaml);
    let resource = resource(&manifest.id.group, &manifest.id.kind, namespaced);
    manifest.id = ids_in_cluster(sync, &manifest, &resource).remove(0);
    complete(sync, &key(), manifest)
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
fn empty_labels_and_annotations_are_left_out() {
    let yaml = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, annotations: {}, labels: {}}, spec: {selector: {}, \
         template: {metadata: {annotations: {}, labels: {}}, spec: {nodeSelector: {}}}}}";
    let manifest = completed(&sync(json!({})), yaml, true);
    let metadata = &manifest.body["metadata"];
    assert!(metadata.get("annotations").is_none() && metadata["labels"].as_object().unwrap().len() == 2, "{metadata}");
    let spec = json!({"selector": {}, "template": {"metadata": {}, "spec": {"nodeSelector": {}}}});
    assert_eq!(manifest.body["spec"], spec);
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
fn tiers_put_first_what_others_need() {
    let order = [
        ("", "Namespace", Tier::Foundations),
        ("apiextensions.k8s.io", "CustomResourceDefinition", Tier::Foundations),
        ("", "ServiceAccount", Tier::Access),
        ("", "LimitRange", Tier::Access),
        ("rbac.authorization.k8s.io", "ClusterRole", Tier::Access),
        ("storage.k8s.io", "StorageClass", Tier::Access),
        ("scheduling.k8s.io", "PriorityClass", Tier::Access),
        ("networking.k8s.io", "IngressClass", Tier::Access),
        ("bitnami.com", "SealedSecret", Tier::SealedSecrets),
        ("", "Secret", Tier::Secrets),
        ("", "ConfigMap", Tier::Configuration),
        ("", "Service", Tier::Workloads),
        ("apps", "Deployment", Tier::Workloads),
        ("networking.k8s.io", "Ingress", Tier::Workloads),
        ("example.com", "Secret", Tier::Workloads),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", Tier::Admission),
        ("apiregistration.k8s.io", "APIService", Tier::Admission),
    ];
    let mut tiers = Vec::new();
    for (group, kind, tier) in order {
        assert_eq!(Tier::of(&id(group, kind, "x")), tier, "{kind}");
        tiers.push(tier);
    }
    assert!(tiers.is_sorted());
}

#[test]
fn the_kinds_of_a_revision_are_those_that_its_definitions_serve() {
    let definition = |version: &str, scope: &str| {
        format!(
            "{{apiVersion: {version}, kind: CustomResourceDefinition, metadata: {{name: gadgets.example.com}}, spec: {{group: example.com, scope: {scope}, names: {{kind: Gadget, plural: gadgets}}, versions: [{{name: v1, served: true, storage: true}}, {{name: v1beta1, served: true}}, {{name: v1alpha1, served: false}}]}}}}"
        )
    };
    let objects = |yaml: &str| [manifest(yaml)];
    for (scope, namespaced) in [("Namespaced", true), ("Cluster", false)] {
        let defined = kinds_defined(&objects(&definition("apiextensions.k8s.io/v1", scope)));
        let mut kinds: Vec<_> = defined.keys().cloned().collect();
        kinds.sort();
        let kind = |version: &str| ("example.com".into(), version.into(), "Gadget".into());
        assert_eq!(kinds, [kind("v1"), kind("v1beta1")]);
        assert_eq!(
            *defined[&kind("v1")],
            Resource { plural: "gadgets".into(), ..resource("example.com", "Gadget", namespaced) }
        );
    }
    assert!(kinds_defined(&objects(&definition("example.com/v1", "Cluster"))).is_empty());
    let hostile = [
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: x}}",
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: x}, spec: []}",
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: x}, spec: {versions: {name: v1}}}",
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: x}, spec: {versions: [1, null, [x]]}}",
    ];
    for yaml in hostile {
        assert!(kinds_defined(&objects(yaml)).is_empty(), "{yaml}");
    }
}

/// A simulated cluster: the objects that are as they were applied, those that somebody changed, and those that belong
/// to another Sync.
#[derive(Default)]
struct Cluster {
    untouched: BTreeSet<ObjectId>,
    touched: BTreeSet<ObjectId>,
    /// Objects that were applied and that somebody deleted.
    deleted: BTreeSet<ObjectId>,
    /// Objects that gitseal has not applied.
    foreign: BTreeSet<ObjectId>,
    theirs: BTreeSet<ObjectId>,
    /// Objects that another Sync has released for this one.
    handed_over: BTreeSet<ObjectId>,
    expired: BTreeSet<ObjectId>,
}

impl LiveView for Cluster {
    fn exists(&self, id: &ObjectId) -> bool {
        [&self.untouched, &self.touched, &self.foreign, &self.theirs, &self.handed_over]
            .into_iter()
            .any(|some| some.contains(id))
    }

    fn is_untouched(&self, id: &ObjectId) -> bool {
        self.untouched.contains(id)
    }

    fn is_touched(&self, id: &ObjectId) -> bool {
        self.touched.contains(id) || self.deleted.contains(id)
    }

    fn is_expired_job(&self, id: &ObjectId) -> bool {
        self.expired.contains(id)
    }

    fn owner(&self, id: &ObjectId) -> Option<ObjectKey> {
        let theirs = self.theirs.contains(id).then(|| ObjectKey::new("team", "other"));
        theirs.or_else(|| self.handed_over.contains(id).then(|| ObjectKey::of(&sync(json!({})))))
    }
}

fn kinds(manifests: &[Manifest]) -> Kinds {
    let mut kinds = Kinds::default();
    for manifest in manifests.iter().filter(|manifest| manifest.id.kind != "Gadget") {
        let namespaced = !matches!(manifest.id.kind.as_str(), "Namespace" | "CustomResourceDefinition");
        kinds.insert(manifest, Arc::new(resource(&manifest.id.group, &manifest.id.kind, namespaced)));
    }
    kinds.extend(kinds_defined(manifests));
    kinds
}

/// The wave with number 0 and this tier.
fn usual(tier: Tier) -> Wave {
    Wave { number: 0, tier }
}

/// The plan for `yaml`, for a Sync with the inventory `current`.
fn planned(spec: Value, yaml: &str, current: &Inventory, live: &Cluster) -> Result<Plan, PlanError> {
    let manifests = parse("a.yaml", yaml.as_bytes(), &Limits::default()).unwrap();
    plan(&sync(spec), &manifests, &kinds(&manifests), current, live, Scope::Folder, None)
}

const TWO: &str = "
{apiVersion: v1, kind: ConfigMap, metadata: {name: c0}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: new}}
";

#[test]
fn a_plan_widens_the_inventory_and_prunes_what_left_git() {
    let (kept, gone, new) = (id("", "ConfigMap", "c0"), id("", "ConfigMap", "c1"), id("", "ConfigMap", "new"));
    let current = inventory(&config_maps(2));
    let plan = planned(json!({}), TWO, &current, &Cluster::default()).unwrap();
    let ids: Vec<_> = plan.inventory.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(ids, [kept, gone.clone(), new], "narrowed only when the prune succeeded");
    assert_eq!(plan.prune, BTreeSet::from([gone.clone()]));
    assert_eq!(plan.waves[&usual(Tier::Configuration)].len(), 2);

    let plan = planned(json!({"prune": false}), TWO, &current, &Cluster::default()).unwrap();
    assert!(plan.prune.is_empty() && plan.inventory.contains(&gone));
}

#[test]
fn an_object_that_is_not_to_be_changed_is_only_made() {
    let object = |value: &str| {
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: c0, annotations: {{gitseal.dev/change: {value}}}}}, data: {{a: b}}}}"
        )
    };
    let (c0, mine) = (id("", "ConfigMap", "c0"), inventory(&config_maps(1)));
    let planned = |value: &str, current: &Inventory, live: &Cluster| {
        let plan = planned(json!({}), &object(value), current, live).unwrap();
        assert!(plan.held.is_empty() && plan.prune.is_empty());
        (
            plan.waves.values().flatten().map(|step| step.why).collect::<Vec<_>>(),
            plan.inventory.contains(&c0),
            plan.unchanged,
        )
    };
    let there = |live: fn(&mut Cluster) -> &mut BTreeSet<ObjectId>| {
        let mut cluster = Cluster::default();
        live(&mut cluster).insert(c0.clone());
        cluster
    };
    let (none, nothing) = (Inventory::default(), Cluster::default());
    assert_eq!(planned("disabled", &none, &nothing), (vec![Why::Change], true, 0));
    // Whoever made it, it is as it is. The Sync has it only if the Sync made it.
    assert_eq!(planned("disabled", &none, &there(|live| &mut live.foreign)), (vec![], false, 1));
    assert_eq!(planned("disabled", &none, &there(|live| &mut live.theirs)), (vec![], false, 1));
    assert_eq!(planned("disabled", &mine, &there(|live| &mut live.untouched)), (vec![], true, 1));
    assert_eq!(planned("disabled", &mine, &there(|live| &mut live.touched)), (vec![], true, 1));
    // It was deleted. So it is put back, also if it changed in Git since it was made.
    assert_eq!(planned("disabled", &mine, &there(|live| &mut live.deleted)), (vec![Why::Heal], true, 0));
    assert_eq!(planned("other", &mine, &there(|live| &mut live.deleted)), (vec![Why::Change], true, 0));
    // It is gone, or it comes from another Sync, which does not have it any more.
    assert_eq!(planned("disabled", &mine, &nothing), (vec![Why::Change], true, 0));
    assert_eq!(planned("disabled", &none, &there(|live| &mut live.handed_over)), (vec![Why::Change], true, 0));
    assert_eq!(planned("other", &none, &there(|live| &mut live.foreign)), (vec![Why::Change], true, 0));
}

/// A SealedSecret in Git.
fn sealed(name: &str, value: &str) -> String {
    format!(
        "{{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {{name: {name}}}, spec: {{encryptedData: {{a: {value}}}}}}}"
    )
}

#[test]
fn what_is_no_sealed_secret_is_held_and_not_pruned() {
    let odd = "{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {name: db}, spec: 7}";
    let all = [id("bitnami.com", "SealedSecret", "db"), id("", "Secret", "db"), id("", "ConfigMap", "c0")];
    let yaml = format!("{odd}\n---{TWO}");
    let plan = planned(json!({}), &yaml, &inventory(&all), &Cluster::default()).unwrap();
    assert_eq!(plan.prune, BTreeSet::new());
    assert_eq!(plan.held.len(), 1);
    assert!(plan.held[0].is_undecryptable());
    assert!(all.iter().all(|id| plan.inventory.contains(id)));
}

#[test]
fn an_object_that_is_as_it_was_applied_needs_nothing() {
    let yaml = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c0}, data: {a: b}}";
    let id = id("", "ConfigMap", "c0");
    let first = planned(json!({}), yaml, &Inventory::default(), &Cluster::default()).unwrap();
    let step = &first.waves[&usual(Tier::Configuration)][0];
    assert_eq!(step.why, Why::Change, "it is new");
    let mut current = first.inventory.clone();
    current.applied(&id, step.digest.clone(), FieldsDigest::parse("00000000000000aa"));

    let untouched = Cluster { untouched: [id.clone()].into(), ..Cluster::default() };
    let again = planned(json!({}), yaml, &current, &untouched).unwrap();
    assert!(again.waves.is_empty());
    assert_eq!(again.unchanged, 1);

    let other = yaml.replace("a: b", "a: c");
    let changed = planned(json!({}), &other, &current, &untouched).unwrap();
    assert_eq!(changed.waves[&usual(Tier::Configuration)][0].why, Why::Change);

    let touched = Cluster { touched: [id].into(), ..Cluster::default() };
    for (yaml, why) in [(yaml, Why::Heal), (&other, Why::Change)] {
        let plan = planned(json!({}), yaml, &current, &touched).unwrap();
        assert_eq!(plan.waves[&usual(Tier::Configuration)][0].why, why, "{yaml}");
    }
}

#[test]
fn a_job_whose_time_is_over_is_not_made_again() {
    let job = |more: &str| {
        format!("{{apiVersion: batch/v1, kind: Job, metadata: {{name: once}}, spec: {{{more}template: {{}}}}}}")
    };
    let (short, kept) = (job("ttlSecondsAfterFinished: 1, "), job(""));
    let id = id("batch", "Job", "once");
    let gone = Cluster { touched: [id.clone()].into(), expired: [id.clone()].into(), ..Cluster::default() };
    let cut_short = Cluster { touched: [id.clone()].into(), ..Cluster::default() };
    for (yaml, cluster, is_made) in [(&short, &gone, false), (&short, &cut_short, true), (&kept, &gone, true)] {
        let first = planned(json!({}), yaml, &Inventory::default(), &Cluster::default()).unwrap();
        let step = &first.waves[&usual(Tier::Workloads)][0];
        let mut current = first.inventory.clone();
        current.applied(&id, step.digest.clone(), None);
        let again = planned(json!({}), yaml, &current, cluster).unwrap();
        assert_eq!(again.waves.contains_key(&usual(Tier::Workloads)), is_made, "{yaml}");
        let changed =
            planned(json!({}), &yaml.replace("template: {}", "template: {spec: {}}"), &current, cluster).unwrap();
        assert!(changed.waves.contains_key(&usual(Tier::Workloads)), "Git says something new: {yaml}");
    }
}

#[test]
fn an_object_of_another_sync_is_held_back_alone() {
    let new = id("", "ConfigMap", "new");
    let theirs = Cluster { theirs: [new.clone()].into(), ..Cluster::default() };
    let plan = planned(json!({}), TWO, &Inventory::default(), &theirs).unwrap();
    let [held] = &plan.held[..] else { panic!("one is held") };
    assert!(held.is_owned_by_another() && held.cause.is_some_and(|cause| !cause.terminal));
    assert_eq!((held.origin.to_string(), &held.id), ("a.yaml:4".to_owned(), &new));
    assert!(held.because.contains("Sync team/other"), "{}", held.because);
    assert!(!plan.inventory.contains(&new), "what is not ours is not tracked");
    assert_eq!(plan.waves[&usual(Tier::Configuration)].len(), 1, "the rest is applied");

    let secret = Cluster { theirs: [id("", "Secret", "db")].into(), ..Cluster::default() };
    let plan = planned(json!({}), &sealed("db", "AgA"), &Inventory::default(), &secret).unwrap();
    assert!(plan.waves.is_empty() && plan.held[0].is_owned_by_another(), "a SealedSecret goes with its Secret");
}

#[test]
fn a_kind_is_known_to_the_cluster_or_to_the_revision() {
    let gadget = "\n{apiVersion: example.com/v1, kind: Gadget, metadata: {name: g}}";
    let error = planned(json!({}), gadget, &Inventory::default(), &Cluster::default()).err().unwrap();
    assert_eq!(error.reason(), "UnknownKind");
    assert!(error.to_string().starts_with("a.yaml:2: "), "{error}");
    assert!(error.to_string().ends_with("is its CustomResourceDefinition installed?"), "{error}");

    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"kind": "Gadget", "plural": "gadgets"},
                 "versions": [{"name": "v1", "served": true}]},
    });
    let both = format!("{definition}\n---{gadget}");
    let plan = planned(json!({}), &both, &Inventory::default(), &Cluster::default()).unwrap();
    let waves: Vec<_> = plan.waves.keys().copied().collect();
    assert_eq!(waves, [usual(Tier::Foundations), usual(Tier::Workloads)]);
    let crd =
        ObjectId { namespace: None, ..id("apiextensions.k8s.io", "CustomResourceDefinition", "gadgets.example.com") };
    assert!(plan.inventory.contains(&crd));
    assert!(plan.inventory.contains(&id("example.com", "Gadget", "g")));
}

/// The inventory of a Sync that has applied `sealed("db", "AgA")`.
fn with_secret() -> Inventory {
    let first = planned(json!({}), &sealed("db", "AgA"), &Inventory::default(), &Cluster::default()).unwrap();
    let mut current = first.inventory.clone();
    for step in first.waves.values().flatten() {
        current.applied(&step.id, step.digest.clone(), None);
    }
    current
}

#[test]
fn before_a_secret_is_unsealed_its_sealed_secret_is_accepted_anew() {
    let (sealed_id, secret) = (id("bitnami.com", "SealedSecret", "db"), id("", "Secret", "db"));
    let current = with_secret();
    let both = Cluster { untouched: [sealed_id.clone(), secret.clone()].into(), ..Cluster::default() };
    let plan = planned(json!({}), &sealed("db", "AgA"), &current, &both).unwrap();
    assert!(plan.waves.is_empty(), "nothing is unsealed for a Secret that is as it was applied");

    let deleted =
        Cluster { untouched: [sealed_id.clone()].into(), touched: [secret.clone()].into(), ..Cluster::default() };
    let plan = planned(json!({}), &sealed("db", "AgA"), &current, &deleted).unwrap();
    let whys: Vec<_> = plan.waves.values().flatten().map(|step| (step.id.clone(), step.why)).collect();
    assert_eq!(whys, [(sealed_id.clone(), Why::Accept), (secret.clone(), Why::Heal)]);

    let ids = BTreeSet::from([secret.clone()]);
    let manifests =
        parse("a.yaml", format!("{}\n---{TWO}", sealed("db", "AgA")).as_bytes(), &Limits::default()).unwrap();
    let heal = plan_heal(&manifests, &current, &deleted, &ids);
    let healed: Vec<_> = heal.waves.values().flatten().map(|step| step.id.clone()).collect();
    assert_eq!(healed, [sealed_id, secret]);
    assert_eq!(heal.inventory, current, "a heal tracks nothing new");
    assert!(heal.prune.is_empty());
}

fn plan_heal(manifests: &[Manifest], current: &Inventory, live: &Cluster, drifted: &BTreeSet<ObjectId>) -> Plan {
    let scope = Scope::Drifted(drifted);
    plan(&sync(json!({})), manifests, &kinds(manifests), current, live, scope, None).unwrap().heal_only(current)
}

#[test]
fn a_heal_leaves_alone_what_git_changed() {
    let (changed, new) = (id("", "ConfigMap", "c0"), id("", "ConfigMap", "new"));
    let mut current = inventory(&config_maps(1));
    current.applied(&changed, "another digest".into(), None);
    let live = Cluster { touched: [changed.clone()].into(), ..Cluster::default() };
    let manifests = parse("a.yaml", TWO.as_bytes(), &Limits::default()).unwrap();
    let heal = plan_heal(&manifests, &current, &live, &BTreeSet::from([changed, new]));
    assert!(heal.waves.is_empty(), "what is new or changed belongs to a pass");
}

/// The objects of `yaml` that do not use the Secret `db` in `namespace`, and those that do.
fn users(spec: Value, yaml: &str, namespace: &str) -> (Vec<String>, Vec<String>) {
    let sealed = sealed("db", "AgA").replace("name: db", &format!("name: db, namespace: {namespace}"));
    let plan = planned(spec, &format!("{sealed}\n---\n{yaml}"), &Inventory::default(), &Cluster::default()).unwrap();
    let secrets = plan.waves.range(..=usual(Tier::Secrets)).flat_map(|(_, steps)| steps);
    assert!(secrets.clone().all(|step| step.needs.is_empty()), "nothing that needs it comes before it");
    let steps = plan.waves.range(usual(Tier::Configuration)..).flat_map(|(_, steps)| steps);
    let (free, waiting): (Vec<_>, Vec<_>) = steps.partition(|step| step.needs.is_empty());
    let names = |steps: Vec<&Step>| steps.into_iter().map(|step| step.id.to_string()).collect();
    (names(free), names(waiting))
}

#[test]
fn what_uses_a_secret_of_the_revision_comes_after_it_and_is_known() {
    let yaml = "
{apiVersion: apps/v1, kind: Deployment, metadata: {name: by-env}, spec: {template: {spec: {containers: [{name: c, env: [{name: A, valueFrom: {secretKeyRef: {name: db, key: k}}}]}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: by-env-from}, spec: {template: {spec: {containers: [{name: c, envFrom: [{secretRef: {name: db}}]}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: by-volume}, spec: {template: {spec: {containers: [{name: c}], volumes: [{name: v, secret: {secretName: db}}]}}}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: by-tls}, spec: {tls: [{secretName: db}]}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: by-pull}, imagePullSecrets: [{name: db}]}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: other}, spec: {template: {spec: {containers: [{name: c, envFrom: [{secretRef: {name: cache}}]}]}}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: db}, data: {secretName: db}}
---
{apiVersion: v1, kind: Service, metadata: {name: db}}
";
    let (applied, waiting) = users(json!({}), yaml, "team");
    assert_eq!(
        waiting,
        [
            "ServiceAccount team/by-pull",
            "Deployment team/by-env",
            "Deployment team/by-env-from",
            "Deployment team/by-volume",
            "Ingress team/by-tls",
        ]
    );
    assert_eq!(applied, ["ConfigMap team/db", "Deployment team/other", "Service team/db"]);
}

#[test]
fn a_secret_is_missed_in_its_own_namespace_only() {
    let deployment = |name: &str, namespace: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{template: {{spec: {{containers: [{{name: c, envFrom: [{{secretRef: {{name: db}}}}]}}]}}}}}}}}"
        )
    };
    let both = format!("{}\n---\n{}", deployment("a", "shop"), deployment("b", "team"));
    let (free, waiting) = users(json!({}), &both, "shop");
    assert_eq!((free, waiting), (vec!["Deployment team/b".to_owned()], vec!["Deployment shop/a".to_owned()]));

    let both = both.replace("name: b, namespace: team", "name: b, namespace: elsewhere");
    let (free, _) = users(json!({"targetNamespace": "shop"}), &both, "shop");
    assert_eq!(free, Vec::<String>::new(), "the target namespace counts");
}

/// The objects of `plan` in the order in which they are applied. The objects in one item of the list are applied
/// concurrently.
fn order(plan: &Plan) -> Vec<String> {
    let names = |steps: &Vec<Step>| steps.iter().map(|step| step.id.to_string()).collect::<Vec<_>>().join(", ");
    plan.waves.iter().map(|(wave, steps)| format!("{}: {}", wave.number, names(steps))).collect()
}

/// `yaml` as an object of wave `number`.
fn in_wave(number: &str, yaml: &str) -> String {
    yaml.replacen("metadata: {", &format!("metadata: {{annotations: {{gitseal.dev/wave: '{number}'}}, "), 1)
}

fn folder(all: &[String]) -> String {
    all.join("\n---\n")
}

fn config(name: &str) -> String {
    format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}}}")
}

fn uses(kind: &str, secret: &str) -> String {
    format!(
        "{{apiVersion: batch/v1, kind: {kind}, metadata: {{name: x}}, spec: {{template: {{spec: {{containers: [{{name: c, envFrom: [{{secretRef: {{name: {secret}}}}}]}}]}}}}}}}}"
    )
}

#[test]
fn waves_go_by_their_numbers_and_inside_of_one_by_kind() {
    let yaml = folder(&[
        in_wave("10", &config("ten")),
        in_wave("2", &config("two")),
        in_wave("-3", "{apiVersion: apps/v1, kind: Deployment, metadata: {name: early}}"),
        in_wave("-3", &config("early")),
        in_wave("+2", "{apiVersion: v1, kind: ServiceAccount, metadata: {name: two}}"),
        config("usual"),
        in_wave("0", "{apiVersion: apps/v1, kind: Deployment, metadata: {name: usual}}"),
        in_wave("2", &sealed("two", "AgA")),
    ]);
    let plan = planned(json!({}), &yaml, &Inventory::default(), &Cluster::default()).unwrap();
    assert_eq!(
        order(&plan),
        [
            "-3: ConfigMap team/early",
            "-3: Deployment team/early",
            "0: ConfigMap team/usual",
            "0: Deployment team/usual",
            "2: ServiceAccount team/two",
            "2: SealedSecret.bitnami.com team/two",
            "2: Secret team/two",
            "2: ConfigMap team/two",
            "10: ConfigMap team/ten",
        ]
    );
    let waves = ["early", "usual", "two", "ten"].map(|name| plan.inventory.wave_of(&id("", "ConfigMap", name)).number);
    assert_eq!(waves, [-3, 0, 2, 10], "what is pruned later goes in the opposite order");
    assert_eq!(plan.inventory.wave_of(&id("", "Secret", "two")), Wave { number: 2, tier: Tier::Secrets });
    // A new wave number counts as a change of the object, and is stored.
    let moved = planned(json!({}), &in_wave("7", &config("ten")), &plan.inventory, &Cluster::default()).unwrap();
    assert_eq!(order(&moved), ["7: ConfigMap team/ten"]);
    assert_eq!(moved.inventory.wave_of(&id("", "ConfigMap", "ten")).number, 7);
}

#[test]
fn what_is_needed_comes_with_the_first_object_that_needs_it() {
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: team}}".to_owned();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": {"kind": "Gadget", "plural": "gadgets"},
                 "versions": [{"name": "v1", "served": true}]},
    });
    let gadget = "{apiVersion: example.com/v1, kind: Gadget, metadata: {name: g}}";
    let yaml = folder(&[
        namespace.clone(),
        definition.to_string(),
        sealed("db", "AgA"),
        config("usual"),
        in_wave("-5", &uses("Job", "db")),
        in_wave("-2", gadget),
    ]);
    let plan = planned(json!({}), &yaml, &Inventory::default(), &Cluster::default()).unwrap();
    assert_eq!(
        order(&plan),
        [
            "-5: Namespace team",
            "-5: SealedSecret.bitnami.com team/db",
            "-5: Secret team/db",
            "-5: Job team/x",
            "-2: CustomResourceDefinition gadgets.example.com",
            "-2: Gadget.example.com g",
            "0: ConfigMap team/usual",
        ]
    );
    let job = plan.waves.values().flatten().find(|step| step.id.kind == "Job").unwrap();
    assert_eq!(job.needs, ["db"], "it is held back when the Secret cannot be made");
    // An object in another namespace does not change the wave of the Namespace `team`.
    let elsewhere = folder(&[namespace, in_wave("-1", "{apiVersion: v1, kind: Namespace, metadata: {name: other}}")]);
    let plan = planned(json!({}), &elsewhere, &Inventory::default(), &Cluster::default()).unwrap();
    assert_eq!(order(&plan), ["-1: Namespace other", "0: Namespace team"]);
}

#[test]
fn what_is_needed_and_said_to_come_later_is_an_error_with_both_places() {
    let namespace = in_wave("1", "{apiVersion: v1, kind: Namespace, metadata: {name: team}}");
    let cases = [
        (in_wave("5", &sealed("db", "AgA")), uses("Job", "db"), "SealedSecret.bitnami.com team/db", "Job team/x", 5, 0),
        (namespace, in_wave("-4", &config("a")), "Namespace team", "ConfigMap team/a", 1, -4),
    ];
    for (needed, user, needed_name, user_name, late, number) in cases {
        let yaml = folder(&[needed, user]);
        let error = planned(json!({}), &yaml, &Inventory::default(), &Cluster::default()).err().unwrap();
        assert_eq!((error.stage(), error.reason(), error.is_terminal()), (Stage::Guard, "InvalidWave", true));
        let message = error.to_string();
        let expected = format!(
            "a.yaml:3: {user_name} is of wave {number} and needs {needed_name} at a.yaml:1, which is of wave {late}: "
        );
        assert!(message.starts_with(&expected), "{message}");
    }
    // It is allowed that an object of a later wave, or of another namespace, uses the Secret.
    let later = folder(&[in_wave("5", &sealed("db", "AgA")), in_wave("5", &uses("Job", "db"))]);
    assert!(planned(json!({}), &later, &Inventory::default(), &Cluster::default()).is_ok());
    let other = uses("Job", "db").replace("name: x", "name: x, namespace: shop");
    let other = folder(&[in_wave("5", &sealed("db", "AgA")), other]);
    assert!(planned(json!({}), &other, &Inventory::default(), &Cluster::default()).is_ok());
}

/// `yaml` as an object of wave `number` that later waves wait for.
fn awaited(number: &str, yaml: &str) -> String {
    in_wave(number, yaml).replacen("annotations: {", "annotations: {gitseal.dev/wait: healthy, ", 1)
}

fn job(name: &str) -> String {
    format!("{{apiVersion: batch/v1, kind: Job, metadata: {{name: {name}}}}}")
}

/// The inventory after everything in `plan` was applied.
fn applied(plan: &Plan) -> Inventory {
    let mut inventory = plan.inventory.clone();
    for step in plan.waves.values().flatten() {
        inventory.applied(&step.id, step.digest.clone(), None);
    }
    inventory
}

/// The plan for `yaml` without the waves that have to wait, and what these waves wait for. The objects that the plan
/// applies, and those in `unhealthy`, count as not healthy yet.
fn until_healthy(
    spec: Value,
    yaml: &str,
    current: &Inventory,
    live: &Cluster,
    unhealthy: &[&ObjectId],
) -> (Plan, Option<Barrier>) {
    let mut plan = planned(spec, yaml, current, live).unwrap();
    let steps: BTreeSet<_> = plan.waves.values().flatten().map(|step| step.id.clone()).collect();
    let barrier = plan.leave_out_waiting_waves(current, |id| steps.contains(id) || unhealthy.contains(&id));
    (plan, barrier)
}

#[test]
fn later_waves_wait_for_the_first_number_that_is_not_healthy() {
    let (migrate, seed) = (id("batch", "Job", "migrate"), id("batch", "Job", "seed"));
    let yaml = folder(&[
        awaited("-2", &job("migrate")),
        in_wave("-2", &job("beside")),
        awaited("-1", &job("seed")),
        config("usual"),
        in_wave("3", &config("last")),
    ]);
    let (none, empty) = (Inventory::default(), Cluster::default());
    let (plan, barrier) = until_healthy(json!({}), &yaml, &none, &empty, &[]);
    assert_eq!(order(&plan), ["-2: Job team/migrate, Job team/beside"]);
    let barrier = barrier.unwrap();
    assert_eq!(barrier, Barrier { number: -2, awaited: [migrate.clone()].into() });
    assert_eq!(barrier.to_string(), "the waves after -2 wait until Job team/migrate is healthy");
    assert_eq!(plan.inventory.len_in_git(), 2, "what waits is not about to be created");

    let current = applied(&plan);
    let there = || current.iter().map(|(id, _)| id.clone()).collect();
    let live = Cluster { untouched: there(), ..Cluster::default() };
    let (plan, barrier) = until_healthy(json!({}), &yaml, &current, &live, &[&migrate]);
    assert!(plan.waves.is_empty(), "{:?}", order(&plan));
    assert_eq!(barrier.unwrap().awaited, [migrate.clone()].into());
    let (plan, barrier) = until_healthy(json!({}), &yaml, &current, &live, &[]);
    assert_eq!(order(&plan), ["-1: Job team/seed"]);
    assert_eq!(barrier.unwrap(), Barrier { number: -1, awaited: [seed].into() });

    // With `waves: healthy`, waves wait for all objects except those that count as healthy as soon as they exist.
    let healthy = json!({"waves": "healthy"});
    let (_, barrier) = until_healthy(healthy.clone(), &yaml, &none, &empty, &[]);
    let barrier = barrier.unwrap();
    assert_eq!(barrier.awaited, [id("batch", "Job", "beside"), migrate].into());
    assert!(barrier.to_string().ends_with(" wait until Job team/beside and 1 more are healthy"), "{barrier}");
    let maps = folder(&[in_wave("-1", &config("a")), config("b")]);
    assert_eq!(until_healthy(healthy.clone(), &maps, &none, &empty, &[]).1, None);
    let one_number = folder(&[job("a"), config("b")]);
    assert_eq!(until_healthy(healthy, &one_number, &none, &empty, &[]).1, None);
}

/// A hook that is deleted when it is healthy.
fn finishing(number: &str, name: &str, text: &str) -> String {
    let annotations = format!(
        "annotations: {{gitseal.dev/wave: '{number}', gitseal.dev/wait: healthy, gitseal.dev/delete-when: healthy, helm.sh/hook: x, a: \
         '{text}'}}, "
    );
    job(name).replacen("metadata: {", &format!("metadata: {{{annotations}"), 1)
}

#[test]
fn what_was_deleted_when_it_was_healthy_is_made_again_only_with_a_hook_of_its_time_that_changes() {
    let yaml = |account: &str, migrate: &str, late: &str| {
        folder(&[
            finishing("-510", "account", account),
            finishing("-505", "migrate", migrate),
            finishing("505", "late", late),
            config("usual"),
        ])
    };
    let first = planned(json!({}), &yaml("1", "1", "1"), &Inventory::default(), &Cluster::default()).unwrap();
    let job = |name: &str| id("batch", "Job", name);
    assert!(
        first.is_deleted_when_healthy(&job("migrate")) && !first.is_deleted_when_healthy(&id("", "ConfigMap", "usual"))
    );
    let mut current = applied(&first);
    assert_eq!(current.get(&job("late")).unwrap().deletion, Some(Deletion::Due));
    for name in ["account", "migrate", "late"] {
        current.set_deletion(&job(name), Some(Deletion::Done));
    }
    let live = Cluster { untouched: [id("", "ConfigMap", "usual")].into(), ..Cluster::default() };
    let again = |yaml: &str| planned(json!({}), yaml, &current, &live).unwrap();

    // Nothing changed: nothing is applied, awaited or deleted, and the inventory still has the hooks.
    let plan = again(&yaml("1", "1", "1"));
    assert!(plan.waves.is_empty() && plan.prune.is_empty(), "{:?}", order(&plan));
    assert_eq!((plan.unchanged, plan.kinds.len()), (4, 1));
    assert!(!plan.has_to_be_healthy(&job("migrate")) && plan.inventory.is_done(&job("migrate")));

    // The changed Job `migrate` runs again. The hook before it, `account`, does too, because the Job may need it. The
    // hook `late`, which comes after the Job, does not.
    let plan = again(&yaml("1", "2", "1"));
    assert_eq!(order(&plan), ["-510: Job team/account", "-505: Job team/migrate"]);
    assert!(plan.has_to_be_healthy(&job("account")) && plan.kinds.contains_key(&job("account")));
    let deletions = ["account", "migrate", "late"].map(|name| plan.inventory.get(&job(name)).unwrap().deletion);
    assert_eq!(deletions, [Some(Deletion::Due), Some(Deletion::Due), Some(Deletion::Done)]);
    assert_eq!(plan.unchanged, 2);
    assert_eq!(order(&again(&yaml("1", "1", "2"))), ["505: Job team/late"]);
    // No hook runs again because an object that is no hook changed, or because of a heal.
    let plan = again(&yaml("1", "1", "1").replace("name: usual", "name: other"));
    assert_eq!(order(&plan), ["0: ConfigMap team/other"]);
    let manifests = parse("a.yaml", yaml("1", "1", "1").as_bytes(), &Limits::default()).unwrap();
    let drifted = BTreeSet::from([job("migrate")]);
    let kinds = kinds(&manifests);
    let heal =
        super::plan(&sync(json!({})), &manifests, &kinds, &current, &live, Scope::Drifted(&drifted), None).unwrap();
    assert!(heal.waves.is_empty());
    // What leaves the folder is pruned, which removes it from the inventory.
    assert_eq!(again(&config("usual")).prune, ["account", "migrate", "late"].map(job).into());
    // Without the annotation `gitseal.dev/delete-when`, a hook is an object like any other.
    let stays = yaml("1", "1", "1").replace("gitseal.dev/delete-when: healthy, ", "");
    let plan = again(&stays);
    assert_eq!((plan.waves.len(), plan.inventory.get(&job("late")).unwrap().deletion), (3, None));
}

#[test]
fn a_hook_for_both_times_is_deleted_in_between_and_made_again() {
    let twice = |text: &str| {
        let annotations = format!(
            "annotations: {{gitseal.dev/wave: '-500', gitseal.dev/wave-again: '500', gitseal.dev/wait: healthy, helm.sh/hook: x, \
             a: '{text}'}}, "
        );
        job("twice").replacen("metadata: {", &format!("metadata: {{{annotations}"), 1)
    };
    let late = awaited("505", &job("late"));
    let yaml = |text: &str| folder(&[twice(text), config("usual"), late.clone()]);
    let ids = [id("batch", "Job", "twice"), id("", "ConfigMap", "usual"), id("batch", "Job", "late")];
    let [hook, usual, last] = &ids;
    let live =
        |there: &[&ObjectId]| Cluster { untouched: there.iter().copied().cloned().collect(), ..Cluster::default() };
    let made_from = |plan: &Plan| {
        let Content::Manifest(body) = &plan.waves.values().flatten().next().unwrap().content else {
            panic!("no manifest")
        };
        body["metadata"]["annotations"][crds::names::MADE_FROM].as_str().unwrap().to_owned()
    };
    let run = |yaml: &str, current: &Inventory, there: &[&ObjectId], unhealthy: &[&ObjectId]| {
        until_healthy(json!({}), yaml, current, &live(there), unhealthy)
    };

    let (plan, barrier) = run(&yaml("1"), &Inventory::default(), &[], &[]);
    assert_eq!(order(&plan), ["-500: Job team/twice"]);
    assert_eq!(barrier.unwrap(), Barrier { number: -500, awaited: [hook.clone()].into() });
    assert!(plan.is_deleted_when_healthy(hook) && plan.is_always_awaited(hook));
    let (first, current) = (made_from(&plan), applied(&plan));

    // When it is healthy, everything before the second time is applied, and the hook is deleted.
    let (plan, barrier) = run(&yaml("1"), &current, &[hook], &[]);
    assert_eq!(order(&plan), ["0: ConfigMap team/usual"]);
    let barrier = barrier.unwrap();
    assert_eq!(barrier, Barrier { number: 499, awaited: BTreeSet::new() });
    assert_eq!(barrier.to_string(), "the waves after 499 begin in the next pass");
    let mut current = applied(&plan);
    let before = current.clone();
    current.set_deletion(hook, Some(Deletion::Done));

    let (plan, barrier) = run(&yaml("1"), &current, &[usual], &[]);
    assert_eq!(order(&plan), ["500: Job team/twice"]);
    assert_eq!(barrier.unwrap(), Barrier { number: 500, awaited: [hook.clone()].into() });
    assert!(!plan.is_deleted_when_healthy(hook) && made_from(&plan) != first);
    // If it could not be applied, it is still the second time.
    let (again, _) = run(&yaml("1"), &plan.inventory, &[usual], &[]);
    assert_eq!(order(&again), ["500: Job team/twice"]);
    let current = applied(&plan);
    assert_eq!(of_either_time(current.get(hook).unwrap().manifest.as_deref().unwrap()), first);

    let (plan, barrier) = run(&yaml("1"), &current, &[hook, usual], &[]);
    assert_eq!((order(&plan), barrier), (vec!["505: Job team/late".to_owned()], None));
    let mut current = applied(&plan);
    let (plan, barrier) = run(&yaml("1"), &current, &[hook, usual, last], &[]);
    assert!(plan.waves.is_empty() && barrier.is_none(), "{:?}", order(&plan));

    // It changes, and nothing else: it runs twice again.
    let (plan, barrier) = run(&yaml("2"), &current, &[hook, usual, last], &[]);
    assert_eq!(order(&plan), ["-500: Job team/twice"]);
    assert_eq!(barrier.unwrap().awaited, [hook.clone()].into());
    // Without an annotation that waves wait, the second time waits nevertheless, for everything of the first time.
    let patient = yaml("1").replace("gitseal.dev/wait: healthy, helm.sh", "helm.sh");
    let (plan, _) = run(&patient, &Inventory::default(), &[], &[]);
    let (_, barrier) = run(&patient, &applied(&plan), &[hook, usual], &[hook]);
    assert_eq!(barrier.unwrap(), Barrier { number: 499, awaited: [hook.clone()].into() });

    // If it was deleted after the second time, it is made again for the first time if another hook of that time changes.
    let with_other = |text: &str| folder(&[yaml("1"), finishing("-490", "other", text)]);
    current.set_deletion(hook, Some(Deletion::Done));
    let (plan, _) = run(&with_other("1"), &current, &[usual, last], &[]);
    assert_eq!(order(&plan), ["-500: Job team/twice"]);
    assert!(before.get(hook).unwrap().deletion == Some(Deletion::Due));
}

#[test]
fn what_failed_and_was_deleted_is_still_awaited_until_it_changes() {
    let yaml = |text: &str| {
        let hook = finishing("-505", "migrate", text).replace("delete-when: healthy", "delete-when: 'healthy, failed'");
        folder(&[hook, config("usual")])
    };
    let migrate = id("batch", "Job", "migrate");
    let mut current = Inventory::default();
    for (id, known) in applied(&planned(json!({}), &yaml("1"), &current, &Cluster::default()).unwrap()).iter() {
        if *id == migrate {
            current.widen(id.clone(), "v1");
            current.applied(id, known.manifest.clone().unwrap(), None);
        }
    }
    current.set_deletion(&migrate, Some(Deletion::Failed));
    let (plan, barrier) = until_healthy(json!({}), &yaml("1"), &current, &Cluster::default(), &[&migrate]);
    assert!(plan.waves.is_empty() && plan.is_deleted_when_failed(&migrate), "{:?}", order(&plan));
    assert!(plan.kinds.contains_key(&migrate) && plan.inventory.has_failed(&migrate));
    assert_eq!(barrier.unwrap().awaited, [migrate.clone()].into());

    let without_policy = yaml("1").replace("'healthy, failed'", "healthy");
    let digest = applied(&planned(json!({}), &without_policy, &current, &Cluster::default()).unwrap());
    current.applied(&migrate, digest.get(&migrate).unwrap().manifest.clone().unwrap(), None);
    let (plan, _) = until_healthy(json!({}), &without_policy, &current, &Cluster::default(), &[&migrate]);
    assert!(plan.inventory.has_failed(&migrate), "its time to live was over");

    let (plan, _) = until_healthy(json!({}), &yaml("2"), &current, &Cluster::default(), &[&migrate]);
    assert_eq!(order(&plan), ["-505: Job team/migrate"]);
    let Content::Manifest(body) = &plan.waves.values().flatten().next().unwrap().content else { panic!("no manifest") };
    let step = plan.waves.values().flatten().next().unwrap();
    assert_eq!(body["metadata"]["annotations"][crds::names::MADE_FROM], step.digest.as_str());
    assert_eq!(plan.inventory.get(&migrate).unwrap().deletion, Some(Deletion::Due));
    assert!(plan.waves.values().flatten().all(|step| step.runs_again), "it is a hook that changed");
}

#[test]
fn a_hook_of_several_times_has_its_weight_at_each_of_them() {
    let hook = |number: &str, times: &str| {
        let annotations = format!("gitseal.dev/wave: '{number}', helm.sh/hook: x, gitseal.dev/on-delete: '{times}'");
        let text = job("a").replacen("metadata: {", &format!("metadata: {{annotations: {{{annotations}}}, "), 1);
        let manifests = parse("a.yaml", text.as_bytes(), &Limits::default()).unwrap();
        let at = |when: OnDelete| {
            let mut applied = applied_on_delete(&manifests, when);
            applied.pop().map(|manifest| wave::number_of(&manifest).unwrap().unwrap())
        };
        (times_of(&manifests[0]), at(OnDelete::Before), at(OnDelete::After))
    };
    assert_eq!(hook("507", "also,before"), ("usual", Some(-493), None));
    assert_eq!(hook("-493", "before, after"), ("", Some(-493), Some(507)));
    assert_eq!(hook("-501", "after,also"), ("usual", None, Some(499)));
    for wrong in ["", "also", "before,x"] {
        assert_eq!(hook("1", wrong).0, "wrong", "{wrong}");
    }
}

#[test]
fn a_sealed_secret_for_several_times_comes_with_its_first_user_at_the_deletion() {
    // It has the number of its time in Git, as the hook that uses it, but not the annotation of a hook.
    let annotations =
        |more: &str| format!("annotations: {{gitseal.dev/wave: '500', gitseal.dev/on-delete: 'also,before'{more}}}");
    let with =
        |object: String, more: &str| object.replacen("metadata: {", &format!("metadata: {{{}, ", annotations(more)), 1);
    let hook = with(uses("Job", "db"), ", helm.sh/hook: 'post-install,pre-delete'");
    let text = folder(&[hook, with(sealed("db", "AgA"), "")]);
    let manifests = parse("a.yaml", text.as_bytes(), &Limits::default()).unwrap();
    let manifests = applied_on_delete(&manifests, OnDelete::Before);
    let sync = sync(json!({}));
    assert!(check_waves(&sync, &manifests, &kinds(&manifests)).is_ok());
    let numbers = wave::numbers(&sync, &manifests, &kinds(&manifests), &Runs::default()).unwrap();
    assert_eq!(numbers.get(&id("bitnami.com", "SealedSecret", "db")), Some(&-500));
}

#[test]
fn a_sync_does_not_take_over_what_it_applies_only_when_it_is_deleted() {
    let on_delete = |name: &str, value: &str| {
        config(name).replacen(
            "metadata: {",
            &format!("metadata: {{annotations: {{gitseal.dev/on-delete: '{value}'}}, "),
            1,
        )
    };
    let text = folder(&[config("usual"), on_delete("both", "also,before"), on_delete("only", "after")]);
    let manifests = parse("a.yaml", text.as_bytes(), &Limits::default()).unwrap();
    let wanted = wanted_ids(&sync(json!({})), &manifests);
    let wants = |name: &str| wanted.contains(&id("", "ConfigMap", name));
    assert_eq!([wants("usual"), wants("both"), wants("only")], [true, true, false]);
}

fn times_of(manifest: &Manifest) -> &'static str {
    match times(manifest) {
        Ok(times) if times.usual => "usual",
        Ok(_) => "",
        Err(_) => "wrong",
    }
}

#[test]
fn tests_wait_for_everything_else_and_run_again_when_it_changes() {
    let yaml = |map: &str| {
        let test = |name: &str, number: &str| {
            let annotations =
                format!("gitseal.dev/run-when: healthy, gitseal.dev/wait: healthy, gitseal.dev/wave: '{number}'");
            job(name).replacen("metadata: {", &format!("metadata: {{annotations: {{{annotations}}}, "), 1)
        };
        folder(&[job("work"), config(map), test("late", "5"), test("smoke", "-5")])
    };
    let (work, smoke, late) = (id("batch", "Job", "work"), id("batch", "Job", "smoke"), id("batch", "Job", "late"));
    let empty = Cluster::default();
    let (plan, barrier) = until_healthy(json!({}), &yaml("a"), &Inventory::default(), &empty, &[]);
    assert_eq!(order(&plan), ["0: ConfigMap team/a", "0: Job team/work"]);
    let barrier = barrier.unwrap();
    assert!(barrier.awaited.contains(&work) && barrier.to_string().starts_with("the tests wait until "), "{barrier}");

    // When everything else is healthy, the tests run one after the other. What left Git is pruned meanwhile.
    let mut current = applied(&plan);
    current.widen(id("", "ConfigMap", "left"), "v1");
    let live = Cluster { untouched: [work.clone(), id("", "ConfigMap", "a")].into(), ..Cluster::default() };
    let (plan, barrier) = until_healthy(json!({}), &yaml("a"), &current, &live, &[]);
    assert_eq!(order(&plan), ["1996: Job team/smoke"]);
    assert_eq!((barrier.unwrap().awaited, plan.prune.len()), ([smoke.clone()].into(), 1));
    let (plan, _) = until_healthy(json!({}), &yaml("a"), &current, &live, &[&work]);
    assert!(plan.waves.is_empty() && plan.prune.len() == 1, "{:?}", order(&plan));

    // They do not run again because they are gone, but when something else changed.
    let all = planned(json!({}), &yaml("a"), &current, &live).unwrap();
    let current = applied(&all);
    assert!(planned(json!({}), &yaml("a"), &current, &live).unwrap().waves.is_empty());
    let plan = planned(json!({}), &yaml("b"), &current, &live).unwrap();
    let again = plan.waves.values().flatten().filter(|step| step.runs_again).map(|step| step.id.clone());
    assert_eq!(again.collect::<Vec<_>>(), [smoke, late]);
}

#[test]
fn while_waves_wait_nothing_new_is_applied_and_nothing_is_pruned() {
    let yaml = |value: &str| {
        let map = |name: &str| config(name).replacen("}}", &format!("}}, data: {{a: {value}}}}}"), 1);
        folder(&[
            awaited("-1", &job("migrate")),
            map("changed"),
            config("drifted"),
            sealed("login", if value == "b" { "AgA" } else { "AgB" }),
            sealed("touched", "AgA"),
        ])
    };
    let gate = |name: &str| {
        format!(
            "{{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {{name: {name}}}}}"
        )
    };
    let before = folder(&[yaml("b"), config("left"), gate("left")]);
    let first = planned(json!({}), &before, &Inventory::default(), &Cluster::default()).unwrap();
    let current = applied(&first);
    let touched: BTreeSet<_> =
        [id("", "ConfigMap", "drifted"), id("", "Secret", "touched"), id("", "Secret", "login")].into();
    let is_untouched = |id: &&ObjectId| !touched.contains(*id);
    let live = Cluster {
        untouched: current.iter().map(|(id, _)| id).filter(is_untouched).cloned().collect(),
        touched: touched.clone(),
        ..Cluster::default()
    };
    let migrate = id("batch", "Job", "migrate");
    let (plan, barrier) = until_healthy(json!({}), &yaml("c"), &current, &live, &[&migrate]);
    assert!(barrier.is_some());
    let healed = ["0: SealedSecret.bitnami.com team/touched", "0: Secret team/touched", "0: ConfigMap team/drifted"];
    assert_eq!(order(&plan), healed, "a SealedSecret that Git changed waits together with its Secret");
    let changed = id("", "ConfigMap", "changed");
    assert_eq!(plan.inventory.get(&changed), current.get(&changed));
    assert!(!plan.kinds.contains_key(&changed), "its health is not checked");
    assert_eq!(plan.left.len(), 2, "they can be handed over");
    let names: Vec<_> = plan.prune.iter().map(|id| id.kind.as_str()).collect();
    assert_eq!(names, ["ValidatingWebhookConfiguration"]);

    let (plan, barrier) = until_healthy(json!({}), &yaml("c"), &current, &live, &[]);
    assert_eq!((barrier, plan.prune.len()), (None, 2));
    // If there is nothing to apply in later waves, nothing waits, and the prune is due.
    let (plan, barrier) = until_healthy(json!({}), &yaml("b"), &current, &live, &[&migrate]);
    assert_eq!((barrier, plan.prune.len()), (None, 2));

    // An object that is held back counts as not healthy.
    let theirs = Cluster { theirs: [migrate.clone()].into(), ..live };
    let (plan, barrier) = until_healthy(json!({}), &yaml("c"), &Inventory::default(), &theirs, &[]);
    assert!(plan.held[0].is_owned_by_another());
    assert_eq!(barrier.unwrap().awaited, [migrate].into());
}

#[test]
fn what_is_put_back_later_waits_unless_git_says_something_new_of_it() {
    let (sealed_id, secret) = (id("bitnami.com", "SealedSecret", "db"), id("", "Secret", "db"));
    let yaml = |data: &str| {
        folder(&[
            sealed("db", "AgA"),
            config("quiet"),
            config("fought").replace("name: fought}", &format!("name: fought}}, data: {{{data}}}")),
        ])
    };
    let first = planned(json!({}), &yaml("a: b"), &Inventory::default(), &Cluster::default()).unwrap();
    let mut current = first.inventory.clone();
    for step in first.waves.values().flatten() {
        current.applied(&step.id, step.digest.clone(), None);
    }
    let fought = id("", "ConfigMap", "fought");
    let touched = |ids: &[&ObjectId]| Cluster {
        untouched: current.iter().map(|(id, _)| id.clone()).filter(|id| !ids.contains(&id)).collect(),
        touched: ids.iter().copied().cloned().collect(),
        ..Cluster::default()
    };
    let order_of = |data: &str, ids: &[&ObjectId], later: &[&ObjectId]| {
        let later = later.iter().copied().cloned().collect();
        order(&planned(json!({}), &yaml(data), &current, &touched(ids)).unwrap().put_off(&later))
    };
    assert_eq!(order_of("a: b", &[&fought], &[]), ["0: ConfigMap team/fought"]);
    assert_eq!(order_of("a: b", &[&fought], &[&fought]), Vec::<String>::new());
    assert_eq!(order_of("a: c", &[&fought], &[&fought]), ["0: ConfigMap team/fought"], "Git says something new of it");
    assert_eq!(order_of("a: b", &[&secret], &[&secret]), Vec::<String>::new(), "no private key is used for nothing");
    let both = ["0: SealedSecret.bitnami.com team/db", "0: Secret team/db"];
    assert_eq!(order_of("a: b", &[&secret, &fought], &[&fought]), both);
    assert_eq!(order_of("a: b", &[&secret, &sealed_id], &[&sealed_id]), both, "it is accepted for its Secret");
    assert_eq!(order_of("a: b", &[&secret, &sealed_id], &[&secret]), both[..1]);
}

#[test]
fn a_sync_unseals_so_many_values_and_holds_what_is_beyond() {
    let with = |name: &str, count: usize| {
        let values: Map<_, _> = (0..count).map(|index| (format!("k{index}"), json!("AgA"))).collect();
        json!({"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": name},
               "spec": {"encryptedData": values}})
        .to_string()
    };
    let half = MOST_VALUES / 2;
    let held = |counts: [usize; 3]| {
        let names = ["a", "b", "c"];
        let all: Vec<_> = names.iter().zip(counts).map(|(name, count)| with(name, count)).collect();
        let yaml = folder(&[folder(&all), config("beside")]);
        let limits = Limits { file_bytes: usize::MAX, ..Limits::default() };
        let manifests = parse("a.yaml", yaml.as_bytes(), &limits).unwrap();
        let kinds = kinds(&manifests);
        let plan =
            plan(&sync(json!({})), &manifests, &kinds, &Inventory::default(), &Cluster::default(), Scope::Folder, None);
        let plan = plan.unwrap();
        assert!(plan.waves.values().flatten().any(|step| step.id.name == "beside"), "the rest is applied");
        plan.held.iter().map(|held| held.id.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(held([half, half - 1, 1]), Vec::<String>::new());
    assert_eq!(held([half, half, 1]), ["c"]);
    // A SealedSecret without `encryptedData` counts as one value, because it may have the deprecated form.
    assert_eq!(held([half, half, 0]), ["c"]);
    assert_eq!(held([1, MOST_VALUES, 1]), ["b", "c"]);
}

/// A hook that is only for an installation, or only for upgrades.
fn only_on(when: &str, number: &str, name: &str, text: &str) -> String {
    let annotations = format!(
        "annotations: {{gitseal.dev/only-on: {when}, gitseal.dev/wave: '{number}', gitseal.dev/wait: healthy, helm.sh/hook: x, a: \
         '{text}'}}, "
    );
    job(name).replacen("metadata: {", &format!("metadata: {{{annotations}"), 1)
}

#[test]
fn hooks_of_an_installation_run_once_and_those_of_upgrades_not_in_it() {
    let yaml = |text: &str| {
        folder(&[
            only_on("installation", "-500", "first", text),
            only_on("upgrade", "-499", "later", text),
            config("usual"),
        ])
    };
    let planned_for = |sync: &Sync, text: &str, current: &Inventory, live: &Cluster| {
        let manifests = parse("a.yaml", yaml(text).as_bytes(), &Limits::default()).unwrap();
        plan(sync, &manifests, &kinds(&manifests), current, live, Scope::Folder, None).unwrap()
    };
    let new = sync(json!({}));
    let first = planned_for(&new, "1", &Inventory::default(), &Cluster::default());
    assert_eq!(order(&first), ["-500: Job team/first", "0: ConfigMap team/usual"]);
    let current = applied(&first);
    let later = id("batch", "Job", "later");
    assert!(current.is_skipped(&later) && current.is_done(&later) && !first.has_to_be_healthy(&later));

    let mut installed = new.clone();
    installed.status = Some(crds::SyncStatus { installed: Some(true), ..Default::default() });
    let untouched = [id("batch", "Job", "first"), id("", "ConfigMap", "usual")].into();
    let live = Cluster { untouched, ..Cluster::default() };
    // The hook for upgrades is as it was in the installation, so it does not run.
    let same = planned_for(&installed, "1", &current, &live);
    assert!(same.waves.is_empty() && same.prune.is_empty(), "{:?}", order(&same));
    assert!(same.has_to_be_healthy(&id("batch", "Job", "first")), "it may still run");
    // An upgrade changes both hooks. The one for the installation stays as it is.
    let upgrade = planned_for(&installed, "2", &current, &live);
    assert_eq!(order(&upgrade), ["-499: Job team/later"]);
    assert!(upgrade.prune.is_empty() && !upgrade.has_to_be_healthy(&id("batch", "Job", "first")));
    assert!(upgrade.inventory.contains(&id("batch", "Job", "first")));
    // A hook of the installation that was deleted is not needed by a hook for upgrades.
    let with_deletion = |text: &str| {
        yaml(text).replacen("{gitseal.dev/only-on", "{gitseal.dev/delete-when: healthy, gitseal.dev/only-on", 1)
    };
    let manifests = parse("a.yaml", with_deletion("1").as_bytes(), &Limits::default()).unwrap();
    let made = plan(&new, &manifests, &kinds(&manifests), &Inventory::default(), &live, Scope::Folder, None).unwrap();
    let mut made = applied(&made);
    made.set_deletion(&id("batch", "Job", "first"), Some(Deletion::Done));
    let changed = with_deletion("1").replace("name: later", "name: later, labels: {a: b}");
    let manifests = parse("a.yaml", changed.as_bytes(), &Limits::default()).unwrap();
    let later_only = plan(&installed, &manifests, &kinds(&manifests), &made, &live, Scope::Folder, None).unwrap();
    assert_eq!(order(&later_only), ["-499: Job team/later"]);
    // As long as the installation is not complete, a hook that changes runs again.
    assert_eq!(order(&planned_for(&new, "2", &current, &live)), ["-500: Job team/first"]);

    // What something else had installed.
    let mut adopted = new;
    adopted.metadata.annotations = Some([("gitseal.dev/installed".to_owned(), "true".to_owned())].into());
    let plan = planned_for(&adopted, "1", &Inventory::default(), &Cluster::default());
    assert_eq!(order(&plan), ["-499: Job team/later", "0: ConfigMap team/usual"]);
}
