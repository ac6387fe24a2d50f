//! Repositories whose content needs much memory: the controller uses no more than its budget, and says what it refused.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use crds::{Repository, Sync};
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

use crate::objects::{config_map, is_value};

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

/// How many bytes a large ConfigMap has. Of the memory of 8 MiB for what Syncs read (a part of the smallest memory budget), a
/// namespace may have half.
const LARGE: usize = 960 << 10;

/// Makes or changes a ConfigMap with the variable `region`, and with so many bytes of another variable.
async fn region(scene: &Scene, name: &str, region: &str, filler: usize) -> Result<()> {
    let data = json!({"region": region, "filler": "x".repeat(filler)});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    kubernetes::apply(&scene.client, &scene.namespace, map).await.map(drop)
}

/// `spec` of a Sync with variables from the ConfigMap `map`.
fn reads(map: &str) -> serde_json::Value {
    json!({"substitute": {"name": format!("of-{map}")}, "substituteFrom": [{"configMap": map}]})
}

#[tokio::test]
async fn what_syncs_read_from_the_cluster_has_a_limit_and_leaves_room_to_neighbours() -> Result<()> {
    let plane =
        Plane::without_controller(ClusterOptions { controller_manager: false, ..ClusterOptions::default() }).await?;
    let mut options = plane.options();
    options.arguments.push("--memory-budget=128Mi".into());
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let (mut scenes, mut revisions) = (Vec::new(), Vec::new());
    for name in ["greedy", "greedy-too", "neighbour"] {
        let scene = Scene::on(&plane, name, ServerOptions::default()).await?;
        scene.repository(json!({})).await?;
        scene.tree.write("app/map.yaml", config_map("${name}", "${region}"))?;
        revisions.push(scene.publish("a map with variables").await?);
        scenes.push(scene);
    }
    let [greedy, greedy_too, neighbour] = scenes.as_slice() else { bail!("three scenes") };
    for (scene, revision) in [greedy, greedy_too].into_iter().zip(&revisions) {
        for map in ["a", "b", "c", "d", "e"] {
            region(scene, map, map, LARGE).await?;
            scene.sync(map, "./app", reads(map)).await?;
            if map != "e" {
                scene.is_applied(map, revision).await?;
            }
        }
        let message = scene.is_not_ready("e", "MemoryBusy").await?;
        let told = format!(
            "there is no room for ConfigMap {}/e: what all Syncs of a namespace read from the cluster (ConfigMaps, Secrets, and \
             what charts look up) may have 4096 KiB together",
            scene.namespace
        );
        ensure!(message.contains(&told), "{message}");
    }
    let taken: Option<u64> = controller.metric("gitseal_memory_taken_bytes").await?;
    ensure!(taken >= Some(8 * LARGE as u64), "{taken:?}");

    // There is no room left for a large ConfigMap of a neighbour, but each namespace always has room for a small one.
    let revision = &revisions[2];
    region(neighbour, "large", "large", LARGE).await?;
    neighbour.sync("large", "./app", reads("large")).await?;
    neighbour.is_not_ready("large", "MemoryBusy").await?;
    for value in ["north", "south"] {
        region(neighbour, "small", value, 12 << 10).await?;
        neighbour.sync("small", "./app", reads("small")).await?;
        neighbour.is_applied("small", revision).await?;
        is_value(neighbour, "of-small", value).await?;
    }

    // What one Sync reads has a limit, too.
    region(neighbour, "more", "more", 100 << 10).await?;
    let mut spec = reads("more");
    spec["substituteFrom"] = json!([{"configMap": "more"}, {"configMap": "large"}]);
    neighbour.sync("both", "./app", spec).await?;
    let message = neighbour.is_not_ready("both", "TooLarge").await?;
    let told = format!("ConfigMap {}/large: what the Sync reads from the cluster", neighbour.namespace);
    ensure!(message.contains(&told) && message.contains("has more than 1 MiB together"), "{message}");
    let lookup = json!({"helm": {"lookup": [{"apiVersion": "v1", "kind": "ConfigMap"}]}});
    greedy.sync("list", "./app", lookup).await?;
    let message = greedy.is_not_ready("list", "TooLarge").await?;
    ensure!(message.contains("spec.helm.lookup[0] stands for all v1 ConfigMap in"), "{message}");
    ensure!(message.contains("too large together: name one object there"), "{message}");

    // When a Sync needs less, another one gets the room. The Sync `e` of the same namespace would take it, too.
    let mut spec = reads("e");
    spec["suspend"] = true.into();
    greedy.sync("e", "./app", spec).await?;
    region(greedy, "a", "less", 0).await?;
    is_value(greedy, "of-a", "less").await?;
    neighbour.request::<Sync>("large").await?;
    neighbour.is_applied("large", revision).await.map(drop)
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
