//! Applying an installation and waiting until it works.

use std::time::Duration;

use anyhow::{Context, bail};
use crds::FIELD_MANAGER;
use jiff::SignedDuration;
use k8s_openapi::{
    api::{apps::v1::Deployment, rbac::v1::ClusterRoleBinding},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
    discovery::{Scope, oneshot::pinned_kind},
    runtime::wait::{Condition, await_condition, conditions},
};
use manifests::{Limits, Manifest, parse};

use super::bundle::{CLUSTER_ADMIN_BINDING, DEPLOYMENT_NAME};
use crate::{
    global::Global,
    output::{self, GOOD, Hint, styled},
    time,
};

/// How long the API server may take to serve a new kind.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(60);

/// Applies the manifests in `text`, CustomResourceDefinitions first, and waits for the controller if asked to.
pub async fn apply(
    client: &Client,
    text: &str,
    global: &Global,
    multi_tenant: bool,
    wait: Option<SignedDuration>,
) -> anyhow::Result<()> {
    let objects = parse("gitseal install", text.as_bytes(), &Limits::default()).context("cannot read what was made")?;
    let (definitions, others): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|object| object.id.kind == "CustomResourceDefinition");
    let names: Vec<String> = definitions.iter().map(|object| object.id.name.clone()).collect();
    for object in definitions {
        apply_one(client, object).await?;
    }
    let all: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in &names {
        let waiting = await_condition(all.clone(), name, conditions::is_crd_established());
        tokio::time::timeout(ESTABLISHED_WITHIN, waiting)
            .await
            .with_context(|| format!("{name} was not established within {} s", ESTABLISHED_WITHIN.as_secs()))??;
    }
    for object in others {
        apply_one(client, object).await?;
    }
    warn_of_second_controller(client, global).await;
    if multi_tenant {
        warn_of_cluster_admin(client).await;
    }
    match wait {
        Some(timeout) => wait_for_controller(client, &global.controller_namespace, timeout).await,
        None => Ok(()),
    }
}

async fn apply_one(client: &Client, object: Manifest) -> anyhow::Result<()> {
    let id = object.id.clone();
    let kind = GroupVersionKind::gvk(&id.group, &object.version, &id.kind);
    let (resource, capabilities) =
        pinned_kind(client, &kind).await.with_context(|| format!("cannot find the kind of {id}"))?;
    let api = object_api(client, &resource, capabilities.scope == Scope::Namespaced, id.namespace.as_deref());
    api.patch(&id.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object.body))
        .await
        .with_context(|| format!("cannot apply {id}"))?;
    output::note(format_args!("{} {id}", styled(GOOD, "applied")));
    Ok(())
}

fn object_api(
    client: &Client,
    resource: &ApiResource,
    namespaced: bool,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    match namespace.filter(|_| namespaced) {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

/// Two controllers would unseal the same SealedSecrets. Failing to look is no reason to fail the installation.
async fn warn_of_second_controller(client: &Client, global: &Global) {
    // The Sealed Secrets project's manifests and its Helm chart name the Deployment as the Service.
    let (namespace, name) = (&global.controller_namespace, &global.controller_name);
    if name == DEPLOYMENT_NAME {
        return;
    }
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let Ok(Some(old)) = deployments.get_opt(name).await else {
        return;
    };
    if old.spec.and_then(|spec| spec.replicas).unwrap_or(1) > 0 {
        output::warn(format_args!(
            "the Sealed Secrets controller runs as well; its keys are kept, so stop it: \
             kubectl --namespace {namespace} scale deployment {name} --replicas 0"
        ));
    }
}

/// An earlier installation for one tenant leaves its binding behind.
async fn warn_of_cluster_admin(client: &Client) {
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    if let Ok(Some(_)) = bindings.get_opt(CLUSTER_ADMIN_BINDING).await {
        output::warn(format_args!(
            "the controller is still cluster-admin by an earlier installation; to take that away: \
             kubectl delete clusterrolebinding {CLUSTER_ADMIN_BINDING}"
        ));
    }
}

async fn wait_for_controller(client: &Client, namespace: &str, timeout: SignedDuration) -> anyhow::Result<()> {
    output::note(format_args!("waiting for deployment {namespace}/{DEPLOYMENT_NAME} …"));
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let ready = conditions::is_deployment_completed().and(|deployment: Option<&Deployment>| {
        deployment.and_then(|d| d.status.as_ref()?.available_replicas).is_some_and(|replicas| replicas > 0)
    });
    match tokio::time::timeout(timeout.unsigned_abs(), await_condition(deployments, DEPLOYMENT_NAME, ready)).await {
        Ok(waited) => waited.context("cannot watch the controller's Deployment")?,
        Err(_) => bail!(Hint::error(
            format!("the controller was not ready within {}", time::short(timeout)),
            format!("kubectl --namespace {namespace} describe pods -l app.kubernetes.io/name=gitseal"),
        )),
    };
    output::note(format_args!("{} the controller runs", styled(GOOD, "ready")));
    Ok(())
}
