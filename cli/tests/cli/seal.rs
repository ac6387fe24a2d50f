//! `gitseal seal`: what it changes, what it does not change, and what it refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::workplace::{Workplace, certificate};
use crate::{stderr, stdout};

const SECRET: &str =
    "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\n  namespace: shop\nstringData:\n  password: hunter2\n";

const MIXED: &str = r#"# The shop.
---
apiVersion: v1   # the core group
kind: ConfigMap
metadata: {name:   oddly   , namespace: shop}
data: {mode: 0644}
---
# The database.
apiVersion: v1
kind: Secret
# About it.
metadata:   # meta
    # its name
    name: db
    namespace: shop  # where
    labels:
        app: db   # a label
    creationTimestamp: null
    annotations:
        kubectl.kubernetes.io/last-applied-configuration: |
            {"stringData":{"password":"hunter2"}}
        note: kept
# What kind.
type: Opaque
data:
    password: b2xkLWh1bnRlcjE=
    user: YWRtaW4=   # hunter3
stringData:
    # was: hunter4
    password: hunter2
# was: hunter5
    script: |
        # hunter6
        run hunter7
immutable: true
# The end.
...
{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}
"#;

fn assert_refused(output: &std::process::Output, message: &str) {
    assert_eq!(output.status.code(), Some(1), "{}", stdout(output));
    let stderr = stderr(output);
    assert!(stderr.starts_with("error: ") && stderr.contains(message), "{stderr}");
    assert!(stderr.contains("hint: "), "{stderr}");
    assert!(!stderr.contains("hunter"), "a value is shown: {stderr}");
}

#[test]
fn a_secret_among_others_is_sealed_in_place() {
    let here = Workplace::new();
    here.write("all.yaml", MIXED);
    fs::set_permissions(here.path("all.yaml"), fs::Permissions::from_mode(0o640)).unwrap();
    let output = here.seal(&["--in-place", "all.yaml"]);
    assert_eq!(stdout(&output), "");
    assert_eq!(
        stderr(&output),
        "all.yaml:9: sealed Secret shop/db (3 values, strict); comments above and among the values were left out\n"
    );
    let text = here.read("all.yaml");
    assert!(!text.contains("hunter"), "{text}");
    let (before, after) = (MIXED.find("# The database.").unwrap(), MIXED.find("# The end.").unwrap());
    assert!(text.starts_with(&MIXED[..before]), "{text}");
    assert!(text.ends_with(&MIXED[after..]), "{text}");
    for comment in [
        "# The database.\n",
        "# About it.\nmetadata:   # meta\n    # its name\n    name: db\n",
        "# where",
        "app: db   # a label",
        "# What kind.",
    ] {
        assert!(text.contains(comment), "{comment}: {text}");
    }
    for gone in ["creationTimestamp", "last-applied"] {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
    assert_eq!(fs::metadata(here.path("all.yaml")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(here.list(""), ["all.yaml", "cert.pem", "key.pem"], "nothing temporary is left");
    assert_eq!(
        here.unseal(&text),
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "db", "namespace": "shop", "labels": {"app": "db"}, "annotations": {"note": "kept"}},
            "type": "Opaque",
            "immutable": true,
            "data": {"password": "aHVudGVyMg==", "user": "YWRtaW4=", "script": "IyBodW50ZXI2CnJ1biBodW50ZXI3Cg=="},
        })
    );
}

#[test]
fn what_is_sealed_stays_as_it_is_and_needs_no_certificate() {
    let here = Workplace::new();
    here.write("apps/all.yaml", MIXED);
    stdout(&here.seal(&["apps"]));
    let sealed = here.read("apps/all.yaml");
    let modified = || fs::metadata(here.path("apps/all.yaml")).unwrap().modified().unwrap();
    let before = modified();
    let output = here.run(&["seal", "apps", "--cert", "missing.pem"]);
    assert_eq!(stdout(&output), "");
    assert_eq!(stderr(&output), "nothing to seal (1 SealedSecret found)\n");
    assert_eq!((here.read("apps/all.yaml"), modified()), (sealed, before));
}

#[test]
fn a_folder_is_sealed_as_its_ignore_files_say() {
    let here = Workplace::new();
    let template = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {{ .Release.Name }}\nstringData: {a: hunter2}\n";
    for (file, text) in [
        ("apps/db.yaml", SECRET),
        (
            "apps/deep/er/db.json",
            r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"j","namespace":"shop"},"data":{"a":"aHVudGVyMg=="}}"#,
        ),
        ("apps/raw/db.yaml", SECRET),
        ("apps/raw/.gitsealignore", "*.yaml\n"),
        ("apps/db.yaml.orig", SECRET),
        ("apps/module/.git/db.yaml", SECRET),
        ("apps/values.yaml", "replicas: 3\npassword: hunter2\n"),
        ("apps/notes.yml", "- hunter2: [\n"),
        ("apps/chart/templates/secret.yaml", template),
        ("other.yaml", SECRET),
    ] {
        here.write(file, text);
    }
    here.write(".gitsealignore", "apps/chart/\n");
    here.write(".git/HEAD", "");
    let output = here.seal(&["apps", "-o", "json"]);
    let summary: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let files: Vec<_> =
        summary["sealed"].as_array().unwrap().iter().map(|entry| entry["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["apps/db.yaml", "apps/deep/er/db.json"]);
    for file in ["apps/raw/db.yaml", "apps/db.yaml.orig", "apps/module/.git/db.yaml", "other.yaml"] {
        assert_eq!(here.read(file), SECRET, "{file}");
    }
    here.write(".gitsealignore", "");
    let bad = SECRET.replace("stringData", "data");
    here.write("apps/bad.yaml", &bad);
    here.write("apps/late.yaml", SECRET);
    let output = here.seal(&["apps"]);
    assert_eq!(output.status.code(), Some(1), "a template that makes a Secret is not passed over in silence");
    let shown = stderr(&output);
    assert!(shown.contains("see the 2 warnings above"), "{shown}");
    assert!(shown.contains("not sealed: apps/bad.yaml:7: Secret shop/db: data.password is not base64"), "{shown}");
    assert!(shown.contains("apps/late.yaml:1: sealed Secret shop/db"), "{shown}");
    assert_eq!(here.read("apps/bad.yaml"), bad);
    assert!(shown.contains("not sealed: apps/chart/templates/secret.yaml:4: "), "{shown}");
    assert!(!shown.contains("hunter"), "{shown}");
    assert_eq!(here.read("apps/chart/templates/secret.yaml"), template);
}

/// More files than `gitseal seal` has in memory at the same time. Some of them have mistakes.
#[test]
fn a_large_folder_is_sealed_and_told_in_the_order_of_its_files() {
    let here = Workplace::new();
    let bad: [(usize, &[u8], &str); 6] = [
        (3, b"kind: Secret\napiVersion: v1\nmetadata: {name: a, namespace: shop}\ndata: {a: hunter2}\n", "not base64"),
        (100, b"kind: Secret \xff", "not text in UTF-8"),
        (255, b"kind: Secret\napiVersion: v1\nmetadata: {name: a}\nsops: {}\ndata: {a: hunter2}\n", "SOPS did not"),
        (256, b"kind: Secret\nstringData: [hunter2\n", "not valid YAML"),
        (300, b"kind: Secret\napiVersion: v1\nmetadata: {name: a}\nstringData: {a: hunter2}\n", "has no namespace"),
        (499, b"kind: Secret\napiVersion: v1\nmetadata: {name: a, namespace: shop}\n", "no data"),
    ];
    let file = |number: usize| format!("apps/{number:03}.yaml");
    for number in 0..500 {
        here.write(&file(number), SECRET);
    }
    for (number, text, _) in bad {
        fs::write(here.path(&file(number)), text).unwrap();
    }
    let output = here.seal(&["apps", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let (out, shown) = (String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output));
    assert!(!shown.contains("hunter") && !out.contains("hunter"), "{shown}{out}");
    let good: Vec<_> = (0..500).filter(|number| bad.iter().all(|(bad, ..)| bad != number)).map(file).collect();
    let summary: Value = serde_json::from_str(&out).unwrap();
    let sealed = summary["sealed"].as_array().unwrap().iter().map(|entry| entry["file"].as_str().unwrap());
    assert_eq!(sealed.collect::<Vec<_>>(), good);
    let failed: Vec<_> = summary["failed"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let told: Vec<_> = shown.lines().filter_map(|line| line.strip_prefix("warning: not sealed: ")).collect();
    assert_eq!((failed.len(), &failed), (bad.len(), &told));
    for ((number, text, message), failure) in bad.iter().zip(failed) {
        assert!(failure.contains(&file(*number)) && failure.contains(message), "{number}: {failure}");
        assert_eq!(fs::read(here.path(&file(*number))).unwrap(), *text);
    }
    for name in &good {
        let text = here.read(name);
        assert!(text.contains("kind: SealedSecret") && !text.contains("hunter"), "{text}");
    }
    assert_eq!(here.list("apps").len(), 500, "nothing is left over");
}

#[test]
fn a_file_that_was_named_and_is_wrong_ends_it_before_those_after_it() {
    let here = Workplace::new();
    for wrong in
        ["kind: Secret\nstringData: [hunter2\n".to_owned(), SECRET.replace("hunter2", "123"), "a: hunter2\n".to_owned()]
    {
        for name in ["a.yaml", "b.yaml", "d.yaml"] {
            here.write(name, SECRET);
        }
        here.write("c.yaml", &wrong);
        assert_refused(&here.seal(&["-i", "a.yaml", "b.yaml", "c.yaml", "d.yaml"]), "c.yaml");
        for name in ["a.yaml", "b.yaml"] {
            assert!(here.read(name).contains("kind: SealedSecret"), "{name} comes before {wrong}");
        }
        assert_eq!((here.read("c.yaml"), here.read("d.yaml")), (wrong, SECRET.to_owned()));
    }
}

#[test]
fn what_is_sealed_before_a_certificate_is_missing_stays_sealed() {
    let here = Workplace::new();
    let rules = "rules:\n- {path: a.yaml, seal: {for: [one]}}\n- {path: b.yaml, seal: {for: [two]}}\n";
    here.write(".gitseal.yaml", &format!("clusters: {{one: {{cert: cert.pem}}, two: {{cert: none.pem}}}}\n{rules}"));
    here.write("a.yaml", SECRET);
    here.write("b.yaml", SECRET);
    let output = here.run(&["seal", "-i", "a.yaml", "b.yaml"]);
    assert!(!output.status.success() && stderr(&output).contains("none.pem"), "{}", stderr(&output));
    assert!(here.read("a.yaml").contains("kind: SealedSecret"));
    assert_eq!(here.read("b.yaml"), SECRET);
}

#[test]
fn standard_input_goes_to_standard_output_in_its_format() {
    let here = Workplace::new();
    let yaml = stdout(&here.pipe(&["seal", "--cert", "cert.pem"], SECRET));
    assert!(
        yaml.starts_with("apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata:\n  name: db\n"),
        "{yaml}"
    );
    let json = "{\n    \"apiVersion\": \"v1\",\n    \"kind\": \"Secret\",\n    \"metadata\": {\"name\": \"db\", \"namespace\": \"shop\"},\n    \"data\": {\"password\": \"aHVudGVyMg==\"}\n}\n";
    let sealed = stdout(&here.pipe(&["seal", "--cert", "cert.pem", "-"], json));
    assert!(sealed.starts_with("{\n    \"apiVersion\": \"bitnami.com/v1alpha1\",\n"), "{sealed}");
    for text in [&yaml, &sealed] {
        assert_eq!(here.unseal(text)["data"], json!({"password": "aHVudGVyMg=="}));
    }
    let converted = stdout(&here.pipe(&["seal", "--cert", "cert.pem", "-o", "json"], SECRET));
    let converted: Value = serde_json::from_str(&converted).unwrap();
    assert_eq!(converted["spec"]["template"]["metadata"], json!({"name": "db", "namespace": "shop"}));
}

#[test]
fn several_files_become_one_text_or_one_list() {
    let here = Workplace::new();
    here.write("a.yaml", SECRET.trim_end());
    here.write("b.yaml", &SECRET.replace("name: db", "name: web"));
    stdout(&here.seal(&["a.yaml", "b.yaml", "-w", "all.yaml"]));
    let names = |unsealed: &Value| {
        let items = unsealed["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["metadata"]["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&here.unseal(&here.read("all.yaml"))), ["db", "web"]);
    assert_eq!((here.read("a.yaml").as_str(), here.list("").len()), (SECRET.trim_end(), 5));
    let list: Value = serde_json::from_str(&stdout(&here.seal(&["a.yaml", "b.yaml", "-o", "json"]))).unwrap();
    assert_eq!((list["kind"].as_str(), names(&list).len()), (Some("List"), 2));
}

#[test]
fn a_list_keeps_its_other_items() {
    let here = Workplace::new();
    let list = "# all\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: a, namespace: shop}, stringData: {k: hunter2}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {k: '012'}}\n";
    let sealed = stdout(&here.pipe(&["seal", "--cert", "cert.pem"], list));
    assert!(sealed.starts_with("# all\napiVersion: v1\nkind: List\n") && !sealed.contains("hunter2"), "{sealed}");
    let sealed: Value =
        serde_json::from_str(&stdout(&here.pipe(&["seal", "--cert", "cert.pem", "-o", "json"], list))).unwrap();
    assert_eq!(sealed["items"][0]["kind"], "SealedSecret");
    assert_eq!(sealed["items"][1]["data"], json!({"k": "012"}));
}

#[test]
fn line_ends_and_what_is_encrypted_already_are_kept() {
    let here = Workplace::new();
    let sops = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: 'ENC[x]'}\nsops: {version: 3.9.0}\n";
    let text = format!("{sops}---\n{SECRET}").replace('\n', "\r\n");
    here.write("a.yaml", &text);
    let output = here.seal(&["-i", "a.yaml"]);
    assert!(stderr(&output).contains("Secret s is encrypted with SOPS and was left alone"), "{}", stderr(&output));
    let sealed = here.read("a.yaml");
    assert!(sealed.starts_with(&sops.replace('\n', "\r\n")), "{sealed}");
    assert!(
        sealed.contains("kind: SealedSecret\r\n") && !sealed.replace("\r\n", "").contains(['\r', '\n']),
        "{sealed:?}"
    );
}

#[test]
fn what_sops_encrypted_in_part_is_no_encrypted_secret() {
    let here = Workplace::new();
    let partly = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: 'ENC[x]', b: hunter2}\nsops: {version: 3.9.0}\n";
    here.write("apps/partly.yaml", partly);
    here.write("apps/good.yaml", SECRET);
    for arguments in [["-i", "apps/partly.yaml"], ["-i", "apps"]] {
        let output = here.run(&[&["seal", "--cert", "cert.pem"], &arguments[..]].concat());
        assert_eq!(output.status.code(), Some(1));
        let told = stderr(&output);
        assert!(told.contains("apps/partly.yaml:1: Secret s: SOPS did not encrypt stringData.b"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
        assert_eq!(here.read("apps/partly.yaml"), partly);
    }
    assert!(here.read("apps/good.yaml").contains("kind: SealedSecret"), "the other file is sealed");
}

#[test]
fn a_link_stays_a_link() {
    let here = Workplace::new();
    here.write("real/db.yaml", SECRET);
    std::os::unix::fs::symlink("real/db.yaml", here.path("link.yaml")).unwrap();
    stdout(&here.seal(&["-i", "link.yaml"]));
    assert!(fs::symlink_metadata(here.path("link.yaml")).unwrap().is_symlink());
    assert!(here.read("real/db.yaml").contains("kind: SealedSecret"));
}

#[test]
fn scopes_come_from_the_flag_or_the_annotations() {
    let here = Workplace::new();
    let annotated = |scope: &str| {
        SECRET.replace(
            "  namespace",
            &format!("  annotations: {{sealedsecrets.bitnami.com/{scope}: \"true\"}}\n  namespace"),
        )
    };
    let scope_of = |text: &str, flags: &[&str]| {
        let output = here.pipe(&[&["seal", "--cert", "cert.pem", "-o", "json"], flags].concat(), text);
        let sealed: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(here.unseal(&sealed.to_string())["data"], json!({"password": "aHVudGVyMg=="}));
        let annotations = &sealed["metadata"]["annotations"];
        assert_eq!(annotations, &sealed["spec"]["template"]["metadata"]["annotations"]);
        annotations.clone()
    };
    assert_eq!(scope_of(SECRET, &[]), Value::Null);
    let cluster_wide = json!({"sealedsecrets.bitnami.com/cluster-wide": "true"});
    let namespace_wide = json!({"sealedsecrets.bitnami.com/namespace-wide": "true"});
    assert_eq!(scope_of(&annotated("cluster-wide"), &[]), cluster_wide);
    assert_eq!(scope_of(SECRET, &["--scope", "namespace-wide"]), namespace_wide);
    assert_eq!(scope_of(&annotated("cluster-wide"), &["--scope", "namespace-wide"]), namespace_wide);
    assert_eq!(scope_of(&annotated("cluster-wide"), &["--scope", "strict"]), Value::Null);
}

#[test]
fn the_namespace_must_be_known() {
    let here = Workplace::new();
    let nowhere = SECRET.replace("  namespace: shop\n", "");
    here.write("a.yaml", &nowhere);
    assert_refused(&here.seal(&["-i", "a.yaml"]), "a.yaml:1: Secret db: it has no namespace");
    assert_eq!(here.read("a.yaml"), nowhere);
    assert!(stdout(&here.seal(&["a.yaml", "-n", "shop"])).contains("  namespace: shop\n"));
    let cluster_wide = stdout(&here.seal(&["a.yaml", "--scope", "cluster-wide"]));
    assert!(!cluster_wide.contains("namespace:"), "{cluster_wide}");
    here.write("b.yaml", SECRET);
    assert_refused(
        &here.seal(&["b.yaml", "-n", "other"]),
        "b.yaml:1: Secret shop/db: its namespace is not that of --namespace",
    );
    here.write("kubeconfig", "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, namespace: team}}]\n");
    assert!(stdout(&here.seal(&["a.yaml", "--kubeconfig", "kubeconfig"])).contains("  namespace: team\n"));
}

#[test]
fn what_cannot_be_sealed_is_refused_and_left() {
    let here = Workplace::new();
    for (text, message) in [
        (SECRET.replace("stringData:\n  password: hunter2\n", ""), "Secret shop/db: it has no data"),
        (SECRET.replace("stringData", "data").replace("hunter2", "hunter!2"), "data.password is not base64"),
        (SECRET.replace("hunter2", "123"), "stringData.password is not a string"),
        (SECRET.replace("password:", "pass hunter word:"), "stringData has a key that a Secret cannot have"),
        (SECRET.replace("  name: db", "  labels: {a: 1}\n  name: db"), "metadata.labels.a is not a string"),
        (SECRET.replace("password", "a: x\n  a"), "a.yaml:8: duplicate key stringData.a"),
        (SECRET.replace("hunter2", "\"hunter2"), "not valid YAML"),
        ("a: hunter2\n".to_owned(), "a.yaml holds no Secret"),
        ("\n".to_owned(), "a.yaml is empty"),
        ("apiVersion: v1\nkind: [hunter2\n".to_owned(), "a.yaml:2: not valid YAML"),
        (
            format!("{SECRET}stringdata:\n  token: hunter3\n"),
            "a.yaml:8: Secret shop/db\n  because: stringdata is not a field of a Secret",
        ),
        (SECRET.replace("stringData", "Data"), "a.yaml:6: Secret shop/db\n  because: Data is not a field of a Secret"),
        (SECRET.replace("kind", "typ: Opaque\nkind"), "hint: type is probably meant"),
        (
            SECRET.replace("password:", "y:"),
            "a.yaml:7: Secret shop/db\n  because: stringData.y is a key that YAML does not read as text",
        ),
        (SECRET.replace("password:", "012:"), "stringData.012 is a key that YAML does not read as text"),
        (
            SECRET.replace("name: db", "name: X_x"),
            "a.yaml:4: Secret shop/X_x\n  because: \"X_x\" is not a name for a Secret",
        ),
    ] {
        here.write("a.yaml", &text);
        assert_refused(&here.seal(&["-i", "a.yaml"]), message);
        assert_eq!(here.read("a.yaml"), text);
    }
    here.write("a.yaml", &SECRET.replace("stringData:\n  password: hunter2\n", ""));
    let sealed = stdout(&here.seal(&["--allow-empty-data", "a.yaml"]));
    here.write("quoted.yaml", &SECRET.replace("password:", "\"y\":"));
    assert!(
        stdout(&here.seal(&["quoted.yaml"])).contains("\"y\": ")
            || stdout(&here.seal(&["quoted.yaml"])).contains("'y': ")
    );
    assert!(sealed.contains("encryptedData: {}"), "{sealed}");
}

#[test]
fn every_mistake_is_told_at_its_own_line() {
    let here = Workplace::new();
    let text = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\n  namespace: shop\n  labels:\n    a: 1\ndata:\n  b: hunter!2\nstringData:\n  c: 5\n  d: hunter3\n  e: yes\n";
    let list = "---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: web, namespace: shop}\n  stringData:\n    f: 6\n";
    here.write("a.yaml", &format!("{text}{list}"));
    let output = here.seal(&["-i", "a.yaml"]);
    assert_refused(&output, "5 mistakes keep this from being sealed");
    for told in [
        "a.yaml:7: Secret shop/db: metadata.labels.a is not a string",
        "a.yaml:9: Secret shop/db: data.b is not base64",
        "a.yaml:11: Secret shop/db: stringData.c is not a string",
        "a.yaml:13: Secret shop/db: stringData.e is not a string",
        "a.yaml:22: Secret shop/web: stringData.f is not a string",
    ] {
        assert!(stderr(&output).contains(told), "no {told:?} in: {}", stderr(&output));
    }
    assert_eq!(here.read("a.yaml"), format!("{text}{list}"));
}

#[test]
fn comments_above_the_values_are_left_out() {
    let here = Workplace::new();
    let head =
        "# Of the team.\napiVersion: v1\nkind: Secret\nmetadata:\n  # Its name.\n  name: db\n  namespace: shop\n";
    for above in
        ["# was: hunter3\n", "  # was: hunter3\n", "# was: hunter3\n\n", "type: Opaque\n# was: hunter3\n  # hunter4\n"]
    {
        here.write("a.yaml", &format!("{head}{above}stringData:\n  password: hunter2\n"));
        let sealed = stdout(&here.seal(&["a.yaml"]));
        assert!(!sealed.contains("hunter"), "{above:?}: {sealed}");
        assert!(sealed.contains("# Of the team.\n") && sealed.contains("# Its name.\n"), "{sealed}");
    }
    here.write("a.yaml", "---\n# was: hunter3\nstringData:\n  password: hunter2\n# Below.\nkind: Secret\napiVersion: v1\nmetadata:\n  name: db\n  namespace: shop\n");
    let sealed = stdout(&here.seal(&["a.yaml"]));
    assert!(!sealed.contains("hunter") && sealed.contains("# Below.\n"), "{sealed}");
}

#[test]
fn an_expired_certificate_is_refused() {
    let here = Workplace::new();
    here.write("cert.pem", &certificate(-48, 24));
    here.write("a.yaml", SECRET);
    assert_refused(&here.seal(&["-i", "a.yaml"]), "the sealing certificate expired at ");
    assert_eq!(here.read("a.yaml"), SECRET);
}

#[test]
fn values_come_from_files_and_standard_input_but_not_from_arguments() {
    let here = Workplace::new();
    fs::write(here.path("tls.key"), b"\0\xff\n").unwrap();
    let new = ["seal", "--cert", "cert.pem", "--name", "web", "-n", "shop", "--type", "example.com/x"];
    let with = |flags: &[&str]| here.pipe(&[&new[..], flags].concat(), "hunter2\n");
    let sealed =
        stdout(&with(&["--from-literal", "password", "--from-file", "tls.key", "--from-file", "other=tls.key"]));
    let unsealed = here.unseal(&sealed);
    assert_eq!(unsealed["data"], json!({"password": "aHVudGVyMg==", "tls.key": "AP8K", "other": "AP8K"}));
    assert_eq!((&unsealed["type"], &unsealed["metadata"]["name"]), (&json!("example.com/x"), &json!("web")));
    let exact = here.unseal(&stdout(&with(&["--from-file", "password=-"])));
    assert_eq!(exact["data"], json!({"password": "aHVudGVyMgo="}));
    assert_refused(&with(&["--from-literal", "password=hunter2"]), "--from-literal takes a key only");
    assert_refused(&with(&["--from-literal", "a", "--from-literal", "b"]), "standard input can give only one value");
    assert!(stderr(&with(&["--from-file", "missing"])).starts_with("error: cannot read missing\n"));
    assert_refused(&with(&[]), "Secret shop/web: it has no data");
    assert_refused(&with(&["--from-literal", "a", "x.yaml"]), "cannot be combined");
}

#[test]
fn the_project_file_names_the_certificate_and_scope() {
    let here = Workplace::new();
    here.write(
        ".gitseal.yaml",
        "clusters:\n  production: {cert: cert.pem}\n  staging: {cert: staging.pem}\nrules:\n- path: production/**\n  seal: {for: [production], scope: namespace-wide}\n- path: staging/**\n  seal: {for: [staging]}\n",
    );
    here.write("production/db.yaml", SECRET);
    here.write("staging/db.yaml", SECRET);
    let output = crate::gitseal_in(&here.path("production"), &["seal", "-i", "db.yaml"]);
    assert_eq!(stderr(&output), "db.yaml:1: sealed Secret shop/db (1 value, namespace-wide)\n");
    assert_eq!(here.unseal(&here.read("production/db.yaml"))["data"], json!({"password": "aHVudGVyMg=="}));
    let output = here.run(&["seal", "-i", "staging/db.yaml"]);
    assert!(stderr(&output).contains("staging.pem"), "{}", stderr(&output));
    here.write(".gitseal.yaml", "cluster: {}\n");
    assert_refused(&here.run(&["seal", "-i", "staging/db.yaml"]), ".gitseal.yaml is not valid");
    assert_eq!(here.read("staging/db.yaml"), SECRET);
}

#[test]
fn a_certificate_of_one_cluster_is_not_taken_for_another_that_names_a_fingerprint() {
    let here = Workplace::new();
    let own = sealing::Certificate::from_pem(here.read("cert.pem").as_bytes()).unwrap().fingerprint();
    let project = |a: &str, b: &str| {
        let clusters = format!("clusters:\n  a: {{cert: cert.pem{a}}}\n  b: {{cert: cert.pem{b}}}\n");
        here.write(".gitseal.yaml", &format!("{clusters}rules:\n- {}\n- {}\n", rule("a"), rule("b")));
    };
    let (right, wrong) = (format!(", fingerprint: '{own}'"), format!(", fingerprint: '{}'", "0".repeat(64)));
    for (a, b) in [("", wrong.as_str()), (&right, &wrong)] {
        here.write("a/db.yaml", SECRET);
        here.write("b/db.yaml", SECRET);
        project(a, b);
        assert_refused(&here.run(&["seal", "a", "b"]), "is not the expected certificate");
        assert_eq!(here.read("b/db.yaml"), SECRET);
    }
    project(&right, "");
    stdout(&here.run(&["seal", "a", "b"]));
    assert_eq!(here.unseal(&here.read("b/db.yaml"))["data"], json!({"password": "aHVudGVyMg=="}));
    project(&right, ", fingerprint: 12");
    let output = here.run(&["seal", "a", "b"]);
    assert_refused(&output, ".gitseal.yaml is not valid");
    assert!(stderr(&output).contains("a fingerprint is `sha256:` and 64 hexadecimal digits"), "{}", stderr(&output));
}

/// A rule for `.gitseal.yaml`: files in the folder are sealed for the cluster with the same name.
fn rule(name: &str) -> String {
    format!("{{path: {name}/**, seal: {{for: [{name}]}}}}")
}

#[test]
fn a_file_that_holds_other_values_is_not_replaced_by_accident() {
    let here = Workplace::new();
    here.write("db.yaml", SECRET);
    stdout(&here.seal(&["db.yaml", "-w", "sealed.yaml"]));
    let first = here.read("sealed.yaml");
    // Sealing the same values again, or more values, loses nothing.
    stdout(&here.seal(&["db.yaml", "-w", "sealed.yaml"]));
    assert_ne!(here.read("sealed.yaml"), first);
    here.write("more.yaml", &SECRET.replace("  password", "  user: admin\n  password"));
    stdout(&here.seal(&["more.yaml", "-w", "sealed.yaml"]));
    let both = here.read("sealed.yaml");
    assert_refused(
        &here.seal(&["db.yaml", "-w", "sealed.yaml"]),
        "sealed.yaml holds spec.encryptedData.user of SealedSecret.bitnami.com shop/db",
    );
    here.write("value", "hunter2");
    let new = ["--name", "web", "-n", "shop", "--from-file", "token=value", "-w", "sealed.yaml"];
    assert_refused(&here.seal(&new), "which would be lost");
    assert_eq!(here.read("sealed.yaml"), both);
    let said = stderr(&here.seal(&new));
    assert!(said.contains("add --force"), "{said}");
    stdout(&here.seal(&[&new[..], &["--force"]].concat()));
    assert!(here.read("sealed.yaml").contains("name: web"));
    // A plaintext Secret is replaced by its SealedSecret. Another object in the file is kept.
    stdout(&here.seal(&["db.yaml", "-w", "db.yaml"]));
    here.write("mixed.yaml", MIXED);
    here.write("db.yaml", SECRET);
    assert_refused(&here.seal(&["db.yaml", "-w", "mixed.yaml"]), "which would be lost");
}

#[test]
fn a_file_is_not_replaced_either_where_its_values_are_elsewhere_or_cannot_be_read() {
    let here = Workplace::new();
    here.write("db.yaml", SECRET);
    let head = "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: db, namespace: shop}\nspec:\n";
    let sealed = |rest: &str| format!("{head}  encryptedData: {{password: Ag}}\n{rest}");
    let template = |field: &str| sealed(&format!("  template: {{{field}}}\n"));
    for (text, message) in [
        (sealed("  broken: [\n"), "target.yaml:"),
        ("{{- if .Values.db }}\nkind: SealedSecret\n{{ end }}\n".into(), "target.yaml:"),
        (format!("{head}  data: Ag\n"), "holds spec.data of SealedSecret"),
        (template("data: {url: 'postgres://{{ .password }}'}"), "holds spec.template.data.url of SealedSecret"),
        (template("metadata: {labels: {app: db}}"), "holds spec.template.metadata.labels.app of"),
        (template("immutable: true"), "holds spec.template.immutable of"),
        (SECRET.replace("  password", "  user: admin\n  password"), "target.yaml holds data.user of Secret shop/db"),
        (SECRET.replace("name: db", "name: web"), "target.yaml holds Secret shop/web, which would be lost"),
        ("notes".into(), "would be lost"),
    ] {
        here.write("target.yaml", &text);
        assert_refused(&here.seal(&["db.yaml", "-w", "target.yaml"]), message);
        assert_eq!(here.read("target.yaml"), text);
        stdout(&here.seal(&["db.yaml", "-w", "target.yaml", "--force"]));
    }
    // A file in which nothing would be lost is replaced: it is empty, has only comments, or has a SealedSecret with the
    // same keys. A document with a template in the same file is kept.
    for text in ["", "# to be sealed\n", &template("type: Opaque, metadata: {name: db, creationTimestamp: null}")] {
        here.write("target.yaml", text);
        stdout(&here.seal(&["db.yaml", "-w", "target.yaml"]));
    }
    here.write("mixed.yaml", &format!("{SECRET}---\n{{{{ template }}}}\n"));
    stdout(&here.seal(&["mixed.yaml", "-w", "mixed.yaml"]));
    assert!(here.read("mixed.yaml").ends_with("---\n{{ template }}\n"), "{}", here.read("mixed.yaml"));

    here.write("elsewhere.yaml", "");
    std::os::unix::fs::symlink(here.path("elsewhere.yaml"), here.path("link.yaml")).unwrap();
    assert_refused(&here.seal(&["db.yaml", "-w", "link.yaml"]), "link.yaml is a link to ");
    assert_eq!(here.read("elsewhere.yaml"), "");
    stdout(&here.seal(&["db.yaml", "-w", "link.yaml", "--force"]));
    assert!(here.path("link.yaml").is_symlink() && here.read("elsewhere.yaml").contains("kind: SealedSecret"));
}

#[test]
fn a_project_file_counts_in_its_own_repository_only() {
    let here = Workplace::new();
    here.write(".gitseal.yaml", "clusters: {above: {cert: nowhere.pem}}\n");
    here.write("clone/apps/db.yaml", SECRET);
    let seal = || crate::gitseal_in(&here.path("clone/apps"), &["seal", "db.yaml"]);
    // Outside of a repository, the folders above the working directory are searched, too, if they have the same owner
    // as the working directory.
    let said = stderr(&seal());
    assert!(said.contains("cannot read the certificate") && said.contains("nowhere.pem"), "{said}");
    std::fs::create_dir(here.path("clone/.git")).unwrap();
    let said = stderr(&seal());
    assert!(
        !said.contains("nowhere.pem") && said.contains("cannot fetch the certificate from the controller"),
        "{said}"
    );
    here.write("clone/.gitseal.yaml", "clusters: {own: {cert: ../cert.pem}}\n");
    stdout(&seal());
    // In a working tree of `git worktree` and in a submodule, `.git` is a file.
    std::fs::remove_file(here.path("clone/.gitseal.yaml")).unwrap();
    std::fs::remove_dir(here.path("clone/.git")).unwrap();
    here.write("clone/.git", "gitdir: elsewhere\n");
    assert!(!stderr(&seal()).contains("nowhere.pem"));
}

/// In a repository of somebody else, files with rules may be symbolic links.
#[test]
fn rules_are_read_from_no_link_and_not_without_end() {
    let here = Workplace::new();
    here.write("private", "token: hunter2\n");
    here.write("clone/.git", "gitdir: elsewhere\n");
    here.write("clone/apps/db.yaml", SECRET);
    let run = |command: &[&str]| crate::gitseal_in(&here.path("clone"), command);
    for (link, target) in [("apps/.gitsealignore", "/dev/zero"), (".gitseal.yaml", "../private")] {
        let link = here.path("clone").join(link);
        std::os::unix::fs::symlink(target, &link).unwrap();
        for command in [&["seal", "apps"][..], &["reseal", "apps"], &["validate", "apps"], &["diff", "apps"]] {
            let said = stderr(&run(command));
            assert!(!said.contains("hunter2"), "{command:?}: {said}");
            let reads_it = command[0] == "seal" || link.ends_with(".gitsealignore");
            assert!(said.contains("is a link or a folder") || !reads_it, "{command:?}: {said}");
        }
        fs::remove_file(link).unwrap();
    }
    here.write("clone/apps/.gitsealignore", &"#".repeat(300 << 10));
    assert_refused(&run(&["seal", "apps"]), "is larger than 262144 bytes");
    fs::remove_file(here.path("clone/apps/.gitsealignore")).unwrap();
    here.write("clone/.gitseal.yaml", "clusters: {own: {cert: /dev/zero}}\n");
    assert_refused(&run(&["seal", "apps"]), "/dev/zero holds no usable certificate");
    assert_eq!(here.read("clone/apps/db.yaml"), SECRET);
}
