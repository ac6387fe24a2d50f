//! The kinds that the cluster serves, asked for once each.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use kube::{
    Client,
    core::{ApiResource, GroupVersionKind},
    discovery::{ApiCapabilities, Scope, oneshot::pinned_kind},
};
use manifests::Manifest;
use serde_json::Value;

/// Kinds of a folder's manifests.
pub struct Kinds {
    /// `None`: the cluster does not serve it.
    served: HashMap<GroupVersionKind, Option<(ApiResource, ApiCapabilities)>>,
    /// Group and kind → whether it is namespaced, of the CustomResourceDefinitions in the folder.
    defined: HashMap<(String, String), bool>,
}

impl Kinds {
    /// Asks for every kind in `manifests`.
    pub async fn find(client: &Client, manifests: &[Manifest]) -> anyhow::Result<Self> {
        let wanted: HashSet<GroupVersionKind> = manifests.iter().map(kind_of).collect();
        let mut served = HashMap::with_capacity(wanted.len());
        for kind in wanted {
            let found = match pinned_kind(client, &kind).await {
                Ok(found) => Some(found),
                Err(kube::Error::Discovery(_)) => None,
                Err(kube::Error::Api(status)) if status.code == 404 => None,
                Err(error) => {
                    return Err(error).context("cannot ask the cluster which kinds it serves");
                }
            };
            served.insert(kind, found);
        }
        Ok(Self { served, defined: manifests.iter().filter_map(definition).collect() })
    }

    /// The kind of `manifest`, if the cluster serves it.
    pub fn resource(&self, manifest: &Manifest) -> Option<&ApiResource> {
        Some(&self.served.get(&kind_of(manifest))?.as_ref()?.0)
    }

    /// Whether objects of the kind live in a namespace; unknown kinds are left as they are written.
    pub fn scope_of(&self, manifest: &Manifest) -> Option<Scope> {
        if let Some(Some((_, capabilities))) = self.served.get(&kind_of(manifest)) {
            return Some(capabilities.scope.clone());
        }
        let namespaced = *self.defined.get(&(manifest.id.group.clone(), manifest.id.kind.clone()))?;
        Some(if namespaced { Scope::Namespaced } else { Scope::Cluster })
    }

    /// Whether a CustomResourceDefinition of the folder defines the kind of `manifest`.
    pub fn is_defined(&self, manifest: &Manifest) -> bool {
        self.defined.contains_key(&(manifest.id.group.clone(), manifest.id.kind.clone()))
    }
}

fn kind_of(manifest: &Manifest) -> GroupVersionKind {
    GroupVersionKind::gvk(&manifest.id.group, &manifest.version, &manifest.id.kind)
}

fn definition(manifest: &Manifest) -> Option<((String, String), bool)> {
    if manifest.id.kind != "CustomResourceDefinition" || manifest.id.group != "apiextensions.k8s.io" {
        return None;
    }
    let spec = manifest.body.get("spec")?;
    let group = spec.get("group").and_then(Value::as_str)?;
    let kind = spec.pointer("/names/kind").and_then(Value::as_str)?;
    Some(((group.to_owned(), kind.to_owned()), spec.get("scope").and_then(Value::as_str) == Some("Namespaced")))
}
