//! Letting a Sync delete more than its limit allows.

use anyhow::Context;
use crds::{ObjectKey, Sync, conditions, find_condition, names};
use pipeline::prune::NEEDS_CONFIRMATION;

use super::{Session, plan::Plan};
use crate::{managed::Managed, output::Hint};

/// Length of the whole hash of a commit. The beginning of a hash is not enough, because somebody else could make a
/// commit whose hash begins in the same way.
const COMMIT: usize = 40;

impl Session {
    /// Confirms the prune that the only Sync in `plan` waits for, if the user has seen exactly this prune.
    ///
    /// # Errors
    /// The Sync does not wait for a confirmation, or it waits for the confirmation of another prune.
    pub(super) async fn confirm_prune(&self, plan: &Plan, seen: &str) -> anyhow::Result<()> {
        let mut syncs = plan.groups.iter().flat_map(|group| &group.syncs);
        let (Some(name), None) = (syncs.next(), syncs.next()) else {
            return Err(Hint::wrong_usage(
                "--confirm-prune is for one Sync",
                "name it: `gitseal sync NAME --confirm-prune VALUE`",
            ));
        };
        let ObjectKey { namespace, name: of_sync } = name;
        let sync =
            self.api::<Sync>(namespace).get(of_sync).await.with_context(|| format!("cannot read sync/{of_sync}"))?;
        let confirmation = waiting(&sync, seen)?;
        self.annotate::<Sync>(name, names::CONFIRM_PRUNE, &confirmation)
            .await
            .with_context(|| format!("cannot set the annotation on sync/{of_sync} that confirms the prune"))?;
        Ok(())
    }
}

/// The confirmation that the Sync waits for, if `seen` confirms it: `seen` must be equal to this confirmation, or to
/// the whole hash of the commit in it.
fn waiting(sync: &Sync, seen: &str) -> anyhow::Result<String> {
    let reference = sync.reference();
    let ready = find_condition(sync.conditions(), conditions::READY);
    let waiting = sync.status.as_ref().and_then(|status| status.prune_confirmation.as_deref());
    let Some(waiting) = waiting.filter(|_| ready.is_some_and(|ready| ready.reason == NEEDS_CONFIRMATION)) else {
        return Err(Hint::error(
            format!("{reference} does not wait for a confirmation"),
            format!(
                "`gitseal status {reference}` shows its state, and `gitseal history {reference}` the revisions that it applied"
            ),
        ));
    };
    // `main@sha1:4f1c…+9b2f…`
    let (revision, _) = waiting.rsplit_once('+').unwrap_or((waiting, ""));
    let commit = revision.rsplit_once(':').map_or("", |(_, commit)| commit);
    if waiting != seen && (commit != seen || commit.len() != COMMIT) {
        return Err(Hint::error(
            format!("{reference} waits for a confirmation of {waiting}, and not of {seen}"),
            format!("look first at what would be deleted: `gitseal status {reference}`"),
        ));
    }
    Ok(waiting.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_prune_that_waits_is_confirmed() {
        let sync = |reason: &str| -> Sync {
            let ready = json!([{"type": "Ready", "status": "False", "reason": reason}]);
            serde_json::from_value(json!({
                "metadata": {"name": "web"}, "spec": {"repository": {"name": "fleet"}},
                "status": {"conditions": ready, "pruneConfirmation": "main@sha1:2222+1a2b3c4d"},
            }))
            .unwrap()
        };
        let refused = |reason, seen| waiting(&sync(reason), seen).err().map(|e| e.to_string());
        assert_eq!(refused("PruneNeedsConfirmation", "main@sha1:2222+1a2b3c4d"), None);
        for other in ["main@sha1:2222+1a2b3c4e", "main@sha1:1111+1a2b3c4d", "main@sha1:2222", "main", "2222"] {
            let told = format!("sync/web waits for a confirmation of main@sha1:2222+1a2b3c4d, and not of {other}");
            assert_eq!(refused("PruneNeedsConfirmation", other), Some(told));
        }
        let told = "sync/web does not wait for a confirmation";
        assert_eq!(refused("ApplyFailed", "main@sha1:2222+1a2b3c4d").as_deref(), Some(told));
    }

    #[test]
    fn the_whole_hash_of_the_commit_is_enough() {
        let commit = "4f1c".repeat(10);
        let sync: Sync = serde_json::from_value(json!({
            "metadata": {"name": "web"}, "spec": {"repository": {"name": "fleet"}},
            "status": {
                "conditions": [{"type": "Ready", "status": "False", "reason": NEEDS_CONFIRMATION}],
                "pruneConfirmation": format!("main@sha1:{commit}+1a2b3c4d"),
            },
        }))
        .unwrap();
        let confirmation = format!("main@sha1:{commit}+1a2b3c4d");
        assert_eq!(waiting(&sync, &commit).unwrap(), confirmation);
        assert_eq!(waiting(&sync, &confirmation).unwrap(), confirmation);
        for other in [&commit[..39], "4f1c", "", &"a".repeat(40), &format!("other@sha1:{commit}")] {
            assert!(waiting(&sync, other).is_err(), "{other}");
        }
    }
}
