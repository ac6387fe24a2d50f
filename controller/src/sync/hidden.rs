//! What left the folder only because its file is hidden now: renamed, or applied by a version that did not leave out hidden
//! files. Nobody said that it is to go, so it stays, and the Sync says what to do.

use std::sync::Arc;

use gitstore::Snapshot;
use pipeline::{Failure, Plan, Stage, StageError as _, path_of, prune::stays_in_hidden_file};

use super::Pass;

impl Pass<'_> {
    /// Takes out of the prune what stands in hidden files of the folder, and says why it stays.
    ///
    /// # Errors
    /// They cannot be read now: nothing is to be pruned yet.
    pub(super) async fn keep_hidden(&self, plan: &mut Plan, snapshot: &Snapshot) -> Result<Option<String>, Failure> {
        if plan.prune.is_empty() {
            return Ok(None);
        }
        let hidden = match self.ctx.renderer.hidden(snapshot, self.sync, Arc::new(plan.prune.clone())).await {
            Ok(hidden) => hidden,
            // A folder with files that can never be read was never applied with them.
            Err(error) if error.is_terminal() => return Ok(None),
            Err(error) => {
                let message = format!("nothing is pruned yet: the hidden files of the folder are not read ({error})");
                return Err(Failure {
                    waits: true,
                    may_pass: true,
                    message,
                    ..Failure::new(Stage::Prune, error.reason())
                });
            }
        };
        plan.prune.retain(|id| !hidden.contains_key(id));
        // The Secret of a SealedSecret stands in the same place.
        let mut told = hidden.iter().filter(|(id, _)| !(id.is_secret() && hidden.contains_key(&id.sealed_secret())));
        let Some((id, at)) = told.next() else { return Ok(None) };
        let more = match told.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        Ok(Some(format!("{id}{more} is not pruned: {}", stays_in_hidden_file(path_of(self.sync), at))))
    }
}
