//! etcd is restored from a backup while the controller runs. So all objects and their resource versions go back to an
//! earlier state.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use crds::Sync;
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
    within,
};
use localcluster::ClusterOptions;
use serde_json::json;

use super::SOON;
use crate::objects::config_map;

const MAPS: usize = 20;

fn name(number: usize) -> String {
    format!("map-{number:02}")
}

async fn have(scene: &Scene, numbers: std::ops::Range<usize>, value: &str) -> Result<()> {
    for number in numbers {
        scene.has("v1", "ConfigMap", &name(number), json!({"data": {"value": value}})).await?;
    }
    Ok(())
}

/// Waits until the Sync's inventory has exactly the ConfigMaps with these numbers.
async fn tracks(scene: &Scene, numbers: std::ops::Range<usize>) -> Result<()> {
    let wanted: BTreeSet<_> = numbers.map(name).collect();
    eventually("the inventory", || async {
        let status = scene.api::<Sync>().get("app").await?.status.unwrap_or_default();
        let text = serde_json::to_string(&status.inventory)?;
        let found: BTreeSet<_> = (0..3 * MAPS).map(name).filter(|name| text.contains(name.as_str())).collect();
        ensure!(found == wanted, "{found:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_store_that_goes_back_is_brought_to_what_git_says() -> Result<()> {
    let mut plane = Plane::without_controller(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "restored", ServerOptions::default()).await?;
    let folder = plane.folder();
    let mut options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    // Without leader election, the controller keeps running even if the API server is away for long.
    options.arguments.push("--leader-elect=false".into());
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    scene.repository(json!({})).await?;
    for number in 0..MAPS {
        scene.tree.write(&format!("app/{number}.yaml"), config_map(&name(number), "first"))?;
    }
    scene.sync("app", "./app", json!({"pruneLimit": "100%"})).await?;
    let first = scene.publish("first").await?;
    scene.is_applied("app", &first).await?;

    let backup = plane.cluster.back_up()?;
    // Many ConfigMaps are changed, many are new, and a few are deleted.
    for number in 5..MAPS {
        scene.tree.write(&format!("app/{number}.yaml"), config_map(&name(number), "second"))?;
    }
    for number in MAPS..2 * MAPS {
        scene.tree.write(&format!("app/{number}.yaml"), config_map(&name(number), "second"))?;
    }
    for number in 0..5 {
        scene.tree.remove(&format!("app/{number}.yaml"))?;
    }
    let second = scene.publish("second").await?;
    scene.is_applied("app", &second).await?;
    have(&scene, 5..2 * MAPS, "second").await?;

    plane.cluster.restore(&backup)?;
    let is_back = async {
        have(&scene, 5..2 * MAPS, "second").await?;
        for number in 0..5 {
            scene.is_gone("v1", "ConfigMap", &name(number)).await?;
        }
        scene.is_applied("app", &second).await?;
        tracks(&scene, 5..2 * MAPS).await
    };
    within(SOON, is_back).await?;
    assert!(controller.log().contains("shows an earlier state than before"), "{}", controller.log());
    assert!(controller.fetch("/metrics").await?.contains("gitseal_store_went_back_total"));

    // Later changes are seen, although their resource versions may be lower than earlier ones.
    let maps = scene.api::<k8s_openapi::api::core::v1::ConfigMap>();
    maps.delete(&name(30), &kube::api::DeleteParams::default()).await?;
    within(SOON, have(&scene, 30..31, "second")).await?;
    // Objects that leave Git are pruned, so the controller has lost track of none.
    for number in 10..2 * MAPS {
        scene.tree.remove(&format!("app/{number}.yaml"))?;
    }
    let third = scene.publish("third").await?;
    scene.is_applied("app", &third).await?;
    for number in 10..2 * MAPS {
        scene.is_gone("v1", "ConfigMap", &name(number)).await?;
    }
    tracks(&scene, 5..10).await
}
