//! The part that runs in the parent process.

use std::io::{self, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::{Cancel, SUBCOMMAND};

/// How often the parent checks whether the work was cancelled.
const LOOK: Duration = Duration::from_millis(20);
/// How many bytes of a worker's error output are kept.
const WORDS: u64 = 4 << 10;
/// The signal after a write beyond the largest size of a file.
const SIGXFSZ: i32 = 25;
/// The signal when the processor time is used up.
const SIGXCPU: i32 = 24;

/// The limits of a worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// How many bytes of memory the worker may use for heap and stacks. Files that it maps are not counted.
    pub memory: u64,
    /// How many bytes a file that the worker writes may have.
    pub file: u64,
    /// How long the work may take. The worker may use at most twice this time as processor time.
    pub time: Duration,
    /// How many bytes the answer may have.
    pub answer: u64,
}

/// How to start a worker.
#[derive(Clone, Debug)]
pub struct Worker {
    program: PathBuf,
}

/// Why a worker gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The process could not be started.
    #[error("a process for it could not be started: {0}")]
    Start(io::Error),
    /// The worker took too long and was killed.
    #[error("it took longer than {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The worker was no longer needed and was killed.
    #[error("it was cancelled")]
    Cancelled,
    /// The worker needed more memory than this number of bytes.
    #[error("it needs more than {} MiB of memory", .0 >> 20)]
    Memory(u64),
    /// A file that the worker wrote, or its answer, became larger than this number of bytes.
    #[error("what it writes is larger than {} MiB", .0 >> 20)]
    Size(u64),
    /// The worker ended in another way: the system killed it, or it has a bug.
    #[error("its process ended with {0}")]
    Died(String),
    /// The task returned this error.
    #[error("{0}")]
    Failed(String),
}

impl Default for Worker {
    /// Starts this program as the worker, even if the program's file was replaced in the meantime.
    fn default() -> Self {
        Self { program: PathBuf::from("/proc/self/exe") }
    }
}

impl Worker {
    /// Starts another program as the worker. Its `main` must call [`entry`](crate::entry).
    pub fn of(program: PathBuf) -> Self {
        Self { program }
    }

    /// Runs `task` in a separate process, and waits for the answer.
    pub fn run(&self, task: &str, request: &[u8], limits: &Limits, cancel: &Cancel) -> Result<Vec<u8>, WorkerError> {
        let deadline = Instant::now() + limits.time;
        let processor_time = 2 * limits.time.as_secs() + 1;
        let child = Command::new(&self.program)
            .args([SUBCOMMAND, task])
            .args([limits.memory, limits.file, processor_time].map(|limit| limit.to_string()))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(WorkerError::Start)?;
        let mut running = Running(child);
        let (answer, words) = running.listen(limits.answer);
        // The input is kept open until the answer has arrived, because the worker ends when its input is closed.
        let _input = running.send(request);
        let answer = loop {
            if cancel.is_cancelled() {
                return Err(WorkerError::Cancelled);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match answer.recv_timeout(left.min(LOOK)) {
                Ok(answer) => break answer,
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Err(WorkerError::TimedOut(limits.time)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break Vec::new(),
            }
        };
        if answer.len() as u64 > limits.answer {
            return Err(WorkerError::Size(limits.answer));
        }
        let status = running.ended(deadline).ok_or(WorkerError::TimedOut(limits.time))?;
        let words = words.recv().unwrap_or_default();
        judge(status, answer, &String::from_utf8_lossy(&words), limits)
    }
}

fn judge(status: ExitStatus, answer: Vec<u8>, words: &str, limits: &Limits) -> Result<Vec<u8>, WorkerError> {
    if status.success() {
        return Ok(answer);
    }
    // A Rust program writes this message when it gets no more memory.
    if words.contains("memory allocation of") {
        return Err(WorkerError::Memory(limits.memory));
    }
    match (status.code(), status.signal()) {
        (Some(_), _) if !words.contains("panicked") && !words.trim().is_empty() => {
            Err(WorkerError::Failed(words.trim().to_owned()))
        }
        (_, Some(SIGXFSZ)) => Err(WorkerError::Size(limits.file)),
        (_, Some(SIGXCPU)) => Err(WorkerError::TimedOut(limits.time)),
        _ => Err(WorkerError::Died(status.to_string())),
    }
}

/// A running worker. When this is dropped, the process is killed and waited for.
struct Running(Child);

impl Running {
    /// Sends the request. If the worker has ended without reading all of it, this is ignored.
    fn send(&mut self, request: &[u8]) -> mpsc::Sender<()> {
        let (open, closed) = mpsc::channel();
        let input = self.0.stdin.take();
        let request = [&(request.len() as u64).to_be_bytes(), request].concat();
        // The request is written in a separate thread, so that a worker that reads nothing cannot block the thread that
        // watches its time.
        std::thread::spawn(move || {
            if let Some(mut input) = input {
                let _ = input.write_all(&request);
                let _ = closed.recv();
            }
        });
        open
    }

    /// How the worker ended, or `None` if it has not ended by the deadline.
    fn ended(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                _ => return None,
            }
        }
    }

    /// Reads the worker's standard output and standard error. Each of the two outputs arrives on its channel when it is
    /// complete.
    fn listen(&mut self, answer: u64) -> (mpsc::Receiver<Vec<u8>>, mpsc::Receiver<Vec<u8>>) {
        (read_all(self.0.stdout.take(), answer + 1), read_all(self.0.stderr.take(), WORDS))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_all(from: Option<impl Read + Send + 'static>, most: u64) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(from) = from {
            let _ = from.take(most).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}
