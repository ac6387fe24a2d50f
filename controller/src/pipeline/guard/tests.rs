use manifests::{Limits, parse};
use serde_json::json;

use super::*;
use crate::pipeline::Unsealed;

/// A Sync in namespace `team`.
fn sync() -> Sync {
    let sync = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync",
        "metadata": {"name": "apps", "namespace": "team"},
        "spec": {"repository": {"name": "main"}},
    });
    serde_json::from_value(sync).unwrap()
}

fn sync_into(namespace: &str) -> Sync {
    let mut sync = sync();
    sync.spec.target_namespace = Some(namespace.into());
    sync
}

fn manifests(file: &str, yaml: &str) -> Vec<Manifest> {
    parse(file, yaml.as_bytes(), &Limits::default()).unwrap()
}

fn plain(file: &str, yaml: &str) -> Vec<Object> {
    manifests(file, yaml).into_iter().map(Object::Plain).collect()
}

fn sealed(file: &str, namespace: &str, name: &str) -> Object {
    let yaml = format!(
        "{{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{encryptedData: {{}}}}}}"
    );
    Object::Sealed { manifest: manifests(file, &yaml).remove(0), secret: Unsealed::Current { digest: "d".into() } }
}

fn held(namespace: &str, name: &str) -> Held {
    Held {
        id: ObjectId {
            group: "bitnami.com".into(),
            kind: "SealedSecret".into(),
            namespace: Some(namespace.into()),
            name: name.into(),
        },
        origin: Location { file: "held.yaml".into(), line: 1 },
        because: "no key opens it".into(),
        is_cause: true,
    }
}

fn check(sync: &Sync, objects: Vec<Object>, held: Vec<Held>) -> Result<Opened, GuardError> {
    guard(sync, Opened { objects, held })
}

fn refused(sync: &Sync, objects: Vec<Object>) -> GuardError {
    check(sync, objects, Vec::new()).err().expect("it is refused")
}

/// `namespace/name` of what is applied, and of what is held for another's sake.
fn outcome(opened: &Opened) -> (Vec<String>, Vec<String>) {
    let name = |id: &ObjectId| id.to_string();
    let applied = opened.objects.iter().map(|o| name(&o.manifest().id));
    let held = opened.held.iter().filter(|held| !held.is_cause);
    (applied.collect(), held.map(|held| name(&held.id)).collect())
}

#[test]
fn a_plaintext_secret_is_refused_by_place_and_never_by_value() {
    let forms = [("data", "aHVudGVyMg=="), ("stringData", "hunter2")];
    for (field, value) in forms {
        let yaml = format!(
            "# a comment\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: fine\n---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: db\n  namespace: shop\n{field}:\n  password: {value}\n"
        );
        let error = refused(&sync(), plain("apps/db.yaml", &yaml));
        let message = error.to_string();
        assert!(message.starts_with("apps/db.yaml:7: Secret shop/db "), "{message}");
        assert!(message.contains("gitseal seal -i apps/db.yaml"), "{message}");
        assert!(!message.contains(value) && !format!("{error:?}").contains(value));
        assert_eq!((error.reason(), error.is_terminal()), ("PlaintextSecret", true));
    }
}

#[test]
fn values_that_are_no_mapping_are_refused_too() {
    let error =
        refused(&sync(), plain("a.yaml", "{apiVersion: v1, kind: Secret, metadata: {name: db}, stringData: hunter2}"));
    assert_eq!(error.reason(), "PlaintextSecret");
    assert!(!error.to_string().contains("hunter2"));
}

#[test]
fn a_secret_in_a_list_is_a_secret() {
    let yaml = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: db}\n  data: {a: Yg==}\n";
    let message = refused(&sync(), plain("list.yaml", yaml)).to_string();
    assert!(message.starts_with("list.yaml:4: Secret db "), "{message}");
}

#[test]
fn secrets_without_values_and_other_kinds_with_data_are_fine() {
    let yaml = "
{apiVersion: v1, kind: Secret, metadata: {name: token}, type: kubernetes.io/service-account-token}
---
{apiVersion: v1, kind: Secret, metadata: {name: empty}, data: {}, stringData: {}}
---
{apiVersion: v1, kind: Secret, metadata: {name: nothing}, data: null, stringData: }
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {a: b}}
---
{apiVersion: example.com/v1, kind: Secret, metadata: {name: theirs}, data: {a: b}}
";
    let opened = check(&sync(), plain("a.yaml", yaml), Vec::new()).unwrap();
    assert_eq!(opened.objects.len(), 5);
}

#[test]
fn one_object_in_two_files_is_refused_with_both_places() {
    let mut objects =
        plain("a.yaml", "\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}}");
    objects.extend(plain(
        "b.yaml",
        "{apiVersion: apps/v1beta1, kind: Deployment, metadata: {name: web, namespace: shop}}",
    ));
    let error = refused(&sync(), objects);
    assert_eq!(error.reason(), "DuplicateObject");
    let message = error.to_string();
    assert!(message.starts_with("b.yaml:1: "), "{message}");
    assert!(message.contains(" a.yaml:2 "), "{message}");
}

#[test]
fn a_namespace_that_is_left_out_is_the_syncs_own() {
    let with_and_without = "
{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: team}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
";
    let objects = || plain("a.yaml", with_and_without);
    assert_eq!(refused(&sync(), objects()).reason(), "DuplicateObject");

    let elsewhere = "
{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
";
    let objects = || plain("a.yaml", elsewhere);
    assert!(check(&sync(), objects(), Vec::new()).is_ok());
    assert_eq!(
        refused(&sync_into("one"), objects()).reason(),
        "DuplicateObject",
        "the target namespace makes them one"
    );
}

#[test]
fn what_cannot_be_unsealed_counts_as_a_duplicate_all_the_same() {
    let objects = vec![sealed("a.yaml", "team", "db")];
    let error = check(&sync(), objects, vec![held("team", "db")]).err().unwrap();
    assert!(error.to_string().starts_with("held.yaml:1: "), "{error}");
    assert_eq!(error.reason(), "DuplicateObject");
}

#[test]
fn a_secret_of_the_name_of_a_sealed_secret_is_refused() {
    let empty = "\n\n{apiVersion: v1, kind: Secret, metadata: {name: db}}";
    let mut objects = plain("a.yaml", empty);
    objects.push(sealed("b.yaml", "team", "db"));
    let error = refused(&sync(), objects);
    assert_eq!(error.reason(), "DuplicateObject");
    let message = error.to_string();
    assert!(message.starts_with("a.yaml:3: Secret team/db ") && message.contains("b.yaml:1"), "{message}");

    let error = check(&sync(), plain("a.yaml", empty), vec![held("team", "db")])
        .err()
        .expect("also when it cannot be unsealed");
    assert!(error.to_string().contains("held.yaml:1"), "{error}");

    let mut objects = plain("a.yaml", empty);
    objects.push(sealed("b.yaml", "shop", "db"));
    assert!(check(&sync(), objects, Vec::new()).is_ok());
}

#[test]
fn names_that_are_no_part_of_a_url_are_refused() {
    let manifest = |name: &str, namespace: Option<&str>| Manifest {
        id: ObjectId {
            group: String::new(),
            kind: "ConfigMap".into(),
            namespace: namespace.map(str::to_owned),
            name: name.into(),
        },
        version: "v1".into(),
        origin: Location { file: "a.yaml".into(), line: 4 },
        body: serde_json::Map::new(),
    };
    for bad in ["..", ".", "a/b", "a%2fb", ""] {
        for manifest in [manifest(bad, None), manifest("fine", Some(bad))] {
            let error = refused(&sync(), vec![Object::Plain(manifest)]);
            assert_eq!(error.reason(), "InvalidManifest", "{bad}");
            assert!(error.to_string().starts_with(&format!("a.yaml:4: '{bad}'")), "{error}");
        }
    }
    for good in ["system:controller:a", "a.b-c", "..."] {
        let object = Object::Plain(manifest(good, Some("ns")));
        assert!(check(&sync(), vec![object], Vec::new()).is_ok(), "{good}");
    }
}

#[test]
fn what_uses_a_secret_that_is_held_keeps_its_last_version() {
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
    let opened = check(&sync(), plain("a.yaml", yaml), vec![held("team", "db")]).unwrap();
    let (applied, waiting) = outcome(&opened);
    assert_eq!(
        waiting,
        [
            "Deployment team/by-env",
            "Deployment team/by-env-from",
            "Deployment team/by-volume",
            "Ingress team/by-tls",
            "ServiceAccount team/by-pull",
        ]
    );
    assert_eq!(applied, ["Deployment other", "ConfigMap db", "Service db"]);
    let because = &opened.held[1].because;
    assert!(because.contains("Secret 'db'"), "{because}");
    assert_eq!(opened.held[1].origin.to_string(), "a.yaml:2");
}

#[test]
fn a_secret_is_missed_in_its_own_namespace_only() {
    let deployment = |name: &str, namespace: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{template: {{spec: {{containers: [{{name: c, envFrom: [{{secretRef: {{name: db}}}}]}}]}}}}}}}}"
        )
    };
    let both = format!("{}\n---\n{}", deployment("a", "shop"), deployment("b", "team"));
    let opened = check(&sync(), plain("a.yaml", &both), vec![held("shop", "db")]).unwrap();
    let expected = (vec!["Deployment team/b".to_owned()], vec!["Deployment shop/a".to_owned()]);
    assert_eq!(outcome(&opened), expected);

    let opened = check(&sync_into("shop"), plain("a.yaml", &both), vec![held("shop", "db")]).unwrap();
    assert_eq!(outcome(&opened).0, Vec::<String>::new(), "the target namespace counts");
}
