use std::{
    env,
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use sha2::{Digest, Sha256};

use crate::{
    error::{At, Error, Result},
    progress::Progress,
    tail,
};

/// The compiler makes no debug information, because the linker would leave it out (`-s -w`).
const GO_COMPILER: &str = "-gcflags=all=-dwarf=false";

/// The field of the output of `go mod download -json` that is needed here.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    dir: PathBuf,
}

/// One of the Go modules in `parts/`, and the programs that are built from it.
pub(super) struct Module {
    /// Its folder below `parts/`.
    pub(super) name: &'static str,
    /// What progress messages call the module.
    pub(super) part: &'static str,
    /// How long the first build takes on two cores, as text.
    pub(super) takes: &'static str,
    pub(super) ldflags: &'static str,
    /// Build tags of Go, separated by spaces.
    pub(super) tags: &'static str,
    /// The names of the binaries, and the Go packages that they are built from.
    pub(super) targets: &'static [(&'static str, &'static str)],
    /// More names for the binaries, as symbolic links.
    pub(super) links: &'static [(&'static str, &'static str)],
}

impl Module {
    /// The folder with the binaries. They are built if they are missing.
    pub(super) fn folder(&self) -> Result<PathBuf> {
        self.folder_in(&target_dir().join("localcluster"))
    }

    /// The folder with the source of a Go module that this one depends on, in Go's own cache. It is downloaded if it is
    /// missing.
    pub(super) fn source_of(&self, dependency: &str) -> Result<PathBuf> {
        let folder = self.source();
        let mut go = Command::new("go");
        go.args(["mod", "download", "-json", dependency]).current_dir(&folder).env("GOWORK", "off");
        let output = go.output().map_err(|error| self.not_run(error, &folder))?;
        if !output.status.success() {
            return Err(self.failed(output.status, &String::from_utf8_lossy(&output.stderr), &folder));
        }
        let module: Downloaded = serde_json::from_slice(&output.stdout)
            .map_err(io::Error::from)
            .at("cannot read what `go mod download` prints in", folder)?;
        Ok(module.dir)
    }

    /// The folder of the Go module.
    fn source(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("parts").join(self.name)
    }

    fn folder_in(&self, cache: &Path) -> Result<PathBuf> {
        let source = self.source();
        let folder = cache.join(format!("{}-{}", self.name, self.key(&source)?));
        if folder.is_dir() {
            return Ok(folder);
        }

        fs::create_dir_all(cache).at("cannot create the directory", cache)?;
        // Several test processes may start at the same time. One of them builds. The others wait here, and then find the
        // result.
        let path = cache.join(format!("{}.lock", self.name));
        let lock = File::create(&path).at("cannot create", &path)?;
        if lock.try_lock().is_err() {
            eprintln!("localcluster: waiting for another process that builds {}", self.part);
            lock.lock().at("cannot lock", &path)?;
        }
        if !folder.is_dir() {
            let building = cache.join(format!("{}.building", self.name));
            self.build(&source, &building)?;
            // The folder gets its final name only when it is complete, so that nobody starts an incomplete program.
            fs::rename(&building, &folder).at("cannot create", &folder)?;
        }
        Ok(folder)
    }

    /// A digest of everything that the binaries depend on.
    fn key(&self, source: &Path) -> Result<String> {
        let mut files: Vec<PathBuf> = fs::read_dir(source)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .at("cannot list", source)?;
        files.sort();
        let mut digest = Sha256::new();
        digest.update(self.ldflags);
        digest.update(self.tags);
        for file in files {
            digest.update(file.file_name().expect("an entry of a directory has a name").as_encoded_bytes());
            digest.update(fs::read(&file).at("cannot read", &file)?);
        }
        Ok(digest.finalize()[..6].iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }))
    }

    fn build(&self, source: &Path, into: &Path) -> Result<()> {
        // Delete what a killed build has left.
        let _ = fs::remove_dir_all(into);
        fs::create_dir_all(into).at("cannot create the directory", into)?;

        let mut progress = Progress::start(format!("building {} ({})", self.part, self.takes));
        let built = self.targets.iter().try_for_each(|(binary, package)| {
            let mut go = Command::new("go");
            go.args([
                "build",
                "-v",
                "-mod=readonly",
                "-trimpath",
                GO_COMPILER,
                "-ldflags",
                self.ldflags,
                "-tags",
                self.tags,
                "-o",
            ])
            .arg(into.join(binary))
            .arg(package)
            .current_dir(source)
            // Ignore a go.work in a folder above the checkout.
            .env("GOWORK", "off");
            self.run(go, source, &mut progress)
        });
        progress.finish(if built.is_ok() { "done" } else { "failed" });
        built?;

        self.links.iter().try_for_each(|(name, binary)| {
            let link = into.join(name);
            symlink(binary, &link).at("cannot create", link)
        })
    }

    /// Runs `go build -v`, and shows the package that is being compiled.
    fn run(&self, mut go: Command, source: &Path, progress: &mut Progress) -> Result<()> {
        let mut child = go.stderr(Stdio::piped()).spawn().map_err(|error| self.not_run(error, source))?;
        let mut said = String::new();
        for line in BufReader::new(child.stderr.take().expect("it is piped")).lines() {
            let line = line.at("cannot read what go prints in", source)?;
            progress.at(&line);
            // A line of one word is the name of a package that is being compiled. Other lines are errors.
            if line.contains(' ') {
                said.push_str(&line);
                said.push('\n');
            }
        }
        let status = child.wait().map_err(|error| self.not_run(error, source))?;
        if status.success() { Ok(()) } else { Err(self.failed(status, &said, source)) }
    }

    fn not_run(&self, error: io::Error, source: &Path) -> Error {
        match error.kind() {
            io::ErrorKind::NotFound => Error::GoMissing { part: self.part, folder: source.to_path_buf() },
            _ => Error::Io { action: "cannot run go in", path: source.to_path_buf(), source: error },
        }
    }

    fn failed(&self, status: ExitStatus, said: &str, source: &Path) -> Error {
        Error::Build { part: self.part, folder: source.to_path_buf(), status, output: tail(said) }
    }
}

/// The target folder of this workspace.
fn target_dir() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let workspace = workspace.canonicalize().unwrap_or(workspace);
    match env::var_os("CARGO_TARGET_DIR").filter(|target| !target.is_empty()) {
        // A relative path starts at the folder in which cargo was started. That is almost always the workspace.
        Some(target) => workspace.join(target),
        None => workspace.join("target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKEN: Module = Module {
        name: "supervise",
        part: "a part",
        takes: "no time",
        ldflags: "",
        tags: "",
        targets: &[("x", "./no-such-package")],
        links: &[],
    };

    #[test]
    fn a_failed_build_says_why_and_leaves_nothing_that_looks_built() {
        let cache = tempfile::tempdir().unwrap();
        let error = BROKEN.folder_in(cache.path()).unwrap_err().to_string();
        assert!(error.contains("a part") && error.contains("no-such-package"), "{error}");
        let left: Vec<_> = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("supervise-")), "{left:?}");
    }

    #[test]
    fn the_key_follows_the_files_and_the_flags() {
        let source = tempfile::tempdir().unwrap();
        fs::write(source.path().join("go.mod"), "module a").unwrap();
        let first = BROKEN.key(source.path()).unwrap();
        assert_eq!(first, BROKEN.key(source.path()).unwrap());
        assert_ne!(first, Module { ldflags: "-s", ..BROKEN }.key(source.path()).unwrap());
        fs::write(source.path().join("go.mod"), "module b").unwrap();
        assert_ne!(first, BROKEN.key(source.path()).unwrap());
    }
}
