//! `build`, `lint` and `test` with local copies of what is elsewhere, without a cluster and a network.

use std::{
    fs,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use crate::{
    gitseal_in,
    lint::{DEPLOYMENT, fleet, problems, sync},
    stderr, stdout,
    workplace::write,
};

/// The URL of the remote base, as the kustomization of [`with_base`] has it.
const BASE: &str = "https://git.example/team/parts//base?ref=v1";

fn repository(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: gitseal.dev/v1alpha1\nkind: Repository\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

/// A repository with a Sync whose kustomization has a remote base, and a clone of the repository with this base.
fn with_base() -> (tempfile::TempDir, tempfile::TempDir) {
    let (folder, clone) = (fleet(), tempfile::tempdir().unwrap());
    let root = folder.path();
    let options = "buildMetadata: [originAnnotations]\nnamePrefix: remote-\n";
    write(root, "apps/remote/kustomization.yaml", &format!("{options}resources: ['{BASE}']\n"));
    write(root, "clusters/edge/remote.yaml", &sync("remote", "apps/remote", ""));
    fs::create_dir(clone.path().join(".git")).unwrap();
    write(clone.path(), "base/kustomization.yaml", "resources: [../web.yaml]\n");
    write(clone.path(), "web.yaml", DEPLOYMENT);
    (folder, clone)
}

fn option(what: &str, path: &Path) -> String {
    format!("--remote={what}={}", path.display())
}

/// The archive of a chart in a new file in `folder`.
fn package(folder: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let path = folder.join(format!("{name}.tgz"));
    let mut tar = tar::Builder::new(GzEncoder::new(fs::File::create(&path).unwrap(), Compression::fast()));
    for (file, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, file, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    path
}

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-{{ .Chart.Name }}'}\ndata: {level: {{ .Values.level \
    | quote }}}\n";

#[test]
fn a_sync_with_a_remote_base_is_left_out_or_rendered_from_a_copy() {
    let (folder, clone) = with_base();
    let root = folder.path();
    let lint = gitseal_in(root, &["lint"]);
    assert_eq!((lint.status.code(), stdout(&lint)), (Some(0), String::new()));
    for said in [
        "clusters/edge/remote.yaml:1: Sync shop/remote: ",
        "apps/remote/kustomization.yaml:3: ",
        "https://git.example/team/parts?ref=v1 is remote, and this command fetches nothing",
        "git clone --branch v1 https://git.example/team/parts PATH",
        "--remote 'https://git.example/team/parts?ref=v1=PATH'",
        "1 Sync was not rendered: shop/remote",
        "3 objects of 3 Syncs",
    ] {
        assert!(stderr(&lint).contains(said), "{said}: {}", stderr(&lint));
    }
    let report: Value = serde_json::from_slice(&gitseal_in(root, &["lint", "-o", "json"]).stdout).unwrap();
    assert_eq!(report["notRendered"][0]["name"], "remote", "{report}");
    assert_eq!(report["notRendered"][0]["file"], "clusters/edge/remote.yaml", "{report}");
    let (code, found) = problems(root, &["--strict"]);
    assert_eq!((code, found.len()), (Some(1), 1), "{found:?}");
    assert!(found[0].starts_with("clusters/edge/remote.yaml:1 not-rendered : ") && found[0].contains("--remote '"));

    stdout(&gitseal_in(root, &["test", "--update"]));
    let golden = root.join(".gitseal/golden/clusters/edge/shop.remote.yaml");
    assert!(!golden.exists());
    let tested = gitseal_in(root, &["test"]);
    assert!(stderr(&tested).contains("1 Sync was not rendered: shop/remote"), "{}", stderr(&tested));
    assert_eq!((tested.status.code(), stdout(&tested)), (Some(0), String::new()));
    let strict = gitseal_in(root, &["test", "--strict"]);
    assert_eq!(strict.status.code(), Some(2));
    assert!(stderr(&strict).contains("Sync shop/remote cannot be rendered: "), "{}", stderr(&strict));
    assert!(stderr(&strict).contains("hint: get it with `git clone"), "{}", stderr(&strict));

    // The URL as it is in the kustomization, or without the folder.
    for url in [BASE, "https://git.example/team/parts?ref=v1", "https://me@GIT.example:443/team/parts//x?ref=v1"] {
        let copy = option(url, clone.path());
        assert_eq!(problems(root, &["--strict", &copy]), (Some(0), vec![]), "{url}");
        let built = stdout(&gitseal_in(root, &["build", "--sync", "clusters/edge/remote.yaml", &copy]));
        for said in
            ["name: remote-web", "namespace: shop", "path: web.yaml", "ref: v1", "https://git.example/team/parts"]
        {
            assert!(built.contains(said), "{said}: {built}");
        }
        let text = stdout(&gitseal_in(root, &["build", "apps/remote", &copy]));
        assert!(text.contains("name: remote-web") && text.contains("repo: https://git.example/team/parts"), "{text}");
        stdout(&gitseal_in(root, &["test", "--strict", "--update", &copy]));
        assert_eq!(fs::read_to_string(&golden).unwrap(), built);
        stdout(&gitseal_in(root, &["test", "--strict", &copy]));
    }
    // The golden file stays without the copy: it is not known whether it is up to date.
    for arguments in [&["test"][..], &["test", "--update"]] {
        let tested = gitseal_in(root, arguments);
        assert_eq!((tested.status.code(), stdout(&tested)), (Some(0), String::new()), "{}", stderr(&tested));
        assert!(golden.exists());
    }

    // A mistake in the base is reported at its place there.
    write(clone.path(), "web.yaml", &DEPLOYMENT.replace("replicas", "replica"));
    let (code, found) = problems(root, &[&option(BASE, clone.path())]);
    assert_eq!((code, found.len()), (Some(1), 1), "{found:?}");
    assert!(found[0].starts_with("https://git.example/team/parts@v1//web.yaml:1 unknown-field "), "{found:?}");
    // A copy of another version is not used, and nothing outside of the copy is read.
    let other = option("https://git.example/team/parts?ref=v2", clone.path());
    assert!(stderr(&gitseal_in(root, &["lint", &other])).contains("1 Sync was not rendered"));
    let inner = option(BASE, &clone.path().join("base"));
    assert_eq!(problems(root, &[&inner]).0, Some(1), "`../web.yaml` is outside of the copy");
}

#[test]
fn what_the_repository_does_not_allow_is_an_error() {
    let (folder, clone) = with_base();
    let root = folder.path();
    let copy = option(BASE, clone.path());
    write(root, "clusters/edge/repository.yaml", &repository("fleet", "{url: 'https://git.example/team/fleet'}"));
    for arguments in [&[][..], &[copy.as_str()]] {
        let (code, found) = problems(root, arguments);
        assert_eq!((code, found.len()), (Some(1), 1), "{found:?}");
        assert!(found[0].starts_with("apps/remote/kustomization.yaml:3 not-rendered : "), "{found:?}");
        assert!(found[0].contains(
            "the Repository does not allow this: add the URL https://git.example/team/parts to spec.remotes"
        ));
    }
    let allowing = "{url: 'https://git.example/team/fleet', remotes: [{url: 'https://git.example/team/'}]}";
    write(root, "clusters/edge/repository.yaml", &repository("fleet", allowing));
    assert_eq!(problems(root, &[&copy]), (Some(0), vec![]));
    assert_eq!(problems(root, &[]), (Some(0), vec![]), "it is left out");
    // A URL that the controller never fetches from is an error, with or without a copy.
    write(root, "apps/remote/kustomization.yaml", "resources: ['git@git.example:team/parts?ref=v1']\n");
    let (code, found) = problems(root, &[&copy]);
    assert!(code == Some(1) && found[0].contains("ssh is not supported for remote bases"), "{found:?}");
}

#[test]
fn a_chart_that_another_chart_depends_on_is_read_from_its_archive() {
    let folder = fleet();
    let root = folder.path();
    let dependency = "name: cache\n  repository: https://charts.example/stable\n";
    let digest = "sha256:446efccbfe9765c8137294eb6e343a67df100d98741a3c9dd5a45731338507ff";
    let chart = format!("apiVersion: v2\nname: shop\nversion: 1.0.0\ndependencies:\n- {dependency}  version: 1.x\n");
    write(root, "charts/shop/Chart.yaml", &chart);
    let lock = format!(
        "dependencies:\n- {dependency}  version: 1.2.3\ndigest: {digest}\ngenerated: \"2026-01-01T00:00:00Z\"\n"
    );
    write(root, "charts/shop/Chart.lock", &lock);
    write(root, "clusters/edge/shop.yaml", &sync("shop", "charts/shop", "  helm: {values: {cache: {level: debug}}}\n"));
    let text = "https://charts.example/stable/cache-1.2.3.tgz";
    let lint = gitseal_in(root, &["lint"]);
    assert_eq!((lint.status.code(), stdout(&lint)), (Some(0), String::new()), "{}", stderr(&lint));
    for said in [
        &format!("charts/shop/Chart.yaml: the dependency 'cache': {text} is remote"),
        "`helm pull cache --repo https://charts.example/stable --version '1.2.3'`",
        &format!("--remote '{text}=cache-1.2.3.tgz'"),
        "1 Sync was not rendered: shop/shop",
    ] {
        assert!(stderr(&lint).contains(said), "{said}: {}", stderr(&lint));
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let files = [
        ("cache/Chart.yaml", "apiVersion: v2\nname: cache\nversion: 1.2.3\n"),
        ("cache/values.yaml", "level: info\n"),
        ("cache/templates/map.yaml", MAP),
    ];
    let archive = package(elsewhere.path(), "cache-1.2.3", &files);
    let copy = option(text, &archive);
    assert_eq!(problems(root, &["--strict", &copy]), (Some(0), vec![]));
    let built = stdout(&gitseal_in(root, &["build", "--sync", "clusters/edge/shop.yaml", &copy]));
    assert!(built.contains("name: shop-cache") && built.contains("level: debug"), "{built}");
    let text_of_helm = stdout(&gitseal_in(root, &["build", "charts/shop", &copy]));
    assert!(text_of_helm.contains("# Source: shop/charts/cache/templates/map.yaml"), "{text_of_helm}");
    assert!(text_of_helm.contains("level: \"info\""), "{text_of_helm}");
    // An archive with another chart is refused.
    let other =
        files.map(|(file, text)| (file, if text == MAP { text.to_owned() } else { text.replace("1.2.3", "1.2.4") }));
    let other: Vec<_> = other.iter().map(|(file, text)| (*file, text.as_str())).collect();
    let copy = option(text, &package(elsewhere.path(), "other", &other));
    let (code, found) = problems(root, &[&copy]);
    assert!(code == Some(1) && found[0].contains("the archive has the chart 'cache' 1.2.4"), "{found:?}");
}

#[test]
fn what_is_in_another_repository_is_read_from_a_copy_of_it() {
    let folder = fleet();
    let root = folder.path();
    write(root, ".git/config", "[remote \"origin\"]\n\turl = git@git.example:team/fleet.git\n");
    write(root, "clusters/edge/fleet.yaml", &repository("fleet", "{url: 'https://git.example/team/fleet'}"));
    let of =
        |name: &str, path: &str, rest: &str| sync(name, path, rest).replace("name: fleet", &format!("name: {name}"));
    let elsewhere = tempfile::tempdir().unwrap();
    let files = [
        ("podinfo/Chart.yaml", "apiVersion: v2\nname: podinfo\nversion: 6.5.0\n"),
        ("podinfo/values.yaml", "level: info\n"),
        ("podinfo/prod.yaml", "level: prod\n"),
        ("podinfo/templates/map.yaml", MAP),
    ];
    let archive = package(elsewhere.path(), "podinfo-6.5.0", &files);
    for (file, text) in files {
        write(elsewhere.path(), file, text);
    }
    let helm = "  helm: {valuesFrom: [{file: prod.yaml}]}\n";
    for (spec, url, pull) in [
        (
            "{url: 'oci://registry.example/charts/podinfo', ref: {tag: 6.5.0}}",
            "oci://registry.example/charts/podinfo:6.5.0",
            "`helm pull oci://registry.example/charts/podinfo --version '6.5.0'`",
        ),
        (
            "{url: 'https://charts.example/stable/', chart: podinfo, ref: {tag: 6.5.0}}",
            "https://charts.example/stable/podinfo-6.5.0.tgz",
            "`helm pull podinfo --repo https://charts.example/stable/ --version '6.5.0'`",
        ),
    ] {
        write(root, "clusters/edge/repository.yaml", &repository("podinfo", spec));
        write(root, "clusters/edge/podinfo.yaml", &of("podinfo", "./", helm));
        let lint = gitseal_in(root, &["lint"]);
        for said in [pull, "--remote shop/podinfo=PATH", "1 Sync was not rendered: shop/podinfo"] {
            assert!(stderr(&lint).contains(said), "{said}: {}", stderr(&lint));
        }
        assert_eq!(problems(root, &["--strict"]).0, Some(1));
        for (what, path) in
            [("podinfo", archive.clone()), ("shop/podinfo", elsewhere.path().join("podinfo")), (url, archive.clone())]
        {
            let copy = option(what, &path);
            assert_eq!(problems(root, &["--strict", &copy]), (Some(0), vec![]), "{what}");
            let built = stdout(&gitseal_in(root, &["build", "--sync", "clusters/edge/podinfo.yaml", &copy]));
            assert!(built.contains("name: podinfo-podinfo") && built.contains("level: prod"), "{built}");
            let explained = gitseal_in(root, &["build", "--sync", "clusters/edge/podinfo.yaml", "--explain", &copy]);
            assert!(stdout(&explained).contains("1 object"), "{}", stdout(&explained));
        }
        let other = gitseal_in(root, &["lint", &option("other/podinfo", &archive)]);
        assert!(stderr(&other).contains("1 Sync was not rendered"), "{}", stderr(&other));
    }
    let path = elsewhere.path().join("podinfo");
    let built = gitseal_in(root, &["build", path.to_str().unwrap(), "--sync", "clusters/edge/podinfo.yaml"]);
    assert!(stdout(&built).contains("level: prod"));
    // A problem in a copy is reported with the path of the copy.
    write(
        elsewhere.path(),
        "podinfo/templates/map.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndat: {}\n",
    );
    let (code, found) = problems(root, &[&option("podinfo", &path)]);
    let start = format!("{}/templates/map.yaml:1 unknown-field dat: ", path.display());
    assert!(code == Some(1) && found.len() == 1 && found[0].starts_with(&start), "{found:?}");

    // Another Git repository.
    fs::remove_file(root.join("clusters/edge/podinfo.yaml")).unwrap();
    write(root, "clusters/edge/repository.yaml", &repository("vendor", "{url: 'https://git.example/vendor/parts'}"));
    write(root, "clusters/edge/vendor.yaml", &of("vendor", "web", ""));
    let lint = gitseal_in(root, &["lint"]);
    for said in ["git clone https://git.example/vendor/parts PATH", "--remote shop/vendor=PATH"] {
        assert!(stderr(&lint).contains(said), "{said}: {}", stderr(&lint));
    }
    let build = gitseal_in(root, &["build", "--sync", "clusters/edge/vendor.yaml"]);
    assert!(!build.status.success() && stderr(&build).contains("--remote shop/vendor=PATH"), "{}", stderr(&build));
    write(elsewhere.path(), "clone/web/web.yaml", DEPLOYMENT);
    let copy = option("vendor", &elsewhere.path().join("clone"));
    assert_eq!(problems(root, &["--strict", &copy]), (Some(0), vec![]));
    stdout(&gitseal_in(root, &["test", "--strict", "--update", &copy]));
    stdout(&gitseal_in(root, &["test", "--strict", &copy]));
    stdout(&gitseal_in(root, &["test"]));
}

#[test]
fn a_copy_that_cannot_be_read_is_named() {
    let (folder, _clone) = with_base();
    let root = folder.path();
    write(root, "notes.tgz", "no archive");
    for (copy, said) in [
        ("--remote=podinfo=nowhere", "cannot read nowhere, which --remote names"),
        ("--remote=podinfo=notes.tgz", "it is no archive of a chart (.tgz)"),
        ("--remote=https://git.example/team/parts?ref=v1=notes.tgz", "notes.tgz is no folder, so it is no clone"),
        ("--remote=https://git.example/team/parts=.", "add ?ref= with a tag"),
        ("--remote=oci://registry.example/podinfo=.", "names no version"),
        ("--remote=podinfo", "it is not WHAT=PATH"),
    ] {
        for command in [&["lint"][..], &["test"], &["build", "apps/remote"]] {
            let output = gitseal_in(root, &[command, &[copy]].concat());
            assert!(!output.status.success() && stderr(&output).contains(said), "{said}: {}", stderr(&output));
        }
    }
}
