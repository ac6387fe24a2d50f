//! Reports the results, for people and programs.

use serde::Serialize;
use serde_json::json;

use super::File;
use crate::global::Global;
use crate::output::{self, Hint};

pub(super) struct Report {
    dry_run: bool,
    /// Files with SealedSecrets.
    pub(super) files: Vec<FileReport>,
    pub(super) failed: Vec<Failure>,
}

#[derive(Serialize)]
pub(super) struct FileReport {
    file: String,
    pub(super) resealed: usize,
    pub(super) newest: usize,
    pub(super) failed: usize,
}

/// A value or a file that could not be resealed, and is left as it is.
#[derive(Serialize)]
pub(super) struct Failure {
    file: String,
    line: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    reason: String,
}

impl FileReport {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), resealed: 0, newest: 0, failed: 0 }
    }
}

impl Failure {
    pub(super) fn of_file(file: &str, line: u32, reason: String) -> Self {
        Self { file: file.to_owned(), line, namespace: None, name: None, field: None, reason }
    }

    pub(super) fn of_value(file: &File<'_>, object: usize, value: usize, reason: String) -> Self {
        let object = &file.text.sealed[object];
        let value = &object.values[value];
        Self {
            file: file.name.clone(),
            line: value.line,
            namespace: object.manifest.id.namespace.clone(),
            name: Some(object.manifest.id.name.clone()),
            field: Some(format!("spec.{}", value.field())),
            reason,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if let (Some(name), Some(field)) = (&self.name, &self.field) {
            let namespace = self.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
            write!(f, "SealedSecret {namespace}{name}: {field}: ")?;
        }
        f.write_str(&self.reason)
    }
}

impl Report {
    pub(super) fn new(dry_run: bool) -> Self {
        Self { dry_run, files: Vec::new(), failed: Vec::new() }
    }

    fn sum(&self, of: impl Fn(&FileReport) -> usize) -> usize {
        self.files.iter().map(of).sum()
    }

    pub(super) fn print(&self, global: &Global) -> anyhow::Result<()> {
        let (resealed, newest) = (self.sum(|file| file.resealed), self.sum(|file| file.newest));
        let verb = if self.dry_run { "would reseal" } else { "resealed" };
        for file in self.files.iter().filter(|file| file.resealed > 0) {
            output::note(format_args!("{}: {verb} {}", file.file, values(file.resealed)));
        }
        for failure in &self.failed {
            output::warn(format_args!("not resealed: {failure}"));
        }
        let count = self.files.len();
        let files = if count == 1 { "file" } else { "files" };
        output::note(format_args!(
            "{count} {files} with SealedSecrets: {verb} {}, {newest} with the newest key already, {} failed",
            values(resealed),
            self.failed.len()
        ));
        let Some(format) = global.output else {
            return Ok(());
        };
        output::print(format.text(&json!({
            "dryRun": self.dry_run,
            "files": self.files,
            "resealed": resealed,
            "newest": newest,
            "failed": self.failed,
        }))?)
    }

    /// # Errors
    /// Something that should have been resealed was left as it is.
    pub(super) fn outcome(&self) -> anyhow::Result<()> {
        if self.failed.is_empty() {
            return Ok(());
        }
        Err(Hint::error(
            format!("not everything was resealed: see the {} above", output::counted(self.failed.len(), "warning")),
            "seal these values again from their source (`gitseal seal`), or give the key that unseals them: \
             --private-key FILE",
        ))
    }
}

fn values(count: usize) -> String {
    output::counted(count, "value")
}
