//! Against real repositories made by the `git` program and read over `file://`; the HTTP side is tested with the test
//! harness's server, in `tests/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::*;

/// A bare repository, a work tree that pushes to it, and a store that reads from it.
struct Fixture {
    folder: tempfile::TempDir,
    store: GitStore,
}

impl Fixture {
    fn new() -> Self {
        Self::with(StoreOptions::default())
    }

    fn with(options: StoreOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        git(
            folder.path(),
            &[
                "init",
                "--quiet",
                "--bare",
                "--initial-branch=main",
                "remote.git",
            ],
        );
        git(
            folder.path(),
            &["init", "--quiet", "--initial-branch=main", "work"],
        );
        git(
            &folder.path().join("work"),
            &["remote", "add", "origin", "../remote.git"],
        );
        let options = StoreOptions {
            allow_file_urls: true,
            ..options
        };
        let store = GitStore::new(folder.path().join("store"), options).unwrap();
        Self { folder, store }
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn url(&self) -> String {
        format!("file://{}", self.folder.path().join("remote.git").display())
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(&self.work(), arguments)
    }

    fn write(&self, path: &str, contents: impl AsRef<[u8]>) -> &Self {
        let path = self.work().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
        self
    }

    /// Commits everything, pushes, and returns the commit.
    fn push(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=change"]);
        self.git(&["push", "--quiet", "--force", "origin", "HEAD"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn request(&self, reference: Reference) -> FetchRequest {
        FetchRequest {
            key: key(),
            url: self.url(),
            reference,
            credentials: Credentials::none(),
            timeout: Duration::from_secs(60),
        }
    }

    fn fetch(&self, reference: Reference) -> Result<Revision, FetchError> {
        self.store.fetch(&self.request(reference))
    }

    fn fetch_main(&self) -> Snapshot {
        let revision = self.fetch(branch("main")).unwrap();
        self.snapshot(&revision)
    }

    fn snapshot(&self, revision: &Revision) -> Snapshot {
        self.store.snapshot(&key(), &self.url(), revision).unwrap()
    }

    /// Another process on the same disk.
    fn restarted(&self) -> GitStore {
        let options = StoreOptions {
            allow_file_urls: true,
            ..StoreOptions::default()
        };
        GitStore::new(self.folder.path().join("store"), options).unwrap()
    }

    fn generations(&self) -> Vec<PathBuf> {
        let urls = self.folder.path().join("store/team/app");
        let urls = fs::read_dir(urls).into_iter().flatten().flatten();
        let inner = urls.flat_map(|url| {
            fs::read_dir(url.path())
                .unwrap()
                .flatten()
                .map(|entry| entry.path())
        });
        inner.filter(|path| path.is_dir()).collect()
    }

    fn packs(&self) -> Vec<PathBuf> {
        let folders = self
            .generations()
            .into_iter()
            .map(|generation| generation.join("objects/pack"));
        let files = folders.flat_map(|folder| {
            fs::read_dir(folder)
                .unwrap()
                .flatten()
                .map(|entry| entry.path())
        });
        files
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "pack")
            })
            .collect()
    }
}

fn key() -> RepositoryKey {
    RepositoryKey {
        namespace: "team".into(),
        name: "app".into(),
    }
}

fn branch(name: &str) -> Reference {
    Reference::Branch(name.into())
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([
            ("GIT_AUTHOR_NAME", "Test"),
            ("GIT_AUTHOR_EMAIL", "test@example.com"),
        ])
        .envs([
            ("GIT_COMMITTER_NAME", "Test"),
            ("GIT_COMMITTER_EMAIL", "test@example.com"),
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn paths(files: &[SourceFile]) -> Vec<&str> {
    files.iter().map(|file| file.path.as_str()).collect()
}

fn files(snapshot: &Snapshot, path: &str) -> Result<Vec<SourceFile>, SnapshotError> {
    snapshot.files(path, &Limits::default())
}

mod fetching {
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
            (
                Reference::Tag("v1.0.0".into()),
                format!("v1.0.0@sha1:{first}"),
            ),
            (
                Reference::Tag("v1.2.0".into()),
                format!("v1.2.0@sha1:{second}"),
            ),
            (
                Reference::Semver(">=1.0 <2".into()),
                format!("v1.2.0@sha1:{second}"),
            ),
            (
                Reference::Semver("~1.0".into()),
                format!("v1.0.0@sha1:{first}"),
            ),
            (Reference::Commit(second.clone()), format!("sha1:{second}")),
            (branch("main"), format!("main@sha1:{third}")),
        ] {
            let revision = fixture.fetch(reference.clone()).unwrap();
            assert_eq!(revision.to_string(), expected, "{reference}");
            assert_eq!(
                fixture.store.last(&key(), &fixture.url()),
                Some(revision.clone())
            );
            assert_eq!(fixture.snapshot(&revision).revision(), &revision);
        }
        let commits = [first, second, third].map(|commit| Revision {
            reference: String::new(),
            commit,
        });
        let contents = commits.map(|revision| {
            files(&fixture.snapshot(&revision), "")
                .unwrap()
                .remove(0)
                .bytes
        });
        assert_eq!(
            contents,
            [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]
        );
    }

    #[test]
    fn only_one_commit_and_only_what_is_new_is_transferred() {
        let fixture = Fixture::new();
        let noise: Vec<u8> = (0..200_000_u32)
            .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        fixture.write("large.bin", &noise).push();
        fs::remove_file(fixture.work().join("large.bin")).unwrap();
        fixture
            .write("kept.bin", &noise[..400_000])
            .write("a.yaml", "one")
            .push();
        fixture.fetch_main();
        let size = |pack: &PathBuf| fs::metadata(pack).unwrap().len();
        let before = fixture.packs();
        assert_eq!(before.len(), 1);
        assert!(size(&before[0]) < 500_000, "history was transferred");

        fixture.write("a.yaml", "two").push();
        fixture.fetch_main();
        let new: Vec<_> = fixture
            .packs()
            .into_iter()
            .filter(|pack| !before.contains(pack))
            .collect();
        assert_eq!(new.len(), 1);
        assert!(
            size(&new[0]) < 10_000,
            "what was there is transferred again"
        );
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
        assert_eq!(fixture.fetch_main().revision().commit, rewritten);
        fixture.git(&["reset", "--quiet", "--hard", &first]);
        fixture.git(&["push", "--quiet", "--force", "origin", "HEAD"]);
        let back = fixture.fetch_main();
        assert_eq!(back.revision().commit, first);
        assert_eq!(files(&back, "").unwrap()[0].bytes, b"one");
    }

    #[test]
    fn a_branch_can_go_and_come_back_and_a_tag_can_move() {
        let fixture = Fixture::new();
        fixture.write("a.yaml", "one").push();
        fixture.git(&[
            "push",
            "--quiet",
            "origin",
            "HEAD:refs/heads/release",
            "HEAD:refs/tags/v1",
        ]);
        let before = fixture.fetch(branch("release")).unwrap();
        fixture.git(&["push", "--quiet", "origin", ":refs/heads/release"]);
        let gone = fixture.fetch(branch("release")).unwrap_err();
        assert_eq!(gone.reason(), "ReferenceNotFound");
        assert_eq!(
            gone.to_string(),
            "branch \"release\" was not found; the branches are: main"
        );
        assert_eq!(
            fixture.store.last(&key(), &fixture.url()),
            Some(before),
            "the last good revision stays"
        );

        let second = fixture.write("a.yaml", "two").push();
        fixture.git(&[
            "push",
            "--quiet",
            "--force",
            "origin",
            "HEAD:refs/heads/release",
            "HEAD:refs/tags/v1",
        ]);
        assert_eq!(fixture.fetch(branch("release")).unwrap().commit, second);
        assert_eq!(
            fixture.fetch(Reference::Tag("v1".into())).unwrap().commit,
            second
        );
    }

    #[test]
    fn a_reference_that_is_not_there_is_named_with_what_there_is() {
        let fixture = Fixture::new();
        fixture.write("a.yaml", "one").push();
        fixture.git(&["push", "--quiet", "origin", "HEAD:refs/tags/v1.0.0"]);
        for (reference, expected) in [
            (
                branch("mian"),
                "branch \"mian\" was not found; the branches are: main",
            ),
            (
                Reference::Tag("v2".into()),
                "tag \"v2\" was not found; the tags are: v1.0.0",
            ),
            (
                Reference::Semver(">=2".into()),
                "a tag within \">=2\" was not found; the tags are: v1.0.0",
            ),
        ] {
            let error = fixture.fetch(reference).unwrap_err();
            assert_eq!(
                (error.reason(), error.to_string().as_str()),
                ("ReferenceNotFound", expected)
            );
            assert!(!error.is_terminal());
        }
        let missing = fixture
            .fetch(Reference::Commit("1".repeat(40)))
            .unwrap_err();
        assert_eq!(missing.reason(), "CommitNotFound", "{missing}");
        for reference in [
            branch("a..b"),
            branch("x*"),
            branch(""),
            Reference::Commit("main".into()),
        ] {
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
        assert_eq!(
            fixture.generations(),
            Vec::<PathBuf>::new(),
            "nothing stays of it"
        );
    }

    #[test]
    fn an_empty_repository_says_so() {
        let fixture = Fixture::new();
        for reference in [
            Reference::Head,
            branch("main"),
            Reference::Semver("*".into()),
        ] {
            let error = fixture.fetch(reference.clone()).unwrap_err();
            assert_eq!(error.reason(), "EmptyRepository", "{reference}: {error}");
        }
        fixture.write("a.yaml", "one").push();
        fixture.fetch_main();
    }

    #[test]
    fn what_is_no_repository_is_a_failure_to_fetch() {
        let fixture = Fixture::new();
        let url = format!("file://{}", fixture.folder.path().join("nowhere").display());
        let error = fixture
            .store
            .fetch(&FetchRequest {
                url,
                ..fixture.request(Reference::Head)
            })
            .unwrap_err();
        assert_eq!(error.reason(), "NetworkError", "{error}");
    }

    #[test]
    fn names_that_are_no_kubernetes_names_make_no_folder() {
        let fixture = Fixture::new();
        for name in ["", "..", "a/b", "A", ".hidden", "-x"] {
            let key = RepositoryKey {
                namespace: "team".into(),
                name: name.into(),
            };
            let error = fixture
                .store
                .fetch(&FetchRequest {
                    key,
                    ..fixture.request(Reference::Head)
                })
                .unwrap_err();
            assert_eq!(error.reason(), "InvalidName", "{name:?}");
        }
    }

    #[test]
    fn an_object_that_needs_too_much_memory_is_refused() {
        let fixture = Fixture::with(StoreOptions {
            object_bytes: 1 << 20,
            ..StoreOptions::default()
        });
        fixture.write("huge.bin", vec![0; 2 << 20]).push();
        let error = fixture.fetch(branch("main")).unwrap_err();
        assert_eq!(error.reason(), "TooLarge", "{error}");
    }
}

mod storing {
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
        assert_eq!(
            store
                .fetch(&fixture.request(branch("main")))
                .unwrap()
                .commit,
            commit
        );
        assert_eq!(fixture.generations(), [generation.clone()]);
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
        assert!(matches!(
            store.snapshot(&key(), &fixture.url(), &revision),
            Err(SnapshotError::NotStored(_))
        ));
        assert_eq!(
            store.fetch(&fixture.request(branch("main"))).unwrap(),
            revision
        );
        let snapshot = store.snapshot(&key(), &fixture.url(), &revision).unwrap();
        assert_eq!(
            paths(&files(&snapshot, "clusters").unwrap()),
            ["clusters/a.yaml"]
        );
    }

    #[test]
    fn an_object_that_turns_out_unreadable_starts_over_at_the_next_fetch() {
        let fixture = Fixture::new();
        fixture.write("clusters/a.yaml", "one").push();
        let snapshot = fixture.fetch_main();
        snapshot.generation().mark_damaged();
        let generations = fixture.generations();
        let again = fixture.fetch_main();
        assert_ne!(
            fixture.generations(),
            generations,
            "a new generation although the commit is the same"
        );
        assert_eq!(files(&again, "").unwrap().len(), 1);
    }

    #[test]
    fn many_packs_make_a_new_generation_while_old_snapshots_stay_readable() {
        let fixture = Fixture::with(StoreOptions {
            packs: 3,
            ..StoreOptions::default()
        });
        fixture.write("a.yaml", "0").push();
        let first = fixture.fetch_main();
        for round in 1..=3 {
            fixture.write("a.yaml", round.to_string()).push();
            let snapshot = fixture.fetch_main();
            assert_eq!(
                files(&snapshot, "").unwrap()[0].bytes,
                round.to_string().as_bytes()
            );
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
        let request = || FetchRequest {
            url: url.clone(),
            ..fixture.request(branch("main"))
        };
        fixture.store.fetch(&request()).unwrap_err();
        assert!(
            fixture.store.last(&key(), &fixture.url()).is_some(),
            "the old one stays while the new one fails"
        );
        git(
            fixture.folder.path(),
            &["clone", "--quiet", "--bare", "remote.git", "copy.git"],
        );
        fixture.store.fetch(&request()).unwrap();
        assert_eq!(fixture.store.last(&key(), &fixture.url()), None);
        assert_eq!(
            files(&before, "").unwrap().len(),
            1,
            "readers are not disturbed"
        );
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
        assert_eq!(
            files(&snapshot, "").unwrap().len(),
            1,
            "readers are not disturbed"
        );
        drop(snapshot);
        assert!(!fixture.folder.path().join("store/team").exists());
        fixture.fetch_main();
        drop(fixture.restarted());
        fixture.restarted().remove(&key());
        assert!(
            !fixture.folder.path().join("store/team/app").exists(),
            "also when it was never opened"
        );
    }
}

mod reading {
    use super::*;

    fn refused(fixture: &Fixture, path: &str) -> SnapshotError {
        fixture.push();
        files(&fixture.fetch_main(), path).err().expect("refused")
    }

    #[test]
    fn manifests_below_a_folder_sorted_and_nothing_else() {
        let fixture = Fixture::new();
        fixture
            .write("clusters/prod/web/b.yml", "b")
            .write("clusters/prod/web/a.yaml", "a")
            .write("clusters/prod/web-2/c.json", "c")
            .write("clusters/prod/README.md", "no")
            .write("clusters/dev/d.yaml", "d")
            .write("e.yaml", "e")
            .push();
        let snapshot = fixture.fetch_main();
        let prod = [
            "clusters/prod/web-2/c.json",
            "clusters/prod/web/a.yaml",
            "clusters/prod/web/b.yml",
        ];
        for path in ["clusters/prod", "./clusters/prod/", "clusters//prod"] {
            assert_eq!(paths(&files(&snapshot, path).unwrap()), prod, "{path}");
        }
        for path in ["", ".", "./"] {
            assert_eq!(files(&snapshot, path).unwrap().len(), 5, "{path:?}");
        }
    }

    #[test]
    fn paths_that_are_no_folders_say_why() {
        let fixture = Fixture::new();
        fixture
            .write("clusters/prod/a.yaml", "a")
            .write("clusters/dev/a.yaml", "a");
        std::os::unix::fs::symlink("clusters/prod", fixture.work().join("link")).unwrap();
        fixture.push();
        let snapshot = fixture.fetch_main();
        for (path, reason) in [
            ("../x", "InvalidPath"),
            ("clusters/../../x", "InvalidPath"),
            ("/etc", "InvalidPath"),
            ("clusters\\prod", "InvalidPath"),
            ("clusters/staging", "PathNotFound"),
            ("clusters/prod/a.yaml", "NotAFolder"),
            ("clusters/prod/a.yaml/b", "NotAFolder"),
            ("link", "NotAFolder"),
            ("link/a.yaml", "NotAFolder"),
        ] {
            let error = files(&snapshot, path).err().expect("refused");
            assert_eq!(error.reason(), reason, "{path}: {error}");
            let id = snapshot.content_ids(&[path]).remove(0).unwrap_err();
            assert_eq!(id.reason(), reason, "{path}");
        }
        let error = files(&snapshot, "clusters/staging/web")
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("\"clusters/staging/web\"")
                && error.ends_with("has the folders: dev, prod"),
            "{error}"
        );
    }

    #[test]
    fn only_the_folder_that_was_touched_has_another_identity() {
        let fixture = Fixture::new();
        for i in 0..100 {
            fixture.write(&format!("apps/app-{i}/a.yaml"), format!("{i}"));
        }
        fixture.push();
        let folders: Vec<String> = (0..100).map(|i| format!("apps/app-{i}")).collect();
        let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
        let ids = |snapshot: &Snapshot| -> Vec<ContentId> {
            snapshot
                .content_ids(&folders)
                .into_iter()
                .collect::<Result<_, _>>()
                .unwrap()
        };
        let changed = |a: &[ContentId], b: &[ContentId]| -> Vec<usize> {
            (0..100).filter(|&i| a[i] != b[i]).collect()
        };
        let before = ids(&fixture.fetch_main());
        assert_eq!(
            before
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            100
        );
        fixture
            .write("apps/app-42/a.yaml", "new")
            .write("unrelated.yaml", "x")
            .push();
        let touched = ids(&fixture.fetch_main());
        assert_eq!(changed(&before, &touched), [42]);
        fixture
            .write("apps/app-7/deep/.gitsealignore", "x.yaml")
            .push();
        let nested = ids(&fixture.fetch_main());
        assert_eq!(changed(&touched, &nested), [7]);
        fixture.write(".gitsealignore", "*.tmp.yaml\n").push();
        let ignoring = ids(&fixture.fetch_main());
        assert_eq!(
            changed(&nested, &ignoring).len(),
            100,
            "a rule above may change what any of them renders"
        );
        assert_eq!(
            ids(&fixture
                .restarted()
                .snapshot(
                    &key(),
                    &fixture.url(),
                    &fixture.fetch(Reference::Head).unwrap()
                )
                .unwrap()),
            ignoring
        );
    }

    #[test]
    fn ignore_files_of_the_root_the_folder_and_below_are_honoured() {
        let fixture = Fixture::new();
        fixture
            .write(".gitsealignore", "*.tmp.yaml\n/apps/vendor/\n")
            .write("apps/.gitsealignore", "secret.yaml\n!keep.tmp.yaml\n")
            .write("apps/web/.gitsealignore", "drafts/\n")
            .write("apps/a.tmp.yaml", "x")
            .write("apps/keep.tmp.yaml", "x")
            .write("apps/secret.yaml", "x")
            .write("apps/vendor/kustomization.yaml", "x")
            .write("apps/web/secret.yaml", "x")
            .write("apps/web/drafts/a.yaml", "x")
            .write("apps/web/a.yaml", "x");
        std::os::unix::fs::symlink("/etc", fixture.work().join("apps/vendor/link")).unwrap();
        fixture.push();
        let snapshot = fixture.fetch_main();
        for path in ["", "apps"] {
            assert_eq!(
                paths(&files(&snapshot, path).unwrap()),
                ["apps/keep.tmp.yaml", "apps/web/a.yaml"],
                "{path:?}"
            );
        }
        assert_eq!(
            paths(&files(&snapshot, "apps/web").unwrap()),
            ["apps/web/a.yaml"]
        );
        let ignored = files(&snapshot, "apps/vendor").err().expect("refused");
        assert_eq!(ignored.reason(), "FolderIgnored", "{ignored}");
        fixture.write("apps/.gitsealignore", "[z-a]\n");
        assert_eq!(
            refused(&fixture, "apps/web").to_string(),
            "apps/.gitsealignore: apps/.gitsealignore:1: not a gitignore pattern"
        );
    }

    #[test]
    fn links_submodules_kustomizations_and_lfs_pointers_are_named() {
        let fixture = Fixture::new();
        fixture.write("link/a.yaml", "a");
        std::os::unix::fs::symlink("/etc/passwd", fixture.work().join("link/b.yaml")).unwrap();
        let commit = fixture.push();
        fixture.git(&[
            "update-index",
            "--add",
            "--cacheinfo",
            &format!("160000,{commit},module/sub"),
        ]);
        fixture.git(&["commit", "--quiet", "--message=submodule"]);
        fixture.git(&["push", "--quiet", "origin", "HEAD"]);
        let snapshot = fixture.fetch_main();
        assert!(
            matches!(files(&snapshot, "link"), Err(SnapshotError::Symlink(path)) if path == "link/b.yaml")
        );
        assert!(
            matches!(files(&snapshot, "module"), Err(SnapshotError::Submodule(path)) if path == "module/sub")
        );
        for name in ["kustomization.yaml", "kustomization.yml", "Kustomization"] {
            fixture.write(&format!("{name}-folder/sub/{name}"), "resources: []");
            let error = refused(&fixture, &format!("{name}-folder"));
            assert!(
                matches!(&error, SnapshotError::Kustomize(path) if path.ends_with(name)),
                "{error}"
            );
        }
        fixture.write(
            "lfs/a.yaml",
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        );
        assert!(
            matches!(refused(&fixture, "lfs"), SnapshotError::LfsPointer(path) if path == "lfs/a.yaml")
        );
        assert!(refused(&fixture, "lfs").is_terminal());
    }

    #[test]
    fn a_large_file_is_refused_by_its_header() {
        let fixture = Fixture::new();
        fixture
            .write("large/a.yaml", vec![b'#'; 50 << 20])
            .write("small/a.yaml", "a");
        let error = refused(&fixture, "large");
        assert!(
            matches!(&error, SnapshotError::TooLarge { path, .. } if path == "large/a.yaml"),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("52428800 bytes, and 10485760 are allowed"),
            "{error}"
        );
        assert_eq!(files(&fixture.fetch_main(), "small").unwrap().len(), 1);
    }

    #[test]
    fn every_bound_holds() {
        let fixture = Fixture::new();
        fixture
            .write("a/b/c/d.yaml", "12345")
            .write("a/e.yaml", "12345")
            .write("a/f.md", "x")
            .push();
        let snapshot = fixture.fetch_main();
        let exact = Limits {
            file_bytes: 5,
            total_bytes: 10,
            files: 2,
            entries: 5,
            depth: 2,
        };
        assert_eq!(snapshot.files("a", &exact).unwrap().len(), 2);
        for limits in [
            Limits {
                file_bytes: 4,
                ..exact
            },
            Limits {
                total_bytes: 9,
                ..exact
            },
            Limits { files: 1, ..exact },
            Limits {
                entries: 4,
                ..exact
            },
            Limits { depth: 1, ..exact },
        ] {
            let error = snapshot.files("a", &limits).err().expect("refused");
            assert_eq!(error.reason(), "TooLarge", "{limits:?}: {error}");
        }
    }

    #[test]
    fn a_snapshot_can_be_sent_and_shared() {
        fn assert_send_and_sync<T: Send + Sync + 'static>() {}
        assert_send_and_sync::<Snapshot>();
        assert_send_and_sync::<GitStore>();
        assert_send_and_sync::<FetchRequest>();
    }
}
