//! Create, change, delete and rename from Git.

use anyhow::Result;
use harness::Scene;
use serde_json::json;

const SETTINGS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: blue}\n";

#[tokio::test]
async fn what_git_says_is_what_the_cluster_has() -> Result<()> {
    let scene = Scene::new("lifecycle").await?;
    scene.tree.write("app/settings.yaml", SETTINGS)?;
    scene.tree.write("app/deep/er/other.yml", SETTINGS.replace("settings", "other"))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    scene.has("v1", "ConfigMap", "settings", json!({"data": {"colour": "blue"}})).await?;

    scene.tree.write("app/settings.yaml", SETTINGS.replace("blue", "green"))?;
    let second = scene.publish("changed").await?;
    scene.is_applied("app", &second).await?;
    scene.has("v1", "ConfigMap", "settings", json!({"data": {"colour": "green"}})).await?;

    scene.tree.remove("app/settings.yaml")?;
    let third = scene.publish("deleted").await?;
    let sync = scene.is_applied("app", &third).await?;
    scene.is_gone("v1", "ConfigMap", "settings").await?;
    scene.has("v1", "ConfigMap", "other", json!({})).await?;
    let status = sync.status.unwrap();
    assert_eq!(status.inventory.len(), 1, "{:?}", status.inventory);
    let history: Vec<_> = status.history.iter().map(|entry| entry.revision.as_str()).collect();
    assert_eq!(history, [third, second, first]);
    Ok(())
}
