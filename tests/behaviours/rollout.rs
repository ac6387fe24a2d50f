//! `gitseal install --apply` waits until the new controller runs and no old one is left.

use anyhow::{Context, Result, ensure};
use harness::Plane;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::upgrade::{aggregated_to_edit, install, plane};

const CONTROLLER: &str = "gitseal-controller";

/// Writes the Deployment's status, because none of Kubernetes' controllers runs here.
async fn deployment_says(client: &Client, status: Value) -> Result<()> {
    let deployments = harness::kubernetes::objects(client, "kube-system", "apps/v1", "Deployment");
    let generation = deployments.get(CONTROLLER).await?.metadata.generation.context("a generation")?;
    let mut status = json!({"status": status});
    status["status"]["observedGeneration"] = generation.into();
    deployments.patch_status(CONTROLLER, &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

type Pods = Api<k8s_openapi::api::core::v1::Pod>;

/// Creates a Pod of the controller with a finalizer, so that it is gone only when the test removes the finalizer.
pub(crate) async fn pod(client: &Client, name: &str) -> Result<Pods> {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    harness::kubernetes::apply(client, "kube-system", account).await?;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "finalizers": ["example.com/waits"],
            "labels": {"app.kubernetes.io/name": "gitseal", "app.kubernetes.io/component": "controller"}},
        "spec": {"containers": [{"name": "controller", "image": "a:1"}]}});
    harness::kubernetes::apply(client, "kube-system", pod).await?;
    Ok(Api::namespaced(client.clone(), "kube-system"))
}

/// Deletes the Pod. It stays until its finalizer is removed.
pub(crate) async fn begin_to_delete(pods: &Pods, name: &str) -> Result<()> {
    pods.delete(name, &DeleteParams::default().grace_period(0)).await?;
    Ok(())
}

/// Removes the Pod's finalizer.
pub(crate) async fn let_go(pods: &Pods, name: &str) -> Result<()> {
    let patch = json!({"metadata": {"finalizers": null}});
    pods.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

#[tokio::test]
async fn an_installation_that_waits_in_vain_says_why() -> Result<()> {
    let plane: Plane = plane().await?;
    let client = plane.cluster.client().await?;
    install(&plane, &["--apply", "--no-wait", "--image", "a:1"])?.is(0, &[])?;
    let waits = |said: &[&str]| install(&plane, &["--apply", "--timeout", "1s"])?.is(1, said);

    let refused = json!({"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": "exceeded quota: small"}]});
    deployment_says(&client, refused).await?;
    waits(&["not ready within 1s: 0 of 1 replicas", "FailedCreate: exceeded quota: small"])?;

    let pods = pod(&client, "controller-1").await?;
    for (status, said) in [
        (
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/3 nodes are available"}]}),
            "Pod controller-1: Unschedulable: 0/3 nodes are available",
        ),
        (
            json!({"conditions": null, "containerStatuses": [{"name": "controller", "image": "a:1", "imageID": "",
                "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}]}),
            "Pod controller-1: container controller: ImagePullBackOff: Back-off pulling image",
        ),
    ] {
        pods.patch_status("controller-1", &PatchParams::default(), &Patch::Merge(&json!({"status": status}))).await?;
        waits(&["not ready within 1s", said, "describe pods"])?;
    }
    Ok(())
}

#[tokio::test]
async fn nobody_edits_syncs_while_an_old_pod_is_being_deleted() -> Result<()> {
    let plane: Plane = plane().await?;
    let client = plane.cluster.client().await?;
    let rolled_out = json!({"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1});
    let with = |more: &[&str]| install(&plane, &[&["--apply"], more].concat());
    let edits = || aggregated_to_edit(&client);
    with(&["--no-wait", "--image", "a:1", "--replicas", "2"])?.is(0, &[])?;
    let pods = pod(&client, "old").await?;
    with(&["--no-wait", "--multi-tenant", "--replicas", "1"])?.is(0, &["not a part of `edit` yet"])?;
    deployment_says(&client, rolled_out.clone()).await?;
    begin_to_delete(&pods, "old").await?;

    let named = "the old Pod kube-system/old is still being deleted";
    with(&["--no-wait", "--yes"])?.is(0, &["not a part of `edit` yet", named])?;
    ensure!(edits().await? == "false");
    with(&["--timeout", "1s", "--yes"])?.is(1, &["not a part of `edit` yet", named, "run the command again"])?;
    ensure!(edits().await? == "false");
    // The Deployment is deleted, but the controller's last Pod may still be ending.
    let deployments = harness::kubernetes::objects(&client, "kube-system", "apps/v1", "Deployment");
    deployments.delete(CONTROLLER, &DeleteParams::background()).await?;
    with(&["--no-wait", "--yes", "--image", "a:1", "--multi-tenant"])?.is(0, &["not a part of `edit` yet", named])?;
    ensure!(edits().await? == "false");

    let_go(&pods, "old").await?;
    deployment_says(&client, rolled_out).await?;
    let said = with(&["--no-wait", "--yes"])?;
    ensure!(edits().await? == "true", "{}", said.err);
    Ok(())
}
