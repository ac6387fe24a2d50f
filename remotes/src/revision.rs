//! References that can be followed, and the revisions that they point to.

use std::fmt;
use std::str::FromStr;

use semver::Version;

/// What to follow in a repository.
///
/// Archives of a registry or chart repository have tags, which are their versions. Git repositories have no digests.
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
    /// One archive by its digest.
    Digest {
        /// The tag that must lead to it; empty if it is asked for by its digest only.
        tag: String,
        /// 64 lowercase hex digits, of SHA-256.
        digest: String,
    },
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("the default branch"),
            Self::Branch(name) => write!(f, "branch {name:?}"),
            Self::Tag(name) => write!(f, "tag {name:?}"),
            Self::Semver(range) => write!(f, "a tag within {range:?}"),
            Self::Commit(id) => write!(f, "commit {id}"),
            Self::Digest { tag, digest } if tag.is_empty() => write!(f, "digest sha256:{digest}"),
            Self::Digest { tag, digest } => write!(f, "tag {tag:?} with the digest sha256:{digest}"),
        }
    }
}

/// A commit or an archive, and the name under which it was found.
///
/// Written as `main@sha1:<40 hex digits>` or `6.5.0@sha256:<64 hex digits>`; without the name and the `@` when it was asked for
/// by its hash.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Revision {
    /// Short name of the branch or tag; empty for a commit or archive that was asked for by its hash.
    pub reference: String,
    /// Which content it is.
    pub id: RevisionId,
}

/// The version that a tag names, with or without a leading `v`; `None` if the tag is not a whole version.
pub fn version(tag: &str) -> Option<Version> {
    Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()
}

impl Revision {
    /// The version and the digest of an archive, if it was found under a semantic version, with or without a leading `v`. Such a
    /// version keeps its content.
    pub fn as_version(&self) -> Option<(&str, &str)> {
        match &self.id {
            RevisionId::Archive(digest) => version(&self.reference).map(|_| (self.reference.as_str(), digest.as_str())),
            RevisionId::Commit(_) => None,
        }
    }
}

/// Identifies the content of a revision.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum RevisionId {
    /// A commit of Git: 40 lowercase hex digits.
    Commit(String),
    /// An archive: the SHA-256 digest by which a registry or chart repository names it, 64 lowercase hex digits.
    Archive(String),
}

impl RevisionId {
    /// The hex digits.
    pub fn hash(&self) -> &str {
        match self {
            Self::Commit(hash) | Self::Archive(hash) => hash,
        }
    }
}

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(hash) => write!(f, "sha1:{hash}"),
            Self::Archive(hash) => write!(f, "sha256:{hash}"),
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.reference.is_empty() {
            write!(f, "{}@", self.reference)?;
        }
        self.id.fmt(f)
    }
}

/// The text is not a revision.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a revision such as main@sha1:<40 hex digits> or 6.5.0@sha256:<64 hex digits>")]
pub struct InvalidRevision(String);

impl FromStr for Revision {
    type Err = InvalidRevision;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRevision(text.to_owned());
        let (reference, id) = match text.rsplit_once('@') {
            Some(("", _)) => return Err(invalid()),
            Some(parts) => parts,
            None => ("", text),
        };
        let id = match id.split_once(':') {
            Some(("sha1", hash)) if is_commit_id(hash) => RevisionId::Commit(hash.to_owned()),
            Some(("sha256", hash)) if is_digest(hash) => RevisionId::Archive(hash.to_owned()),
            _ => return Err(invalid()),
        };
        Ok(Self { reference: reference.to_owned(), id })
    }
}

/// Whether these are the hex digits of a commit, of SHA-1.
pub fn is_commit_id(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

/// Whether these are the hex digits of SHA-256.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_written_and_read_back() {
        let (commit, digest) = ("4f1c".repeat(10), "4f1c".repeat(16));
        for text in [
            format!("main@sha1:{commit}"),
            format!("a@b@sha1:{commit}"),
            format!("sha1:{commit}"),
            format!("6.5.0@sha256:{digest}"),
            format!("sha256:{digest}"),
        ] {
            assert_eq!(text.parse::<Revision>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "main",
            "main@sha1:",
            "@sha1:",
            &format!("@sha1:{commit}"),
            &format!("main@sha1:{}", "X".repeat(40)),
            &format!("main@sha1:{digest}"),
            &format!("main@sha256:{commit}"),
            &format!("main@{commit}"),
        ] {
            assert!(text.parse::<Revision>().is_err(), "{text:?}");
        }
    }
}
