#![allow(clippy::format_collect)] // `collect` of `format!` is short and clear, and a test may be slow.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(text: &str) -> Vec<Manifest> {
    parse("app.yaml", text.as_bytes(), &Limits::default()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn refuse(text: &str) -> ParseError {
    match parse("app.yaml", text.as_bytes(), &Limits::default()) {
        Err(error) => error,
        Ok(manifests) => panic!("accepted: {manifests:?}\n{text}"),
    }
}

/// Parses an object with this `spec`, and returns the value of `spec`.
fn spec(spec: &str) -> Value {
    let mut manifest = read(&format!("{{apiVersion: v1, kind: A, metadata: {{name: a}}}}\n---\napiVersion: v1\nkind: A\nmetadata: {{name: a}}\nspec:\n{spec}")).remove(1);
    manifest.body.remove("spec").unwrap()
}

fn places(text: &str) -> Vec<String> {
    read(text).iter().map(|manifest| format!("{} {}", manifest.origin, manifest.id)).collect()
}

#[test]
fn documents_of_a_file_with_their_lines() {
    let text = "\u{feff}# a comment\n---\n# another\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  namespace: shop\n\
        ---\n---\n# nothing\n...\n--- # here\n{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"shop\"}}\n";
    let expected = ["app.yaml:4 Deployment shop/web", "app.yaml:14 Namespace shop"];
    assert_eq!(places(text), expected);
    assert_eq!(places(&text.replace('\n', "\r\n")), expected);
    let web = &read(text)[0];
    assert_eq!((web.api_version().as_str(), web.version.as_str()), ("apps/v1", "v1"));
    assert_eq!(web.body["metadata"], json!({"name": "web", "namespace": "shop"}));
}

#[test]
fn nothing_in_a_file_is_no_error() {
    for text in ["", "\n", "---\n", "# a\n---\n# b\n", "null\n", "\u{feff}", "---\n---\n..."] {
        assert_eq!(read(text), [], "{text:?}");
    }
}

#[test]
fn json_is_read_too() {
    let text = "{\n\t\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\n\t\"metadata\":{\"name\":\"a\"},\n\t\"data\":{\"k\":\"\\ud83d\\ude00 \\/ \\u0041\",\"yes\":\"no\"}\n}\n";
    assert_eq!(read(text)[0].body["data"], json!({"k": "😀 / A", "yes": "no"}));
    let long = "x".repeat(200_000);
    let text = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a"}},"data":{{"k":"{long}"}}}}"#);
    assert_eq!(read(&text)[0].body["data"]["k"], long);
}

#[test]
fn lists_are_replaced_by_their_items() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: a}\n\
        -\n  apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: b, labels: {items: [x]}}\n";
    assert_eq!(places(text), ["app.yaml:4 ConfigMap a", "app.yaml:8 ConfigMap b"]);
    let typed = "apiVersion: v1\nkind: ConfigMapList\nmetadata: {}\nitems:\n- metadata: {name: a}\n";
    assert_eq!(places(typed), ["app.yaml:5 ConfigMap a"]);
    assert_eq!(read(typed)[0].body["apiVersion"], "v1");
    assert_eq!(places("apiVersion: v1\nkind: List\n"), [] as [&str; 0]);
    let named = "apiVersion: example.com/v1\nkind: PriceList\nmetadata: {name: a}\nitems: [1]\n";
    assert_eq!(places(named), ["app.yaml:1 PriceList.example.com a"], "a custom resource of that name is no list");
}

#[test]
fn types_are_those_that_kubernetes_sees() {
    assert_eq!(
        spec(
            "  mode: 0644\n  quoted: \"0644\"\n  literal: |\n    yes\n  single: 'null'\n  on: off\n  1: a\n  empty:\n  list: [1.0, ~, 2024-01-01]\n"
        ),
        json!({"mode": 420, "quoted": "0644", "literal": "yes\n", "single": "null", "true": false, "1": "a", "empty": null, "list": [1, null, "2024-01-01"]})
    );
    assert_eq!(
        spec("  a: !!str 1\n  b: !!int \"5\"\n  c: !foo 12\n  d: ! 12\n  e: !foo [1]\n"),
        json!({"a": "1", "b": 5, "c": "12", "d": "12", "e": [1]})
    );
}

#[test]
fn aliases_and_merges() {
    assert_eq!(
        spec("  a: &x {k: 1}\n  b: *x\n  c: [*x, &y 2, *y]\n"),
        json!({"a": {"k": 1}, "b": {"k": 1}, "c": [{"k": 1}, 2, 2]})
    );
    assert_eq!(spec("  &k a: 1\n  b: *k\n  c: {*k : 2}\n"), json!({"a": 1, "b": "a", "c": {"a": 2}}));
    assert_eq!(
        spec("  a: &x {k: 1}\n  b: &y {k: 2, l: 3}\n  c:\n    <<: [*x, *y]\n    l: 4\n    m: 5\n  d: {\"<<\": 1}\n"),
        json!({"a": {"k": 1}, "b": {"k": 2, "l": 3}, "c": {"k": 1, "l": 4, "m": 5}, "d": {"<<": 1}})
    );
}

#[test]
fn refusals_say_where_and_what_to_do_and_quote_nothing() {
    const HEAD: &str = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\n";
    for (text, message) in [
        ("  hunter2\n", "1: not a Kubernetes object: expected a mapping with apiVersion, kind and metadata"),
        ("- hunter2\n", "1: not a Kubernetes object: expected a mapping with apiVersion, kind and metadata"),
        ("kind: A\nmetadata: {name: hunter2}\n", "1: apiVersion is missing"),
        ("apiVersion: v1\nmetadata: {name: hunter2}\n", "1: kind is missing"),
        ("apiVersion: v1\nkind: A\n", "1: metadata is missing"),
        ("apiVersion: v1\nkind: A\nmetadata: {}\n", "1: metadata.name is missing"),
        (
            "apiVersion: v1\nkind: A\nmetadata: {generateName: hunter2}\n",
            "1: metadata.generateName makes a new object at every apply",
        ),
        ("apiVersion: v1\nkind: A\nmetadata: {name: 1}\n", "1: metadata.name is not a string"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: y}\n", "1: metadata.name is not a string"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: a, namespace: no}\n", "1: metadata.namespace is not a string"),
        ("apiVersion: 1\nkind: A\nmetadata: {name: a}\n", "1: apiVersion is not a string"),
        ("apiVersion: ../v1\nkind: A\nmetadata: {name: a}\n", "1: apiVersion is not valid"),
        ("apiVersion: a?b=c/v1\nkind: A\nmetadata: {name: a}\n", "1: apiVersion is not valid"),
        ("apiVersion: a.example.com/..\nkind: A\nmetadata: {name: a}\n", "1: apiVersion is not valid"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: hunter2/x}\n", "1: metadata.name is not valid"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: \"hunter2\\nx\"}\n", "1: metadata.name is not valid"),
        (
            "apiVersion: v1\nkind: A\nmetadata: {name: a, namespace: \"hunter2 x\"}\n",
            "1: metadata.namespace is not valid",
        ),
        ("apiVersion: a/b/c\nkind: A\nmetadata: {name: a}\n", "1: apiVersion is not valid"),
        ("apiVersion: v1\nkind: true\nmetadata: {name: a}\n", "1: kind is not a string"),
        ("apiVersion: v1\nkind: List\nitems:\n- {kind: A}\n- hunter2\n", "4: apiVersion is missing"),
        ("apiVersion: v1\nkind: List\nitems: hunter2\n", "1: items is not valid"),
        ("%HEAD%data:\n  a: hunter2\n  a: hunter3\n", "7: duplicate key data.a"),
        ("%HEAD%data: {x: [{a: hunter2, b: 2, a: 3}]}\n", "5: duplicate key data.x[0].a"),
        ("%HEAD%data: {1: a, '1': b}\n", "5: duplicate key data.1"),
        ("%HEAD%? [hunter2]\n: 1\n", "5: the document has a mapping key that is not a text, a number or a boolean"),
        ("%HEAD%data: {~: hunter2}\n", "5: data has a mapping key that is not a text, a number or a boolean"),
        ("%HEAD%data: {a: .nan}\n", "5: data.a is not a finite number"),
        ("%HEAD%data: {a: !!int hunter2}\n", "5: data.a does not fit its YAML tag"),
        ("%HEAD%data: {a: !!binary /w==}\n", "5: data.a is tagged !!binary, and its content is not text"),
        ("%HEAD%data: {a: !!binary hunter2}\n", "5: data.a does not fit its YAML tag"),
        ("%HEAD%data: *hunter2\n", "5: an alias (*) refers to no anchor (&) above it, or to one that contains it"),
        ("%HEAD%data: &a [*a]\n", "5: an alias (*) refers to no anchor (&) above it, or to one that contains it"),
        (
            "%HEAD%data: &a {k: 1}\n---\nx: *a\n",
            "7: an alias (*) refers to no anchor (&) above it, or to one that contains it",
        ),
        ("%HEAD%data: {<<: hunter2}\n", "5: data: << must be given a mapping or a sequence of mappings"),
        (
            "%HEAD%data:\n  a: hunter2\n  <<: {a: hunter3}\n",
            "7: data.a is set, and a << below it sets this key to another value",
        ),
        ("%HEAD%data:\n  a: \"hunter2\n", "7: not valid YAML: "),
        ("%HEAD%data: @hunter2\n", "5: not valid YAML: unexpected character"),
        ("%HEAD%data: [hunter2}\n", "5: not valid YAML: a bracket is not closed, or is closed by one of another kind"),
        ("%HEAD%data:\n\thunter2: 1\n", "6: not valid YAML"),
    ] {
        let error = refuse(&text.replace("%HEAD%", HEAD));
        let (shown, debugged) = (error.to_string(), format!("{error:?}"));
        assert!(shown.starts_with(&format!("app.yaml:{message}")), "{text}: {shown}");
        assert!(!shown.contains("hunter") && !debugged.contains("hunter"), "{text}: {debugged}");
        assert_ne!(error.hint(), "", "{shown}");
    }
}

#[test]
fn a_debugged_manifest_shows_no_body() {
    let manifests = read("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {k: hunter2}\n");
    assert!(!format!("{manifests:?}").contains("hunter2"));
}

#[test]
fn a_hostile_text_is_refused_by_the_bound_it_breaks() {
    let aliases: String = (1..10).map(|n| format!("a{n}: &a{n} [{}]\n", format!("*a{},", n - 1).repeat(10))).collect();
    let long = "x".repeat(1 << 20);
    let nested: String = (1..200).map(|n| format!("- &n{n} [*n{}]\n", n - 1)).collect();
    for (what, text, kind) in [
        ("brackets", "[".repeat(100_000), ErrorKind::TooDeep(100)),
        ("braces", "{a: ".repeat(100_000), ErrorKind::TooDeep(100)),
        ("dashes", "- ".repeat(100_000), ErrorKind::TooDeep(100)),
        ("question marks", "? ".repeat(100_000), ErrorKind::InvalidKey("the document".to_owned())),
        ("indentation", (0..300).map(|n| format!("{}a:\n", " ".repeat(n))).collect(), ErrorKind::TooDeep(100)),
        ("an alias bomb", format!("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n{aliases}"), ErrorKind::AliasExpansion),
        ("a long text repeated", format!("a: &a {long}\nb: [{}]\n", "*a, ".repeat(1000)), ErrorKind::AliasExpansion),
        ("aliases inside aliases", format!("- &n0 [x]\n{nested}"), ErrorKind::TooDeep(100)),
        ("values", "- \n".repeat(600_000), ErrorKind::TooManyNodes(500_000)),
        ("documents", "---\n".repeat(20_000), ErrorKind::TooManyDocuments(10_000)),
        ("size", " ".repeat((10 << 20) + 1), ErrorKind::TooLarge(10 << 20)),
    ] {
        assert_eq!(refuse(&text).kind(), &kind, "{what}");
    }
}

#[test]
fn a_digest_is_of_the_meaning_not_the_writing() {
    let digest = |text: &str| read(text)[0].digest();
    let one = digest("apiVersion: v1\nkind: A\nmetadata: {name: a}\nspec: {b: [1, {q: x, p: \"y\"}], a: null}\n");
    let same = digest(
        "{\"metadata\":{\"name\":\"a\"},\"kind\":\"A\",\"apiVersion\":\"v1\",\"spec\":{\"a\":null,\"b\":[1.0,{\"p\":\"y\",\"q\":\"x\"}]}}",
    );
    let other = digest("apiVersion: v1\nkind: A\nmetadata: {name: a}\nspec: {b: [{q: x, p: \"y\"}, 1], a: null}\n");
    assert_eq!(one, "2d92df415a6615ff", "SHA-256 of the sorted, compact JSON");
    assert_eq!(one, same);
    assert_ne!(one, other);
}

#[test]
fn manifest_files_by_name() {
    for (path, is) in [
        ("a/b.yaml", true),
        ("b.YML", true),
        ("c.json", true),
        ("yaml", false),
        (".yaml", false),
        ("a.yaml.tmp", false),
    ] {
        assert_eq!(is_manifest_file(path), is, "{path}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse("x", &bytes, &Limits::default());
    }

    #[test]
    fn no_yaml_like_text_makes_it_panic(text in r#"(?s)(\n|---\n|[ \t]{1,4}|- |\? |: |[a-c]|&[ab]|\*[ab]|<<|!!?[a-z]{0,5}|[\[\]{},'"|>%#@0-9._~-]|é){0,60}"#) {
        let _ = parse("x", text.as_bytes(), &Limits { nodes: 50, depth: 5, alias_nodes: 10, ..Limits::default() });
    }

    /// JSON is read with the same values as by a JSON parser.
    #[test]
    fn any_json_comes_back(value in json_value()) {
        let text = json!({"apiVersion": "v1", "kind": "A", "metadata": {"name": "a"}, "spec": value}).to_string();
        let manifests = parse("x", text.as_bytes(), &Limits::default()).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&manifests[0].body["spec"], &value);
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9).prop_filter("an integer reads as one", |value: &f64| value.fract() != 0.0).prop_map(Value::from),
        r"[ -~\n\t\u{a0}-\u{ff}]{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[ -~]{0,8}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
