//! The kinds that the cluster serves. Each kind is requested only once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use futures::{StreamExt, stream};
use kube::{
    Client,
    core::GroupVersionKind,
    discovery::{Scope, oneshot::pinned_kind},
};
use manifests::Manifest;
use pipeline::{Kinds, Resource, plan::kinds_defined, versions_instead};

use super::CONCURRENCY;

/// The kinds of the manifests: those that the cluster serves, and those that the manifests define.
///
/// # Errors
/// The cluster does not say which kinds it serves.
pub async fn find(client: &Client, manifests: &[Manifest]) -> anyhow::Result<Found> {
    let kind = |manifest: &Manifest| GroupVersionKind::gvk(&manifest.id.group, &manifest.version, &manifest.id.kind);
    let mut found = Found::default();
    found.ask(client, manifests.iter().map(kind)).await;
    found.kinds.extend(kinds_defined(manifests));
    let mut unknown = Vec::new();
    for manifest in manifests {
        match found.served(&kind(manifest))? {
            Some(resource) => found.kinds.insert(manifest, resource),
            None if found.kinds.of(manifest).is_none() => unknown.push(manifest),
            None => {}
        }
    }
    if !unknown.is_empty() {
        found.find_instead(client, &unknown).await?;
    }
    Ok(found)
}

/// Kinds of a folder's manifests, and what the cluster says about these and other kinds.
#[derive(Default)]
pub struct Found {
    pub kinds: Kinds,
    /// What the cluster said about each kind: `None` if it does not serve the kind. An error if it did not answer.
    answers: HashMap<GroupVersionKind, Result<Option<Arc<Resource>>, String>>,
}

impl Found {
    /// Asks the cluster about kinds that it was not asked about yet.
    pub async fn ask(&mut self, client: &Client, kinds: impl Iterator<Item = GroupVersionKind>) {
        let new: HashSet<_> = kinds.filter(|kind| !self.answers.contains_key(kind)).collect();
        let answers = stream::iter(new).map(|kind| async move {
            let answer = resource(client, &kind).await.map(|found| found.map(Arc::new));
            (kind, answer.map_err(|error| format!("{error:#}")))
        });
        let answers: Vec<_> = answers.buffer_unordered(CONCURRENCY).collect().await;
        self.answers.extend(answers);
    }

    /// For kinds that the cluster does not serve in the version of the manifests, finds the versions in which it
    /// serves them.
    async fn find_instead(&mut self, client: &Client, unknown: &[&Manifest]) -> anyhow::Result<()> {
        let groups = client.list_api_groups().await.context("cannot ask the cluster which kinds it serves")?;
        let served: Vec<_> = groups.groups.into_iter().flat_map(|group| group.versions).collect();
        let others = |manifest: &Manifest| {
            let served = served.iter().map(|version| version.group_version.as_str());
            let others = versions_instead(&manifest.id.group, served).into_iter();
            others
                .map(|(group, version)| GroupVersionKind::gvk(&group, &version, &manifest.id.kind))
                .collect::<Vec<_>>()
        };
        self.ask(client, unknown.iter().flat_map(|manifest| others(manifest))).await;
        for manifest in unknown {
            let mut instead = others(manifest);
            instead.retain(|kind| self.served(kind).is_ok_and(|found| found.is_some()));
            let instead = instead.iter().map(GroupVersionKind::api_version).collect();
            self.kinds.insert_instead(manifest, instead);
        }
        Ok(())
    }

    /// How the cluster serves a kind that was requested before; `None` if it does not serve the kind.
    ///
    /// # Errors
    /// The cluster did not answer when it was asked for the kind.
    pub fn served(&self, kind: &GroupVersionKind) -> anyhow::Result<Option<Arc<Resource>>> {
        match self.answers.get(kind) {
            Some(Ok(answer)) => Ok(answer.clone()),
            Some(Err(why)) => Err(anyhow!(why.clone())),
            None => bail!("the cluster was not asked for the kind {}", kind.kind),
        }
    }

    /// Whether the cluster serves the kind already, before the CustomResourceDefinitions of the folder are applied.
    pub fn is_served(&self, resource: &Resource) -> bool {
        let kind = GroupVersionKind::gvk(&resource.group, &resource.version, &resource.kind);
        !matches!(self.answers.get(&kind), Some(Ok(None)))
    }
}

/// The kind as the cluster serves it; `None` if the cluster does not serve it.
async fn resource(client: &Client, kind: &GroupVersionKind) -> anyhow::Result<Option<Resource>> {
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
