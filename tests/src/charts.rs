//! Charts, made by the real `helm`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::programs;

/// `helm` without any configuration of the user.
pub struct Helm {
    program: PathBuf,
    home: tempfile::TempDir,
}

impl Helm {
    /// The program is built if it is missing.
    pub fn new() -> Result<Self> {
        Ok(Self { program: localcluster::parts::helm()?, home: tempfile::tempdir()? })
    }

    /// Runs `helm`, and returns everything that `helm` prints.
    pub fn run<A: AsRef<std::ffi::OsStr>>(&self, arguments: &[A]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().env("HOME", self.home.path());
        let output = command.output().context("run helm")?;
        let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        anyhow::ensure!(output.status.success(), "helm failed: {told}");
        Ok(told)
    }
}

/// Packages a chart with `helm package` into the folder `into`. `files` has the path and the content of each file of
/// the chart. A `Chart.yaml` is made unless it is among them.
pub fn package(into: &Path, name: &str, version: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    package_with(into, name, version, files, &[])
}

/// Packages a chart as [`package`] does, with more arguments of `helm package`.
pub fn package_with(into: &Path, name: &str, version: &str, files: &[(&str, &str)], more: &[&str]) -> Result<PathBuf> {
    let folder = tempfile::tempdir()?;
    let chart = folder.path().join(name);
    let head = format!("apiVersion: v2\nname: {name}\nversion: {version}\n");
    for (path, content) in [("Chart.yaml", head.as_str())].into_iter().chain(files.iter().copied()) {
        let path = chart.join(path);
        fs::create_dir_all(path.parent().context("it has a folder")?)?;
        fs::write(path, content)?;
    }
    let mut arguments = vec!["package".into(), chart.into_os_string(), "--destination".into(), into.into()];
    arguments.extend(more.iter().map(Into::into));
    Helm::new()?.run(&arguments)?;
    Ok(into.join(format!("{name}-{version}.tgz")))
}

/// A gzipped tar of files, written by the program `tar`. Equal files give equal bytes.
pub fn archive(files: &[(&str, &str)]) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().context("it has a folder")?)?;
        fs::write(path, content)?;
    }
    let packed = tempfile::NamedTempFile::new()?;
    let mut command = Command::new("tar");
    command.args(["--use-compress-program=gzip -n", "--mtime=@0", "--sort=name", "-cf"]).arg(packed.path());
    command.arg("-C").arg(folder.path()).arg(".");
    programs::run(&mut command)?;
    Ok(fs::read(packed.path())?)
}
