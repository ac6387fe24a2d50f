//! Checks that the cluster has everything that the controller needs.

use std::time::Duration;

use kube::Resource;

use super::{RETRY, StartError, access::Access};
use crate::{
    cluster::{Api, Discovery, DiscoveryError},
    context::Context,
};

/// How often a controller that only unseals checks whether the cluster serves Repositories and Syncs by now.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The work that the controller can do in this cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Work {
    /// The controller works on Repositories, Syncs and SealedSecrets.
    Everything,
    /// The controller works only on SealedSecrets, because the cluster has only their CustomResourceDefinition, as the
    /// Sealed Secrets project installs it.
    SealedSecretsOnly,
}

/// Finds out which work is possible with the kinds that the cluster serves. If the API server does not answer, this
/// function asks again until it does.
pub(super) async fn work(api: &Api, discovery: &Discovery) -> Result<Work, StartError> {
    if !is_served::<crds::SealedSecret>(api, discovery).await? {
        return Err(StartError::MissingCrd(crd_name::<crds::SealedSecret>()));
    }
    let missing: Vec<_> = missing_of_gitops(api, discovery).await?;
    if missing.is_empty() {
        return Ok(Work::Everything);
    }
    tracing::warn!(
        missing = missing.join(", "),
        "SealedSecrets are unsealed, but nothing is applied from Git: the cluster lacks CustomResourceDefinitions; to \
         install them: gitseal install --apply"
    );
    Ok(Work::SealedSecretsOnly)
}

/// Waits until the cluster also has the kinds that were missing for `work`, and the controller has the rights for them.
/// Then the controller ends, and does all work after its next start.
pub(super) async fn more_work(ctx: &Context, work: Work, namespace: Option<String>) {
    if work == Work::Everything {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let missing = missing_of_gitops(&ctx.api, &ctx.cluster.discovery).await;
        if missing.is_ok_and(|missing| missing.is_empty())
            && Access::ask(&ctx.api.client(), namespace.as_deref(), true).await.may_apply()
        {
            tracing::info!("Repositories and Syncs can be watched now: restarting to apply from Git as well");
            return;
        }
    }
}

async fn missing_of_gitops(api: &Api, discovery: &Discovery) -> Result<Vec<String>, StartError> {
    let mut missing = Vec::new();
    if !is_served::<crds::Repository>(api, discovery).await? {
        missing.push(crd_name::<crds::Repository>());
    }
    if !is_served::<crds::Sync>(api, discovery).await? {
        missing.push(crd_name::<crds::Sync>());
    }
    Ok(missing)
}

/// Whether the API server serves the kind in the required version. No special right is needed to ask this.
async fn is_served<K: Resource<DynamicType = ()>>(api: &Api, discovery: &Discovery) -> Result<bool, StartError> {
    let (group, version) = (K::group(&()), K::version(&()));
    loop {
        let source = match discovery.find(&group, &version, &K::kind(&())).await {
            Ok(_) => return Ok(true),
            Err(DiscoveryError::UnknownKind { .. }) => break,
            Err(DiscoveryError::Request { source, .. }) => source,
        };
        if !source.is_transient() {
            return Err(StartError::Api { what: format!("the kinds of {group}"), source });
        }
        tracing::warn!(error = %source, "the API server cannot be asked for its kinds; the controller tries again");
        tokio::time::sleep(RETRY).await;
    }
    // The group may be served only in other versions, because the CustomResourceDefinition is not the one of gitseal.
    let group_version = api.read::<serde_json::Value>(&format!("/apis/{group}/{version}")).await;
    let other_version = api.read::<serde_json::Value>(&format!("/apis/{group}")).await;
    if group_version.is_err() && other_version.is_ok() {
        return Err(StartError::CrdVersion { crd: crd_name::<K>(), version: version.into_owned() });
    }
    Ok(false)
}

fn crd_name<K: Resource<DynamicType = ()>>() -> String {
    format!("{}.{}", K::plural(&()), K::group(&()))
}
