//! The steps of docs/sync.md that hand the `replicas` of a Deployment to an autoscaler.

use anyhow::{Context, Result, ensure};
use harness::{Scene, kubernetes};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    objects::deployment,
    traces::{event, handled},
};

/// The `ignoreDifferences` that docs/sync.md shows.
fn of_the_page() -> Result<Value> {
    let page = include_str!("../../docs/sync.md");
    let chapter = page.split_once("\n## Replicas and autoscalers\n").context("the chapter")?.1;
    let block = chapter.split_once("```yaml\n").and_then(|(_, rest)| rest.split_once("```")).context("its YAML")?.0;
    let spec = format!("apiVersion: v1\nkind: Sync\nmetadata: {{name: s}}\nspec:\n{}", indented(block));
    let read = manifests::parse("docs/sync.md", spec.as_bytes(), &manifests::Limits::default())?;
    let spec = read.into_iter().next().and_then(|mut sync| sync.body.remove("spec")).context("a spec")?;
    Ok(spec["ignoreDifferences"].clone())
}

fn indented(block: &str) -> String {
    block.lines().map(|line| format!("  {line}\n")).collect()
}

/// Scales the Deployment as the controller of HorizontalPodAutoscalers does.
async fn autoscale(scene: &Scene, replicas: u32) -> Result<()> {
    let by = PatchParams { field_manager: Some("kube-controller-manager".into()), ..PatchParams::default() };
    let scale = json!({"spec": {"replicas": replicas}});
    scene.api::<Deployment>().patch_scale("web", &by, &Patch::Merge(scale)).await?;
    Ok(())
}

/// Checks that the number of replicas stays although the Sync compares all objects, and that the Sync is Ready.
async fn stays(scene: &Scene, replicas: u32) -> Result<()> {
    handled(scene, "app").await?;
    scene.is_ready("app").await?;
    let found = scene.get("apps/v1", "Deployment", "web").await?.context("web")?;
    ensure!(found["spec"]["replicas"] == replicas, "{found:#}");
    Ok(())
}

/// Whether gitseal owns the number of replicas.
async fn is_owned(scene: &Scene) -> Result<bool> {
    let web = scene.api::<Deployment>().get("web").await?;
    let ours = web.metadata.managed_fields.into_iter().flatten();
    let ours = ours.filter(|entry| entry.manager.as_deref() == Some("gitseal") && entry.subresource.is_none());
    Ok(ours.filter_map(|entry| entry.fields_v1).any(|fields| fields.0["f:spec"].get("f:replicas").is_some()))
}

#[tokio::test]
async fn the_steps_of_the_page_hand_the_replicas_to_an_autoscaler() -> Result<()> {
    let scene = Scene::new("autoscaler").await?;
    let with_replicas = deployment("web", 2);
    let without_replicas = with_replicas.replace("  replicas: 2\n", "");
    ensure!(with_replicas != without_replicas);
    scene.tree.write("app/web.yaml", &with_replicas)?;
    let revision = scene.publish("with replicas").await?;
    scene.sync("app", "./app", json!({"wait": false})).await?;
    scene.is_applied("app", &revision).await?;
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 2, "maxReplicas": 9,
        },
    });
    kubernetes::apply(&scene.client, &scene.namespace, autoscaler).await?;
    autoscale(&scene, 3).await?;
    event(&scene, "app", "Drifted", &["Deployment", "spec.replicas by kube-controller-manager"]).await?;
    scene.has("apps/v1", "Deployment", "web", json!({"spec": {"replicas": 2}})).await?;

    // First, the entry in `ignoreDifferences` is added to the Sync.
    let ignored = json!({"wait": false, "ignoreDifferences": of_the_page()?});
    scene.sync("app", "./app", ignored).await?;
    stays(&scene, 2).await?;
    ensure!(!is_owned(&scene).await?, "gitseal gives up the field");
    autoscale(&scene, 4).await?;
    stays(&scene, 4).await?;

    // Next, the field is removed from the manifest.
    scene.tree.write("app/web.yaml", &without_replicas)?;
    let revision = scene.publish("without replicas").await?;
    scene.is_applied("app", &revision).await?;
    stays(&scene, 4).await?;
    autoscale(&scene, 5).await?;
    stays(&scene, 5).await?;

    // After that, the entry in `ignoreDifferences` is removed from the Sync.
    scene.sync("app", "./app", json!({"wait": false})).await?;
    stays(&scene, 5).await?;
    autoscale(&scene, 6).await?;
    stays(&scene, 6).await?;
    scene.tree.write("app/web.yaml", without_replicas.replace("spec:\n", "spec:\n  minReadySeconds: 1\n"))?;
    let revision = scene.publish("something else changes").await?;
    scene.is_applied("app", &revision).await?;
    scene.has("apps/v1", "Deployment", "web", json!({"spec": {"minReadySeconds": 1}})).await?;
    stays(&scene, 6).await?;
    ensure!(!is_owned(&scene).await?);
    Ok(())
}

#[tokio::test]
async fn without_the_entry_the_number_becomes_the_default() -> Result<()> {
    let scene = Scene::new("no-autoscaler").await?;
    let with_replicas = deployment("web", 2);
    scene.tree.write("app/web.yaml", &with_replicas)?;
    let revision = scene.publish("with replicas").await?;
    scene.sync("app", "./app", json!({"wait": false})).await?;
    scene.is_applied("app", &revision).await?;
    scene.tree.write("app/web.yaml", with_replicas.replace("  replicas: 2\n", ""))?;
    let revision = scene.publish("without replicas").await?;
    scene.is_applied("app", &revision).await?;
    stays(&scene, 1).await
}
