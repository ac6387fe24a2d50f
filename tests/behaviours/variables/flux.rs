//! Compares the language of variables with that of Flux: its package `envsubst`, in the strict way, on many texts.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use harness::programs;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::render_cases::text;

const VARIABLES: [(&str, &str); 7] = [
    ("web", "Shop.example.com"),
    ("n", "3"),
    ("empty", ""),
    ("path", "/a/b.tar.gz"),
    ("umlaut", "äöü"),
    ("text", "${n} }"),
    ("list", "a,b,c"),
];

/// What gitseal makes of a text, and whether Flux makes the same.
#[derive(Clone, Copy)]
enum Ours {
    /// The same as Flux: the same text, or an error of both.
    Same,
    /// Another text.
    Other(&'static str),
    /// An error with this text, where Flux has a result.
    Refused(&'static str),
}

use Ours::{Other, Refused, Same};

/// The texts. docs/after-rendering.md says of each kind of difference that it is on purpose.
const TEXTS: [(&str, Ours); 95] = [
    ("", Same),
    ("no variable", Same),
    ("$", Same),
    ("a $", Same),
    ("$n $web", Same),
    ("{n} } ${n}", Same),
    ("$(n)", Same),
    ("${n}", Same),
    ("a${n}b${web}c", Same),
    ("${n}${n}", Same),
    ("${n}\n  ${web}\n", Same),
    ("${empty}", Same),
    ("[${empty}]", Same),
    ("${umlaut} ü", Same),
    ("${text}", Same),
    ("$${n}", Same),
    ("$${n} ${n}", Same),
    ("$${n:=a}", Same),
    ("$${a=${n}}", Same),
    ("${none:=5}", Same),
    ("${none:-5}", Same),
    ("${none=5}", Same),
    ("${none:=}", Same),
    ("${none:-}", Same),
    ("${n:=5}${n:-5}${n=5}", Same),
    ("${empty:=5}${empty:-6}", Same),
    ("${none:=a b  c}", Same),
    ("${none:=a ${n} ${other:=b}}", Same),
    ("${none:=${web}}", Same),
    ("${none:=https://a/b?c=d&e=#f}", Same),
    ("${none:=\"quoted\"}", Same),
    ("${none:='quoted'}", Same),
    ("${none:=a:b}", Same),
    ("${none:=[1, 2]}", Same),
    ("${#web} ${#empty}", Same),
    ("${web:5}", Same),
    ("${web:5:7}", Same),
    ("${web:0:4}", Same),
    ("${web:90}", Same),
    ("${web:12:90}", Same),
    ("${web,}", Same),
    ("${web,,}", Same),
    ("${web^}", Same),
    ("${web^^}", Same),
    ("${umlaut^}", Same),
    ("${umlaut^^}", Same),
    ("${empty^}${empty,,}", Same),
    ("${web/./-}", Same),
    ("${web//./-}", Same),
    ("${web/gone/-}", Same),
    ("${web//e/${n}}", Same),
    ("${web/#Shop/S}", Same),
    ("${web/#com/S}", Same),
    ("${web/%com/org}", Same),
    ("${web/%Shop/S}", Same),
    ("${list//,/ }", Same),
    ("${n/3/}", Same),
    (r"${path//\//-}", Same),
    ("${path#*/}", Same),
    ("${path##*/}", Same),
    ("${path%.*}", Same),
    ("${path%%.*}", Same),
    ("${path#x}", Same),
    ("${path%x*}", Same),
    ("${path#/?/}", Same),
    ("${path%.??}", Same),
    ("${web##*.*.}", Same),
    ("${web#Shop.}", Same),
    ("${web%.com}", Same),
    ("${none}", Same),
    ("a ${none} b ${n}", Same),
    ("${none:=${other}}", Same),
    ("${none^^}", Same),
    ("${none:0:2}", Same),
    ("${#none}", Same),
    ("${n", Same),
    ("${none:=a", Same),
    ("${}", Same),
    ("${ n }", Same),
    ("${1}", Same),
    ("${my-name}", Same),
    ("${my.name}", Same),
    ("${n!}", Same),
    // Only `$${` is an escape.
    ("$$", Other("$$")),
    ("$$n", Other("$$n")),
    ("$$${n}", Other("$${n}")),
    // Characters are counted, not bytes.
    ("${#umlaut}", Other("3")),
    ("${umlaut:1:1}", Other("ö")),
    // As in a shell, `=` without `:` is only for a variable that is not set.
    ("${empty=7}", Other("")),
    // A default that is not needed need not have a value.
    ("${n:=${none}}", Other("3")),
    // What Flux ignores is refused.
    ("${n:+a}", Refused("the operators :+ and :? are not supported")),
    ("${n:?a}", Refused("the operators :+ and :? are not supported")),
    ("${n:a}", Refused("after ':' must come a number")),
    ("${web: -3}", Refused("after ':' must come a number")),
    ("${web:0:-1}", Refused("after the second ':' must come a number")),
];

#[derive(Debug, Deserialize)]
struct Answer {
    output: String,
    #[serde(default)]
    error: String,
}

/// What Flux makes of the texts.
fn flux(texts: &[&str]) -> Result<Vec<Answer>> {
    let mut program = Command::new(localcluster::parts::envsubst()?);
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let variables: serde_json::Map<_, _> =
        VARIABLES.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    let input = json!({"variables": variables, "texts": texts});
    child.stdin.take().context("a pipe")?.write_all(input.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What gitseal makes of a text in a ConfigMap, or the error.
fn gitseal(value: &str) -> Result<Result<String, String>> {
    let folder = tempfile::tempdir()?;
    let write = |path: &str, object: &Value| fs::write(folder.path().join(path), object.to_string());
    fs::create_dir(folder.path().join(".git"))?;
    fs::create_dir(folder.path().join("app"))?;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"key": value}});
    write("app/map.yaml", &map)?;
    let variables: serde_json::Map<_, _> =
        VARIABLES.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    let spec = json!({"repository": {"name": "repo"}, "path": "app", "substitute": variables});
    let sync = json!({"apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "a", "namespace": "a"}, "spec": spec});
    write("sync.yaml", &sync)?;
    let mut program = Command::new(programs::folder()?.join("gitseal"));
    program.args(["build", "--sync", "sync.yaml", "-o", "json"]).current_dir(folder.path()).env_clear();
    let output = program.output()?;
    if !output.status.success() {
        return Ok(Err(text(&output.stderr)));
    }
    let list: Value = serde_json::from_slice(&output.stdout)?;
    Ok(Ok(list["items"][0]["data"]["key"].as_str().context("a text")?.to_owned()))
}

#[test]
fn texts_become_what_they_become_with_flux() -> Result<()> {
    let texts: Vec<_> = TEXTS.iter().map(|(value, _)| *value).collect();
    let theirs = flux(&texts)?;
    assert_eq!(theirs.len(), texts.len());
    for ((value, expected), theirs) in TEXTS.iter().zip(theirs) {
        let theirs = if theirs.error.is_empty() { Ok(theirs.output) } else { Err(theirs.error) };
        let ours = gitseal(value)?;
        let is_as_expected = match expected {
            Same if theirs.is_err() => ours.is_err(),
            Same => ours == theirs,
            // A difference that is none any more does not belong in this list.
            Other(wanted) => ours.as_deref() == Ok(wanted) && ours != theirs,
            Refused(why) => ours.as_ref().is_err_and(|told| told.contains(why)) && theirs.is_ok(),
        };
        ensure!(is_as_expected, "{value}: gitseal has {ours:?}, and Flux {theirs:?}");
    }
    Ok(())
}
