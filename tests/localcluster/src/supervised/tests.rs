use std::io::{BufRead as _, BufReader};

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Whether a process with this id runs. A zombie process does not count.
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

fn await_end_of(pid: u32) {
    let until = Instant::now() + LIMIT;
    while runs(pid) {
        assert!(Instant::now() < until, "process {pid} still runs");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_exit_code_is_the_programs() {
    let mut child = spawn_supervised(&shell("exit 7"), Output::Null).unwrap();
    assert_eq!(child.wait(LIMIT).unwrap(), Some(7));
}

#[test]
fn arguments_environment_folder_and_output_are_the_commands() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = shell("echo $ONE; pwd; echo to stderr >&2");
    command.env("ONE", "1").current_dir(folder.path());
    let mut child = spawn_supervised(&command, Output::Log(log.clone())).unwrap();
    assert_eq!(child.wait(LIMIT).unwrap(), Some(0));
    let folder = folder.path().canonicalize().unwrap();
    assert_eq!(std::fs::read_to_string(log).unwrap(), format!("1\n{}\nto stderr\n", folder.display()));
}

#[test]
fn a_request_to_end_reaches_the_program_itself() {
    let mut child =
        spawn_supervised(&shell("trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"), Output::Piped).unwrap();
    let mut line = String::new();
    BufReader::new(child.take_stdout().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    assert_eq!(child.terminate(LIMIT).unwrap(), 3);
}

#[test]
fn a_kill_ends_the_program() {
    let child = spawn_supervised(&shell("exec sleep 600"), Output::Null).unwrap();
    let pid = child.pid();
    assert!(runs(pid));
    assert_eq!(child.kill().unwrap(), 137);
    await_end_of(pid);
}

#[test]
fn a_drop_ends_the_program_and_what_it_started() {
    let mut child = spawn_supervised(&shell("sleep 600 & echo $!; wait"), Output::Piped).unwrap();
    let mut line = String::new();
    BufReader::new(child.take_stdout().unwrap()).read_line(&mut line).unwrap();
    let (pid, grandchild) = (child.pid(), line.trim().parse().unwrap());
    assert!(runs(pid) && runs(grandchild));
    drop(child);
    await_end_of(pid);
    await_end_of(grandchild);
}

#[test]
fn the_program_dies_with_a_supervisor_that_is_killed() {
    let mut child = spawn_supervised(&shell("exec sleep 600"), Output::Null).unwrap();
    child.supervisor.kill().unwrap();
    await_end_of(child.pid());
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let error = spawn_supervised(&Command::new("no-such-program"), Output::Log(log)).unwrap_err().to_string();
    assert!(error.contains("no-such-program") && error.contains("not found"), "{error}");
}
