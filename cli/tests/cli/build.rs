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

/// A repository with a chart, and a Sync for it whose spec also has `more`.
fn chart_of_a_sync(more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    fs::create_dir(folder.path().join(".git")).unwrap();
    write("charts/web/Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.0.0\n");
    write("charts/web/templates/map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }} }\n");
    let sync = "apiVersion: gitseal.dev/v1alpha1\nkind: Sync\nmetadata: {name: web, namespace: shop}\n";
    write("clusters/web.yaml", &format!("{sync}spec:\n  repository: {{name: fleet}}\n  path: charts/web\n{more}"));
    folder
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = gitseal_in(folder, arguments);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_sync_that_does_not_say_that_its_folder_is_a_chart_is_told_what_to_set() {
    let folder = chart_of_a_sync("");
    for arguments in [["build", "--sync", "clusters/web.yaml"].as_slice(), &["lint"]] {
        let told = refused(folder.path(), arguments);
        assert!(told.contains("Chart.yaml") && told.contains("set helm in the spec of the Sync"), "{told}");
        assert!(!told.contains("kind is missing"), "{told}");
    }
}

#[test]
fn values_that_the_api_server_would_refuse_are_refused_without_it() {
    let folder = chart_of_a_sync("  helm:\n    valuesFrom: [{sealedSecret: secrets/web.yaml, key: password}]\n");
    for arguments in [["build", "--sync", "clusters/web.yaml"].as_slice(), &["lint"]] {
        let told = refused(folder.path(), arguments);
        assert!(told.contains("spec.helm.valuesFrom[0]: sealedSecret needs path"), "{told}");
    }
}

#[test]
fn a_plaintext_secret_of_a_chart_is_not_to_be_sealed_in_the_template() {
    let folder = chart_of_a_sync("  helm: {}\n");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {password: hunter2}\n";
    fs::write(folder.path().join("charts/web/templates/db.yaml"), secret).unwrap();
    for arguments in [["build", "--sync", "clusters/web.yaml"].as_slice(), &["build", "charts/web"]] {
        let output = gitseal_in(folder.path(), arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("charts/web/templates/db.yaml:1") && told.contains("spec.helm.valuesFrom"), "{told}");
        assert!(!told.contains("seal -i"), "{told}");
    }
}

#[test]
fn a_folder_of_a_sync_that_does_not_exist_is_named_with_its_field() {
    let folder = chart_of_a_sync("  helm: {}\n");
    fs::remove_dir_all(folder.path().join("charts")).unwrap();
    let told = refused(folder.path(), &["build", "--sync", "clusters/web.yaml"]);
    assert!(told.contains("charts/web, which is in spec.path of the Sync"), "{told}");
}

/// A clone of a Repository with values for charts.
fn clone_with(path: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".git")).unwrap();
    let path = folder.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    folder
}

#[test]
fn values_of_another_repository_are_read_from_a_clone_that_is_named() {
    let entry = "  helm:\n    valuesFrom: [{repository: {name: config}, file: web/prod.yaml}]\n";
    let folder = chart_of_a_sync(entry);
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {level: {{ .Values.level }} }\n";
    fs::write(folder.path().join("charts/web/templates/map.yaml"), template).unwrap();
    let sync = ["build", "--sync", "clusters/web.yaml"];
    for arguments in [sync.as_slice(), &["lint"]] {
        let told = refused(folder.path(), arguments);
        assert!(told.contains("spec.helm.valuesFrom[0] of the Sync names a file of Repository shop/config"), "{told}");
    }
    assert!(refused(folder.path(), &sync).contains("--values-repository shop/config=PATH"));

    let clone = clone_with("web/prod.yaml", "level: debug\n");
    for name in ["config", "shop/config"] {
        let flag = format!("--values-repository={name}={}", clone.path().display());
        let output = gitseal_in(folder.path(), &[&sync[..], &[&flag]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("level: debug"), "{text} {}", String::from_utf8_lossy(&output.stderr));
        let linted = gitseal_in(folder.path(), &["lint", &flag]);
        assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
    }
    // Another namespace has another Repository of this name.
    let flag = format!("--values-repository=other/config={}", clone.path().display());
    refused(folder.path(), &[&sync[..], &[&flag]].concat());
    let clone = clone_with("web/test.yaml", "level: debug\n");
    let flag = format!("--values-repository=config={}", clone.path().display());
    let told = refused(folder.path(), &[&sync[..], &[&flag]].concat());
    assert!(told.contains("Repository shop/config: web/prod.yaml: there is no such file in"), "{told}");
    let told = refused(folder.path(), &[&sync[..], &["--values-repository=config"]].concat());
    assert!(told.contains("it is not NAME=PATH"), "{told}");
}

#[test]
fn values_of_the_repository_itself_need_no_clone() {
    let entry = "  helm:\n    valuesFrom: [{repository: {name: fleet}, file: web.yaml}]\n";
    let folder = chart_of_a_sync(entry);
    fs::write(folder.path().join("web.yaml"), "level: debug\n").unwrap();
    let output = gitseal_in(folder.path(), &["build", "--sync", "clusters/web.yaml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
