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
    /// Confirms the prune of the one Sync in `plan` that waits at this `revision`.
    ///
    /// # Errors
    /// The Sync does not wait for a confirmation, or it waits at another revision: only a prune that the user has seen is
    /// confirmed.
    pub(super) async fn confirm_prune(&self, plan: &Plan, revision: &str) -> anyhow::Result<()> {
        let mut syncs = plan.groups.iter().flat_map(|group| &group.syncs);
        let (Some(name), None) = (syncs.next(), syncs.next()) else {
            return Err(Hint::wrong_usage(
                "--confirm-prune is for one Sync",
                "name it: `gitseal sync NAME --confirm-prune REVISION`",
            ));
        };
        let ObjectKey { namespace, name: of_sync } = name;
        let sync =
            self.api::<Sync>(namespace).get(of_sync).await.with_context(|| format!("cannot read sync/{of_sync}"))?;
        let revision = shown(&sync, revision)?;
        self.annotate::<Sync>(name, names::CONFIRM_PRUNE, &revision)
            .await
            .with_context(|| format!("cannot set the annotation on sync/{of_sync} that confirms the prune"))?;
        Ok(())
    }
}

/// The revision at which the Sync waits, if `revision` is that one, or the whole hash of its commit.
fn shown(sync: &Sync, revision: &str) -> anyhow::Result<String> {
    let reference = sync.reference();
    let ready = find_condition(sync.conditions(), conditions::READY);
    if ready.is_none_or(|ready| ready.reason != NEEDS_CONFIRMATION) {
        return Err(Hint::error(
            format!("{reference} does not wait for a confirmation"),
            format!(
                "`gitseal status {reference}` shows its state, and `gitseal history {reference}` the revisions that it applied"
            ),
        ));
    }
    let waiting = sync.status.as_ref().and_then(|status| status.last_attempted_revision.as_deref()).unwrap_or_default();
    let commit = waiting.rsplit_once(':').map_or("", |(_, commit)| commit);
    if waiting != revision && (commit != revision || commit.len() != COMMIT) {
        return Err(Hint::error(
            format!("{reference} waits for a confirmation of {waiting}, and not of {revision}"),
            format!("look first at what {waiting} deletes: `gitseal status {reference}`"),
        ));
    }
    Ok(waiting.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_revision_that_waits_is_confirmed() {
        let sync = |reason: &str| -> Sync {
            let ready = json!([{"type": "Ready", "status": "False", "reason": reason}]);
            serde_json::from_value(json!({
                "metadata": {"name": "web"}, "spec": {"repository": {"name": "fleet"}},
                "status": {"conditions": ready, "lastAttemptedRevision": "main@sha1:2222"},
            }))
            .unwrap()
        };
        let refused = |reason, revision| shown(&sync(reason), revision).err().map(|e| e.to_string());
        assert_eq!(refused("PruneNeedsConfirmation", "main@sha1:2222"), None);
        for other in ["main@sha1:1111", "main@sha1:222", "main", "2222"] {
            let told = format!("sync/web waits for a confirmation of main@sha1:2222, and not of {other}");
            assert_eq!(refused("PruneNeedsConfirmation", other), Some(told));
        }
        let told = "sync/web does not wait for a confirmation";
        assert_eq!(refused("ApplyFailed", "main@sha1:2222").as_deref(), Some(told));
    }

    #[test]
    fn the_whole_hash_of_the_commit_is_as_good_as_the_revision() {
        let commit = "4f1c".repeat(10);
        let sync: Sync = serde_json::from_value(json!({
            "metadata": {"name": "web"}, "spec": {"repository": {"name": "fleet"}},
            "status": {
                "conditions": [{"type": "Ready", "status": "False", "reason": NEEDS_CONFIRMATION}],
                "lastAttemptedRevision": format!("main@sha1:{commit}"),
            },
        }))
        .unwrap();
        assert_eq!(shown(&sync, &commit).unwrap(), format!("main@sha1:{commit}"));
        assert_eq!(shown(&sync, &format!("main@sha1:{commit}")).unwrap(), format!("main@sha1:{commit}"));
        for other in [&commit[..39], "4f1c", "", &"a".repeat(40), &format!("other@sha1:{commit}")] {
            assert!(shown(&sync, other).is_err(), "{other}");
        }
    }
}
