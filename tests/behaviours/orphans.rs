//! Orphans: objects with the labels of a Sync that are in no inventory.

use anyhow::{Result, ensure};
use harness::{Scene, eventually, kubernetes};
use k8s_openapi::api::core::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::objects::config_map;

#[tokio::test]
async fn an_object_that_nobody_would_prune_is_told() -> Result<()> {
    let scene = Scene::new("orphans").await?;
    scene.tree.write("app/map.yaml", config_map("map", "first"))?;
    scene.sync("app", "./app", json!({})).await?;
    let revision = scene.publish("first").await?;
    scene.is_applied("app", &revision).await?;

    // This is how a bug, or an edited inventory, would leave an object.
    let labels = json!({"gitseal.dev/sync-name": "app", "gitseal.dev/sync-namespace": scene.namespace});
    let lost = |name: &str, annotations: serde_json::Value| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
        })
    };
    let maps = kubernetes::objects(&scene.client, &scene.namespace, "v1", "ConfigMap");
    let ours = PatchParams::apply(crds::FIELD_MANAGER).force();
    let kept = lost("kept", json!({"gitseal.dev/prune": "disabled"}));
    maps.patch("kept", &ours, &Patch::Apply(kept)).await?;
    maps.patch("lost", &ours, &Patch::Apply(lost("lost", json!({})))).await?;
    // Somebody copied the labels with another tool.
    maps.patch("copied", &PatchParams::apply("kubectl").force(), &Patch::Apply(lost("copied", json!({})))).await?;
    let note = eventually("the news", || async {
        let events = scene.api::<Event>().list(&ListParams::default()).await?;
        let told = events.into_iter().find(|event| event.reason.as_deref() == Some("Orphaned"));
        let note = told.and_then(|event| event.message).unwrap_or_default();
        ensure!(note.contains("lost"), "{note}");
        Ok(note)
    })
    .await?;
    ensure!(!note.contains("kept") && !note.contains("copied") && !note.contains("map,"), "{note}");

    // The Sync takes the object over when it is in Git, and prunes it when it leaves Git.
    scene.tree.write("app/lost.yaml", config_map("lost", "found"))?;
    let revision = scene.publish("found").await?;
    scene.is_applied("app", &revision).await?;
    scene.tree.remove("app/lost.yaml")?;
    scene.publish("gone").await?;
    scene.is_gone("v1", "ConfigMap", "lost").await
}
