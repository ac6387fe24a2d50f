//! The controller tries failed work again by itself, and reports it as done only after it succeeded.

use anyhow::Result;
use harness::Scene;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::{
    objects::{apply_cluster_wide, config_map},
    traces::{handled, inventory},
};

#[tokio::test]
async fn the_retry_after_several_failures_in_a_row_is_not_forgotten() -> Result<()> {
    let scene = Scene::new("retried").await?;
    let late = format!("{}-late", scene.namespace);
    let elsewhere = config_map("map", "first").replace("  name: map", &format!("  name: map\n  namespace: {late}"));
    assert!(elsewhere.contains(&late));
    scene.tree.write("app/elsewhere.yaml", elsewhere)?;
    scene.publish("its namespace is missing").await?;
    scene.sync("app", "app", json!({})).await?;
    // Each revision fails at once, while the retry of the one before is still pending.
    for value in ["b", "c"] {
        scene.is_not_ready("app", "NamespaceNotFound").await?;
        scene.tree.write("app/own.yaml", config_map("own", value))?;
        let revision = scene.publish(value).await?;
        scene
            .sync_when("app", "the commit to be tried", |sync, _| {
                sync.status.as_ref().and_then(|status| status.last_attempted_revision.as_ref()) == Some(&revision)
            })
            .await?;
    }
    // From here on, only things change that the controller does not watch.
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": late}});
    apply_cluster_wide(&scene.client, namespace).await?;
    let app = scene.is_ready("app").await?;
    assert_eq!(inventory(app).len(), 2);
    Ok(())
}

/// A Pod. The control plane has no nodes, so the test itself writes that the Pod runs.
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
