//! Checks that `gitseal build` prints exactly the same as `kustomize build` with the same version of the library.
//!
//! Each case is one text file. It names the folder to build, and then has the files of the repository, each after a line
//! `==> PATH`. Cases in `refused` also have the texts that the error must contain.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use harness::programs;
use serde_json::Value;
use tempfile::TempDir;

/// A repository with the files of a case.
struct Case {
    name: String,
    repository: TempDir,
    folder: String,
    /// The texts that the error must contain.
    says: Vec<String>,
}

impl Case {
    fn read(path: &Path) -> Result<Self> {
        let name = path.file_stem().context("a name")?.to_string_lossy().into_owned();
        let text = fs::read_to_string(path)?;
        let mut parts = text.split("==> ");
        let head = parts.next().unwrap_or_default();
        let lines = |key: &str| -> Vec<String> {
            head.lines().filter_map(|line| line.strip_prefix(key)).map(|rest| rest.trim().to_owned()).collect()
        };
        let folder = lines("build:").pop().with_context(|| format!("{name}: no folder to build"))?;
        let says = lines("says:");
        let repository = tempfile::tempdir()?;
        fs::create_dir(repository.path().join(".git"))?;
        for part in parts {
            let (first, content) = part.split_once('\n').context("a path")?;
            let (path, bytes) = match first.strip_suffix(" base64") {
                Some(path) => (path, STANDARD.decode(content.trim())?),
                None => (first, content.as_bytes().to_vec()),
            };
            let path = repository.path().join(path);
            fs::create_dir_all(path.parent().context("a folder")?)?;
            fs::write(path, bytes)?;
        }
        Ok(Self { name, repository, folder, says })
    }

    fn all(of: &str) -> Result<Vec<Self>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("behaviours/kustomize/cases").join(of);
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn build(&self, options: &[&str]) -> Result<Output> {
        let folder = self.repository.path().join(&self.folder);
        let mut command = Command::new(programs::folder()?.join("gitseal"));
        Ok(command.arg("build").arg(folder).args(options).env_clear().output()?)
    }

    fn kustomize_build(&self) -> Result<Output> {
        let mut command = Command::new(localcluster::parts::kustomize()?);
        command.args(["build", "--load-restrictor", "LoadRestrictionsNone"]).arg(&self.folder);
        Ok(command.current_dir(self.repository.path()).env_clear().output()?)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn folders_are_rendered_as_kustomize_renders_them() -> Result<()> {
    let cases = Case::all("rendered")?;
    ensure!(cases.len() >= 40, "{} cases", cases.len());
    for case in &cases {
        let (ours, theirs) = (case.build(&[])?, case.kustomize_build()?);
        ensure!(theirs.status.success(), "{}: {}", case.name, text(&theirs.stderr));
        ensure!(ours.status.success(), "{}: {}", case.name, text(&ours.stderr));
        ensure!(!ours.stdout.is_empty(), "{}: nothing", case.name);
        ensure!(
            ours.stdout == theirs.stdout,
            "{}: ours is\n{}\ntheirs is\n{}",
            case.name,
            text(&ours.stdout),
            text(&theirs.stdout)
        );
    }
    Ok(())
}

#[test]
fn what_cannot_be_rendered_says_why() -> Result<()> {
    for case in Case::all("refused")? {
        let ours = case.build(&[])?;
        let told = text(&ours.stderr);
        ensure!(ours.status.code() == Some(1), "{}: {:?} {told}", case.name, ours.status);
        ensure!(ours.stdout.is_empty(), "{}: it prints {}", case.name, text(&ours.stdout));
        ensure!(!case.says.is_empty(), "{}: the case does not say what is told: {told}", case.name);
        for words in &case.says {
            ensure!(told.contains(words), "{}: {told} without '{words}'", case.name);
        }
    }
    Ok(())
}

#[test]
fn objects_are_printed_in_the_form_that_is_asked_for() -> Result<()> {
    let case = Case::all("rendered")?.into_iter().find(|case| case.name == "an-overlay").context("the case")?;
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
    let case = Case::all("rendered")?.into_iter().find(|case| case.name == "configurations").context("the case")?;
    let told = text(&case.build(&[])?.stderr);
    ensure!(told.contains("over/kustomization.yaml:2") && told.contains("Secret"), "{told}");
    Ok(())
}
