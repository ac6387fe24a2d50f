//! Tests with a program that starts itself as a worker, as the controller does.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use worker::{Cancel, Limits, Task, Worker, WorkerError, entry};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;
type Test = (&'static str, fn() -> Result);

const TASKS: &[Task] = &[
    ("reverse", |request| Ok(request.iter().rev().copied().collect())),
    ("refuse", |_| Err("no, because it is Tuesday".into())),
    ("sleep", |_| {
        thread::sleep(Duration::from_secs(600));
        Ok(Vec::new())
    }),
    ("allocate", |_| Ok(vec![7; 512 << 20])),
    ("write", |request| {
        let path = String::from_utf8(request.to_vec()).map_err(|error| error.to_string())?;
        fs::write(path, vec![0; 4 << 20]).map_err(|error| error.to_string())?;
        Ok(Vec::new())
    }),
    ("panic", |_| panic!("a fault of its own")),
    ("environment", |_| Ok(format!("{:?}", std::env::vars().collect::<Vec<_>>()).into_bytes())),
];

const AMPLE: Limits = Limits { memory: 256 << 20, file: 1 << 20, time: Duration::from_secs(60), answer: 1 << 20 };

fn run(task: &str, request: &[u8], limits: &Limits) -> std::result::Result<Vec<u8>, WorkerError> {
    Worker::default().run(task, request, limits, &Cancel::new())
}

fn bytes_go_in_and_come_out() -> Result {
    let request: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let expected: Vec<u8> = request.iter().rev().copied().collect();
    assert_eq!(run("reverse", &request, &AMPLE)?, expected);
    assert_eq!(run("reverse", b"", &AMPLE)?, b"");
    assert_eq!(run("environment", b"", &AMPLE)?, b"[]", "it inherits nothing");
    Ok(())
}

fn what_goes_wrong_is_told_apart() -> Result {
    let text = |result: std::result::Result<Vec<u8>, WorkerError>| result.expect_err("a failure").to_string();
    assert_eq!(text(run("refuse", b"", &AMPLE)), "no, because it is Tuesday");
    assert!(matches!(run("panic", b"", &AMPLE), Err(WorkerError::Died(_))));
    assert!(text(run("unknown", b"", &AMPLE)).contains("started by the controller"));
    assert!(matches!(run("allocate", b"", &AMPLE), Err(WorkerError::Memory(limit)) if limit == AMPLE.memory));
    let short = Limits { answer: 10, ..AMPLE };
    assert!(matches!(run("reverse", b"more than ten bytes", &short), Err(WorkerError::Size(10))));
    let file = std::env::temp_dir().join(format!("gitseal-worker-{}", std::process::id()));
    let name = file.to_str().ok_or("a path")?;
    let written = run("write", name.as_bytes(), &AMPLE);
    fs::remove_file(file)?;
    assert!(matches!(written, Err(WorkerError::Size(_))));
    let missing = Worker::of("/nonexistent".into()).run("reverse", b"", &AMPLE, &Cancel::new());
    assert!(matches!(missing, Err(WorkerError::Start(_))));
    Ok(())
}

fn it_ends_when_its_time_is_up_or_nobody_wants_it() -> Result {
    let hasty = Limits { time: Duration::from_millis(100), ..AMPLE };
    assert!(matches!(run("sleep", b"", &hasty), Err(WorkerError::TimedOut(_))));
    let cancel = Cancel::new();
    let waiting = {
        let cancel = cancel.clone();
        thread::spawn(move || Worker::default().run("sleep", b"", &AMPLE, &cancel))
    };
    cancel.cancel();
    assert!(matches!(waiting.join().map_err(|_| "a panic")?, Err(WorkerError::Cancelled)));
    Ok(())
}

/// A parent that is killed leaves no worker behind.
fn it_ends_with_its_parent() -> Result {
    let mut parent =
        Command::new(std::env::current_exe()?).arg("parent").stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
    let mut line = String::new();
    BufReader::new(parent.stdout.take().ok_or("output")?).read_line(&mut line)?;
    let worker: u32 = line.trim().parse()?;
    assert!(Path::new(&format!("/proc/{worker}")).exists());
    parent.kill()?;
    parent.wait()?;
    let limit = Instant::now() + Duration::from_secs(60);
    while is_running(worker) {
        assert!(Instant::now() < limit, "the worker outlives its parent");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z') && !rest.is_empty())
}

/// Starts a worker, prints its process id, and waits for it.
fn be_a_parent() -> Result {
    thread::spawn(|| run("sleep", b"", &AMPLE));
    let children = format!("/proc/{0}/task", std::process::id());
    loop {
        for task in fs::read_dir(&children)? {
            let found = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            if let Some(child) = found.split_whitespace().next() {
                println!("{child}");
                thread::sleep(Duration::from_secs(600));
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn main() -> ExitCode {
    if let Some(code) = entry(TASKS) {
        return code;
    }
    if std::env::args().nth(1).as_deref() == Some("parent") {
        return if be_a_parent().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let tests: [Test; 4] = [
        ("bytes_go_in_and_come_out", bytes_go_in_and_come_out),
        ("what_goes_wrong_is_told_apart", what_goes_wrong_is_told_apart),
        ("it_ends_when_its_time_is_up_or_nobody_wants_it", it_ends_when_its_time_is_up_or_nobody_wants_it),
        ("it_ends_with_its_parent", it_ends_with_its_parent),
    ];
    for (name, test) in tests {
        if let Err(error) = test() {
            println!("test {name} ... FAILED: {error}");
            return ExitCode::FAILURE;
        }
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}
