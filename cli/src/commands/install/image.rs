//! References to container images.

use std::sync::LazyLock;

use anyhow::bail;
use regex::Regex;

use crate::output::Hint;

/// The grammar of references that container runtimes read: `host:port/path/name:tag@digest`.
static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    let host = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?";
    let part = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*";
    let tag = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
    let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    let whole = format!(r"\A(?:{host}/)?{part}(?:/{part})*(?::{tag})?(?:@{digest})?\z");
    Regex::new(&whole).expect("the grammar above is a regular expression")
});

/// Refuses a reference that no container runtime can pull.
///
/// # Errors
/// The text is not a valid image reference.
pub fn check(image: &str) -> anyhow::Result<()> {
    if REFERENCE.is_match(image) {
        return Ok(());
    }
    bail!(Hint::error(
        format!("{image:?} is not a valid image reference: nothing was applied"),
        "write it as registry.example/team/gitseal-controller:0.1.0, or with @sha256:… instead of the tag; use lower-case letters, and nothing before the registry, not even https://",
    ))
}

/// The same image with this program's version as the tag, if its tag is now the installed `version`.
pub fn of_this_version(image: &str, version: Option<&str>) -> Option<String> {
    let version = version?;
    let (name, tag) = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))?;
    let prefix = tag.strip_suffix(version).filter(|prefix| ["", "v"].contains(prefix))?;
    Some(format!("{name}:{prefix}{}", env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests {
    use super::{check, of_this_version};

    #[test]
    fn references_are_known_by_their_grammar() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for image in [
            "a:1",
            "a",
            "gitseal-controller:0.1.0",
            "localhost:5000/a/b_c:v1",
            "Registry.example/a",
            "[::1]:5000/a:x",
            &format!("a/b@{digest}"),
            &format!("a/b:1@{digest}"),
            "registry.example:5000/a.b/c--d:V_1",
        ] {
            check(image).unwrap();
        }
        for wrong in [
            "",
            "a/B",
            "UPPER/foo bar",
            "a b",
            "a:",
            ":1",
            "a/",
            "/a",
            "a//b",
            "a:.x",
            "a@sha256:xyz",
            "a@",
            "-a",
            "a:1 ",
            "a:1\n",
            "https://registry.example/a",
            "registry.example:/a",
            "a\nb",
        ] {
            check(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_tag_follows_the_version_only_if_it_was_one() {
        let now = env!("CARGO_PKG_VERSION");
        for (image, wanted) in [
            (
                "registry.example:5000/gitseal-controller:0.0.9",
                format!("registry.example:5000/gitseal-controller:{now}"),
            ),
            ("gitseal-controller:v0.0.9", format!("gitseal-controller:v{now}")),
        ] {
            assert_eq!(of_this_version(image, Some("0.0.9")), Some(wanted));
        }
        for image in ["a:5000/gitseal", "a/gitseal:prod", "a/gitseal:10.0.9", "a/b@sha256:0.0.9x", "a:0.0.9/b"] {
            assert_eq!(of_this_version(image, Some("0.0.9")), None, "{image}");
        }
        assert_eq!(of_this_version("gitseal-controller:0.0.9", None), None);
    }
}
