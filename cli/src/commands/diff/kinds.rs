//! The kinds that the cluster serves, asked for once each.

use std::{collections::HashSet, sync::Arc};

use anyhow::Context;
use kube::{
    Client,
    core::GroupVersionKind,
    discovery::{Scope, oneshot::pinned_kind},
};
use manifests::Manifest;
use pipeline::{Kinds, Resource, plan::kinds_defined};

/// The kinds of the manifests: those that the cluster serves, and those that the manifests define.
pub async fn find(client: &Client, manifests: &[Manifest]) -> anyhow::Result<Found> {
    let mut found = Found::default();
    for manifest in manifests {
        let kind = GroupVersionKind::gvk(&manifest.id.group, &manifest.version, &manifest.id.kind);
        if found.kinds.of(manifest).is_none()
            && !found.unknown.contains(&kind)
            && let Some(resource) = resource(client, &kind).await?
        {
            found.kinds.insert(manifest, Arc::new(resource));
        } else if found.kinds.of(manifest).is_none() {
            found.unknown.insert(kind);
        }
    }
    found.kinds.extend(kinds_defined(manifests));
    Ok(found)
}

/// Kinds of a folder's manifests.
#[derive(Default)]
pub struct Found {
    pub kinds: Kinds,
    /// What the cluster does not serve.
    unknown: HashSet<GroupVersionKind>,
}

impl Found {
    /// Whether the cluster serves the kind already.
    pub fn is_served(&self, resource: &Resource) -> bool {
        let kind = GroupVersionKind::gvk(&resource.group, &resource.version, &resource.kind);
        !self.unknown.contains(&kind)
    }
}

/// The kind as the cluster serves it, if it does.
pub async fn resource(client: &Client, kind: &GroupVersionKind) -> anyhow::Result<Option<Resource>> {
    match pinned_kind(client, kind).await {
        Ok((resource, capabilities)) => Ok(Some(Resource {
            group: resource.group,
            version: resource.version,
            kind: resource.kind,
            plural: resource.plural,
            namespaced: capabilities.scope == Scope::Namespaced,
            watchable: true,
        })),
        Err(kube::Error::Discovery(_)) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error).context("cannot ask the cluster which kinds it serves"),
    }
}
