//! Objects are created, changed, deleted and renamed in Git.

use anyhow::Result;
use crds::Sync;
use harness::{
    Plane, Scene,
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
};
use kube::api::{DeleteParams, Patch, PatchParams};
use localcluster::{ClusterOptions, Signal};
use serde_json::json;

use crate::objects::config_map;

const SETTINGS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: blue}\n";

#[tokio::test]
async fn a_sync_made_anew_while_nobody_looked_begins_from_nothing() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let folder = plane.folder();
    let mut controller = Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &folder))?;
    controller.ready().await?;
    let scene = Scene::on(&plane, "anew", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    scene.tree.write("app/map.yaml", config_map("map", "1"))?;
    let revision = scene.publish("a map").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;

    // The controller is paused, so it sees the end of the Sync and the start of the next one at the same time.
    controller.process().signal(Signal::Stop)?;
    let api = scene.api::<Sync>();
    api.patch("app", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}}))).await?;
    api.delete("app", &DeleteParams::default()).await?;
    scene.sync("app", "./app", json!({})).await?;
    controller.process().signal(Signal::Continue)?;
    let sync = scene.is_applied("app", &revision).await?;
    let inventory = sync.status.map(|status| status.inventory).unwrap_or_default();
    assert_eq!(inventory.len(), 1, "what it applied is stored");
    Ok(())
}

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
