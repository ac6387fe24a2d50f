//! Shows progress while something takes minutes.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is printed if there is no terminal, to show that the work goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// On a terminal, shows a spinner with the elapsed time and the current step. Otherwise, prints a line at the start, one at
/// the end, and some in between. Everything goes to stderr.
pub(crate) struct Progress {
    what: String,
    started: Instant,
    told: Instant,
    spinner: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn start(what: String) -> Self {
        let spinner = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg}");
            let style = style.expect("the template is valid");
            let spinner = ProgressBar::new_spinner().with_style(style).with_prefix(what.clone());
            spinner.enable_steady_tick(Duration::from_millis(120));
            Some(spinner)
        } else {
            eprintln!("localcluster: {what}");
            None
        };
        let started = Instant::now();
        Self { what, started, told: started, spinner }
    }

    /// Sets the current step.
    pub(crate) fn at(&mut self, now: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(now.to_owned()),
            None if self.told.elapsed() >= SIGN_OF_LIFE => {
                self.told = Instant::now();
                eprintln!("localcluster: after {} s: {now}", self.started.elapsed().as_secs());
            }
            None => {}
        }
    }

    pub(crate) fn finish(self, outcome: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        eprintln!("localcluster: {}: {outcome} after {} s", self.what, self.started.elapsed().as_secs());
    }
}
