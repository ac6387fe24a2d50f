//! References to follow and revisions they stand for.

use std::fmt;
use std::str::FromStr;

use super::FetchError;

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
    /// The highest tag whose version fits a range, for example `>=1.2 <2`.
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

/// Version ranges as people write them for tags: comparators separated by spaces or commas, alternatives by `||`.
/// A bare version (`1.2.3`, `1.2`, `1.x`) stands for itself, not for everything compatible with it.
pub(super) struct Range(Vec<semver::VersionReq>);

impl Range {
    pub(super) fn parse(text: &str) -> Result<Self, FetchError> {
        let invalid =
            |why: String| FetchError::InvalidReference { reference: Reference::Semver(text.into()).to_string(), why };
        let alternatives = text.split("||").map(|alternative| {
            let comparators = comparators(alternative).join(", ");
            if comparators.is_empty() {
                return Err(invalid("an empty range; write * for any release".into()));
            }
            semver::VersionReq::parse(&comparators).map_err(|error| invalid(error.to_string()))
        });
        Ok(Self(alternatives.collect::<Result<_, _>>()?))
    }

    /// The highest of `tags` whose version (with or without a leading `v`) fits.
    pub(super) fn highest<'a>(&self, tags: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        tags.filter_map(|tag| {
            let version = semver::Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()?;
            self.0.iter().any(|range| range.matches(&version)).then_some((version, tag))
        })
        .max()
        .map(|(_, tag)| tag)
    }
}

fn comparators(alternative: &str) -> Vec<String> {
    let mut comparators: Vec<String> = Vec::new();
    let mut operator = String::new();
    for token in alternative.split([' ', '\t', ',']).filter(|token| !token.is_empty()) {
        if token.bytes().all(|b| b"<>=^~".contains(&b)) {
            operator.push_str(token); // `>= 1.2`: the version follows
            continue;
        }
        let bare = operator.is_empty() && token.starts_with(|c: char| c.is_ascii_digit());
        let wildcard = token.contains(['x', 'X', '*']);
        let prefix = if bare && !wildcard { "=" } else { "" };
        comparators.push(format!("{prefix}{}{token}", std::mem::take(&mut operator)));
    }
    if !operator.is_empty() {
        comparators.push(operator);
    }
    comparators
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

    #[test]
    fn the_highest_tag_in_a_range_wins() {
        let tags = ["v1.2.0", "1.10.0", "v1.9.3", "2.0.0-rc.1", "v2.0.0", "latest", "v3"];
        for (range, expected) in [
            (">=1.2 <2", Some("1.10.0")),
            (">= 1.2, < 1.10", Some("v1.9.3")),
            ("1.2.0", Some("v1.2.0")),
            ("1.x", Some("1.10.0")),
            ("^1.2", Some("1.10.0")),
            ("~1.9", Some("v1.9.3")),
            ("*", Some("v2.0.0")),
            (">=2.0.0-0 <2.0.0", Some("2.0.0-rc.1")),
            ("=1.9.3 || >=3", Some("v1.9.3")),
            (">=3", None),
        ] {
            assert_eq!(Range::parse(range).unwrap().highest(tags.into_iter()), expected, "{range}");
        }
        for range in ["", "abc", ">=", "1.2 ||"] {
            assert!(matches!(Range::parse(range), Err(FetchError::InvalidReference { .. })), "{range:?}");
        }
    }
}
