//! Reads the objects of a folder in Git. Kustomizations in it are rendered.

use std::{cell::RefCell, fmt, marker::PhantomData};

use manifests::{ErrorKind, IGNORE_FILE, Limits, Manifest, ParseError, Parsed, Tree, TreeEntry, TreeFile};

/// The objects of a folder, with their values still sealed.
#[derive(Debug)]
pub struct Manifests {
    /// The objects, in the order of their files.
    pub objects: Vec<Manifest>,
}

/// Reads the objects of a folder, and renders its kustomizations and charts.
pub trait Render<T: Tree> {
    /// All objects of `tree`. Memory is taken from `room` before it is used.
    ///
    /// # Errors
    /// The error names all files that Kubernetes would not accept, or the first file that cannot be read from the
    /// store, or the first kustomization that cannot be rendered, or says that there is not enough memory.
    fn render(&self, tree: &T, room: &mut dyn Room) -> Result<Manifests, RenderError<T::Error>>;
}

/// Renders the kustomizations in a folder.
pub trait Kustomize {
    /// Why a file cannot be read.
    type Error;

    /// The objects that `kustomize build` makes of `folder`, which is a path from the root of the tree. Memory is taken
    /// from `room`.
    ///
    /// # Errors
    /// As for [`Render::render`].
    fn kustomize(&self, folder: &str, room: &mut dyn Room) -> Result<Vec<Manifest>, RenderError<Self::Error>>;
}

/// A part of the memory budget. Memory is first taken from the budget, then used. All numbers are bytes.
pub trait Room {
    /// How much of the taken memory is not used yet (is "left").
    fn left(&self) -> u64;
    /// Takes memory until `bytes` are left; false if that much is not available now.
    fn reserve(&mut self, bytes: u64) -> bool;
    /// Takes all the memory that one folder may have; false if that much is not available now.
    fn reserve_all(&mut self) -> bool;
    /// Uses `bytes` of the memory that is left.
    fn use_up(&mut self, bytes: u64);
    /// Whether all the memory that one folder may have is taken.
    fn is_most(&self) -> bool;
}

/// Memory without a limit, for programs whose users read their own files.
#[derive(Clone, Copy, Debug)]
pub struct Unlimited;

impl Room for Unlimited {
    fn left(&self) -> u64 {
        u64::MAX
    }

    fn reserve(&mut self, _: u64) -> bool {
        true
    }

    fn reserve_all(&mut self) -> bool {
        true
    }

    fn use_up(&mut self, _: u64) {}

    fn is_most(&self) -> bool {
        false
    }
}

/// Why a folder could not be rendered. `E` is the error of reading its files.
#[derive(Debug, thiserror::Error)]
pub enum RenderError<E> {
    /// The folder's files could not be read.
    #[error("{0}")]
    Files(E),
    /// Files that Kubernetes would not accept.
    #[error("{0}")]
    Parse(NotManifests),
    /// A kustomization or a chart that was not rendered.
    #[error("{}: {}: {}", in_words(folder), why.tool, why.message)]
    NotRendered {
        /// The folder of the kustomization or chart.
        folder: String,
        /// Why it was not rendered.
        why: NotRendered,
    },
    /// There is not enough memory for the objects. Another try may help, unless the folder already had as much memory
    /// as one folder may have.
    #[error("{path}: the objects of this file and of those before it need more memory than is available")]
    NoRoom {
        /// The file at which the lack of memory was noticed.
        path: String,
        /// Whether the folder already had as much memory as one folder may have.
        had_most: bool,
    },
}

/// Why Kustomize or Helm could not render the objects.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotRendered {
    /// `Kustomize` or `Helm`.
    pub tool: &'static str,
    /// The reason for the condition `Ready`.
    pub reason: &'static str,
    /// What is wrong and, if known, where.
    pub message: String,
    /// Whether another try with the same files would fail in the same way.
    pub is_terminal: bool,
}

fn in_words(folder: &str) -> &str {
    if folder.is_empty() { "the repository's root" } else { folder }
}

/// How many mistakes a message names, because a status cannot hold all of them.
pub(crate) const NAMED_AT_ONCE: usize = 20;

/// Files that cannot be applied, and what to do about them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotManifests {
    /// What is wrong with the first files, in the order of their paths. The list is not empty.
    shown: Vec<Mistake>,
    /// How many more files are wrong.
    more: usize,
}

/// What is wrong with a file.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Mistake {
    /// Kubernetes would not accept the file.
    Parse(ParseError),
    /// The file is not read: see [`TreeEntry::Refused`].
    Refused { reason: &'static str, message: String },
}

impl Mistake {
    /// What to do about the mistake, if its message does not say so.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Parse(error) => Some(error.hint()),
            Self::Refused { .. } => None,
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parse(error) => error.fmt(f),
            Self::Refused { message, .. } => f.write_str(message),
        }
    }
}

impl NotManifests {
    /// An error with one mistake.
    pub fn new(error: ParseError) -> Self {
        Self { shown: vec![Mistake::Parse(error)], more: 0 }
    }

    /// The reason for the condition `Ready`. It is the reason of the first mistake.
    pub fn reason(&self) -> &'static str {
        match self.shown.first() {
            Some(Mistake::Refused { reason, .. }) => reason,
            Some(Mistake::Parse(_)) | None => "InvalidManifest",
        }
    }

    fn add(wrong: &mut Option<Self>, mistake: Mistake) {
        let wrong = wrong.get_or_insert(Self { shown: Vec::new(), more: 0 });
        if wrong.shown.len() < NAMED_AT_ONCE {
            wrong.shown.push(mistake);
        } else {
            wrong.more += 1;
        }
    }
}

impl std::error::Error for NotManifests {}

impl fmt::Display for NotManifests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = self.shown.iter().find_map(Mistake::hint);
        for (index, mistake) in self.shown.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{mistake}")?;
            if let Some(other) = mistake.hint().filter(|other| Some(*other) != hint) {
                write!(f, " ({other})")?;
            }
        }
        if self.more > 0 {
            write!(f, "; and {} more", self.more)?;
        }
        let Some(hint) = hint else { return Ok(()) };
        write!(f, "; {hint}")?;
        // If only one file is wrong, this is probably a mistake in a manifest. If several files are, they may not be
        // meant as manifests at all.
        if self.shown.len() > 1 && !hint.contains(IGNORE_FILE) {
            write!(f, "; add files that are not manifests to {IGNORE_FILE}")?;
        }
        Ok(())
    }
}

impl<E> From<E> for RenderError<E> {
    fn from(error: E) -> Self {
        Self::Files(error)
    }
}

/// Reads files of plain YAML and JSON, with limits, and lets `K` render the kustomizations among the files.
#[derive(Clone, Copy, Debug)]
pub struct Files<K>(pub K);

impl<T: Tree, K: Kustomize<Error = T::Error>> Render<T> for Files<K> {
    fn render(&self, tree: &T, room: &mut dyn Room) -> Result<Manifests, RenderError<T::Error>> {
        let room = RefCell::new(room);
        let mut objects = Vec::new();
        let mut wrong: Option<NotManifests> = None;
        tree.each_entry(measured(&room), |entry| {
            let mut room = room.borrow_mut();
            let file = match entry {
                // After a wrong file, the other files are read only to find their mistakes, so kustomizations are not
                // rendered.
                TreeEntry::Kustomization(_) if wrong.is_some() => return Ok(()),
                TreeEntry::Kustomization(folder) => {
                    objects.extend(self.0.kustomize(folder, *room)?);
                    return Ok(());
                }
                TreeEntry::Refused { error, reason } => {
                    NotManifests::add(&mut wrong, Mistake::Refused { reason, message: error.to_string() });
                    return Ok(());
                }
                TreeEntry::File(file) => file,
            };
            match parse(file, *room) {
                Ok(_) if wrong.is_some() => {}
                Ok(parsed) => {
                    room.use_up(parsed.memory as u64);
                    objects.extend(parsed.manifests);
                }
                Err(ParseFailure::Wrong(error)) => NotManifests::add(&mut wrong, Mistake::Parse(error)),
                Err(ParseFailure::NoRoom { had_most }) => {
                    return Err(RenderError::NoRoom { path: file.path.to_owned(), had_most });
                }
            }
            Ok(())
        })?;
        match wrong {
            Some(wrong) => Err(RenderError::Parse(wrong)),
            None => Ok(Manifests { objects }),
        }
    }
}

/// Does not render the kustomizations, and only notes their folders.
struct Found<E>(RefCell<Vec<String>>, PhantomData<E>);

impl<E> Kustomize for &Found<E> {
    type Error = E;

    fn kustomize(&self, folder: &str, _: &mut dyn Room) -> Result<Vec<Manifest>, RenderError<E>> {
        self.0.borrow_mut().push(folder.to_owned());
        Ok(Vec::new())
    }
}

/// What a folder or chart contains before the Sync's own changes, such as `spec.patches` and `spec.images`.
#[derive(Default)]
pub struct Base {
    /// Objects of plain manifests, or of a chart.
    pub objects: Vec<Manifest>,
    /// Folders with kustomizations, as paths from the root of the repository.
    pub kustomizations: Vec<String>,
}

impl Base {
    /// The objects in the plain files of `tree`, and its folders with kustomizations.
    ///
    /// # Errors
    /// As for [`Render::render`].
    pub fn read<T: Tree>(tree: &T, room: &mut dyn Room) -> Result<Self, RenderError<T::Error>> {
        let found = Found(RefCell::default(), PhantomData);
        let manifests = Files(&found).render(tree, room)?;
        Ok(Self { objects: manifests.objects, kustomizations: found.0.into_inner() })
    }
}

/// Visits every object in the files of `tree`. Only one file is in memory at a time. Files that Kubernetes would not
/// accept are skipped. Kustomizations are not rendered.
///
/// # Errors
/// A file cannot be read, or there is not enough memory for it.
pub fn each_object<T: Tree>(
    tree: &T,
    room: &mut dyn Room,
    mut visit: impl FnMut(&Manifest),
) -> Result<(), RenderError<T::Error>> {
    let room = RefCell::new(room);
    tree.each_entry(measured(&room), |entry| {
        let TreeEntry::File(file) = entry else { return Ok(()) };
        match parse(file, *room.borrow_mut()) {
            Ok(parsed) => parsed.manifests.iter().for_each(&mut visit),
            Err(ParseFailure::Wrong(_)) => {}
            Err(ParseFailure::NoRoom { had_most }) => {
                return Err(RenderError::NoRoom { path: file.path.to_owned(), had_most });
            }
        }
        Ok(())
    })
}

/// Takes the memory for a file that is about to be read.
fn measured<E>(room: &RefCell<&mut dyn Room>) -> impl Fn(&str, u64) -> Result<(), RenderError<E>> {
    |path, bytes| reserve(*room.borrow_mut(), path, in_memory(bytes))
}

/// Makes sure that `bytes` are left in `room`. The error names `path`, the file that needs the memory.
///
/// # Errors
/// This much memory is not available.
pub fn reserve<E>(room: &mut dyn Room, path: &str, bytes: u64) -> Result<(), RenderError<E>> {
    let is_there = room.reserve(bytes) || room.reserve_all() && room.left() >= bytes;
    if is_there { Ok(()) } else { Err(RenderError::NoRoom { path: path.to_owned(), had_most: room.is_most() }) }
}

/// How much memory a file takes while it is read: its bytes and its text.
fn in_memory(bytes: u64) -> u64 {
    bytes.saturating_mul(2)
}

/// Why one file could not be parsed.
pub enum ParseFailure {
    /// Kubernetes would not accept the file.
    Wrong(ParseError),
    /// See [`RenderError::NoRoom`].
    NoRoom {
        /// Whether the room already had as much as one folder may take.
        had_most: bool,
    },
}

/// Parses one file in the memory that is left in `room`. If the file needs more, more is taken, up to what one folder
/// may have.
fn parse(file: TreeFile<'_>, room: &mut dyn Room) -> Result<Parsed, ParseFailure> {
    parse_beside(file, in_memory(file.bytes.len() as u64), room)
}

/// Parses one file in the memory that is left in `room`. If the file needs more, more is taken, up to what one folder
/// may have. The parser may use what is left except `held` bytes: the caller uses these, for the text of the file and
/// for anything else.
///
/// # Errors
/// See [`ParseFailure`].
pub fn parse_beside(file: TreeFile<'_>, held: u64, room: &mut dyn Room) -> Result<Parsed, ParseFailure> {
    // Memory of five times the size of the text is enough to parse most files. A file that needs more is parsed again
    // with more memory.
    let text = in_memory(file.bytes.len() as u64);
    let _ = room.reserve(held.saturating_add(text.saturating_mul(5))) || room.reserve_all();
    loop {
        let left = room.left().saturating_sub(held);
        let limits = Limits { memory: usize::try_from(left).unwrap_or(usize::MAX), ..Limits::default() };
        match manifests::parse_measured(file.path, file.bytes, &limits) {
            Ok(parsed) => return Ok(parsed),
            Err(error) if matches!(error.kind(), ErrorKind::TooMuchMemory(_)) => {
                let (had_most, more) = (room.is_most(), room.left().saturating_mul(2).max(held));
                if had_most || !(room.reserve(more) || room.reserve_all()) {
                    return Err(ParseFailure::NoRoom { had_most });
                }
            }
            Err(error) => return Err(ParseFailure::Wrong(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    struct Files(Vec<(String, String)>);

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Unread(String);

    impl Tree for Files {
        type Error = Unread;

        fn each_entry<E: From<Unread>>(
            &self,
            mut measured: impl FnMut(&str, u64) -> Result<(), E>,
            mut visit: impl FnMut(TreeEntry<'_, Unread>) -> Result<(), E>,
        ) -> Result<(), E> {
            for (path, text) in &self.0 {
                if let Some(target) = text.strip_prefix("-> ") {
                    visit(TreeEntry::Refused {
                        error: Unread(format!("{path} is a link to {target}")),
                        reason: "Linked",
                    })?;
                    continue;
                }
                if let Some(folder) = path.strip_suffix("/kustomization.yaml") {
                    visit(TreeEntry::Kustomization(folder))?;
                    continue;
                }
                measured(path, text.len() as u64)?;
                visit(TreeEntry::File(TreeFile { path, bytes: text.as_bytes() }))?;
            }
            Ok(())
        }
    }

    /// Refuses every kustomization.
    struct Refuses;

    impl Kustomize for Refuses {
        type Error = Unread;

        fn kustomize(&self, folder: &str, _: &mut dyn Room) -> Result<Vec<Manifest>, RenderError<Unread>> {
            let why = NotRendered {
                tool: "Kustomize",
                reason: "BuildFailed",
                message: "it is refused".into(),
                is_terminal: true,
            };
            Err(RenderError::NotRendered { folder: folder.to_owned(), why })
        }
    }

    /// Memory of this many bytes. More cannot be taken.
    struct Megabyte(u64);

    impl Room for Megabyte {
        fn left(&self) -> u64 {
            self.0
        }

        fn reserve(&mut self, bytes: u64) -> bool {
            bytes <= self.0
        }

        fn reserve_all(&mut self) -> bool {
            true
        }

        fn use_up(&mut self, bytes: u64) {
            self.0 = self.0.saturating_sub(bytes);
        }

        fn is_most(&self) -> bool {
            true
        }
    }

    fn render(files: &[(&str, &str)]) -> Result<usize, String> {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        let files = Files(files.iter().map(owned).collect());
        match super::Files(Refuses).render(&files, &mut Megabyte(1 << 20)) {
            Ok(manifests) => Ok(manifests.objects.len()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn objects_are_found_beside_files_that_are_no_manifests() {
        let good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
        let files =
            [("a.yaml", good), ("ci.yml", "on: [push]\n"), ("broken.yaml", "{"), ("k/kustomization.yaml", "a: 1\n")];
        let files = Files(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect());
        let mut found = Vec::new();
        each_object(&files, &mut Megabyte(1 << 20), |manifest| found.push(manifest.origin.to_string())).unwrap();
        assert_eq!(found, ["a.yaml:1"]);
        let none = each_object(&files, &mut Megabyte(10), |_| {});
        assert!(matches!(none, Err(RenderError::NoRoom { had_most: true, .. })), "{none:?}");
    }

    #[test]
    fn every_file_that_is_no_manifest_is_named() {
        let good = ("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
        let (list, values) = (("package.json", r#"{"name": "tools"}"#), ("values.yaml", "# c\nreplicas: 2\n"));
        assert_eq!(render(&[good]), Ok(1));
        assert_eq!(
            render(&[good, list]).unwrap_err(),
            "package.json:1: apiVersion is missing; add files that are not manifests to .gitsealignore"
        );
        let broken = ("b.yaml", "a: 1\na: 2\n");
        assert_eq!(
            render(&[good, broken, list, values]).unwrap_err(),
            "b.yaml:2: duplicate key a; package.json:1: apiVersion is missing (add files that are not manifests to \
             .gitsealignore); values.yaml:2: apiVersion is missing (add files that are not manifests to .gitsealignore); \
             keep one of them: which one would win depends on the tool; add files that are not manifests to \
             .gitsealignore"
        );
        let links = [("d.yaml", "-> /etc/passwd"), ("e.yaml", "-> ..")];
        assert_eq!(
            render(&[good, links[0], links[1]]).unwrap_err(),
            "d.yaml is a link to /etc/passwd; e.yaml is a link to .."
        );
        assert_eq!(
            render(&[broken, links[0]]).unwrap_err(),
            "b.yaml:2: duplicate key a; d.yaml is a link to /etc/passwd; keep one of them: which one would win depends on the \
             tool; add files that are not manifests to .gitsealignore"
        );
        let kustomization = ("k/kustomization.yaml", "resources: []\n");
        assert_eq!(render(&[good, kustomization]).unwrap_err(), "k: Kustomize: it is refused");
        assert!(render(&[broken, kustomization]).unwrap_err().starts_with("b.yaml:2: duplicate key"));
        let many: Vec<_> = (0..25).map(|number| (format!("{number:02}.yaml"), "a: 1\n".to_owned())).collect();
        let many: Vec<_> = many.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let told = render(&many).unwrap_err();
        let mut expected = String::new();
        for number in 0..20 {
            let _ = write!(expected, "{number:02}.yaml:1: apiVersion is missing; "); // writing to a `String` cannot fail
        }
        assert_eq!(told, format!("{expected}and 5 more; add files that are not manifests to .gitsealignore"));
    }
}
