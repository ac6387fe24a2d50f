//! A status whose inventory the controller cannot parse.

use anyhow::{Context, Result, ensure};
use crds::{ConditionStatus, Sync, find_condition};
use harness::{
    Plane, Scene,
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
};
use kube::api::{Patch, PatchParams};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::objects::config_map;

#[tokio::test]
async fn an_inventory_that_is_not_understood_is_stalled_and_stays_as_it_is() -> Result<()> {
    let plane =
        Plane::without_controller(ClusterOptions { controller_manager: false, ..ClusterOptions::default() }).await?;
    let scene = Scene::on(&plane, "misread", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    scene.sync("app", "./app", json!({})).await?;
    let api = scene.api::<Sync>();
    let write = |status: Value| {
        let api = api.clone();
        async move {
            let patch = json!({ "status": status });
            api.patch_status("app", &PatchParams::default(), &Patch::Merge(&patch)).await
        }
    };
    let entry = |id: &str| json!({"id": id, "v": "v1"});
    let known = format!("{}_map__ConfigMap", scene.namespace);
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "Applied", "message": "applied", "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    write(json!({"conditions": [ready], "observedGeneration": 1, "inventory": [entry("no object's"), entry(&known)]}))
        .await?;

    let folder = plane.folder();
    let mut controller = Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &folder))?;
    controller.ready().await?;
    scene.tree.write("app/map.yaml", config_map("map", "1"))?;
    let revision = scene.publish("first").await?;
    let message = scene.is_not_ready("app", "InventoryNotUnderstood").await?;
    for part in ["no object's", "nothing is applied or pruned", "kubectl edit sync"] {
        ensure!(message.contains(part), "no {part:?} in: {message}");
    }
    let status = api.get("app").await?.status.context("status")?;
    let stalled = find_condition(&status.conditions, "Stalled").map(|condition| condition.status);
    assert_eq!(stalled, Some(ConditionStatus::True));
    let ids: Vec<_> = status.inventory.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(ids, ["no object's", &known]);
    ensure!(scene.get("v1", "ConfigMap", "map").await?.is_none(), "something was applied");

    // The Sync continues when its status is repaired.
    write(json!({"inventory": [entry(&known)]})).await?;
    scene.is_applied("app", &revision).await?;
    Ok(())
}
