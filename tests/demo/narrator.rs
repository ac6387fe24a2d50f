//! Prints the text of the demo: headings, commands as a person would type them, and their output.

use std::io::{IsTerminal, Write, stdout};

/// Prints to standard output: in colour if this is a terminal and `NO_COLOR` is not set.
pub(crate) struct Narrator {
    is_coloured: bool,
    step: u32,
}

impl Narrator {
    pub(crate) fn new() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { is_coloured: stdout().is_terminal() && !no_color, step: 0 }
    }

    /// Prints the heading of a new step.
    pub(crate) fn step(&mut self, title: &str) {
        self.step += 1;
        let title = format!("{}. {title}", self.step);
        self.line(&format!("\n{}", self.styled("1", &title)));
    }

    /// Prints a heading without a step number.
    pub(crate) fn heading(&self, title: &str) {
        self.line(&format!("\n{}", self.styled("1", title)));
    }

    /// Prints a command.
    pub(crate) fn typed(&self, command: &str) {
        self.line(&format!("   {}", self.styled("36", &format!("$ {command}"))));
    }

    /// Prints the output of a command.
    pub(crate) fn answer(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.line(&format!("     {line}"));
        }
    }

    /// Prints what was checked.
    pub(crate) fn checked(&self, text: &str) {
        self.line(&format!("   {} {text}", self.styled("32", "✔")));
    }

    /// Prints a remark.
    pub(crate) fn says(&self, text: &str) {
        self.line(&format!("   {text}"));
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.is_coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    #[allow(clippy::unused_self)]
    fn line(&self, text: &str) {
        let mut out = stdout().lock();
        // If the reader has closed the pipe, as `head` does, the demo goes on.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}
