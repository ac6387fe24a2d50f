//! The shortest interval that a Sync may have.

use anyhow::{Context, Result, bail, ensure};
use crds::Sync;
use harness::{Plane, Scene, eventually, git::ServerOptions, kubernetes};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::{objects::config_map, traces::handled};

const REFUSED: &str = "the interval must be at least 10s";

/// Tries to make a Sync with this interval. Returns the API server's message if the Sync is refused.
async fn tried(scene: &Scene, interval: &str) -> Result<Option<String>> {
    let sync: Sync = serde_json::from_value(json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "tried"},
        "spec": {"repository": {"name": "repo"}, "path": "./app", "interval": interval},
    }))?;
    match scene.api::<Sync>().create(&PostParams { dry_run: true, ..PostParams::default() }, &sync).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) => Ok(Some(status.message)),
        Err(error) => bail!(error),
    }
}

/// The CustomResourceDefinition of older versions, which has no rule for the interval.
fn of_older_versions() -> Result<CustomResourceDefinition> {
    let all = crds::custom_resource_definitions();
    let syncs = all.iter().find(|kind| kind.spec.names.kind == "Sync").context("the kind Sync")?;
    let mut kind = serde_json::to_value(syncs)?;
    let interval = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/interval";
    let interval = kind.pointer_mut(interval).and_then(Value::as_object_mut).context("its interval")?;
    interval.remove("x-kubernetes-validations").context("the rule")?;
    Ok(serde_json::from_value(kind)?)
}

#[tokio::test]
async fn a_sync_has_an_interval_of_ten_seconds_and_what_is_stored_with_less_still_works() -> Result<()> {
    let plane = Plane::start(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "intervals", ServerOptions::default()).await?;
    for (interval, is_refused) in [("9s", true), ("9999ms", true), ("1h30m", false), ("10s", false)] {
        let why = tried(&scene, interval).await?;
        ensure!(why.is_some() == is_refused && why.is_none_or(|why| why.contains(REFUSED)), "{interval}");
    }

    // The CustomResourceDefinition of an older version accepted a shorter interval.
    let kinds = Api::<CustomResourceDefinition>::all(scene.client.clone());
    let by = PatchParams::apply("kubectl").force();
    kinds.patch("syncs.gitseal.dev", &by, &Patch::Apply(of_older_versions()?)).await?;
    eventually("the older rule", || async {
        ensure!(tried(&scene, "1s").await?.is_none());
        Ok(())
    })
    .await?;
    scene.sync("app", "./app", json!({"interval": "1s"})).await?;
    kubernetes::install_crds(&scene.client).await?;
    eventually("the newer rule", || async {
        ensure!(tried(&scene, "1s").await?.is_some());
        Ok(())
    })
    .await?;

    // Although the stored interval is too short now, the controller can set its finalizer and its status, and people
    // can change annotations and other fields.
    scene.repository(json!({})).await?;
    scene.tree.write("app/map.yaml", config_map("map", "1"))?;
    let revision = scene.publish("first").await?;
    scene.is_applied("app", &revision).await?;
    handled(&scene, "app").await?;
    scene.sync("app", "./app", json!({"interval": "1s", "wait": false})).await?;
    scene.tree.write("app/map.yaml", config_map("map", "2"))?;
    let revision = scene.publish("second").await?;
    scene.is_applied("app", &revision).await?;
    let Err(error) = scene.sync("app", "./app", json!({"interval": "2s"})).await else { bail!("it was accepted") };
    ensure!(format!("{error:#}").contains(REFUSED), "{error:#}");
    scene.sync("app", "./app", json!({"interval": "10s"})).await?;
    Ok(())
}
