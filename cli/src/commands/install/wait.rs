//! Waits until the controller runs with its new settings.

use anyhow::Context;
use jiff::SignedDuration;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::ListParams,
    runtime::wait::{await_condition, conditions},
};
use manifests::ObjectId;
use pipeline::health::{self, Health, pods};
use tokio::time::Instant;

use super::{
    bundle::{DEPLOYMENT_NAME, POD_LABELS},
    live::is_rolled_out,
};
use crate::{
    output::{self, GOOD, Hint, styled},
    time,
};

/// Waits until the Deployment is rolled out.
///
/// # Errors
/// The rollout takes too long. The error repeats what the Deployment and its Pods say about the cause.
pub async fn for_controller(client: &Client, namespace: &str, timeout: SignedDuration) -> anyhow::Result<()> {
    output::note(format_args!("waiting for deployment {namespace}/{DEPLOYMENT_NAME} …"));
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let ready = |deployment: Option<&Deployment>| deployment.is_some_and(is_rolled_out);
    let rolled_out = await_condition(deployments, DEPLOYMENT_NAME, ready);
    let Ok(waited) = tokio::time::timeout(timeout.unsigned_abs(), rolled_out).await else {
        let why = trouble(client, namespace).await.map(|why| format!(": {why}")).unwrap_or_default();
        return Err(Hint::error(
            format!("the controller was not ready within {}{why}", time::short(timeout)),
            format!(
                "fix the cause, and run the command again; for details: kubectl --namespace {namespace} describe \
                pods -l {POD_LABELS}"
            ),
        ));
    };
    waited.context("cannot watch the controller's Deployment")?;
    output::note(format_args!("{} the controller runs", styled(GOOD, "ready")));
    Ok(())
}

/// Waits until the Pods of the controller that are being deleted are gone: until then, they work with their old settings.
/// Returns the name of one that is still there after `timeout`.
pub async fn for_old_pods(client: &Client, namespace: &str, timeout: SignedDuration) -> anyhow::Result<Option<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = pods.list(&ListParams::default().labels(POD_LABELS)).await;
    let list = list.with_context(|| format!("cannot list the controller's Pods in {namespace}"))?;
    let until = Instant::now() + timeout.unsigned_abs();
    for ObjectMeta { name, uid, deletion_timestamp, .. } in list.items.into_iter().map(|pod| pod.metadata) {
        let (Some(name), Some(uid), Some(_)) = (name, uid, deletion_timestamp) else { continue };
        if !timeout.is_zero() {
            output::note(format_args!("waiting for the old Pod {namespace}/{name} to be gone …"));
        }
        let gone = await_condition(pods.clone(), &name, conditions::is_deleted(&uid));
        match tokio::time::timeout_at(until, gone).await {
            Ok(gone) => gone.map(drop).with_context(|| format!("cannot watch Pod {namespace}/{name}"))?,
            Err(_) => return Ok(Some(name)),
        }
    }
    Ok(None)
}

/// Why the controller is not ready, as its Deployment and its Pods say it; `None` if they name no cause.
async fn trouble(client: &Client, namespace: &str) -> Option<String> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let id = ObjectId {
        group: "apps".into(),
        kind: "Deployment".into(),
        namespace: Some(namespace.into()),
        name: DEPLOYMENT_NAME.into(),
    };
    let deployment = serde_json::to_value(deployments.get(DEPLOYMENT_NAME).await.ok()?).ok()?;
    let whole = match health::assess(&id, &deployment) {
        Health::Current => None,
        Health::InProgress(why) | Health::Failed(why) => Some(why),
    };
    let of_pods = trouble_of_pods(client, namespace).await;
    let both: Vec<String> = whole.into_iter().chain(of_pods).collect();
    (!both.is_empty()).then(|| both.join("; "))
}

async fn trouble_of_pods(client: &Client, namespace: &str) -> Option<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = pods.list(&ListParams::default().labels(POD_LABELS)).await.ok()?;
    match pods::said(serde_json::from_value(serde_json::to_value(list).ok()?).ok()?) {
        pods::Said::Trouble(why) => Some(why),
        pods::Said::Nothing { .. } | pods::Said::NoPods | pods::Said::Ready => None,
    }
}
