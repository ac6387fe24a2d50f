//! `gitseal install` without a cluster: checks the printed manifests.

use std::collections::BTreeSet;

use manifests::{Limits, Manifest, parse};
use serde_json::json;

use crate::{gitseal, stderr, stdout};

fn installed(arguments: &[&str]) -> Vec<Manifest> {
    let mut all = vec!["install"];
    all.extend(arguments);
    let text = stdout(&gitseal(&all));
    let objects =
        parse("install", text.as_bytes(), &Limits::default()).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let ids: BTreeSet<_> = objects.iter().map(|object| &object.id).collect();
    assert_eq!(ids.len(), objects.len(), "an object is there twice");
    objects
}

fn find<'a>(objects: &'a [Manifest], kind: &str, name: &str) -> &'a Manifest {
    let found = objects.iter().find(|object| object.id.kind == kind && object.id.name == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn everything_is_a_manifest_and_the_kinds_are_apart() {
    let objects = installed(&[]);
    let kinds: BTreeSet<_> = objects.iter().map(|object| object.id.kind.as_str()).collect();
    assert!(!kinds.contains("CustomResourceDefinition") && !kinds.contains("Namespace"), "{kinds:?}");
    assert_eq!(objects.last().map(|object| object.id.kind.as_str()), Some("Deployment"));
    find(&objects, "Service", "sealed-secrets-controller");

    let kinds: Vec<_> = installed(&["--crds"]).iter().map(|object| object.id.kind.clone()).collect();
    assert_eq!(kinds, ["CustomResourceDefinition"; 3]);
    let elsewhere = installed(&["--crds", "--controller-namespace", "gitops"]);
    assert_eq!(elsewhere.last().map(|object| object.id.to_string()).as_deref(), Some("Namespace gitops"));
}

#[test]
fn what_is_printed_says_what_deleting_it_does() {
    let text = stdout(&gitseal(&["install"]));
    assert!(text.starts_with("# The controller and its rights.") && text.contains("`gitseal uninstall`"));
    let text = stdout(&gitseal(&["install", "--crds"]));
    assert!(text.contains("NEVER `kubectl delete -f` this"));
}

#[test]
fn a_url_that_cannot_be_used_is_refused_at_once() {
    for url in [
        "git.example/fleet.git",
        "ftp://git.example/a",
        "https://",
        "https://me:hunter2@git.example/a",
        "https://git.example/a?b",
    ] {
        let output = gitseal(&["install", "--git-url", url]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{url}: {text}");
        assert!(text.contains("--git-url cannot be used") && text.contains("https://"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    for url in ["git@git.example:fleet.git", "ssh://git@git.example/fleet.git"] {
        let text = stderr(&gitseal(&["install", "--git-url", url]));
        assert!(text.contains("needs a private key") && text.contains("--secret-name"), "{text}");
        let with_secret = ["install", "--git-url", url, "--secret-name", "fleet-ssh"];
        assert!(stdout(&gitseal(&with_secret)).contains(&format!("url: {url}")), "{url}");
    }
    for path in ["/apps", "../apps", "a/../b"] {
        let output = gitseal(&["install", "--git-url", "https://git.example/a", "--path", path]);
        assert!(stderr(&output).contains("--path cannot be used"), "{path}");
    }
}

#[test]
fn comments_speak_of_nothing_that_only_the_source_has() {
    for variant in [
        &[][..],
        &["--multi-tenant"],
        &["--replicas", "3"],
        &["--ephemeral-storage"],
        &["--crds"],
        &["--crds", "--controller-namespace", "gitops"],
    ] {
        let text = stdout(&gitseal(&[&["install"], variant].concat()));
        let comments: Vec<_> = text.lines().filter(|line| line.trim_start().starts_with('#')).collect();
        assert!(!comments.is_empty(), "{variant:?}");
        for comment in comments {
            for of_the_source in
                [".yaml", "this file", "another file", "files", "folder", "/src", "cargo", "multi-tenant/", "beside"]
            {
                assert!(!comment.contains(of_the_source), "{variant:?}: {comment}");
            }
        }
    }
}

#[test]
fn what_the_controller_could_not_start_with_is_refused_at_once() {
    for (argument, why) in [
        (
            "--memory-buget=1Gi",
            "unexpected argument '--memory-buget' found; tip: a similar argument exists: '--memory-budget'",
        ),
        ("--memory-budget=much", "invalid value 'much' for '--memory-budget <SIZE>'"),
        ("--help", "unexpected argument '--help' found"),
    ] {
        let output = gitseal(&["install", "--", argument]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{argument}: {text}");
        assert!(text.contains(&format!("the controller would not start: {why}")), "{text}");
    }
    let output = gitseal(&["install", "--image", "https://registry.example/gitseal-controller:0.1.0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("not a valid image reference"), "{}", stderr(&output));
}

#[test]
fn the_memory_limit_fits_the_budget() {
    for (arguments, limit) in [(&["install"][..], "1Gi"), (&["install", "--", "--memory-budget=512Mi"], "1280Mi")] {
        let output = gitseal(arguments);
        let limits = format!("            limits:\n              memory: {limit}\n");
        assert!(stdout(&output).contains(&limits), "{}", stdout(&output));
        let is_told = stderr(&output).contains("the memory limit of the controller is 1280Mi instead of 1Gi");
        assert_eq!(is_told, limit == "1280Mi", "{}", stderr(&output));
    }
}

#[test]
fn comments_say_what_a_permission_is_for() {
    let text = stdout(&gitseal(&["install"]));
    assert!(text.contains("# The controller may apply everything."));
    let text = stdout(&gitseal(&["install", "--multi-tenant"]));
    assert!(!text.contains("name: cluster-admin"));
}

#[test]
fn a_first_repository_comes_last() {
    let objects = installed(&[
        "--git-url",
        "https://git.example/fleet.git",
        "--branch",
        "main",
        "--path",
        "./clusters/one",
        "--secret-name",
        "git",
        "--controller-namespace",
        "gitops",
    ]);
    let repository = find(&objects, "Repository", "cluster");
    assert_eq!(repository.id.namespace.as_deref(), Some("gitops"));
    assert_eq!(repository.body["spec"]["url"], "https://git.example/fleet.git");
    assert_eq!(repository.body["spec"]["ref"], json!({"branch": "main"}));
    assert_eq!(repository.body["spec"]["secretRef"], json!({"name": "git"}));
    let sync = find(&objects, "Sync", "cluster");
    assert_eq!(sync.body["spec"]["repository"], json!({"name": "cluster"}));
    assert_eq!(sync.body["spec"]["path"], "./clusters/one");
    assert_eq!(objects.last().map(|object| object.id.kind.as_str()), Some("Sync"));
}

#[test]
fn a_list_is_there_for_programs() {
    let list: serde_json::Value = serde_json::from_str(&stdout(&gitseal(&["install", "-o", "json"]))).expect("JSON");
    assert_eq!(list["kind"], "List");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(installed(&[]).len()));
}
