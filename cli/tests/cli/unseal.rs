//! `gitseal unseal`: unsealing offline.

use sealing::{PrivateKey, Scope};
use serde_json::{Value, json};

use crate::workplace::{Workplace, key, run_as};
use crate::{stderr, stdout};

/// A SealedSecret `shop/db` with these values.
fn sealed(values: &[(&str, &[u8])]) -> String {
    let mut text = "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: db, namespace: shop}\nspec:\n  template: {metadata: {labels: {a: b}}, type: Opaque}\n  encryptedData:\n".to_owned();
    for (name, value) in values {
        let value = sealing::seal(key().public_key(), Scope::Strict.binding("shop", "db", name), value).unwrap();
        text.extend(["    \"", name, "\": ", &value, "\n"]);
    }
    text
}

#[test]
fn yaml_reads_back_whatever_the_keys_and_values_look_like() {
    let here = Workplace::new();
    let text = sealed(&[
        ("yes", b"\x00\xff"),
        ("1.5", b""),
        ("null", &[0xd3, 0x4d, 0x34]),
        ("a-b_c.d", b"hunter2"),
        ("1e3", &[0xd7; 3]),
    ]);
    here.write("a.yaml", &format!("{text}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\n"));
    let yaml = stdout(&here.run(&["unseal", "a.yaml", "--private-key", "key.pem"]));
    let read = manifests::parse("out", yaml.as_bytes(), &manifests::Limits::default()).unwrap();
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "db", "namespace": "shop", "labels": {"a": "b"}},
        "type": "Opaque",
        "data": {"yes": "AP8=", "1.5": "", "null": "0000"  , "a-b_c.d": "aHVudGVyMg==", "1e3": "19fX"},
    });
    let expected = expected.as_object().unwrap();
    assert_eq!((read.len(), &read[0].body), (1, expected), "{yaml}");
    let json = stdout(&here.run(&["unseal", "a.yaml", "--private-key", "key.pem", "-o", "json"]));
    assert_eq!(&serde_json::from_str::<serde_json::Map<_, _>>(&json).unwrap(), expected);
}

#[test]
fn keys_come_as_pem_or_as_the_cluster_keeps_them() {
    use base64::Engine as _;
    let here = Workplace::new();
    here.write("a.yaml", &sealed(&[("a", b"hunter2")]));
    let (pem, other) = (key().to_pem().unwrap(), PrivateKey::generate(2048).unwrap().to_pem().unwrap());
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "k1"}, "type": "kubernetes.io/tls", "data": {"tls.key": base64(&other), "tls.crt": ""}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "k2"}, "type": "kubernetes.io/tls", "data": {"tls.key": base64(&pem), "tls.crt": ""}},
    ]});
    here.write("both.pem", &format!("\n{}{}{}", *other, here.read("cert.pem"), *pem));
    here.write("list.json", &list.to_string());
    here.write("other.pem", &other);
    for arguments in [
        &["--private-key", "both.pem"][..],
        &["--private-key", "list.json"],
        &["--private-key", "other.pem", "--private-key", "key.pem"],
    ] {
        let output = here.run(&[&["unseal", "a.yaml", "--key-name", "a"], arguments].concat());
        assert_eq!(stdout(&output), "hunter2", "{arguments:?}");
    }
    let refused = |key: &str, message: &str| {
        let output = here.run(&["unseal", "a.yaml", "--private-key", key]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    };

    // Key Secrets are also read without a kind, as some programs write them, and in lists whose kind is not `List`.
    let bare = json!({"metadata": {"name": "k2", "creationTimestamp": null}, "data": {"tls.key": base64(&pem), "tls.crt": ""}, "type": "kubernetes.io/tls"});
    let yaml = format!(
        "# keys\n---\nkind: ConfigMap\napiVersion: v1\nmetadata: {{name: c}}\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: k2}}\ndata: {{tls.key: {}}}\n",
        base64(&pem)
    );
    for (name, text) in [
        ("bare.json", bare.to_string()),
        (
            "stream.json",
            format!("{}\n{bare}\n", json!({"metadata": {"name": "k1"}, "data": {"tls.key": base64(&other)}})),
        ),
        (
            "secret-list.json",
            json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": [bare]}).to_string(),
        ),
        ("bare-list.json", json!({"metadata": {}, "items": [bare]}).to_string()),
        ("array.json", json!([bare]).to_string()),
        ("stream.yaml", yaml),
        (
            "text.yaml",
            format!(
                "kind: Secret\napiVersion: v1\nmetadata: {{name: k2}}\nstringData:\n  tls.key: |\n    {}\n",
                pem.trim().replace('\n', "\n    ")
            ),
        ),
        ("attributes.pem", format!("Bag Attributes\n    friendlyName: k2\n{}", *pem)),
    ] {
        here.write(name, &text);
        let output = here.run(&["unseal", "a.yaml", "--key-name", "a", "--key", name]);
        assert_eq!(stdout(&output), "hunter2", "{name}: {}", stderr(&output));
    }
    refused("other.pem", "a.yaml:1: SealedSecret shop/db: cannot unseal encryptedData.a");
    refused("cert.pem", "cert.pem holds no private keys");
    refused("a.yaml", "a.yaml holds no private keys");
    here.write("broken.pem", "-----BEGIN RSA PRIVATE KEY-----\naHVudGVyMg==\n-----END RSA PRIVATE KEY-----\n");
    refused("broken.pem", "cannot use a private key of broken.pem");
}

#[test]
fn a_backup_is_a_file_of_keys() {
    use age::secrecy::ExposeSecret as _;
    use base64::Engine as _;
    let here = Workplace::new();
    here.write("a.yaml", &sealed(&[("a", b"hunter2")]));
    let key = base64::engine::general_purpose::STANDARD.encode(&*key().to_pem().unwrap());
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "k"}, "type": "kubernetes.io/tls", "data": {"tls.key": key}},
    ]});
    let identity = age::x25519::Identity::generate();
    here.write("me.txt", identity.to_string().expose_secret());
    std::fs::write(here.path("keys.age"), age::encrypt(&identity.to_public(), list.to_string().as_bytes()).unwrap())
        .unwrap();
    let unsealed = here.run(&["unseal", "a.yaml", "--key-name", "a", "--key", "keys.age", "--identity", "me.txt"]);
    assert_eq!(stdout(&unsealed), "hunter2", "{}", stderr(&unsealed));
    // Without a way to decrypt the backup, every command that reads keys says that it is an encrypted backup.
    let by_that_name = here.path("kubeseal");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_gitseal"), &by_that_name).unwrap();
    let recover = ["--recovery-unseal", "--recovery-private-key", "keys.age"];
    for (output, told, hint) in [
        (
            here.run(&["unseal", "a.yaml", "--private-key", "keys.age"]),
            "keys.age is encrypted to age recipients",
            "use --identity FILE",
        ),
        (
            here.run(&["reseal", "a.yaml", "--private-key", "keys.age", "--cert", "cert.pem"]),
            "keys.age is encrypted to age recipients",
            "use --identity FILE",
        ),
        (
            run_as(&by_that_name, &here.path("."), &recover, &here.read("a.yaml")),
            "keys.age is an encrypted backup (age)",
            "age -d -i IDENTITY FILE",
        ),
    ] {
        let said = stderr(&output);
        assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
        assert!(said.contains(told) && said.contains(hint), "{said}");
    }

    // Reseal offline with the backup.
    let before = here.read("a.yaml");
    let resealed = here.run(&["reseal", "a.yaml", "--private-key", "keys.age", "-i", "me.txt", "--cert", "cert.pem"]);
    assert_eq!(resealed.status.code(), Some(0), "{}", stderr(&resealed));
    assert_eq!(here.read("a.yaml"), before, "the key is that of the certificate");
}

#[test]
fn a_value_that_was_moved_does_not_open() {
    let here = Workplace::new();
    let text = sealed(&[("a", b"hunter2")]);
    for moved in [text.replace("name: db", "name: web"), text.replace("shop", "other")] {
        let output = here.pipe(&["unseal", "--private-key", "key.pem"], &moved);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("cannot unseal encryptedData.a"), "{}", stderr(&output));
    }
    let nowhere = text.replace(", namespace: shop", "");
    let output = here.pipe(&["unseal", "--private-key", "key.pem"], &nowhere);
    assert!(stderr(&output).contains("it has no namespace"), "{}", stderr(&output));
    let output = here.pipe(&["unseal", "--private-key", "key.pem", "-n", "shop", "-o", "json"], &nowhere);
    assert_eq!(serde_json::from_str::<Value>(&stdout(&output)).unwrap()["data"], json!({"a": "aHVudGVyMg=="}));
}

#[test]
fn one_value_is_printed_byte_for_byte() {
    let here = Workplace::new();
    here.write("a.yaml", &sealed(&[("a", b"\x00\xff\n"), ("b", b"")]));
    let value = |name: &str| here.run(&["unseal", "a.yaml", "--private-key", "key.pem", "--key-name", name]);
    assert_eq!(value("a").stdout, b"\x00\xff\n");
    assert_eq!((value("b").status.code(), value("b").stdout.len()), (Some(0), 0));
    assert!(
        stderr(&value("c")).starts_with("error: 0 SealedSecrets have a value c; expected one"),
        "{}",
        stderr(&value("c"))
    );
}

#[test]
fn what_opens_is_printed_and_what_does_not_is_named() {
    let here = Workplace::new();
    let half = sealed(&[("a", b"hunter2"), ("b", b"hunter3"), ("c", b"hunter4")]);
    let half = half.replacen("\"b\": ", "\"b\": AAAA", 1).replacen("\"c\": ", "\"c\": AAAA", 1);
    let whole = sealed(&[("d", b"hunter5")]);
    let moved = whole.replace("name: db", "name: web");
    here.write("a.yaml", &format!("{half}---\n{moved}---\n{whole}"));
    let output = here.run(&["unseal", "a.yaml", "--private-key", "key.pem", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let data: Vec<&Value> = printed["items"].as_array().unwrap().iter().map(|secret| &secret["data"]).collect();
    assert_eq!(data, [&json!({"a": "aHVudGVyMg=="}), &json!({"d": "aHVudGVyNQ=="})]);
    let told = stderr(&output);
    for text in [
        "a.yaml:1: SealedSecret shop/db: printed without b, c",
        "3 mistakes keep some values from being unsealed",
        "SealedSecret shop/db: cannot unseal encryptedData.b",
        "SealedSecret shop/db: cannot unseal encryptedData.c",
        "SealedSecret shop/web: cannot unseal encryptedData.d",
    ] {
        assert!(told.contains(text), "no {text:?} in: {told}");
    }
    // `--key`, the old name of `--private-key`, still works.
    let output = here.pipe(&["unseal", "--key", "key.pem", "--key-name", "d"], &whole);
    assert_eq!(stdout(&output), "hunter5");
}

#[test]
fn templates_are_rendered_as_the_controller_does() {
    let here = Workplace::new();
    let template = "  template: {data: {url: 'db://{{ .user }}:{{ .password | urlquery }}', user: '{{ .user | upper }}', plain: text}}\n";
    let with = |template: &str| {
        let text = sealed(&[("user", b"admin"), ("password", b"a b")]);
        text.replace("  template: {metadata: {labels: {a: b}}, type: Opaque}\n", template)
    };
    here.write("a.yaml", &with(template));
    let json = stdout(&here.run(&["unseal", "a.yaml", "--private-key", "key.pem", "-o", "json"]));
    let data = json!({"password": "YSBi", "plain": "dGV4dA==", "url": "ZGI6Ly9hZG1pbjphK2I=", "user": "QURNSU4="});
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["data"], data);
    let value = |name: &str| stdout(&here.run(&["unseal", "a.yaml", "--private-key", "key.pem", "--key-name", name]));
    assert_eq!((value("url"), value("password")), ("db://admin:a+b".into(), "a b".into()));

    here.write("a.yaml", &with("  template: {data: {t: '{{ fail .password }}', u: '{{ now }}'}}\n"));
    let output = here.run(&["unseal", "a.yaml", "--private-key", "key.pem"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let error = stderr(&output);
    for text in
        ["cannot render a template", "spec.template.data.t: line 1: fail", "u: line 1: function now is not supported"]
    {
        assert!(error.contains(text), "{error}");
    }
    assert!(!error.contains("a b"), "{error}");
}

#[test]
fn nothing_to_open_is_an_error() {
    let here = Workplace::new();
    let output = here.pipe(&["unseal", "--private-key", "key.pem"], "# nothing\n");
    assert!(stderr(&output).starts_with("error: there is no SealedSecret in the input"), "{}", stderr(&output));
}

#[test]
fn what_the_controller_makes_nothing_of_is_no_secret_here_either() {
    let here = Workplace::new();
    let with = |template: &str| {
        let text = sealed(&[("user", b"admin")]);
        text.replace("  template: {metadata: {labels: {a: b}}, type: Opaque}\n", template)
    };
    let label = "  template: {metadata: {labels: {sealedsecrets.bitnami.com/sealed-secrets-key: active}}}\n";
    here.write("a.yaml", &with(label));
    let output = here.run(&["unseal", "a.yaml", "--private-key", "key.pem"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(stderr(&output).contains("would make the Secret a sealing key"), "{}", stderr(&output));

    // The controller uses labels, annotations and finalizers of the template's metadata, but not the labels that say to
    // which Sync an object belongs.
    let metadata =
        "  template: {metadata: {name: other, labels: {a: b, gitseal.dev/sync-name: x}, ownerReferences: []}}\n";
    here.write("a.yaml", &with(metadata));
    let json = stdout(&here.run(&["unseal", "a.yaml", "--private-key", "key.pem", "-o", "json"]));
    let secret: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(secret["metadata"], json!({"name": "db", "namespace": "shop", "labels": {"a": "b"}}));
}

/// The output has the same form as kubeseal's, and as that of `gitseal` when it runs under the name `kubeseal`.
#[test]
fn a_sealed_secret_without_values_is_an_empty_secret() {
    let here = Workplace::new();
    let text = "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: db, namespace: shop}\nspec: {encryptedData: null}\n";
    here.write("a.yaml", text);
    let json = stdout(&here.run(&["unseal", "a.yaml", "--private-key", "key.pem", "-o", "json"]));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["data"], json!({}));
}

#[test]
fn a_secret_that_the_controller_would_take_for_its_own_is_not_printed() {
    let here = Workplace::new();
    let sealed = |namespace: &str, name: &str| {
        let binding = Scope::Strict.binding(namespace, name, "a");
        let value = sealing::seal(key().public_key(), binding, b"hunter2").unwrap();
        format!(
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{encryptedData: {{a: {value}}}}}\n"
        )
    };
    let unseal = |text: &str, arguments: &[&str]| {
        here.pipe(&[&["unseal", "--private-key", "key.pem"], arguments].concat(), text)
    };
    for name in ["sealed-secrets-key", "sealed-secrets-key7x2b", "gitseal-digest-key", "gitseal-new-key"] {
        let output = unseal(&sealed("kube-system", name), &[]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{name}");
        assert!(stderr(&output).contains("as one of its own keys"), "{}", stderr(&output));
        stdout(&unseal(&sealed("shop", name), &[]));
        let output = unseal(&sealed("shop", name), &["--controller-namespace", "shop"]);
        assert_eq!(output.status.code(), Some(1), "{name}");
    }
}

#[test]
fn a_folder_and_mistakes_without_advice_are_told_plainly() {
    let here = Workplace::new();
    here.write("apps/a.yaml", &sealed(&[("a", b"x")]));
    let output = here.run(&["unseal", "apps", "--private-key", "key.pem"]);
    assert_eq!(stderr(&output), "error: apps is a folder\nhint: give the files in the folder instead\n");
    here.write("other.pem", &PrivateKey::generate(2048).unwrap().to_pem().unwrap());
    here.write("b.yaml", &sealed(&[("a", b"x"), ("b", b"y")]));
    let output = here.run(&["unseal", "b.yaml", "--private-key", "other.pem"]);
    let said = stderr(&output);
    assert!(said.contains("2 mistakes") && !said.contains("hint:"), "{said}");
}
