//! Renders with the libraries of Kustomize and Helm, in a separate process.
//!
//! Kustomizations come from people who are not trusted. So they are rendered in a separate process, `gitseal-renderer`
//! (`go/`). That process has no keys, and no access to the network, the file system or the API server. Its memory and time
//! are limited. It requests every file that it reads, and this crate answers. So the caller knows exactly which files a
//! render depends on, even if the process misbehaves. A result that cannot come from these files is refused.
//!
//! # Flow
//! [`Renderer::kustomize`] and [`Renderer::helm`] take an idle process or start a new one, send the request, answer each
//! request for a file from a [`Repository`], and return the objects. A process that fails in any way is killed, and the
//! next render gets another one.
//!
//! # Caveats
//! Linux only. Rendering blocks the thread. The limits are for one render; the caller decides how many run at the same time.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod generated;
mod helm;
mod list;
mod lookup;
mod manifests;
mod overlay;
mod places;
mod process;
mod sealed;
mod substitute;
mod sync;
mod wrapped;

use std::{
    collections::HashSet,
    fmt,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use worker::Cancel;

use self::{
    check::{Answer, Got},
    frame::{FrameError, Kind},
    overlay::OverlayRequest,
    process::Process,
};
pub use self::{
    helm::{Chart, ChartObject, Hook, Lookup, Release, ReleaseValues, RenderedChart, Values},
    lookup::{MOST_LOOKED_UP, looked_up},
    manifests::{Built, BuiltRelease},
    overlay::{Changes, Names},
    sealed::SealedValues,
    substitute::{SUBSTITUTE, variables_in},
    sync::{Applied, Capabilities, IS_CHART, Input, Inputs, ServedKinds, release_of},
    wrapped::{ClusterSecret, Sealer, WrappedValue, wrapped_values},
};

/// The name of the renderer's program. It is in the same folder as the programs that start it.
pub const PROGRAM: &str = "gitseal-renderer";

/// The reason of the condition if the renderer's program is missing. Nothing in a repository can cause this.
pub const MISSING: &str = "RendererMissing";

/// The reason of the condition if a chart may give other objects although nothing has changed that it may depend on.
pub const NOT_REPRODUCIBLE: &str = "NotReproducible";

/// The release of Kustomize whose libraries render. Another release may make other objects of the same files.
pub const KUSTOMIZE: &str = env!("KUSTOMIZE");

/// The release of Helm whose libraries render.
pub const HELM: &str = env!("HELM");

/// The build of [`PROGRAM`] that belongs to this crate: another build may make other objects of the same files.
/// Empty if the program was not built.
pub const WORKER: &str = env!("WORKER");

/// The path of [`PROGRAM`] in the folder of the running program; only the name, if the system does not tell this
/// folder.
pub fn program() -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(PROGRAM)
}

/// The files of a repository at one revision. Paths are relative to its root, with `/`; the root itself is the empty path.
pub trait Repository {
    /// The error if a file cannot be read.
    type Error;

    /// The file or directory at `path`. Symbolic links are followed only inside the repository.
    ///
    /// # Errors
    /// The file or directory exists, but it cannot be read, or the renderer may not read it.
    fn at(&self, path: &str) -> Result<At, Self::Error>;

    /// The same in a remote repository that was [found](RemoteFolder::Found), with this `root`.
    ///
    /// # Errors
    /// As of [`at`](Self::at).
    fn at_remote(&self, root: &str, path: &str) -> Result<At, Self::Error> {
        let _ = (root, path);
        Ok(At::Nothing)
    }

    /// The remote base that an entry of a kustomization names, for example `https://host/team/app//base?ref=v1`.
    ///
    /// # Errors
    /// There is no memory for it.
    fn remote_base(&self, entry: &str) -> Result<RemoteFolder, Self::Error> {
        let hides_password = |before: &str| before.rsplit_once("://").map_or(before, |(_, user)| user).contains(':');
        let shown = match entry.rsplit_once('@') {
            Some((before, rest)) if hides_password(before) => rest,
            _ => entry,
        };
        Ok(RemoteFolder::Refused(format!(
            "'{shown}' is remote, and it is not fetched here: add it to the repository, or let only the controller render \
             this, which fetches what spec.remotes of the Repository allows"
        )))
    }

    /// The chart that a chart depends on and that is not in its `charts/`.
    ///
    /// # Errors
    /// There is no memory for it.
    fn remote_chart(&self, chart: &RemoteChart) -> Result<RemoteFolder, Self::Error> {
        let _ = chart;
        Ok(RemoteFolder::Refused(
            "it is missing in charts/, and it is not fetched here: run `helm dependency build` and commit charts/, or let only \
             the controller render this, which fetches what spec.remotes of the Repository allows"
                .to_owned(),
        ))
    }

    /// Called with the size of the result in bytes, before the process sends it.
    ///
    /// # Errors
    /// There is no memory for the result.
    fn expect(&self, bytes: u64) -> Result<(), Self::Error> {
        let _ = bytes;
        Ok(())
    }
}

/// A chart of a chart repository or registry, as a `Chart.lock` names it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct RemoteChart {
    /// The URL of the chart repository, or of the folder of the registry.
    pub repository: String,
    /// The name of the chart.
    pub name: String,
    /// The version.
    pub version: String,
}

/// A folder of another repository that a kustomization names by a URL, or the folder of a chart.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub enum RemoteFolder {
    /// It cannot be read. The text says why.
    #[serde(rename = "refusal")]
    Refused(String),
    /// It can be read.
    #[serde(untagged)]
    Found {
        /// What names the other repository at one revision. The paths of its files are this text, `//`, and the path in that
        /// repository; [`Repository::at`] is asked for them.
        root: String,
        /// The folder in that repository.
        folder: String,
        /// The URL of that repository.
        url: String,
        /// The tag or commit.
        #[serde(rename = "ref")]
        reference: String,
    },
}

/// The file or directory at a path, if there is one.
#[derive(Debug)]
pub enum At {
    /// A file, with its content.
    File(Vec<u8>),
    /// A directory, with the names in it.
    Directory(Vec<String>),
    /// There is nothing at the path.
    Nothing,
}

/// The limits of one render.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// How many bytes of memory the process may use.
    pub memory: u64,
    /// How long the render may take.
    pub time: Duration,
    /// How many bytes all the files that the render reads may have together.
    pub files: u64,
    /// How many files and directories the process may request.
    pub asks: usize,
    /// How many bytes the answer of the process may have.
    pub answer: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 512 << 20, time: Duration::from_secs(60), files: 64 << 20, asks: 50_000, answer: 48 << 20 }
    }
}

/// One object that was rendered.
#[derive(Clone, Default, Deserialize, Eq, PartialEq)]
pub struct Object {
    /// The file of the repository that contains the object or its generator; empty if that is not known.
    #[serde(default)]
    pub origin: String,
    /// Whether a generator made the object, so that no file contains it.
    #[serde(default)]
    pub generated: bool,
    /// If the object was part of the request: its index there.
    #[serde(default)]
    pub index: Option<usize>,
    /// The object as one YAML document.
    pub yaml: String,
}

/// Leaves out the YAML, because it may hold a plaintext Secret.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Why nothing was rendered.
#[derive(Debug, thiserror::Error)]
pub enum RendererError {
    /// The process could not be started.
    #[error(
        "{} could not be started ({error}): it must be in the same folder as the program that starts it (gitseal or \
         gitseal-controller)", program.display()
    )]
    Start {
        /// The program.
        program: PathBuf,
        /// Why the program could not be started.
        error: io::Error,
    },
    /// The process took longer than this, and was killed.
    #[error("rendering took longer than {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The process was killed because the render was cancelled.
    #[error("rendering was cancelled")]
    Cancelled,
    /// The process needed more memory than this number of bytes.
    #[error("rendering needs more than {} MiB of memory", .0 >> 20)]
    Memory(u64),
    /// Something is nested too deep, for example templates that include each other without end.
    #[error("something is nested too deep, for example templates that include each other without end")]
    Depth,
    /// The files that the process read have more than this number of bytes.
    #[error("the files that are read for the render have more than {} MiB together", .0 >> 20)]
    Files(u64),
    /// The process requested more than this number of files and directories.
    #[error("the render reads more than {0} files and folders")]
    Asks(usize),
    /// The process ended before it answered.
    #[error("the process of gitseal-renderer ended {0}")]
    Died(String),
    /// The process sent something that is not a valid frame, or a frame that was not expected.
    #[error("gitseal-renderer sent a message that was not understood: {0}")]
    Protocol(String),
    /// The process sent a result that cannot be true. The text says why, as the end of a sentence about the process.
    #[error("gitseal-renderer gave a result that cannot be right, so it is not used: {0}")]
    Lied(String),
    /// Kustomize or Helm could not render the folder. The text says what is wrong, and if possible where.
    #[error("{0}")]
    Failed(String),
    /// A template looks up what it may not look up. The text says what, where, and what to do.
    #[error("{0}")]
    NotReproducible(String),
}

impl RendererError {
    /// The CamelCase reason for a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Failed(_) => "BuildFailed",
            Self::NotReproducible(_) => NOT_REPRODUCIBLE,
            Self::Memory(_) | Self::Depth | Self::Files(_) | Self::Asks(_) => "TooLarge",
            Self::TimedOut(_) => "RenderTimedOut",
            Self::Cancelled => "RenderInterrupted",
            Self::Start { .. } => MISSING,
            Self::Died(_) | Self::Protocol(_) | Self::Lied(_) => "RendererFailed",
        }
    }

    /// Whether the same files would fail in the same way again.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Memory(_)
            | Self::Depth
            | Self::Files(_)
            | Self::Asks(_)
            | Self::Failed(_)
            | Self::NotReproducible(_) => true,
            Self::Start { .. }
            | Self::TimedOut(_)
            | Self::Cancelled
            | Self::Died(_)
            | Self::Protocol(_)
            | Self::Lied(_) => false,
        }
    }
}

/// Why nothing was rendered: the renderer failed, or the repository could not be read.
#[derive(Debug)]
pub enum Unrendered<E> {
    /// The renderer failed.
    Renderer(RendererError),
    /// A file could not be read.
    Repository(E),
}

impl<E> From<RendererError> for Unrendered<E> {
    fn from(error: RendererError) -> Self {
        Self::Renderer(error)
    }
}

/// Renders in separate processes. Idle processes are kept for later renders.
pub struct Renderer {
    program: PathBuf,
    limits: Limits,
    idle: Mutex<Vec<Process>>,
}

/// The longest path that is looked up, in bytes. A longer path counts as a path where nothing is.
const PATH_BYTES: usize = 4096;

/// What is between the name of a remote repository and the path of a file in it.
const OF_REMOTE: &str = "//";

/// The longest message about a failure that is read, in bytes.
const FAILURE_BYTES: u32 = 64 << 10;

/// How many idle processes are kept. Each takes about 50 MiB, of which they share 40 MiB.
const IDLE: usize = 2;

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Request<'a> {
    Kustomize(Kustomization<'a>),
    Helm(&'a Chart),
}

#[derive(Serialize)]
struct Kustomization<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    overlay: Option<OverlayRequest<'a>>,
}

#[derive(Deserialize)]
struct RenderedKustomization {
    #[serde(deserialize_with = "list::list::<_, _, { list::OBJECTS }>")]
    objects: Vec<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    message: String,
    #[serde(default)]
    not_reproducible: bool,
}

impl Renderer {
    /// A renderer that starts the program at the path `program`.
    pub fn new(program: &Path, limits: Limits) -> Self {
        Self { program: program.to_owned(), limits, idle: Mutex::default() }
    }

    /// Renders the folder `path` of a repository as `kustomize build` does. Kustomize may read files from anywhere in
    /// the repository, as with `--load-restrictor LoadRestrictionsNone`, and no other files.
    ///
    /// # Errors
    /// See [`RendererError`]; or a file cannot be read.
    pub fn kustomize<R: Repository>(
        &self,
        path: &str,
        repository: &R,
        cancel: &Cancel,
    ) -> Result<Vec<Object>, Unrendered<R::Error>> {
        let request = Request::Kustomize(Kustomization { path, overlay: None });
        let rendered: RenderedKustomization = self.render(&request, repository, cancel)?;
        Ok(rendered.objects)
    }

    /// Renders a chart of the repository, as `helm template` does.
    ///
    /// # Errors
    /// See [`RendererError`]; or a file cannot be read.
    pub fn helm<R: Repository>(
        &self,
        chart: &Chart,
        repository: &R,
        cancel: &Cancel,
    ) -> Result<RenderedChart, Unrendered<R::Error>> {
        self.render(&Request::Helm(chart), repository, cancel)
    }

    fn render<A: Answer, R: Repository>(
        &self,
        request: &Request<'_>,
        repository: &R,
        cancel: &Cancel,
    ) -> Result<A, Unrendered<R::Error>> {
        // This is a separate statement. Inside of `if let`, the lock would be held during the whole render.
        let idle = self.idle().pop();
        if let Some(idle) = idle {
            match self.render_in(idle, request, repository, cancel) {
                // The idle process may have ended earlier, an earlier render may have left too little memory, or its files,
                // which may be those of another tenant, may have made the process misbehave. Then this render starts a new
                // one.
                Err(Unrendered::Renderer(
                    RendererError::Died(_)
                    | RendererError::Memory(_)
                    | RendererError::Protocol(_)
                    | RendererError::Lied(_),
                )) => {}
                end => return end,
            }
        }
        self.render_in(Process::start(&self.program, self.limits.memory)?, request, repository, cancel)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Process>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn render_in<A: Answer, R: Repository>(
        &self,
        mut process: Process,
        request: &Request<'_>,
        repository: &R,
        cancel: &Cancel,
    ) -> Result<A, Unrendered<R::Error>> {
        let deadline = process.deadline(self.limits.time);
        let on_cancel = cancel.on_cancel(process.killer());
        let end = converse(&mut process.input, &mut process.output, request, repository, &self.limits);
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
                // What a process sent after its result would be taken for an answer to the next request.
                let has_sent_more = !process.output.buffer().is_empty();
                if idle.len() < IDLE && !is_late && !has_sent_more {
                    idle.push(process);
                }
                Ok(result?)
            }
        }
    }
}

/// Sends the request, answers each request for a file, checks the result, and returns it.
fn converse<A: Answer, R: Repository>(
    input: &mut impl Write,
    output: &mut impl Read,
    request: &Request<'_>,
    repository: &R,
    limits: &Limits,
) -> Result<Result<A, RendererError>, Broken<R::Error>> {
    frame::write(input, Kind::Render, &json(request))?;
    let (mut asks, mut bytes) = (0, 0);
    let (mut remote_roots, mut got) = (HashSet::new(), Got::default());
    loop {
        let (kind, length) =
            frame::head(output, limits.answer)?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        if kind == Kind::Result {
            repository.expect(length.into()).map_err(Broken::Repository)?;
        }
        if kind == Kind::Error && length > FAILURE_BYTES {
            return Err(Broken::Limit(RendererError::Protocol(format!("a failure of {length} bytes"))));
        }
        let body = frame::body(output, length)?;
        let not_understood = |error: serde_json::Error| Broken::Limit(RendererError::Protocol(error.to_string()));
        match kind {
            Kind::Ask | Kind::Remote | Kind::Chart => {
                asks += 1;
                if asks > limits.asks {
                    return Err(Broken::Limit(RendererError::Asks(limits.asks)));
                }
                let remote = match kind {
                    _ if kind != Kind::Ask && body.len() > PATH_BYTES => {
                        Some(RemoteFolder::Refused("the URL of something remote is too long".to_owned()))
                    }
                    Kind::Remote => {
                        let entry = String::from_utf8_lossy(&body);
                        Some(repository.remote_base(&entry).map_err(Broken::Repository)?)
                    }
                    Kind::Chart => {
                        let chart = serde_json::from_slice(&body).map_err(not_understood)?;
                        Some(repository.remote_chart(&chart).map_err(Broken::Repository)?)
                    }
                    _ => None,
                };
                if let Some(remote) = remote {
                    if let RemoteFolder::Found { root, .. } = &remote {
                        remote_roots.insert(root.clone());
                    }
                    frame::write(input, Kind::File, &json(&remote))?;
                    continue;
                }
                let path = String::from_utf8(body)
                    .ok()
                    .filter(|path| match path.rsplit_once(OF_REMOTE) {
                        Some((root, path)) => remote_roots.contains(root) && is_inside(path),
                        None => is_inside(path),
                    })
                    .ok_or_else(|| Broken::Limit(RendererError::Protocol("an invalid path".to_owned())))?;
                // A longer path is not passed on, because the repository may remember every path that was
                // requested.
                let found = match path.rsplit_once(OF_REMOTE) {
                    _ if path.len() > PATH_BYTES => Ok(At::Nothing),
                    Some((root, path)) => repository.at_remote(root, path),
                    None => repository.at(&path),
                };
                match found.map_err(Broken::Repository)? {
                    At::File(file) => {
                        bytes += file.len() as u64;
                        if bytes > limits.files {
                            return Err(Broken::Limit(RendererError::Files(limits.files)));
                        }
                        frame::write(input, Kind::File, &file)?;
                        got.add(path);
                    }
                    At::Directory(names) => frame::write(input, Kind::Directory, &json(&names))?,
                    At::Nothing => frame::write(input, Kind::Absent, &[])?,
                }
            }
            Kind::Result => {
                let result = serde_json::from_slice(&body).map_err(not_understood)?;
                check::check(request, &got, &result).map_err(|why| Broken::Limit(RendererError::Lied(why)))?;
                return Ok(Ok(result));
            }
            Kind::Error => {
                let Failure { message, not_reproducible } = serde_json::from_slice(&body).map_err(not_understood)?;
                return Ok(Err(if not_reproducible {
                    RendererError::NotReproducible(message)
                } else {
                    RendererError::Failed(message)
                }));
            }
            Kind::Render | Kind::Directory | Kind::File | Kind::Absent => {
                return Err(Broken::Limit(RendererError::Protocol("a frame that the worker must not send".to_owned())));
            }
        }
    }
}

/// Why the exchange with a process ended without a result.
enum Broken<E> {
    /// The process ended, or sent something that is not a valid frame.
    Pipe(FrameError),
    /// The process exceeded a limit, broke the protocol or lied.
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

/// Whether a path stays inside the repository: no part of it is empty, `.` or `..`.
fn is_inside(path: &str) -> bool {
    path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
