//! A program that is ended while it writes a file.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::{fs::symlink, process::ExitStatusExt as _},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process};
use sealing::Scope;

use crate::workplace::{Workplace, key};
use crate::{stderr, stdout};

const UNSEAL: [&str; 4] = ["--recovery-unseal", "--recovery-private-key=key.pem", "-w", "out/secret.yaml"];

/// A SealedSecret with this number of values, each of this size.
fn sealed(values: usize, size: usize) -> String {
    let mut text =
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: db, namespace: shop}\nspec:\n  encryptedData:\n"
            .to_owned();
    for number in 0..values {
        let name = format!("value-{number}");
        let binding = Scope::Strict.binding("shop", "db", &name);
        let value = sealing::seal(key().public_key(), binding, &vec![b'x'; size]).unwrap();
        text.push_str(&format!("    {name}: {value}\n"));
    }
    text
}

fn start(here: &Workplace, input: &str) -> Child {
    let mut child = Command::new(here.path("kubeseal"))
        .args(UNSEAL)
        .current_dir(here.path("."))
        .env_clear()
        .env("HOME", here.path("."))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child
}

fn workplace() -> Workplace {
    let here = Workplace::new();
    symlink(env!("CARGO_BIN_EXE_gitseal"), here.path("kubeseal")).unwrap();
    fs::create_dir(here.path("out")).unwrap();
    here
}

#[test]
fn a_signal_leaves_no_half_of_a_file() {
    let (here, sealed) = (workplace(), sealed(2, 1 << 19)); // not written at once
    let mut hits = 0;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP].into_iter().cycle().take(6) {
        here.write("out/secret.yaml", "before");
        let mut child = start(&here, &sealed);
        let pid = Pid::from_child(&child);
        let since = Instant::now();
        let is_writing = || here.list("out").iter().any(|name| name.starts_with(".gitseal-"));
        while !is_writing() && child.try_wait().unwrap().is_none() {
            assert!(since.elapsed() < Duration::from_secs(120), "it does not write");
        }
        let _ = kill_process(pid, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(here.list("out"), ["secret.yaml"], "{}", stderr(&output));
        if output.status.signal() == Some(signal.as_raw()) {
            hits += 1;
            assert!(here.read("out/secret.yaml").contains("value-1: eHh4"), "the file is written to the end");
        }
    }
    assert!(hits > 0, "no signal came while the file was written");
}

#[test]
fn what_a_killed_program_left_is_removed_by_the_next_one() {
    let here = workplace();
    let names = [".gitseal-old.tmp", ".gitseal-new.tmp", ".gitseal-used.tmp", "mine.tmp"];
    let old = SystemTime::now() - Duration::from_secs(3600);
    let files: Vec<_> = names.map(|name| File::create(here.path("out").join(name)).unwrap()).into_iter().collect();
    for number in [0, 2, 3] {
        files[number].set_modified(old).unwrap();
    }
    files[2].lock().unwrap();
    symlink(here.path("key.pem"), here.path("out/.gitseal-link.tmp")).unwrap();
    let output = start(&here, &sealed(1, 1)).wait_with_output().unwrap();
    assert!(stderr(&output).contains(".gitseal-old.tmp, left by a gitseal that was killed"), "{}", stderr(&output));
    stdout(&output);
    let left = [".gitseal-link.tmp", ".gitseal-new.tmp", ".gitseal-used.tmp", "mine.tmp", "secret.yaml"];
    assert_eq!(here.list("out"), left);
}
