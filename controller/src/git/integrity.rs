//! Is a commit there, with everything it needs?

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use gix::ObjectId;
use gix::bstr::BString;

use super::remote::presentable;

/// Why a commit cannot be used.
pub(super) enum Flaw {
    /// The reference stands for a tree or a file.
    NotACommit(gix::objs::Kind),
    /// Missing or unreadable objects.
    Unusable(String),
    /// Time is up.
    TimedOut,
}

/// The commit behind `id`, which may be an annotated tag.
pub(super) fn commit_of(repo: &gix::Repository, id: ObjectId) -> Result<ObjectId, Flaw> {
    let object = repo
        .find_object(id)
        .and_then(gix::Object::peel_tags_to_end)
        .map_err(unusable)?;
    match object.kind {
        gix::objs::Kind::Commit => Ok(object.id),
        other => Err(Flaw::NotACommit(other)),
    }
}

/// Checks that every object of `commit` is there, but for subtrees that `known` (a tree checked before) has as well.
/// Work is proportional to what changed.
pub(super) fn check_complete(
    repo: &gix::Repository,
    commit: ObjectId,
    known: Option<ObjectId>,
    deadline: Instant,
) -> Result<(), Flaw> {
    let commit = repo.find_commit(commit).map_err(unusable)?;
    let tree = commit.tree_id().map_err(unusable)?.detach();
    let mut seen = gix::hashtable::HashSet::default();
    let mut pending = vec![(tree, known)];
    while let Some((tree, known)) = pending.pop() {
        if Some(tree) == known || !seen.insert(tree) {
            continue;
        }
        if Instant::now() > deadline {
            return Err(Flaw::TimedOut);
        }
        let known = known.map_or_else(HashMap::new, |known| entries(repo, known));
        for entry in repo.find_tree(tree).map_err(unusable)?.iter() {
            let entry = entry.map_err(unusable)?;
            let id = entry.object_id();
            let before = known.get(entry.filename()).copied();
            if before == Some(id) || entry.mode().is_commit() {
                continue;
            }
            if entry.mode().is_tree() {
                pending.push((id, before));
            } else if !repo.has_object(id) {
                let name = presentable(&entry.filename().to_string());
                return Err(Flaw::Unusable(format!(
                    "the object {id} ({name}) is missing"
                )));
            }
        }
    }
    Ok(())
}

/// What a tree names; nothing if it is no tree.
fn entries(repo: &gix::Repository, tree: ObjectId) -> HashMap<BString, ObjectId> {
    repo.find_tree(tree).map_or_else(
        |_| HashMap::new(),
        |tree| {
            let entries = tree.iter().flatten();
            entries
                .map(|entry| (entry.filename().to_owned(), entry.object_id()))
                .collect()
        },
    )
}

fn unusable(error: impl fmt::Display) -> Flaw {
    Flaw::Unusable(presentable(&error.to_string()))
}
