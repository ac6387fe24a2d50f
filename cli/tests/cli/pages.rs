//! The YAML of pages of the documentation, and the example repository, as `lint`, `build` and `test` read them.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{gitseal_in, lint::problems, stderr, stdout, workplace::write};

fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The YAML blocks of a page.
fn blocks(page: &str) -> Vec<String> {
    let text = fs::read_to_string(top().join(page)).unwrap();
    let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned());
    blocks.collect()
}

/// The Sync that a block shows, or of which it shows a part.
fn sync_of(block: &str) -> Option<String> {
    const HEAD: &str = "apiVersion: gitseal.dev/v1alpha1\nkind: Sync\nmetadata: {name: shop, namespace: shop}\nspec:\n";
    const REST: &str = "  repository: {name: fleet}\n  path: app\n";
    if block.contains("kind: Sync\n") {
        return Some(block.to_owned());
    }
    if let Some(fields) = block.strip_prefix("spec:\n") {
        return Some(format!("{HEAD}{REST}{fields}"));
    }
    let fields: String = block.lines().map(|line| format!("  {line}\n")).collect();
    (!block.contains("apiVersion:")).then(|| format!("{HEAD}{REST}{fields}"))
}

#[test]
fn syncs_in_the_documentation_have_only_fields_that_exist() {
    for (page, count) in [("docs/after-rendering.md", 5), ("docs/health.md", 2)] {
        let syncs: Vec<_> = blocks(page).iter().filter_map(|block| sync_of(block)).collect();
        assert_eq!(syncs.len(), count, "{page}: {syncs:?}");
        for sync in syncs {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join(".git")).unwrap();
            write(folder.path(), "app/map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
            let of_sync = |text: &str| {
                write(folder.path(), "sync.yaml", text);
                let mut found = problems(folder.path(), &[]).1;
                // The page does not show the other files of the repository.
                found.retain(|problem| !problem.contains(" not-rendered "));
                found
            };
            assert_eq!(of_sync(&sync), Vec::<String>::new(), "{page}: {sync}");
            // A mistake would be found.
            let is_field =
                |line: &&str| line.len() > 2 && line.starts_with("  ") && line.as_bytes()[2].is_ascii_alphabetic();
            let last = sync.lines().rfind(is_field).unwrap().split(':').next().unwrap();
            let found = of_sync(&sync.replacen(&format!("{last}:"), "  gone:", 1));
            assert!(found.iter().any(|problem| problem.contains("unknown-field spec.gone")), "{last}: {found:?}");
        }
    }
}

#[test]
fn a_sealed_variable_of_the_documentation_becomes_a_sealed_secret() {
    let secret = blocks("docs/after-rendering.md").into_iter().find(|block| block.contains("kind: Secret\n")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| write(folder.path(), path, text);
    fs::create_dir(folder.path().join(".git")).unwrap();
    put("app/db.yaml", &secret);
    let sealed = STANDARD.encode([&[1, 0][..], &[7; 300]].concat());
    put(
        "passwords.yaml",
        &format!(
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata:\n  name: passwords\n  annotations: \
             {{sealedsecrets.bitnami.com/namespace-wide: 'true'}}\nspec:\n  encryptedData:\n    db_password: {sealed}\n"
        ),
    );
    put("sync.yaml", &sync_of("spec:\n  substituteFrom: [{sealedSecret: passwords.yaml}]\n").unwrap());
    let built = stdout(&gitseal_in(folder.path(), &["build", "--sync", "sync.yaml"]));
    for part in ["kind: SealedSecret", "name: db", &sealed, "postgres://shop:{{ index . \"db_password\" }}@db/shop"] {
        assert!(built.contains(part), "{part}: {built}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

#[test]
fn the_example_repository_passes_the_checks_that_its_page_names() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    copy(&top().join("examples/fleet"), root);
    fs::create_dir(root.join(".git")).unwrap();
    let lint = gitseal_in(root, &["lint", "--strict", "--kubernetes", "1.35,1.36,1.37"]);
    assert_eq!(stdout(&lint), "", "{}", stderr(&lint));
    assert!(stderr(&lint).contains(" of 12 Syncs, ") && stderr(&lint).contains("0 errors, 0 warnings"));

    stdout(&gitseal_in(root, &["test", "--strict", "--update"]));
    let tested = gitseal_in(root, &["test", "--strict"]);
    assert!(stdout(&tested).is_empty() && stderr(&tested).contains("0 different, 12 equal"), "{}", stderr(&tested));
    for (cluster, sync) in [("staging", "web"), ("production", "orders")] {
        let golden = root.join(format!(".gitseal/golden/clusters/{cluster}/fleet.{sync}.yaml"));
        let golden = fs::read_to_string(golden).unwrap();
        assert!(golden.contains("kind: Deployment") && golden.contains("kind: SealedSecret"), "{golden}");
        assert!(!golden.contains("kind: Secret\n"), "{golden}");
    }
    // A change of a base is a difference in both clusters, and nowhere else.
    let base = root.join("apps/web/base/deployment.yaml");
    let text = fs::read_to_string(&base).unwrap();
    fs::write(&base, text.replacen("  annotations:\n", "  annotations:\n    example.com/changed: of-a-test\n", 1))
        .unwrap();
    let tested = gitseal_in(root, &["test"]);
    assert_eq!(tested.status.code(), Some(1), "{}", stderr(&tested));
    assert!(stderr(&tested).contains("2 different, 10 equal"), "{}", stderr(&tested));
    let shown = String::from_utf8(tested.stdout.clone()).unwrap();
    assert_eq!(shown.matches("+    example.com/changed: of-a-test").count(), 2, "{shown}");
}
