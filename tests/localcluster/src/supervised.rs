//! Programs that die with whoever started them.

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
    /// To where ours goes.
    Inherit,
    /// Nowhere.
    Null,
    /// Standard output and standard error, in order, to the end of this file.
    Log(PathBuf),
    /// To [`ChildGuard::take_stdout`] and [`ChildGuard::take_stderr`]; somebody has to read both.
    Piped,
}

/// What can be sent to a supervised program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: please end.
    Terminate,
    /// SIGINT: what a Ctrl-C sends.
    Interrupt,
    /// SIGKILL: end now.
    Kill,
    /// SIGSTOP: freeze.
    Stop,
    /// SIGCONT: go on.
    Continue,
}

impl Signal {
    /// What `parts/supervise` understands.
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

/// A running program which ends when this is dropped, and also when this process is killed in whatever way.
///
/// The program does not run as our child but as a small supervisor's, which holds the other end of a pipe from us. The
/// end of that pipe is the one thing that a SIGKILL of ours leaves behind reliably; the supervisor then kills the
/// program and everything in its process group. (A parent-death signal would need `unsafe` here, and follows threads.)
#[derive(Debug)]
pub struct ChildGuard {
    program: String,
    supervisor: Child,
    requests: Option<ChildStdin>,
    pid: u32,
    log: Option<PathBuf>,
}

/// Starts a program so that it dies with us.
///
/// The program, its arguments, its working directory and its changes to the environment are taken from `command`.
///
/// # Caveats
/// The command's own `stdin`, `stdout`, `stderr` and `env_clear` are not seen: the standard input is empty, and `output`
/// says where the rest goes. A relative program path counts from the command's working directory.
pub fn spawn_supervised(command: &Command, output: Output) -> Result<ChildGuard> {
    let supervise = parts::supervise()?;
    let program = Path::new(command.get_program());
    // A directory of its own, so that nobody else can have made the file.
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
    /// The program's process id (the program's own, not the supervisor's).
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The file that takes the output, when there is one.
    pub fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    /// The program's standard output, once, when it was started with [`Output::Piped`].
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.supervisor.stdout.take()
    }

    /// The program's standard error, once, when it was started with [`Output::Piped`].
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.supervisor.stderr.take()
    }

    /// Sends a signal to the program, and to nothing else. A program that has ended already is not an error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match self.requests.as_ref().map(|mut requests| requests.write_all(&[signal.request()])) {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(error).at("cannot reach the supervisor of", &self.program)
            }
            _ => Ok(()),
        }
    }

    /// The exit code (128 + the signal, when one ended it), or `None` while the program runs.
    pub fn try_wait(&mut self) -> Result<Option<i32>> {
        let status = self.supervisor.try_wait().at("cannot wait for", &self.program)?;
        Ok(status.map(|status| status.code().unwrap_or(137)))
    }

    /// Waits for the program to end: its exit code, or `None` when it still runs after `limit`.
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

    /// Kills the program at once (SIGKILL) and waits until it is gone. Returns its exit code, 137 as a rule.
    pub fn kill(mut self) -> Result<i32> {
        self.signal(Signal::Kill)?;
        let status = self.supervisor.wait().at("cannot wait for", &self.program)?;
        Ok(status.code().unwrap_or(137))
    }

    /// The error for a program which should run and does not; `None` while it runs.
    pub(crate) fn failure(&mut self) -> Result<Option<Error>> {
        Ok(self.try_wait()?.map(|code| {
            let log = self.log.clone().unwrap_or_default();
            Error::Exited { program: self.program.clone(), code, tail: tail_of(&log), log }
        }))
    }

    /// The supervisor writes the process id as its first act.
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
        // The end of the pipe is the request to end, here as after our own death.
        drop(self.requests.take());
        let _ = self.supervisor.wait();
    }
}

#[cfg(test)]
mod tests;
