//! In which namespace the controller applies an object.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crds::{Sync, custom_resource_definitions};
use manifests::{Limits, Manifest, ObjectId, parse};
use pipeline::{Kinds, Resource, namespace_for};
use serde_json::{Value, json};

use crate::output;

/// Which kinds are namespaced. Without a cluster, this is known for the kinds of Kubernetes, and for those of
/// CustomResourceDefinitions.
#[derive(Default)]
pub struct Scopes {
    /// By group and kind.
    defined: HashMap<(String, String), bool>,
    /// The kinds that were asked for and are not known.
    unknown: BTreeSet<String>,
}

impl Scopes {
    /// The scopes of gitseal's own kinds, and of all kinds that the CustomResourceDefinitions among `objects` define.
    pub fn of<'m>(objects: impl IntoIterator<Item = &'m Manifest>) -> Self {
        let mut scopes = Self::default();
        for definition in custom_resource_definitions() {
            let text = crds::to_yaml(&definition);
            parse("gitseal", text.as_bytes(), &Limits::default()).iter().flatten().for_each(|own| scopes.add(own));
        }
        objects.into_iter().for_each(|object| scopes.add(object));
        scopes
    }

    fn add(&mut self, object: &Manifest) {
        if object.id.group != "apiextensions.k8s.io" || object.id.kind != "CustomResourceDefinition" {
            return;
        }
        let text = |pointer: &str| object.body.get("spec")?.pointer(pointer)?.as_str();
        if let (Some(group), Some(kind), Some(scope)) = (text("/group"), text("/names/kind"), text("/scope")) {
            self.defined.insert((group.to_owned(), kind.to_owned()), scope == "Namespaced");
        }
    }

    /// Whether the kind of an object is namespaced; `None` if that is not known.
    pub fn is_namespaced(&self, id: &ObjectId) -> Option<bool> {
        let defined = || self.defined.get(&(id.group.clone(), id.kind.clone())).copied();
        schemas::is_namespaced(&id.group, &id.kind).or_else(defined)
    }

    /// The objects with the namespaces in which the controller applies them for `sync`. If it is not known whether a kind
    /// is namespaced, its objects keep the namespace of their manifest.
    pub fn as_applied(&mut self, sync: &Sync, mut objects: Vec<Manifest>) -> Vec<Manifest> {
        for object in &mut objects {
            let namespaced = self.is_namespaced(&object.id);
            // Only objects of namespaced kinds name a namespace.
            let namespaced = namespaced.or(object.id.namespace.as_ref().map(|_| true));
            let Some(Value::Object(metadata)) = object.body.get_mut("metadata") else { continue };
            match namespaced {
                Some(true) => {
                    let namespace = namespace_for(sync, object.id.namespace.as_deref()).to_owned();
                    metadata.insert("namespace".to_owned(), json!(namespace));
                    object.id.namespace = Some(namespace);
                }
                Some(false) => {
                    metadata.shift_remove("namespace");
                    object.id.namespace = None;
                }
                None => drop(self.unknown.insert(format!("{} {}", object.api_version(), object.id.kind))),
            }
        }
        objects
    }

    /// The kinds of the objects. If it is not known whether a kind is namespaced, it counts as namespaced.
    pub fn kinds(&self, objects: &[Manifest]) -> Kinds {
        let mut kinds = Kinds::default();
        for object in objects {
            let resource = Resource {
                group: object.id.group.clone(),
                version: object.version.clone(),
                kind: object.id.kind.clone(),
                plural: object.id.kind.to_lowercase(),
                namespaced: self.is_namespaced(&object.id).unwrap_or(true),
                watchable: true,
            };
            kinds.insert(object, Arc::new(resource));
        }
        kinds
    }

    /// Tells people which objects are printed without a namespace because their scope is not known.
    pub fn tell(&self) {
        for kind in &self.unknown {
            output::note(format_args!(
                "objects of {kind} are printed without a namespace: no CustomResourceDefinition in the repository says \
                whether they are namespaced"
            ));
        }
    }
}
