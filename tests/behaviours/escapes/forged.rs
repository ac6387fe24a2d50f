//! A tenant can write false statuses of its own Syncs. Inventories that name objects of others, or objects that others will
//! create, are read by the controller that starts next, but must have no effect on others.

use anyhow::{Context, Result, ensure};
use crds::Sync;
use harness::{
    Plane,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use super::{Case, seal, sealed_secret};
use crate::{
    objects::config_map,
    traces::{events, uid},
};

/// So many Syncs that at least one is read before the victim's Sync, whatever the order is.
const FORGERS: usize = 8;
/// How many objects that never existed are in each inventory.
const MADE_UP: usize = 2000;

async fn start(plane: &Plane) -> Result<()> {
    let folder = plane.folder();
    let mut controller = Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &folder))?;
    controller.ready().await?;
    *plane.controller.lock().await = Some(controller);
    Ok(())
}

fn forger(number: usize) -> String {
    format!("forger-{number}")
}

/// Inventory entries in the form that a controller writes, with made-up digests.
fn forged_inventory(case: &Case<'_>) -> Vec<Value> {
    let theirs = &case.victim.namespace;
    let digests = json!({"m": "0".repeat(64), "f": "00000000000000ff"});
    let entry = |id: String, version: &str| {
        let mut entry = digests.clone();
        entry["id"] = id.into();
        entry["v"] = version.into();
        entry
    };
    let mut all = Vec::new();
    // An object that the victim has, one that it will have, and one of a Sync that will be created later.
    for name in ["settings", "next", "late"] {
        all.push(entry(format!("{theirs}_{name}__ConfigMap"), "v1"));
    }
    for name in ["db", "sealed-next"] {
        all.push(entry(format!("{theirs}_{name}_bitnami.com_SealedSecret"), "v1alpha1"));
        all.push(entry(format!("{theirs}_{name}__Secret"), "v1"));
    }
    for number in 0..MADE_UP {
        all.push(match number % 10 {
            0 => entry(format!("{theirs}_made-up-{number}_group-{number}.example.com_Thing"), "v1"),
            _ => entry(format!("{theirs}_made-up-{number}__ConfigMap"), "v1"),
        });
    }
    all
}

/// Gives the tenant's Syncs the status of its Sync `app`, as if they had no work, but with an inventory that claims all
/// objects that the victim has and will have.
async fn forge(case: &Case<'_>) -> Result<()> {
    let inventory = forged_inventory(case);
    let api = case.tenant.api::<Sync>();
    for number in 0..FORGERS {
        let mut status = serde_json::to_value(api.get("app").await?.status.context("a status")?)?;
        status["inventory"] = inventory.clone().into();
        let patch = json!({"status": status});
        api.patch_status(&forger(number), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    Ok(())
}

/// A tenant whose Syncs get forged statuses while no controller runs.
async fn forged<'a>(plane: &'a Plane, name: &str) -> Result<(Case<'a>, String)> {
    start(plane).await?;
    let certificate = plane.controller.lock().await.as_ref().context("a controller")?.fetch("/v1/cert.pem").await?;
    let case = Case::on(plane, name, &certificate).await?;
    for number in 0..FORGERS {
        // Half of the Syncs are suspended. The others are reconciled like any Sync.
        let spec = json!({"serviceAccountName": "tenant", "suspend": number % 2 == 0});
        case.tenant.sync(&forger(number), "./app", spec).await?;
    }
    plane.controller.lock().await.take().context("a controller")?.kill()?;
    forge(&case).await?;
    Ok((case, certificate))
}

#[tokio::test]
async fn what_went_while_nobody_looked_is_healed_whoever_names_it() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let (case, _) = forged(&plane, "escape-went").await?;
    // The deleted object has no labels any more that could show its owner.
    case.victim.api::<ConfigMap>().delete("settings", &DeleteParams::default()).await?;
    start(&plane).await?;
    case.victim.has("v1", "ConfigMap", "settings", json!({"data": {"value": "1"}})).await?;
    case.victim_goes_on().await?;
    // The object is pruned when the victim deletes its Sync.
    case.victim.api::<Sync>().delete("shop", &DeleteParams::default()).await?;
    case.victim.is_gone("gitseal.dev/v1alpha1", "Sync", "shop").await?;
    case.victim.is_gone("v1", "ConfigMap", "settings").await?;
    case.victim.is_gone("bitnami.com/v1alpha1", "SealedSecret", "db").await
}

#[tokio::test]
async fn an_inventory_that_names_what_others_have_keeps_it_from_nobody() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions { audit: true, ..ClusterOptions::default() }).await?;
    let (case, certificate) = forged(&plane, "escape-forged").await?;
    start(&plane).await?;
    // Kinds that do not exist cause no requests.
    let requests = plane.cluster.requests()?;
    let made_up: Vec<_> = requests.iter().filter(|request| request.uri.contains("group-")).collect();
    ensure!(made_up.is_empty(), "{made_up:#?}");
    case.is_harmless("an inventory that names the victim's objects").await?;

    // The victim's drift is healed, and its next commit is applied, although the forged inventories name its objects.
    let before = uid(&case.victim, "ConfigMap", "settings").await?;
    case.victim.api::<Secret>().delete("db", &DeleteParams::default()).await?;
    case.victim.has("v1", "Secret", "db", json!({})).await?;
    let sealed = json!({"a": seal(&certificate, &case.victim.namespace, "sealed-next", "victims-value")?});
    case.victim.tree.write(
        "app/next.yaml",
        format!(
            "{}---\n{}",
            config_map("next", "victims"),
            sealed_secret("sealed-next", &json!({}), &sealed, &json!({}))
        ),
    )?;
    case.victim_goes_on().await?;
    case.victim.has("v1", "ConfigMap", "next", json!({"data": {"value": "victims"}})).await?;
    case.victim.has("v1", "Secret", "sealed-next", json!({"data": {"a": "dmljdGltcy12YWx1ZQ=="}})).await?;
    // The same holds for a Sync that did not exist when the inventories named its objects.
    case.victim.tree.write("late/late.yaml", config_map("late", "victims"))?;
    let revision = case.victim.publish("late").await?;
    case.victim.sync("late", "./late", json!({"serviceAccountName": "deployer"})).await?;
    case.victim.is_applied("late", &revision).await?;
    for sync in ["shop", "late"] {
        let told = events(&case.victim, sync, "ObjectOwnedByAnotherSync").await?;
        ensure!(told.is_empty(), "{sync} was kept from its objects: {told:?}");
    }

    // The Syncs with the forged statuses are deleted, and with them the objects that really belong to these Syncs.
    for number in 0..FORGERS {
        let spec = json!({"serviceAccountName": "tenant", "suspend": false, "prune": true});
        let api = case.tenant.api::<Sync>();
        api.patch(&forger(number), &PatchParams::default(), &Patch::Merge(&json!({"spec": spec}))).await?;
        api.delete(&forger(number), &DeleteParams::default()).await?;
    }
    for number in 0..FORGERS {
        let name = forger(number);
        case.tenant.is_gone("gitseal.dev/v1alpha1", "Sync", &name).await?;
    }
    ensure!(uid(&case.victim, "ConfigMap", "settings").await? == before, "it was made anew");
    for name in ["next", "late"] {
        case.victim.has("v1", "ConfigMap", name, json!({"data": {"value": "victims"}})).await?;
    }
    for sync in ["shop", "late"] {
        case.victim.is_ready(sync).await?;
    }
    Ok(())
}
