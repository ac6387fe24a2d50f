//! Repositories whose content needs much memory: the controller uses no more than its budget, and says what it refused.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use crds::Repository;
use harness::{
    Plane, Scene,
    cgroup::Cgroup,
    eventually,
    git::ServerOptions,
    hostile, kubernetes,
    programs::{Controller, ControllerOptions},
};
use localcluster::ClusterOptions;
use serde_json::json;

use crate::objects::config_map;

#[tokio::test]
async fn hostile_repositories_leave_the_controller_and_its_neighbours_alone() -> Result<()> {
    let Some(group) = Cgroup::with_memory(hostile::POD)? else {
        return harness::skip("no control group can be made here");
    };
    let plane = Plane::start(ClusterOptions::default()).await?;
    let process = plane.controller.lock().await.as_mut().context("a controller")?.process().pid();
    group.add(process)?;
    let tenant = Scene::on(&plane, "hostile", ServerOptions::default()).await?;
    let neighbour = Scene::on(&plane, "neighbour", ServerOptions::default()).await?;
    for scene in [&tenant, &neighbour] {
        scene.repository(json!({})).await?;
    }
    neighbour.tree.write("app/a.yaml", config_map("quiet", "1"))?;
    neighbour.publish("quiet").await?;
    neighbour.sync("app", "./app", json!({})).await?;

    hostile::write_brackets(&tenant.tree)?;
    for name in ["first", "second", "third", "fourth"] {
        tenant.sync(name, "./hostile", json!({})).await?;
    }
    tenant.publish("brackets").await?;
    hostile::push_deltas(&tenant.tree)?;
    let deltas = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository", "metadata": {"name": "deltas"},
        "spec": {"url": tenant.server.url("repo"), "interval": "1h", "ref": {"branch": "deltas"}},
    });
    kubernetes::apply(&tenant.client, &tenant.namespace, deltas).await?;

    neighbour.tree.write("app/a.yaml", config_map("quiet", "2"))?;
    let revision = neighbour.publish("meanwhile").await?;
    neighbour.is_applied("app", &revision).await?;
    for name in ["first", "second", "third", "fourth"] {
        let message = tenant.is_not_ready(name, "TooLarge").await?;
        ensure!(message.contains("MiB of memory: split the folder"), "{message}");
    }
    let api: kube::Api<Repository> = tenant.api();
    let message = eventually("the deltas to be refused", || async {
        let status = api.get("deltas").await?.status.unwrap_or_default();
        let ready = crds::find_condition(&status.conditions, "Ready").context("no Ready")?.clone();
        ensure!(ready.reason == "TooLarge", "{ready:?}");
        Ok(ready.message)
    })
    .await?;
    ensure!(message.contains("cannot be unpacked") && message.contains("MiB of memory"), "{message}");

    let mut controller = plane.controller.lock().await;
    let ended = controller.as_mut().context("a controller")?.process().try_wait()?;
    ensure!(ended.is_none(), "the controller ended with {ended:?}");
    ensure!(group.kills()? == 0, "the kernel had to kill");
    controller.take().context("a controller")?.kill()
}

#[tokio::test]
async fn a_folder_during_which_the_process_died_is_left_alone_for_a_while() -> Result<()> {
    let plane = Plane::start(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "died", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    for sync in ["deadly", "other"] {
        scene.tree.write(&format!("{sync}/a.yaml"), config_map(sync, "1"))?;
    }
    let revision = scene.publish("first").await?;
    plane.controller.lock().await.take().context("a controller")?.kill()?;

    // Write the file that a controller leaves if it dies while it reads this folder.
    let folder = plane.folder();
    let work = format!("{}/deadly {revision} deadly", scene.namespace);
    let digest = Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum", "sh", &work]).output()?;
    let name = String::from_utf8(digest.stdout)?[..32].to_owned();
    std::fs::write(folder.join("git/.attempts").join(name), "running 0")?;

    for sync in ["deadly", "other"] {
        scene.sync(sync, &format!("./{sync}"), json!({})).await?;
    }
    let mut controller = Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &folder))?;
    controller.ready().await?;
    let message = scene.is_not_ready("deadly", "ProcessDied").await?;
    ensure!(message.contains(&revision) && message.contains("(1 time)"), "{message}");
    scene.is_applied("other", &revision).await?;
    // Later, the folder is tried again, because the controller may have died for another reason.
    scene.is_applied("deadly", &revision).await.map(drop)
}
