//! etcd stops while the controller and the API server run, and starts again later.

use anyhow::{Result, ensure};
use crds::{Repository, Sync};
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
    within,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams};
use localcluster::{ClusterOptions, Program};
use serde_json::json;

use super::SOON;
use crate::objects::config_map;

#[tokio::test]
async fn what_is_published_and_deleted_while_the_store_is_away_is_applied_when_it_is_back() -> Result<()> {
    let mut plane = Plane::without_controller(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "stopped-store", ServerOptions::default()).await?;
    let folder = plane.folder();
    let mut options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    // Without leader election, the controller keeps running even if no lease can be renewed.
    options.arguments.push("--leader-elect=false".into());
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    // While etcd is away, nobody can request a fetch, so the Repository is polled.
    scene.repository(json!({"interval": "10s"})).await?;
    for name in ["changes", "goes"] {
        scene.tree.write(&format!("app/{name}.yaml"), config_map(name, "first"))?;
    }
    scene.sync("app", "./app", json!({})).await?;
    let first = scene.publish("first").await?;
    scene.is_applied("app", &first).await?;

    plane.cluster.cut(Program::Etcd)?;
    scene.tree.write("app/changes.yaml", config_map("changes", "second"))?;
    let second = format!("main@sha1:{}", scene.tree.publish("second")?);
    eventually("the log to say what fails", || async {
        let log = controller.log();
        ensure!(log.lines().any(|line| line.contains("WARN") && line.contains(&scene.namespace)), "{log}");
        Ok(())
    })
    .await?;
    ensure!(controller.process().try_wait()?.is_none(), "it ended: {}", controller.log());
    // The controller answers, says why it is not ready, and is not restarted for that.
    eventually("it not to be ready", || async {
        let (code, body) = controller.get(controller.probes_port, "/readyz").await?;
        ensure!(code == 503 && body.contains("api-server"), "{code}: {body}");
        Ok(())
    })
    .await?;
    ensure!(controller.get(controller.probes_port, "/healthz").await?.0 == 200, "a restart would mend nothing");
    // Nobody can write a status now. The API server still returns the last stored status from its memory, and this
    // status does not name the revision that could not be applied.
    let status = remembered(&scene, "app").await?.status.unwrap_or_default();
    ensure!(status.last_applied_revision.as_ref() == Some(&first), "{status:#?}");
    ensure!(!serde_json::to_string(&status)?.contains(&second), "{status:#?}");

    plane.cluster.start_again(Program::Etcd)?;
    let maps = scene.api::<ConfigMap>();
    // The deletion succeeds as soon as etcd is back.
    eventually("somebody to delete it", || async { Ok(maps.delete("goes", &DeleteParams::default()).await?) }).await?;
    eventually("the API server to work again", || works(&scene)).await?;
    let is_back = async {
        scene.is_applied("app", &second).await?;
        scene.has("v1", "ConfigMap", "changes", json!({"data": {"value": "second"}})).await?;
        scene.has("v1", "ConfigMap", "goes", json!({"data": {"value": "first"}})).await
    };
    within(SOON, is_back).await?;
    let is_ready = eventually("it to be ready", || async {
        let (code, body) = controller.get(controller.probes_port, "/readyz").await?;
        ensure!(code == 200, "{code}: {body}");
        Ok(())
    });
    within(SOON, is_ready).await
}

/// Succeeds if the API server reaches its store for the kinds that the controller writes, and says that it works. The API
/// server has a connection to etcd for each of these kinds. After an outage, it takes up to half a minute until all of
/// them are open again, and the controller can do nothing about that.
async fn works(scene: &Scene) -> Result<()> {
    // A dry run reads the object from the store.
    let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
    let nothing = Patch::Merge(json!({}));
    scene.api::<Repository>().patch_status("repo", &dry_run, &nothing).await?;
    scene.api::<Sync>().patch_status("app", &dry_run, &nothing).await?;
    scene.client.request_text(http::Request::get("/livez").body(Vec::new())?).await?;
    Ok(())
}

/// A Sync as the API server has it in memory, without reading its store.
async fn remembered(scene: &Scene, name: &str) -> Result<Sync> {
    let namespace = &scene.namespace;
    let path = format!("/apis/gitseal.dev/v1alpha1/namespaces/{namespace}/syncs/{name}?resourceVersion=0");
    Ok(scene.client.request(http::Request::get(path).body(Vec::new())?).await?)
}
