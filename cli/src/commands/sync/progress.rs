//! Shows the progress: spinners on a terminal, otherwise plain lines.

use std::{sync::Mutex, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use manifests::in_one_line;

use crate::{
    managed::{Managed, with_short_revisions},
    output::{self, BAD, GOOD, styled},
};
use crds::ObjectKey;

/// The lines that show the progress of all objects that `gitseal sync` waits for.
pub struct Progress {
    spinners: MultiProgress,
}

impl Progress {
    pub fn new() -> Self {
        Self { spinners: MultiProgress::new() }
    }

    /// A line for one object.
    pub fn line(&self, kind: &str, name: &ObjectKey) -> Line {
        let spinner = self.spinners.add(ProgressBar::new_spinner());
        let style = ProgressStyle::with_template("{spinner:.cyan} {prefix}  {wide_msg}");
        spinner.set_style(style.expect("a valid template"));
        spinner.set_prefix(in_one_line(&format!("{kind}/{}", name.name)).into_owned());
        spinner.enable_steady_tick(Duration::from_millis(120));
        Line { spinner, on_terminal: !self.spinners.is_hidden(), said: Mutex::default() }
    }

    /// Leaves unfinished lines on the terminal as they are.
    pub fn abandon(&self) {
        self.spinners.set_move_cursor(false);
    }
}

/// The line of one object.
pub struct Line {
    spinner: ProgressBar,
    on_terminal: bool,
    said: Mutex<String>,
}

impl Line {
    /// Shows what is going on now.
    pub fn say(&self, message: &str) {
        let message = with_short_revisions(message.lines().next().unwrap_or_default());
        if self.on_terminal {
            self.spinner.set_message(in_one_line(&message).into_owned());
            return;
        }
        let mut said = self.said.lock().expect("no thread panics while it prints a line");
        if *said != message && !message.is_empty() {
            output::note(format_args!("{}: {message}", self.spinner.prefix()));
            *said = message;
        }
    }

    /// Shows that the object is Ready, or why it is not.
    pub fn finish(&self, object: &impl Managed, outcome: anyhow::Result<()>) {
        if let Err(error) = outcome {
            return self.fail(&error);
        }
        let ready = crds::find_condition(object.conditions(), crds::conditions::READY);
        let message = ready.and_then(|c| c.message.lines().next()).unwrap_or_default();
        self.spinner.finish_and_clear();
        let line = format!("{} {}  {}", styled(GOOD, "ready"), self.spinner.prefix(), with_short_revisions(message));
        output::note(line.trim_end());
    }

    /// Shows that the object is not Ready and will not become so.
    pub fn fail(&self, error: &anyhow::Error) {
        self.spinner.finish_and_clear();
        output::note(format_args!("{} {}", styled(BAD, "failed"), self.spinner.prefix()));
        output::report(error);
    }
}
