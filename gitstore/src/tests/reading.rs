//! Reading folders and files, and what is refused in them.

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
    let prod = ["clusters/prod/web-2/c.json", "clusters/prod/web/a.yaml", "clusters/prod/web/b.yml"];
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
    fixture.write("clusters/prod/a.yaml", "a").write("clusters/dev/a.yaml", "a");
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
    let error = files(&snapshot, "clusters/staging/web").err().unwrap().to_string();
    assert!(
        error.contains("\"clusters/staging/web\"") && error.contains(": set spec.path to a folder that exists"),
        "{error}"
    );
    assert!(error.ends_with("; the folders in \"clusters\" are: dev, prod"), "{error}");
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
        snapshot.content_ids(&folders).into_iter().collect::<Result<_, _>>().unwrap()
    };
    let changed = |a: &[ContentId], b: &[ContentId]| -> Vec<usize> { (0..100).filter(|&i| a[i] != b[i]).collect() };
    let before = ids(&fixture.fetch_main());
    assert_eq!(before.iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
    fixture.write("apps/app-42/a.yaml", "new").write("unrelated.yaml", "x").push();
    let touched = ids(&fixture.fetch_main());
    assert_eq!(changed(&before, &touched), [42]);
    fixture.write("apps/app-7/deep/.gitsealignore", "x.yaml").push();
    let nested = ids(&fixture.fetch_main());
    assert_eq!(changed(&touched, &nested), [7]);
    fixture.write(".gitsealignore", "*.tmp.yaml\n").push();
    let ignoring = ids(&fixture.fetch_main());
    assert_eq!(changed(&nested, &ignoring).len(), 100, "a rule above may change what any of them renders");
    fixture.write(".gitsealignore", "*.temporary.yaml\n").push();
    let ignoring_others = ids(&fixture.fetch_main());
    assert_eq!(changed(&ignoring, &ignoring_others).len(), 100);
    assert_eq!(
        ids(&fixture.restarted().snapshot(&key(), &fixture.url(), &fixture.fetch(Reference::Head).unwrap()).unwrap()),
        ignoring_others
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
        assert_eq!(paths(&files(&snapshot, path).unwrap()), ["apps/keep.tmp.yaml", "apps/web/a.yaml"], "{path:?}");
    }
    assert_eq!(paths(&files(&snapshot, "apps/web").unwrap()), ["apps/web/a.yaml"]);
    let ignored = files(&snapshot, "apps/vendor").err().expect("refused");
    assert_eq!(ignored.reason(), "FolderIgnored", "{ignored}");
    fixture.write("apps/.gitsealignore", "[z-a]\n");
    assert_eq!(
        refused(&fixture, "apps/web").to_string(),
        "apps/.gitsealignore: apps/.gitsealignore:1: not a gitignore pattern"
    );
}

#[test]
fn links_submodules_and_lfs_pointers_are_named() {
    let fixture = Fixture::new();
    fixture.write("link/a.yaml", "a");
    std::os::unix::fs::symlink("/etc/passwd", fixture.work().join("link/b.yaml")).unwrap();
    let commit = fixture.push();
    fixture.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},module/sub")]);
    fixture.git(&["commit", "--quiet", "--message=submodule"]);
    fixture.git(&["push", "--quiet", "origin", "HEAD"]);
    let snapshot = fixture.fetch_main();
    assert!(matches!(files(&snapshot, "link"), Err(SnapshotError::Symlink(path)) if path == "link/b.yaml"));
    assert!(matches!(files(&snapshot, "module"), Err(SnapshotError::Submodule(path)) if path == "module/sub"));
}

#[test]
fn a_kustomization_hides_the_files_beside_and_below_it() {
    let fixture = Fixture::new();
    for name in ["kustomization.yaml", "kustomization.yml", "Kustomization"] {
        for file in [name, "beside.yaml", "below/a.yaml", "below/kustomization.yaml"] {
            fixture.write(&format!("{name}-folder/sub/{file}"), "x");
        }
        fixture.write(&format!("{name}-folder/plain.yaml"), "x");
        fixture.push();
        let visited = |path: &str| {
            let mut visited = Vec::new();
            let read: Result<(), SnapshotError> = fixture.fetch_main().folder(path, Limits::default()).each_entry(
                |_, _| Ok(()),
                |entry| {
                    visited.push(match entry {
                        TreeEntry::File(file) => file.path.to_owned(),
                        TreeEntry::Kustomization(folder) => format!("{folder}/"),
                        TreeEntry::Refused { error, .. } => return Err(error),
                    });
                    Ok(())
                },
            );
            read.unwrap();
            visited
        };
        let folder = format!("{name}-folder");
        assert_eq!(visited(&folder), [format!("{folder}/plain.yaml"), format!("{folder}/sub/")]);
        assert_eq!(visited(&format!("{folder}/sub")), [format!("{folder}/sub/")]);
        fixture.write(&format!("{folder}/sub/.gitsealignore"), format!("/{name}\n/below/\n")).push();
        assert_eq!(visited(&format!("{folder}/sub")), [format!("{folder}/sub/beside.yaml")], "it is left out");
    }
}

#[test]
fn single_paths_are_read_wherever_they_are_and_links_are_followed_inside() {
    let fixture = Fixture::new();
    fixture
        .write("base/a.yaml", "a")
        .write("base/deep/b.yaml", "b")
        .write("lfs.yaml", "version https://git-lfs.github.com/spec/v1\n");
    for (link, target) in [
        ("link", "base"),
        ("base/deep/up.yaml", "../a.yaml"),
        ("base/twice", "deep/up.yaml"),
        ("out", "../x"),
        ("absolute", "/etc/passwd"),
        ("circle", "circle"),
        ("gone", "base/none.yaml"),
    ] {
        std::os::unix::fs::symlink(target, fixture.work().join(link)).unwrap();
    }
    let commit = fixture.push();
    fixture.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},module")]);
    fixture.git(&["commit", "--quiet", "--message=submodule"]);
    fixture.git(&["push", "--quiet", "origin", "HEAD"]);
    let snapshot = fixture.fetch_main();
    let paths = snapshot.paths(Limits { file_bytes: 100, ..Limits::default() });
    let file = |text: &str| At::File(text.as_bytes().to_vec());
    let folder = |names: &[&str]| At::Folder(names.iter().map(|name| (*name).to_owned()).collect());
    for (path, found) in [
        ("base/a.yaml", file("a")),
        ("link/a.yaml", file("a")),
        ("link/deep/up.yaml", file("a")),
        ("base/twice", file("a")),
        ("link/deep", folder(&["b.yaml", "up.yaml"])),
        ("base/none.yaml", At::Nothing),
        ("base/a.yaml/b", At::Nothing),
        ("none/at/all", At::Nothing),
        ("gone", At::Nothing),
    ] {
        assert_eq!(paths.at(path).unwrap(), found, "{path}");
    }
    assert!(matches!(paths.at("").unwrap(), At::Folder(names) if names.contains(&"base".to_owned())));
    for (path, reason) in [
        ("out", "SymlinkRefused"),
        ("absolute", "SymlinkRefused"),
        ("circle", "SymlinkRefused"),
        ("module", "SubmoduleRefused"),
        ("module/a.yaml", "SubmoduleRefused"),
        ("lfs.yaml", "LfsNotSupported"),
    ] {
        assert_eq!(paths.at(path).unwrap_err().reason(), reason, "{path}");
    }
    assert!(matches!(
        snapshot.paths(Limits { file_bytes: 0, ..Limits::default() }).at("base/a.yaml"),
        Err(SnapshotError::TooLarge { .. })
    ));
}

/// A path in the Repository itself.
fn own(path: &str) -> (Option<&str>, &str) {
    (None, path)
}

/// A path that somebody writes never leads into a remote repository, whatever it looks like.
#[test]
fn only_a_path_of_a_remote_repository_leads_into_it() {
    let (own_files, other) = (Fixture::new(), Fixture::new());
    other.write("f.yaml", "remote").push();
    own_files.write("values/a.yaml", "own").write("https:/h.example/x@v1/f.yaml", "decoy").push();
    let remote = RemoteRepository { url: "https://h.example/x".into(), reference: "v1".into() };
    let state = RemoteState::Fetched(Box::new(other.fetch_main()));
    let remotes = RemoteRepositories::new(vec!["https://h.example/x".into()], [(remote.clone(), state)], 1);
    let snapshot = own_files.fetch_main().with_remotes(remotes.into());
    let paths = snapshot.paths(Limits::default());
    let file = |text: &str| At::File(text.into());
    for (path, text) in [("values//a.yaml", "own"), ("https://h.example/x@v1//f.yaml", "decoy")] {
        assert_eq!(paths.at(path).unwrap(), file(text), "{path}");
        assert_eq!(paths.file_id(path).unwrap(), paths.file_id(&path.replace("//", "/")).unwrap());
    }
    assert_eq!(paths.at_remote(&remote.root(), "f.yaml").unwrap(), file("remote"));
    assert_eq!(paths.at_remote("https://h.example/x@v2", "f.yaml").unwrap(), At::Nothing);
    let of = |root| snapshot.content_at("", [(root, "f.yaml")]);
    assert_ne!(of(Some("https://h.example/x@v1")), of(None));
}

#[test]
fn what_is_at_some_paths_has_an_identity() {
    let fixture = Fixture::new();
    fixture.write("base/a.yaml", "a").write("base/deep/b.yaml", "b").write("other.yaml", "x");
    std::os::unix::fs::symlink("base/a.yaml", fixture.work().join("link.yaml")).unwrap();
    fixture.push();
    let identity =
        || fixture.fetch_main().content_at("", ["base", "base/a.yaml", "base/none.yaml", "link.yaml"].map(own));
    let first = identity();
    fixture.write("other.yaml", "y").write("base/deep/b.yaml", "changed").push();
    assert_eq!(identity(), first, "nothing that was asked for");
    let mut seen = vec![first];
    fixture.write("base/a.yaml", "changed").push();
    seen.push(identity());
    fixture.write("base/new.yaml", "a name more").push();
    seen.push(identity());
    fixture.write("base/none.yaml", "it is there now").push();
    seen.push(identity());
    std::fs::remove_file(fixture.work().join("link.yaml")).unwrap();
    std::os::unix::fs::symlink("other.yaml", fixture.work().join("link.yaml")).unwrap();
    fixture.push();
    seen.push(identity());
    let different: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(different.len(), seen.len());
    assert_ne!(
        fixture.fetch_main().content_at("options", [own("base")]),
        fixture.fetch_main().content_at("", [own("base")])
    );
}

#[test]
fn identities_of_paths_cost_a_limited_time() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "a").push();
    let tree = |lines: String| {
        let file = fixture.folder.path().join("tree");
        std::fs::write(&file, lines).unwrap();
        let tree = git_reading(&fixture.work(), &["mktree"], std::fs::File::open(file).unwrap().into());
        tree.trim().to_owned()
    };
    let blob = fixture.git(&["rev-parse", "HEAD:a.yaml"]).trim().to_owned();
    let large = tree((0..120_000).map(|n| format!("100644 blob {blob}\tf{n}\n")).collect());
    // Git stores the tree `large` once, and the folders `d000` to `d029` are all this tree.
    let folders = (0..30).map(|n| format!("040000 tree {large}\td{n:03}\n")).collect::<String>();
    let identity = |message: &str| {
        let top = tree(format!("100644 blob {blob}\ta.yaml\n{folders}"));
        let commit = fixture.git(&["commit-tree", &top, "-m", message]).trim().to_owned();
        fixture.git(&["push", "--quiet", "--force", "origin", &format!("{commit}:refs/heads/main")]);
        let snapshot = fixture.fetch_main();
        let of = |count: usize| {
            let paths: Vec<_> = (0..count).map(|n| format!("d{n:03}")).collect();
            snapshot.content_at("", paths.iter().map(|path| own(path)))
        };
        (of(2), of(30))
    };
    let (few, many) = identity("one");
    let (few_later, many_later) = identity("two");
    assert_eq!(few, few_later, "nothing that was asked for");
    assert_ne!(many, many_later, "reading thirty large folders for every commit takes too long");
}

/// A pointer does not show what its file contains. If the file may be a manifest, the pointer must not be skipped,
/// because then the objects of that manifest would be pruned.
#[test]
fn an_lfs_pointer_is_refused_where_its_name_may_be_that_of_a_manifest() {
    const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let fixture = Fixture::new();
    fixture.write("lfs/a.yaml", "x");
    for name in ["logo.png", "README.md", "yaml", ".github/ci.yml", ".cache.json", "values.yaml", "package-lock.json"] {
        fixture.write(&format!("lfs/{name}"), POINTER);
    }
    fixture.push();
    assert_eq!(paths(&files(&fixture.fetch_main(), "lfs").unwrap()), ["lfs/a.yaml"]);
    for name in ["lfs/dashboard.json", "lfs/crds/b.yml", "lfs/b.yaml"] {
        fixture.write(name, POINTER);
        let error = refused(&fixture, "lfs");
        assert!(matches!(&error, SnapshotError::LfsPointer(path) if path == name) && error.is_terminal(), "{error}");
        assert_eq!(
            error.to_string(),
            format!(
                "{name} is a Git LFS pointer, and LFS files are not fetched: store the manifest itself in Git, or list it in \
                 .gitsealignore"
            )
        );
        fixture.write("lfs/.gitsealignore", format!("/{}\n", name.trim_start_matches("lfs/"))).push();
        assert_eq!(paths(&files(&fixture.fetch_main(), "lfs").unwrap()), ["lfs/a.yaml"]);
        fixture.git(&["rm", "--quiet", name, "lfs/.gitsealignore"]);
    }
}

#[test]
fn what_is_no_manifest_by_default_is_left_out() {
    let fixture = Fixture::new();
    fixture
        .write(".deploy/a.yaml", "x")
        .write(".deploy/.github/workflows/ci.yml", "on: [push]\n")
        .write(".deploy/.yamllint.yaml", "extends: default\n")
        .write(".deploy/package.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        .write(".deploy/values.yaml", "apiVersion: v1\n")
        .write("README.md", "read");
    let link = |target: &str, name: &str| {
        let link = fixture.work().join(name);
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(target, link).unwrap();
    };
    link("../README.md", ".deploy/README.md");
    link("./README.md", ".deploy/LICENSE");
    fixture.push();
    let snapshot = fixture.fetch_main();
    assert_eq!(paths(&files(&snapshot, ".deploy").unwrap()), [".deploy/a.yaml", ".deploy/values.yaml"]);
    assert!(files(&snapshot, "").unwrap().is_empty());
    fixture.write(".gitsealignore", "!.deploy/\n").push();
    let snapshot = fixture.fetch_main();
    assert_eq!(paths(&files(&snapshot, "").unwrap()), [".deploy/a.yaml", ".deploy/values.yaml"]);
    for target in ["/etc/hostname", "gone", "..", "../.deploy", "link", "../../README.md", "../README.md/a"] {
        link(target, ".deploy/link");
        let error = refused(&fixture, "");
        assert!(matches!(&error, SnapshotError::Symlink(path) if path == ".deploy/link"), "{target}: {error}");
    }
    link("../README.md", ".deploy/link");
    link("link", ".deploy/link.yaml");
    let error = refused(&fixture, "");
    assert!(matches!(&error, SnapshotError::Symlink(path) if path == ".deploy/link.yaml"), "{error}");
}

#[test]
fn what_is_only_hidden_can_be_read_by_itself() {
    let fixture = Fixture::new();
    fixture
        .write("app/a.yaml", "x")
        .write("app/.k8s/b.yaml", "x")
        .write("app/.k8s/.more/c.yaml", "x")
        .write("app/.k8s/notes.md", "x")
        .write("app/.k8s/pointer.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        .write("app/.k8s/values.yaml", "replicas: 1\n")
        .write("app/.old/d.yaml", "x")
        .write("app/deep/.e.json", "x")
        .write("app/.taken/f.yaml", "x")
        .write(".above/g.yaml", "x")
        .write("app/.gitsealignore", ".old/\n!.taken/\n");
    std::os::unix::fs::symlink("b.yaml", fixture.work().join("app/.k8s/link.yaml")).unwrap();
    fixture.push();
    let folder = fixture.fetch_main().folder("app", Limits::default()).hidden();
    let mut found = Vec::new();
    let read: Result<(), SnapshotError> = folder.each_entry(
        |_, _| Ok(()),
        |entry| {
            if let TreeEntry::File(file) = entry {
                found.push(file.path.to_owned());
            }
            Ok(())
        },
    );
    read.unwrap();
    assert_eq!(found, ["app/.k8s/.more/c.yaml", "app/.k8s/b.yaml", "app/deep/.e.json"]);
}

#[test]
fn a_large_file_is_refused_by_its_header() {
    let fixture = Fixture::new();
    fixture.write("large/a.yaml", vec![b'#'; 50 << 20]).write("small/a.yaml", "a");
    let error = refused(&fixture, "large");
    assert!(matches!(&error, SnapshotError::TooLarge { path, .. } if path == "large/a.yaml"), "{error}");
    assert!(error.to_string().contains("52428800 bytes, but at most 10485760 are allowed"), "{error}");
    assert_eq!(files(&fixture.fetch_main(), "small").unwrap().len(), 1);
}

#[test]
fn every_bound_holds() {
    let fixture = Fixture::new();
    fixture.write("a/b/c/d.yaml", "12345").write("a/e.yaml", "12345").write("a/f.md", "x").push();
    let snapshot = fixture.fetch_main();
    let exact = Limits { file_bytes: 5, total_bytes: 10, files: 2, entries: 5, depth: 2 };
    assert_eq!(files_within(&snapshot, "a", exact).unwrap().len(), 2);
    for limits in [
        Limits { file_bytes: 4, ..exact },
        Limits { total_bytes: 9, ..exact },
        Limits { files: 1, ..exact },
        Limits { entries: 4, ..exact },
        Limits { depth: 1, ..exact },
    ] {
        let error = files_within(&snapshot, "a", limits).err().expect("refused");
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

#[test]
fn ignore_files_are_bounded_together_and_forgotten_behind_their_folder() {
    let fixture = Fixture::new();
    let lines = "x\n".repeat(50 << 10);
    for folder in ["a", "b"] {
        fixture.write(&format!("few/{folder}/.gitsealignore"), &lines);
    }
    for folder in ["a", "b", "c"] {
        fixture.write(&format!("many/{folder}/.gitsealignore"), &lines).write(&format!("many/{folder}/a.yaml"), "a");
    }
    // A rule of one folder does not apply to the folder beside it.
    fixture.write("rules/a/.gitsealignore", "a.yaml\n").write("rules/a/a.yaml", "a").write("rules/ab/a.yaml", "a");
    fixture.write("few/c.yaml", "c").push();
    let snapshot = fixture.fetch_main();
    assert_eq!(paths(&files(&snapshot, "few").unwrap()), ["few/c.yaml"]);
    assert_eq!(paths(&files(&snapshot, "rules").unwrap()), ["rules/ab/a.yaml"]);
    let error = files(&snapshot, "many").err().expect("refused").to_string();
    assert!(
        error.contains("many/c/.gitsealignore") && error.contains("307200 bytes, but at most 262144 are allowed"),
        "{error}"
    );
}

#[test]
fn no_more_links_are_followed_than_a_folder_needs() {
    let fixture = Fixture::new();
    fixture.write("app/a.yaml", "a").write("notes/README.md", "notes");
    for number in 0..501 {
        std::os::unix::fs::symlink("../notes/README.md", fixture.work().join(format!("app/link-{number}"))).unwrap();
    }
    fixture.push();
    let error = files(&fixture.fetch_main(), "app").err().expect("refused").to_string();
    assert!(error.contains("more than 500 symbolic links") && error.contains(".gitsealignore"), "{error}");
    fixture.write("app/.gitsealignore", "link-*\n").push();
    assert_eq!(paths(&files(&fixture.fetch_main(), "app").unwrap()), ["app/a.yaml"]);
}
