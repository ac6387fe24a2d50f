//! Which objects stay on disk, and which are removed.

use super::*;

#[test]
fn the_last_good_revision_survives_a_restart_without_the_remote() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "one").push();
    let revision = fixture.fetch(branch("main")).unwrap();
    fs::remove_dir_all(fixture.folder.path().join("remote.git")).unwrap();
    let store = fixture.restarted();
    assert_eq!(store.last(&key(), &fixture.url()), Some(revision.clone()));
    let snapshot = store.snapshot(&key(), &fixture.url(), &revision).unwrap();
    assert_eq!(files(&snapshot, "").unwrap()[0].bytes, b"one");
    assert!(store.fetch(&fixture.request(branch("main"))).is_err());
    assert_eq!(store.last(&key(), &fixture.url()), Some(revision));
}

#[test]
fn what_a_killed_process_leaves_does_not_hinder_the_next() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "one").push();
    let revision = fixture.fetch(branch("main")).unwrap();
    let generation = fixture.generations().remove(0);
    // Earlier releases kept a Git reference in this folder.
    fs::create_dir_all(generation.join("refs/gitseal")).unwrap();
    for leftover in [
        "shallow.lock",
        "refs/gitseal/head.lock",
        "packed-refs.lock",
        "objects/pack/.tmpA1b2",
        "objects/pack/pack-1.pack",
    ] {
        fs::write(generation.join(leftover), "half").unwrap();
    }
    let url_folder = generation.parent().unwrap();
    fs::create_dir_all(url_folder.join("generation-7/objects/pack")).unwrap();
    fs::write(url_folder.join("current.new"), "{").unwrap();

    let store = fixture.restarted();
    assert_eq!(store.last(&key(), &fixture.url()), Some(revision));
    let commit = fixture.write("a.yaml", "two").push();
    assert_eq!(store.fetch(&fixture.request(branch("main"))).unwrap().id.hash(), commit);
    assert_eq!(fixture.generations(), std::slice::from_ref(&generation));
    assert!(!generation.join("objects/pack/pack-1.pack").exists());
}

#[test]
fn a_first_fetch_that_was_killed_leaves_nothing_behind() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "one").push();
    fixture.fetch_main();
    let generation = fixture.generations().remove(0);
    fs::remove_file(generation.parent().unwrap().join("current")).unwrap();
    let store = fixture.restarted();
    assert_eq!(store.last(&key(), &fixture.url()), None);
    store.fetch(&fixture.request(branch("main"))).unwrap();
    assert_eq!(fixture.generations().len(), 1);
}

#[test]
fn damaged_objects_are_fetched_again() {
    let fixture = Fixture::new();
    fixture.write("clusters/a.yaml", "one").push();
    let revision = fixture.fetch(branch("main")).unwrap();
    for pack in fixture.packs() {
        fs::remove_file(&pack).unwrap();
        fs::remove_file(pack.with_extension("idx")).unwrap();
    }
    let store = fixture.restarted();
    assert_eq!(store.last(&key(), &fixture.url()), None);
    assert!(matches!(store.snapshot(&key(), &fixture.url(), &revision), Err(SnapshotError::NotStored(_))));
    assert_eq!(store.fetch(&fixture.request(branch("main"))).unwrap(), revision);
    let snapshot = store.snapshot(&key(), &fixture.url(), &revision).unwrap();
    assert_eq!(paths(&files(&snapshot, "clusters").unwrap()), ["clusters/a.yaml"]);
}

#[test]
fn whatever_is_damaged_the_next_commit_still_arrives() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 4] = [
        ("a reference cut off", |generation| {
            fs::create_dir_all(generation.join("refs/gitseal")).unwrap();
            fs::write(generation.join("refs/gitseal/head"), "").unwrap();
        }),
        ("the shallow boundary garbled", |generation| {
            fs::write(generation.join("shallow"), "garbage\n").unwrap();
        }),
        ("the configuration garbled", |generation| {
            fs::write(generation.join("config"), "[core\n").unwrap();
        }),
        ("everything gone", |generation| {
            fs::remove_dir_all(generation).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let fixture = Fixture::new();
        fixture.write("a.yaml", "one").write("b/c.yaml", "two").push();
        fixture.fetch_main();
        let generation = fixture.generations().remove(0);
        damage(&generation);
        fixture.write("a.yaml", "three").push();
        for store in [&fixture.store, &fixture.restarted()] {
            let revision = store.fetch(&fixture.request(branch("main"))).unwrap();
            let snapshot = store.snapshot(&key(), &fixture.url(), &revision).unwrap();
            assert_eq!(files(&snapshot, "").unwrap()[0].bytes, b"three", "{what}");
        }
    }
}

#[test]
fn an_object_that_turns_out_unreadable_starts_over_at_the_next_fetch() {
    let fixture = Fixture::new();
    fixture.write("clusters/a.yaml", "one").push();
    let snapshot = fixture.fetch_main();
    snapshot.generation().mark_damaged();
    let generations = fixture.generations();
    let again = fixture.fetch_main();
    assert_ne!(fixture.generations(), generations, "a new generation although the commit is the same");
    assert_eq!(files(&again, "").unwrap().len(), 1);
}

#[test]
fn many_packs_make_a_new_generation_while_old_snapshots_stay_readable() {
    let fixture = Fixture::with(StoreOptions { packs: 3, ..StoreOptions::default() });
    fixture.write("a.yaml", "0").push();
    let first = fixture.fetch_main();
    for round in 1..=3 {
        fixture.write("a.yaml", round.to_string()).push();
        let snapshot = fixture.fetch_main();
        assert_eq!(files(&snapshot, "").unwrap()[0].bytes, round.to_string().as_bytes());
    }
    assert_eq!(fixture.generations().len(), 2, "the old one is still read");
    assert_eq!(files(&first, "").unwrap()[0].bytes, b"0");
    drop(first);
    assert_eq!(fixture.generations().len(), 1);
    assert_eq!(fixture.packs().len(), 1);
    assert_eq!(files(&fixture.fetch_main(), "").unwrap()[0].bytes, b"3");
}

#[test]
fn another_url_replaces_the_old_one_once_it_works() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "one").push();
    let before = fixture.fetch_main();
    let copy = fixture.folder.path().join("copy.git");
    let url = format!("file://{}", copy.display());
    let request = || FetchRequest { url: url.clone(), ..fixture.request(branch("main")) };
    fixture.store.fetch(&request()).unwrap_err();
    assert!(fixture.store.last(&key(), &fixture.url()).is_some(), "the old one stays while the new one fails");
    git(fixture.folder.path(), &["clone", "--quiet", "--bare", "remote.git", "copy.git"]);
    fixture.store.fetch(&request()).unwrap();
    assert_eq!(fixture.store.last(&key(), &fixture.url()), None);
    assert_eq!(files(&before, "").unwrap().len(), 1, "readers are not disturbed");
    drop(before);
    assert_eq!(fixture.generations().len(), 1);
}

#[test]
fn a_url_that_comes_back_does_not_disturb_readers_of_before() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "one").push();
    git(fixture.folder.path(), &["clone", "--quiet", "--bare", "remote.git", "copy.git"]);
    let url = format!("file://{}", fixture.folder.path().join("copy.git").display());
    let elsewhere = FetchRequest { url, ..fixture.request(branch("main")) };
    let before = fixture.fetch_main();
    fixture.store.fetch(&elsewhere).unwrap();
    drop(fixture.fetch_main());
    assert_eq!(fixture.generations().len(), 2, "the one still read, and the one fetched now");
    assert_eq!(files(&before, "").unwrap().len(), 1);
    drop(before);
    assert_eq!(fixture.generations().len(), 1);
}

#[test]
fn a_removed_repository_leaves_nothing_on_disk() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "one").push();
    let snapshot = fixture.fetch_main();
    fixture.store.remove(&key());
    assert_eq!(fixture.store.last(&key(), &fixture.url()), None);
    assert_eq!(files(&snapshot, "").unwrap().len(), 1, "readers are not disturbed");
    drop(snapshot);
    assert!(!fixture.folder.path().join("store/team").exists());
    fixture.fetch_main();
    drop(fixture.restarted());
    fixture.restarted().remove(&key());
    assert!(!fixture.folder.path().join("store/team/app").exists(), "also when it was never opened");
}
