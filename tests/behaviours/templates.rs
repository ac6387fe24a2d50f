//! Checks that templates of SealedSecrets are rendered as by Go with sprig, which the Sealed Secrets controller uses.
//!
//! The cases are in `gotemplate/tests`. `GITSEAL_WRITE_GOLDEN=1 cargo test --test behaviours templates::go_answers` writes
//! `golden.json` again, with the results of the real Go engine.

#[path = "../../gotemplate/tests/cases/mod.rs"]
mod cases;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use gotemplate::{Limits, Renderer, Salts};
use harness::{Scene, kubernetes};
use serde_json::{Value, json};

/// Runs the Go program with `input`, and returns its output.
fn go(input: &Value) -> Result<Value> {
    let mut program = Command::new(localcluster::parts::templates()?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the Go program")?;
    // The program reads its whole input before it writes, so this cannot block for ever.
    program.stdin.take().context("a pipe")?.write_all(input.to_string().as_bytes())?;
    let output = program.wait_with_output()?;
    ensure!(output.status.success(), "the Go program ended with {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What Go renders from the templates with the data of the cases. `None` means an error.
fn go_results(templates: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
    let data: serde_json::Map<_, _> =
        cases::data().into_iter().map(|(name, value)| (name, STANDARD.encode(value).into())).collect();
    let answer = go(&json!({"data": data, "templates": templates}))?;
    let results = answer["results"].as_array().context("no results")?;
    ensure!(results.len() == templates.len(), "{} results of {} templates", results.len(), templates.len());
    let result = |result: &Value| match result.get("error") {
        Some(_) => Ok(None),
        None => Ok(Some(STANDARD.decode(result["output"].as_str().unwrap_or_default())?)),
    };
    results.iter().map(result).collect()
}

fn ours(template: &str) -> Result<Vec<u8>, gotemplate::Error> {
    let data = cases::data();
    let data = data.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    Renderer::new(data, Salts::new("", "", []), Limits::default()).render("key", template).map(|bytes| bytes.to_vec())
}

/// The text of `golden.json`, with one case per line, so that changes are easy to read.
fn golden_text(templates: &[String], results: &[Option<Vec<u8>>]) -> String {
    let mut text = String::new();
    for (template, result) in templates.iter().zip(results) {
        let output = match result.as_deref().map(std::str::from_utf8) {
            None => Value::Null,
            Some(Ok(output)) => output.into(),
            Some(Err(_)) => json!({"base64": STANDARD.encode(result.as_deref().unwrap_or_default())}),
        };
        let separator = if text.is_empty() { "[\n" } else { ",\n" };
        write!(text, "{separator}{}", json!({"template": template, "output": output})).unwrap();
    }
    text + "\n]\n"
}

#[test]
fn go_answers_what_the_golden_file_says_and_so_do_we() -> Result<()> {
    let templates = cases::templates();
    let results = go_results(&templates)?;
    let text = golden_text(&templates, &results);
    if std::env::var_os("GITSEAL_WRITE_GOLDEN").is_some() {
        fs::write(cases::path("golden.json"), &text)?;
    }
    ensure!(
        fs::read_to_string(cases::path("golden.json"))? == text,
        "gotemplate/tests/golden.json is not what Go answers: run this test with GITSEAL_WRITE_GOLDEN=1 and look at the difference"
    );
    for (template, result) in templates.iter().zip(results) {
        let ours = ours(template);
        assert_eq!(ours.as_ref().ok(), result.as_ref(), "{template}: {ours:?}");
    }
    Ok(())
}

#[test]
fn every_function_is_in_a_case_and_in_the_manual() -> Result<()> {
    let words: BTreeSet<String> = cases::templates()
        .iter()
        .flat_map(|template| template.split(|char: char| !char.is_alphanumeric()))
        .map(str::to_owned)
        .collect();
    let manual = fs::read_to_string(format!("{}/../docs/templates.md", env!("CARGO_MANIFEST_DIR")))?;
    let named: BTreeSet<&str> = manual.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).collect();
    for function in gotemplate::functions() {
        assert!(words.contains(function), "no case calls {function}");
        assert!(named.contains(function), "docs/templates.md does not name {function}");
    }
    Ok(())
}

#[test]
fn go_takes_our_password_hashes() -> Result<()> {
    let hash = |template: &str| -> Result<String> { Ok(String::from_utf8(ours(template)?)?) };
    let bcrypt = hash("{{ bcrypt .password }}")?;
    let empty = hash("{{ bcrypt \"\" }}")?;
    let binary = hash("{{ bcrypt .unicode }}")?;
    let entry = hash("{{ htpasswd .user .password }}")?;
    let entry = entry.strip_prefix("admin:").context("the user comes first")?;
    assert_eq!(bcrypt, hash("{{ bcrypt .password }}")?, "the hash is the same at every look");
    let two = hash("{{ bcrypt .user }} {{ bcrypt .user }}")?;
    let (one, other) = two.split_once(' ').context("two hashes")?;
    assert_ne!(one, other, "each has a salt of its own");
    let data = cases::data();
    let text = |name: &str| String::from_utf8_lossy(&data[name]).into_owned();
    let (password, unicode) = (text("password"), text("unicode"));
    let answer = go(&json!({"data": {}, "templates": [], "hashes": [
        {"hash": bcrypt, "password": password},
        {"hash": entry, "password": password},
        {"hash": empty, "password": ""},
        {"hash": binary, "password": unicode},
        {"hash": bcrypt, "password": "another"},
    ]}))?;
    assert_eq!(answer["hashes"], json!([true, true, true, true, false]));
    Ok(())
}

/// In the cluster, a SealedSecret is rendered to the same result as by Go, with a Sync and without one.
#[tokio::test]
async fn a_secret_has_what_the_template_renders() -> Result<()> {
    let scene = Scene::new("templates").await?;
    let template = "{{ define \"dsn\" }}{{ .user }}:{{ .password | urlquery }}{{ end }}\
        postgres://{{ template \"dsn\" . }}@{{ .host | default \"localhost\" }}/app\n";
    let mut encrypted = serde_json::Map::new();
    for (name, value) in [("user", "admin"), ("password", "p@ss w0rd"), ("host", "")] {
        encrypted.insert(name.into(), scene.seal("db", value.as_bytes()).await?.into());
    }
    let data = json!({"url": template, "user": "{{ .user | upper }}", "login": "{{ htpasswd .user .password }}"});
    let sealed = json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": "db"},
        "spec": {"encryptedData": encrypted, "template": {"data": data}},
    });
    kubernetes::apply(&scene.client, &scene.namespace, sealed.clone()).await?;
    let url = "postgres://admin:p%40ss+w0rd@localhost/app\n";
    let wanted = json!({"data": {"url": STANDARD.encode(url), "user": STANDARD.encode("ADMIN")}});
    let secret = scene.has("v1", "Secret", "db", wanted.clone()).await?;

    // Rendering the same SealedSecret again gives the same bytes, even for the salted hash.
    scene.tree.write("all/sealed.yaml", sealed.to_string())?;
    let revision = scene.publish("the SealedSecret").await?;
    scene.sync("all", "./all", json!({})).await?;
    scene.is_applied("all", &revision).await?;
    let owned = scene.has("v1", "Secret", "db", wanted).await?;
    assert_eq!(owned["data"], secret["data"]);
    Ok(())
}
