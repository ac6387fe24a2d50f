//! What is in SealedSecrets: the checks of `gitseal validate` that need no certificate and no cluster.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use manifests::{Limits, Location, Manifest};
use schemas::Severity;
use sealing::Scope;
use serde_json::Value;

use super::report::Finding;
use crate::{
    commands::validate::{self, Problem},
    edit::{SealedText, own_scope},
};

/// Checks of `gitseal validate` that other checks of `gitseal lint` make, too.
const CHECKED_ANYWAY: [&str; 6] = ["api-version", "duplicate", "name", "namespace", "structure", "unknown-field"];

/// The SealedSecrets in the files of a repository, with their problems. Each file is read once.
pub(super) struct SealedFiles {
    root: PathBuf,
    files: HashMap<String, Vec<(Manifest, Vec<Problem>)>>,
}

impl SealedFiles {
    /// `root` is the top folder of the repository.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), files: HashMap::new() }
    }

    /// The problems of a SealedSecret. `object` is what a Sync applies, or what a file contains.
    pub(super) fn check(&mut self, object: &Manifest) -> Vec<Finding> {
        if !object.id.is_sealed_secret() {
            return Vec::new();
        }
        let root = &self.root;
        let file = self.files.entry(object.origin.file.to_string()).or_insert_with_key(|file| in_file(root, file));
        let is_it = |(written, _): &&(Manifest, Vec<Problem>)| {
            written.origin.line == object.origin.line && holds_the_same(written, object)
        };
        let problems = match file.iter().find(is_it) {
            Some((_, problems)) => problems.clone(),
            None => of_rendered(object),
        };
        let problems = problems.into_iter().filter(|problem| !CHECKED_ANYWAY.contains(&problem.check));
        problems.map(|problem| finding(object, problem)).collect()
    }
}

/// The SealedSecrets of a file, with their problems and the lines of their values. None if the file cannot be read, for
/// example because it is a template.
fn in_file(root: &Path, file: &str) -> Vec<(Manifest, Vec<Problem>)> {
    let path = root.join(file);
    let is_small = fs::metadata(&path).is_ok_and(|found| found.len() <= Limits::default().file_bytes as u64);
    let Some(text) = is_small.then(|| fs::read_to_string(&path).ok()).flatten() else { return Vec::new() };
    problems_in(file, &text)
}

/// The problems of a SealedSecret that is in no file as it is: a chart, a patch or a generator made it. Its values have no
/// lines in Git. Warnings are left out, because nobody wrote it like this.
fn of_rendered(object: &Manifest) -> Vec<Problem> {
    let text = Value::Object(object.body.clone()).to_string();
    let all = problems_in(&object.origin.file, &text).into_iter().flat_map(|(_, problems)| problems);
    let mut errors: Vec<_> = all.filter(|problem| problem.severity == validate::Severity::Error).collect();
    for problem in &mut errors {
        problem.line = object.origin.line;
    }
    errors
}

fn problems_in(file: &str, text: &str) -> Vec<(Manifest, Vec<Problem>)> {
    let text = SealedText::read(file, text);
    // The namespace of the Sync counts, so it does not matter which one this is.
    let problems = text.sealed.iter().map(|object| validate::problems_of(file, &text, object, "default"));
    let problems: Vec<_> = problems.collect();
    text.sealed.into_iter().map(|object| object.manifest).zip(problems).collect()
}

/// Whether two SealedSecrets have the same values, template and scope. Their names may differ.
fn holds_the_same(one: &Manifest, other: &Manifest) -> bool {
    let scope =
        |object: &Manifest| object.body.get("metadata").and_then(Value::as_object).map_or(Scope::Strict, own_scope);
    one.body.get("spec") == other.body.get("spec") && scope(one) == scope(other)
}

fn finding(object: &Manifest, Problem { severity, line, message, .. }: Problem) -> Finding {
    let severity = match severity {
        validate::Severity::Error => Severity::Error,
        validate::Severity::Warning => Severity::Warning,
    };
    let origin = Location { line, ..object.origin.clone() };
    Finding { severity, ..Finding::error("sealed-secret", &origin, Some(&object.id), message) }
}
