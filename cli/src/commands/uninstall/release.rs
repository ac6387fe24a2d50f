//! What would go with something else is released from it.

use anyhow::Context;
use crds::{Sync, names};
use k8s_openapi::{
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{found::or_gone, suspension};

/// Why a Sync is suspended that nobody suspended before.
const REASON: &str = "gitseal was uninstalled";

/// Suspends a Sync, so that a controller that comes back does nothing by itself.
pub async fn suspend(client: &Client, sync: &Sync) -> anyhow::Result<()> {
    if sync.spec.suspend {
        return Ok(());
    }
    change(client, sync, &suspension::patch(Some(REASON))).await
}

/// Takes the finalizer away, so that the Sync can be deleted and nothing goes with it.
pub async fn let_go(client: &Client, sync: &Sync) -> anyhow::Result<()> {
    if !sync.finalizers().iter().any(|finalizer| finalizer == names::FINALIZER) {
        return Ok(());
    }
    let others: Vec<_> = sync.finalizers().iter().filter(|finalizer| *finalizer != names::FINALIZER).collect();
    let patch = json!({"metadata": {"finalizers": others, "resourceVersion": sync.metadata.resource_version}});
    change(client, sync, &patch).await
}

async fn change(client: &Client, sync: &Sync, patch: &serde_json::Value) -> anyhow::Result<()> {
    let (namespace, name) = (sync.namespace().unwrap_or_default(), sync.name_any());
    let api: Api<Sync> = Api::namespaced(client.clone(), &namespace);
    or_gone(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await)
        .with_context(|| format!("cannot change Sync {namespace}/{name}; run the command again"))
}

/// A Secret that goes with its SealedSecret. Only its metadata are read.
pub struct Owned(ObjectMeta);

/// All Secrets that a SealedSecret owns.
pub async fn owned(client: &Client) -> anyhow::Result<Vec<Owned>> {
    let secrets: Api<Secret> = Api::all(client.clone());
    let list = secrets.list_metadata(&ListParams::default()).await.context("cannot list Secrets")?;
    let owned = list.items.into_iter().map(|secret| secret.metadata);
    Ok(owned.filter(|meta| meta.owner_references.iter().flatten().any(is_sealed_secret)).map(Owned).collect())
}

impl Owned {
    /// Takes the owner away. The annotation lets a controller that comes back take the Secret over, ours or that of Sealed
    /// Secrets.
    pub async fn release(&self, client: &Client) -> anyhow::Result<()> {
        let Self(meta) = self;
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let others: Vec<_> = meta.owner_references.iter().flatten().filter(|owner| !is_sealed_secret(owner)).collect();
        let patch = json!({"metadata": {
            "ownerReferences": others, "annotations": {names::MANAGED: "true"}, "resourceVersion": meta.resource_version,
        }});
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        or_gone(secrets.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch)).await)
            .with_context(|| format!("cannot release Secret {namespace}/{name}; run the command again"))
    }
}

fn is_sealed_secret(owner: &OwnerReference) -> bool {
    owner.kind == "SealedSecret" && owner.api_version.starts_with("bitnami.com/")
}
