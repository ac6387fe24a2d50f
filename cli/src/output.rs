//! What people and programs see: formats, tables, errors. The only place that decides about colour.

use std::{fmt, io::Write};

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use serde::Serialize;

/// Colours of the help texts.
pub const STYLES: clap::builder::Styles = clap::builder::Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Something is wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Something is as it should be.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Something deserves a look.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// A heading.
pub const STRONG: Style = Style::new().bold();
/// Less important than the rest.
pub const FAINT: Style = Style::new().dimmed();

/// A machine-readable format.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum OutputFormat {
    /// JSON, indented
    Json,
    /// YAML
    Yaml,
}

impl OutputFormat {
    /// `value` in this format, with a newline at the end.
    pub fn text(self, value: &impl Serialize) -> anyhow::Result<String> {
        // Through a JSON value, so that both formats show the same fields in the same order.
        let value = serde_json::to_value(value).context("cannot represent the result as JSON")?;
        let mut text = match self {
            Self::Json => serde_json::to_string_pretty(&value)?,
            Self::Yaml => serde_saphyr::to_string(&value).context("cannot represent the result as YAML")?,
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }
}

/// Writes `text` to standard output as it is (colour codes are dropped unless it is a terminal).
///
/// # Errors
/// Standard output is closed or full.
pub fn print(text: impl fmt::Display) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    write!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// Writes bytes to standard output as they are, past all buffers that are not wiped.
///
/// # Errors
/// Standard output is closed or full.
pub fn print_raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = raw_stdout();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Writes a line for people to standard error, for example what is going on. A closed standard error is no failure.
pub fn note(text: impl fmt::Display) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Writes a warning to standard error.
pub fn warn(text: impl fmt::Display) {
    note(format_args!("{WARN}warning:{WARN:#} {text}"));
}

/// `text` in a style.
pub fn styled(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Context of an error that also says what to do next.
///
/// Use as `result.context(Hint::new("cannot read x", "create it with y"))`; [`report`] prints the hint last.
#[derive(Debug)]
pub struct Hint {
    what: String,
    hint: String,
}

impl Hint {
    /// What failed, and what to do about it.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }

    /// An error of its own.
    pub fn error(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        anyhow::Error::msg(Self::new(what, hint))
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Prints an error: what failed, why, and what to do next.
pub fn report(error: &anyhow::Error) {
    let mut causes = causes(error).into_iter();
    note(format_args!("{BAD}error:{BAD:#} {}", causes.next().unwrap_or_default()));
    for cause in causes {
        note(format_args!("  because: {}", indent(&cause, "  ")));
    }
    if let Some(hint) = hint(error) {
        note(format_args!("{GOOD}hint:{GOOD:#} {hint}"));
    }
}

#[cfg(unix)]
fn raw_stdout() -> impl Write {
    use std::os::fd::AsFd;
    // Rust's standard output keeps what it wrote in a line buffer.
    match std::io::stdout().as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(std::fs::File::from(descriptor)) as Box<dyn Write>,
        Err(_) => Box::new(std::io::stdout()),
    }
}

#[cfg(not(unix))]
fn raw_stdout() -> impl Write {
    std::io::stdout()
}

/// An error's messages in one line, for places that have no room for more.
pub fn one_line(error: &anyhow::Error) -> String {
    causes(error).join(": ")
}

/// Whether the reader of standard output went away, as `| head` does.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The messages of an error's chain, without those that only repeat their cause's.
fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    for cause in error.chain() {
        let message = match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => {
                messages.push(if is_unknown_kind(status) {
                    "the cluster does not serve this kind".into()
                } else {
                    status.message.clone()
                });
                break; // the source is the same status once more
            }
            // Its text begins with the name of the library's type; the source says it better.
            Some(kube::Error::Service(_) | kube::Error::HyperError(_)) => "no connection".into(),
            _ => cause.to_string(),
        };
        match messages.last_mut() {
            // Many libraries print their source as part of themselves: one of the two is enough.
            Some(last) if last.contains(&message) => {}
            _ => messages.push(message),
        }
    }
    messages
}

fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(hint) = error.downcast_ref::<Hint>() {
        return Some(hint.hint.clone());
    }
    match error.downcast_ref::<kube::Error>()? {
        kube::Error::Api(status) if status.code == 401 || status.code == 403 => {
            Some("ask for the permission that the message names, or use another --context".into())
        }
        kube::Error::Api(status) if is_unknown_kind(status) => {
            Some("is gitseal installed in this cluster? `gitseal install --apply` does it".into())
        }
        kube::Error::HyperError(_) | kube::Error::Service(_) => {
            Some("is the cluster reachable? --kubeconfig and --context choose it".into())
        }
        _ => None,
    }
}

/// What the API server answers for a kind that it does not serve.
fn is_unknown_kind(status: &kube::core::Status) -> bool {
    status.code == 404
        && (status.message.contains("page not found") || status.message.contains("the server could not find"))
}

fn indent(text: &str, by: &str) -> String {
    text.trim_end().replace('\n', &format!("\n{by}"))
}

/// Rows of text in aligned columns, two spaces apart; styles do not count as width.
#[derive(Default)]
pub struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Makes the columns wide enough for `rows`.
    pub fn fit<'a>(&mut self, rows: impl IntoIterator<Item = &'a [String]>) {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(visible_width(cell));
            }
        }
    }

    /// One row as a line without newline.
    pub fn line(&self, row: &[String]) -> String {
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            if index > 0 {
                line.push_str("  ");
            }
            line.push_str(cell);
            if index + 1 < row.len() {
                let width = self.widths.get(index).copied().unwrap_or_default();
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(visible_width(cell))));
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn visible_width(cell: &str) -> usize {
    anstream::adapter::strip_str(cell).to_string().chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_whatever_their_colour() {
        let rows = [vec!["a".to_owned(), "x".to_owned()], vec![styled(BAD, "long"), "y".to_owned()]];
        let mut table = Table::default();
        table.fit(rows.iter().map(Vec::as_slice));
        assert_eq!(table.line(&rows[0]), "a     x");
        assert_eq!(anstream::adapter::strip_str(&table.line(&rows[1])).to_string(), "long  y");
    }

    #[test]
    fn a_hint_is_found_under_other_context() {
        let error = Hint::error("no key", "make one").context("cannot seal");
        assert_eq!(causes(&error), ["cannot seal", "no key"]);
        let error = anyhow::anyhow!("gone").context(Hint::new("no key", "make one")).context("cannot seal");
        assert_eq!(hint(&error).as_deref(), Some("make one"));
        assert_eq!(causes(&error), ["cannot seal", "no key", "gone"]);
    }

    #[test]
    fn a_cause_that_was_already_said_is_not_repeated() {
        let error = anyhow::anyhow!("disk full").context("cannot write: disk full");
        assert_eq!(causes(&error), ["cannot write: disk full"]);
    }
}
