//! While the newest revision cannot be applied, drift is healed from the last good one.

use anyhow::Result;
use harness::Scene;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::objects::{config_map, sealed_secret};

async fn edit(scene: &Scene, name: &str) -> Result<()> {
    let edited = json!({"data": {"value": "edited"}});
    scene.api::<ConfigMap>().patch(name, &PatchParams::default(), &Patch::Merge(&edited)).await?;
    Ok(())
}

fn from_git() -> Value {
    json!({"data": {"value": "from-git"}})
}

#[tokio::test]
async fn drift_is_healed_from_the_last_revision_that_was_applied() -> Result<()> {
    let scene = Scene::new("last-good").await?;
    scene.tree.write("app/settings.yaml", config_map("settings", "from-git"))?;
    scene.tree.write("app/other.yaml", config_map("other", "from-git"))?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &scene.seal("db", b"last-good-value").await?))?;
    let good = scene.publish("good").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &good).await?;
    scene.has("v1", "Secret", "db", json!({})).await?;

    scene.tree.write("app/other.yaml", config_map("other", "changed"))?;
    scene.tree.write("app/new.yaml", config_map("new", "new"))?;
    scene.tree.write("app/broken.yaml", "kind: [")?;
    scene.publish("broken").await?;
    scene.is_not_ready("app", "InvalidManifest").await?;
    edit(&scene, "settings").await?;
    edit(&scene, "other").await?;
    scene.api::<Secret>().delete("db", &DeleteParams::default()).await?;
    scene.has("v1", "ConfigMap", "settings", from_git()).await?;
    scene.has("v1", "ConfigMap", "other", from_git()).await?;
    scene.has("v1", "Secret", "db", json!({"data": {"password": "bGFzdC1nb29kLXZhbHVl"}})).await?;
    assert!(scene.get("v1", "ConfigMap", "new").await?.is_none(), "a part of a broken revision was applied");
    scene.is_not_ready("app", "InvalidManifest").await?;

    scene.tree.remove("app")?;
    scene.tree.write("elsewhere/settings.yaml", config_map("settings", "elsewhere"))?;
    scene.publish("the folder is gone").await?;
    scene.is_not_ready("app", "PathNotFound").await?;
    edit(&scene, "settings").await?;
    scene.has("v1", "ConfigMap", "settings", from_git()).await?;

    scene.tree.write("app/settings.yaml", config_map("settings", "repaired"))?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &scene.seal("db", b"last-good-value").await?))?;
    let repaired = scene.publish("repaired").await?;
    scene.is_applied("app", &repaired).await?;
    scene.has("v1", "ConfigMap", "settings", json!({"data": {"value": "repaired"}})).await?;
    scene.is_gone("v1", "ConfigMap", "other").await?;
    Ok(())
}
