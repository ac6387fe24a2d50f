use manifests::{Limits, parse};
use serde_json::json;

use super::*;
use crate::fixtures::sync;

fn sync_into(namespace: &str) -> Sync {
    sync(json!({"targetNamespace": namespace}))
}

fn manifests(file: &str, yaml: &str) -> Vec<Manifest> {
    parse(file, yaml.as_bytes(), &Limits::default()).unwrap()
}

fn sealed(file: &str, namespace: &str, name: &str) -> Manifest {
    let yaml = format!(
        "{{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{encryptedData: {{}}}}}}"
    );
    manifests(file, &yaml).remove(0)
}

fn refused(sync: &Sync, manifests: &[Manifest]) -> NotAllowed {
    guard(sync, manifests).expect_err("it is refused")
}

#[test]
fn a_plaintext_secret_is_refused_by_place_and_never_by_value() {
    let forms = [("data", "aHVudGVyMg=="), ("stringData", "hunter2")];
    for (field, value) in forms {
        let yaml = format!(
            "# a comment\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: fine\n---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: db\n  namespace: shop\n{field}:\n  password: {value}\n"
        );
        let error = refused(&sync(json!({})), &manifests("apps/db.yaml", &yaml));
        let message = error.to_string();
        assert!(message.starts_with("apps/db.yaml:7: Secret shop/db "), "{message}");
        assert!(message.contains("gitseal seal -i apps/db.yaml"), "{message}");
        assert!(!message.contains(value) && !format!("{error:?}").contains(value));
        assert_eq!((error.reason(), error.is_terminal()), ("PlaintextSecret", true));
    }
}

#[test]
fn a_plaintext_secret_of_a_chart_is_not_to_be_sealed_in_the_template() {
    let yaml = "{apiVersion: v1, kind: Secret, metadata: {name: db}, stringData: {password: hunter2}}";
    let error = refused(&sync(json!({"helm": {}})), &manifests("charts/shop/templates/db.yaml", yaml));
    let message = error.to_string();
    assert!(message.starts_with("charts/shop/templates/db.yaml:1: Secret db "), "{message}");
    assert!(message.contains("spec.helm.valuesFrom") && !message.contains("seal -i"), "{message}");
    assert!(!message.contains("hunter2"));
    assert_eq!(error.reason(), "PlaintextSecret");
}

#[test]
fn values_that_are_no_mapping_are_refused_too() {
    let error = refused(
        &sync(json!({})),
        &manifests("a.yaml", "{apiVersion: v1, kind: Secret, metadata: {name: db}, stringData: hunter2}"),
    );
    assert_eq!(error.reason(), "PlaintextSecret");
    assert!(!error.to_string().contains("hunter2"));
}

#[test]
fn a_secret_in_a_list_is_a_secret() {
    let yaml = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: db}\n  data: {a: Yg==}\n";
    let message = refused(&sync(json!({})), &manifests("list.yaml", yaml)).to_string();
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
    assert!(guard(&sync(json!({})), &manifests("a.yaml", yaml)).is_ok());
}

#[test]
fn one_object_in_two_files_is_refused_with_both_places() {
    let mut objects =
        manifests("a.yaml", "\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}}");
    objects.extend(manifests(
        "b.yaml",
        "{apiVersion: apps/v1beta1, kind: Deployment, metadata: {name: web, namespace: shop}}",
    ));
    let error = refused(&sync(json!({})), &objects);
    assert_eq!(error.reason(), "DuplicateObject");
    let message = error.to_string();
    assert!(message.starts_with("b.yaml:1: "), "{message}");
    assert!(message.contains(" a.yaml:2;"), "{message}");
}

#[test]
fn a_namespace_that_is_left_out_is_the_syncs_own() {
    let with_and_without = "
{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: team}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
";
    let objects = || manifests("a.yaml", with_and_without);
    assert_eq!(refused(&sync(json!({})), &objects()).reason(), "DuplicateObject");

    let elsewhere = "
{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
";
    let objects = || manifests("a.yaml", elsewhere);
    assert!(guard(&sync(json!({})), &objects()).is_ok());
    assert_eq!(
        refused(&sync_into("one"), &objects()).reason(),
        "DuplicateObject",
        "the target namespace makes them one"
    );
}

#[test]
fn a_secret_of_the_name_of_a_sealed_secret_is_refused() {
    let empty = "\n\n{apiVersion: v1, kind: Secret, metadata: {name: db}}";
    let mut objects = manifests("a.yaml", empty);
    objects.push(sealed("b.yaml", "team", "db"));
    let error = refused(&sync(json!({})), &objects);
    assert_eq!(error.reason(), "DuplicateObject");
    let message = error.to_string();
    assert!(message.starts_with("a.yaml:3: Secret team/db ") && message.contains("b.yaml:1"), "{message}");

    let mut objects = manifests("a.yaml", empty);
    objects.push(sealed("b.yaml", "shop", "db"));
    assert!(guard(&sync(json!({})), &objects).is_ok());
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
            let error = refused(&sync(json!({})), &[manifest]);
            assert_eq!(error.reason(), "InvalidManifest", "{bad}");
            assert!(error.to_string().starts_with(&format!("a.yaml:4: '{bad}'")), "{error}");
        }
    }
    for good in ["system:controller:a", "a.b-c", "..."] {
        assert!(guard(&sync(json!({})), &[manifest(good, Some("ns"))]).is_ok(), "{good}");
    }
}

#[test]
fn a_wave_is_an_integer_in_quotes() {
    let object = |value: &str| {
        let yaml = format!(
            "\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, annotations: {{gitseal.dev/wave: {value}}}}}"
        );
        manifests("apps/a.yaml", &yaml)
    };
    for value in ["'0'", "'-1000'", "'1000'", "'+5'", "null"] {
        assert!(guard(&sync(json!({})), &object(value)).is_ok(), "{value}");
    }
    for (value, shown) in [
        ("'1001'", "\"1001\""),
        ("'-1001'", "\"-1001\""),
        ("'99999999999'", "\"99999999999\""),
        ("first", "\"first\""),
        ("' 1'", "\" 1\""),
        ("'1.0'", "\"1.0\""),
        ("''", "\"\""),
        ("5", "5"),
        ("true", "true"),
    ] {
        let error = refused(&sync(json!({})), &object(value));
        assert_eq!((error.reason(), error.is_terminal()), ("InvalidWave", true));
        let message = error.to_string();
        let expected = format!("apps/a.yaml:2: ConfigMap a: gitseal.dev/wave is {shown}; it has to be an integer ");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn an_object_is_made_again_only_in_a_later_wave_of_the_other_sign() {
    let object = |wave: &str, again: &str| {
        let annotations = format!("gitseal.dev/wave: '{wave}', gitseal.dev/wave-again: {again}");
        let yaml = format!("\napiVersion: batch/v1\nkind: Job\nmetadata: {{name: a, annotations: {{{annotations}}}}}");
        manifests("apps/a.yaml", &yaml)
    };
    for (wave, again) in [("-1", "'1'"), ("-1000", "'1000'"), ("5", "null")] {
        assert!(guard(&sync(json!({})), &object(wave, again)).is_ok(), "{wave} {again}");
    }
    for (wave, again) in [("-5", "'-1'"), ("-5", "'0'"), ("-5", "'1001'"), ("-5", "5"), ("0", "'5'"), ("3", "'5'")] {
        let error = refused(&sync(json!({})), &object(wave, again));
        assert_eq!((error.reason(), error.is_terminal()), ("InvalidWave", true));
        let message = error.to_string();
        assert!(message.starts_with("apps/a.yaml:2: Job a: gitseal.dev/wave-again is "), "{message}");
    }
}

#[test]
fn waves_wait_only_for_health() {
    let object = |value: &str| {
        let yaml = format!(
            "\napiVersion: batch/v1\nkind: Job\nmetadata: {{name: a, annotations: {{gitseal.dev/wait: {value}}}}}"
        );
        manifests("apps/a.yaml", &yaml)
    };
    for value in ["healthy", "'healthy'", "null"] {
        assert!(guard(&sync(json!({})), &object(value)).is_ok(), "{value}");
    }
    for (value, shown) in [("ready", "\"ready\""), ("''", "\"\""), ("Healthy", "\"Healthy\""), ("true", "true")] {
        let error = refused(&sync(json!({})), &object(value));
        assert_eq!((error.reason(), error.is_terminal()), ("InvalidWave", true));
        let expected = format!("apps/a.yaml:2: Job a: gitseal.dev/wait is {shown}; its only value is healthy");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_copy_of_the_values_in_an_annotation_is_refused_by_name_and_never_by_value() {
    const KUBECTL: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let object = |kind: &str, annotations: serde_json::Value, template: serde_json::Value| {
        let group = if kind == "SealedSecret" { "bitnami.com/v1alpha1" } else { "v1" };
        json!({
            "apiVersion": group, "kind": kind, "metadata": {"name": "db", "annotations": annotations},
            "spec": {"encryptedData": {}, "template": {"metadata": {"annotations": template}}},
        })
        .to_string()
    };
    let copy = |copy: &str| json!({ KUBECTL: copy });
    let secret = r#"{"kind": "Secret", "stringData": {"password": "hunter2"}}"#;
    let unnamed = r#"{"data": {"password": "aHVudGVyMg=="}}"#;
    let sealed = r#"{"kind": "SealedSecret", "spec": {"encryptedData": {"password": "AgA="}}}"#;
    let cases = [
        (object("Secret", copy(secret), json!({})), true),
        (object("SealedSecret", json!({}), copy(secret)), true),
        (object("SealedSecret", copy(unnamed), json!({})), true),
        (object("SealedSecret", json!({}), copy("hunter2, cut off")), true),
        (object("SealedSecret", json!({}), json!({"kubecfg.ksonnet.io/last-applied-configuration": secret})), true),
        (object("SealedSecret", json!({}), copy(&format!("[{}]", "[0],".repeat(1 << 17)))), true),
        (object("SealedSecret", copy(r#"{"kind": "Secret", "metadata": {"deep": [[[0]]]}}"#), json!({})), false),
        (object("SealedSecret", copy(sealed), copy(r#"{"kind": "Secret", "data": {}}"#)), false),
        (object("SealedSecret", json!({"note": secret}), copy("")), false),
        (object("ConfigMap", copy(secret), json!({})), false),
    ];
    for (text, is_refused) in cases {
        let checked = guard(&sync(json!({})), &manifests("a.json", &text));
        match checked {
            Ok(()) => assert!(!is_refused, "{text}"),
            Err(error) => {
                assert!(is_refused && error.reason() == "PlaintextSecret", "{text}: {error}");
                let message = error.to_string();
                assert!(message.contains("last-applied-configuration has the values"), "{message}");
                assert!(!message.contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{message}");
            }
        }
    }
}

#[test]
fn all_that_is_refused_is_named_at_once() {
    let secret = |number: usize| {
        format!("{{apiVersion: v1, kind: Secret, metadata: {{name: s{number:02}}}, data: {{a: Yg==}}}}")
    };
    let mut objects: Vec<_> =
        (0..25).flat_map(|number| manifests(&format!("{number:02}.yaml"), &secret(number))).collect();
    let error = refused(&sync(json!({})), &objects);
    let message = error.to_string();
    assert_eq!(message.matches("is a plaintext Secret in Git").count(), 20, "{message}");
    assert!(message.contains("; 19.yaml:1: Secret s19 ") && message.ends_with("; and 5 more"), "{message}");
    assert!(error.are_plaintext_secrets());
    // There is a mistake of another kind, too, although the message does not name it.
    let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}";
    objects.extend(["y.yaml", "z.yaml"].iter().flat_map(|file| manifests(file, map)));
    let error = refused(&sync(json!({})), &objects);
    assert!(!error.are_plaintext_secrets() && error.to_string().ends_with("; and 6 more"), "{error}");

    // Mistakes of all kinds are listed in the order of their files. The reason is that of the first mistake.
    let wave = "{apiVersion: v1, kind: ConfigMap, metadata: {name: b, annotations: {gitseal.dev/wave: early}}}";
    let files = [("a.yaml", map), ("b.yaml", wave), ("c.yaml", map), ("d.yaml", &secret(1)), ("e.yaml", map)];
    let objects: Vec<_> = files.iter().flat_map(|(file, text)| manifests(file, text)).collect();
    let error = refused(&sync(json!({})), &objects);
    let message = error.to_string();
    let places: Vec<_> =
        ["b.yaml:1: ", "c.yaml:1: ", "d.yaml:1: ", "e.yaml:1: "].iter().map(|place| message.find(place)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{message}");
    assert_eq!(error.reason(), "InvalidWave");
}
