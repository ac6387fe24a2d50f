use proptest::prelude::*;
use serde_json::json;

use super::*;

fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value.as_object().unwrap());
    text
}

/// Compares our output with that of go-yaml 2.4.3 for a mapping with the key `k` and one of these texts as its value.
#[test]
fn strings_have_go_yaml_s_quotes() {
    for (text, written) in [
        ("", "\"\""),
        ("a b", "a b"),
        ("a: b", "'a: b'"),
        ("a:b", "a:b"),
        ("a #b", "'a #b'"),
        ("a#b", "a#b"),
        ("- a", "'- a'"),
        ("-a", "-a"),
        ("'a", "'''a'"),
        ("a'", "a'"),
        (" a", "' a'"),
        ("a ", "'a '"),
        ("true", "\"true\""),
        ("y", "\"y\""),
        ("1e3", "\"1e3\""),
        ("0123", "\"0123\""),
        ("12:30:45", "\"12:30:45\""),
        ("12:30:75", "12:30:75"),
        ("2020-01-01", "\"2020-01-01\""),
        ("2020-1-1T1:2:3.5Z", "\"2020-1-1T1:2:3.5Z\""),
        ("2020-01-01T01:02:03+01:00", "\"2020-01-01T01:02:03+01:00\""),
        ("2020-01-01 01:02:03", "\"2020-01-01 01:02:03\""),
        ("2020-02-30", "2020-02-30"),
        ("2020-01-01T01:02:03", "2020-01-01T01:02:03"),
        ("~", "\"~\""),
        ("<<", "<<"),
        ("=", "="),
        ("\u{e9}", "\u{e9}"),
        ("\u{1f600}", "\"\\U0001F600\""),
        ("a\tb", "\"a\\tb\""),
        ("a\u{1}b", "\"a\\x01b\""),
        ("---", "'---'"),
        ("a\nb", "|-\n  a\n  b"),
        ("a\nb\n", "|\n  a\n  b"),
        ("a\n\n", "|+\n  a\n"),
        ("\na", "|2-\n\n  a"),
        (" a\nb", "|2-\n   a\n  b"),
        ("a \nb", "\"a \\nb\""),
        ("a\nb ", "\"a\\nb \""),
        ("a\r\nb", "\"a\\r\\nb\""),
    ] {
        assert_eq!(yaml(&json!({"k": text})), format!("k: {written}\n"), "{text:?}");
    }
}

#[test]
fn keys_are_in_go_yaml_s_order() {
    let text = yaml(
        &json!({"a10": 1, "a9": 1, "a": 1, "B": 1, "_": 1, "1": 1, "a.b": 1, "a/b": 1, "ab": 1, "a100": 1, "a01": 1}),
    );
    let keys: Vec<_> = text.lines().map(|line| line.split(':').next().unwrap().trim_matches('"')).collect();
    assert_eq!(keys, ["_", "1", "B", "a", "a.b", "a/b", "a01", "a9", "a10", "a100", "ab"]);
}

#[test]
fn lists_are_not_indented() {
    let value = json!({"a": [{"c": [1, []], "b": {}}, "x"], "d": {"e": []}});
    assert_eq!(yaml(&value), "a:\n- b: {}\n  c:\n  - 1\n  - []\n- x\nd:\n  e: []\n");
}

#[test]
fn long_keys_stand_alone() {
    let key = "k".repeat(129);
    assert_eq!(yaml(&json!({ key.as_str(): "v" })), format!("? {key}\n: v\n"));
}

proptest! {
    #[test]
    fn any_text_reads_back(text in r"(?s)([ \n:#'a0-]|\PC){0,20}", key in r"[ :#'a0-]{0,5}|\PC{0,5}") {
        // go-yaml writes the key `<<` without quotes. Then it is not read as a key, but merges another mapping into
        // this one.
        prop_assume!(key != "<<");
        let value = json!({ key.as_str(): text });
        let written = yaml(&value);
        let document = manifests::split(&written).next().unwrap();
        let read = manifests::parse_mapping("x", &document, &manifests::Limits::default());
        prop_assert_eq!(read.unwrap().map(Value::Object), Some(value), "{}", written);
    }
}
