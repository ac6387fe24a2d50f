//! Snapshots with the remote repositories that kustomizations use.

use std::sync::Arc;

use super::*;

fn remote() -> RemoteRepository {
    RemoteRepository::new("https://git.example/app", None, "v1")
}

/// The snapshot with the remote repository in this state. `allowed` is the only URL that may be used.
fn with(snapshot: &Snapshot, allowed: &str, state: RemoteState) -> Snapshot {
    let remotes = RemoteRepositories::new(vec![allowed.to_owned()], [(remote(), state)], 16);
    snapshot.with_remotes(Arc::new(remotes))
}

#[test]
fn only_allowed_remote_repositories_are_read_and_nothing_outside_of_them() {
    let (own, other) = (Fixture::new(), Fixture::new());
    own.write("a.yaml", "own").push();
    other.write("base/a.yaml", "one").write("b.yaml", "b");
    for (name, target) in [("in", "../b.yaml"), ("out", "../../a.yaml"), ("up", "/etc/passwd")] {
        std::os::unix::fs::symlink(target, other.work().join("base").join(name)).unwrap();
    }
    other.push();
    let (own, fetched) = (own.fetch_main(), || RemoteState::Fetched(Box::new(other.fetch_main())));
    let at = |snapshot: &Snapshot, path: &str| snapshot.paths(Limits::default()).at_remote(&remote().root(), path);
    let allowed = with(&own, &remote().url, fetched());
    assert_eq!(at(&allowed, "base/a.yaml").unwrap(), At::File(b"one".into()));
    assert_eq!(at(&allowed, "base/in").unwrap(), At::File(b"b".into()));
    assert_eq!(at(&allowed, "").unwrap(), At::Folder(vec!["b.yaml".into(), "base".into()]));
    assert_eq!(at(&allowed, "a.yaml").unwrap(), At::Nothing, "it is in the other repository");
    for path in ["base/out", "base/up"] {
        assert_eq!(at(&allowed, path).unwrap_err().reason(), "SymlinkRefused", "{path}");
    }
    for refused in [
        with(&own, "https://git.example/other", fetched()),
        with(&own, &remote().url, RemoteState::Awaited),
        with(&own, &remote().url, RemoteState::Failed("no".into())),
        own.clone(),
    ] {
        assert_eq!(at(&refused, "base/a.yaml").unwrap(), At::Nothing);
    }
    assert_eq!(allowed.paths(Limits::default()).at("a.yaml").unwrap(), At::File(b"own".into()));
}

#[test]
fn what_is_read_of_remote_repositories_is_part_of_the_identity() {
    let (own, other) = (Fixture::new(), Fixture::new());
    own.write("a.yaml", "own").push();
    let own = own.fetch_main();
    let fetched = |file: &str, elsewhere: &str| {
        other.write("base/a.yaml", file).write("elsewhere.yaml", elsewhere).push();
        with(&own, &remote().url, RemoteState::Fetched(Box::new(other.fetch_main())))
    };
    let root = remote().root();
    let identity =
        |snapshot: &Snapshot| snapshot.content_at("", [(Some(root.as_str()), "base/a.yaml"), (None, "a.yaml")]);
    let first = fetched("one", "1");
    assert_eq!(identity(&first), identity(&fetched("one", "2")), "only what is read counts");
    assert_ne!(first.whole(), fetched("one", "3").whole());
    let states = [
        first.clone(),
        fetched("two", "1"),
        with(&own, "https://git.example/other", RemoteState::Awaited),
        with(&own, &remote().url, RemoteState::Awaited),
        with(&own, &remote().url, RemoteState::Failed("a".into())),
        with(&own, &remote().url, RemoteState::Failed("b".into())),
    ];
    let all: std::collections::BTreeSet<_> = states.iter().map(identity).collect();
    assert_eq!(all.len(), states.len());
    let of_own = |snapshot: &Snapshot| snapshot.content_at("", [(None, "a.yaml")]);
    assert!(states.iter().all(|snapshot| of_own(snapshot) == of_own(&own)));
}

#[test]
fn a_repository_is_removed_with_its_remote_repositories() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "a").push();
    fixture.fetch_main();
    let request = FetchRequest { key: key().remote(&remote()), ..fixture.request(branch("main")) };
    fixture.store.fetch(&request).unwrap();
    let folders = || fs::read_dir(fixture.folder.path().join("store/team")).into_iter().flatten().count();
    assert_eq!(folders(), 2);
    fixture.store.remove(&request.key);
    assert_eq!(folders(), 1);
    fixture.store.fetch(&request).unwrap();
    fixture.store.remove(&key());
    assert_eq!(folders(), 0);
}

#[test]
fn a_repository_with_the_longest_name_has_remote_repositories() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "a").push();
    let longest = RepositoryKey { name: "n".repeat(253), ..key() };
    for key in [longest.clone(), longest.remote(&remote())] {
        fixture.store.fetch(&FetchRequest { key, ..fixture.request(branch("main")) }).unwrap();
    }
    assert_eq!(fixture.store.remotes(), [longest.remote(&remote())]);
    fixture.store.remove(&longest);
    assert!(fs::read_dir(fixture.folder.path().join("store")).unwrap().next().is_none());
}
