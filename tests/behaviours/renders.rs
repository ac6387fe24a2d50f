//! How often a folder is read: once per content, and once more when something of it drifts.

use anyhow::{Context, Result};
use harness::{
    Plane, Scene,
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use localcluster::ClusterOptions;
use serde_json::json;

use crate::objects::config_map;

async fn rendered(controller: &Controller, from: &str) -> Result<u64> {
    let text = controller.fetch("/metrics").await?;
    let name = format!("gitseal_folders_rendered_total{{from=\"{from}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(name.as_str()));
    line.map_or(Ok(0), |line| line.trim().parse()).context("not a number")
}

#[tokio::test]
async fn what_drifts_again_is_put_back_without_reading_its_folder() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions { controller_manager: false, ..Default::default() }).await?;
    let folder = plane.folder();
    let options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let scene = Scene::on(&plane, "renders", ServerOptions::default()).await?;
    for name in ["one", "two", "three"] {
        scene.tree.write(&format!("app/{name}.yaml"), config_map(name, "from-git"))?;
    }
    scene.repository(json!({})).await?;
    let revision = scene.publish("all").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    assert_eq!(rendered(&controller, "git").await?, 1);

    let api: Api<ConfigMap> = scene.api();
    for name in ["one", "two", "three"] {
        let patch = Patch::Merge(json!({"data": {"value": "by hand"}}));
        api.patch(name, &PatchParams::default(), &patch).await?;
        scene.has("v1", "ConfigMap", name, json!({"data": {"value": "from-git"}})).await?;
    }
    assert_eq!(rendered(&controller, "git").await?, 2, "by the pass and by the first heal");
    assert_eq!(rendered(&controller, "memory").await?, 2);

    // Another content is read, and what it says counts.
    scene.tree.write("app/one.yaml", config_map("one", "newer"))?;
    let revision = scene.publish("one of them").await?;
    scene.is_applied("app", &revision).await?;
    let patch = Patch::Merge(json!({"data": {"value": "by hand"}}));
    api.patch("one", &PatchParams::default(), &patch).await?;
    scene.has("v1", "ConfigMap", "one", json!({"data": {"value": "newer"}})).await?;
    Ok(())
}
