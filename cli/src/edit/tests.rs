use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use sealing::{PrivateKey, Scope};

use super::*;

/// Every plaintext value in these tests contains this text, and nothing else does.
const MARK: &str = "hunter2";

fn key() -> &'static PrivateKey {
    static KEY: OnceLock<PrivateKey> = OnceLock::new();
    KEY.get_or_init(|| PrivateKey::generate(2048).unwrap())
}

fn seal(text: &str) -> anyhow::Result<String> {
    let sealer = Sealer {
        key: key().public_key(),
        scope: None,
        namespace: Some("shop".to_owned()),
        is_namespace_asked_for: false,
        allow_empty: true,
    };
    Text::read("a.yaml", text).seal(&sealer).map(|(text, _)| text)
}

/// Parses a text as a plaintext Secret.
fn secret(text: &str) -> Option<PlainSecret> {
    let document = manifests::split(text).find(|document| !document.is_empty())?;
    match manifests::parse_document("a.yaml", &document, &Limits::default()) {
        Ok(Content::Object(manifest)) if is_plain_secret(&manifest) => PlainSecret::take(*manifest, None, 1).ok(),
        _ => None,
    }
}

/// Checks that the sealed text is unsealed to the Secret in the plain text.
fn assert_same(plain: &str, sealed: &str) {
    let plain = secret(plain).unwrap();
    let manifest = manifests::parse("sealed", sealed.as_bytes(), &Limits::default()).unwrap().remove(0);
    assert_eq!(manifest.id.kind, "SealedSecret");
    let spec = &manifest.body["spec"];
    let values = spec["encryptedData"].as_object().unwrap();
    assert_eq!(values.keys().collect::<Vec<_>>(), plain.data.keys().collect::<Vec<_>>());
    for (name, value) in &plain.data {
        let unsealed =
            sealing::unseal([key()], Scope::Strict.binding("shop", "db", name), values[name].as_str().unwrap())
                .unwrap();
        assert!(unsealed.expose() == value.expose(), "{name}");
    }
    let mut template = spec["template"]["metadata"].as_object().unwrap().clone();
    assert_eq!(template.shift_remove("name"), Some("db".into()));
    assert_eq!(template.shift_remove("namespace"), Some("shop".into()));
    assert_eq!(template, plain.metadata);
    assert_eq!(spec["template"].get("type").and_then(Value::as_str), plain.secret_type.as_deref());
}

#[test]
fn a_layout_that_cannot_be_kept_is_written_plainly() {
    for metadata in [
        "metadata: {name: db, namespace: shop, labels: {a: b}}\n",
        "metadata:\n  {name: db,\n  namespace: shop}\n",
        "metadata: &m\n  name: db\n  namespace: &n shop\n  labels: {a: *n}\n",
        "? metadata\n: name: db\n  namespace: shop\n",
        "metadata:\n  <<: {name: db}\n  namespace: shop\n",
        "\"metadata\":\n              name: db\n              namespace: shop\n              labels:\n               a: |\n                x\n",
        "metadata:\n  namespace: >-\n    shop\n\n  name: |-\n    db\n  # end\n",
        "metadata:\n  name: db\n  annotations:\n    kubectl.kubernetes.io/last-applied-configuration: 'hunter2'\n",
    ] {
        for rest in [
            "stringData:\n  a: hunter2",
            "stringData: {a: hunter2}\n",
            "stringData:\n  a: |+\n    hunter2\n    # x\n\n\n# end\n",
        ] {
            let text = format!("apiVersion: v1\n{metadata}kind: Secret\n{rest}");
            let sealed = seal(&text).unwrap();
            assert!(!sealed.contains(MARK), "{text}\n{sealed}");
            assert_same(&text, &sealed);
        }
    }
}

#[test]
fn other_documents_and_the_places_between_are_kept() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop}\ndata: {a: ''}\n";
    let other = "\u{feff}# é\n%YAML 1.2\n---\na:   [1,2 ]\n--- # x\n\n";
    for text in
        [format!("{other}{secret}"), format!("{other}{secret}---\n{{ }}\n"), format!("{other}--- !!map\n{secret}")]
    {
        let sealed = seal(&text).unwrap();
        assert!(sealed.starts_with(other), "{sealed}");
        assert_eq!(sealed.ends_with("---\n{ }\n"), text.ends_with("---\n{ }\n"));
        assert!(sealed.contains("kind: SealedSecret"));
    }
    assert_eq!(seal(other).unwrap(), other);
}

#[test]
fn a_text_that_may_have_been_a_secret_is_told() {
    for (text, is_told) in [
        ("kind: Secret\nmetadata: {name: {{ x }}}\n", true),
        ("- kind: \"Secret\"\n  a: [\n", true),
        ("{\"kind\": \"Secret\", \n", true),
        ("kind: SecretStore\na: [\n", false),
        ("# kind: Secret\na: [\n", false),
        ("apiVersion: v1\nkind: Secret\nmetadata: {}\n", true),
        ("a: 1\n", false),
    ] {
        assert_eq!(!Text::read("a.yaml", text).unreadable.is_empty(), is_told, "{text}");
    }
}

/// A comment line near a value, with its line end.
fn comment(indent: usize) -> impl Strategy<Value = String> {
    let text = select(vec!["", "# a comment", "# b: c", "#", "   "]);
    text.prop_map(move |text| {
        format!("{}{text}\n", if text.starts_with('#') { " ".repeat(indent) } else { String::new() })
    })
}

fn comments(indent: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(comment(indent), 0..3).prop_map(|lines| lines.concat())
}

/// A value that contains [`MARK`], in one of the forms that YAML allows at this indentation.
fn value(indent: usize) -> impl Strategy<Value = String> {
    let space = " ".repeat(indent + 2);
    select(vec![
        "hunter2".to_owned(),
        "hunter2 # x".to_owned(),
        "'hunter2'".to_owned(),
        format!("\"a\\\n{space}hunter2\""),
        format!("'a\n\n{space}# hunter2'"),
        format!("a\n{space}hunter2"),
        format!("|\n{space}# x\n{space}hunter2"),
        format!("|+ # x\n{space}a\n\n{space}# hunter2\n\n"),
        format!(">2-\n{space}hunter2\n{space}# x"),
        "!!str hunter2".to_owned(),
        "&a hunter2".to_owned(),
    ])
}

/// A Secret `shop/db` as people write it, with comments in any place.
fn secret_text() -> impl Strategy<Value = String> {
    (select(vec![1_usize, 2, 4, 8]), select(vec![1_usize, 2, 4])).prop_flat_map(|(outer, inner)| {
        let space = " ".repeat(outer);
        let text = r#"['"]?[a-z#:{} -]{0,8}"#;
        let field = (select(vec!["labels", "annotations"]), text, comments(outer + 2), comments(outer)).prop_map({
            let space = space.clone();
            move |(field, text, above, below)| {
                format!("{space}{field}: # {field}\n{above}{space}  {field}.x/y: {}\n{below}", Value::from(text))
            }
        });
        let metadata = (comments(outer), field, comments(0)).prop_map(move |(above, field, below)| {
            format!("metadata:\n{above}{space}name: db # its name\n{field}{space}namespace: shop\n{below}")
        });
        let values = (comments(inner), value(inner), comments(inner), comments(0)).prop_map(
            move |(above, value, below, end)| {
                format!("stringData:\n{above}{}k: {value}\n{below}{end}", " ".repeat(inner))
            },
        );
        let rest = (comments(0), select(vec!["", "type: Opaque\n", "type: Opaque # x\nimmutable: true\n"]))
            .prop_map(|(above, rest)| format!("{above}{rest}"));
        let parts =
            (metadata, values, rest).prop_map(|(metadata, values, rest)| vec![metadata, values, rest]).prop_shuffle();
        let crlf = any::<bool>();
        (comments(0), select(vec!["", "---\n", "--- # x\n"]), parts, crlf).prop_map(|(head, marker, parts, crlf)| {
            let text = format!("{marker}{head}apiVersion: v1\nkind: Secret\n{}", parts.concat());
            if crlf { text.replace('\n', "\r\n") } else { text }
        })
    })
}

proptest! {
    #[test]
    fn any_layout_is_sealed_to_the_same_secret_and_shows_nothing(text in secret_text()) {
        let sealed = seal(&text).map_err(|error| TestCaseError::fail(format!("{error:#}\n{text}")))?;
        prop_assert!(!sealed.contains(MARK), "{}\n->\n{}", text, sealed);
        assert_same(&text, &sealed);
        prop_assert_eq!(text.contains('\r'), sealed.contains('\r'));
        let again = seal(&sealed).unwrap();
        prop_assert_eq!(again, sealed);
    }

    /// Damages the text in any way. If the damaged text still contains a value, the output does not show this value.
    #[test]
    fn a_damaged_layout_shows_nothing_either(
        text in secret_text(),
        damage in prop::collection::vec((any::<Index>(), select(vec!["\n", "#", " ", "\"", "'", ":", "- ", "\n---\n", "|", "{", "}", "&a ", "*a", "\t"])), 1..4),
    ) {
        let mut text = text;
        for (at, piece) in damage {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            text.insert_str(places[at.index(places.len())], piece);
        }
        let is_value = secret(&text).is_some_and(|secret| {
            secret.data.values().any(|value| String::from_utf8_lossy(value.expose()).contains(MARK))
        });
        if let (true, Ok(sealed)) = (is_value && text.matches(MARK).count() == 1, seal(&text)) {
            prop_assert!(!sealed.contains(MARK), "{}\n->\n{}", text, sealed);
        }
    }
}
