//! The part that runs in the worker process.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::{env, fs, io};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::SUBCOMMAND;

/// The name of a task, and its function. The function gets the bytes of a request, and returns the bytes of the answer, or a
/// text that says what is wrong.
pub type Task = (&'static str, fn(&[u8]) -> Result<Vec<u8>, String>);

/// If this process was started as a worker, does the work and returns the exit code. Must be called first in `main`, so
/// that no other part of the program starts in a worker.
pub fn entry(tasks: &[Task]) -> Option<ExitCode> {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() != Some(SUBCOMMAND) {
        return None;
    }
    let result = serve(arguments, tasks);
    if let Err(text) = &result {
        eprintln!("{text}");
    }
    Some(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn serve(mut arguments: impl Iterator<Item = String>, tasks: &[Task]) -> Result<(), String> {
    let name = arguments.next().unwrap_or_default();
    let limits: Vec<u64> = arguments.map_while(|argument| argument.parse().ok()).collect();
    let (Some((_, work)), [memory, file, seconds]) = (tasks.iter().find(|(known, _)| *known == name), &limits[..])
    else {
        return Err("a worker is started by the controller, not by hand".to_owned());
    };
    limit_myself(*memory, *file, *seconds).map_err(|error| format!("the limits could not be set: {error}"))?;
    let request = request().map_err(|error| format!("the request could not be read: {error}"))?;
    std::thread::spawn(end_with_parent);
    let answer = work(&request)?;
    io::stdout().write_all(&answer).map_err(|error| format!("the answer could not be written: {error}"))
}

fn limit_myself(memory: u64, file: u64, seconds: u64) -> io::Result<()> {
    let limit = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    for (resource, most) in
        [(Resource::Core, 0), (Resource::Data, memory), (Resource::Fsize, file), (Resource::Cpu, seconds)]
    {
        setrlimit(resource, limit(most))?;
    }
    // If memory runs out, the kernel should end this process first. If `oom_score_adj` cannot be written, the memory
    // limit of the worker still holds.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// Reads the request. Its length comes first, in eight bytes.
fn request() -> io::Result<Vec<u8>> {
    let mut input = io::stdin().lock();
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let mut request = Vec::new();
    input.take(u64::from_be_bytes(length)).read_to_end(&mut request)?;
    Ok(request)
}

/// Ends this process when the parent ends. The parent keeps the pipe open and sends nothing more, so the end of the pipe
/// means that the parent ended.
fn end_with_parent() {
    let _ = io::stdin().lock().read(&mut [0]);
    std::process::exit(1);
}
