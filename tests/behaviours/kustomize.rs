//! Checks that `gitseal build` prints exactly the same as `kustomize build` with the same version of the library.
//!
//! The cases are described in `render_cases.rs`.

mod synced;
mod workers;

use std::{
    fs,
    process::{Command, Output},
};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::render_cases::{Case, text};

const RENDERED: &str = "kustomize/cases/rendered";
const REFUSED: &str = "kustomize/cases/refused";

fn kustomize_build(case: &Case) -> Result<Output> {
    let mut command = Command::new(localcluster::parts::kustomize()?);
    command.args(["build", "--load-restrictor", "LoadRestrictionsNone"]).arg(&case.folder);
    Ok(command.current_dir(case.repository.path()).env_clear().output()?)
}

#[test]
fn folders_are_rendered_as_kustomize_renders_them() -> Result<()> {
    let cases = Case::all(RENDERED)?;
    ensure!(cases.len() >= 40, "{} cases", cases.len());
    for case in &cases {
        case.is_equal(&case.build(&[])?, &kustomize_build(case)?)?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_rendered_says_why() -> Result<()> {
    for case in Case::all(REFUSED)? {
        let ours = case.build(&[])?;
        case.is_refused(&ours)?;
        // A message that is another one with each render would be written to the status each time.
        let (told, again) = (text(&ours.stderr), text(&case.build(&[])?.stderr));
        ensure!(told == again, "{}: {told}\nand then {again}", case.name);
        ensure!(!told.contains("gitseal-") && !told.contains("0x"), "{}: {told}", case.name);
        let theirs = kustomize_build(&case)?;
        ensure!(!theirs.status.success(), "{}: kustomize renders it: {}", case.name, text(&theirs.stdout));
    }
    Ok(())
}

#[test]
fn outside_of_a_repository_only_the_folder_itself_is_read_and_the_error_says_so() -> Result<()> {
    let case = Case::named(RENDERED, "an-overlay")?;
    fs::remove_dir_all(case.repository.path().join(".git"))?;
    let built = case.build(&[])?;
    let told = text(&built.stderr);
    ensure!(!built.status.success() && told.contains("hint: outside of a Git repository, only the files"), "{told}");
    Ok(())
}

#[test]
fn objects_are_printed_in_the_form_that_is_asked_for() -> Result<()> {
    let case = Case::named(RENDERED, "an-overlay")?;
    let list: Value = serde_json::from_slice(&case.build(&["-o", "json"])?.stdout)?;
    ensure!(list["kind"] == "List" && list["items"].as_array().is_some_and(|items| items.len() == 3), "{list}");
    let names = text(&case.build(&["-o", "name"])?.stdout);
    ensure!(names.contains("deployment.apps/prod-web-v2\n"), "{names}");

    // A folder without a kustomization: its manifests are printed.
    fs::remove_file(case.repository.path().join("base/kustomization.yaml"))?;
    let plain = Case { folder: "base".to_owned(), ..case };
    let built = plain.build(&[])?;
    ensure!(built.status.success(), "{}", text(&built.stderr));
    let yaml = text(&built.stdout);
    ensure!(yaml.contains("kind: Deployment") && yaml.contains("\n---\n") && yaml.contains("kind: Service"), "{yaml}");
    Ok(())
}

#[test]
fn a_plaintext_secret_is_told_of_with_its_place() -> Result<()> {
    let case = Case::named(RENDERED, "configurations")?;
    let told = text(&case.build(&[])?.stderr);
    ensure!(told.contains("over/kustomization.yaml:2") && told.contains("Secret"), "{told}");
    Ok(())
}
