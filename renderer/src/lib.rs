//! Kustomize, as its own library renders it: bytes in, bytes out.
//!
//! What is rendered was written by strangers, so that is done in a process of its own, `gitseal-renderer` (`go/`). It has no
//! key, no network, no file and no API, and only so much memory and time. It asks for every file that it reads, and this
//! side answers: so it is known exactly what a render depends on, whatever the process says.
//!
//! # Flow
//! [`Renderer::kustomize`] takes a process (one that is idle, or a new one), sends the request, answers what is asked out
//! of a [`Repository`], and returns the objects. A process that fails in any way is killed, and the next render gets
//! another one.
//!
//! # Caveats
//! Linux only. Rendering blocks. Limits are per render: how many render at the same time is the caller's business.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod frame;
mod origin;
mod process;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use worker::Cancel;

pub use self::origin::located;
use self::{
    frame::{FrameError, Kind},
    process::Process,
};

/// The program, beside those that start it.
pub const PROGRAM: &str = "gitseal-renderer";

/// The files of a repository at one revision. Paths are relative to its root, with `/`; the root itself is the empty path.
pub trait Repository {
    /// Why a file cannot be read.
    type Error;

    /// What there is at `path`. Symbolic links are followed, and never out of the repository.
    ///
    /// # Errors
    /// It is there and cannot be read, or must not be.
    fn at(&self, path: &str) -> Result<At, Self::Error>;
}

/// What there is at a path.
#[derive(Debug)]
pub enum At {
    /// A file, and what is in it.
    File(Vec<u8>),
    /// A directory, and the names in it.
    Directory(Vec<String>),
    /// Nothing.
    Nothing,
}

/// What one render may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of memory of the process.
    pub memory: u64,
    /// How long it may take.
    pub time: Duration,
    /// Bytes of all the files that it reads.
    pub files: u64,
    /// How many paths it may ask for.
    pub asks: usize,
    /// Bytes of its answer.
    pub answer: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 512 << 20, time: Duration::from_secs(60), files: 64 << 20, asks: 50_000, answer: 48 << 20 }
    }
}

/// One object that was rendered.
#[derive(Clone, Deserialize, Eq, PartialEq)]
pub struct Object {
    /// The file of the repository that the object, or what generated it, stands in; empty if that is not known.
    #[serde(default)]
    pub origin: String,
    /// Whether a generator made it.
    #[serde(default)]
    pub generated: bool,
    /// One YAML document.
    pub yaml: String,
}

/// Without what it says: it may hold a Secret that should not be there.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Why nothing was rendered.
#[derive(Debug, thiserror::Error)]
pub enum RendererError {
    /// There was no process.
    #[error("{} could not be started ({error}): it belongs beside the program that needs it", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It was killed when its time was up.
    #[error("rendering took longer than {} s", .0.as_secs())]
    TimedOut(Duration),
    /// It was killed because nobody wanted it any more.
    #[error("rendering was cancelled")]
    Cancelled,
    /// It needed more than it may have, in bytes.
    #[error("rendering needs more than {} MiB of memory", .0 >> 20)]
    Memory(u64),
    /// It read more than it may, in bytes.
    #[error("the files that are read have more than {} MiB together", .0 >> 20)]
    Files(u64),
    /// It asked for more paths than it may.
    #[error("more than {0} files and folders are read")]
    Asks(usize),
    /// It ended by itself.
    #[error("the process that renders ended {0}")]
    Died(String),
    /// It sent what is no frame, or not the one that was due.
    #[error("the process that renders sent what was not understood: {0}")]
    Protocol(String),
    /// The library says why not: what is wrong, and where, if that is known.
    #[error("{0}")]
    Failed(String),
}

impl RendererError {
    /// Whether the same files would end the same way again.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Memory(_) | Self::Files(_) | Self::Asks(_) | Self::Failed(_) => true,
            Self::Start { .. } | Self::TimedOut(_) | Self::Cancelled | Self::Died(_) | Self::Protocol(_) => false,
        }
    }
}

/// Why nothing was rendered: the renderer, or the repository.
#[derive(Debug)]
pub enum Unrendered<E> {
    /// The renderer says why.
    Renderer(RendererError),
    /// A file could not be read.
    Repository(E),
}

impl<E> From<RendererError> for Unrendered<E> {
    fn from(error: RendererError) -> Self {
        Self::Renderer(error)
    }
}

/// Renders in processes of their own, which it keeps for the next render.
pub struct Renderer {
    program: PathBuf,
    limits: Limits,
    idle: Mutex<Vec<Process>>,
}

/// How many processes wait for a next render. Each takes some 20 MiB.
const IDLE: usize = 2;

#[derive(Serialize)]
struct Request<'a> {
    kustomize: Kustomization<'a>,
}

#[derive(Serialize)]
struct Kustomization<'a> {
    path: &'a str,
}

#[derive(Deserialize)]
struct Rendered {
    objects: Option<Vec<Object>>,
}

#[derive(Deserialize)]
struct Failure {
    message: String,
}

impl Renderer {
    /// With the program at `program`.
    pub fn new(program: &Path, limits: Limits) -> Self {
        Self { program: program.to_owned(), limits, idle: Mutex::default() }
    }

    /// With the program beside the one that runs.
    ///
    /// # Errors
    /// The system does not say where that is.
    pub fn beside_this_program(limits: Limits) -> io::Result<Self> {
        Ok(Self::new(&std::env::current_exe()?.with_file_name(PROGRAM), limits))
    }

    /// What `kustomize build` makes of the folder `path` of a repository. Files of the whole repository can be read, as with
    /// `--load-restrictor LoadRestrictionsNone`, and nothing else.
    ///
    /// # Errors
    /// See [`RendererError`]; or a file that cannot be read.
    pub fn kustomize<R: Repository>(
        &self,
        path: &str,
        repository: &R,
        cancel: &Cancel,
    ) -> Result<Vec<Object>, Unrendered<R::Error>> {
        // Not in the condition itself, where the lock would be held while it renders.
        let idle = self.idle().pop();
        if let Some(idle) = idle {
            match self.render(idle, path, repository, cancel) {
                // It may have ended while nobody used it, which is no failure of this render.
                Err(Unrendered::Renderer(RendererError::Died(_))) => {}
                end => return end,
            }
        }
        self.render(Process::start(&self.program, self.limits.memory)?, path, repository, cancel)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Process>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn render<R: Repository>(
        &self,
        mut process: Process,
        path: &str,
        repository: &R,
        cancel: &Cancel,
    ) -> Result<Vec<Object>, Unrendered<R::Error>> {
        let deadline = process.deadline(self.limits.time);
        let on_cancel = cancel.on_cancel(process.killer());
        let request = Request { kustomize: Kustomization { path } };
        let end = self.converse(&mut process, &request, repository);
        drop(on_cancel);
        let is_late = deadline.end();
        match end {
            _ if cancel.is_cancelled() => Err(RendererError::Cancelled.into()),
            Err(Broken::Pipe(_)) if is_late => Err(RendererError::TimedOut(self.limits.time).into()),
            Err(Broken::Pipe(error)) => Err(process.cause(&error).into()),
            Err(Broken::Limit(error)) => Err(error.into()),
            Err(Broken::Repository(error)) => Err(Unrendered::Repository(error)),
            Ok(result) => {
                let mut idle = self.idle();
                if idle.len() < IDLE && !is_late {
                    idle.push(process);
                }
                Ok(result?)
            }
        }
    }

    /// Sends the request, answers what is asked, and returns how it ended.
    fn converse<R: Repository>(
        &self,
        process: &mut Process,
        request: &Request<'_>,
        repository: &R,
    ) -> Result<Result<Vec<Object>, RendererError>, Broken<R::Error>> {
        let send = |process: &mut Process, kind, body: &[u8]| frame::write(&mut process.input, kind, body);
        send(process, Kind::Render, &json(request))?;
        let (mut asks, mut bytes) = (0, 0);
        loop {
            let (kind, body) = frame::read(&mut process.output, self.limits.answer)?
                .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            let not_understood = |error: serde_json::Error| Broken::Limit(RendererError::Protocol(error.to_string()));
            match kind {
                Kind::Ask => {
                    asks += 1;
                    if asks > self.limits.asks {
                        return Err(Broken::Limit(RendererError::Asks(self.limits.asks)));
                    }
                    let path = String::from_utf8(body)
                        .ok()
                        .filter(|path| is_inside(path))
                        .ok_or_else(|| Broken::Limit(RendererError::Protocol("a path that is none".to_owned())))?;
                    match repository.at(&path).map_err(Broken::Repository)? {
                        At::File(file) => {
                            bytes += file.len() as u64;
                            if bytes > self.limits.files {
                                return Err(Broken::Limit(RendererError::Files(self.limits.files)));
                            }
                            send(process, Kind::File, &file)?;
                        }
                        At::Directory(names) => send(process, Kind::Directory, &json(&names))?,
                        At::Nothing => send(process, Kind::Absent, &[])?,
                    }
                }
                Kind::Result => {
                    let rendered: Rendered = serde_json::from_slice(&body).map_err(not_understood)?;
                    return Ok(Ok(rendered.objects.unwrap_or_default()));
                }
                Kind::Error => {
                    let Failure { message } = serde_json::from_slice(&body).map_err(not_understood)?;
                    return Ok(Err(RendererError::Failed(message)));
                }
                Kind::Render | Kind::Directory | Kind::File | Kind::Absent => {
                    return Err(Broken::Limit(RendererError::Protocol("a frame that only this side sends".to_owned())));
                }
            }
        }
    }
}

/// Why a conversation cannot go on.
enum Broken<E> {
    /// The process ended, or sent what is no frame.
    Pipe(FrameError),
    /// It went too far.
    Limit(RendererError),
    /// A file could not be read.
    Repository(E),
}

impl<E> From<FrameError> for Broken<E> {
    fn from(error: FrameError) -> Self {
        Self::Pipe(error)
    }
}

impl<E> From<io::Error> for Broken<E> {
    fn from(error: io::Error) -> Self {
        Self::Pipe(error.into())
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings can be written as JSON")
}

/// Whether a path is clean and stays inside: no empty, `.` or `..` part.
fn is_inside(path: &str) -> bool {
    path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
