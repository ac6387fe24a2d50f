//! `gitseal build` without a cluster.

use std::{fs, path::Path};

use crate::gitseal_in;

/// A repository with a kustomization that would change the name of its ConfigMap.
fn kustomized() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
    for path in [".git", "app"] {
        fs::create_dir(folder.path().join(path)).unwrap();
    }
    write("app/kustomization.yaml", "namePrefix: rendered-\nresources: [map.yaml]\n");
    write("app/map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n");
    folder
}

fn built(folder: &Path, path: &str) -> String {
    let output = gitseal_in(folder, &["build", path]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_kustomization_that_is_ignored_is_not_rendered() {
    for (ignore_file, rule) in
        [("app/.gitsealignore", "kustomization.yaml"), (".gitsealignore", "app/kustomization.yaml")]
    {
        let folder = kustomized();
        fs::write(folder.path().join(ignore_file), format!("{rule}\n")).unwrap();
        let text = built(folder.path(), "app");
        assert!(text.contains("name: settings"), "{ignore_file}: {text}");
        // The same folder, given as the current folder.
        assert_eq!(built(&folder.path().join("app"), "."), text);
    }
}
