//! `gitseal completions` and the completions that its scripts request, without a cluster.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::{gitseal, stderr, stdout};

/// Requests the completions of the last word of a line, as the script for fish does.
fn ask(folder: &Path, line: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gitseal"));
    command.args(["--", "gitseal"]).args(line).current_dir(folder);
    command.env_clear().env("HOME", folder).env("GITSEAL_COMPLETE", "fish").output().unwrap()
}

/// The offered words. Checks that nothing else is printed.
fn offered(folder: &Path, line: &[&str]) -> Vec<String> {
    let output = ask(folder, line);
    assert_eq!(stderr(&output), "");
    stdout(&output).lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// A kubeconfig whose current context uses `user`, for a server at `server`.
fn kubeconfig(folder: &Path, server: &str, user: &str) {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: production\n\
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\nusers: [{{name: u, user: {user}}}]\n\
         contexts:\n{}",
        ["production", "staging", "prod-eu:1/x", "two words", "a\\u001b[2Jb", "$(touch here)"]
            .map(|name| format!("- {{name: \"{name}\", context: {{cluster: c, user: u, namespace: shop}}}}\n"))
            .concat()
    );
    fs::create_dir_all(folder.join(".kube")).unwrap();
    fs::write(folder.join(".kube/config"), text).unwrap();
}

#[test]
fn every_shell_has_a_script_that_asks() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&gitseal(&["completions", shell]));
        assert!(script.contains("GITSEAL_COMPLETE") && script.contains("gitseal"), "{shell}:\n{script}");
    }
}

#[test]
fn commands_flags_and_values_are_offered() {
    let folder = tempfile::tempdir().unwrap();
    let offered = |line: &[&str]| offered(folder.path(), line);
    assert_eq!(offered(&["sta"]), ["status"]);
    assert_eq!(offered(&["keys", "re"]), ["restore", "retire"]);
    assert_eq!(offered(&["status", "--all"]), ["--all-namespaces"]);
    assert_eq!(offered(&["seal", "--scope", "n"]), ["namespace-wide"]);
    assert!(offered(&["status", "--kube"]).contains(&"--kubeconfig".to_owned()));
    fs::write(folder.path().join("secret.yaml"), "").unwrap();
    assert_eq!(offered(&["seal", "sec"]), ["secret.yaml"]);
    assert_eq!(offered(&["seal", ""]), [".", "secret.yaml"], "flags are for who begins one");
    assert!(offered(&["version", ""]).contains(&"--output".to_owned()), "or where there is nothing else");
}

/// bash inserts offered words unchanged, so a dangerous file name would be run as a command.
#[test]
fn files_whose_names_a_shell_would_run_are_not_offered() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("a.d")).unwrap();
    let hostile = ["a$(touch here).yaml", "a`touch here`", "a;touch here", "a b", "a\n", "a*", "a'", "a\u{1b}[2J"];
    for name in ["a.yaml", "aé.yaml", "a.d/b.yaml", "a.d/b&touch here"].iter().chain(&hostile) {
        fs::write(folder.path().join(name), "").unwrap();
    }
    for line in [&["seal"][..], &["validate"], &["seal", "--output-file"], &["man", "--dir"], &["--kubeconfig"]] {
        assert_eq!(offered(folder.path(), &[line, &["a"]].concat()), ["a.d/", "a.yaml", "aé.yaml"], "{line:?}");
        assert_eq!(offered(folder.path(), &[line, &["a.d/"]].concat()), ["a.d/b.yaml"], "{line:?}");
    }
}

#[test]
fn contexts_are_those_of_the_kubeconfig_that_are_one_word() {
    let folder = tempfile::tempdir().unwrap();
    kubeconfig(folder.path(), "https://127.0.0.1:1", "{}");
    let all = ["prod-eu:1/x", "production", "staging"];
    assert_eq!(offered(folder.path(), &["status", "--context", ""]), all);
    assert_eq!(offered(folder.path(), &["--context", "prod"]), all[..2]);
    fs::rename(folder.path().join(".kube/config"), folder.path().join("other")).unwrap();
    assert!(offered(folder.path(), &["status", "--context", "prod"]).is_empty());
    assert_eq!(offered(folder.path(), &["status", "--kubeconfig", "other", "--context", "st"]), ["staging"]);
}

/// No kubeconfig, an invalid one, a cluster that does not exist, one that never answers, and credentials that never arrive.
#[test]
fn where_no_name_can_be_told_nothing_is_printed_and_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let loud = "{exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: IfAvailable, command: sh, \
                args: [-c, 'echo who are you? >&2; read name; echo $name > asked; sleep 20']}}";
    let always = loud.replace("IfAvailable", "Always");
    let nowhere = "http://127.0.0.1:1";
    for (server, user) in
        [("", ""), (nowhere, "["), (nowhere, "{}"), (&silent, "{}"), (nowhere, loud), (nowhere, &always)]
    {
        if !server.is_empty() {
            kubeconfig(folder, server, user);
        }
        for line in [&["status", "w"][..], &["status", "-n", "s"], &["keys", "retire", "s"], &["trace", "pod/"]] {
            let start = Instant::now();
            assert!(offered(folder, line).is_empty(), "{server} {user} {line:?}");
            assert!(start.elapsed() < Duration::from_secs(10), "{server} {user} {line:?}");
        }
    }
    assert_eq!(
        fs::read_to_string(folder.join("asked")).unwrap(),
        "\n",
        "without a terminal, and never where it needs one"
    );
}

#[test]
fn a_shell_that_is_not_known_is_told_nothing() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gitseal"));
    let output = command.args(["--", "gitseal", "s"]).env("GITSEAL_COMPLETE", "tcsh").output().unwrap();
    assert!(!output.status.success());
    assert_eq!((output.stdout, output.stderr), (Vec::new(), Vec::new()));
}
