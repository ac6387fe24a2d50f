//! Applying an installation and waiting until it works.

use std::time::Duration;

use anyhow::{Context, bail};
use crds::{FIELD_MANAGER, Sync};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Namespace},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
    runtime::wait::{await_condition, conditions},
};
use manifests::Manifest;
use serde_json::Value;

use super::{
    arguments,
    bundle::{AGGREGATE_TO_EDIT, DEPLOYMENT_NAME, EDIT_ROLE},
    choices::Choices,
    live::Live,
    plan::{self, Change, Step},
    removal::Removal,
};
use crate::output::{self, BAD, GOOD, WARN, counted, styled};

/// How long the API server may take until it serves a new kind.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(60);
/// How many fields of an object a message names at most.
const NAMED: usize = 12;

/// Whether the namespace exists.
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
                let count = counted(fields.len(), "field");
                output::note(format_args!("{} {id}: {count} of its schema", styled(WARN, "change")));
            }
            Change::Changed(fields) => {
                let rest = fields.len().saturating_sub(NAMED);
                let more = if rest > 0 { format!(", and {} more", counted(rest, "field")) } else { String::new() };
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
        output::note(format_args!("leave {unchanged} more as {}", if unchanged == 1 { "it is" } else { "they are" }));
    }
}

/// Asks for a confirmation if the controller, or others, would get more rights.
pub fn ask(growth: &[String], yes: bool) -> anyhow::Result<()> {
    if growth.is_empty() {
        return Ok(());
    }
    output::warn("these rights are new:");
    for right in growth {
        output::note(format_args!("  {right}"));
    }
    if yes {
        return Ok(());
    }
    let asked = output::confirm("Give these rights?", "--yes gives these rights without a question")
        .context("nothing was applied")?;
    if asked { Ok(()) } else { bail!("nothing was applied: you did not agree to these rights") }
}

/// A text about the existing Syncs that would now get the controller's own rights; `None` if there are none.
pub async fn of_the_syncs(client: &Client, live: &Live, choices: &Choices) -> anyhow::Result<Option<String>> {
    let grows = !live.gives_own_rights() || choices.tenancy.cluster_admin && !live.is_cluster_admin;
    if arguments::has_default_account(&choices.arguments) || !grows {
        return Ok(None);
    }
    let syncs = Api::<Sync>::all(client.clone()).list(&ListParams::default()).await;
    let syncs = match syncs {
        Ok(syncs) => syncs.items,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(error).context("cannot list Syncs: nothing was applied"),
    };
    let unbound = syncs.iter().filter(|sync| sync.spec.service_account_name.is_none()).count();
    let rights = if choices.tenancy.cluster_admin {
        "cluster-admin, which allows everything in the whole cluster"
    } else {
        "the controller's own rights, which allow access to every Secret"
    };
    Ok((unbound > 0).then(|| {
        format!(
            "{} without a service account would get {rights} (with --multi-tenant, {} as a service account instead)",
            counted(unbound, "existing Sync"),
            if unbound == 1 { "it writes" } else { "they write" },
        )
    }))
}

/// Whether the step gives the role `edit` the right to create Syncs. Such a step comes last, because until then a Sync
/// may still be applied with the controller's own rights.
pub fn widens(step: &Step, choices: &Choices) -> bool {
    step.object.id.name == EDIT_ROLE && step.object.id.kind == "ClusterRole" && choices.people_edit_syncs()
}

/// The role of the step, without the label that makes it a part of the role `edit`.
fn narrowed(step: &Step) -> Manifest {
    let mut role = step.object.clone();
    if let Some(labels) = role.body.get_mut("metadata").and_then(|metadata| metadata.get_mut("labels")) {
        labels[AGGREGATE_TO_EDIT] = "false".into();
    }
    role
}

/// Applies everything except what [widens](widens) people's rights. CustomResourceDefinitions come first.
pub async fn apply(client: &Client, steps: &[Step], choices: &Choices, live: &Live) -> anyhow::Result<()> {
    if let Some(role) = steps.iter().find(|step| widens(step, choices)).filter(|_| live.is_open()) {
        apply_one(client, &narrowed(role), None).await?;
    }
    let is_definition = |step: &&Step| step.object.id.kind == "CustomResourceDefinition";
    for step in steps.iter().filter(is_definition) {
        apply_one(client, &step.object, step.first.as_ref()).await?;
    }
    let all: Api<CustomResourceDefinition> = Api::all(client.clone());
    for step in steps.iter().filter(is_definition) {
        let name = &step.object.id.name;
        let waiting = await_condition(all.clone(), name, conditions::is_crd_established());
        tokio::time::timeout(ESTABLISHED_WITHIN, waiting)
            .await
            .with_context(|| format!("{name} was not established within {} s", ESTABLISHED_WITHIN.as_secs()))??;
    }
    for step in steps.iter().filter(|step| !is_definition(step) && !widens(step, choices)) {
        apply_one(client, &step.object, step.first.as_ref()).await?;
    }
    Ok(())
}

/// The steps after the new controller runs: rights that are no longer needed are removed, and the role `edit` gets
/// rights on Syncs if `widen` is true.
pub async fn finish(
    client: &Client,
    steps: &[Step],
    removals: &[Removal],
    choices: &Choices,
    widen: bool,
) -> anyhow::Result<()> {
    for removal in removals {
        removal.carry_out(client).await?;
    }
    match steps.iter().find(|step| widens(step, choices)) {
        Some(role) if widen => apply_one(client, &role.object, role.first.as_ref()).await?,
        Some(role) => apply_one(client, &narrowed(role), None).await?,
        None => {}
    }
    if steps.iter().any(|step| step.change != Change::Unchanged) || !removals.is_empty() {
        output::note(format_args!("{}", styled(GOOD, "applied")));
    }
    Ok(())
}

async fn apply_one(client: &Client, object: &Manifest, first: Option<&Value>) -> anyhow::Result<()> {
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

/// Warns if a second controller would unseal the same SealedSecrets. It is no error if this cannot be checked.
pub async fn warn_of_second_controller(client: &Client, choices: &Choices) {
    // In the Sealed Secrets project's manifests and in its Helm chart, the Deployment has the name of the Service.
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
            "the Sealed Secrets controller runs as well. Stop it; its key Secrets stay in the cluster, and gitseal \
             uses them: kubectl --namespace {namespace} scale deployment {name} --replicas 0"
        ));
    }
}
