//! Reads the rendered text as objects with their places in Git.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::Arc,
};

use manifests::{Limits, Location, Manifest, TreeFile};
use pipeline::{
    NotManifests, Room,
    render::{NotRendered, ParseFailure, RenderError, parse_beside, reserve},
};
use worker::Cancel;

use crate::{
    At, Chart, OF_REMOTE, Object, Release, RemoteChart, RemoteFolder, RenderedChart, Renderer, Repository, Unrendered,
    generated,
    helm::{ReleaseValues, Values},
    places::Places,
    sealed::{BEGINS_WITH as PLACEHOLDER, Field, Placeholders, SealedValues, Take, Unsealable},
};

/// The rendered objects of a folder.
pub struct Built {
    /// The objects, as Kustomize wrote them. A Secret that was generated of sealed values is a SealedSecret.
    pub objects: Vec<Object>,
    /// The same objects, each with the file and line in Git of the object or of its generator.
    pub manifests: Vec<Manifest>,
}

/// The rendered objects of a release.
pub struct BuiltRelease {
    /// The result, as Helm wrote it. A Secret with sealed values is a SealedSecret.
    pub rendered: RenderedChart,
    /// The objects of each document in the result, each with the file and line of its template in Git.
    pub manifests: Vec<Vec<Manifest>>,
    /// Whether a Sync also applies the tests of the chart.
    pub tests: bool,
    /// Whether a Sync makes only those objects of `crds/` that do not exist, and changes none.
    pub only_new_crds: bool,
}

impl BuiltRelease {
    /// The objects that were rendered for `release`.
    pub(crate) fn new(release: &Release, rendered: RenderedChart, manifests: Vec<Vec<Manifest>>) -> Self {
        Self { rendered, manifests, tests: release.tests, only_new_crds: release.only_new_crds }
    }
}

impl Renderer {
    /// Renders as [`Renderer::kustomize`] does, and reads the result. Memory for that is taken from `room`.
    ///
    /// # Errors
    /// Those of [`Renderer::kustomize`]; or Kubernetes would not accept an object; or there is no more memory.
    pub fn build<R: Repository>(
        &self,
        path: &str,
        repository: &R,
        room: &mut dyn Room,
        cancel: &Cancel,
    ) -> Result<Built, RenderError<R::Error>> {
        let files = Remembering::new(repository, room);
        let objects = self.kustomize(path, &files, cancel).map_err(|error| unrendered("Kustomize", path, error));
        let mut objects = objects?;
        let Located { manifests, .. } = files.located(Reading::new("Kustomize", path), &mut objects, of_generator)?;
        Ok(Built { objects, manifests: manifests.into_iter().flatten().collect() })
    }

    /// Renders as [`Renderer::helm`] does, puts sealed values into Secrets, and reads the result. Memory for that is taken from
    /// `room`.
    ///
    /// # Errors
    /// Those of [`Renderer::helm`]; or a sealed value cannot be used; or Kubernetes would not accept an object; or
    /// there is no more memory.
    pub fn release<R: Repository>(
        &self,
        release: &Release,
        repository: &R,
        room: &mut dyn Room,
        cancel: &Cancel,
    ) -> Result<BuiltRelease, RenderError<R::Error>> {
        let files = Remembering::new(repository, room);
        let (chart, placeholders) = with_placeholders(release, &files)?;
        let rendered = self.helm(&chart, &files, cancel).map_err(|error| unrendered("Helm", &chart.path, error));
        let mut rendered = rendered?;
        rendered.notes = placeholders.in_notes(&rendered.notes);
        let objects = rendered.objects.iter_mut().map(|object| &mut object.object);
        let reading = Reading::new("Helm", &chart.path);
        let Located { manifests, .. } = files.located(reading, objects, |_, object, take| {
            let namespace = release.namespace_of(object).to_owned();
            placeholders.resolve(object, &namespace, take)
        })?;
        placeholders.all_used().map_err(|why| misplaced("Helm", &chart.path, why))?;
        Ok(BuiltRelease::new(release, rendered, manifests))
    }
}

/// The chart of a release with placeholders for its sealed values.
pub(crate) fn with_placeholders<R: Repository>(
    release: &Release,
    files: &Remembering<'_, '_, R>,
) -> Result<(Chart, Placeholders), RenderError<R::Error>> {
    let (mut chart, mut placeholders) = (release.chart.clone(), Placeholders::default());
    chart.values.clear();
    for answer in chart.lookup.iter().flatten() {
        // As for the text of values, below.
        files.hold("spec.helm.lookup", 3 * answer.len() as u64)?;
    }
    for given in &release.values {
        match given {
            ReleaseValues::Plain(plain) => {
                if let Values::Yaml { name, text } = plain {
                    // The text is in memory here, in the request, and once on its way to the process.
                    files.hold(name, 3 * text.len() as u64)?;
                }
                chart.values.push(plain.clone());
            }
            ReleaseValues::Sealed(sealed) => {
                let found = files.parsed(sealed)?;
                let values = placeholders.add(sealed, &found).map_err(|why| misplaced("Helm", &chart.path, why))?;
                chart.values.extend(values);
            }
            ReleaseValues::Secret(secret) => {
                files.hold(&secret.name, 3 * secret.content.len() as u64)?;
                let values = placeholders.add_secret(secret).map_err(|why| misplaced("Helm", &chart.path, why))?;
                chart.values.extend(values);
            }
        }
    }
    Ok((chart, placeholders))
}

/// A sealed value cannot be used as it is. The same files give the same error again.
pub(crate) fn misplaced<E>(tool: &'static str, folder: &str, message: String) -> RenderError<E> {
    let why = NotRendered { tool, reason: "SealedValue", message, is_terminal: true };
    RenderError::NotRendered { folder: folder.to_owned(), why }
}

pub(crate) fn unrendered<E>(tool: &'static str, folder: &str, error: Unrendered<RenderError<E>>) -> RenderError<E> {
    match error {
        Unrendered::Repository(error) => error,
        Unrendered::Renderer(error) => {
            let (reason, is_terminal) = (error.reason(), error.is_terminal());
            let why = NotRendered { tool, reason, message: error.to_string(), is_terminal };
            RenderError::NotRendered { folder: folder.to_owned(), why }
        }
    }
}

/// Makes a SealedSecret of a Secret with sealed values, and returns the YAML of the SealedSecret. The first argument
/// says whether a generator made the object. The last argument reserves memory if the SealedSecret and its text are
/// larger than the Secret. Other objects stay as they are. The error says why a sealed value cannot be used.
pub(crate) trait Seal: FnMut(bool, &mut Manifest, Take<'_>) -> Result<Option<String>, Unsealable> {}

impl<F: FnMut(bool, &mut Manifest, Take<'_>) -> Result<Option<String>, Unsealable>> Seal for F {}

/// For objects of Kustomize: only the Secrets of its generators have sealed values.
#[allow(clippy::unnecessary_wraps)]
pub(crate) fn of_generator(
    is_generated: bool,
    object: &mut Manifest,
    _: Take<'_>,
) -> Result<Option<String>, Unsealable> {
    Ok(if is_generated && object.id.is_secret() { generated::seal(object) } else { None })
}

/// What was rendered.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) tool: &'static str,
    /// The folder that was rendered. It is given as the place of an object whose file is not known.
    pub(crate) folder: &'a str,
    /// The kinds, names and places of the objects that were part of the request.
    pub(crate) given: &'a [Given],
    /// Whether the places of sealed values in the files are needed.
    pub(crate) needs_places: bool,
}

/// An object that is part of a request.
pub(crate) struct Given {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) origin: Location,
}

impl Given {
    /// What is kept of an object that is part of a request.
    pub(crate) fn of(Manifest { id, origin, .. }: &Manifest) -> Self {
        Self { kind: id.kind.clone(), name: id.name.clone(), origin: origin.clone() }
    }
}

impl<'a> Reading<'a> {
    /// What `tool` made of `folder`.
    pub(crate) fn new(tool: &'static str, folder: &'a str) -> Self {
        Self { tool, folder, given: &[], needs_places: false }
    }
}

/// The objects of each document, each with its place in Git.
pub(crate) struct Located {
    pub(crate) manifests: Vec<Vec<Manifest>>,
    /// The files that the objects come from.
    pub(crate) files: Files,
}

/// Finds the place in Git of each object. A Secret with sealed values becomes a SealedSecret, also in `objects`.
/// `files` are the files that were read, and `held` is the memory that is reserved for them.
fn located<'o, E>(
    Reading { tool, folder, given, needs_places }: Reading<'_>,
    objects: impl IntoIterator<Item = &'o mut Object>,
    (held, files): (u64, HashMap<String, Vec<u8>>),
    room: &mut dyn Room,
    mut seal: impl Seal,
) -> Result<Located, RenderError<E>> {
    let objects: Vec<_> = objects.into_iter().collect();
    let texts = objects.iter().map(|object| 2 * object.yaml.len() as u64);
    let mut held = texts.fold(held, u64::saturating_add);
    let mut files = Files { bytes: files, known: HashMap::new(), needs_places };
    let spare = |room: &dyn Room, held| usize::try_from(room.left().saturating_sub(held)).unwrap_or(usize::MAX);
    let mut all = Vec::new();
    for object in objects {
        let known = object.index.and_then(|index| given.get(index)).map(|given| given.origin.clone());
        let path = match &known {
            Some(origin) => &*origin.file,
            None if object.origin.is_empty() => folder,
            None => &object.origin,
        };
        let file: Arc<str> = path.into();
        let parsed = parse_beside(TreeFile { path, bytes: object.yaml.as_bytes() }, held, room);
        let parsed = parsed.map_err(|failure| failed(path, failure))?;
        let memory = parsed.memory as u64;
        room.use_up(memory);
        let mut manifests = parsed.manifests;
        for manifest in &mut manifests {
            let probably = || most_alike(given, manifest).filter(|_| object.origin.is_empty());
            manifest.origin = known.clone().or_else(probably).unwrap_or_else(|| {
                let line = files.at(path, spare(room, held)).line_of(manifest, object.generated);
                Location { file: file.clone(), line }
            });
        }
        let count = manifests.len();
        for manifest in &mut manifests {
            // If a generator made the Secret, the SealedSecret takes less memory than the Secret, and so does its text.
            // Afterwards, the Secret is dropped.
            let least = held.saturating_add(memory.saturating_mul(2));
            if manifest.id.is_secret() {
                reserve(room, path, least)?;
            }
            let mut no_room = None;
            let mut take = |bytes: u64| {
                no_room = reserve(room, path, least.saturating_add(bytes)).err();
                no_room.is_none()
            };
            let (origin, id) = (manifest.origin.clone(), manifest.id.clone());
            let refused = |why| misplaced(tool, folder, format!("{origin}: {id}: {why}"));
            let sealed = match seal(object.generated, manifest, &mut take) {
                Ok(sealed) => sealed,
                Err(Unsealable::Wrong(why)) => return Err(refused(why)),
                Err(Unsealable::Misplaced(why, field)) => {
                    let template = files.text(&origin.file).unwrap_or_default();
                    let line = line_of_field(&field, &object.yaml, &template, origin.line).unwrap_or(origin.line);
                    let place = Location { line, ..origin };
                    return Err(misplaced(tool, folder, format!("{place}: {id}: {why}")));
                }
                Err(Unsealable::NoRoom) => {
                    return Err(no_room.unwrap_or_else(|| {
                        refused("there is not enough memory for the sealed values of this Secret".to_owned())
                    }));
                }
            };
            match sealed {
                None => {}
                Some(_) if count > 1 => {
                    return Err(refused("a Secret with sealed values cannot be in a List".to_owned()));
                }
                Some(yaml) => {
                    // The values of the SealedSecret may be longer than those of the Secret.
                    let longer = yaml.len().saturating_sub(object.yaml.len()) as u64;
                    room.use_up(longer.saturating_mul(2));
                    held = held.saturating_add(longer);
                    object.yaml = yaml;
                }
            }
        }
        all.push(manifests);
    }
    Ok(Located { manifests: all, files })
}

/// The file and line where `object` probably is in Git, if a patch removed the annotation that says so. They are those
/// of the given object of the same kind whose name is the longest part of this object's name.
fn most_alike(given: &[Given], object: &Manifest) -> Option<Location> {
    let alike = given.iter().filter(|given| given.kind == object.id.kind && object.id.name.contains(&given.name));
    alike.max_by_key(|given| given.name.len()).map(|given| given.origin.clone())
}

fn failed<E>(path: &str, failure: ParseFailure) -> RenderError<E> {
    match failure {
        ParseFailure::Wrong(error) => RenderError::Parse(NotManifests::new(error)),
        ParseFailure::NoRoom { had_most } => RenderError::NoRoom { path: path.to_owned(), had_most },
    }
}

/// How many bytes of memory a remembered path takes besides its text.
const PER_PATH: u64 = 128;

/// The files of a repository, kept after they were read once, with the memory that they take.
pub(crate) struct Remembering<'r, 'm, R> {
    repository: &'r R,
    pub(crate) room: RefCell<&'m mut dyn Room>,
    held: Cell<u64>,
    known: RefCell<HashMap<String, Vec<u8>>>,
}

impl<'r, 'm, R: Repository> Remembering<'r, 'm, R> {
    pub(crate) fn new(repository: &'r R, room: &'m mut dyn Room) -> Self {
        Self { repository, room: RefCell::new(room), held: Cell::new(0), known: RefCell::default() }
    }

    /// See [`located`].
    pub(crate) fn located<'o>(
        self,
        reading: Reading<'_>,
        objects: impl IntoIterator<Item = &'o mut Object>,
        seal: impl Seal,
    ) -> Result<Located, RenderError<R::Error>> {
        let files = (self.held.get(), self.known.into_inner());
        located(reading, objects, files, self.room.into_inner(), seal)
    }

    /// Reserves more memory. The error names `path` as what needs this memory.
    pub(crate) fn hold(&self, path: &str, bytes: u64) -> Result<(), RenderError<R::Error>> {
        let held = self.held.get().saturating_add(bytes);
        reserve(*self.room.borrow_mut(), path, held)?;
        self.held.set(held);
        Ok(())
    }

    /// Remembers what there is at a path. `shown` names this path in messages.
    fn remembered(&self, shown: &str, at: impl FnOnce() -> Result<At, R::Error>) -> Result<At, RenderError<R::Error>> {
        // This function, the repository and the check of the result remember the path, so there may be several copies.
        self.hold(shown, 4 * shown.len() as u64 + PER_PATH)?;
        let found = at().map_err(RenderError::Files)?;
        if let At::File(bytes) = &found {
            // The file is in memory once here, and once on its way to the process.
            self.hold(shown, 2 * bytes.len() as u64)?;
            self.known.borrow_mut().insert(shown.to_owned(), bytes.clone());
        }
        Ok(found)
    }

    /// The objects of a file with sealed values.
    fn parsed(&self, sealed: &SealedValues) -> Result<Vec<Manifest>, RenderError<R::Error>> {
        let path = sealed.file.as_str();
        let parsed = |bytes: &[u8]| {
            let mut room = self.room.borrow_mut();
            // The sealed texts are kept until they are in a SealedSecret.
            self.held.set(self.held.get() + 2 * bytes.len() as u64);
            let parsed = parse_beside(TreeFile { path, bytes }, self.held.get(), &mut **room);
            parsed.map(|parsed| parsed.manifests).map_err(|failure| failed(path, failure))
        };
        if let Some(content) = &sealed.content {
            self.hold(path, content.len() as u64)?;
            return parsed(content);
        }
        match self.at(path)? {
            At::File(bytes) => parsed(&bytes),
            At::Directory(_) | At::Nothing => {
                let message = format!("the sealed values cannot be read: the repository has no file '{path}'");
                Err(misplaced("Helm", path, message))
            }
        }
    }
}

impl<R: Repository> Repository for Remembering<'_, '_, R> {
    type Error = RenderError<R::Error>;

    fn at(&self, path: &str) -> Result<At, Self::Error> {
        self.remembered(path, || self.repository.at(path))
    }

    fn at_remote(&self, root: &str, path: &str) -> Result<At, Self::Error> {
        self.remembered(&format!("{root}{OF_REMOTE}{path}"), || self.repository.at_remote(root, path))
    }

    fn remote_base(&self, entry: &str) -> Result<RemoteFolder, Self::Error> {
        self.hold(entry, 3 * entry.len() as u64 + PER_PATH)?;
        self.repository.remote_base(entry).map_err(RenderError::Files)
    }

    fn remote_chart(&self, chart: &RemoteChart) -> Result<RemoteFolder, Self::Error> {
        let RemoteChart { repository, name, version } = chart;
        self.hold(name, 3 * (repository.len() + name.len() + version.len()) as u64 + PER_PATH)?;
        self.repository.remote_chart(chart).map_err(RenderError::Files)
    }

    fn expect(&self, bytes: u64) -> Result<(), Self::Error> {
        // Both the JSON and the texts in it take memory.
        let held = self.held.get() + 2 * bytes;
        reserve(*self.room.borrow_mut(), "what was rendered", held)
    }
}

/// Files that objects come from.
pub(crate) struct Files {
    bytes: HashMap<String, Vec<u8>>,
    known: HashMap<String, Source>,
    needs_places: bool,
}

/// A file that objects come from.
#[derive(Default)]
struct Source {
    /// For each kind in a text that is not YAML, for example in a template: the line at which its first object starts.
    kinds: HashMap<String, u32>,
    /// The names and lines of its objects by kind, sorted by name.
    objects: HashMap<String, Vec<(String, u32)>>,
    /// The lines of its generators of Secrets and of ConfigMaps.
    generators: [Option<u32>; 2],
    /// The places that the sealed values of the file are bound to; empty if nobody needs these places.
    sealed: Places,
}

impl Files {
    /// The file, which is parsed within `memory` bytes. If this is not enough, the lines of its objects are not known.
    fn at(&mut self, file: &str, memory: usize) -> &Source {
        let (bytes, needs_places) = (&self.bytes, self.needs_places);
        self.known.entry(file.to_owned()).or_insert_with(|| {
            let bytes = bytes.get(file).map(Vec::as_slice).unwrap_or_default();
            Source::new(file, bytes, memory, needs_places)
        })
    }

    /// The text of a file that was read.
    fn text(&self, file: &str) -> Option<Cow<'_, str>> {
        Some(String::from_utf8_lossy(self.bytes.get(file)?))
    }

    /// The places that the sealed values of `file` are bound to; `None` if no object comes from this file.
    pub(crate) fn sealed_in(&self, file: &str) -> Option<&Places> {
        self.known.get(file).map(|source| &source.sealed)
    }
}

/// How many objects of a file are compared with a rendered object that Kustomize may have renamed.
const COMPARED: usize = 1000;

impl Source {
    /// Parses the file, and keeps only the names and lines of its objects, and the places of sealed values if they are
    /// needed.
    fn new(file: &str, bytes: &[u8], memory: usize, needs_places: bool) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let line_of = |field| text.lines().position(|line| line.starts_with(field));
        let generators =
            ["secretGenerator:", "configMapGenerator:"].map(|field| u32::try_from(line_of(field)? + 1).ok());
        let limits = Limits { memory, ..Limits::default() };
        let Ok(parsed) = manifests::parse(file, bytes, &limits) else {
            return Self { kinds: lines_of_kinds(&text), generators, ..Self::default() };
        };
        let sealed = if needs_places { Places::of(&parsed) } else { Places::default() };
        let mut objects: HashMap<String, Vec<(String, u32)>> = HashMap::new();
        for Manifest { id, origin, .. } in parsed {
            objects.entry(id.kind).or_default().push((id.name, origin.line));
        }
        for of_kind in objects.values_mut() {
            of_kind.sort();
        }
        Self { objects, generators, sealed, ..Self::default() }
    }

    /// The line at which the object starts, or 1 if that is not known. Kustomize may have added a prefix or suffix to
    /// the object's name, so it is enough that this name contains the name in the file.
    fn line_of(&self, object: &Manifest, generated: bool) -> u32 {
        if generated {
            let is_secret = object.id.is_secret() || object.id.is_sealed_secret();
            return self.generators[usize::from(!is_secret)].unwrap_or(1);
        }
        let name = &object.id.name;
        let of_kind = self.objects.get(&object.id.kind).map(Vec::as_slice).unwrap_or_default();
        let same = of_kind.get(of_kind.partition_point(|(known, _)| known < name)).filter(|(known, _)| known == name);
        let compared = || of_kind.iter().take(COMPARED);
        let longest = || compared().filter(|(known, _)| name.contains(known)).max_by_key(|(known, _)| known.len());
        let first = || of_kind.iter().min_by_key(|(_, line)| line);
        let known = same.or_else(longest).or_else(first).map(|(_, line)| *line);
        known.or_else(|| self.kinds.get(&object.id.kind).copied()).unwrap_or(1)
    }
}

/// How many lines before a field are compared to find its line in a template.
const LINES_COMPARED: usize = 20;

/// The line of a field with a sealed value in the template that it was rendered from. `object` is the rendered object, and `from` its
/// line in the template. `None` if the line is not known, for example because another template was included.
fn line_of_field(field: &Field, object: &str, template: &str, from: u32) -> Option<u32> {
    let rendered: Vec<_> = object.lines().map(str::trim).collect();
    let item = |line: &str| line.trim_start_matches("- ").trim_start_matches(['"', '\'']).to_owned();
    let is_key = |line: &str| field.key.as_ref().is_some_and(|key| item(line).starts_with(key.as_str()));
    let has_text = |line: &str| line.contains(&field.line);
    let found = |fits: &dyn Fn(&str) -> bool| rendered.iter().position(|line| fits(line));
    let at = found(&|line| is_key(line) && has_text(line)).or_else(|| found(&has_text)).or_else(|| found(&is_key))?;
    // What the line begins with, up to the value, is the same in the template.
    let line = rendered[at];
    let end = line.find(PLACEHOLDER).or_else(|| Some(line.find(": ")? + 1)).unwrap_or_default();
    let begins = line[..end].trim_end_matches(['"', '\'', ' ']);
    let written: Vec<_> = template.lines().map(str::trim).collect();
    let fits = |line: &str| line.strip_prefix(begins).is_some_and(|rest| rest.contains("{{"));
    let alike = |number: usize| {
        let before = |lines: &[&str], at: usize| {
            lines[..at].iter().rev().take(LINES_COMPARED).map(|line| (*line).to_owned()).collect::<Vec<_>>()
        };
        let pairs = before(&rendered, at).into_iter().zip(before(&written, number));
        pairs.take_while(|(a, b)| a == b).count()
    };
    let first = usize::try_from(from).ok()?.saturating_sub(1);
    let lines = (first..written.len()).filter(|number| !begins.is_empty() && fits(written[*number]));
    // The first of those that have the most equal lines before them.
    let best = lines.max_by_key(|number| (alike(*number), std::cmp::Reverse(*number)))?;
    u32::try_from(best + 1).ok()
}

/// How many kinds of one template are remembered at most, because a remembered kind takes more memory than its line in
/// the template.
const KINDS: usize = 1000;

/// For each kind in a template, the line at which its first object starts.
fn lines_of_kinds(template: &str) -> HashMap<String, u32> {
    let (mut kinds, mut start) = (HashMap::new(), None);
    for (line, text) in (1..).zip(template.lines()) {
        let text = text.trim_end();
        if text == "---" {
            start = None;
        } else if start.is_none() && !text.is_empty() && !text.starts_with('#') && !text.starts_with("{{") {
            start = Some(line);
        }
        if let (Some(start), Some(kind)) = (start, text.strip_prefix("kind:")) {
            kinds.entry(kind.trim().to_owned()).or_insert(start);
        }
        if kinds.len() == KINDS {
            break;
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    /// A number of bytes of memory.
    struct Bytes(u64);

    impl Room for Bytes {
        fn left(&self) -> u64 {
            self.0
        }

        fn reserve(&mut self, bytes: u64) -> bool {
            bytes <= self.0
        }

        fn reserve_all(&mut self) -> bool {
            false
        }

        fn use_up(&mut self, bytes: u64) {
            self.0 = self.0.saturating_sub(bytes);
        }

        fn is_most(&self) -> bool {
            true
        }
    }

    fn object(origin: &str, generated: bool, kind: &str, name: &str) -> Object {
        let yaml = format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\n");
        Object { origin: origin.into(), generated, yaml, ..Object::default() }
    }

    /// As for Kustomize.
    fn placed(
        objects: &mut [Object],
        folder: &str,
        files: HashMap<String, Vec<u8>>,
        room: u64,
    ) -> Result<Vec<Manifest>, RenderError<Infallible>> {
        let reading = Reading::new("Kustomize", folder);
        let all = located(reading, objects, (0, files), &mut Bytes(room), of_generator)?;
        Ok(all.manifests.into_iter().flatten().collect())
    }

    #[test]
    fn an_object_is_found_in_its_template() {
        let template = "{{- if .Values.map }}\n# a map\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n---\n\n\
            {{- end }}\n\napiVersion: v1\nkind: Service\nmetadata:\n  name: {{ .Release.Name }}\n";
        let files = [("web/templates/all.yaml".to_owned(), template.as_bytes().to_vec())].into();
        let of = |kind| object("web/templates/all.yaml", false, kind, "web");
        let mut objects = [of("ConfigMap"), of("Service"), of("Pod")];
        let found = placed(&mut objects, "web", files, 1 << 20).unwrap();
        let lines: Vec<_> = found.iter().map(|manifest| manifest.origin.line).collect();
        assert_eq!(lines, [3, 10, 1]);
    }

    #[test]
    fn an_object_is_found_in_its_file_whatever_it_is_called_now() {
        let maps = "# two maps\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n---\n\
            apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web-files}\n";
        let kustomization = "resources: [maps.yaml]\nsecretGenerator:\n- name: db\nconfigMapGenerator:\n- name: env\n";
        let files = [("base/maps.yaml", maps), ("base/kustomization.yaml", kustomization)];
        let files = || files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec())).into();
        let mut objects = [
            object("base/maps.yaml", false, "ConfigMap", "prod-web"),
            object("base/maps.yaml", false, "ConfigMap", "prod-web-files"),
            object("base/kustomization.yaml", true, "ConfigMap", "env-5tb4"),
            object("base/kustomization.yaml", true, "Secret", "db-2kg9"),
            object("base/gone.yaml", false, "Service", "web"),
            object("", false, "Service", "web"),
        ];
        let found = placed(&mut objects, "over", files(), 1 << 20).unwrap();
        let places: Vec<_> = found.iter().map(|manifest| manifest.origin.to_string()).collect();
        let expected = [
            "base/maps.yaml:2",
            "base/maps.yaml:6",
            "base/kustomization.yaml:4",
            "base/kustomization.yaml:2",
            "base/gone.yaml:1",
            "over:1",
        ];
        assert_eq!(places, expected);
        let none = placed(&mut objects, "over", files(), 1 << 10);
        assert!(matches!(none, Err(RenderError::NoRoom { had_most: true, .. })), "{none:?}");
    }

    #[test]
    fn objects_of_one_document_share_the_path_of_their_file() {
        let items = "- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n\
            - {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n";
        let yaml = format!("apiVersion: v1\nkind: List\nitems:\n{items}");
        let mut objects = [Object { origin: "a".repeat(4000), yaml, ..Object::default() }];
        let found = placed(&mut objects, "app", HashMap::new(), 1 << 20).unwrap();
        assert!(std::sync::Arc::ptr_eq(&found[0].origin.file, &found[1].origin.file));
    }

    #[test]
    fn a_long_template_is_searched_once_for_all_its_objects() {
        let template = "{{ if . }}".to_owned() + &"\n".repeat(1 << 18);
        let files: HashMap<_, _> = [("web/templates/all.yaml".to_owned(), template.into_bytes())].into();
        let mut objects: Vec<_> =
            (0..1000).map(|n| object("web/templates/all.yaml", false, &format!("Kind{n}"), "a")).collect();
        let since = std::time::Instant::now();
        placed(&mut objects, "web", files, 1 << 30).unwrap();
        assert!(since.elapsed().as_secs() < 5, "{:?}", since.elapsed());
    }

    #[test]
    fn the_values_of_many_secrets_take_no_more_memory_than_there_is() {
        let sealed = STANDARD.encode([&[1, 0][..], &[7; 300], &vec![9; 100_000]].concat());
        let file = format!(
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: db, namespace: shop, annotations: \
             {{sealedsecrets.bitnami.com/namespace-wide: 'true'}}}}\nspec: {{encryptedData: {{password: {sealed}}}}}\n"
        );
        let mut placeholders = Placeholders::default();
        let wanted = SealedValues {
            file: "db.yaml".into(),
            content: None,
            key: Some("password".into()),
            path: Some("a".into()),
        };
        let parsed = manifests::parse("db.yaml", file.as_bytes(), &Limits::default()).unwrap();
        let values = placeholders.add(&wanted, &parsed).unwrap();
        let [crate::Values::SetString(set)] = &values[..] else { panic!("{values:?}") };
        let word = set.split_once('=').unwrap().1;
        let with = |count: usize, room: u64| {
            let yaml = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: web}}\nstringData: {{a: {word}}}\n");
            let mut objects = vec![Object { yaml, ..Object::default() }; count];
            let seal = |_: bool, object: &mut Manifest, take: Take<'_>| placeholders.resolve(object, "shop", take);
            let found: Result<_, RenderError<Infallible>> =
                located(Reading::new("Helm", "app"), &mut objects, (0, HashMap::new()), &mut Bytes(room), seal);
            let bytes: usize = objects.iter().map(|object| 2 * object.yaml.len()).sum();
            (found.map(|_| ()), bytes as u64)
        };
        let (found, bytes) = with(100, 1 << 30);
        assert!(found.is_ok() && bytes > 20 << 20, "{found:?}, {bytes} bytes");
        for room in [1 << 20, 4 << 20, bytes - 1] {
            let (found, taken) = with(100, room);
            assert!(matches!(found, Err(RenderError::NoRoom { .. })), "{room}: {found:?}");
            assert!(taken <= room, "{taken} bytes of {room}");
        }
    }

    #[test]
    fn a_generated_secret_is_sealed_within_the_memory_that_is_left() {
        let value = STANDARD.encode([&[1, 0][..], &[7; 300]].concat());
        let yaml = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: db, namespace: shop}}\ndata: {{password: {}}}\n",
            STANDARD.encode(value)
        );
        let with = |room: u64| {
            let mut objects = [object("kustomization.yaml", true, "", "")];
            objects[0].yaml.clone_from(&yaml);
            let found = placed(&mut objects, "app", HashMap::new(), room);
            (found, objects)
        };
        let least = (0..1 << 20).step_by(64).find(|room| with(*room).0.is_ok()).expect("a megabyte is enough");
        let (found, [object]) = with(least);
        let found = found.unwrap();
        assert!(found[0].id.is_sealed_secret() && found[0].id.namespace.as_deref() == Some("shop"), "{found:?}");
        assert!(object.yaml.contains("kind: SealedSecret"), "{object:?}");
        let text = parse_beside(TreeFile { path: "", bytes: yaml.as_bytes() }, 0, &mut Bytes(1 << 20));
        let memory = text.map_or(0, |parsed| parsed.memory as u64);
        assert!(memory > 0 && least >= 3 * memory + 2 * yaml.len() as u64, "{least} bytes are enough");
    }
}
