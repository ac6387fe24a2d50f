//! A folder whose inventory is too large for the Sync's status. The folder is refused, and the controller does not
//! repeat writes because of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::Sync;
use harness::{
    eventually,
    faults::{Fault, Which},
    within,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use super::{Faulty, SOON};
use crate::traces::events;

/// If all names are as long as possible, an inventory has no room for so many objects.
const OBJECTS: usize = 5_000;
/// How many passes (reconciles of the whole folder) must end with the same refusal.
const PASSES: u64 = 3;

/// How many passes ended because the inventory has no room.
async fn refused(faulty: &Faulty) -> Result<u64> {
    let text = faulty.controller.fetch("/metrics").await?;
    let line =
        text.lines().find(|line| line.starts_with("gitseal_reconcile_total{") && line.contains("InventoryTooLarge"));
    line.and_then(|line| line.rsplit(' ').next()).context("no pass")?.parse().context("no number")
}

#[tokio::test]
async fn an_inventory_without_room_is_not_sent_again_and_again() -> Result<()> {
    let faulty = Faulty::start("too-large").await?;
    let scene = &faulty.scene;
    scene.sync("app", "./app", json!({"interval": "10s"})).await?;
    let all: Vec<String> = (0..OBJECTS)
        .map(|index| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: '{index:0>253}'}}}}"))
        .collect();
    for (file, maps) in all.chunks(1_000).enumerate() {
        scene.tree.write(&format!("app/{file}.yaml"), maps.join("\n---\n"))?;
    }
    let too_many = scene.publish("too many").await?;
    scene.is_not_ready("app", "InventoryTooLarge").await?;

    // These faults delay no request: they only count requests.
    let count = |which: Which| faulty.proxy.inject(which, Fault::Delay(Duration::ZERO));
    // A request counts only for the newest fault that matches it.
    let of_objects = count(Which::writes().path("/configmaps"));
    let of_sync = count(Which::writes().path("/syncs/app"));
    let before = refused(&faulty).await?;
    eventually("more passes of its interval", || async {
        let passes = refused(&faulty).await? - before;
        ensure!(passes >= PASSES, "{passes}");
        Ok(())
    })
    .await?;
    ensure!((of_objects.hits(), of_sync.hits()) == (0, 0), "{} and {}", of_objects.hits(), of_sync.hits());

    // A requested reconcile is answered, with one write of the status.
    let token = scene.request::<Sync>("app").await?;
    let answered = eventually("the answer", || async {
        let status = scene.api::<Sync>().get("app").await?.status.unwrap_or_default();
        ensure!(status.last_handled_reconcile_at.as_ref() == Some(&token), "{status:?}");
        Ok(())
    });
    within(SOON, answered).await?;
    scene.is_not_ready("app", "InventoryTooLarge").await?;
    ensure!(of_sync.hits() <= 2, "{} writes for one answer", of_sync.hits());
    ensure!(of_objects.hits() == 0, "{} writes of objects", of_objects.hits());

    // What drifts is healed, and nothing else is written.
    let written = of_sync.hits();
    scene.api::<ConfigMap>().delete("map", &DeleteParams::default()).await?;
    within(SOON, scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "first"}}))).await?;
    let before = refused(&faulty).await?;
    eventually("one more pass", || async {
        ensure!(refused(&faulty).await? > before);
        Ok(())
    })
    .await?;
    ensure!(of_objects.hits() == 1, "{} writes to heal one object", of_objects.hits());
    ensure!(of_sync.hits() <= written + 2, "{} writes of the Sync for one heal", of_sync.hits() - written);

    let maps = scene.api::<ConfigMap>().list(&ListParams::default().labels(crds::names::SYNC_NAME)).await?;
    ensure!(maps.items.len() == 1, "{} objects are applied", maps.items.len());
    let applied = events(scene, "app", "Applied").await?;
    ensure!(!applied.iter().any(|note| note.contains(&too_many)), "{applied:?}");
    scene.is_not_ready("app", "InventoryTooLarge").await?;
    let status = scene.api::<Sync>().get("app").await?.status.context("status")?;
    ensure!(status.last_applied_revision.as_ref() != Some(&too_many) && status.inventory.len() == 1, "{status:#?}");
    Ok(())
}
