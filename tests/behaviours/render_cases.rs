//! Cases of renderers: small repositories, each in one text file.
//!
//! The first lines name the folder to build (`build: PATH`), arguments (`args: …`), folders that become archives of charts
//! (`pack: FOLDER ARCHIVE`), and the texts that an error must contain (`says: …`). The files of the repository follow, each
//! after a line `==> PATH`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use harness::programs;
use tempfile::TempDir;

/// A repository with the files of a case.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) repository: TempDir,
    pub(crate) folder: String,
    pub(crate) args: Vec<String>,
    /// The texts that the error must contain.
    pub(crate) says: Vec<String>,
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
        let args = lines("args:").iter().flat_map(|line| line.split_whitespace()).map(str::to_owned).collect();
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
        let case = Self { name, repository, folder, args, says };
        for line in lines("pack:") {
            let (folder, archive) = line.split_once(' ').context("a folder and an archive")?;
            case.pack(folder, archive)?;
        }
        Ok(case)
    }

    /// Moves a folder into an archive.
    fn pack(&self, folder: &str, archive: &str) -> Result<()> {
        let top = self.repository.path();
        fs::create_dir_all(top.join(archive).parent().context("a folder")?)?;
        let done = Command::new("tar").args(["-czf", archive, folder]).current_dir(top).status()?;
        ensure!(done.success(), "{}: tar ended with {done}", self.name);
        fs::remove_dir_all(top.join(folder))?;
        Ok(())
    }

    /// All cases in a folder of `behaviours/`.
    pub(crate) fn all(of: &str) -> Result<Vec<Self>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("behaviours").join(of);
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// One case.
    pub(crate) fn named(of: &str, name: &str) -> Result<Self> {
        Self::all(of)?.into_iter().find(|case| case.name == name).with_context(|| format!("the case {name}"))
    }

    /// Runs `gitseal build` on the folder, with the case's arguments and `options`.
    pub(crate) fn build(&self, options: &[&str]) -> Result<Output> {
        let mut command = Command::new(programs::folder()?.join("gitseal"));
        command.arg("build").arg(&self.folder).args(&self.args).args(options);
        Ok(command.current_dir(self.repository.path()).env_clear().output()?)
    }

    /// Checks that gitseal printed the same as the real program.
    pub(crate) fn is_equal(&self, ours: &Output, theirs: &Output) -> Result<()> {
        let name = &self.name;
        ensure!(theirs.status.success(), "{name}: {}", text(&theirs.stderr));
        ensure!(ours.status.success(), "{name}: {}", text(&ours.stderr));
        ensure!(!ours.stdout.is_empty(), "{name}: nothing");
        let (ours, theirs) = (text(&ours.stdout), text(&theirs.stdout));
        ensure!(ours == theirs, "{name}: ours is\n{ours}\ntheirs is\n{theirs}");
        Ok(())
    }

    /// Checks that gitseal refused the case with an error that contains its texts.
    pub(crate) fn is_refused(&self, ours: &Output) -> Result<()> {
        let (name, told) = (&self.name, text(&ours.stderr));
        ensure!(ours.status.code() == Some(1), "{name}: {:?} {told}", ours.status);
        ensure!(ours.stdout.is_empty(), "{name}: it prints {}", text(&ours.stdout));
        ensure!(!self.says.is_empty(), "{name}: the case does not say what is told: {told}");
        for words in &self.says {
            ensure!(told.contains(words), "{name}: {told} without '{words}'");
        }
        Ok(())
    }
}

/// What a program printed.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
