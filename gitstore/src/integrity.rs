//! Checks that a commit is stored with all its objects.

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use gix::ObjectId;
use gix::bstr::BString;

use super::transport::presentable;

/// Why a commit cannot be used.
pub(super) enum Flaw {
    /// The reference points to a tree or a file.
    NotACommit(gix::objs::Kind),
    /// Missing or unreadable objects.
    Unusable(String),
    /// The time is over.
    TimedOut,
}

/// The commit that `id` points to. `id` may be an annotated tag.
pub(super) fn commit_of(repo: &gix::Repository, id: ObjectId) -> Result<ObjectId, Flaw> {
    let object = repo.find_object(id).and_then(gix::Object::peel_tags_to_end).map_err(unusable)?;
    match object.kind {
        gix::objs::Kind::Commit => Ok(object.id),
        other => Err(Flaw::NotACommit(other)),
    }
}

/// Checks that every object of `commit` is stored, except in subtrees that `known` (a tree that was checked before)
/// also has. So the work depends on how much changed.
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
                return Err(Flaw::Unusable(format!("the object {id} ({name}) is missing")));
            }
        }
    }
    Ok(())
}

/// The entries of a tree; none if it is not a tree.
fn entries(repo: &gix::Repository, tree: ObjectId) -> HashMap<BString, ObjectId> {
    repo.find_tree(tree).map_or_else(
        |_| HashMap::new(),
        |tree| {
            let entries = tree.iter().flatten();
            entries.map(|entry| (entry.filename().to_owned(), entry.object_id())).collect()
        },
    )
}

fn unusable(error: impl fmt::Display) -> Flaw {
    Flaw::Unusable(presentable(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::git;
    use super::*;

    #[test]
    fn what_is_missing_is_noticed_unless_it_was_checked_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        git(path, &["init", "--quiet", "--bare"]);
        let missing = "1".repeat(40);
        let tree = |entry: &str| git_input(path, &["mktree", "--missing"], &format!("{entry}\n"));
        let inner = tree(&format!("100644 blob {missing}\tlost.yaml"));
        let module = tree(&format!("160000 commit {missing}\tmodule"));
        let broken = tree(&format!("040000 tree {inner}\tfolder"));
        let lost = tree(&format!("040000 tree {missing}\tfolder"));
        let repo = gix::open_opts(path, gix::open::Options::isolated()).unwrap();
        let id = |hex: &str| ObjectId::from_hex(hex.as_bytes()).unwrap();
        let check = |tree: &str, known: Option<&str>, limit: Duration| {
            let commit = git(path, &["commit-tree", "-m", "x", tree]);
            check_complete(&repo, id(&commit), known.map(id), Instant::now() + limit)
        };
        let ample = Duration::from_secs(30);
        assert!(matches!(check(&broken, None, ample), Err(Flaw::Unusable(text)) if text.contains("lost.yaml")));
        assert!(matches!(check(&lost, None, ample), Err(Flaw::Unusable(_))));
        assert!(matches!(check(&broken, None, Duration::ZERO), Err(Flaw::TimedOut)));
        assert!(check(&module, None, ample).is_ok(), "a submodule's commit lives elsewhere");
        assert!(check(&broken, Some(&broken), ample).is_ok());
        assert!(matches!(commit_of(&repo, id(&inner)), Err(Flaw::NotACommit(gix::objs::Kind::Tree))));
    }

    fn git_input(folder: &std::path::Path, arguments: &[&str], input: &str) -> String {
        let file = folder.join("input");
        std::fs::write(&file, input).unwrap();
        super::super::tests::git_reading(folder, arguments, std::fs::File::open(file).unwrap().into())
    }
}
