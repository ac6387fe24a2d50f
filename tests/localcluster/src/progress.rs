//! What a person sees while something takes minutes.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// A spinner on a terminal; one line at the start and one at the end elsewhere. All of it on stderr.
pub(crate) struct Progress {
    what: String,
    started: Instant,
    spinner: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn start(what: String) -> Self {
        let spinner = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is valid");
            let spinner = ProgressBar::new_spinner().with_style(style).with_message(what.clone());
            spinner.enable_steady_tick(Duration::from_millis(120));
            Some(spinner)
        } else {
            eprintln!("localcluster: {what}");
            None
        };
        Self { what, started: Instant::now(), spinner }
    }

    pub(crate) fn finish(self, outcome: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        eprintln!("localcluster: {}: {outcome} after {} s", self.what, self.started.elapsed().as_secs());
    }
}
