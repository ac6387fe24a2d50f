//! Releases the objects of Syncs and the Secrets of SealedSecrets, which would otherwise be deleted with their owners.

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
use serde_json::{Value, json};

use crate::{found::or_gone, suspension};

/// The reason for the suspension of a Sync that was not suspended before.
const REASON: &str = "gitseal was uninstalled";

/// How often a change is tried when somebody else changes the same object at the same time.
const TRIES: usize = 20;

/// Suspends a Sync, so that a controller that is installed later does not apply it by itself.
pub async fn suspend(client: &Client, sync: &Sync) -> anyhow::Result<()> {
    change(client, sync, |sync| (!sync.spec.suspend).then(|| suspension::patch(Some(REASON)))).await
}

/// Removes the finalizer, so that deleting the Sync deletes nothing else.
pub async fn let_go(client: &Client, sync: &Sync) -> anyhow::Result<()> {
    change(client, sync, |sync| {
        let others: Vec<_> = sync.finalizers().iter().filter(|finalizer| *finalizer != names::FINALIZER).collect();
        let patch = || json!({"metadata": {"finalizers": others, "resourceVersion": sync.metadata.resource_version}});
        has_finalizer(sync).then(patch)
    })
    .await
}

/// Whether the Sync is not suspended yet, or still has its finalizer.
pub fn concerns(sync: &Sync) -> bool {
    !sync.spec.suspend || has_finalizer(sync)
}

/// Whether the Sync has the controller's finalizer.
pub fn has_finalizer(sync: &Sync) -> bool {
    sync.finalizers().iter().any(|finalizer| finalizer == names::FINALIZER)
}

/// Applies to the Sync the patch that `patch` returns for it, if any. If somebody else changed the Sync in the
/// meantime, it is read again, and a new patch is made.
async fn change(client: &Client, sync: &Sync, patch: impl Fn(&Sync) -> Option<Value>) -> anyhow::Result<()> {
    let (namespace, name) = (sync.namespace().unwrap_or_default(), sync.name_any());
    let api: Api<Sync> = Api::namespaced(client.clone(), &namespace);
    let (by, told) =
        (PatchParams { field_manager: Some(suspension::SUSPEND_MANAGER.into()), ..PatchParams::default() }, || {
            format!("Sync {namespace}/{name} cannot be suspended, or its finalizer cannot be removed")
        });
    let mut read = sync.clone();
    for tries_left in (0..TRIES).rev() {
        let Some(patch) = patch(&read) else { return Ok(()) };
        match api.patch(&name, &by, &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 409 && tries_left > 0 => {}
            answer => return or_gone(answer).with_context(told),
        }
        let Some(now) = api.get_opt(&name).await.with_context(told)? else { return Ok(()) };
        read = now;
    }
    Ok(())
}

/// A Secret that would be deleted with its SealedSecret. Only its metadata is read.
pub struct Owned(ObjectMeta);

/// All Secrets that a SealedSecret owns.
pub async fn owned(client: &Client) -> anyhow::Result<Vec<Owned>> {
    let secrets: Api<Secret> = Api::all(client.clone());
    let list = secrets.list_metadata(&ListParams::default()).await.context("cannot list Secrets")?;
    let owned = list.items.into_iter().map(|secret| secret.metadata);
    Ok(owned.filter(|meta| meta.owner_references.iter().flatten().any(is_sealed_secret)).map(Owned).collect())
}

impl Owned {
    /// Removes the owner reference, and adds the annotation with which a later controller, gitseal's or that of Sealed
    /// Secrets, may take the Secret over.
    pub async fn release(&self, client: &Client) -> anyhow::Result<()> {
        let Self(meta) = self;
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let told = || format!("Secret {namespace}/{name} cannot be made independent of its SealedSecret");
        let mut read = meta.clone();
        for tries_left in (0..TRIES).rev() {
            let owners = read.owner_references.iter().flatten();
            let (sealed, others): (Vec<_>, Vec<_>) = owners.partition(|owner| is_sealed_secret(owner));
            if sealed.is_empty() {
                return Ok(());
            }
            let patch = json!({"metadata": {
                "ownerReferences": others, "annotations": {names::MANAGED: "true"}, "resourceVersion": read.resource_version,
            }});
            match secrets.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Err(kube::Error::Api(status)) if status.code == 409 && tries_left > 0 => {}
                answer => return or_gone(answer).with_context(told),
            }
            let Some(now) = secrets.get_metadata_opt(name).await.with_context(told)? else { return Ok(()) };
            read = now.metadata;
        }
        Ok(())
    }
}

fn is_sealed_secret(owner: &OwnerReference) -> bool {
    owner.kind == "SealedSecret" && owner.api_version.starts_with("bitnami.com/")
}
