//! What left Git: may it go, and how many at once?

use std::collections::BTreeSet;

use crds::Sync;
use manifests::ObjectId;

use crate::Inventory;

/// The message for a prune that is larger than the Sync allows and not confirmed. `applied` is the number of objects
/// of the last revision that was applied whole: `current` also has what the passes since then created, and must not let
/// the same prune look smaller from pass to pass.
pub fn waits_for_confirmation(
    sync: &Sync,
    revision: &str,
    current: &Inventory,
    applied: Option<usize>,
    prune: &BTreeSet<ObjectId>,
) -> Option<String> {
    let count = prune.iter().filter(|id| !current.is_derived(id)).count();
    let total = current.len_in_git().min(applied.unwrap_or(usize::MAX));
    let allowed = prune_allowance(&sync.spec.prune_limit, total);
    if count <= allowed {
        return None;
    }
    let annotations = sync.metadata.annotations.as_ref();
    let confirmed = annotations.and_then(|all| all.get(crds::names::CONFIRM_PRUNE));
    if confirmed.is_some_and(|confirmed| confirmed == revision) {
        return None;
    }
    let name = sync.metadata.name.as_deref().unwrap_or_default();
    let namespace = sync.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!(
        "{revision} removes {count} of {all} objects, more than pruneLimit {limit} allows; nothing was pruned. \
         Restore them in Git, or confirm with: kubectl annotate sync -n {namespace} {name} --overwrite {annotation}={revision}",
        all = total.max(count),
        limit = sync.spec.prune_limit,
        annotation = crds::names::CONFIRM_PRUNE,
    ))
}

/// How many of `total` objects may go without a confirmation: a percentage is rounded up, to one at least; of none and
/// of what is no number, none may.
fn prune_allowance(limit: &str, total: usize) -> usize {
    let Some(percent) = limit.strip_suffix('%') else {
        return limit.parse().unwrap_or(0);
    };
    match percent.parse::<usize>().unwrap_or(0) {
        0 => 0,
        percent => total.saturating_mul(percent).div_ceil(100).max(1),
    }
}

#[cfg(test)]
mod tests;
