//! A working folder with a cluster's certificate and private key.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use jiff::{SignedDuration, Timestamp};
use sealing::PrivateKey;
use serde_json::Value;
use tempfile::TempDir;

use crate::{gitseal_in, stdout};

pub(crate) struct Workplace {
    folder: TempDir,
}

/// One key for all tests, because it takes long to make a key.
pub(crate) fn key() -> &'static PrivateKey {
    static KEY: OnceLock<PrivateKey> = OnceLock::new();
    KEY.get_or_init(|| PrivateKey::generate(2048).unwrap())
}

/// A certificate of the key. It becomes valid `from` hours from now, and is valid for `hours` hours.
pub(crate) fn certificate(from: i64, hours: i64) -> String {
    let not_before = Timestamp::now() + SignedDuration::from_hours(from);
    sealing::self_signed(key(), "test", not_before, SignedDuration::from_hours(hours)).unwrap().to_pem()
}

impl Workplace {
    pub(crate) fn new() -> Self {
        let workplace = Self { folder: tempfile::tempdir().unwrap() };
        workplace.write("cert.pem", &certificate(-1, 24));
        workplace.write("key.pem", &key().to_pem().unwrap());
        workplace
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        write(self.folder.path(), name, text);
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The sorted names of the files of a folder, hidden files included.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs `gitseal` with an empty standard input.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        gitseal_in(self.folder.path(), arguments)
    }

    /// Runs `gitseal seal` with the certificate.
    pub(crate) fn seal(&self, arguments: &[&str]) -> Output {
        self.run(&[&["seal", "--cert", "cert.pem"], arguments].concat())
    }

    /// Runs `gitseal` with a text on standard input.
    pub(crate) fn pipe(&self, arguments: &[&str], input: &str) -> Output {
        run_as(Path::new(env!("CARGO_BIN_EXE_gitseal")), self.folder.path(), arguments, input)
    }

    /// Unseals a text, and returns the objects as JSON.
    pub(crate) fn unseal(&self, sealed: &str) -> Value {
        let output = self.pipe(&["unseal", "--private-key", "key.pem", "-o", "json"], sealed);
        serde_json::from_str(&stdout(&output)).unwrap()
    }
}

/// Runs `program` in `folder`, with a text on standard input.
pub(crate) fn run_as(program: &Path, folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Writes a file below `root`, with the folders that it needs.
pub(crate) fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}
