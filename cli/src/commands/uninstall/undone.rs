//! What could not be done. The command goes on with the rest, and at the end lists what it could not do.

use anyhow::bail;

use crate::output::{self, Hint, counted};

/// What could not be done, with the reasons.
#[derive(Default)]
pub struct Undone(Vec<String>);

impl Undone {
    /// Notes the error, if `result` is one.
    pub fn note(&mut self, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.add(output::one_line(&error));
        }
    }

    /// Notes what was not done.
    pub fn add(&mut self, what: String) {
        output::warn(&what);
        self.0.push(what);
    }

    /// Whether everything was done.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lists what was not done, if there is something. `next` says how to do the rest.
    ///
    /// # Errors
    /// Something was not done.
    pub fn report(&self, so_far: &str, next: &str) -> anyhow::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        for what in &self.0 {
            output::note(format_args!("not done: {what}"));
        }
        bail!(Hint::error(format!("{so_far}, but {} could not be done", counted(self.0.len(), "step")), next))
    }
}
