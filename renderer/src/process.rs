//! One worker process.

use std::{
    io::{BufReader, BufWriter, Read as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::Duration,
};

use crate::{RendererError, frame};

/// How many bytes of a worker's error output are kept.
const WORDS: u64 = 4 << 10;
/// How much processor time a worker may use in its whole life. This is enough for thousands of renders. It is a second
/// safeguard besides the time limit of each render.
const PROCESSOR_SECONDS: u64 = 3600;

/// A worker process that waits for a request or works on one. The worker is killed when this value is dropped.
pub(crate) struct Process {
    child: Shared,
    pub(crate) input: BufWriter<ChildStdin>,
    pub(crate) output: BufReader<ChildStdout>,
    words: mpsc::Receiver<String>,
    memory: u64,
}

/// A child process that another thread can kill.
#[derive(Clone)]
struct Shared(Arc<Mutex<Child>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) {
        let _ = self.lock().kill();
    }
}

impl Process {
    /// Starts a worker that may use `memory` bytes.
    pub(crate) fn start(program: &Path, memory: u64) -> Result<Self, RendererError> {
        let started = Command::new(program)
            .arg(format!("-memory={memory}"))
            .arg(format!("-processor-seconds={PROCESSOR_SECONDS}"))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = started.map_err(|error| RendererError::Start { program: program.to_owned(), error })?;
        let (Some(input), Some(output), Some(error)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three are piped")
        };
        let (sender, words) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut first = error.take(WORDS);
            let _ = first.read_to_end(&mut bytes);
            // The rest of its error output is read and dropped. Otherwise the worker would block when the pipe is full.
            let _ = std::io::copy(&mut first.into_inner(), &mut std::io::sink());
            let _ = sender.send(String::from_utf8_lossy(&bytes).trim().to_owned());
        });
        let child = Shared(Arc::new(Mutex::new(child)));
        Ok(Self { child, input: BufWriter::new(input), output: BufReader::new(output), words, memory })
    }

    /// Kills the worker after `time`, unless the returned deadline is ended or dropped before.
    pub(crate) fn deadline(&self, time: Duration) -> Deadline {
        let (done, is_done) = mpsc::channel::<()>();
        let child = self.child.clone();
        let watch = std::thread::spawn(move || {
            let is_late = is_done.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout);
            if is_late {
                child.kill();
            }
            is_late
        });
        Deadline { done: Some(done), watch: Some(watch) }
    }

    /// A function that kills the worker.
    pub(crate) fn killer(&self) -> impl FnOnce() + Send + 'static {
        let child = self.child.clone();
        move || child.kill()
    }

    /// Why the worker's pipe broke. The worker is killed if it has not ended.
    pub(crate) fn cause(self, broken: &frame::FrameError) -> RendererError {
        let Self { child, input, output, words, memory } = self;
        drop((input, output));
        // When a worker ends, its pipes close a moment before it can be waited for.
        let status = ended(&child, Duration::from_secs(1));
        child.kill();
        let words = words.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        match status {
            // Go's runtime prints these messages when it gets no more memory. SIGSEGV is one of them, because the
            // garbage collector may then read through a null pointer. In the worker's own code, a null pointer only
            // causes a panic, which the worker survives.
            _ if ["out of memory", "cannot allocate memory", "SIGSEGV"].iter().any(|told| words.contains(told)) => {
                RendererError::Memory(memory)
            }
            _ if words.contains("stack overflow") => RendererError::Depth,
            Some(status) if status.success() => RendererError::Died(format!("without an answer ({broken})")),
            Some(status) => RendererError::Died(match words.lines().next() {
                Some(line) if !line.is_empty() => format!("with {status}: {line}"),
                _ => format!("with {status}"),
            }),
            None => RendererError::Protocol(broken.to_string()),
        }
    }
}

fn ended(child: &Shared, within: Duration) -> Option<ExitStatus> {
    let until = std::time::Instant::now() + within;
    loop {
        match child.lock().try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if std::time::Instant::now() < until => {}
            _ => return None,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Only the last owner can get the child in this way. The thread of a deadline is no owner any more, because it
        // was joined before.
        if let Some(child) = Arc::get_mut(&mut self.0) {
            let child = child.get_mut().unwrap_or_else(PoisonError::into_inner);
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// See [`Process::deadline`].
pub(crate) struct Deadline {
    done: Option<mpsc::Sender<()>>,
    watch: Option<std::thread::JoinHandle<bool>>,
}

impl Deadline {
    /// Ends the deadline, and returns whether it had passed.
    pub(crate) fn end(mut self) -> bool {
        self.stop()
    }

    fn stop(&mut self) -> bool {
        drop(self.done.take());
        self.watch.take().is_some_and(|watch| watch.join().unwrap_or(false))
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.stop();
    }
}
