//! References that can be followed, and the revisions that they point to.

use std::fmt;
use std::str::FromStr;

/// What to follow in a repository.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Reference {
    /// The remote's default branch.
    #[default]
    Head,
    /// A branch by its short name.
    Branch(String),
    /// A tag by its short name.
    Tag(String),
    /// The tag with the highest version in a range, for example `>=1.2 <2`.
    Semver(String),
    /// One commit by its 40 hex digits.
    Commit(String),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("the default branch"),
            Self::Branch(name) => write!(f, "branch {name:?}"),
            Self::Tag(name) => write!(f, "tag {name:?}"),
            Self::Semver(range) => write!(f, "a tag within {range:?}"),
            Self::Commit(id) => write!(f, "commit {id}"),
        }
    }
}

/// A commit and the name under which it was found.
///
/// Written as `main@sha1:<40 hex digits>`; `sha1:<40 hex digits>` when it was asked for by its hash.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Revision {
    /// Short name of the branch or tag; empty for a commit that was asked for by its hash.
    pub reference: String,
    /// 40 lowercase hex digits.
    pub commit: String,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.reference.is_empty() {
            write!(f, "{}@", self.reference)?;
        }
        write!(f, "sha1:{}", self.commit)
    }
}

/// The text is not a revision.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a revision such as main@sha1:<40 hex digits>")]
pub struct InvalidRevision(String);

impl FromStr for Revision {
    type Err = InvalidRevision;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRevision(text.to_owned());
        let (reference, commit) = match text.rsplit_once("@sha1:") {
            Some(("", _)) => return Err(invalid()),
            Some(parts) => parts,
            None => ("", text.strip_prefix("sha1:").ok_or_else(invalid)?),
        };
        if !is_commit_id(commit) {
            return Err(invalid());
        }
        Ok(Self { reference: reference.to_owned(), commit: commit.to_owned() })
    }
}

pub(super) fn is_commit_id(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_written_and_read_back() {
        let commit = "4f1c".repeat(10);
        for text in [format!("main@sha1:{commit}"), format!("a@b@sha1:{commit}"), format!("sha1:{commit}")] {
            assert_eq!(text.parse::<Revision>().unwrap().to_string(), text);
        }
        for text in
            ["", "main", "main@sha1:", "@sha1:", &format!("@sha1:{commit}"), &format!("main@sha1:{}", "X".repeat(40))]
        {
            assert!(text.parse::<Revision>().is_err(), "{text:?}");
        }
    }
}
