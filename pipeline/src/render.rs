//! Tree → objects.

use std::cell::RefCell;

use manifests::{ErrorKind, Limits, Manifest, ParseError, Tree, TreeFile};

/// Objects as a folder holds them, secrets still sealed.
#[derive(Debug)]
pub struct Manifests {
    /// The objects, in the order of their files.
    pub objects: Vec<Manifest>,
}

/// Makes objects of a folder.
pub trait Render {
    /// Everything that stands in `tree`. What it takes of memory is taken from `room` before it is used.
    ///
    /// # Errors
    /// The first file that cannot be read or is not what Kubernetes reads, or no more room.
    fn render<T: Tree, R: Room>(&self, tree: &T, room: &mut R) -> Result<Manifests, RenderError<T::Error>>;
}

/// Memory that is taken before it is used, in bytes.
pub trait Room {
    /// What of it is not used yet.
    fn left(&self) -> u64;
    /// Takes care that `bytes` are left; false when that much is not to be had now.
    fn reserve(&mut self, bytes: u64) -> bool;
    /// Takes as much as one folder may, if that is more than it has; false when that is not to be had now.
    fn reserve_all(&mut self) -> bool;
    /// Uses some of what is left.
    fn use_up(&mut self, bytes: u64);
    /// Whether it is as much as one folder may take.
    fn is_most(&self) -> bool;
}

/// Why a folder is not rendered. `E` is why its files cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RenderError<E> {
    /// The folder's files could not be read.
    #[error("{0}")]
    Files(E),
    /// A file is not what Kubernetes reads.
    #[error("{0}")]
    Parse(ParseError),
    /// A file that asks for Kustomize.
    #[error(
        "{0}: Kustomize comes with the renderer in a later release: render it first, or list the folder in .gitsealignore"
    )]
    Kustomize(String),
    /// It takes more memory than is to be had now, or ever.
    #[error("{path}: the objects up to here take more memory than there is")]
    NoRoom {
        /// Where it was noticed.
        path: String,
        /// Whether it had as much as one folder may take.
        had_most: bool,
    },
}

impl<E> From<E> for RenderError<E> {
    fn from(error: E) -> Self {
        Self::Files(error)
    }
}

/// Plain YAML and JSON, parsed in Rust within bounds.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Render for Plain {
    fn render<T: Tree, R: Room>(&self, tree: &T, room: &mut R) -> Result<Manifests, RenderError<T::Error>> {
        let room = RefCell::new(room);
        let mut objects = Vec::new();
        let measured = |path: &str, bytes: u64| {
            let mut room = room.borrow_mut();
            let is_there = room.reserve(in_memory(bytes)) || room.reserve_all() && room.left() >= in_memory(bytes);
            if is_there { Ok(()) } else { Err(RenderError::NoRoom { path: path.to_owned(), had_most: room.is_most() }) }
        };
        tree.each_file(measured, |file| {
            if manifests::is_kustomization(file.path) {
                return Err(RenderError::Kustomize(file.path.to_owned()));
            }
            objects.extend(parse(file, *room.borrow_mut())?);
            Ok(())
        })?;
        Ok(Manifests { objects })
    }
}

/// What a file takes while it is read: itself, and its text.
fn in_memory(bytes: u64) -> u64 {
    bytes.saturating_mul(2)
}

/// Parses one file within what is left, and takes more as long as there is.
fn parse<E>(file: TreeFile<'_>, room: &mut impl Room) -> Result<Vec<Manifest>, RenderError<E>> {
    let text = in_memory(file.bytes.len() as u64);
    // What most files take; the first try of others ends early.
    let _ = room.reserve(text.saturating_mul(6)) || room.reserve_all();
    loop {
        let left = room.left().saturating_sub(text);
        let limits = Limits { memory: usize::try_from(left).unwrap_or(usize::MAX), ..Limits::default() };
        match manifests::parse_measured(file.path, file.bytes, &limits) {
            Ok(parsed) => {
                room.use_up(parsed.memory as u64);
                return Ok(parsed.manifests);
            }
            Err(error) if matches!(error.kind(), ErrorKind::TooMuchMemory(_)) => {
                let (had_most, more) = (room.is_most(), room.left().saturating_mul(2).max(text));
                if had_most || !(room.reserve(more) || room.reserve_all()) {
                    return Err(RenderError::NoRoom { path: file.path.to_owned(), had_most });
                }
            }
            Err(error) => return Err(RenderError::Parse(error)),
        }
    }
}
