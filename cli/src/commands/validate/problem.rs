//! Problems, and how they are printed for people and programs.

use manifests::{ObjectId, in_one_line};
use serde::Serialize;
use serde_json::json;

use crate::global::Global;
use crate::output::{self, BAD, WARN, counted, styled};

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::commands) enum Severity {
    Error,
    Warning,
}

#[derive(Clone, Serialize)]
pub(in crate::commands) struct Problem {
    pub(in crate::commands) severity: Severity,
    /// Name of the check, as docs/keys.md lists the checks.
    pub(in crate::commands) check: &'static str,
    pub(super) file: String,
    pub(in crate::commands) line: u32,
    /// `SealedSecret shop/db`
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    pub(in crate::commands) message: String,
}

#[derive(Default)]
pub(super) struct Report {
    pub(super) files: usize,
    pub(super) sealed_secrets: usize,
    pub(super) values: usize,
    pub(super) problems: Vec<Problem>,
}

impl Problem {
    pub(super) fn error(check: &'static str, file: &str, line: u32, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, check, file: file.to_owned(), line, object: None, message: message.into() }
    }

    pub(super) fn warning(check: &'static str, file: &str, line: u32, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(check, file, line, message) }
    }

    /// Sets the object that the problem is about.
    pub(super) fn of(self, object: &ObjectId) -> Self {
        Self { object: Some(output::title(object)), ..self }
    }

    pub(super) fn is(&self, check: &str) -> bool {
        self.check == check
    }
}

impl Report {
    pub(super) fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    pub(super) fn print(&mut self, global: &Global) -> anyhow::Result<()> {
        self.problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        let (errors, warnings) = (self.errors(), self.problems.len() - self.errors());
        if let Some(format) = global.output {
            return output::print(format.text(&json!({
                "files": self.files,
                "sealedSecrets": self.sealed_secrets,
                "values": self.values,
                "errors": errors,
                "warnings": warnings,
                "problems": self.problems,
            }))?);
        }
        let lines = self.problems.iter().map(|problem| {
            let Problem { severity, check, file, line, object, message } = problem;
            let word = match severity {
                Severity::Error => styled(BAD, "error:"),
                Severity::Warning => styled(WARN, "warning:"),
            };
            let object = object.as_ref().map(|object| format!("{object}: ")).unwrap_or_default();
            in_one_line(&format!("{file}:{line}: {word} {object}{message} ({check})")).into_owned() + "\n"
        });
        output::print(lines.collect::<String>())?;
        output::note(format_args!(
            "{} in {}: {}, {}",
            counted(self.sealed_secrets, "SealedSecret"),
            counted(self.files, "file"),
            counted(errors, "error"),
            counted(warnings, "warning"),
        ));
        Ok(())
    }
}
