//! Changes what was rendered, as the fields of a Sync say: `components`, `namePrefix`, `nameSuffix`, `commonLabels`,
//! `commonAnnotations`, `images` and `patches`. Then variables are replaced ([`substitute`]).
//!
//! Kustomize does the work, in the same process as for kustomizations. It gets a kustomization that is made from these
//! fields and exists only in the memory of that process. Its resources are the kustomizations in the Sync's folder, and
//! all other objects of the folder or of the chart. So a folder is rendered only once, and Kustomize computes names
//! with hashes after the changes.

use std::{borrow::Cow, sync::Arc};

use crds::Sync;
use manifests::{Manifest, json_for_yaml};
use pipeline::{
    Room, namespace_for,
    render::{Base, RenderError, reserve},
};
use serde::Serialize;
use worker::Cancel;
use zeroize::Zeroizing;

use crate::{
    Applied, Inputs, Kustomization, Object, Release, RenderedKustomization, Renderer, RendererError, Repository,
    Request, Unrendered,
    manifests::{Given, Located, Reading, Remembering, misplaced, of_generator, unrendered, with_placeholders},
    places::{self, Places},
    sealed::{Placeholders, Unsealable},
    substitute::{Likely, SUBSTITUTE, Variables, substitute},
    sync::keep_what_helm_keeps,
};

/// The fields of a Sync that change what was rendered.
#[derive(Clone)]
pub struct Changes {
    sync: Arc<Sync>,
    inputs: Arc<Inputs>,
}

/// See [`Changes::names`].
#[derive(Default)]
pub struct Names(Option<Variables>);

/// Gives objects the names that they have after the variables of a Sync are replaced.
pub struct Naming<'n>(Option<Likely<'n>>);

impl Names {
    /// The names of the objects of one folder.
    pub fn of_folder(&self) -> Naming<'_> {
        Naming(self.0.as_ref().map(Likely::new))
    }
}

impl Naming<'_> {
    /// The object with the name and namespace that it has after its variables are replaced.
    pub fn of<'m>(&mut self, manifest: &'m Manifest) -> Cow<'m, Manifest> {
        match &mut self.0 {
            Some(likely) => Cow::Owned(likely.object(manifest.clone())),
            None => Cow::Borrowed(manifest),
        }
    }
}

/// The changes of a Sync, as they are sent to the worker process in a request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OverlayRequest<'a> {
    pub(crate) folders: &'a [String],
    pub(crate) objects: Vec<String>,
    /// The namespace in which objects are applied whose manifests name none. Empty if that makes no difference.
    pub(crate) namespace: &'a str,
    /// Whether the objects whose manifests name another namespace are applied there, too.
    pub(crate) moves_all: bool,
    #[serde(flatten)]
    pub(crate) fields: &'a crds::Overlay,
}

impl Changes {
    /// The changes of `sync`; `None` if it changes nothing.
    pub fn of(sync: &Sync) -> Option<Self> {
        if sync.spec.overlay.is_empty() && !sync.spec.substitution.is_wanted() {
            return None;
        }
        let (metadata, spec) = (sync.metadata.clone(), sync.spec.clone());
        Some(Self { sync: Arc::new(Sync { metadata, spec, status: None }), inputs: Arc::default() })
    }

    /// The same changes, with what the Sync gets from outside of its repository.
    #[must_use]
    pub fn with(&self, inputs: Inputs) -> Self {
        Self { sync: self.sync.clone(), inputs: Arc::new(inputs) }
    }

    /// Whether Kustomize makes some of the changes. If not, only variables are replaced.
    pub fn need_kustomize(&self) -> bool {
        !self.sync.spec.overlay.is_empty()
    }

    /// Replaces the variables in the rendered objects of `folder`. Call this if the changes do not need Kustomize.
    ///
    /// # Errors
    /// A file with variables cannot be read, or a variable cannot be replaced, or there is no more memory in `room`.
    pub fn substitute<R: Repository>(
        &self,
        folder: &str,
        mut objects: Vec<Manifest>,
        repository: &R,
        room: &mut dyn Room,
        cancel: &Cancel,
    ) -> Result<Vec<Manifest>, RenderError<R::Error>> {
        let mut placeholders = Placeholders::default();
        if let Some(variables) = self.variables(folder, repository, room, &mut placeholders)? {
            substitute(&variables, &mut objects, folder, room, cancel)?;
        }
        self.seal(&mut objects, &placeholders, folder, room)?;
        Ok(objects)
    }

    /// How names of objects get their variables replaced, for manifests that are read but not rendered. `folder` is the folder of
    /// the Sync.
    ///
    /// # Errors
    /// A file with variables cannot be read, or there is no more memory in `room`.
    pub fn names<R: Repository>(
        &self,
        folder: &str,
        repository: &R,
        room: &mut dyn Room,
    ) -> Result<Names, RenderError<R::Error>> {
        Ok(Names(self.variables(folder, repository, room, &mut Placeholders::default())?))
    }

    /// The variables of the Sync, if it replaces variables. Those that are sealed are added to `placeholders`.
    fn variables<R: Repository>(
        &self,
        folder: &str,
        repository: &R,
        room: &mut dyn Room,
        placeholders: &mut Placeholders,
    ) -> Result<Option<Variables>, RenderError<R::Error>> {
        let substitution = &self.sync.spec.substitution;
        if !substitution.is_wanted() {
            return Ok(None);
        }
        Variables::read(substitution, &self.inputs, folder, repository, room, placeholders).map(Some)
    }

    /// Puts the sealed values of variables into Secrets.
    fn seal<E>(
        &self,
        objects: &mut [Manifest],
        placeholders: &Placeholders,
        folder: &str,
        room: &mut dyn Room,
    ) -> Result<(), RenderError<E>> {
        seal(objects, placeholders, (SUBSTITUTE, folder), room, |object| self.namespace(object.id.namespace.as_deref()))
    }

    /// The namespace that an object is applied in, if its kind is namespaced, given the namespace in its manifest.
    fn namespace(&self, own: Option<&str>) -> String {
        namespace_for(&self.sync, own).to_owned()
    }
}

impl Renderer {
    /// The objects of `base` with the changes of a Sync, which need Kustomize. `folder` is the folder of the Sync.
    ///
    /// # Errors
    /// See [`RendererError`]; or a file cannot be read, or a SealedSecret would no longer have the name and the
    /// namespace that its values were sealed for, or Kubernetes would not accept an object, or a variable cannot be
    /// replaced, or there is no more memory in `room`.
    pub fn changed<R: Repository>(
        &self,
        changes: &Changes,
        folder: &str,
        base: Base,
        repository: &R,
        room: &mut dyn Room,
        cancel: &Cancel,
    ) -> Result<Vec<Manifest>, RenderError<R::Error>> {
        let mut placeholders = Placeholders::default();
        let variables = changes.variables(folder, repository, room, &mut placeholders)?;
        let mut manifests = self.overlaid(changes, variables.as_ref(), (folder, base), repository, room, cancel)?;
        changes.seal(&mut manifests, &placeholders, folder, room)?;
        Ok(manifests)
    }

    /// The objects of a folder with the changes that Kustomize makes, and with their variables replaced.
    fn overlaid<R: Repository>(
        &self,
        changes: &Changes,
        variables: Option<&Variables>,
        (folder, base): (&str, Base),
        repository: &R,
        room: &mut dyn Room,
        cancel: &Cancel,
    ) -> Result<Vec<Manifest>, RenderError<R::Error>> {
        let Base { objects, kustomizations } = base;
        if objects.is_empty() && kustomizations.is_empty() {
            return Ok(objects);
        }
        let files = Remembering::new(repository, room);
        let mut sealed = places_of(&objects, variables);
        let given: Vec<_> = objects.iter().map(Given::of).collect();
        let texts = self.texts(folder, &objects, &files)?;
        drop(objects);
        // Kustomize takes twice as long with a namespace. So it gets none if it would make no difference: for plain manifests that
        // name no namespace, neither their own nor that of another object.
        let names_any = texts.iter().any(|text| text.contains("\"namespace\""));
        let fields = &changes.sync.spec.overlay;
        let may_name =
            names_any || !(kustomizations.is_empty() && fields.components.is_empty() && fields.patches.is_empty());
        let overlay = OverlayRequest {
            folders: &kustomizations,
            objects: texts,
            namespace: if may_name { namespace_for(&changes.sync, None) } else { "" },
            moves_all: changes.sync.spec.target_namespace.is_some(),
            fields,
        };
        let request = Request::Kustomize(Kustomization { path: folder, overlay: Some(overlay) });
        let rendered: Result<RenderedKustomization, _> = self.render(&request, &files, cancel);
        drop(request);
        let failed = |error| unrendered("Kustomize", folder, with_places(error, &given));
        let RenderedKustomization { mut objects } = rendered.map_err(failed)?;
        let reading = Reading { tool: "Kustomize", folder, given: &given, needs_places: true };
        let located = files.located(reading, &mut objects, of_generator)?;
        drop::<Vec<Object>>(objects);
        let Located { manifests, files } = located;
        let mut manifests: Vec<_> = manifests.into_iter().flatten().collect();
        if let Some(variables) = variables {
            substitute(variables, &mut manifests, folder, room, cancel)?;
        }
        let namespace = |own: Option<&str>| changes.namespace(own);
        let known = |manifest: &Manifest| files.sealed_in(&manifest.origin.file);
        let is_in_doubt = |manifest: &Manifest| {
            let known: Vec<_> = std::iter::once(&sealed).chain(known(manifest)).collect();
            places::is_in_doubt(manifest, &known, namespace)
        };
        if manifests.iter().any(is_in_doubt) {
            // A kustomization may itself change the name or the namespace of a SealedSecret, for example by a prefix.
            // Then the values were sealed for the name and the namespace that the kustomization gives it, before the
            // changes of the Sync.
            for kustomization in &kustomizations {
                let built = self.build(kustomization, repository, room, cancel)?.manifests;
                sealed.extend(places_of(&built, variables));
            }
        }
        for manifest in &manifests {
            let known: Vec<_> = std::iter::once(&sealed).chain(known(manifest)).collect();
            if let Some(moved) = places::moved(manifest, &known, namespace) {
                let why = format!("{}: {}: {}", manifest.origin, manifest.id, moved.in_words(namespace));
                return Err(misplaced("Kustomize", folder, why));
            }
        }
        Ok(manifests)
    }

    /// The objects of a chart that a Sync applies, with its changes. Sealed values are put into Secrets after the changes.
    ///
    /// # Errors
    /// Those of [`Renderer::release`], [`BuiltRelease::into_applied`](crate::BuiltRelease::into_applied) and
    /// [`Renderer::changed`].
    pub fn changed_release<R: Repository>(
        &self,
        changes: &Changes,
        release: &Release,
        repository: &R,
        room: &mut dyn Room,
        cancel: &Cancel,
    ) -> Result<Applied, RenderError<R::Error>> {
        let folder = release.chart.path.as_str();
        let files = Remembering::new(repository, room);
        let (chart, mut placeholders) = with_placeholders(release, &files)?;
        let rendered = self.helm(&chart, &files, cancel).map_err(|error| unrendered("Helm", folder, error));
        let mut rendered = rendered?;
        rendered.notes = placeholders.in_notes(&rendered.notes);
        let objects = rendered.objects.iter_mut().map(|object| &mut object.object);
        let Located { manifests, .. } = files.located(Reading::new("Helm", folder), objects, |_, _, _| Ok(None))?;
        let applied = crate::BuiltRelease::new(release, rendered, manifests).into_applied();
        let not_applied = |why| RenderError::NotRendered { folder: folder.to_owned(), why };
        let Applied { objects: mut manifests, notes } = applied.map_err(not_applied)?;
        let variables = changes.variables(folder, repository, room, &mut placeholders)?;
        if changes.need_kustomize() {
            let base = Base { objects: manifests, kustomizations: Vec::new() };
            manifests = self.overlaid(changes, variables.as_ref(), (folder, base), repository, room, cancel)?;
        } else if let Some(variables) = variables {
            substitute(&variables, &mut manifests, folder, room, cancel)?;
        }
        let namespace_of = |manifest: &Manifest| release.namespace_of(manifest).to_owned();
        seal(&mut manifests, &placeholders, ("Helm", folder), room, namespace_of)?;
        placeholders.all_used().map_err(|why| misplaced("Helm", folder, why))?;
        // The annotation may come from a patch, or its value from a variable.
        keep_what_helm_keeps(&mut manifests);
        Ok(Applied { objects: manifests, notes })
    }

    /// The objects as texts.
    fn texts<R: Repository>(
        &self,
        folder: &str,
        objects: &[Manifest],
        files: &Remembering<'_, '_, R>,
    ) -> Result<Vec<String>, RenderError<R::Error>> {
        let (mut texts, mut bytes) = (Vec::new(), 0);
        for Manifest { origin, body, .. } in objects {
            let json = serde_json::to_vec(body).expect("an object can be written as JSON");
            let text = String::from_utf8_lossy(&json_for_yaml(Zeroizing::new(json))).into_owned();
            bytes += text.len() as u64;
            if bytes > self.limits.files {
                let error = RendererError::Files(self.limits.files);
                return Err(unrendered("Kustomize", folder, Unrendered::Renderer(error)));
            }
            // Memory is needed for the text, for the request that contains it, and for a copy of the request while it
            // is sent to the worker process.
            files.hold(&origin.file, 4 * text.len() as u64)?;
            texts.push(text);
        }
        Ok(texts)
    }
}

/// The places of the sealed values among objects whose variables are not replaced yet. A value is sealed for the place that its
/// object has with its variables replaced.
fn places_of(objects: &[Manifest], variables: Option<&Variables>) -> Places {
    let Some(variables) = variables else { return Places::of(objects) };
    let sealed = objects.iter().filter(|object| object.id.is_sealed_secret()).cloned();
    let mut likely = Likely::new(variables);
    Places::of(&sealed.map(|object| likely.object(object)).collect::<Vec<_>>())
}

/// Puts sealed values into the Secrets that have placeholders.
fn seal<E>(
    manifests: &mut [Manifest],
    placeholders: &Placeholders,
    (tool, folder): (&'static str, &str),
    room: &mut dyn Room,
    namespace_of: impl Fn(&Manifest) -> String,
) -> Result<(), RenderError<E>> {
    for manifest in manifests {
        let (origin, id, namespace) = (manifest.origin.clone(), manifest.id.clone(), namespace_of(manifest));
        let mut no_room = None;
        let mut take = |bytes: u64| {
            no_room = reserve(room, &origin.file, bytes).err();
            no_room.is_none()
        };
        let sealed = placeholders.resolve(manifest, &namespace, &mut take);
        let refused = |why| misplaced(tool, folder, format!("{origin}: {id}: {why}"));
        match sealed {
            // The text of the SealedSecret is dropped. The parsed object needs about as much memory as the text.
            Ok(text) => room.use_up(text.map_or(0, |text| text.len() as u64)),
            Err(Unsealable::Wrong(why) | Unsealable::Misplaced(why, _)) => return Err(refused(why)),
            Err(Unsealable::NoRoom) => {
                return Err(no_room.unwrap_or_else(|| {
                    refused("there is not enough memory for the sealed values of this Secret".to_owned())
                }));
            }
        }
    }
    Ok(())
}

/// What the names of the files begin with in which the worker process gets the objects; an index follows.
/// `go/overlay.go` has the same constant.
const OBJECT_NAME: &str = "gitseal-object-";

/// In an error, replaces the index of each object by its file and line in Git.
fn with_places<E>(error: Unrendered<E>, given: &[Given]) -> Unrendered<E> {
    match error {
        Unrendered::Renderer(RendererError::Failed(message)) => {
            Unrendered::Renderer(RendererError::Failed(in_git(&message, given)))
        }
        other => other,
    }
}

fn in_git(message: &str, given: &[Given]) -> String {
    let mut parts = message.split(OBJECT_NAME);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (index, rest) = part.split_at(part.find(|one: char| !one.is_ascii_digit()).unwrap_or(part.len()));
        match index.parse().ok().and_then(|index: usize| given.get(index)) {
            Some(given) => text.push_str(&given.origin.to_string()),
            None => text.push_str("an object"),
        }
        text.push_str(rest);
    }
    text
}
