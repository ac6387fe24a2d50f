//! Syncs with more objects than fit into an inventory.

use anyhow::{Context, Result, ensure};
use crds::Sync;
use harness::{Scene, kubernetes};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::traces::events;

/// The greatest length of a name. The longer the names are, the fewer objects are enough to make the inventory too
/// large.
const NAME: usize = 253;
/// With 330 bytes for each object, the inventory is larger than 1.5 MiB.
const OBJECTS: usize = 5_000;

fn name(index: usize) -> String {
    format!("{index:0>NAME$}")
}

#[tokio::test]
async fn an_inventory_without_room_is_refused_before_anything_is_applied() -> Result<()> {
    let scene = Scene::new("large").await?;
    for (file, indexes) in (0..OBJECTS).collect::<Vec<_>>().chunks(1_000).enumerate() {
        let map = |index| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: '{}'}}}}", name(index));
        let maps: Vec<String> = indexes.iter().map(|index| map(*index)).collect();
        scene.tree.write(&format!("app/{file}.yaml"), maps.join("\n---\n"))?;
    }
    scene.publish("too many").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.is_not_ready("app", "InventoryTooLarge").await?;
    for part in ["5000 objects", "nothing was applied", "Split the folder"] {
        ensure!(message.contains(part), "no {part:?} in: {message}");
    }
    let maps = scene.api::<ConfigMap>().list(&ListParams::default().labels(crds::names::SYNC_NAME)).await?;
    ensure!(maps.items.is_empty(), "{} were applied", maps.items.len());
    ensure!(events(&scene, "app", "Applied").await?.is_empty());
    let sync = scene.api::<Sync>().get("app").await?;
    ensure!(sync.status.context("status")?.inventory.is_empty());

    // The API server really stores an inventory of the size that the message names.
    let most = message.split("the API server stores at most ").nth(1).and_then(|text| text.split(';').next());
    let most: usize = most.context(message.clone())?.parse()?;
    let entry = |index| {
        let id = format!("{}_{}__ConfigMap", scene.namespace, name(index));
        json!({"id": id, "v": "v1", "m": "0123456789abcdef", "f": "0123456789abcdef"})
    };
    let entries: Vec<Value> = (0..most / (entry(0).to_string().len() + 1)).map(entry).collect();
    let object = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "full"},
        "spec": {"repository": {"name": "repo"}, "path": "./none", "suspend": true},
    });
    kubernetes::apply(&scene.client, &scene.namespace, object).await?;
    let patch = json!({"status": {"inventory": entries}});
    scene.api::<Sync>().patch_status("full", &PatchParams::default(), &Patch::Merge(&patch)).await?;

    // A smaller folder is applied.
    for file in 1..5 {
        scene.tree.remove(&format!("app/{file}.yaml"))?;
    }
    let map = format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: '{}'}}}}\n", name(0));
    scene.tree.write("app/0.yaml", map)?;
    let revision = scene.publish("a part of it").await?;
    scene.is_applied("app", &revision).await?;
    Ok(())
}
