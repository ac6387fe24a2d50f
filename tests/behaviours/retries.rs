//! What failed is tried again by itself, and is not reported as done by anything but a success.

use anyhow::Result;
use harness::Scene;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::{
    objects::config_map,
    traces::{handled, inventory},
};

#[tokio::test]
async fn the_retry_after_several_failures_in_a_row_is_not_forgotten() -> Result<()> {
    let scene = Scene::new("retried").await?;
    scene.tree.write("first/map.yaml", config_map("shared", "first"))?;
    scene.tree.write("second/map.yaml", config_map("shared", "second"))?;
    let revision = scene.publish("contested").await?;
    scene.sync("first", "first", json!({})).await?;
    scene.is_applied("first", &revision).await?;
    scene.sync("second", "second", json!({})).await?;
    // Each fails at once, while the retry of the one before is still due.
    for value in ["b", "c"] {
        scene.is_not_ready("second", "ObjectOwnedByAnotherSync").await?;
        scene.tree.write("second/own.yaml", config_map("own", value))?;
        let revision = scene.publish(value).await?;
        scene
            .sync_when("second", "the commit to be tried", |sync, _| {
                sync.status.as_ref().and_then(|status| status.last_attempted_revision.as_ref()) == Some(&revision)
            })
            .await?;
    }
    // Nothing of `second` changes from here on.
    scene.tree.remove("first/map.yaml")?;
    scene.tree.write("first/other.yaml", config_map("other", "first"))?;
    let revision = scene.publish("let go").await?;
    scene.is_applied("first", &revision).await?;
    let second = scene.is_ready("second").await?;
    assert_eq!(inventory(second).len(), 2);
    let labels = json!({"metadata": {"labels": {"gitseal.dev/sync-name": "second"}}});
    scene.has("v1", "ConfigMap", "shared", labels).await?;
    Ok(())
}

/// There are no nodes: a Pod runs when somebody says so.
fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: example.invalid/c}}]}}\n"
    )
}

async fn run_pod(scene: &Scene, name: &str) -> Result<()> {
    let conditions = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"status": {"phase": "Running", "conditions": conditions}});
    scene.api::<Pod>().patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

#[tokio::test]
async fn objects_that_become_healthy_do_not_hide_a_broken_commit() -> Result<()> {
    let scene = Scene::new("hidden").await?;
    for name in ["app", "marker"] {
        scene.tree.write(&format!("{name}/pod.yaml"), pod(name))?;
    }
    scene.publish("two pods").await?;
    for name in ["app", "marker"] {
        scene.sync(name, name, json!({})).await?;
        scene.sync_when(name, "to wait", |_, ready| ready.reason == "WaitingForHealth").await?;
    }
    scene.tree.write("app/broken.yaml", "{")?;
    let broken = scene.publish("broken").await?;
    let before = scene.is_not_ready("app", "InvalidManifest").await?;

    run_pod(&scene, "app").await?;
    run_pod(&scene, "marker").await?;
    scene.is_ready("marker").await?;
    let after = scene.is_not_ready("app", "InvalidManifest").await?;
    assert_eq!(before, after);
    let app = handled(&scene, "app").await?.status.unwrap();
    assert_ne!(app.last_applied_revision.as_ref(), Some(&broken));
    let outcomes: Vec<_> = app.conditions.iter().map(|condition| condition.reason.as_str()).collect();
    assert_eq!(outcomes, ["InvalidManifest"; 2]);

    scene.tree.remove("app/broken.yaml")?;
    let fixed = scene.publish("fixed").await?;
    scene.is_applied("app", &fixed).await?;
    Ok(())
}
