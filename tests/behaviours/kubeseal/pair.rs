//! Runs both programs with the same files, input and environment, each in its own folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use harness::programs;
use jiff::{SignedDuration, Timestamp};
use localcluster::parts;
use sealing::{Binding, PrivateKey, Scope};
use tempfile::TempDir;

/// All scopes, namespaces and names that the tests seal values for.
const BINDINGS: [Binding<'static>; 9] = [
    Scope::Strict.binding("shop", "db", "any"),
    Scope::Strict.binding("shop", "web", "any"),
    Scope::Strict.binding("other", "db", "any"),
    Scope::Strict.binding("shop", "5", "any"),
    Scope::Strict.binding("kubeconfig", "db", "any"),
    Scope::Strict.binding("default", "db", "any"),
    Scope::NamespaceWide.binding("shop", "any", "any"),
    Scope::NamespaceWide.binding("other", "any", "any"),
    Scope::ClusterWide.binding("any", "any", "any"),
];

/// Sealed values are at least this long. All other texts in base64 are shorter.
const SHORTEST_VALUE: usize = 300;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Program {
    Ours,
    Theirs,
}

/// What must be the same in both programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Like {
    /// Everything: exit code, standard output, standard error, files and their modes. Sealed values are compared after
    /// unsealing.
    Same,
    /// An error: the exit code and the first line on standard error are the same. There is no output, and no file is
    /// changed.
    SameError,
    /// An error in both, with different messages.
    Error,
    /// A wrong command line: the exit code and the message are the same.
    Usage,
}

/// One invocation.
#[derive(Clone, Debug)]
pub(super) struct Case {
    arguments: Vec<String>,
    stdin: Vec<u8>,
    files: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    like: Like,
}

impl Case {
    pub(super) fn new(arguments: &[&str]) -> Self {
        Self {
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            stdin: Vec::new(),
            files: Vec::new(),
            environment: Vec::new(),
            like: Like::Same,
        }
    }

    pub(super) fn stdin(mut self, text: &str) -> Self {
        self.stdin = text.into();
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.into();
        self
    }

    pub(super) fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    pub(super) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn like(mut self, like: Like) -> Self {
        self.like = like;
        self
    }
}

/// The result of an invocation. Sealed values in it are replaced by their plaintext.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) code: i32,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
    /// Mode and content of every file, by name.
    files: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Outcome {
    /// The standard output of a run that must succeed.
    pub(super) fn text(self) -> Result<String> {
        ensure!(self.code == 0, "{self:?}");
        Ok(String::from_utf8(self.stdout)?)
    }

    /// Names of all files.
    pub(super) fn names(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }

    pub(super) fn file(&self, name: &str) -> Result<String> {
        let (_, content) = self.files.get(name).with_context(|| format!("no file {name}: {self:?}"))?;
        Ok(String::from_utf8(content.clone())?)
    }

    fn unsealed(mut self) -> Self {
        self.stdout = unsealed(&self.stdout);
        for (_, content) in self.files.values_mut() {
            *content = unsealed(content);
        }
        self
    }
}

pub(super) struct Pair {
    ours: PathBuf,
    theirs: PathBuf,
    /// A valid certificate, which both programs use.
    pub(super) certificate: String,
    _folder: TempDir,
}

/// One key for all tests, because it takes long to make a key.
fn key() -> &'static PrivateKey {
    static KEY: OnceLock<PrivateKey> = OnceLock::new();
    KEY.get_or_init(|| PrivateKey::generate(2048).unwrap())
}

/// A certificate of the key. It becomes valid `from` hours from now, and is valid for `hours` hours.
pub(super) fn certificate(from: i64, hours: i64) -> Result<String> {
    let not_before = Timestamp::now() + SignedDuration::from_hours(from);
    Ok(sealing::self_signed(key(), "test", not_before, SignedDuration::from_hours(hours))?.to_pem())
}

/// The private key that belongs to `cert.pem`.
pub(super) fn key_pem() -> Result<String> {
    Ok(key().to_pem()?.to_string())
}

impl Pair {
    pub(super) fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let ours = folder.path().join("kubeseal");
        symlink(programs::folder()?.join("gitseal"), &ours)?;
        Ok(Self { ours, theirs: parts::kubeseal()?, certificate: certificate(-1, 24)?, _folder: folder })
    }

    /// Runs a program in a folder with `cert.pem` and `key.pem`.
    pub(super) fn run(&self, program: Program, case: &Case) -> Result<Outcome> {
        let folder = tempfile::tempdir()?;
        // Do not use the system's folder for temporary files, because kubeseal leaves incomplete files there when it fails.
        let temporary = tempfile::tempdir()?;
        let own = [("cert.pem", self.certificate.clone()), ("key.pem", key_pem()?)];
        let own = own.map(|(name, text)| (name.to_owned(), text));
        for (name, text) in own.iter().chain(&case.files) {
            fs::write(folder.path().join(name), text)?;
        }
        let path = if program == Program::Ours { &self.ours } else { &self.theirs };
        let mut child = Command::new(path)
            .args(&case.arguments)
            .current_dir(folder.path())
            .env_clear()
            .env("HOME", folder.path())
            .env("TMPDIR", temporary.path())
            .envs(case.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // The program may end before it has read everything.
        let _ = child.stdin.take().context("standard input")?.write_all(&case.stdin);
        let output = child.wait_with_output()?;
        if program == Program::Ours {
            ensure!(fs::read_dir(temporary.path())?.next().is_none(), "a temporary file is left: {:?}", case.arguments);
        }
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder.path())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if own.iter().all(|(known, _)| *known != name) {
                files.insert(name, (entry.metadata()?.permissions().mode(), fs::read(entry.path())?));
            }
        }
        let stderr = String::from_utf8(output.stderr)?;
        Ok(Outcome { code: output.status.code().unwrap_or(-1), stdout: output.stdout, stderr, files })
    }

    /// Fails if the results differ more than the case allows, and shows the difference.
    pub(super) fn difference(&self, case: &Case) -> Result<()> {
        let ours = self.run(Program::Ours, case)?.unsealed();
        let theirs = self.run(Program::Theirs, case)?.unsealed();
        let first_line = |outcome: &Outcome| outcome.stderr.lines().next().unwrap_or_default().to_owned();
        let has_nothing = || {
            let before = case.files.iter().map(|(name, text)| (name, unsealed(text.as_bytes())));
            let after = ours.files.iter().map(|(name, (_, text))| (name, text.clone()));
            ours.stdout.is_empty() && after.collect::<BTreeMap<_, _>>() == before.collect()
        };
        let is_alike = match case.like {
            Like::Same => ours == theirs,
            Like::SameError | Like::Error => {
                let is_said = ours.stderr.starts_with("error: ") && theirs.stderr.starts_with("error: ");
                let is_same = case.like == Like::Error || first_line(&ours) == first_line(&theirs);
                ours.code == 1 && theirs.code == 1 && is_said && is_same && has_nothing()
            }
            Like::Usage => {
                let theirs_said = String::from_utf8_lossy(&theirs.stdout);
                let message = theirs_said.lines().last().unwrap_or_default();
                ours.code == 2 && theirs.code == 2 && ours.stderr.lines().last() == Some(message) && has_nothing()
            }
        };
        if !is_alike {
            let (arguments, environment) = (&case.arguments, &case.environment);
            let stdin = String::from_utf8_lossy(&unsealed(&case.stdin)).into_owned();
            bail!("{arguments:?} {environment:?} {stdin:?}\n  ours:   {}\n  theirs: {}", shown(&ours), shown(&theirs));
        }
        Ok(())
    }
}

fn shown(outcome: &Outcome) -> String {
    let files: Vec<_> =
        outcome.files.iter().map(|(name, (mode, text))| (name, mode, String::from_utf8_lossy(text))).collect();
    format!("{} {:?} {:?} {files:?}", outcome.code, String::from_utf8_lossy(&outcome.stdout), outcome.stderr)
}

/// The text with every sealed value replaced by its scope, the namespace and name that it is bound to, and its
/// plaintext.
fn unsealed(bytes: &[u8]) -> Vec<u8> {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    let mut unsealed = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let length = rest.iter().take_while(|byte| is_base64(byte)).count();
        if length > SHORTEST_VALUE {
            unsealed.extend(plaintext(&String::from_utf8_lossy(&rest[..length])).into_bytes());
        } else if length > 0 {
            unsealed.extend(&rest[..length]);
        } else {
            unsealed.push(*first);
        }
        rest = &rest[length.max(1)..];
    }
    unsealed
}

fn plaintext(value: &str) -> String {
    for binding in BINDINGS {
        if let Ok(plaintext) = sealing::unseal([key()], binding, value) {
            let [namespace, name, _] = binding.bound();
            return format!("<{} {namespace}/{name}:{}>", binding.scope, STANDARD.encode(plaintext.expose()));
        }
    }
    value.to_owned()
}
