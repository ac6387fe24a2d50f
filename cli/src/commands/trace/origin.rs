//! Which revision an object of the cluster is from. After a pass that failed in part, some objects are from the new revision
//! and others still from an older one.

use crds::Sync;
use manifests::Location;
use pipeline::{inventory::Tracked, plan::of_either_time};

use super::place::{Search, Unknown};

/// Where an object is from.
#[derive(Default)]
pub struct Origin {
    /// The revision; if it is not certain which one it is, all revisions that it may be.
    pub revisions: Vec<String>,
    /// The file and line of the object in that revision.
    pub place: Option<Result<Location, Unknown>>,
}

impl Origin {
    /// Finds the revision that has the object of `search` in the form that was `applied`, if the user's clone of the
    /// repository has this revision.
    pub fn find(search: &Search<'_>, applied: &Tracked) -> Self {
        let possible = possible(search.sync);
        let history = search.sync.status.iter().flat_map(|status| &status.history).map(|entry| entry.revision.as_str());
        let older = history.filter(|revision| !possible.contains(revision));
        let mut of_first = None;
        let mut is_clone = true;
        for revision in possible.iter().copied().chain(older) {
            let found = search.at(revision);
            match &found {
                Ok(found)
                    if found.digest.is_some()
                        && found.digest.as_deref() == applied.manifest.as_deref().map(of_either_time) =>
                {
                    return Self { revisions: vec![revision.to_owned()], place: Some(Ok(found.place.clone())) };
                }
                Ok(_) => {}
                Err(why) => is_clone &= *why != Unknown::NoClone,
            }
            of_first.get_or_insert(found);
        }
        let place = match possible.as_slice() {
            [] => None,
            [_] => of_first.map(|found| found.map(|found| found.place)),
            _ if is_clone => Some(Err(Unknown::NotAsApplied)),
            _ => Some(Err(Unknown::NoClone)),
        };
        Self { revisions: possible.into_iter().map(str::to_owned).collect(), place }
    }
}

/// The revisions that objects of `sync` may be from: the last one that was applied as a whole, and later ones that may have
/// been applied in part.
fn possible(sync: &Sync) -> Vec<&str> {
    let Some(status) = &sync.status else { return Vec::new() };
    let applied = status.last_applied_revision.as_deref();
    let mut possible: Vec<_> = applied.into_iter().collect();
    let Some(attempted) = status.last_attempted_revision.as_deref().filter(|attempted| Some(*attempted) != applied)
    else {
        return possible;
    };
    let is_failure =
        |entry: &&crds::HistoryEntry| Some(entry.revision.as_str()) != applied && entry.outcome != "Applied";
    let failed: Vec<_> = status.history.iter().take_while(is_failure).collect();
    if failed.iter().all(|entry| entry.revision != attempted) {
        // The revision that was attempted last is being applied.
        possible.push(attempted);
    }
    // If nothing of a revision was applied, no object can be from it.
    possible.extend(failed.iter().filter(|entry| !entry.summary.is_empty()).map(|entry| entry.revision.as_str()));
    possible
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_from_what_was_applied_as_a_whole_or_in_part() {
        let entry = |revision: &str, outcome: &str, summary: &str| json!({"revision": revision, "time": "2026-01-01T00:00:00Z", "outcome": outcome, "summary": summary});
        let possible = |attempted: &str, applied: Option<&str>, history: serde_json::Value| {
            let status =
                json!({"lastAttemptedRevision": attempted, "lastAppliedRevision": applied, "history": history});
            let sync =
                json!({"metadata": {"name": "web"}, "spec": {"repository": {"name": "fleet"}}, "status": status});
            let sync: Sync = serde_json::from_value(sync).unwrap();
            super::possible(&sync).join(" ")
        };
        let one = entry("1", "Applied", "2 created");
        assert_eq!(possible("1", Some("1"), json!([one])), "1");
        assert_eq!(possible("2", Some("1"), json!([entry("2", "InvalidManifest", ""), one])), "1");
        assert_eq!(possible("2", Some("1"), json!([entry("2", "ApplyFailed", "1 changed"), one])), "1 2");
        assert_eq!(possible("2", Some("1"), json!([one])), "1 2", "it is under way");
        let failed = [entry("3", "InvalidManifest", ""), entry("2", "ApplyFailed", "1 changed")];
        assert_eq!(possible("3", Some("1"), json!([failed[0], failed[1], one])), "1 2");
        assert_eq!(possible("1", None, json!([entry("1", "ApplyFailed", "1 created")])), "1");
    }
}
