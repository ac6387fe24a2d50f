//! Checks that `gitseal build` prints exactly the same as `helm template` with the same version of the library.
//!
//! The cases are described in `render_cases.rs`. They use only flags that both programs have.

mod archives;
mod hooks;
pub(crate) mod inputs;
mod lookups;
mod placed;
pub(crate) mod synced;

use std::{
    fs,
    io::Write as _,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use harness::programs;
use serde_json::Value;

use crate::render_cases::{Case, text};

const RENDERED: &str = "helm/cases/rendered";
const REFUSED: &str = "helm/cases/refused";

fn helm_template(case: &Case) -> Result<Output> {
    let home = tempfile::tempdir()?;
    let mut command = Command::new(localcluster::parts::helm()?);
    command.args(["template", "release-name"]).arg(&case.folder).args(&case.args);
    Ok(command.current_dir(case.repository.path()).env_clear().env("HOME", home.path()).output()?)
}

#[test]
fn charts_are_rendered_as_helm_renders_them() -> Result<()> {
    let cases = Case::all(RENDERED)?;
    ensure!(cases.len() >= 20, "{} cases", cases.len());
    for case in &cases {
        case.is_equal(&case.build(&[])?, &helm_template(case)?)?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_rendered_says_where_and_why() -> Result<()> {
    for case in Case::all(REFUSED)? {
        case.is_refused(&case.build(&[])?)?;
        let theirs = helm_template(&case)?;
        ensure!(!theirs.status.success(), "{}: helm renders it: {}", case.name, text(&theirs.stdout));
    }
    Ok(())
}

#[test]
fn objects_of_a_chart_are_printed_in_the_form_that_is_asked_for() -> Result<()> {
    let case = Case::named(RENDERED, "hooks-with-weights")?;
    let list: Value = serde_json::from_slice(&case.build(&["-o", "json"])?.stdout)?;
    let kinds: Vec<_> = list["items"].as_array().context("a list")?.iter().map(|item| item["kind"].clone()).collect();
    ensure!(kinds == ["ConfigMap", "ConfigMap", "ServiceAccount", "Pod", "Job"], "{kinds:?}");
    let names = text(&case.build(&["-o", "name"])?.stdout);
    ensure!(names.contains("job.batch/migrate"), "{names}");
    let release = text(&Case::named(RENDERED, "is-upgrade")?.build(&["--release-name", "blue", "-n", "shop"])?.stdout);
    ensure!(release.contains("name: release"), "{release}");
    let named = Case::named(RENDERED, "subchart-in-a-folder")?.build(&["--release-name", "blue"])?;
    ensure!(text(&named.stdout).contains("name: blue-cache"), "{}", text(&named.stdout));
    Ok(())
}

#[test]
fn values_come_from_the_repository_from_elsewhere_and_from_standard_input() -> Result<()> {
    let case = Case::named(RENDERED, "values-of-files-and-flags")?;
    let elsewhere = tempfile::tempdir()?;
    let file = elsewhere.path().join("values.yaml");
    fs::write(&file, "untouched: {a: elsewhere}\n")?;
    let file = file.to_str().context("a path")?;
    let build = |options: &[&str], input: &str| -> Result<Output> {
        let mut command = Command::new(programs::folder()?.join("gitseal"));
        command.args(["build", "shop"]).args(options).current_dir(case.repository.path()).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        // A run that reads no values may have ended already.
        let _ = child.stdin.take().context("a pipe")?.write_all(input.as_bytes());
        Ok(child.wait_with_output()?)
    };
    let made = text(&build(&["-f", file, "-f", "over.yaml"], "")?.stdout);
    ensure!(made.contains("a: elsewhere") && made.contains("name: other"), "{made}");
    let made = text(&build(&["-f", "-"], "replicas: 17")?.stdout);
    ensure!(made.contains("replicas: 17"), "{made}");
    let told = text(&build(&["-f", file, "-f", "-"], "x: 1\na: b: c")?.stderr);
    ensure!(told.contains("standard input:2 is not YAML"), "{told}");

    // A symbolic link must not lead out of the repository.
    std::os::unix::fs::symlink(file, case.repository.path().join("link.yaml"))?;
    let refused = build(&["-f", "link.yaml"], "")?;
    let told = text(&refused.stderr);
    ensure!(!refused.status.success() && told.contains("leads out of the repository"), "{told}");
    ensure!(!told.contains("elsewhere"), "{told}");
    Ok(())
}

#[test]
fn what_templates_ask_of_a_cluster_or_of_chance_is_told() -> Result<()> {
    let case = Case::named(RENDERED, "lookup-that-is-guarded")?;
    let told = text(&case.build(&[])?.stderr);
    ensure!(told.contains("v1 Secret default/db and 1 more in the cluster"), "{told}");
    ensure!(!told.contains("each time"), "{told}");

    let told = text(&Case::named(RENDERED, "functions")?.build(&[])?.stderr);
    ensure!(
        told.contains("the chart renders to something different each time: its templates call encryptAES\n"),
        "{told}"
    );

    let template = case.repository.path().join("shop/templates/map.yaml");
    let calls = "{{ randAlphaNum 8 }} {{ uuidv4 }} {{ now | date \"2006\" }} {{ (genCA \"a\" 1).Cert | len }}";
    fs::write(&template, format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{a: '{calls}'}}\n"))?;
    let told = text(&case.build(&[])?.stderr);
    ensure!(told.contains("its templates call genCA, now, randAlphaNum, uuidv4\n"), "{told}");
    // A number in JSON is not a time, so `date` formats the current time.
    fs::write(&template, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 'a{{ date \"2006\" .Values.at }}'}\n")?;
    let told = text(&case.build(&["--set-json", "at=1.5"])?.stderr);
    ensure!(told.contains("its templates call date\n"), "{told}");
    Ok(())
}

#[test]
fn what_helm_warns_of_is_told() -> Result<()> {
    let told = text(&Case::named(RENDERED, "import-values")?.build(&[])?.stderr);
    ensure!(told.contains("Helm says: ImportValues missing table from chart"), "{told}");
    let told = text(&Case::named(RENDERED, "conditions-and-tags")?.build(&[])?.stderr);
    ensure!(told.contains("Helm says: returned non-bool value, path: queue.use"), "{told}");
    Ok(())
}

#[test]
fn a_plaintext_secret_of_a_template_is_told_of_with_its_place() -> Result<()> {
    let told = text(&Case::named(RENDERED, "files-of-the-chart")?.build(&[])?.stderr);
    ensure!(told.contains("shop/templates/secret.yaml:1") && told.contains("values that are not sealed"), "{told}");
    Ok(())
}

#[test]
fn flags_of_charts_are_refused_elsewhere() -> Result<()> {
    let case = Case::named("kustomize/cases/rendered", "an-overlay")?;
    let refused = case.build(&["--set", "a=b"])?;
    let told = text(&refused.stderr);
    ensure!(!refused.status.success() && told.contains("--set is only for charts, and over is not a chart"), "{told}");
    Ok(())
}
