//! `gitseal validate` offline: every check finds its problem at the right line, and a good file has no problems.

use sealing::{PrivateKey, Scope};
use serde_json::Value;

use crate::workplace::{Workplace, key};
use crate::{stderr, stdout};

fn sealed(value: &str) -> String {
    sealing::seal(key().public_key(), Scope::Strict.binding("shop", "db", "password"), value.as_bytes()).unwrap()
}

/// A SealedSecret `shop/db` with these lines of metadata and spec.
fn object(metadata: &str, spec: &str) -> String {
    format!("apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata:\n  name: db\n{metadata}spec:\n{spec}")
}

fn good() -> String {
    object("  namespace: shop\n", &format!("  encryptedData:\n    a: {}\n", sealed("x")))
}

/// Every problem, in the form `CHECK SEVERITY FILE:LINE`.
fn problems(here: &Workplace, arguments: &[&str]) -> Vec<String> {
    let output = here.run(&[&["validate", "-o", "json"], arguments].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    let problems = report["problems"].as_array().unwrap();
    let errors = problems.iter().filter(|problem| problem["severity"] == "error").count();
    assert_eq!(report["errors"], errors);
    assert_eq!(report["warnings"], problems.len() - errors);
    assert_eq!(output.status.code(), Some(i32::from(errors > 0)));
    assert!(!output.stdout.windows(7).any(|text| text == b"hunter2"), "a value is shown");
    let text = |problem: &Value, field: &str| problem[field].as_str().unwrap().to_owned();
    problems
        .iter()
        .map(|problem| {
            let place = format!("{}:{}", text(problem, "file"), problem["line"]);
            format!("{} {} {place}", text(problem, "check"), text(problem, "severity"))
        })
        .collect()
}

#[test]
fn a_good_folder_has_no_problems() {
    let here = Workplace::new();
    here.write("apps/a.yaml", &good());
    here.write("apps/b.json", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}"#);
    here.write("apps/values.yaml", "replicas: {{ .Values.replicas }}\n");
    here.write(
        "apps/sops.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: 'ENC[x]', b: ''}\nsops: {mac: x}\n",
    );
    here.write("apps/empty.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: Opaque\n");
    let all = object(
        "  namespace: shop\n  annotations: {sealedsecrets.bitnami.com/namespace-wide: 'true'}\n",
        &format!(
            "  encryptedData: {{tls.crt: {0}, tls.key: {0}}}\n  template:\n    type: kubernetes.io/tls\n    immutable: true\n    data: {{more: text}}\n    metadata: {{name: db, namespace: shop, labels: {{a: b}}, annotations: {{sealedsecrets.bitnami.com/namespace-wide: 'true'}}, finalizers: [a/b], creationTimestamp: null}}\n",
            sealed("x")
        ),
    );
    here.write("apps/full.yaml", &all.replace("name: db", "name: full"));
    let output = here.run(&["validate", "apps", "--cert", "cert.pem"]);
    assert_eq!(stdout(&output), "");
    assert_eq!(stderr(&output), "2 SealedSecrets in 6 files: 0 errors, 0 warnings\n");
}

#[test]
fn every_check_names_the_line() {
    let value = sealed("x");
    let data = format!("  encryptedData:\n    a: {value}\n");
    let namespace = "  namespace: shop\n";
    let cases: &[(&str, String)] = &[
        ("unreadable error a.yaml:2", "kind: SealedSecret\nmetadata: {{ x }}\n".into()),
        ("unreadable error a.yaml:4", "---\n# c\n---\nkind: Secret\nstringData: {a: hunter2}\n".into()),
        ("unsealed error a.yaml:2", "# c\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: hunter2}\n".into()),
        ("unsealed error a.yaml:4", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: ''}}\n".into()),
        ("unsealed error a.yaml:1", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: 'ENC[x]', b: hunter2}\nsops: {mac: x}\n".into()),
        ("unsealed error a.yaml:1", good().replace("metadata:\n", "metadata:\n  annotations: {kubectl.kubernetes.io/last-applied-configuration: '{\"stringData\": {\"a\": \"hunter2\"}}'}\n")),
        ("api-version error a.yaml:1", good().replace("v1alpha1", "v1")),
        ("api-version error a.yaml:1", good().replace("bitnami.com", "sealedsecrets.bitnami.com")),
        ("structure error a.yaml:1", "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: db, namespace: shop}\n".into()),
        ("structure error a.yaml:8", object(namespace, "  encryptedData:\n    a: 123\n")),
        ("structure error a.yaml:9", object(namespace, &format!("{data}  data: {value}\n"))),
        ("structure error a.yaml:10", object(namespace, &format!("{data}  template:\n    immutable: 'true'\n"))),
        ("structure error a.yaml:12", object(namespace, &format!("{data}  template:\n    metadata:\n      labels:\n        sealedsecrets.bitnami.com/sealed-secrets-key: active\n"))),
        ("unknown-field error a.yaml:9", object(namespace, &format!("{data}  encryptdData: {{}}\n"))),
        ("unknown-field error a.yaml:10", object(namespace, &format!("{data}  template:\n    stringData: {{}}\n"))),
        ("name error a.yaml:4", object(namespace, &data).replace("name: db", "name: X_x")),
        ("no-values warning a.yaml:6", object(namespace, "  template: {type: Opaque}\n")),
        ("scope error a.yaml:7", object(&format!("{namespace}  annotations:\n    sealedsecrets.bitnami.com/cluster-wide: 'True'\n"), &data)),
        ("scope error a.yaml:7", object(&format!("{namespace}  annotations:\n    sealedsecrets.bitnami.com/namespace-wide: true\n"), &data)),
        ("scope warning a.yaml:8", object(&format!("{namespace}  annotations:\n    sealedsecrets.bitnami.com/cluster-wide: 'true'\n    sealedsecrets.bitnami.com/namespace-wide: 'true'\n"), &data)),
        ("scope warning a.yaml:11", object(namespace, &format!("{data}  template:\n    metadata:\n      annotations: {{sealedsecrets.bitnami.com/cluster-wide: 'true'}}\n"))),
        ("namespace error a.yaml:3", object("", &data)),
        ("key error a.yaml:8", object(namespace, &data.replace("    a:", "    a/b:"))),
        ("value error a.yaml:8", object(namespace, "  encryptedData:\n    a: hunter2\n")),
        ("value error a.yaml:8", object(namespace, &format!("  encryptedData:\n    a: {}\n", &value[..200]))),
        ("value error a.yaml:8", object(namespace, "  encryptedData:\n    a: YWdlLWVuY3J5cHRpb24ub3JnL3YxCg==\n")),
        ("duplicate error a.yaml:11", format!("{}---\n# again\n{}", good(), good())),
        ("shadowed warning a.yaml:11", object(namespace, &format!("{data}  template:\n    data:\n      a: plain\n"))),
        ("type error a.yaml:10", object(namespace, &format!("{data}  template:\n    type: kubernetes.io/dockerconfigjson\n"))),
        ("type error a.yaml:10", object(namespace, &format!("{data}  template:\n    type: kubernetes.io/basic-auth\n"))),
        ("dropped warning a.yaml:11", object(namespace, &format!("{data}  template:\n    metadata:\n      ownerReferences: []\n"))),
        ("dropped warning a.yaml:12", object(namespace, &format!("{data}  template:\n    metadata:\n      name: db\n      namespace: other\n"))),
        (
            "template error a.yaml:12",
            object(
                namespace,
                &format!(
                    "{data}  template:\n    data:\n      good: '{{{{ .a | upper }}}}'\n      bad: '{{{{ .a | uper }}}}'\n"
                ),
            ),
        ),
        ("deprecated warning a.yaml:7", object(namespace, &format!("  data: {value}\n"))),
    ];
    let here = Workplace::new();
    for (expected, text) in cases {
        here.write("a.yaml", text);
        assert_eq!(problems(&here, &["a.yaml"]), [*expected], "{text}");
        // A bad file in a folder is found, too.
        here.write("apps/a.yaml", text);
        assert_eq!(problems(&here, &["apps"]), [expected.replace("a.yaml", "apps/a.yaml")], "{text}");
    }
}

#[test]
fn duplicates_are_found_across_files_and_namespaces_from_the_flag_count() {
    let here = Workplace::new();
    here.write("apps/a.yaml", &good());
    here.write("apps/b.yaml", &good().replace("  namespace: shop\n", ""));
    assert_eq!(problems(&here, &["apps"]), ["namespace error apps/b.yaml:3"]);
    assert_eq!(problems(&here, &["apps", "-n", "shop"]), ["duplicate error apps/b.yaml:1"]);
    assert_eq!(problems(&here, &["apps", "-n", "other"]), [""; 0]);
}

#[test]
fn a_certificate_says_which_size_and_expires() {
    let here = Workplace::new();
    let other = PrivateKey::generate(3072).unwrap();
    let value = sealing::seal(other.public_key(), Scope::Strict.binding("shop", "db", "password"), b"x").unwrap();
    here.write(
        "a.yaml",
        &object("  namespace: shop\n", &format!("  encryptedData:\n    a: {value}\n    b: {}\n", sealed("x"))),
    );
    assert_eq!(problems(&here, &["a.yaml", "--cert", "cert.pem"]), ["key-size warning a.yaml:8"]);
    here.write("old.pem", &crate::workplace::certificate(-48, 24));
    assert_eq!(
        problems(&here, &["a.yaml", "--cert", "old.pem"]),
        ["key-size warning a.yaml:8", "certificate error old.pem:1"]
    );
}

#[test]
fn people_see_one_line_per_problem() {
    let here = Workplace::new();
    here.write("a.yaml", &good().replace("    a: ", "    a: hunter2\n    b: "));
    let output = here.run(&["validate", "a.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.starts_with("a.yaml:8: error: SealedSecret shop/db: encryptedData.a: "), "{text}");
    assert!(text.ends_with(" (value)\n") && text.lines().count() == 1, "{text}");
    assert_eq!(stderr(&output), "1 SealedSecret in 1 file: 1 error, 0 warnings\n");
    let piped = here.pipe(&["validate", "-"], &good());
    assert_eq!((piped.status.code(), stdout(&piped).as_str()), (Some(0), ""));
}

#[test]
fn what_a_terminal_would_obey_is_not_printed() {
    let here = Workplace::new();
    here.write("a.yaml", &good().replace("    a: ", "    \"\\e]0;x\\a\": hunter2\n    b: "));
    let output = here.run(&["validate", "a.yaml"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.contains("encryptedData.\\u{1b}]0;x\\u{7}: ") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn what_cannot_be_checked_is_another_exit_code() {
    let here = Workplace::new();
    here.write("a.yaml", &good());
    for arguments in [
        &["missing"][..],
        &["a.yaml", "--cert", "missing.pem"],
        &["a.yaml", "--cluster", "--controller-url", "http://127.0.0.1:1"],
        &["a.yaml", "--cluster"],
        &[],
    ] {
        let output = here.run(&[&["validate"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
    }
}
