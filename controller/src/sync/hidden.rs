//! Keeps objects that are no longer applied only because their file is hidden: the file was renamed, or an older
//! version of gitseal applied hidden files. It is not known whether such objects should be deleted, so they stay, and
//! the Sync says what to do.

use std::sync::Arc;

use gitstore::Snapshot;
use pipeline::{Failure, Plan, Stage, StageError as _, path_of, prune::stays_in_hidden_file};

use super::{Pass, source::source};

impl Pass<'_> {
    /// Removes objects that are in hidden files of the folder from the prune. Returns why they stay.
    ///
    /// # Errors
    /// The hidden files cannot be read now, or cannot be read at all. Nothing may be pruned in either case, because an
    /// object may have moved into one of these files.
    pub(super) async fn keep_hidden(&self, plan: &mut Plan, snapshot: &Snapshot) -> Result<Option<String>, Failure> {
        if plan.prune.is_empty() {
            return Ok(None);
        }
        // Names of objects may have variables. If their values are not known now, nothing is pruned.
        let inputs = source(self.ctx, self.sync).map(|sourced| sourced.inputs).unwrap_or_default();
        let wanted = Arc::new(plan.prune.clone());
        let hidden = match self.ctx.renderer.hidden(snapshot, self.sync, &inputs, wanted).await {
            Ok(hidden) => hidden,
            Err(error) if error.is_terminal() => {
                let message = format!(
                    "nothing is pruned: an object may have moved into a hidden file of the folder, and the hidden files cannot be read \
                     ({error}); add the hidden files that are not manifests to .gitsealignore"
                );
                return Err(Failure { terminal: true, message, ..Failure::new(Stage::Prune, error.reason()) });
            }
            Err(error) => {
                let message = format!(
                    "nothing is pruned yet, because the hidden files of the folder could not be read ({error})"
                );
                return Err(Failure {
                    waits: true,
                    may_pass: true,
                    message,
                    ..Failure::new(Stage::Prune, error.reason())
                });
            }
        };
        plan.prune.retain(|id| !hidden.contains_key(id));
        // The message does not name the Secret of a SealedSecret, because it names the SealedSecret.
        let mut told = hidden.iter().filter(|(id, _)| !(id.is_secret() && hidden.contains_key(&id.sealed_secret())));
        let Some((id, at)) = told.next() else { return Ok(None) };
        let more = match told.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        Ok(Some(format!("{id}{more} is not pruned: {}", stays_in_hidden_file(path_of(self.sync), at))))
    }
}
