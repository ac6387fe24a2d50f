//! Removes what Helm stores about a release that a Sync has taken over.

use anyhow::{Context as _, anyhow};
use crds::{conditions, find_condition};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _, api::DeleteParams};
use manifests::ObjectId;
use pipeline::{Inventory, namespace_for};

use super::{
    HelmArgs,
    release::{self, Unknown},
    sync_of,
};
use crate::{
    global::Global,
    output::{self, Hint, counted},
};

pub(super) async fn run(args: &HelmArgs, global: &Global) -> anyhow::Result<()> {
    let (name, namespace) = (&args.release, global.default_namespace());
    let client = global.client().await?;
    let sync = sync_of(&client, &namespace, name).await?;
    let revisions = match release::revisions(&client, &namespace, name).await {
        Ok(revisions) => revisions,
        Err(Unknown::NotThere(error)) => {
            let Some(sync) = sync else { return Err(error) };
            output::note(format_args!(
                "nothing to remove: Helm does not know the release {namespace}/{name}; Sync {namespace}/{} renders its chart",
                sync.name_any()
            ));
            return Ok(());
        }
        Err(Unknown::NotRead(error)) => return Err(error),
    };
    let sync = sync.ok_or_else(|| {
        Hint::error(
            format!("no Sync in the namespace {namespace} renders a chart with the release name {name}"),
            "run the command without --finish first, and apply the Sync that it prints",
        )
    })?;
    let ready = sync.status.as_ref().and_then(|status| find_condition(&status.conditions, conditions::READY));
    if ready.is_none_or(|ready| ready.status != crds::ConditionStatus::True) {
        let why = ready.map(|ready| format!(": {}", ready.message)).unwrap_or_default();
        return Err(Hint::error(
            format!("Sync {namespace}/{} is not Ready{why}", sync.name_any()),
            "run --finish again when the Sync is Ready; until then, `helm` still knows the release",
        ));
    }
    let release = release::deployed(&revisions, name)?;
    let inventory = sync.status.as_ref().map(|status| Inventory::read(&status.inventory)).transpose();
    let inventory =
        inventory.map_err(|why| anyhow!("cannot read the inventory of the Sync: {why}"))?.unwrap_or_default();
    let left: Vec<ObjectId> = release
        .objects
        .iter()
        .map(|object| object.id.clone())
        .filter(|id| {
            let namespaced =
                ObjectId { namespace: Some(namespace_for(&sync, id.namespace.as_deref()).to_owned()), ..id.clone() };
            let cluster_wide = ObjectId { namespace: None, ..id.clone() };
            !inventory.contains(&namespaced) && !inventory.contains(&cluster_wide)
        })
        .collect();
    drop(release);
    for id in &left {
        output::warn(format_args!(
            "Sync {namespace}/{} does not have {id}; if this object is in the cluster, nothing manages it afterwards",
            sync.name_any()
        ));
    }
    let what = format!("{} of the release {namespace}/{name}", counted(revisions.len(), "stored revision"));
    if !args.yes && !output::confirm(&format!("Remove {what}? The objects stay."), "give --yes")? {
        return Ok(());
    }
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    // The oldest revision is deleted first: after an interruption, Helm still shows the newest one.
    for revision in revisions.iter().rev() {
        let secret = revision.name_any();
        match api.delete(&secret, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.with_context(|| format!("cannot delete the Secret {namespace}/{secret}"))?),
        }
    }
    output::note(format_args!("removed {what}; Sync {namespace}/{} has the objects", sync.name_any()));
    Ok(())
}
