//! Applying an installation and waiting until it works.

use std::time::Duration;

use anyhow::{Context, bail};
use crds::FIELD_MANAGER;
use jiff::SignedDuration;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::Namespace,
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
    runtime::wait::{Condition, await_condition, conditions},
};

use super::{
    bundle::{CLUSTER_ADMIN_BINDING, DEPLOYMENT_NAME, WATCH},
    choices::Choices,
    live::Live,
    plan::{self, Change, Step},
};
use crate::{
    found::or_gone,
    output::{self, BAD, GOOD, Hint, WARN, styled},
    time,
};

/// How long the API server may take to serve a new kind.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(60);
/// Fields of an object that are named.
const NAMED: usize = 4;

/// What a choice leaves without a purpose.
pub enum Removal {
    ClusterRoleBinding(&'static str),
    ClusterRole(&'static str),
}

impl std::fmt::Display for Removal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClusterRoleBinding(name) => write!(f, "ClusterRoleBinding {name}"),
            Self::ClusterRole(name) => write!(f, "ClusterRole {name}"),
        }
    }
}

impl Removal {
    /// What the flags leave without a purpose and is there.
    pub fn find(live: &Live, choices: &Choices) -> Vec<Self> {
        let had = live.tenancy.unwrap_or_default();
        let mut found = Vec::new();
        if had.cluster_admin && !choices.tenancy.cluster_admin {
            found.push(Self::ClusterRoleBinding(CLUSTER_ADMIN_BINDING));
        }
        if had.watch && !choices.tenancy.watch {
            found.extend([Self::ClusterRoleBinding(WATCH), Self::ClusterRole(WATCH)]);
        }
        found
    }

    async fn carry_out(&self, client: &Client) -> anyhow::Result<()> {
        let params = DeleteParams::background();
        let gone = match self {
            Self::ClusterRoleBinding(name) => {
                or_gone(Api::<ClusterRoleBinding>::all(client.clone()).delete(name, &params).await)
            }
            Self::ClusterRole(name) => or_gone(Api::<ClusterRole>::all(client.clone()).delete(name, &params).await),
        };
        gone.with_context(|| format!("cannot delete {self}; everything else is applied"))
    }
}

/// Whether there is such a namespace.
pub async fn has_namespace(client: &Client, name: &str) -> anyhow::Result<bool> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    Ok(namespaces.get_opt(name).await.with_context(|| format!("cannot read the namespace {name}"))?.is_some())
}

/// Lists what will change, one line for each object.
pub fn show(steps: &[Step], removals: &[Removal]) {
    let mut unchanged = 0;
    for Step { object, change, .. } in steps {
        let id = &object.id;
        match change {
            Change::Created => output::note(format_args!("{} {id}", styled(GOOD, "create"))),
            Change::Changed(fields) if id.kind == "CustomResourceDefinition" => {
                output::note(format_args!("{} {id}: {} fields of its schema", styled(WARN, "change"), fields.len()));
            }
            Change::Changed(fields) => {
                let rest = fields.len().saturating_sub(NAMED);
                let more = if rest > 0 { format!(", and {rest} more fields") } else { String::new() };
                let named = fields.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
                output::note(format_args!("{} {id}: {named}{more}", styled(WARN, "change")));
            }
            Change::Unchanged => unchanged += 1,
        }
    }
    for removal in removals {
        output::note(format_args!("{} {removal}", styled(BAD, "remove")));
    }
    for Step { object, edited, .. } in steps.iter().filter(|step| !step.edited.is_empty()) {
        output::note(format_args!("keep what somebody edited in {}: {}", object.id, edited.join(", ")));
    }
    if unchanged == steps.len() && removals.is_empty() {
        output::note("nothing changes");
    } else if unchanged > 0 {
        output::note(format_args!("leave {unchanged} more as they are"));
    }
}

/// Asks where the controller gets more rights.
pub fn ask(growth: &[String], yes: bool) -> anyhow::Result<()> {
    if growth.is_empty() {
        return Ok(());
    }
    output::warn("the controller gets rights that it does not have now:");
    for right in growth {
        output::note(format_args!("  {right}"));
    }
    if yes {
        return Ok(());
    }
    let asked =
        output::confirm("Give them to it?", "--yes gives them without a question").context("nothing was applied")?;
    if asked { Ok(()) } else { bail!("nothing was applied: the rights were refused") }
}

/// Applies everything, CustomResourceDefinitions first, and removes what has no purpose any more.
pub async fn apply(client: &Client, steps: &[Step], removals: &[Removal]) -> anyhow::Result<()> {
    let is_definition = |step: &&Step| step.object.id.kind == "CustomResourceDefinition";
    for step in steps.iter().filter(is_definition) {
        apply_one(client, step).await?;
    }
    let all: Api<CustomResourceDefinition> = Api::all(client.clone());
    for step in steps.iter().filter(is_definition) {
        let name = &step.object.id.name;
        let waiting = await_condition(all.clone(), name, conditions::is_crd_established());
        tokio::time::timeout(ESTABLISHED_WITHIN, waiting)
            .await
            .with_context(|| format!("{name} was not established within {} s", ESTABLISHED_WITHIN.as_secs()))??;
    }
    for step in steps.iter().filter(|step| !is_definition(step)) {
        apply_one(client, step).await?;
    }
    for removal in removals {
        removal.carry_out(client).await?;
    }
    let is_change = |step: &&Step| step.change != Change::Unchanged;
    let changed = steps.iter().filter(is_change).count() + removals.len();
    if changed > 0 {
        output::note(format_args!("{}", styled(GOOD, "applied")));
    }
    Ok(())
}

async fn apply_one(client: &Client, Step { object, first, .. }: &Step) -> anyhow::Result<()> {
    let id = &object.id;
    let api = plan::api(client, object).await.with_context(|| format!("cannot find the kind of {id}"))?;
    let api = api.with_context(|| format!("the cluster does not serve the kind of {id} yet; run the command again"))?;
    if let Some(first) = first {
        api.patch(&id.name, &plan::by_us(), &Patch::Merge(first))
            .await
            .with_context(|| format!("cannot change {id}"))?;
    }
    api.patch(&id.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object.body))
        .await
        .with_context(|| format!("cannot apply {id}"))?;
    Ok(())
}

/// Two controllers would unseal the same SealedSecrets. Failing to look is no reason to fail the installation.
pub async fn warn_of_second_controller(client: &Client, choices: &Choices) {
    // The Sealed Secrets project's manifests and its Helm chart name the Deployment as the Service.
    let (namespace, name) = (&choices.namespace, &choices.service);
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

/// Waits until the Deployment is rolled out.
pub async fn wait_for_controller(client: &Client, namespace: &str, timeout: SignedDuration) -> anyhow::Result<()> {
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
