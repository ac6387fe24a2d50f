use std::io::Read;

use worker::Cancel;

use super::index::{Flaw, Index, Version, read};
use super::*;

fn index(text: &str) -> Result<Index, Flaw> {
    read(text.as_bytes(), "podinfo", &Cancel::default())
}

const DIGEST: &str = "4f1c4f1c4f1c4f1c4f1c4f1c4f1c4f1c4f1c4f1c4f1c4f1c4f1c4f1c4f1c4f1c";

#[test]
fn the_versions_of_one_chart_are_read() {
    let text = format!(
        "apiVersion: v1\nentries:\n  other:\n  - version: 9.0.0\n    urls: [x]\n  podinfo:\n  - appVersion: 7.0.0\n    \
         version: 6.5.0\n    digest: sha256:{DIGEST}\n    dependencies:\n    - {{name: a, version: 1.0.0}}\n    urls:\n    \
         - a.tgz\n    - https://b.example.com/a.tgz\n    deprecated: true\n  - version: \"6.4.0\"\n    digest: wrong\n  \
         - {{name: without a version}}\n  - text\ngenerated: \"2026-01-01\"\n"
    );
    let read = index(&text).unwrap();
    let urls = vec!["a.tgz".to_owned(), "https://b.example.com/a.tgz".to_owned()];
    let first = Version { name: "6.5.0".into(), digest: Some(DIGEST.into()), urls };
    assert_eq!(read.versions, [first, Version { name: "6.4.0".into(), ..Version::default() }]);
    assert_eq!(read.charts, ["other", "podinfo"]);
    // Some programs write JSON.
    let json = format!(r#"{{"entries":{{"podinfo":[{{"version":"1.0.0","digest":"{DIGEST}","urls":["a.tgz"]}}]}}}}"#);
    assert_eq!(index(&json).unwrap().versions.len(), 1);
}

#[test]
fn hostile_indexes_are_refused() {
    let deep = format!("a: {}", "[".repeat(100_000));
    let blocks = (0..10_000).fold("entries:\n".to_owned(), |text, depth| text + &" ".repeat(depth % 500) + "a:\n");
    let keys = format!("entries:\n  ? {}\n  : []\n", "a".repeat(5000));
    let long = "x".repeat(512 << 10);
    let large = format!("  - version: 1.0.0\n    urls: [\"{long}\"]\n").repeat(10);
    let large = format!("entries:\n  podinfo:\n{large}");
    let many = format!("entries:\n  podinfo:\n{}", "  - version: 1.0.0\n".repeat(100_000));
    // The parser has a whole value in memory, and a comment is skipped in one go.
    let value = format!("entries: {{}}\nicon: {}", "x".repeat(2 << 20));
    let folded = format!("entries: {{}}\nicon: \"{}\"", "\n".repeat(2 << 20));
    let block = format!("entries: {{}}\nicon: |\n{}", " x\n".repeat(1 << 20));
    let comments = format!("entries: {{}}\n{}", "# x\n".repeat(1 << 20));
    let blanks = format!("entries: {{}}\n{}", " ".repeat(2 << 20));
    let version = format!("{{version: 1.0.0, digest: {DIGEST}, urls: [a]}}");
    let of = |versions: &str| format!("entries: {{podinfo: [{versions}]}}");
    for (text, what) in [
        ("", "no mapping `entries`"),
        ("<html><body>hello</body></html>", "is no mapping"),
        ("- a", "is no mapping"),
        ("entries: text", "no mapping `entries`"),
        ("entries: []", "no mapping in `entries`"),
        ("entries: {podinfo: {version: 1.0.0}}", "no list of versions"),
        ("entries: {? [a] : b}", "a key that is not a string"),
        ("a: &a [1]\nb: *a\nentries: {}", "has a YAML anchor"),
        ("a: *a\nentries: {}", "cannot be read"),
        ("entries: {podinfo: [", "cannot be read"),
        (&deep, "nested too deeply"),
        (&blocks, "cannot be read"),
        (&keys, "more than 1024 bytes"),
        (&large, "more than 4 MiB"),
        (&many, "more than 4 MiB"),
        (&value, "more than 1 MiB"),
        (&folded, "more than 1 MiB"),
        (&block, "more than 1 MiB"),
        (&comments, "more than 1 MiB"),
        (&blanks, "more than 1 MiB"),
        ("%TAG ! tag:example.com,2000:\n---\nentries: {}", "cannot be read"),
        ("entries: {}\n---\nentries: {}", "a second document"),
        ("entries: {}\nentries: {}", "has entries a second time"),
        ("entries: {podinfo: [], other: [], podinfo: []}", "has the chart a second time"),
        (&of("{version: 1.0.0, version: 2.0.0}"), "has version a second time"),
        (&of("{version: 1.0.0, digest: a, digest: b}"), "has digest a second time"),
        (&of("{urls: [a], version: 1.0.0, \"urls\": [b]}"), "has urls a second time"),
        (&of(&format!("{version}, {{<<: *a}}")), "cannot be read"),
    ] {
        let begins: String = text.chars().take(60).collect();
        match index(text) {
            Err(Flaw::Unreadable(told) | Flaw::TooLarge(told)) => assert!(told.contains(what), "{begins}: {told}"),
            other => panic!("{begins}: {other:?}"),
        }
    }
    // Twice where it does not count.
    assert!(
        index(&format!("{{a: 1, a: 2, entries: {{other: [], other: [], podinfo: [{version}, {version}]}}}}")).is_ok()
    );
    let binary = read(&b"entries:\n  a\xff: []\n"[..], "podinfo", &Cancel::default());
    assert!(matches!(binary, Err(Flaw::Unreadable(told)) if told.contains("UTF-8")));
}

/// A stream that breaks after a while.
struct Breaks(usize);

impl Read for Breaks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0 == 0 {
            return Err(std::io::Error::other("broken"));
        }
        self.0 -= 1;
        let text = b"entries:\n  podinfo: []\n";
        buffer[..text.len()].copy_from_slice(text);
        Ok(text.len())
    }
}

#[test]
fn a_part_of_an_index_is_not_used() {
    assert!(matches!(read(Breaks(1), "podinfo", &Cancel::default()), Err(Flaw::Broken(_))));
}

fn versions(names: &[&str]) -> Index {
    let versions = names.iter().map(|name| Version { name: (*name).to_owned(), ..Version::default() });
    Index { versions: versions.collect(), ..Index::default() }
}

#[test]
fn the_newest_version_is_chosen_as_by_helm() {
    let all = versions(&["2.0.0-rc.1", "1.2.0", "1.10.0", "1.9.0", "edge"]);
    for (reference, expected) in [
        (Reference::Head, Some("1.10.0")),
        (Reference::Semver("<1.10".into()), Some("1.9.0")),
        (Reference::Semver(">=1-0".into()), Some("2.0.0-rc.1")),
        (Reference::Tag("2.0.0-rc.1".into()), Some("2.0.0-rc.1")),
        (Reference::Tag("edge".into()), Some("edge")),
        (Reference::Tag("1.2".into()), None),
        (Reference::Semver(">=3".into()), None),
    ] {
        let found = choose(&all, &reference);
        assert_eq!(found.as_ref().ok().map(|found| found.0.name.as_str()), expected, "{reference}");
        if let Err(error) = found {
            assert!(error.to_string().contains("the versions are: 2.0.0-rc.1, 1.10.0"), "{error}");
        }
    }
    assert!(choose(&all, &Reference::Branch("main".into())).is_err_and(|error| error.is_terminal()));
    let told = choose(&versions(&["1.0.0-a"]), &Reference::Head).err().unwrap().to_string();
    assert!(told.contains("no pre-release") && told.contains("1.0.0-a"), "{told}");
}

#[test]
fn the_url_of_an_archive_may_be_relative_to_the_index() {
    const BASE: &str = "https://charts.example.com:8443/stable";
    for (url, expected) in [
        ("podinfo-1.0.0.tgz", Ok("https://charts.example.com:8443/stable/podinfo-1.0.0.tgz")),
        ("charts/podinfo-1.0.0+7.tgz", Ok("https://charts.example.com:8443/stable/charts/podinfo-1.0.0+7.tgz")),
        ("./../a.tgz?x=../y", Ok("https://charts.example.com:8443/a.tgz?x=../y")),
        ("../../../a.tgz", Ok("https://charts.example.com:8443/a.tgz")),
        ("/a.tgz#b", Ok("https://charts.example.com:8443/a.tgz")),
        ("//cdn.example.com/a.tgz", Ok("https://cdn.example.com/a.tgz")),
        ("https://cdn.example.com/a.tgz", Ok("https://cdn.example.com/a.tgz")),
        ("http://cdn.example.com/a.tgz", Err("it leads away from https")),
        ("file:///etc/passwd", Err("it does not begin with https://")),
        (
            "oci://registry.example.com/a",
            Err("it leads to a registry: set spec.url to the chart's oci:// URL, and remove spec.chart"),
        ),
        ("a.tgz?from=https://b", Ok("https://charts.example.com:8443/stable/a.tgz?from=https://b")),
        ("ftp://cdn.example.com/a.tgz", Err("it does not begin with https://")),
        ("https://charts.example.com:8443@evil.example.com/a.tgz", Err("it names a user")),
        ("a b.tgz", Err("it is not a URL")),
        ("a\n.tgz", Err("it is not a URL")),
    ] {
        assert_eq!(resolve(BASE, url).as_deref().map_err(|why| *why), expected, "{url}");
    }
    assert_eq!(resolve("http://a.example.com", "b.tgz").as_deref(), Ok("http://a.example.com/b.tgz"));
}
