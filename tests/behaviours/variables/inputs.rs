//! Variables from ConfigMaps and from files of other Repositories.

use anyhow::{Result, ensure};
use harness::{Scene, kubernetes};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::map;
use crate::{
    cli::gitseal,
    helm::inputs::{Other, Reader},
    objects::{change_by_hand, is_value},
};

/// Makes or changes a ConfigMap that nobody applies from Git.
async fn variables(scene: &Scene, name: &str, data: Value) -> Result<()> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    kubernetes::apply(&scene.client, &scene.namespace, map).await.map(drop)
}

#[tokio::test]
async fn variables_of_config_maps_and_other_repositories_are_replaced_anew_when_they_change() -> Result<()> {
    let scene = Scene::new("variable-inputs").await?;
    let text = "${cluster} ${region} ${extra:=none}";
    scene.tree.write("plain/map.yaml", map("${name}", text))?;
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n")?;
    scene.tree.write("chart/templates/map.yaml", map("${name}", text))?;
    let revision = scene.publish("maps with variables").await?;
    let config = Other::with(&scene, "config", &[("vars.env", "region=north\n")])?;
    config.add().await?;
    variables(&scene, "cluster", json!({"cluster": "one", "tls.crt": "is no variable"})).await?;
    let from = json!([
        {"repository": {"name": "config"}, "file": "./vars.env"},
        {"configMap": "cluster"},
        {"configMap": "extra", "optional": true},
    ]);
    let syncs = [
        ("plain", "./plain", json!({})),
        ("prefixed", "./plain", json!({"namePrefix": "p-"})),
        ("chart", "./chart", json!({"helm": {}})),
        ("changed", "./chart", json!({"helm": {}, "namePrefix": "c-"})),
    ];
    let maps = ["plain", "p-prefixed", "chart", "c-changed"];
    for (sync, path, spec) in &syncs {
        let mut spec = spec.clone();
        spec["substitute"] = json!({"name": sync});
        spec["substituteFrom"] = from.clone();
        scene.sync(sync, path, spec).await?;
        scene.is_applied(sync, &revision).await?;
    }
    let are = |value: &'static str| {
        let scene = &scene;
        async move {
            for map in maps {
                is_value(scene, map, value).await?;
            }
            anyhow::Ok(())
        }
    };
    are("one north none").await?;
    variables(&scene, "cluster", json!({"cluster": "two"})).await?;
    are("two north none").await?;
    config.tree.write("vars.env", "region=south\n")?;
    config.publish("another region").await?;
    are("two south none").await?;
    variables(&scene, "extra", json!({"extra": "some", "cluster": "three"})).await?;
    are("three south some").await?;
    scene.api::<ConfigMap>().delete("extra", &DeleteParams::default()).await?;
    are("two south none").await?;
    // The command line shows what the controller does.
    let flag = format!("--remote=config={}", config.tree.path().display());
    for (sync, ..) in &syncs {
        gitseal(&scene, &["diff", "--sync", sync, &flag]).await?.is(0, &[])?;
    }

    // Without the variables, the last good objects stay, and drift is put back to them.
    scene.api::<ConfigMap>().delete("cluster", &DeleteParams::default()).await?;
    for (sync, ..) in &syncs {
        let message = scene.is_not_ready(sync, "ValuesNotFound").await?;
        let told =
            format!("there is no ConfigMap {}/cluster: create it, or correct spec.substituteFrom[1]", scene.namespace);
        ensure!(message.contains(&told), "{message}");
    }
    for map in maps {
        change_by_hand(&scene, map).await?;
        is_value(&scene, map, "two south none").await?;
    }
    variables(&scene, "cluster", json!({"cluster": "four"})).await?;
    are("four south none").await
}

#[tokio::test]
async fn a_config_map_with_variables_is_read_with_the_rights_of_the_sync() -> Result<()> {
    let scene = Scene::new("variable-rights").await?;
    scene.tree.write("plain/map.yaml", map("map", "${cluster}"))?;
    let revision = scene.publish("a map with a variable").await?;
    variables(&scene, "cluster", json!({"cluster": "hidden"})).await?;
    let reader = Reader {
        scene: &scene,
        path: "./plain",
        spec: &json!({"substituteFrom": [{"configMap": "cluster"}]}),
        field: "spec.substituteFrom[0]",
        kind: "ConfigMap",
        reads: "cluster",
        makes: "map",
    };
    reader.needs_the_right_to_read(&revision).await
}
