//! Helpers that the tests of the renderer share.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs,
    path::PathBuf,
    sync::Mutex,
};

use renderer::{At, PROGRAM, Repository};

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
