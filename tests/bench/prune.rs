//! One Sync with N ConfigMaps: how many of them are applied and pruned per second.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::StreamExt as _;
use harness::{
    Plane, Scene,
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    runtime::watcher::{self, Event},
};
use localcluster::ClusterOptions;
use serde_json::json;
use tokio::task::JoinHandle;

/// Options of this benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// ConfigMaps that come with one commit and go with the next one.
    #[arg(long, default_value_t = 2000)]
    objects: usize,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq)]
enum What {
    Come,
    Go,
}

/// Runs the benchmark and prints a Markdown table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let count = options.objects;
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "prune", ServerOptions::default()).await?;
    let folder = plane.folder();
    let mut controller = Controller::start(&ControllerOptions::usual(plane.cluster.kubeconfig(), &folder))?;
    controller.ready().await?;
    scene.repository(json!({})).await?;
    let map =
        |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}});
    scene.tree.write("app/stays.yaml", map("stays").to_string())?;
    scene.sync("app", "./app", json!({"pruneLimit": "100%"})).await?;
    let revision = scene.publish("one object").await?;
    scene.is_applied("app", &revision).await?;

    let all: String = (0..count).map(|number| format!("---\n{}\n", map(&format!("goes-{number}")))).collect();
    scene.tree.write("app/all.yaml", all)?;
    let applied = timed(scene.api(), What::Come, count);
    let revision = scene.publish("all objects").await?;
    let applied = applied.await??;
    scene.is_applied("app", &revision).await?;

    scene.tree.remove("app/all.yaml")?;
    let pruned = timed(scene.api(), What::Go, count);
    let revision = scene.publish("without them").await?;
    let pruned = pruned.await??;
    scene.is_applied("app", &revision).await?;

    println!("| one Sync with {count} ConfigMaps | objects per second | from the first to the last |");
    println!("|---|---|---|");
    for (name, took) in [("applied", applied), ("pruned", pruned)] {
        #[expect(clippy::cast_precision_loss, reason = "thousands of objects")]
        let rate = count as f64 / took.as_secs_f64();
        println!("| {name} | {rate:.0} | {:.2} s |", took.as_secs_f64());
    }
    Ok(())
}

/// The time from the first to the last ConfigMap that is created or deleted.
fn timed(maps: Api<ConfigMap>, what: What, count: usize) -> JoinHandle<Result<Duration>> {
    tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher::watcher(maps, watcher::Config::default()));
        let limit = tokio::time::sleep(Duration::from_secs(900));
        let mut limit = std::pin::pin!(limit);
        let (mut seen, mut first) = (BTreeSet::new(), None);
        while seen.len() < count {
            let event = tokio::select! {
                () = &mut limit => bail!("{} of {count} objects were seen after 15 minutes", seen.len()),
                event = events.next() => event.context("the watch ended")??,
            };
            let object = match event {
                Event::Apply(object) if what == What::Come => object,
                Event::Delete(object) if what == What::Go => object,
                _ => continue,
            };
            if object.name_any().starts_with("goes-") {
                first.get_or_insert_with(Instant::now);
                seen.insert(object.name_any());
            }
        }
        Ok(first.context("nothing was counted")?.elapsed())
    })
}
