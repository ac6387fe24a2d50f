//! Helpers that the tests of the renderer share.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::Mutex,
};

use renderer::{At, Limits, PROGRAM, Renderer, Repository};
use tempfile::TempDir;

/// A repository in memory that records which paths were requested.
#[derive(Default)]
pub(crate) struct Texts {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Texts {
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
        Self { files, asked: Mutex::default() }
    }
}

impl Repository for Texts {
    type Error = Infallible;

    fn at(&self, path: &str) -> Result<At, Infallible> {
        self.asked.lock().unwrap().push(path.to_owned());
        if let Some(bytes) = self.files.get(path) {
            return Ok(At::File(bytes.clone()));
        }
        let below = self.files.keys().filter_map(|file| file.strip_prefix(path)?.strip_prefix('/'));
        let names: BTreeSet<_> = below.map(|rest| rest.split('/').next().unwrap_or(rest).to_owned()).collect();
        Ok(if names.is_empty() { At::Nothing } else { At::Directory(names.into_iter().collect()) })
    }
}

/// A shell script that takes the place of the renderer's program, and fails in a given way.
pub(crate) struct Script(TempDir);

impl Script {
    /// A script with these lines.
    pub(crate) fn new(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = Self(folder);
        fs::write(script.program(), format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(script.program(), fs::Permissions::from_mode(0o755)).unwrap();
        script
    }

    /// A script that sends these frames at once, whatever it is sent, and then waits for its end.
    pub(crate) fn sending(frames: &[(char, &str)]) -> Self {
        let script = Self::new("cat \"${0%/*}/frames\"; cat >/dev/null");
        fs::write(script.0.path().join("frames"), bytes_of(frames)).unwrap();
        script
    }

    /// A renderer that starts this script.
    pub(crate) fn renderer(&self, limits: Limits) -> Renderer {
        Renderer::new(&self.program(), limits)
    }

    /// The script's file.
    pub(crate) fn program(&self) -> PathBuf {
        self.0.path().join("worker")
    }
}

/// Frames as they are sent.
pub(crate) fn bytes_of(frames: &[(char, &str)]) -> Vec<u8> {
    let bytes = frames.iter().flat_map(|(kind, body)| {
        let length = u32::try_from(body.len() + 1).unwrap();
        [&length.to_be_bytes()[..], &[*kind as u8], body.as_bytes()].concat()
    });
    bytes.collect()
}

/// The path of the program that `build.rs` built.
pub(crate) fn real() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.ancestors().map(|folder| folder.join(PROGRAM)).find(|path| path.is_file()).expect("go has built it")
}

/// The renderer's running processes with this memory limit.
pub(crate) fn children(memory: u64) -> Vec<String> {
    let argument = format!("-memory={memory}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        // A process that has ended has no command line.
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if line.split('\0').any(|part| part == argument) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}
