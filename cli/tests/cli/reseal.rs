//! `gitseal reseal` offline: checks which values change, and that nothing else does.

use std::sync::OnceLock;

use sealing::{Binding, PrivateKey, Scope};
use serde_json::{Value, json};

use crate::workplace::{Workplace, key};
use crate::{stderr, stdout};

/// The older key. [`key`] is the newest.
fn old_key() -> &'static PrivateKey {
    static KEY: OnceLock<PrivateKey> = OnceLock::new();
    KEY.get_or_init(|| PrivateKey::generate(2048).unwrap())
}

fn workplace() -> Workplace {
    let here = Workplace::new();
    here.write("old.pem", &old_key().to_pem().unwrap());
    here
}

/// The binding of values of the SealedSecret `shop/db`.
const DB: Binding<'static> = Scope::Strict.binding("shop", "db", "any");

fn seal(key: &PrivateKey, binding: Binding<'_>, value: &str) -> String {
    sealing::seal(key.public_key(), binding, value.as_bytes()).unwrap()
}

const OFFLINE: [&str; 6] = ["--cert", "cert.pem", "--private-key", "old.pem", "--private-key", "key.pem"];

fn reseal(here: &Workplace, arguments: &[&str]) -> std::process::Output {
    here.run(&[&["reseal"], arguments, &OFFLINE].concat())
}

/// Unseals a resealed value with only the newest key.
fn unsealed(binding: Binding<'_>, value: &str) -> String {
    String::from_utf8(sealing::unseal([key()], binding, value).unwrap().expose().to_vec()).unwrap()
}

/// `spec` of every SealedSecret of a file, in order.
fn values_of(text: &str) -> Vec<Value> {
    use manifests::{Content, Limits, parse_document, split};
    let documents = split(text).filter_map(|document| parse_document("file", &document, &Limits::default()).ok());
    let manifests = documents.flat_map(|content| match content {
        Content::Nothing => Vec::new(),
        Content::Object(manifest) => vec![*manifest],
        Content::List(items) => items,
    });
    let sealed = manifests.filter(|manifest| manifest.id.kind == "SealedSecret");
    sealed.map(|manifest| manifest.body["spec"].clone()).collect()
}

/// A sealed text, wrapped to this width and indented.
fn wrapped(value: &str, width: usize, indent: &str) -> String {
    let mut text = String::new();
    for line in value.as_bytes().chunks(width) {
        text += &format!("{indent}{}\n", str::from_utf8(line).unwrap());
    }
    text
}

#[test]
fn only_the_values_change_whatever_the_file_looks_like() {
    // `OLD…` and `NEW…` stand for values that are sealed with the old and the newest key. The text around them must not
    // change.
    let shapes: &[&str] = &[
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: db, namespace: shop}\nspec:\n  encryptedData:\n    a: OLD1\n    b: NEW1\n",
        "# top\n---\n# about\nkind: SealedSecret   # kind first\napiVersion: bitnami.com/v1alpha1\nspec:\n    template:\n        type: Opaque\n    encryptedData:   # values\n        # a comment between\n        a:   'OLD1'   # behind\n        \"b\": \"OLD2\"\n        c: NEW1 # new\nmetadata:\n    namespace: shop\n    name: db\n# end\n...\n",
        "a: 1\nb:    [x,   y]\n---\napiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: db, namespace: shop}\nspec: {encryptedData: {a: OLD1, 'b': 'NEW1', \"c\": \"OLD2\"}, template: {data: {x: Ag}}}\n---\n{{ not yaml\n",
        "{\n\t\"kind\": \"SealedSecret\",\n\t\"apiVersion\": \"bitnami.com/v1alpha1\",\n\t\"metadata\": {\"name\":\"db\",   \"namespace\":\"shop\"},\n\t\"spec\": {\"encryptedData\": {\n\t\t\"a\":\"OLD1\",\n\t\t\"b\": \"NEW1\"}}\n}\n\n",
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: Ag}}\n# second\n- apiVersion: bitnami.com/v1alpha1\n  kind: SealedSecret\n  metadata:\n    name: db\n    namespace: shop\n  spec:\n    encryptedData:\n      a: OLD1\n      b: OLD2\n- apiVersion: bitnami.com/v1alpha1\n  kind: SealedSecret\n  metadata: {name: db, namespace: shop, labels: {b: c}}\n  spec: {encryptedData: {a: NEW1}}\n",
        "apiVersion: bitnami.com/v1alpha1\r\nkind: SealedSecret\r\nmetadata:\r\n  name: db\r\n  namespace: shop\r\nspec:\r\n  encryptedData:\r\n    a: OLD1\r\n    # é\r\n    b: \"NEW1\"\r\n    c: OLD2",
        "\u{feff}apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: db, namespace: shop}\nspec:\n  encryptedData:\n    ? a\n    : OLD1\n    ü: !!str OLD2\n    b: &anchor OLD3\n\n\n",
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: db, namespace: shop}\nspec:\n  encryptedData:\n    a: |-   # a block\n      OLD1\n    b: >\n        OLD2\n\n    c: |2\n      OLD3\n    # behind\n    d: |+\n      NEW1\n\n  template:\n    metadata: {name: db}\n",
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: db, namespace: shop}\nspec:\n  encryptedData: {}\n  data: OLD1\n",
    ];
    let here = workplace();
    for (index, shape) in shapes.iter().enumerate() {
        let mut before = (*shape).to_owned();
        let mut stays = Vec::new();
        for number in 1..=3 {
            before = before.replace(&format!("OLD{number}"), &seal(old_key(), DB, &format!("plain{number}")));
            let new = seal(key(), DB, &format!("new{number}"));
            if before.contains(&format!("NEW{number}")) {
                stays.push(new.clone());
            }
            before = before.replace(&format!("NEW{number}"), &new);
        }
        let name = format!("{index}/a.yaml");
        here.write(&name, &before);
        stdout(&reseal(&here, &[&index.to_string()]));
        let after = here.read(&name);
        let mut masked = after.clone();
        let mut count = 0;
        for spec in values_of(&after) {
            let values = spec["encryptedData"].as_object().unwrap().values().chain(spec.get("data"));
            for value in
                values.map(|value| value.as_str().unwrap().trim()).filter(|value| !stays.contains(&(*value).to_owned()))
            {
                let plain = unsealed(DB, value);
                let number = plain.strip_prefix("plain").unwrap();
                masked = masked.replace(value, &format!("OLD{number}"));
                count += 1;
            }
        }
        for (number, value) in stays.iter().enumerate() {
            assert!(masked.contains(value), "{index}: a value that was new changed");
            masked = masked.replace(value, &format!("NEW{}", number + 1));
        }
        assert_eq!(masked, *shape, "{index}");
        assert_eq!(count, shape.matches("OLD").count(), "{index}");
        let again = reseal(&here, &[&index.to_string()]);
        assert!(stdout(&again).is_empty() && stderr(&again).contains("resealed 0 values"), "{}", stderr(&again));
        assert_eq!(here.read(&name), after, "{index}: a second run changes nothing");
    }
}

#[test]
fn a_wrapped_value_is_wrapped_again() {
    let here = workplace();
    let text = |value: &str| {
        let lines = wrapped(value, 64, "        ");
        format!(
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: db, namespace: shop}}\nspec:\n  encryptedData:\n    a: |\n{lines}    b: {value}\n"
        )
    };
    let old = seal(old_key(), DB, "plain");
    here.write("a.yaml", &text(&old));
    stdout(&reseal(&here, &["a.yaml"]));
    let after = here.read("a.yaml");
    let spec = &values_of(&after)[0];
    let new = spec["encryptedData"]["b"].as_str().unwrap();
    assert_eq!(unsealed(DB, new), "plain");
    assert_eq!(after, text(new), "one text stays one text, in lines of 64");
}

#[test]
fn every_scope_opens_where_it_did() {
    let here = workplace();
    for scope in [Scope::Strict, Scope::NamespaceWide, Scope::ClusterWide] {
        let binding = Binding { scope, ..DB };
        let annotation = scope.annotation().map(|key| format!(", annotations: {{{key}: 'true'}}")).unwrap_or_default();
        here.write("a.yaml", &format!(
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: db, namespace: shop{annotation}}}\nspec: {{encryptedData: {{a: {}}}}}\n",
            seal(old_key(), binding, "plain")
        ));
        stdout(&reseal(&here, &["a.yaml"]));
        let spec = &values_of(&here.read("a.yaml"))[0];
        assert_eq!(unsealed(binding, spec["encryptedData"]["a"].as_str().unwrap()), "plain", "{scope}");
    }
}

#[test]
fn what_nothing_opens_stays_and_is_named() {
    let here = workplace();
    let stranger = PrivateKey::generate(2048).unwrap();
    let (lost, good) = (seal(&stranger, DB, "lost"), seal(old_key(), DB, "plain"));
    let head = "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: db, namespace: shop}\nspec:\n  encryptedData:\n";
    here.write("apps/a.yaml", &format!("{head}    lost: {lost}\n    good: {good}\n    none: hunter2\n"));
    here.write("apps/b.yaml", "kind: SealedSecret\nspec: {{ .Values.x }}\n");
    here.write("apps/c.yaml", "not: a manifest\n");
    here.write("apps/d.yaml", &format!("{head}    x: &x {good}\n    y: *x # the key is true\n"));
    let output = reseal(&here, &["apps", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["resealed"], &report["newest"], &report["dryRun"]), (&json!(1), &json!(0), &json!(false)));
    let failed: Vec<(&str, u64, Option<&str>)> = report["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failure| {
            (failure["file"].as_str().unwrap(), failure["line"].as_u64().unwrap(), failure["field"].as_str())
        })
        .collect();
    assert_eq!(
        failed,
        [
            ("apps/b.yaml", 2, None),
            ("apps/a.yaml", 6, Some("spec.encryptedData.lost")),
            ("apps/a.yaml", 8, Some("spec.encryptedData.none")),
            ("apps/d.yaml", 6, Some("spec.encryptedData.x")),
            ("apps/d.yaml", 7, Some("spec.encryptedData.true")),
        ]
    );
    let text = stderr(&output);
    assert!(text.contains("apps/a.yaml:6: SealedSecret shop/db: spec.encryptedData.lost: "), "{text}");
    assert!(!text.contains("hunter2"), "a value is shown: {text}");
    let after = here.read("apps/a.yaml");
    assert!(after.contains(&lost) && after.contains("none: hunter2") && !after.contains(&good), "{after}");
    assert_eq!(here.list("apps"), ["a.yaml", "b.yaml", "c.yaml", "d.yaml"], "nothing temporary is left");
}

#[test]
fn a_dry_run_and_a_folder_that_is_ignored_change_nothing() {
    let here = workplace();
    let text = format!(
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: db, namespace: shop}}\nspec:\n  encryptedData: {{a: {}}}\n",
        seal(old_key(), DB, "plain")
    );
    for file in ["apps/a.yaml", "apps/ignored/a.yaml", "apps/charts/a.yaml"] {
        here.write(file, &text);
    }
    here.write("apps/.gitsealignore", "ignored/\n");
    let output = reseal(&here, &["apps", "--dry-run"]);
    assert_eq!(stdout(&output), "");
    let said = stderr(&output);
    assert!(
        said.ends_with("2 files with SealedSecrets: would reseal 2 values, 0 with the newest key already, 0 failed\n"),
        "{said}"
    );
    assert!(said.contains("apps/charts/a.yaml: would reseal 1 value\n"), "{said}");
    assert_eq!(here.read("apps/a.yaml"), text);
    stdout(&reseal(&here, &["apps"]));
    assert_ne!(here.read("apps/a.yaml"), text);
    assert_eq!(here.read("apps/ignored/a.yaml"), text);
}

#[test]
fn without_the_newest_private_key_a_second_run_says_what_is_missing() {
    let here = workplace();
    let text = format!(
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: db, namespace: shop}}\nspec:\n  encryptedData: {{a: {}}}\n",
        seal(old_key(), DB, "plain")
    );
    here.write("a.yaml", &text);
    let run = || here.run(&["reseal", "a.yaml", "--cert", "cert.pem", "--private-key", "old.pem"]);
    stdout(&run());
    let after = here.read("a.yaml");
    assert_eq!(unsealed(DB, values_of(&after)[0]["encryptedData"]["a"].as_str().unwrap()), "plain");
    let output = run();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("also give the private key of that certificate"), "{}", stderr(&output));
    assert_eq!(here.read("a.yaml"), after);
}

/// Somebody who can write to a repository could put their own certificate there, and a SealedSecret of somebody else,
/// and then read the resealed values.
#[test]
fn values_are_not_resealed_for_whoever_wrote_the_project_file() {
    let here = workplace();
    let text = format!(
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: db, namespace: shop}}\nspec:\n  encryptedData: {{a: {}}}\n",
        seal(old_key(), DB, "plain")
    );
    here.write("clone/a.yaml", &text);
    here.write("clone/.gitseal.yaml", "clusters: {production: {cert: cert.pem}}\n");
    here.write("clone/cert.pem", &here.read("cert.pem"));
    let clone = here.path("clone");
    let run = |arguments: &[&str]| {
        crate::gitseal_in(&clone, &[&["reseal", ".", "--private-key", "../old.pem"], arguments].concat())
    };
    for arguments in [&[][..], &["--dry-run"], &["--private-key", "../old.pem"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(said.contains("was chosen by .gitseal.yaml") && said.contains("--cert"), "{said}");
        assert_eq!(here.read("clone/a.yaml"), text);
    }
    let fingerprint = sealing::Certificate::from_pem(here.read("cert.pem").as_bytes()).unwrap().fingerprint();
    let output = run(&["--cert", "cert.pem", "-o", "name"]);
    assert_eq!((output.status.code(), here.read("clone/a.yaml")), (Some(2), text.clone()), "{}", stderr(&output));
    for arguments in [&["--cert", "cert.pem"][..], &["--private-key", "../key.pem"]] {
        here.write("clone/a.yaml", &text);
        let output = run(arguments);
        stdout(&output);
        let said = stderr(&output);
        assert!(said.contains(&format!("sealing with the certificate sha256:{fingerprint} of ")), "{said}");
        assert_eq!(
            unsealed(DB, values_of(&here.read("clone/a.yaml"))[0]["encryptedData"]["a"].as_str().unwrap()),
            "plain"
        );
    }
}

#[test]
fn a_wrong_request_is_refused_with_a_hint() {
    let here = workplace();
    here.write("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n");
    for (arguments, message) in [
        (&["-"][..], "standard input cannot be resealed"),
        (&["a.yaml"], "a.yaml holds no SealedSecret"),
        (&["missing.yaml"], "cannot read missing.yaml"),
    ] {
        let output = reseal(&here, arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).starts_with(&format!("error: {message}")), "{}", stderr(&output));
    }
    let sealed = seal(old_key(), DB, "plain");
    here.write("b.yaml", &format!(
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: db}}\nspec:\n  encryptedData: {{a: {sealed}}}\n"
    ));
    let output = reseal(&here, &["b.yaml"]);
    assert!(
        stderr(&output).contains("b.yaml:5: SealedSecret db: spec.encryptedData.a: the SealedSecret has no namespace"),
        "{}",
        stderr(&output)
    );
    stdout(&reseal(&here, &["b.yaml", "-n", "shop"]));
    let output = here.run(&["reseal", "b.yaml", "--cert", "cert.pem", "--private-key", "cert.pem"]);
    assert!(stderr(&output).contains("cert.pem holds no private keys"), "{}", stderr(&output));
}
