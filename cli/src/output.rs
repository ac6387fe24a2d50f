//! Output for people and programs: formats, tables, errors. No other module decides about colours.
//!
//! Texts contain names of files and objects, and texts of servers, which may contain commands for a terminal. So everything
//! is escaped here when it is printed. A [`Style`] is the only exception: its terminal command is inserted only here, and
//! text from outside of this process cannot contain one.

mod style;

use std::{
    fmt,
    io::{IsTerminal as _, Write},
};

use anstyle::AnsiColor;
use anyhow::Context;
use apiclient::NoConnection;
use manifests::{Manifest, ObjectId, in_json, in_one_line, is_no_text};
use serde::Serialize;
use serde_json::Value;

#[cfg(test)]
pub use self::style::plain;
pub use self::style::{BAD, FAINT, GOOD, STRONG, Style, WARN, diff_line, styled};

/// Colours of the help texts.
pub const STYLES: clap::builder::Styles = clap::builder::Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// A machine-readable format.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum OutputFormat {
    /// JSON, indented
    Json,
    /// YAML
    Yaml,
    /// The names of Kubernetes objects, one on each line, as kubectl takes them
    Name,
}

impl OutputFormat {
    /// `value` in this format, with a newline at the end. Commands for a terminal are escaped, and not removed, so no
    /// text is lost.
    pub fn text(self, value: &impl Serialize) -> anyhow::Result<String> {
        // The value is converted to JSON first, so that both formats have the same fields in the same order.
        let value = serde_json::to_value(value).context("cannot represent the result as JSON")?;
        let json = || anyhow::Ok(in_json(&serde_json::to_string_pretty(&value)?).into_owned());
        let mut text = match self {
            Self::Json => json()?,
            Self::Yaml => {
                let yaml = serde_saphyr::to_string(&value).context("cannot represent the result as YAML")?;
                // If YAML cannot escape a character where it stands, JSON is used, because JSON is also YAML.
                if yaml.contains(|c| is_no_text(c) && c != '\n') { json()? } else { yaml }
            }
            Self::Name => names(&value).ok_or_else(|| {
                Hint::error("this command has no names of objects to print", "use --output json or --output yaml")
            })?,
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }
}

impl OutputFormat {
    /// As [`OutputFormat::text`], for one of several documents that are printed one after the other.
    ///
    /// # Errors
    /// As for [`OutputFormat::text`].
    pub fn document(self, value: &impl Serialize) -> anyhow::Result<String> {
        let start = if self == Self::Yaml { "---\n" } else { "" };
        Ok(start.to_owned() + &self.text(value)?)
    }
}

/// Objects as one YAML text, as `gitseal build` prints them and golden files have them.
///
/// # Errors
/// As for [`OutputFormat::text`].
pub fn yaml_of(objects: &[Manifest]) -> anyhow::Result<String> {
    let documents: anyhow::Result<Vec<_>> =
        objects.iter().map(|object| OutputFormat::Yaml.text(&object.body)).collect();
    Ok(documents?.join("---\n"))
}

/// `Deployment shop/web`: the object without its group, for lists of problems.
pub fn title(id: &ObjectId) -> String {
    let namespace = id.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    format!("{} {namespace}{}", id.kind, id.name)
}

/// `sync.gitseal.dev/web` for an object, and for each object of a list; `None` for anything else.
fn names(value: &Value) -> Option<String> {
    let objects = value.get("items").and_then(Value::as_array).map_or(std::slice::from_ref(value), Vec::as_slice);
    let name = |object: &Value| {
        let kind = object.get("kind")?.as_str()?.to_ascii_lowercase();
        let group = object.get("apiVersion")?.as_str()?.rsplit_once('/').map_or("", |(group, _)| group);
        let name = object.get("metadata")?.get("name")?.as_str()?;
        let dot = if group.is_empty() { "" } else { "." };
        Some(in_one_line(&format!("{kind}{dot}{group}/{name}")).into_owned())
    };
    let names: Option<Vec<String>> = objects.iter().map(name).collect();
    Some(names?.join("\n"))
}

/// Writes `text` to standard output, escaped. Colours are dropped unless standard output is a terminal.
///
/// # Errors
/// Standard output is closed or full.
pub fn print(text: impl fmt::Display) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    write!(out, "{}", style::for_terminal(&text.to_string()))?;
    out.flush()?;
    Ok(())
}

/// Writes content that the user asked for, such as a SealedSecret, to standard output. The bytes are not changed, and
/// no copy of them stays in a buffer.
///
/// # Errors
/// Standard output is closed or full.
pub fn print_raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = raw_stdout();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Writes one line for people to standard error, escaped. If standard error is closed, this is ignored.
pub fn note(text: impl fmt::Display) {
    note_lines(in_one_line(&text.to_string()));
}

/// Like [`note`], for a text of several lines.
pub fn note_lines(text: impl fmt::Display) {
    let _ = writeln!(anstream::stderr().lock(), "{}", style::for_terminal(&text.to_string()));
}

/// Asks the user a question. Returns whether the answer is yes.
///
/// # Errors
/// There is no terminal. `instead` says how a user without a terminal can answer.
pub fn confirm(question: &str, instead: &str) -> anyhow::Result<bool> {
    let answer = ask(question, " [y/N]", instead)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn ask(question: &str, answers: &str, instead: &str) -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Hint::error("cannot ask: there is no terminal", instead));
    }
    let mut err = anstream::stderr().lock();
    write!(err, "{}{answers} ", style::for_terminal(question))?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer)
}

/// Asks the user to type `word`. Returns whether the user typed it.
///
/// # Errors
/// There is no terminal. `instead` says what a user without a terminal can do.
pub fn type_word(question: &str, word: &str, instead: &str) -> anyhow::Result<bool> {
    Ok(ask(question, "", instead)?.trim() == word)
}

/// Writes a warning to standard error.
pub fn warn(text: impl fmt::Display) {
    note(format_args!("{WARN}warning:{WARN:#} {text}"));
}

/// Context of an error: what failed, and a hint what to do about it.
///
/// Use as `result.context(Hint::new("cannot read x", "create it with y"))`; [`report`] prints the hint last.
#[derive(Debug)]
pub struct Hint {
    what: String,
    next: String,
    is_wrong_usage: bool,
    is_not_here: bool,
}

impl Hint {
    /// What failed, and what to do about it.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), next: hint.into(), is_wrong_usage: false, is_not_here: false }
    }

    /// A new error with a hint.
    pub fn error(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        anyhow::Error::msg(Self::new(what, hint))
    }

    /// A new error about wrong usage, which is noticed before anything is done.
    pub fn wrong_usage(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        anyhow::Error::msg(Self { is_wrong_usage: true, ..Self::new(what, hint) })
    }

    /// A new error about something remote of which the command has no local copy.
    pub fn not_here(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        anyhow::Error::msg(Self { is_not_here: true, ..Self::new(what, hint) })
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// How many mistakes are shown at once.
const MOST_SHOWN: usize = 100;

/// Prints an error: what failed, why, and what to do next.
pub fn report(error: &anyhow::Error) {
    let mut causes = causes(error).into_iter();
    note_lines(format_args!("{BAD}error:{BAD:#} {}", indent(&causes.next().unwrap_or_default(), "  ")));
    for cause in causes {
        note_lines(format_args!("  because: {}", indent(&cause, "  ")));
    }
    if let Some(hint) = hint(error) {
        note_lines(format_args!("{GOOD}hint:{GOOD:#} {}", indent(&hint, "  ")));
    }
}

#[cfg(unix)]
fn raw_stdout() -> impl Write {
    use std::os::fd::AsFd;
    // Rust's standard output keeps what was written in a line buffer, which is not wiped.
    match std::io::stdout().as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(std::fs::File::from(descriptor)) as Box<dyn Write>,
        Err(_) => Box::new(std::io::stdout()),
    }
}

#[cfg(not(unix))]
fn raw_stdout() -> impl Write {
    std::io::stdout()
}

/// Several errors as one, each on its own line. `what` completes the sentence "2 mistakes keep …", for example with
/// "this from being sealed".
pub fn all(what: &str, mut errors: Vec<anyhow::Error>) -> Option<anyhow::Error> {
    if errors.len() < 2 {
        return errors.pop();
    }
    let mut hints: Vec<String> = Vec::new();
    for hint in errors.iter().filter_map(hint) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    let lines: Vec<String> = errors.iter().map(one_line).collect();
    let shown = lines.len().min(MOST_SHOWN);
    let more = lines.len() - shown;
    let mut text = lines[..shown].join("\n");
    if more > 0 {
        text = format!("{text}\nand {more} more");
    }
    let all = if hints.is_empty() { anyhow::Error::msg(text) } else { Hint::error(text, hints.join("; ")) };
    Some(all.context(format!("{} keep {what}", counted(lines.len(), "mistake"))))
}

/// The messages of an error in one line, for places with room for one line only.
pub fn one_line(error: &anyhow::Error) -> String {
    causes(error).join(": ")
}

/// Whether the error is about wrong usage.
pub fn is_wrong_usage(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Hint>().is_some_and(|hint| hint.is_wrong_usage)
}

/// Whether the reader of standard output has closed it, as `| head` does.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The messages of an error's chain, without those that only repeat their cause.
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
            // The text of this error begins with the name of a type of the library. The text of its source, which
            // comes next, is better.
            Some(kube::Error::Service(source)) if source.is::<NoConnection>() => continue,
            Some(kube::Error::Service(_) | kube::Error::HyperError(_)) => "no connection".into(),
            _ => cause.to_string(),
        };
        match messages.last_mut() {
            // Many errors contain the text of their source in their own text. So the source's text is not repeated.
            Some(last) if last.contains(&message) => {}
            _ => messages.push(message),
        }
    }
    messages
}

/// Whether the only reason of an error is that the command has no local copy of something remote.
pub fn is_not_here(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Hint>().is_some_and(|hint| hint.is_not_here)
}

/// What to do about an error, if that is known.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(hint) = error.downcast_ref::<Hint>() {
        return Some(hint.next.clone());
    }
    match error.downcast_ref::<kube::Error>()? {
        kube::Error::Api(status) if status.code == 401 => Some(
            "the cluster does not know who you are: log in again (a token may have expired), or use another --context"
                .into(),
        ),
        kube::Error::Api(status) if status.code == 403 => {
            Some("ask for the permission that the message names, or use another --context".into())
        }
        kube::Error::Api(status) if is_unknown_kind(status) => {
            Some("is gitseal installed in this cluster? `gitseal install --apply` installs it".into())
        }
        kube::Error::HyperError(_) | kube::Error::Service(_) => {
            Some("is the cluster reachable? --kubeconfig and --context choose the cluster".into())
        }
        _ => None,
    }
}

/// The API server's answer for a kind that it does not serve.
fn is_unknown_kind(status: &kube::core::Status) -> bool {
    status.code == 404
        && (status.message.contains("page not found") || status.message.contains("the server could not find"))
}

/// `1 warning`, `2 warnings`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn indent(text: &str, by: &str) -> String {
    text.trim_end().replace('\n', &format!("\n{by}"))
}

/// Rows of text in aligned columns, two spaces apart. Styles do not count as width. A cell is always one line.
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
            line.push_str(&in_one_line(cell));
            if index + 1 < row.len() {
                let width = self.widths.get(index).copied().unwrap_or_default();
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(visible_width(cell))));
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Prints a table with these names of columns.
///
/// # Errors
/// As for [`print`].
pub fn print_table(head: &[&str], mut rows: Vec<Vec<String>>) -> anyhow::Result<()> {
    rows.insert(0, head.iter().map(|name| (*name).to_owned()).collect());
    let mut table = Table::default();
    table.fit(rows.iter().map(Vec::as_slice));
    let lines: String = rows.iter().map(|row| table.line(row) + "\n").collect();
    print(lines)
}

/// A table that grows while something is followed: its header is printed with the first rows, and columns only become
/// wider.
pub struct GrowingTable {
    header: Vec<String>,
    is_begun: bool,
    table: Table,
}

impl GrowingTable {
    /// A table with these names of columns.
    pub fn new<'a>(header: impl IntoIterator<Item = &'a str>) -> Self {
        let header = header.into_iter().map(|name| styled(STRONG, name)).collect();
        Self { header, is_begun: false, table: Table::default() }
    }

    /// The next rows as lines.
    pub fn lines(&mut self, mut rows: Vec<Vec<String>>) -> String {
        if !std::mem::replace(&mut self.is_begun, true) {
            rows.insert(0, self.header.clone());
        }
        self.table.fit(rows.iter().map(Vec::as_slice));
        rows.iter().map(|row| self.table.line(row) + "\n").collect()
    }
}

fn visible_width(cell: &str) -> usize {
    style::plain(&in_one_line(cell)).chars().count()
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
        assert_eq!(plain(&table.line(&rows[1])), "long  y");
    }

    #[test]
    fn a_cell_is_one_line_and_as_wide_as_it_looks() {
        let rows = [vec!["a\u{1b}\n".to_owned(), "x".to_owned()], vec!["b".to_owned(), "y".to_owned()]];
        let mut table = Table::default();
        table.fit(rows.iter().map(Vec::as_slice));
        assert_eq!(table.line(&rows[0]), "a\\u{1b}\\n  x");
        assert_eq!(table.line(&rows[1]), "b          y");
    }

    #[test]
    fn formats_lose_nothing_and_command_nothing() {
        let value = serde_json::json!({ "text": "a\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}\tb\nc" });
        for format in [OutputFormat::Json, OutputFormat::Yaml] {
            let text = format.text(&value).unwrap();
            assert!(!text.contains(|c| is_no_text(c) && c != '\n'), "{text:?}");
            assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&text).unwrap(), value, "{text}");
        }
        let plain = OutputFormat::Yaml.text(&serde_json::json!({ "text": "ü" })).unwrap();
        assert_eq!(plain, "text: ü\n");
    }

    #[test]
    fn names_are_those_that_kubectl_takes() {
        let sync =
            serde_json::json!({"apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "web"}});
        let event = serde_json::json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}});
        assert_eq!(OutputFormat::Name.text(&sync).unwrap(), "sync.gitseal.dev/web\n");
        let list = serde_json::json!({"kind": "List", "items": [sync, event]});
        assert_eq!(OutputFormat::Name.text(&list).unwrap(), "sync.gitseal.dev/web\nevent/e\n");
        assert_eq!(OutputFormat::Name.text(&serde_json::json!({"items": []})).unwrap(), "");
        assert!(OutputFormat::Name.text(&serde_json::json!({"version": "1"})).is_err());
    }

    #[test]
    fn who_is_not_known_lacks_no_permission() {
        let hint_of = |code: u16| {
            let status = kube::core::Status { code, message: "no".into(), ..Default::default() };
            hint(&anyhow::Error::new(kube::Error::Api(Box::new(status))).context("cannot list")).unwrap()
        };
        assert!(hint_of(401).contains("log in again"), "{}", hint_of(401));
        assert!(hint_of(403).contains("permission"), "{}", hint_of(403));
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!((counted(1, "warning"), counted(0, "warning")), ("1 warning".into(), "0 warnings".into()));
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
