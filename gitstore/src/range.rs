//! Ranges of versions, as Go's `Masterminds/semver` reads them, which Flux and Helm use.

use std::cmp::Reverse;

use semver::{BuildMetadata, Prerelease, Version};

use crate::FetchError;
use remotes::{Reference, version};

/// Operators that may precede a version, the longest first.
const OPERATORS: [(&str, Operator); 11] = [
    ("!=", Operator::Not),
    (">=", Operator::AtLeast),
    ("=>", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("=<", Operator::AtMost),
    ("~>", Operator::Tilde),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("~", Operator::Tilde),
    ("^", Operator::Caret),
    ("=", Operator::Exact),
];

/// A range. Comparators that are separated by spaces or commas must all match; alternatives are separated by `||`; `1.2
/// - 1.4` means from the first to the second. An incomplete version (`1.2`, `1.x`) means all of its releases.
///
/// A pre-release matches only if a comparator of the same alternative names one (`>=1.2-0`).
pub(crate) struct Range(Vec<Vec<Comparator>>);

struct Comparator {
    operator: Operator,
    /// Missing numbers are zero.
    version: Version,
    /// How many of major, minor and patch are given.
    given: usize,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Operator {
    Exact,
    Not,
    Greater,
    Less,
    AtLeast,
    AtMost,
    Tilde,
    Caret,
}

impl Range {
    pub(crate) fn parse(text: &str) -> Result<Self, FetchError> {
        let invalid = |why: &str| FetchError::InvalidReference {
            reference: Reference::Semver(text.into()).to_string(),
            why: why.into(),
        };
        let alternatives = text.split("||").map(|alternative| {
            if alternative.trim().is_empty() {
                return Err(invalid("an empty range; write * for any release"));
            }
            Reader(alternative)
                .comparators()
                .ok_or_else(|| invalid("a range is written like >=1.2 <2, ~1.4, ^2.0, 1.2 - 1.4, or * for any release"))
        });
        Ok(Self(alternatives.collect::<Result<_, _>>()?))
    }

    /// The tag with the highest version (with or without a leading `v`) that matches.
    pub(crate) fn highest<'a>(&self, tags: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        tags.filter_map(|tag| {
            let version = version(tag)?;
            self.holds(&version).then_some((version, tag))
        })
        .max_by(|(a, tag_a), (b, tag_b)| a.cmp_precedence(b).then_with(|| tag_a.cmp(tag_b)))
        .map(|(_, tag)| tag)
    }

    fn holds(&self, version: &Version) -> bool {
        self.0.iter().any(|all| {
            let takes_pre_releases = all.iter().any(|comparator| !comparator.version.pre.is_empty());
            (version.pre.is_empty() || takes_pre_releases) && all.iter().all(|comparator| comparator.fits(version))
        })
    }
}

/// Versions (with or without a leading `v`) from the highest to the lowest, and then everything else.
pub(crate) fn newest_first(mut versions: Vec<String>) -> Vec<String> {
    versions.sort_by_cached_key(|text| (Reverse(version(text)), text.clone()));
    versions
}

impl Comparator {
    fn fits(&self, version: &Version) -> bool {
        let order = version.cmp_precedence(&self.version);
        match self.operator {
            Operator::Exact if self.given == 3 => order.is_eq(),
            Operator::Exact | Operator::Tilde => order.is_ge() && self.is_same_minor(version),
            Operator::Not => match self.given {
                1 => version.major != self.version.major,
                2 => !self.is_same_minor(version) || version.pre != self.version.pre,
                _ => order.is_ne(),
            },
            Operator::Greater => match self.given {
                1 => version.major > self.version.major,
                2 => (version.major, version.minor) > (self.version.major, self.version.minor),
                _ => order.is_gt(),
            },
            Operator::Less => order.is_lt(),
            Operator::AtLeast => order.is_ge(),
            Operator::AtMost => match self.given {
                3 => order.is_le(),
                1 => version.major <= self.version.major,
                _ => (version.major, version.minor) <= (self.version.major, self.version.minor),
            },
            Operator::Caret => order.is_ge() && self.is_compatible(version),
        }
    }

    /// For the operator `~`. `~0.0.0` matches every version.
    fn is_same_minor(&self, version: &Version) -> bool {
        let Version { major, minor, patch, .. } = self.version;
        let is_zero = (major, minor, patch) == (0, 0, 0);
        is_zero && matches!(self.given, 0 | 3) || version.major == major && (self.given == 1 || version.minor == minor)
    }

    /// For `^`: the first number that is not zero must be the same.
    fn is_compatible(&self, version: &Version) -> bool {
        let Version { major, minor, patch, .. } = self.version;
        if major > 0 || self.given == 1 {
            version.major == major
        } else if minor > 0 || self.given == 2 {
            (version.major, version.minor) == (0, minor)
        } else {
            (version.major, version.minor, version.patch) == (0, 0, patch)
        }
    }
}

/// Reads an alternative of a range; has the text that is not read yet.
struct Reader<'t>(&'t str);

impl Reader<'_> {
    /// `None` if the text is not a range.
    fn comparators(mut self) -> Option<Vec<Comparator>> {
        let mut comparators = Vec::new();
        self.skip_space();
        loop {
            let operator = OPERATORS.iter().find(|(text, _)| self.take(text)).map(|(_, operator)| *operator);
            self.skip_space();
            let first = self.version()?;
            let is_separate = self.skip_space();
            match operator {
                None if is_separate && self.take("-") => {
                    if !self.skip_space() {
                        return None;
                    }
                    let last = self.version()?;
                    self.skip_space();
                    comparators.push(Comparator { operator: Operator::AtLeast, ..first });
                    comparators.push(Comparator { operator: Operator::AtMost, ..last });
                    // A comma may follow, but need not: the next comparator is a separate one in any case.
                    self.take(",");
                    self.skip_space();
                    if self.0.is_empty() {
                        return Some(comparators);
                    }
                    continue;
                }
                operator => comparators.push(Comparator { operator: operator.unwrap_or(Operator::Exact), ..first }),
            }
            if self.0.is_empty() {
                return Some(comparators);
            }
            let is_apart = self.take(",") || is_separate;
            self.skip_space();
            if !is_apart {
                return None;
            }
        }
    }

    fn version(&mut self) -> Option<Comparator> {
        self.take("v");
        let mut numbers = [0; 3];
        let mut given = 3;
        for (index, number) in numbers.iter_mut().enumerate() {
            if index > 0 && !self.take(".") {
                given = given.min(index);
                break;
            }
            match self.word(|c| c.is_ascii_digit() || "xX*".contains(c))? {
                "x" | "X" | "*" => given = given.min(index),
                // Numbers after an x are ignored.
                text if given < index => drop(text.parse::<u64>().ok()?),
                text => *number = text.parse().ok()?,
            }
        }
        let in_identifiers = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        let pre = if self.take("-") { Prerelease::new(self.word(in_identifiers)?).ok()? } else { Prerelease::EMPTY };
        if self.take("+") {
            BuildMetadata::new(self.word(in_identifiers)?).ok()?;
        }
        let [major, minor, patch] = numbers;
        let version = Version { major, minor, patch, pre, build: BuildMetadata::EMPTY };
        Some(Comparator { operator: Operator::Exact, version, given })
    }

    fn take(&mut self, text: &str) -> bool {
        let rest = self.0.strip_prefix(text);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Reads one or more characters for which `is_in` is true.
    fn word(&mut self, is_in: impl Fn(char) -> bool) -> Option<&str> {
        let end = self.0.find(|c| !is_in(c)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// Skips white space, and says whether there was any.
    fn skip_space(&mut self) -> bool {
        let rest = self.0.trim_start_matches(|c: char| c.is_ascii_whitespace());
        let was_some = rest.len() < self.0.len();
        self.0 = rest;
        was_some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_tag_in_a_range_wins() {
        let tags = ["v1.2.0", "1.10.0", "v1.9.3", "2.0.0-rc.1", "v2.0.0", "latest", "v3", "2.1.0-rc.1"];
        for (range, expected) in [
            (">=1.2 <2", Some("1.10.0")),
            (">= 1.2, < 1.10", Some("v1.9.3")),
            ("1.2.0", Some("v1.2.0")),
            ("1.x", Some("1.10.0")),
            ("^1.2", Some("1.10.0")),
            ("~1.9", Some("v1.9.3")),
            ("*", Some("v2.0.0")),
            (">=2.0.0-0 <2.0.0", Some("2.0.0-rc.1")),
            (">=2.0.0-0", Some("2.1.0-rc.1")),
            ("=1.9.3 || >=3", Some("v1.9.3")),
            (">=3", None),
        ] {
            assert_eq!(Range::parse(range).unwrap().highest(tags.into_iter()), expected, "{range}");
        }
        for range in ["", "abc", ">=", "1.2 ||"] {
            assert!(matches!(Range::parse(range), Err(FetchError::InvalidReference { .. })), "{range:?}");
        }
    }

    #[test]
    fn the_newest_versions_come_first() {
        let versions = ["1.9.0", "latest", "v1.10.0", "2.0.0-rc.1", "edge", "1.9.0+b"];
        let sorted = newest_first(versions.map(str::to_owned).into());
        assert_eq!(sorted, ["2.0.0-rc.1", "v1.10.0", "1.9.0+b", "1.9.0", "edge", "latest"]);
    }

    /// The table has the results of the Go library. The program in `tests/ranges` wrote this table.
    #[test]
    fn ranges_are_read_as_masterminds_semver_reads_them() {
        let mut lines = include_str!("../tests/ranges/ranges.txt").lines().filter(|line| !line.starts_with('#'));
        let versions: Vec<Version> =
            lines.next().unwrap().split(' ').map(|version| Version::parse(version).unwrap()).collect();
        let (mut count, mut wrong) = (0, Vec::new());
        for line in lines {
            let (quoted, expected) = line.rsplit_once(' ').unwrap();
            let range = quoted[1..quoted.len() - 1].replace("\\t", "\t").replace("\\n", "\n");
            let found = match Range::parse(&range) {
                Ok(range) => versions.iter().map(|version| if range.holds(version) { '+' } else { '-' }).collect(),
                Err(_) => "error".to_owned(),
            };
            if found != expected {
                wrong.push(format!("{quoted}\n  found    {found}\n  expected {expected}"));
            }
            count += 1;
        }
        assert!(count > 400, "{count}");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
