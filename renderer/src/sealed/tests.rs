use manifests::Limits;

use super::*;

/// A text with the form and the length of a value that was sealed with a key of 2,048 bits.
fn sealed_text(fill: u8) -> String {
    STANDARD.encode([&[1, 0][..], &[fill; 300]].concat())
}

fn parsed(text: &str) -> Vec<Manifest> {
    manifests::parse("secrets/db.yaml", text.as_bytes(), &Limits::default()).unwrap()
}

fn file(scope: &str) -> String {
    let annotations = if scope.is_empty() { String::new() } else { format!(", annotations: {{{scope}: 'true'}}") };
    format!(
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: db, namespace: shop{annotations}}}\n\
         spec:\n  encryptedData:\n    password: {}\n    tls.key: {}\n",
        sealed_text(7),
        sealed_text(8)
    )
}

const WIDE: &str = "sealedsecrets.bitnami.com/namespace-wide";

fn placeholders(scope: &str) -> (Placeholders, Vec<String>) {
    let mut all = Placeholders::default();
    let wanted = SealedValues { file: "secrets/db.yaml".into(), content: None, key: None, path: Some("auth".into()) };
    let values = all.add(&wanted, &parsed(&file(scope))).unwrap();
    let words = values.into_iter().map(|value| match value {
        Values::SetString(text) => text.split_once('=').unwrap().1.to_owned(),
        other => panic!("{other:?}"),
    });
    let words = words.collect();
    (all, words)
}

fn resolve(all: &Placeholders, text: &str) -> Result<Option<Value>, String> {
    let [manifest] = &parsed(text)[..] else { panic!("{text}") };
    let namespace = manifest.id.namespace.as_deref().unwrap_or("shop");
    match all.resolved(manifest, namespace, &mut |_| true) {
        Ok(made) => Ok(made.map(Value::Object)),
        Err(Unsealable::Wrong(why) | Unsealable::Misplaced(why, _)) => Err(why),
        Err(Unsealable::NoRoom) => panic!("there is room"),
    }
}

fn secret(values: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: web, labels: {{app: web}}}}\ntype: Opaque\n{values}")
}

#[test]
fn notes_have_the_names_of_sealed_values_and_no_placeholder() {
    let mut all = Placeholders::default();
    let wanted = SealedValues { file: "secrets/db.yaml".into(), content: None, key: None, path: Some("auth".into()) };
    let values = all.add(&wanted, &parsed(&file(WIDE))).unwrap();
    let Some(Values::SetString(text)) = values.first() else { panic!("no value") };
    let (path, word) = text.split_once('=').unwrap();
    let told = |notes: String| all.in_notes(&notes);
    assert_eq!(told("log in as me".into()), "log in as me");
    assert_eq!(told(format!("<{word}> {word}")), format!("<(sealed value {path})> (sealed value {path})"));
    assert_eq!(told(format!("<{}>", STANDARD.encode(word))), "<(sealed value in base64)>");
    for changed in [word.to_uppercase(), word[..20].to_owned(), STANDARD.encode(word.to_uppercase())] {
        let told = told(format!("me: {changed}"));
        assert!(told.starts_with("The notes of the chart are left out"), "{told}");
    }
}

#[test]
fn values_become_words_with_their_names_in_the_chart() {
    let mut all = Placeholders::default();
    let wanted = |key: Option<&str>| SealedValues {
        file: "secrets/db.yaml".into(),
        content: None,
        key: key.map(str::to_owned),
        path: Some("auth".into()),
    };
    let of_all = all.add(&wanted(None), &parsed(&file(WIDE))).unwrap();
    let names = of_all.iter().map(|value| match value {
        Values::SetString(text) => text.split_once('=').unwrap().0,
        other => panic!("{other:?}"),
    });
    assert_eq!(names.collect::<Vec<_>>(), ["auth.password", "auth.tls\\.key"]);
    assert_eq!(all.add(&wanted(Some("password")), &parsed(&file(WIDE))).unwrap().len(), 1);
    let none = all.add(&wanted(Some("user")), &parsed(&file(WIDE))).unwrap_err();
    assert_eq!(none, "secrets/db.yaml:1 has no sealed value user: it has password, tls.key");
    let two = file(WIDE) + "---\n" + &file(WIDE);
    assert!(all.add(&wanted(None), &parsed(&two)).unwrap_err().contains("has 2 objects"));
    let other = all.add(&wanted(None), &parsed(&secret("stringData: {}\n"))).unwrap_err();
    assert!(other.contains("is not a SealedSecret, but Secret"), "{other}");
}

#[test]
fn a_secret_with_words_becomes_a_sealed_secret() {
    let (all, words) = placeholders(WIDE);
    let (password, key) = (&words[0], &words[1]);
    let encoded = STANDARD.encode(format!("me:{password}"));
    let url = STANDARD.encode(format!("postgres://me:{password}@db/{{{key}}} {{{{ x }}}}"));
    let text = secret(&format!(
        "data:\n  url: {url}\n  plain: {}\nstringData:\n  password: {password}\n  auth: '{{\"a\": \"{encoded}\"}}'\n",
        STANDARD.encode("user")
    ));
    let made = resolve(&all, &text).unwrap().unwrap();
    let expected = json!({
        "apiVersion": "bitnami.com/v1alpha1",
        "kind": "SealedSecret",
        "metadata": {"name": "web", "annotations": {WIDE: "true", "gitseal.dev/template-inputs": "tls.key"}},
        "spec": {
            "encryptedData": {"password": sealed_text(7), "tls.key": sealed_text(8)},
            "template": {
                "type": "Opaque",
                "metadata": {"labels": {"app": "web"}},
                "data": {
                    "auth": r#"{"a": "{{ printf "%s%s%s" "me:" (index . "password") "" | b64enc }}"}"#,
                    "plain": "user",
                    "url": r#"postgres://me:{{ index . "password" }}@db/{{ "{" }}{{ index . "tls.key" }}} {{ "{{" }} x }}"#,
                },
            },
        },
    });
    assert_eq!(made, expected);
    assert_eq!(all.all_used(), Ok(()));
}

#[test]
fn what_no_secret_contains_is_refused() {
    let (all, words) = placeholders(WIDE);
    let word = &words[0];
    assert_eq!(resolve(&all, &secret("stringData: {a: b}\n")), Ok(None));
    let refused = |text: &str| resolve(&all, text).unwrap_err();
    let map =
        |value: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: web}}\ndata:\n  a: [{value}]\n");
    let told = refused(&map(&format!("x{word}y")));
    assert!(told.starts_with("data.a[0] contains the sealed value auth.password: a sealed value can only"), "{told}");
    assert!(refused(&map(&word.to_uppercase())).starts_with("data.a[0] contains the sealed value: "));
    let labelled = secret("stringData: {}\n").replace("app: web", &format!("app: {word}"));
    assert!(refused(&labelled).starts_with("metadata.labels.app contains"));
    for changed in [word[..20].to_owned(), word.to_uppercase(), STANDARD.encode(word.to_uppercase())] {
        let told = refused(&secret(&format!("stringData: {{a: {changed}, b: {word}}}\n")));
        assert!(told.starts_with("stringData.a contains a sealed value that a template changed"), "{told}");
        let told = refused(&secret(&format!("stringData: {{a: {changed}}}\n")));
        assert!(told.starts_with("stringData.a contains a sealed value that a template changed"), "{told}");
    }
    let binary = secret(&format!("data: {{a: {}}}\nstringData: {{b: {word}}}\n", STANDARD.encode([0xff, 0xfe])));
    assert!(refused(&binary).starts_with("data.a is not text"));
    let (fresh, _) = placeholders(WIDE);
    assert!(
        fresh.all_used().unwrap_err().starts_with("no Secret of the chart contains auth.password, the sealed value")
    );
}

#[test]
fn thousands_of_values_in_one_text_all_get_a_key() {
    let values: String = (0..MOST_VALUES).map(|number| format!("    v{number}: {}\n", sealed_text(7))).collect();
    let text = format!(
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: db, namespace: shop, annotations: {{{WIDE}: \
         'true'}}}}\nspec:\n  encryptedData:\n{values}"
    );
    let mut all = Placeholders::default();
    let wanted = SealedValues { file: "secrets/db.yaml".into(), content: None, key: None, path: Some("auth".into()) };
    let limits = Limits { memory: 1 << 30, ..Limits::default() };
    let manifests = manifests::parse("secrets/db.yaml", text.as_bytes(), &limits).unwrap();
    all.add(&wanted, &manifests).unwrap();
    let words: String = all.by_word.keys().map(|word| word.clone() + " ").collect();
    let secret = secret(&format!("stringData: {{a: '{words}'}}\n"));
    let [secret] = &manifests::parse("", secret.as_bytes(), &limits).unwrap()[..] else { panic!() };
    let made = all.resolved(secret, "shop", &mut |_| true).unwrap().unwrap();
    assert_eq!(made["spec"]["encryptedData"].as_object().map(Map::len), Some(MOST_VALUES));
    let told = all.add(&wanted, &manifests);
    assert!(
        told.as_ref()
            .is_err_and(|told| told
                .ends_with("at most 2500 sealed values and values of Secrets for its chart and its variables")),
        "{told:?}"
    );
}

#[test]
fn a_value_is_only_put_where_it_can_be_unsealed() {
    let refused = |scope: &str, metadata: &str| {
        let (all, words) = placeholders(scope);
        let text = secret(&format!("stringData: {{a: {}}}\n", words[0])).replace("name: web", metadata);
        resolve(&all, &text).map(|made| made.is_some())
    };
    assert_eq!(refused("", "name: db"), Ok(true));
    let told = refused("", "name: web").unwrap_err();
    let expected = "it contains the value of auth.password: the sealed value password of secrets/db.yaml, which is sealed for the Secret \
                    shop/db and cannot be unsealed here: seal it for the Secret shop/web, or seal it with --scope \
                    namespace-wide";
    assert_eq!(told, expected);
    assert!(refused(WIDE, "name: web").is_ok());
    assert!(refused(WIDE, "name: web, namespace: other").unwrap_err().contains("sealed for the namespace shop"));
    assert!(refused("sealedsecrets.bitnami.com/cluster-wide", "name: web, namespace: other").is_ok());
}

#[test]
fn braces_before_a_value_stay_as_they_are() {
    let (all, words) = placeholders(WIDE);
    for count in 0..6 {
        let text = secret(&format!("stringData: {{a: '{}{}'}}\n", "{".repeat(count), words[0]));
        let made = resolve(&all, &text).unwrap().unwrap();
        let Some(template) = made["spec"]["template"]["data"]["a"].as_str() else { continue };
        assert!(!template.contains("{{{"), "{count} braces: {template}");
    }
}

#[test]
fn base64_after_an_equals_sign_is_found() {
    let (all, words) = placeholders(WIDE);
    let text = secret(&format!("stringData: {{a: 'TOKEN={}', b: {}}}\n", STANDARD.encode(&words[0]), words[0]));
    let made = resolve(&all, &text).unwrap().unwrap();
    let expected = "TOKEN={{ printf \"%s%s%s\" \"\" (index . \"b\") \"\" | b64enc }}";
    assert_eq!(made["spec"]["template"]["data"]["a"], expected);
}

#[test]
fn base64_that_cannot_be_decoded_is_refused() {
    let (all, words) = placeholders(WIDE);
    let once = STANDARD.encode(&words[0]);
    for changed in [once.trim_end_matches('=').to_owned(), STANDARD.encode(&once), format!("https://db/{once}")] {
        let told = resolve(&all, &secret(&format!("stringData: {{a: '{changed}', b: {}}}\n", words[0])));
        assert!(told.as_ref().is_err_and(|told| told.contains("a template changed")), "{changed}: {told:?}");
    }
    let map = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: web}}\ndata: {{a: {once}}}\n");
    assert!(resolve(&all, &map).unwrap_err().starts_with("data.a contains the sealed value: "));
}

/// The word of the placeholder with this index.
fn word_of(all: &Placeholders, index: usize) -> String {
    all.by_word.iter().find(|(_, known)| **known == index).unwrap().0.clone()
}

/// A text is put together from random pieces, each of them plain or in base64. The template that is made from this text
/// gives the same text again, with the values instead of the placeholders.
#[test]
fn templates_give_the_text_with_its_values() {
    let (all, words) = placeholders(WIDE);
    let values = ["s3cr{{et", "k%s\"\\\u{e9}"];
    let with_values = |text: &str| text.replace(&words[0], values[0]).replace(&words[1], values[1]);
    let plain = [
        "{",
        "{{",
        "}",
        "}}",
        "{{-",
        "-}}",
        "{{/*",
        "*/}}",
        "`",
        "\"",
        "\\",
        "%",
        "%!s",
        "=",
        "/",
        "+",
        "a",
        "ab",
        "abc",
        "\u{e9}",
        "\u{1f600}",
        "\n",
        " ",
        "\u{1}",
        "\u{7f}",
        "-",
        "_",
        &words[0],
        &words[1],
    ];
    let mut state = 42_u64;
    let mut pick = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most
    };
    for _ in 0..5_000 {
        let (mut text, mut expected) = (words[0].clone(), values[0].to_owned());
        for _ in 0..pick(6) {
            let inner: String = (0..pick(5)).map(|_| plain[pick(plain.len())]).collect();
            if pick(3) == 0 {
                // If two texts in base64 were side by side, nothing would show where the first one ends.
                text.push_str(&format!(".{}.", STANDARD.encode(&inner)));
                expected.push_str(&format!(".{}.", STANDARD.encode(with_values(&inner))));
            } else {
                text.push_str(&inner);
                expected.push_str(&with_values(&inner));
            }
        }
        let parts = all.parts(&text).unwrap_or_else(|()| panic!("{text:?} is refused"));
        let names = BTreeMap::from([(0, "password".to_owned()), (1, "tls.key".to_owned())]);
        let template = template("a", &parts, &names);
        let data = [("password", values[0].as_bytes()), ("tls.key", values[1].as_bytes())];
        let salts = gotemplate::Salts::new("shop", "web", std::iter::empty::<(&str, &str)>());
        let mut renderer = gotemplate::Renderer::new(data, salts, gotemplate::Limits::default());
        let rendered = renderer.render("a", &template).unwrap_or_else(|error| panic!("{error}: {template}"));
        assert_eq!(String::from_utf8_lossy(&rendered), expected, "{text:?} {template}");
    }
}

fn wanted(key: &str, path: &str) -> SealedValues {
    SealedValues { file: "secrets/db.yaml".into(), content: None, key: Some(key.into()), path: Some(path.into()) }
}

#[test]
fn one_value_may_have_two_names_and_a_later_one_replaces_an_earlier_one() {
    let mut all = Placeholders::default();
    for path in ["auth.password", "db.password"] {
        all.add(&wanted("password", path), &parsed(&file(WIDE))).unwrap();
    }
    let word = word_of(&all, 0);
    resolve(&all, &secret(&format!("stringData: {{a: {word}}}\n"))).unwrap();
    assert_eq!(all.all_used(), Ok(()), "two names");
    let mut all = Placeholders::default();
    all.add(&wanted("password", "auth.password"), &parsed(&file(WIDE))).unwrap();
    all.add(&wanted("tls.key", "auth.password"), &parsed(&file(WIDE))).unwrap();
    let word = word_of(&all, 1);
    resolve(&all, &secret(&format!("stringData: {{a: {word}}}\n"))).unwrap();
    assert_eq!(all.all_used(), Ok(()), "replaced");
}

#[test]
fn a_value_that_is_not_a_text_is_refused() {
    let (all, words) = placeholders(WIDE);
    for field in ["stringData: {port: 5432, a: WORD}", "data: {a: [x]}\nstringData: {b: WORD}"] {
        let told = resolve(&all, &secret(&(field.replace("WORD", &words[0]) + "\n")));
        assert!(told.is_err(), "{field}: {told:?}");
    }
    let in_key = secret(&format!("stringData: {{{}: x}}\n", words[0]));
    assert!(resolve(&all, &in_key).is_err(), "a key");
}

#[test]
fn long_names_of_fields_cost_no_time() {
    let mut fields = Map::new();
    for number in 0..50_000 {
        fields.insert(format!("k{number}"), Value::String("x".into()));
    }
    let value = json!({"a".repeat(1 << 20): fields});
    let since = std::time::Instant::now();
    assert_eq!(place_of_word("data", &value), None);
    assert!(since.elapsed().as_secs() < 2, "{:?}", since.elapsed());
}

#[test]
fn a_large_value_is_put_only_where_there_is_memory_for_it() {
    let large = STANDARD.encode([&[1, 0][..], &[7; 300], &vec![9; 700_000]].concat());
    let text = file(WIDE).replace(&sealed_text(7), &large);
    let mut all = Placeholders::default();
    all.add(&wanted("password", "a"), &parsed(&text)).unwrap();
    let word = word_of(&all, 0);
    let small = secret(&format!("stringData: {{a: {word}, b: {word}, c: {word}, d: x{word}}}\n"));
    let mut asked = 0;
    let told = all.resolve(&mut parsed(&small)[0], "shop", &mut |bytes| {
        asked = bytes;
        false
    });
    assert_eq!(told, Err(Unsealable::NoRoom));
    let made = all.resolve(&mut parsed(&small)[0], "shop", &mut |_| true).unwrap().unwrap();
    assert!(asked >= 2 * made.len() as u64, "{asked} bytes for two times {}", made.len());
}

#[test]
fn templates_do_not_grow_beyond_the_memory_that_is_taken() {
    let (all, words) = placeholders(WIDE);
    let (word, key) = (&words[0], "k".repeat(253));
    for text in
        ["{{".repeat(5000), "\u{1}".repeat(5000), word.repeat(300), STANDARD.encode("\u{1}".repeat(5000) + word)]
    {
        let small = secret(&format!("data: {{a: {}}}\nstringData: {{{key}: {word}}}\n", STANDARD.encode(text)));
        let mut asked = 0;
        let made = all.resolve(&mut parsed(&small)[0], "shop", &mut |bytes| {
            asked = bytes;
            true
        });
        let made = made.unwrap().unwrap();
        assert!(asked >= 2 * made.len() as u64, "{asked} bytes for two times {}", made.len());
    }
}

#[test]
fn without_a_path_each_key_is_the_name_of_a_value() {
    let wanted = SealedValues { file: "secrets/db.yaml".into(), content: None, key: None, path: None };
    let names = |keys: &str| {
        let text = file(WIDE).split_once("    password").unwrap().0.to_owned();
        let values: String = keys.split(' ').map(|key| format!("    {key}: {}\n", sealed_text(7))).collect();
        let values = Placeholders::default().add(&wanted, &parsed(&(text + &values)))?;
        let name = |value: Values| match value {
            Values::SetString(text) => text.split_once('=').unwrap().0.to_owned(),
            other => panic!("{other:?}"),
        };
        Ok::<_, String>(values.into_iter().map(name).collect::<Vec<_>>())
    };
    assert_eq!(names("password auth.password a.b.c").unwrap(), ["password", "auth.password", "a.b.c"]);
    for (keys, told) in [
        (".a", "secrets/db.yaml:1: the key .a is no name of a value: a part of it between dots is empty"),
        ("a..b", "the key a..b is no name"),
        ("a.", "the key a. is no name"),
        ("a a-b a.b.c", "secrets/db.yaml:1: the keys a and a.b.c exclude each other: a would be a value and a table"),
    ] {
        let error = names(keys).unwrap_err();
        assert!(error.contains(told), "{keys}: {error}");
    }
}

#[test]
fn a_key_that_no_secret_can_have_is_refused() {
    for key in ["a,b", "a=b", "", "{x}"] {
        let text = file(WIDE).replace("tls.key", &format!("'{key}'"));
        let told = Placeholders::default().add(&wanted(key, "auth"), &parsed(&text));
        assert!(told.as_ref().is_err_and(|told| told.contains("cannot be a key of a Secret")), "{key}: {told:?}");
    }
}

/// Seals by putting the place before the wrapped text.
struct Fake;

impl Sealer for Fake {
    fn seal(&self, value: &WrappedValue, binding: Binding<'_>) -> Result<String, String> {
        let wrapped = &value.wrapped;
        if wrapped == "broken" {
            return Err("it is broken".to_owned());
        }
        let Binding { scope, namespace, name, key } = binding;
        Ok(format!("{scope} {namespace}/{name}/{key}: {wrapped}"))
    }
}

/// What a chart or variables get from a Secret with these values. The digest of each is its wrapped text 32 times.
fn of_secret(values: &[(&str, &str)], key: Option<&str>, path: Option<&str>) -> ClusterSecret {
    let wrapped = |(key, text): &(&str, &str)| {
        let digest =
            text.as_bytes().iter().cycle().take(32).map(|byte| char::from(b"0123456789abcdef"[usize::from(byte % 16)]));
        ((*key).to_owned(), WrappedValue { digest: digest.collect(), wrapped: (*text).to_owned() })
    };
    let text = crate::wrapped_values(&values.iter().map(wrapped).collect());
    let (key, path) = (key.map(str::to_owned), path.map(str::to_owned));
    ClusterSecret {
        name: "Secret shop/db".into(),
        content: text.into_bytes().into(),
        sealer: Arc::new(Fake),
        key,
        path,
    }
}

#[test]
fn a_value_of_a_secret_is_sealed_for_the_secret_that_it_is_put_into() {
    let mut all = Placeholders::default();
    let words = all.add_secret_variables(&of_secret(&[("password", "one"), ("tls.key", "two")], None, None)).unwrap();
    let [(name, word)] = &words[..] else { panic!("{words:?}") };
    assert!(name == "password" && word.starts_with(BEGINS_WITH) && word.len() == LENGTH, "{words:?}");
    let made = resolve(&all, &secret(&format!("stringData: {{a: {word}, url: 'db://{word}@db'}}"))).unwrap().unwrap();
    let spec = &made["spec"];
    assert_eq!(spec["encryptedData"], json!({"a": "strict shop/web/a: one"}));
    assert_eq!(spec["template"]["data"], json!({"url": "db://{{ index . \"a\" }}@db"}));
    assert_eq!(made["metadata"].get("annotations"), None, "the scope is strict");
    let made = resolve(&all, &secret(&format!("data: {{url: {}}}", STANDARD.encode(format!("db://{word}"))))).unwrap();
    let made = made.unwrap();
    assert_eq!(made["spec"]["encryptedData"], json!({"password": "strict shop/web/password: one"}));
    assert_eq!(made["metadata"]["annotations"], json!({TEMPLATE_INPUTS: "password"}));

    let map = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{a: 'x {word}'}}\n");
    let told = resolve(&all, &map).unwrap_err();
    assert!(
        told.starts_with("data.a contains the value password of Secret shop/db: a value of a Secret can only be in"),
        "{told}"
    );
    let told = resolve(&all, &secret(&format!("stringData: {{a: {}}}", word.to_uppercase()))).unwrap_err();
    assert!(told.contains("that a template changed"), "{told}");
}

#[test]
fn values_of_a_secret_get_the_scope_of_the_sealed_values_beside_them() {
    for (scope, sealed) in
        [("", None), (WIDE, Some("namespace-wide shop/web/a: one")), ("sealedsecrets.bitnami.com/cluster-wide", None)]
    {
        let (mut all, words) = placeholders(scope);
        let of_secret = all.add_secret_variables(&of_secret(&[("password", "one")], None, None)).unwrap();
        let text = secret(&format!("stringData: {{a: {}, b: {}}}", of_secret[0].1, words[0]));
        let made = resolve(&all, &text.replace("name: web", if scope.is_empty() { "name: db" } else { "name: web" }));
        match (scope, sealed) {
            (_, Some(sealed)) => assert_eq!(made.unwrap().unwrap()["spec"]["encryptedData"]["a"], json!(sealed)),
            ("", None) => {
                assert_eq!(made.unwrap().unwrap()["spec"]["encryptedData"]["a"], json!("strict shop/db/a: one"));
            }
            _ => {
                let told = made.unwrap_err();
                assert!(
                    told.contains("must not be sealed cluster-wide") && told.contains("--scope namespace-wide"),
                    "{told}"
                );
            }
        }
    }
}

#[test]
fn a_chart_gets_values_of_a_secret_by_their_names() {
    let values = [("host", "three"), ("password", "one")];
    for (key, path, names) in [
        (Some("password"), Some("auth.password"), &["auth.password"][..]),
        (None, Some("auth"), &["auth.host", "auth.password"]),
        (None, None, &["host", "password"]),
    ] {
        let mut all = Placeholders::default();
        let values = all.add_secret(&of_secret(&values, key, path)).unwrap();
        let found: Vec<_> = values
            .iter()
            .map(|value| match value {
                Values::SetString(text) => text.split_once('=').unwrap().0,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(found, names);
        // The program that makes the Secret may give it keys that the chart does not use.
        assert_eq!(all.all_used().is_ok(), key.is_none());
        let told = all.all_used().err().unwrap_or_default();
        assert!(key.is_none() || told.contains(" of Secret shop/db: either the chart does not use it"), "{told}");
    }
    let told = Placeholders::default().add_secret(&of_secret(&[("a", "one"), ("a.b", "two")], None, None)).unwrap_err();
    assert_eq!(told, "Secret shop/db: the keys a and a.b exclude each other: a would be a value and a table");
}

#[test]
fn values_of_secrets_are_sealed_for_a_limited_number_of_places() {
    let mut all = Placeholders::default();
    let words = all.add_secret_variables(&of_secret(&[("a", "one"), ("b", "broken")], None, None)).unwrap();
    let told = resolve(&all, &secret(&format!("stringData: {{a: {}}}", words[1].1))).unwrap_err();
    assert_eq!(told, "the value b of Secret shop/db could not be sealed: it is broken");
    let text = secret(&format!("stringData: {{a: {}}}", words[0].1));
    for _ in 1..MOST_VALUES {
        resolve(&all, &text).unwrap();
    }
    let told = resolve(&all, &text).unwrap_err();
    assert!(told.contains("into more than 2500 places"), "{told}");
}
