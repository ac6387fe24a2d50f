//! References: which commit each one means, and what is transferred for it.

use super::*;

#[test]
fn the_default_branch_a_branch_a_tag_a_range_and_a_commit() {
    let fixture = Fixture::new();
    let first = fixture.write("a.yaml", "one").push();
    fixture.git(&["tag", "v1.0.0"]);
    let second = fixture.write("a.yaml", "two").push();
    fixture.git(&["tag", "--annotate", "--message=release", "v1.2.0"]);
    fixture.git(&["push", "--quiet", "--tags", "origin"]);
    let third = fixture.write("a.yaml", "three").push();
    for (reference, expected) in [
        (Reference::Head, format!("main@sha1:{third}")),
        (branch("main"), format!("main@sha1:{third}")),
        (Reference::Tag("v1.0.0".into()), format!("v1.0.0@sha1:{first}")),
        (Reference::Tag("v1.2.0".into()), format!("v1.2.0@sha1:{second}")),
        (Reference::Semver(">=1.0 <2".into()), format!("v1.2.0@sha1:{second}")),
        (Reference::Semver("~1.0".into()), format!("v1.0.0@sha1:{first}")),
        (Reference::Commit(second.clone()), format!("sha1:{second}")),
        (branch("main"), format!("main@sha1:{third}")),
    ] {
        let revision = fixture.fetch(reference.clone()).unwrap();
        assert_eq!(revision.to_string(), expected, "{reference}");
        assert_eq!(fixture.store.last(&key(), &fixture.url()), Some(revision.clone()));
        assert_eq!(fixture.snapshot(&revision).revision(), &revision);
    }
    let commits =
        [first, second, third].map(|commit| Revision { reference: String::new(), id: RevisionId::Commit(commit) });
    let contents = commits.map(|revision| files(&fixture.snapshot(&revision), "").unwrap().remove(0).bytes);
    assert_eq!(contents, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
}

#[test]
fn only_one_commit_and_only_what_is_new_is_transferred() {
    let fixture = Fixture::new();
    let noise: Vec<u8> = (0..200_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fixture.write("large.bin", &noise).push();
    fs::remove_file(fixture.work().join("large.bin")).unwrap();
    fixture.write("kept.bin", &noise[..400_000]).write("a.yaml", "one").push();
    fixture.fetch_main();
    let size = |pack: &PathBuf| fs::metadata(pack).unwrap().len();
    let before = fixture.packs();
    assert_eq!(before.len(), 1);
    assert!(size(&before[0]) < 500_000, "history was transferred");

    fixture.write("a.yaml", "two").push();
    fixture.fetch_main();
    let new: Vec<_> = fixture.packs().into_iter().filter(|pack| !before.contains(pack)).collect();
    assert_eq!(new.len(), 1);
    assert!(size(&new[0]) < 10_000, "what was there is transferred again");
}

#[test]
fn nothing_new_transfers_nothing() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "one").push();
    let revision = fixture.fetch(branch("main")).unwrap();
    let packs = fixture.packs();
    for _ in 0..3 {
        assert_eq!(fixture.fetch(branch("main")).unwrap(), revision);
    }
    assert_eq!(fixture.packs(), packs);
}

#[test]
fn a_rewritten_branch_is_followed_and_an_old_commit_comes_back() {
    let fixture = Fixture::new();
    let first = fixture.write("a.yaml", "one").push();
    fixture.fetch_main();
    fixture.write("a.yaml", "two").push();
    fixture.fetch_main();
    fixture.git(&["reset", "--quiet", "--hard", &first]);
    let rewritten = fixture.write("a.yaml", "other").push();
    assert_eq!(fixture.fetch_main().revision().id.hash(), rewritten);
    fixture.git(&["reset", "--quiet", "--hard", &first]);
    fixture.git(&["push", "--quiet", "--force", "origin", "HEAD"]);
    let back = fixture.fetch_main();
    assert_eq!(back.revision().id.hash(), first);
    assert_eq!(files(&back, "").unwrap()[0].bytes, b"one");
}

#[test]
fn a_branch_can_go_and_come_back_and_a_tag_can_move() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "one").push();
    fixture.git(&["push", "--quiet", "origin", "HEAD:refs/heads/release", "HEAD:refs/tags/v1"]);
    let before = fixture.fetch(branch("release")).unwrap();
    fixture.git(&["push", "--quiet", "origin", ":refs/heads/release"]);
    let gone = fixture.fetch(branch("release")).unwrap_err();
    assert_eq!(gone.reason(), "ReferenceNotFound");
    assert_eq!(gone.to_string(), "branch \"release\" was not found; the branches are: main");
    assert_eq!(fixture.store.last(&key(), &fixture.url()), Some(before), "the last good revision stays");

    let second = fixture.write("a.yaml", "two").push();
    fixture.git(&["push", "--quiet", "--force", "origin", "HEAD:refs/heads/release", "HEAD:refs/tags/v1"]);
    assert_eq!(fixture.fetch(branch("release")).unwrap().id.hash(), second);
    assert_eq!(fixture.fetch(Reference::Tag("v1".into())).unwrap().id.hash(), second);
}

#[test]
fn a_reference_that_is_not_there_is_named_with_what_there_is() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "one").push();
    fixture.git(&["push", "--quiet", "origin", "HEAD:refs/tags/v1.0.0"]);
    for (reference, expected) in [
        (branch("mian"), "branch \"mian\" was not found; the branches are: main"),
        (Reference::Tag("v2".into()), "tag \"v2\" was not found; the tags are: v1.0.0"),
        (Reference::Semver(">=2".into()), "a tag within \">=2\" was not found; the tags are: v1.0.0"),
    ] {
        let error = fixture.fetch(reference).unwrap_err();
        assert_eq!((error.reason(), error.to_string().as_str()), ("ReferenceNotFound", expected));
        assert!(!error.is_terminal());
    }
    for reference in [branch("a..b"), branch("x*"), branch(""), Reference::Commit("main".into())] {
        let error = fixture.fetch(reference.clone()).unwrap_err();
        assert_eq!(error.reason(), "InvalidReference", "{reference}: {error}");
        assert!(error.is_terminal());
    }
}

#[test]
fn a_tag_of_something_else_than_a_commit_is_refused() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "one").push();
    fixture.git(&["push", "--quiet", "origin", "HEAD^{tree}:refs/tags/tree"]);
    let error = fixture.fetch(Reference::Tag("tree".into())).unwrap_err();
    assert_eq!(error.reason(), "InvalidReference", "{error}");
    assert_eq!(fixture.generations(), Vec::<PathBuf>::new(), "nothing stays of it");
}

#[test]
fn an_empty_repository_says_so() {
    let fixture = Fixture::new();
    for reference in [Reference::Head, branch("main"), Reference::Semver("*".into())] {
        let error = fixture.fetch(reference.clone()).unwrap_err();
        assert_eq!(error.reason(), "EmptyRepository", "{reference}: {error}");
    }
    fixture.write("a.yaml", "one").push();
    fixture.fetch_main();
    for reference in [Reference::Tag("v1".into()), Reference::Semver("*".into())] {
        let error = fixture.fetch(reference.clone()).unwrap_err();
        assert_eq!(error.reason(), "ReferenceNotFound", "{reference}: {error}");
        assert!(error.to_string().contains("the repository has no tags"), "{error}");
    }
}

#[test]
fn what_is_no_repository_is_a_failure_to_fetch() {
    let fixture = Fixture::new();
    let url = format!("file://{}", fixture.folder.path().join("nowhere").display());
    let error = fixture.store.fetch(&FetchRequest { url, ..fixture.request(Reference::Head) }).unwrap_err();
    assert_eq!(error.reason(), "TransferFailed", "{error}");
}

#[test]
fn names_that_are_no_kubernetes_names_make_no_folder() {
    let fixture = Fixture::new();
    for name in ["", "..", "a/b", "A", ".hidden", "-x"] {
        let key = RepositoryKey { namespace: "team".into(), name: name.into() };
        let error = fixture.store.fetch(&FetchRequest { key, ..fixture.request(Reference::Head) }).unwrap_err();
        assert_eq!(error.reason(), "InvalidName", "{name:?}");
    }
}

#[test]
fn an_object_that_needs_too_much_memory_is_refused() {
    let fixture = Fixture::with(StoreOptions { object_bytes: 1 << 20, ..StoreOptions::default() });
    fixture.write("huge.bin", vec![0; 2 << 20]).push();
    let error = fixture.fetch(branch("main")).unwrap_err();
    assert_eq!(error.reason(), "TooLarge", "{error}");
}
