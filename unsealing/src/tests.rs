use serde_json::{Value, json};

use super::*;

/// A file of the sealing crate's test vectors, made by the Sealed Secrets project's own programs.
fn vector(name: &str) -> Vec<u8> {
    const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sealing/tests/vectors");
    std::fs::read(std::path::Path::new(VECTORS).join(name)).unwrap()
}

/// Unseals with the key of the test vector `rsa-2048`, as the controller does with its keys.
fn unseal(sealed: &SealedInput<'_>) -> Result<UnsealedSecret, UnsealError> {
    let key = sealing::PrivateKey::from_pem(&vector("rsa-2048.key")).unwrap();
    let texts = sealed_texts(sealed)?;
    let unseal = |index| {
        let (binding, text) = texts.get(index);
        Ok(sealing::unseal([&key], binding, text)?)
    };
    let unsealed = (0..texts.texts.len()).map(unseal).collect();
    assemble(sealed, unsealed)?.finish()
}

/// A SealedSecret as it is in Git, and whether its deprecated `spec.data` is accepted.
struct Sealed {
    annotations: BTreeMap<String, String>,
    spec: SealedSecretSpec,
    accept_deprecated_v1_data: bool,
}

impl Sealed {
    fn new(spec: Value) -> Self {
        let spec = serde_json::from_value(spec).unwrap();
        Self { annotations: BTreeMap::new(), spec, accept_deprecated_v1_data: true }
    }

    fn input(&self) -> SealedInput<'_> {
        SealedInput {
            namespace: "team-a",
            name: "database",
            annotations: &self.annotations,
            spec: &self.spec,
            accept_deprecated_v1_data: self.accept_deprecated_v1_data,
        }
    }
}

fn seal_for(namespace: &str, plaintext: &[u8]) -> String {
    let certificate = sealing::Certificate::from_pem(&vector("rsa-2048.crt")).unwrap();
    sealing::seal(&certificate, Scope::Strict.binding(namespace, "database", "any"), plaintext).unwrap()
}

fn seal(plaintext: &str) -> String {
    seal_for("team-a", plaintext.as_bytes())
}

fn unsealed(spec: Value) -> UnsealedSecret {
    unseal(&Sealed::new(spec).input()).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(sealed: &Sealed) -> UnsealError {
    unseal(&sealed.input()).err().expect("it is refused")
}

fn body(secret: &UnsealedSecret) -> Value {
    serde_json::from_slice(&secret.body(None, None)).unwrap()
}

#[test]
fn a_sealed_secret_becomes_its_secret() {
    let secret = unsealed(json!({
        "encryptedData": {"password": seal("hunter2"), "empty": seal("")},
        "template": {
            "metadata": {
                "name": "ignored", "namespace": "ignored", "creationTimestamp": null,
                "labels": {"app": "shop"}, "annotations": {"note": "from the template"}, "finalizers": ["example.com/keep"],
            },
            "type": "example.com/login",
            "immutable": true,
            "data": {"user": "admin"},
        },
    }));
    assert_eq!(secret.keys().collect::<Vec<_>>(), ["empty", "password", "user"]);
    assert_eq!(
        (secret.namespace(), secret.name(), secret.type_.as_deref()),
        ("team-a", "database", Some("example.com/login"))
    );
    let owner = Owner { name: "database", uid: "0000-1" };
    let json = secret.body(Some(owner), None);
    assert_eq!(
        serde_json::from_slice::<Value>(&json).unwrap(),
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "database",
                "namespace": "team-a",
                "labels": {"app": "shop"},
                "annotations": {"note": "from the template"},
                "finalizers": ["example.com/keep"],
                "ownerReferences": [{
                    "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "name": "database", "uid": "0000-1",
                    "controller": true,
                }],
            },
            "type": "example.com/login",
            "immutable": true,
            "data": {"empty": "", "password": "aHVudGVyMg==", "user": "YWRtaW4="},
        })
    );
}

#[test]
fn values_of_the_real_kubeseal_open_in_their_scopes() {
    let vectors: Vec<Value> = serde_json::from_slice(&vector("values.json")).unwrap();
    let mut scopes = std::collections::BTreeSet::new();
    for vector in vectors.iter().filter(|vector| vector["key"] == "rsa-2048") {
        let scope = vector["scope"].as_str().unwrap();
        let mut sealed = Sealed::new(json!({"encryptedData": {"value": vector["value"]}}));
        if scope != "strict" {
            sealed.annotations.insert(format!("sealedsecrets.bitnami.com/{scope}"), "true".into());
        }
        let input = SealedInput {
            namespace: vector["namespace"].as_str().unwrap(),
            name: vector["name"].as_str().unwrap(),
            ..sealed.input()
        };
        let secret = unseal(&input).unwrap_or_else(|error| panic!("{scope}: {error}"));
        assert_eq!(body(&secret)["data"]["value"], vector["plaintext"], "{scope}");
        scopes.insert(scope.to_owned());
        let elsewhere = SealedInput { namespace: "elsewhere", ..input };
        assert_eq!(unseal(&elsewhere).is_ok(), scope == "cluster-wide", "{scope} in another namespace");
    }
    assert_eq!(scopes.len(), 3, "{scopes:?}");
}

#[test]
fn every_failing_key_is_told_at_once() {
    let sealed = Sealed::new(json!({
        "encryptedData": {
            "good": seal("hunter2"),
            "moved": seal_for("team-b", b"hunter2"),
            "text": "%%%",
            "cut": &seal("hunter2")[..40],
            "age": "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSA=",
        },
        "template": {"data": {"url": "https://{{ .good }}@host", "later": "{{ .moved | upper }}", "odd": "{{ now }}"}},
    }));
    let error = refused(&sealed);
    let fields: Vec<_> = error.failures().iter().map(|failure| failure.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.encryptedData.age",
            "spec.encryptedData.cut",
            "spec.encryptedData.moved",
            "spec.encryptedData.text",
            "spec.template.data.odd"
        ]
    );
    let text = error.to_string();
    for part in ["sealed with age are not supported yet", "another cluster", "line 1: function now is not supported"] {
        assert!(text.contains(part), "{part} in: {text}");
    }
    assert!(!text.contains("hunter2") && !text.contains("@host"), "{text}");
    assert!(!error.is_transient());
}

#[test]
fn long_lists_of_failures_are_short_messages() {
    let data: BTreeMap<String, String> = (10..40).map(|n| (format!("key-{n}"), "%".into())).collect();
    let text = refused(&Sealed::new(json!({"encryptedData": data}))).to_string();
    assert!(text.contains("key-10") && text.contains("key-29") && !text.contains("key-30"), "{text}");
    assert!(text.ends_with("; and 10 more"), "{text}");
    assert!(text.len() < 1000, "{text}");

    let odd = format!("\u{1b}[31m\n{}", "x".repeat(5000));
    let text = refused(&Sealed::new(json!({"encryptedData": {odd: "%"}}))).to_string();
    assert!(!text.contains('\u{1b}') && !text.contains('\n') && text.len() < 1000, "{text}");
}

#[test]
fn a_value_of_the_template_takes_the_place_of_a_sealed_one() {
    let secret = unsealed(json!({
        "encryptedData": {"user": seal("sealed")}, "template": {"data": {"user": "plain"}},
    }));
    assert_eq!(body(&secret)["data"], json!({"user": "cGxhaW4="}));
}

#[test]
fn templates_are_rendered_over_the_unsealed_values() {
    let secret = unsealed(json!({
        "encryptedData": {"user": seal("admin"), "password": seal("hunter2"), "binary": seal_for("team-a", b"\xff\x00")},
        "template": {"data": {
            "url": "postgres://{{ .user }}:{{ .password | urlquery }}@db",
            "user": "{{ .user | upper }}",
            "also": "{{ .user }} {{ .missing }}",
            "plain": "as { it } is",
            "binary": "{{ .binary }}{{ .binary }}",
            "empty": "",
        }},
    }));
    let text = |key: &str| secret.values[key].expose().to_vec();
    assert_eq!(text("url"), b"postgres://admin:hunter2@db");
    assert_eq!(text("user"), b"ADMIN", "the template wins");
    assert_eq!(text("also"), b"admin <no value>", "other templates see what was unsealed");
    assert_eq!(text("plain"), b"as { it } is");
    assert_eq!(text("binary"), b"\xff\x00\xff\x00");
    assert_eq!(text("empty"), b"");
    assert_eq!(text("password"), b"hunter2");
}

#[test]
fn a_template_that_cannot_be_read_says_where() {
    for (template, reason) in [
        ("a\n{{ .a", "line 2: the action is not closed by }}"),
        ("{{ .a | nosuch }}", "line 1: function nosuch is not defined"),
        ("{{ randAlphaNum 8 }}", "line 1: function randAlphaNum is not supported"),
    ] {
        let error = refused_template(template);
        let text = error.to_string();
        assert!(text.starts_with("spec.template.data.t: ") && text.contains(reason), "{template}: {text}");
        assert!(!text.contains("hunter2"), "{template}: {text}");
        assert!(!error.is_transient(), "{template}: nothing but another template helps");
    }
}

/// Templates that fail because of the values, in every possible way.
const FAILING: [(&str, &str); 9] = [
    ("\n\n{{ index (list .a) 7 }}", "line 3: index: an index is out of range"),
    ("{{ .a | mustFromJson }}", "line 1: mustFromJson: the text is not JSON"),
    ("{{ fail .a }}", "line 1: fail: the template says so"),
    ("{{ range until 999999999 }}{{ end }}", "line 1: the template makes too many values"),
    ("{{ range 999999999 }}{{ end }}", "line 1: the template takes too many steps"),
    ("{{ define \"a\" }}{{ template \"a\" }}{{ end }}{{ template \"a\" }}", "templates call each other too deeply"),
    ("{{ repeat 2000000 .a }}", "grows too large"),
    ("{{ range until 2000 }}{{ repeat 1000 $.a }}{{ end }}", "larger than a Secret can be"),
    ("{{ if eq (substr 0 1 .a) \"h\" }}\n{{ fail \"the first letter is h\" }}{{ end }}", "line 2: fail"),
];

fn refused_template(template: &str) -> UnsealError {
    refused(&Sealed::new(json!({"encryptedData": {"a": seal("hunter2")}, "template": {"data": {"t": template}}})))
}

#[test]
fn how_a_template_fails_on_the_values_is_told_in_one_way() {
    let mut texts = std::collections::BTreeSet::new();
    for (template, reason) in FAILING {
        let error = refused_template(template);
        let text = error.to_string();
        assert!(!text.contains("hunter2") && !text.contains(reason), "{template}: {text}");
        assert!(!error.is_transient(), "{template}: nothing but another value or template helps");
        texts.insert(text);
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    let two = json!({"encryptedData": {"a": seal("hunter2")},
        "template": {"data": {"one": "{{ fail .a }}", "two": "{{ .a }}", "three": "{{ fail .a }}"}}});
    assert!(texts.contains(&refused(&Sealed::new(two)).to_string()), "which ones and how many are not told either");
}

#[test]
fn whoever_has_the_keys_is_told_how_a_template_fails() {
    for (template, reason) in FAILING {
        let UnsealError::Render(failure) = refused_template(template) else { panic!("{template}") };
        let [failure] = failure.for_key_holders() else { panic!("{template}") };
        let text = failure.to_string();
        assert!(text.starts_with("spec.template.data.t: ") && text.contains(reason), "{template}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn password_hashes_stay_as_they_are() {
    let spec = |password: &str| json!({"encryptedData": {"a": password}, "template": {"data": {"h": "{{ htpasswd \"u\" .a }}"}}});
    let (one, other) = (seal("hunter2"), seal("hunter2"));
    let hash = |sealed: &str| unsealed(spec(sealed)).values["h"].expose().to_vec();
    assert_eq!(hash(&one), hash(&one));
    assert_ne!(hash(&one), hash(&other), "each sealing has a salt of its own");
    assert!(hash(&one).starts_with(b"u:$2a$10$"));
}

#[test]
fn nothing_sealed_is_an_empty_secret() {
    let secret = unsealed(json!({"encryptedData": {}, "template": {"type": ""}}));
    let json = body(&secret);
    assert_eq!(json["data"], json!({}));
    assert_eq!(json.get("type"), None);
    assert_eq!(json["metadata"].get("ownerReferences"), None);
}

#[test]
fn the_secret_outlives_its_sealed_secret_if_asked_to() {
    let template = |value: &str| json!({"metadata": {"annotations": {"sealedsecrets.bitnami.com/skip-set-owner-references": value}}});
    let owner = Owner { name: "database", uid: "1" };
    for (value, owned) in [("true", false), ("false", true)] {
        let secret = unsealed(json!({"encryptedData": {"a": seal("b")}, "template": template(value)}));
        assert_eq!(secret.owned, owned);
        let json: Value = serde_json::from_slice(&secret.body(Some(owner), None)).unwrap();
        assert_eq!(json["metadata"].get("ownerReferences").is_some(), owned);
    }
}

#[test]
fn a_template_makes_neither_sealing_keys_nor_objects_of_other_syncs() {
    let labels = json!({"metadata": {"labels": {"sealedsecrets.bitnami.com/sealed-secrets-key": "active"}}});
    let sealed = Sealed::new(json!({"encryptedData": {"a": seal("b")}, "template": labels}));
    assert!(matches!(refused(&sealed), UnsealError::ReservedLabel(_)));

    let labels = json!({"gitseal.dev/sync-name": "theirs", "gitseal.dev/sync-namespace": "theirs", "app": "shop"});
    let secret = unsealed(json!({"encryptedData": {"a": seal("b")}, "template": {"metadata": {"labels": labels}}}));
    assert_eq!(body(&secret)["metadata"]["labels"], json!({"app": "shop"}));
}

#[test]
fn the_first_form_holds_a_whole_secret() {
    let whole = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "example.com/login",
        "metadata": {"name": "x", "namespace": "y", "creationTimestamp": null, "labels": {"app": "shop"}},
        "data": {"password": "aHVudGVyMg==", "both": "YQ==", "none": null},
        "stringData": {"both": "b", "odd": "a\"\n\u{1f511}"},
    });
    let spec = json!({"data": seal(&whole.to_string()), "template": {"metadata": {"creationTimestamp": null}}});
    let json = body(&unsealed(spec.clone()));
    assert_eq!(json["data"], json!({"password": "aHVudGVyMg==", "both": "Yg==", "none": "", "odd": "YSIK8J+UkQ=="}));
    assert_eq!(json["metadata"]["labels"], json!({"app": "shop"}));
    assert_eq!((&json["metadata"]["name"], &json["type"]), (&json!("database"), &json!("example.com/login")));

    let mut sealed = Sealed::new(spec);
    sealed.accept_deprecated_v1_data = false;
    assert!(matches!(refused(&sealed), UnsealError::DeprecatedForm));
    sealed.accept_deprecated_v1_data = true;
    sealed.spec.encrypted_data.insert("a".into(), seal("b"));
    assert!(matches!(refused(&sealed), UnsealError::TwoForms));
}

#[test]
fn a_first_form_that_is_no_secret_is_refused_without_a_word_of_it() {
    for plaintext in ["hunter2", r#"{"data": {"a": "hunter2!"}}"#, r#"{"data": "hunter2"}"#, r#"{"type": ["hunter2"]}"#]
    {
        let error = refused(&Sealed::new(json!({"data": seal(plaintext)})));
        assert!(matches!(error, UnsealError::NotASecret), "{plaintext}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let moved = refused(&Sealed::new(json!({"data": seal_for("team-b", b"{}")})));
    assert_eq!(moved.failures()[0].field, "spec.data");
}

#[test]
fn the_digest_follows_what_the_secret_is_made_of() {
    let spec = json!({"encryptedData": {"a": "AgB1", "b": "AgB2"}, "template": {"type": "t"}});
    let sealed = Sealed::new(spec.clone());
    let before = digest(&sealed.input());
    assert_eq!(before.len(), 32);
    assert_eq!(digest(&Sealed::new(spec.clone()).input()), before);

    let mut changed = vec![
        digest(&SealedInput { namespace: "team-b", ..sealed.input() }),
        digest(&SealedInput { name: "other", ..sealed.input() }),
    ];
    for (pointer, value) in [
        ("/encryptedData/a", json!("AgB3")),
        ("/encryptedData/b", Value::Null),
        ("/template/type", json!("u")),
        ("/template", json!({"metadata": {"labels": {"a": "b"}}})),
    ] {
        let mut other = spec.clone();
        match value {
            Value::Null => drop(other["encryptedData"].as_object_mut().unwrap().remove("b")),
            value => *other.pointer_mut(pointer).unwrap() = value,
        }
        changed.push(digest(&Sealed::new(other).input()));
    }
    let mut scoped = Sealed::new(spec.clone());
    scoped.annotations.insert(names::NAMESPACE_WIDE.into(), "true".into());
    changed.push(digest(&scoped.input()));
    changed.push(before.clone());
    let different: std::collections::BTreeSet<_> = changed.iter().collect();
    assert_eq!(different.len(), changed.len(), "{changed:?}");

    let mut annotated = Sealed::new(spec);
    annotated.annotations.insert("note".into(), "no matter".into());
    assert_eq!(digest(&annotated.input()), before);
}

#[test]
fn a_body_never_moves_while_it_is_written() {
    let names: Vec<String> = (0..300).map(|n| format!("key-{n}\"\\\u{1f511}\n")).collect();
    let value: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let values: Vec<(&str, &[u8])> = names.iter().enumerate().map(|(n, name)| (name.as_str(), &value[..n])).collect();
    let body = secret_json(&json!({"kind": "Secret"}), &values);
    assert_eq!(body.len(), body.capacity(), "exactly the size that was reserved");
    let parsed: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(parsed["kind"], "Secret");
    assert_eq!(parsed["data"].as_object().unwrap().len(), 300);
    let encoded = parsed["data"][names[299].as_str()].as_str().unwrap();
    assert_eq!(base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).unwrap(), value[..299]);
}

#[test]
fn the_secret_does_not_get_values_that_are_only_for_templates() {
    let mut sealed = Sealed::new(json!({
        "encryptedData": {"password": seal("hunter2"), "user": seal("me"), "url": seal("old")},
        "template": {"data": {"url": "db://{{ .user }}:{{ .password }}@{{ .url }}"}},
    }));
    let all = unseal(&sealed.input()).unwrap();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["password", "url", "user"]);
    let digests = [digest(&sealed.input()), {
        sealed.annotations.insert("gitseal.dev/template-inputs".into(), "password, url,,gone".into());
        digest(&sealed.input())
    }];
    assert_ne!(digests[0], digests[1]);
    let some = unseal(&sealed.input()).unwrap();
    assert_eq!(some.keys().collect::<Vec<_>>(), ["url", "user"]);
    assert_eq!(sealed.input().keys().into_iter().collect::<Vec<_>>(), ["url", "user"]);
    assert_eq!(some.values()["url"].expose(), b"db://me:hunter2@old");
}
