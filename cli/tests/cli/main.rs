//! Runs the built program like a user.
#![allow(clippy::unwrap_used)]

mod build;
mod cert;
mod completions;
mod connections;
mod containerfile;
mod documentation;
mod hostile_texts;
mod install;
mod keys;
mod kubeseal;
mod lint;
mod pages;
mod remotes;
mod reseal;
mod seal;
mod signals;
mod typed;
mod unseal;
mod validate;
mod workplace;

use std::{
    path::Path,
    process::{Command, Output},
};

/// Runs `gitseal` in `folder`, without the environment's kubeconfig or settings, as somebody with no cluster.
fn gitseal_in(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gitseal"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .output()
        .expect("gitseal runs")
}

/// Runs `gitseal` in an empty folder.
fn gitseal(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    gitseal_in(folder.path(), arguments)
}

/// Standard output of a run that must succeed.
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}
