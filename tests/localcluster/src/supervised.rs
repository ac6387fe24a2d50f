//! Programs that end when the process that started them ends.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    error::{At, Error, Result},
    parts, tail_of,
};

/// Where a supervised program's output goes.
#[derive(Clone, Debug)]
pub enum Output {
    /// To the output of this process.
    Inherit,
    /// It is dropped.
    Null,
    /// Standard output and standard error, in order, to the end of this file.
    Log(PathBuf),
    /// To [`ChildGuard::take_stdout`] and [`ChildGuard::take_stderr`]. The caller must read both streams.
    Piped,
}

/// A signal for a supervised program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: asks the program to end.
    Terminate,
    /// SIGINT: what a Ctrl-C sends.
    Interrupt,
    /// SIGKILL: ends the program at once.
    Kill,
    /// SIGSTOP: pauses it.
    Stop,
    /// SIGCONT: continues it.
    Continue,
}

impl Signal {
    /// The byte with which `parts/supervise` is asked for this signal.
    fn request(self) -> u8 {
        match self {
            Self::Terminate => b't',
            Self::Interrupt => b'i',
            Self::Kill => b'k',
            Self::Stop => b's',
            Self::Continue => b'c',
        }
    }
}

/// A running program. It ends when its guard is dropped, and also when this process ends in any way.
///
/// The program is the child of a small supervisor (`parts/supervise`), which reads a pipe from this process. When this
/// process ends, even by SIGKILL, the kernel closes the pipe. Then the supervisor kills the program and everything in its
/// process group. (A parent-death signal would need `unsafe` code here, and it is also sent when only a thread ends.)
#[derive(Debug)]
pub struct ChildGuard {
    program: String,
    supervisor: Child,
    requests: Option<ChildStdin>,
    pid: u32,
    log: Option<PathBuf>,
}

/// Starts a program that ends when this process ends.
///
/// The program, its arguments, its working directory and its changes to the environment are taken from `command`.
///
/// # Caveats
/// The command's own `stdin`, `stdout`, `stderr` and `env_clear` are ignored. The program's standard input is empty, and
/// `output` says where its output goes. A relative path of the program is looked up from the command's working
/// directory.
pub fn spawn_supervised(command: &Command, output: Output) -> Result<ChildGuard> {
    let supervise = parts::supervise()?;
    let program = Path::new(command.get_program());
    // The file is in a new directory, so that nobody else can have created it.
    let handover = tempfile::tempdir().at("cannot create a directory in", std::env::temp_dir())?;
    let pid_file = handover.path().join("pid");

    let mut supervisor = Command::new(&supervise);
    supervisor.arg(&pid_file).arg(program).args(command.get_args()).stdin(Stdio::piped());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => supervisor.env(name, value),
            None => supervisor.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        supervisor.current_dir(folder);
    }
    let log = direct(&mut supervisor, output)?;

    let mut supervisor = supervisor.spawn().at("cannot run", supervise)?;
    let requests = supervisor.stdin.take();
    let mut guard = ChildGuard {
        program: program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned(),
        supervisor,
        requests,
        pid: 0,
        log,
    };
    guard.pid = guard.await_pid(&pid_file)?;
    Ok(guard)
}

fn direct(supervisor: &mut Command, output: Output) -> Result<Option<PathBuf>> {
    match output {
        Output::Inherit => {}
        Output::Null => {
            supervisor.stdout(Stdio::null()).stderr(Stdio::null());
        }
        Output::Piped => {
            supervisor.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        Output::Log(path) => {
            let file = std::fs::File::options().create(true).append(true).open(&path).at("cannot write", &path)?;
            supervisor.stdout(file.try_clone().at("cannot write", &path)?).stderr(file);
            return Ok(Some(path));
        }
    }
    Ok(None)
}

impl ChildGuard {
    /// The process id of the program, not of its supervisor.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The file with the program's output, if it was started with [`Output::Log`].
    pub fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    /// The program's standard output, if it was started with [`Output::Piped`]. It can be taken only once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.supervisor.stdout.take()
    }

    /// The program's standard error, if it was started with [`Output::Piped`]. It can be taken only once.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.supervisor.stderr.take()
    }

    /// Sends a signal to the program only, not to its process group. It is no error if the program has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match self.requests.as_ref().map(|mut requests| requests.write_all(&[signal.request()])) {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(error).at("cannot reach the supervisor of", &self.program)
            }
            _ => Ok(()),
        }
    }

    /// The exit code, or 128 + the signal that ended the program. `None` while the program runs.
    pub fn try_wait(&mut self) -> Result<Option<i32>> {
        let status = self.supervisor.try_wait().at("cannot wait for", &self.program)?;
        Ok(status.map(|status| status.code().unwrap_or(137)))
    }

    /// Waits for the program to end. Returns its exit code, or `None` if it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<i32>> {
        let until = Instant::now() + limit;
        loop {
            match self.try_wait()? {
                None if Instant::now() < until => sleep(Duration::from_millis(5)),
                state => return Ok(state),
            }
        }
    }

    /// Asks the program to end, and kills it if it has not ended within `limit`. Returns its exit code.
    pub fn terminate(mut self, limit: Duration) -> Result<i32> {
        self.signal(Signal::Terminate)?;
        match self.wait(limit)? {
            Some(code) => Ok(code),
            None => self.kill(),
        }
    }

    /// Kills the program with SIGKILL, and waits until it has ended. Returns its exit code, which is usually 137.
    pub fn kill(mut self) -> Result<i32> {
        self.signal(Signal::Kill)?;
        let status = self.supervisor.wait().at("cannot wait for", &self.program)?;
        Ok(status.code().unwrap_or(137))
    }

    /// Returns an error if the program has ended, and `None` while it runs.
    pub(crate) fn failure(&mut self) -> Result<Option<Error>> {
        Ok(self.try_wait()?.map(|code| {
            let log = self.log.clone().unwrap_or_default();
            Error::Exited { program: self.program.clone(), code, tail: tail_of(&log), log }
        }))
    }

    /// Waits for the file with the program's process id, which the supervisor writes first.
    fn await_pid(&mut self, file: &Path) -> Result<u32> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(pid) = std::fs::read_to_string(file).ok().and_then(|text| text.parse().ok()) {
                return Ok(pid);
            }
            if let Some(failure) = self.failure()? {
                return Err(failure);
            }
            if Instant::now() > until {
                return Err(std::io::Error::from(std::io::ErrorKind::TimedOut))
                    .at("cannot learn the process id of", &self.program);
            }
            sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // Closing the pipe asks the supervisor to end the program.
        drop(self.requests.take());
        let _ = self.supervisor.wait();
    }
}

#[cfg(test)]
mod tests;
