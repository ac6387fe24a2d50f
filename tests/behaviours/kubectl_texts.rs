//! Checks that manifests are read as kubectl reads them, with generated texts and the real kubectl.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use harness::{Plane, Scene};
use manifests::{Limits, parse};
use serde_json::{Value, json};

/// A file: its extension and its text.
struct Case {
    ending: &'static str,
    text: String,
}

/// The beginning of every text. kubectl does not know this kind, so it keeps every value as it was read.
const HEAD: &str = "apiVersion: example.com/v1\nkind: Probe\nmetadata: {name: probe}\n";

fn yaml(text: impl AsRef<str>) -> Case {
    Case { ending: "yaml", text: format!("{HEAD}{}", text.as_ref()) }
}

fn json(text: impl AsRef<str>) -> Case {
    let head = r#"{"apiVersion": "example.com/v1", "kind": "Probe", "metadata": {"name": "probe"}, "v": "#;
    Case { ending: "json", text: format!("{head}{}}}", text.as_ref()) }
}

/// Plain scalars, which may be numbers, booleans, null or text.
fn plain() -> Vec<String> {
    let words = [
        "y",
        "Y",
        "n",
        "N",
        "yes",
        "Yes",
        "YES",
        "yEs",
        "no",
        "No",
        "NO",
        "on",
        "On",
        "ON",
        "oN",
        "off",
        "Off",
        "OFF",
        "true",
        "True",
        "TRUE",
        "tRUE",
        "false",
        "False",
        "FALSE",
        "~",
        "null",
        "Null",
        "NULL",
        "nULL",
        "none",
        "nil",
        ".nan",
        ".NaN",
        ".NAN",
        ".inf",
        ".Inf",
        "-.inf",
        "+.INF",
        "inf",
        "nan",
        "=",
        "<<",
        "a: b: c",
        "a#b",
        "a #b",
        "-",
        "--",
        "?",
        "?a",
        ":a",
        "a:",
        "a b  c",
        "2026-11-26",
        "2026-11-26T01:02:03Z",
        "1:30",
        "190:20:30",
        "12:30:45",
        "1.2.3",
        "v1",
        "1Gi",
        "100m",
        "1e",
        "e1",
        "0e0",
        "1_e3",
        "0.0.0.0/0",
        "::1",
        "%a",
        "a%",
        "@a",
        "`a",
        "!a",
        "&a",
        "*a",
    ];
    let digits = [
        "0",
        "00",
        "1",
        "01",
        "07",
        "08",
        "0644",
        "0o644",
        "0O644",
        "0x1F",
        "0X1f",
        "0xG",
        "0b101",
        "0B1",
        "0b2",
        "0x",
        "0o",
        "1_000",
        "1__0",
        "1_",
        "_1",
        "0_1",
        "0x_1",
        "1.0",
        "1.5",
        "1.",
        ".5",
        "0.1",
        "1.50",
        "1e3",
        "1E3",
        "1e+3",
        "1e-3",
        "1.5e3",
        "1e400",
        "1e-400",
        "1e21",
        "123456789012345678901234567890",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "9007199254740993",
        "1.10",
        "0.30000000000000004",
    ];
    let signed = digits.iter().flat_map(|digits| ["", "+", "-"].map(|sign| format!("{sign}{digits}")));
    words.map(str::to_owned).into_iter().chain(signed).collect()
}

/// Texts after a backslash in a double-quoted scalar.
fn escapes() -> Vec<&'static str> {
    vec![
        "0",
        "a",
        "b",
        "t",
        "\t",
        "n",
        "v",
        "f",
        "r",
        "e",
        " ",
        "\"",
        "/",
        "\\",
        "N",
        "_",
        "L",
        "P",
        "x41",
        "x85",
        "x00",
        "x7f",
        "u0041",
        "u0085",
        "u2028",
        "u2029",
        "ufeff",
        "ufffe",
        "uffff",
        "ud83d\\ude00",
        "ud83d",
        "U0001F600",
        "U00110000",
        "q",
        "'",
        "x4",
        "u12",
        "1",
    ]
}

/// Characters that some YAML readers take for a line end, ignore, or refuse.
const CHARACTERS: [char; 17] = [
    '\u{7f}',
    '\u{80}',
    '\u{85}',
    '\u{9f}',
    '\u{a0}',
    '\u{ad}',
    '\u{200b}',
    '\u{2028}',
    '\u{2029}',
    '\u{202e}',
    '\u{d7ff}',
    '\u{e000}',
    '\u{feff}',
    '\u{fffd}',
    '\u{fffe}',
    '\u{ffff}',
    '\u{1f600}',
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for text in plain() {
        cases.push(yaml(format!("v: {text}\n")));
        cases.push(yaml(format!("{text}: v\n")));
    }
    for text in ["1", "yes", "~", "1.0", "0644", "", "a''b", "a\\nb", "a\n  b", "a\n\n  b", " a "] {
        cases.push(yaml(format!("v: '{text}'\n")));
    }
    for escape in escapes() {
        for (before, after) in [("", ""), ("a", "b"), ("a ", " b"), ("a\n  ", " b"), ("a ", "\n  b")] {
            cases.push(yaml(format!("v: \"{before}\\{escape}{after}\"\n")));
        }
    }
    for line in
        ["a\\\n  b", "a \\\n   b", "a\\\n  \\ b", "a\n\n  b", "a \n \n  b", "a\t\n  b", "\n  a\n", "a\\n\\\n  b"]
    {
        cases.push(yaml(format!("v: \"{line}\"\n")));
    }
    for c in CHARACTERS {
        for text in [
            format!("v: a{c}b\n"),
            format!("v: a {c} b\n"),
            format!("v: \"a{c}b\"\n"),
            format!("v: \"a {c} b\"\n"),
            format!("v: '{c}a {c} b{c}'\n"),
            format!("v: |\n  a{c}b\n  c {c} d\n"),
            format!("v: >\n  a{c}b\n  c {c} d\n"),
            format!("v: b # {c}\n"),
        ] {
            cases.push(yaml(text));
        }
    }
    for style in ["|", "|-", "|+", ">", ">-", ">+", "|2", "|2-", ">1+"] {
        for body in ["a\n  b\n", "a\n\n  b\n\n\n", " a\n  b\n   c\n", "a\n", "\n  a\n", "a \n  b\t\n", "# a\n  - b\n"] {
            cases.push(yaml(format!("v: {style}\n  {body}w: 1\n")));
        }
    }
    for text in [
        "a\n  b",
        "a\n\n  b",
        "a\n  b: c",
        "- a",
        "[a, b\n  c]",
        "{a: b, c}",
        "[1, yes, ~, '1', 1.0,]",
        "{1: 2, yes: no}",
    ] {
        cases.push(yaml(format!("v: {text}\n")));
    }
    for tag in ["!!str", "!!int", "!!float", "!!bool", "!!null", "!!binary", "!!timestamp", "!custom", "!", "!!omap"] {
        for text in ["1", "1.5", "yes", "~", "abc", "aGVsbG8=", "'1'", "\"yes\"", "2026-11-26"] {
            cases.push(yaml(format!("v: {tag} {text}\n")));
        }
    }
    for text in [
        "v: !!binary |\n  aGVs\n  bG8=\n",
        "v: !!binary /w==\n",
        "v: !!binary '%'\n",
        "v: &a !!str 1\nw: *a\n",
        "v: &a [1, {b: 2}]\nw: *a\n",
    ] {
        cases.push(yaml(text));
    }
    for text in [
        r#""a\/b""#,
        r#""\ud83d\ude00""#,
        r#""A\t\n\r\b\f\"\\""#,
        "1.0",
        "1e3",
        "1E-3",
        "-0",
        "-0.0",
        "123456789012345678901234567890",
        "9223372036854775807",
        "9223372036854775808",
        "[1, 2.5, null, true]",
        "{\"a\": {\"b\": []}}",
        "\"\u{2028}\u{85}\"",
        "\"\u{7f}\"",
        "\"\u{feff}\"",
        "\"y\"",
        "\"a \u{85} b\"",
        "{\n\t\"a\":\t1\n\t}",
        "\"\\u0000\"",
        "\"\\u0085 \\u2028\"",
    ] {
        cases.push(json(text));
    }
    let object =
        |name: &str| json!({"apiVersion": "example.com/v1", "kind": "Probe", "metadata": {"name": name}}).to_string();
    for between in ["\n", "", " ", "\n\n\t"] {
        let text = format!("{}{between}{}{between}", object("one"), object("two"));
        cases.extend(["json", "yaml"].map(|ending| Case { ending, text: text.clone() }));
    }
    cases
}

/// The objects that kubectl reads from a file, or `None` if it refuses the file.
fn kubectl(program: &Path, file: &Path) -> Result<Option<Vec<Value>>> {
    let mut command = Command::new(program);
    command.args(["label", "--local", "--output=json", "--kubeconfig=/dev/null", "probed=yes", "-f"]);
    let Output { status, stdout, .. } = command.arg(file).output()?;
    if !status.success() {
        return Ok(None);
    }
    let objects = serde_json::Deserializer::from_slice(&stdout).into_iter::<Value>();
    let objects = objects.map(|object| {
        let mut object = object?;
        // Remove the label that was added.
        object["metadata"].as_object_mut().context("metadata")?.remove("labels");
        Ok(object)
    });
    objects.collect::<Result<_>>().map(Some)
}

/// The objects that gitseal reads from a file, or `None` if it refuses the file.
fn gitseal(case: &Case) -> Option<Vec<Value>> {
    let manifests = parse(&format!("case.{}", case.ending), case.text.as_bytes(), &Limits::default()).ok()?;
    Some(manifests.into_iter().map(|manifest| Value::Object(manifest.body)).collect())
}

/// Kubernetes reads integers that do not fit into a signed 64-bit integer as floats.
fn as_kubernetes_counts(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(as_kubernetes_counts),
        Value::Object(fields) => fields.values_mut().for_each(as_kubernetes_counts),
        Value::Number(number) if !number.is_i64() => {
            let float = number.as_f64().unwrap_or_default();
            *value = if float == 0.0 { json!(0) } else { json!(float) };
        }
        _ => {}
    }
}

/// Whether a difference to kubectl is intended. The comments say why.
fn is_meant(case: &Case, ours: Option<&[Value]>, theirs: Option<&[Value]>) -> bool {
    let has = |part: &str| case.text.contains(part);
    match (ours, theirs) {
        // These characters end a line for kubectl, but not in YAML 1.2.
        (None, _) if ["\u{85}", "\u{2028}", "\u{2029}"].iter().any(|separator| has(separator)) => case.ending == "yaml",
        // Only go-yaml has this escape; YAML does not.
        (None, Some(_)) if has("\\'") => true,
        // This is a control character, which we refuse in all files.
        (None, Some(_)) if has("\u{7f}") => true,
        // This is not valid text. kubectl would replace it by U+FFFD.
        (None, Some(_)) if has("!!binary /w==") => true,
        // YAML 1.2 and JSON have these escapes, and go-yaml does not. No reader gives them another meaning.
        (Some(ours), None) => {
            let reads = |escape: &str, character: &str| {
                has(escape)
                    && ours
                        .iter()
                        .any(|object| object["v"].as_str().is_some_and(|v| v.contains(character) && !v.contains('\\')))
            };
            reads("\\/", "/") || reads("\\ud83d\\ude00", "\u{1f600}")
        }
        _ => false,
    }
}

#[test]
fn a_table_of_texts_is_read_as_kubectl_reads_it() -> Result<()> {
    let program = localcluster::parts::kubectl()?;
    let folder = tempfile::tempdir()?;
    let cases = cases();
    ensure!(cases.len() >= 400, "{} cases", cases.len());
    let files: Vec<_> =
        (0..).zip(&cases).map(|(number, case)| folder.path().join(format!("{number}.{}", case.ending))).collect();
    for (file, case) in files.iter().zip(&cases) {
        fs::write(file, &case.text)?;
    }
    let mut wrong = String::new();
    for (file, case) in files.iter().zip(&cases) {
        let (mut theirs, mut ours) = (kubectl(&program, file)?, gitseal(case));
        [&mut theirs, &mut ours].into_iter().flatten().flatten().for_each(as_kubernetes_counts);
        if ours != theirs && !is_meant(case, ours.as_deref(), theirs.as_deref()) {
            let shown = |all: Option<Vec<Value>>| all.map(|all| json!(all).to_string());
            writeln!(wrong, "{:?}\n  ours   {:?}\n  theirs {:?}", case.text, shown(ours), shown(theirs))?;
        }
    }
    ensure!(wrong.is_empty(), "of {}:\n{wrong}", cases.len());
    Ok(())
}

#[tokio::test]
async fn what_a_reader_of_yaml_would_fold_arrives_as_kubectl_applies_it() -> Result<()> {
    let scene = Scene::new("kubectl-texts").await?;
    let texts = [
        "a \\N b",
        "a\\Nb",
        "\\N",
        "a \\_ b",
        "a \\L b",
        "a \\P b",
        "a \\_\\N b",
        "x\\x85y",
        "x\\x9fy",
        "x \\u2029 y",
        "x \\x7f y",
        "x \\u2028 y",
        "\\ufeffx \\ufffe\\uffff",
    ];
    let map = |name: &str| {
        let mut text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n");
        for (number, value) in texts.iter().enumerate() {
            let _ = writeln!(text, "  k{number}: \"{value}\""); // writing to a String cannot fail
        }
        text
    };
    let stream = ["one", "two"].map(|name| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "a \u{85} b"}})
            .to_string()
    });
    scene.tree.write("app/map.yaml", map("map"))?;
    scene.tree.write("app/stream.json", stream.join("\n"))?;
    let revision = scene.publish("texts").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;

    let program = tokio::task::spawn_blocking(localcluster::parts::kubectl).await??;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("theirs.yaml");
    fs::write(&file, map("theirs"))?;
    let kubeconfig = &Plane::shared().await?.cluster.kubeconfig().to_owned();
    let applied = Command::new(program)
        .args(["create", "--namespace", &scene.namespace, "--kubeconfig"])
        .arg(kubeconfig)
        .arg("-f")
        .arg(&file)
        .output()?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let data = async |name| -> Result<Value> {
        Ok(scene.get("v1", "ConfigMap", name).await?.context("no such map")?["data"].clone())
    };
    assert_eq!(data("map").await?, data("theirs").await?);
    for name in ["one", "two"] {
        assert_eq!(data(name).await?, json!({"k": "a \u{85} b"}), "{name}");
    }
    Ok(())
}
