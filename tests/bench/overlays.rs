//! Measures N Syncs, each an overlay on the same base: the first sync, commits that concern all, one or none of them, and a
//! restart. `kustomize build` in a loop is the peer for the rendering.

use std::{
    collections::HashSet,
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use crds::{ConditionStatus, Sync, find_condition};
use futures::{StreamExt, TryStreamExt, stream};
use harness::{
    Plane,
    git::{GitServer, ServerOptions, WorkTree},
    kubernetes,
    programs::{self, Controller, ControllerOptions},
};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use localcluster::ClusterOptions;
use serde_json::json;

use crate::{floor, process, workload};

/// Options of this benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of overlays.
    #[arg(long, default_value_t = 1000)]
    count: usize,
}

/// What one step took.
struct Step {
    took: Duration,
    /// Processor time of the controller and of the processes that render.
    cpu: Duration,
    renders: u64,
}

/// Runs everything and prints a Markdown table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let count = options.count;
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let client = plane.cluster.client().await?;
    let server = tokio::task::spawn_blocking(|| GitServer::new(ServerOptions::default())).await??;
    let tree = server.create("repo")?;
    write_base(&tree, "first")?;
    for app in 0..count {
        write_overlay(&tree, app, "first")?;
    }
    let first = format!("main@sha1:{}", tree.publish("all overlays")?);
    prepare(&client, &server, count).await?;
    let (peer, peer_cpu) = kustomize_in_a_loop(&tree, count)?;

    eprintln!("{count} overlays: the floor …");
    let floor = floor::fastest(&plane.cluster, &client, count).await?;
    process::idle(&plane.cluster).await?;

    eprintln!("{count} overlays: gitseal …");
    let folder = plane.folder();
    let options = ControllerOptions::usual(plane.cluster.kubeconfig(), &folder);
    programs::folder()?;
    let start = Instant::now();
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let pid = controller.process().pid();
    applied(&client, (0..count).collect(), &first).await?;
    let cold = Step { took: start.elapsed(), cpu: cpu(pid)?, renders: renders(&controller).await? };
    settle(pid).await?;

    let commit = async |what: &str, apps: Vec<usize>, controller: &Controller| -> Result<Step> {
        settle(pid).await?;
        let (cpu_before, renders_before) = (cpu(pid)?, renders(controller).await?);
        let revision = format!("main@sha1:{}", tree.publish(what)?);
        let start = Instant::now();
        fetch(&client, &revision).await?;
        applied(&client, apps.into_iter().collect(), &revision).await?;
        let took = start.elapsed();
        settle(pid).await?;
        let cpu = cpu(pid)?.saturating_sub(cpu_before);
        Ok(Step { took, cpu, renders: renders(controller).await? - renders_before })
    };
    tree.write("docs/notes.yaml", "nothing: that is applied\n")?;
    let none = commit("elsewhere", Vec::new(), &controller).await?;
    write_overlay(&tree, count / 2, "second")?;
    let one = commit("one overlay", vec![count / 2], &controller).await?;
    write_base(&tree, "second")?;
    let all = commit("the base", (0..count).collect(), &controller).await?;
    let memory = process::peak_memory(pid)?;
    let renderers: f64 = children(pid).into_iter().filter_map(|child| process::peak_memory(child).ok()).sum();

    controller.stop()?;
    process::idle(&plane.cluster).await?;
    let start = Instant::now();
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let pid = controller.process().pid();
    settle(pid).await?;
    let restart = Step { took: start.elapsed(), cpu: cpu(pid)?, renders: renders(&controller).await? };

    let seconds = |duration: Duration| format!("{:.2} s", duration.as_secs_f64());
    let per_sync = (cold.cpu / u32::try_from(count)?).as_secs_f64() * 1000.0;
    println!("| {count} overlays on one base | took | processor time | renders |\n|---|---|---|---|");
    println!("| floor: a simple client applies the same objects | {} | | |", seconds(floor.took));
    println!(
        "| peer: `kustomize build` in a loop, rendering only | {} | {} | {count} |",
        seconds(peer),
        seconds(peer_cpu)
    );
    for (name, step) in [
        ("gitseal, cold: from the start of the controller until all are Ready", &cold),
        ("a commit that concerns none", &none),
        ("a commit in one overlay", &one),
        ("a commit in the base, until all are applied", &all),
        ("restart, until nothing is left to do", &restart),
    ] {
        println!("| {name} | {} | {} | {} |", seconds(step.took), seconds(step.cpu), step.renders);
    }
    println!("\ncold: {:.2} × the floor, {per_sync:.1} ms of processor time for each Sync", ratio(&cold, floor.took));
    println!("peak memory: controller {memory:.1} MiB, processes that render {renderers:.1} MiB");
    Ok(())
}

fn ratio(step: &Step, floor: Duration) -> f64 {
    step.took.as_secs_f64() / floor.as_secs_f64()
}

/// The objects of [`workload`] without the number of an app in their names.
fn write_base(tree: &WorkTree, note: &str) -> Result<()> {
    let text = workload::file("default", 0, note).replace("app-0", "web");
    tree.write("base/web.yaml", text)?;
    tree.write("base/kustomization.yaml", "resources: [web.yaml]\n")?;
    Ok(())
}

fn write_overlay(tree: &WorkTree, app: usize, note: &str) -> Result<()> {
    let kustomization = format!(
        "resources: [../../base]\nnamePrefix: app-{app}-\nlabels: [{{pairs: {{team: t{}}}}}]\nimages: [{{name: \
         registry.example/web, newTag: '1.{app}'}}]\ncommonAnnotations: {{note: {note}}}\n",
        app % 10
    );
    tree.write(&format!("{}/kustomization.yaml", folder(app)), kustomization)?;
    Ok(())
}

fn folder(app: usize) -> String {
    format!("overlays/app-{app}")
}

/// Creates the Repository and the Syncs before the controller starts.
async fn prepare(client: &Client, server: &GitServer, count: usize) -> Result<()> {
    let repository = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository", "metadata": {"name": "repo"},
        "spec": {"url": server.url("repo"), "ref": {"branch": "main"}, "interval": "1h"},
    });
    kubernetes::apply(client, "default", repository).await?;
    stream::iter(0..count)
        .map(|app| async move {
            let sync = json!({
                "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": format!("app-{app}")},
                "spec": {"repository": {"name": "repo"}, "path": folder(app)},
            });
            kubernetes::apply(client, "default", sync).await
        })
        .buffer_unordered(32)
        .try_for_each(|_| async { Ok(()) })
        .await
}

/// Requests a fetch of the Repository, and waits until it has `revision`.
async fn fetch(client: &Client, revision: &str) -> Result<()> {
    let api = Api::<crds::Repository>::namespaced(client.clone(), "default");
    let patch = json!({"metadata": {"annotations": {crds::names::RECONCILE_REQUESTED_AT: revision}}});
    api.patch("repo", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch)).await?;
    harness::eventually("the fetch", || async {
        let status = api.get("repo").await?.status.unwrap_or_default();
        ensure!(status.revision.as_deref() == Some(revision), "{:?}", status.revision);
        Ok(())
    })
    .await
}

/// Waits until these Syncs are Ready at `revision`.
async fn applied(client: &Client, mut waiting: HashSet<usize>, revision: &str) -> Result<()> {
    let syncs = Api::<Sync>::namespaced(client.clone(), "default");
    let mut stream = std::pin::pin!(watcher(syncs, watcher::Config::default()).applied_objects());
    let mut limit = std::pin::pin!(tokio::time::sleep(Duration::from_secs(900)));
    while !waiting.is_empty() {
        tokio::select! {
            () = &mut limit => bail!("{} Syncs are not Ready after 15 minutes", waiting.len()),
            sync = stream.next() => {
                let sync = sync.context("the watch ended")??;
                let status = sync.status.unwrap_or_default();
                let is_ready = find_condition(&status.conditions, "Ready").is_some_and(|c| c.status == ConditionStatus::True);
                if is_ready && status.last_applied_revision.as_deref() == Some(revision) {
                    let number = sync.metadata.name.as_deref().and_then(|name| name.strip_prefix("app-")?.parse().ok());
                    waiting.remove(&number.context("a number")?);
                }
            }
        }
    }
    Ok(())
}

/// How long `kustomize build` takes for every overlay, one after the other, and its processor time.
fn kustomize_in_a_loop(tree: &WorkTree, count: usize) -> Result<(Duration, Duration)> {
    let program = localcluster::parts::kustomize()?;
    eprintln!("{count} overlays: kustomize build …");
    let (start, before) = (Instant::now(), process::cpu_of_ended()?);
    for app in 0..count {
        let mut command = Command::new(&program);
        command.args(["build", "--load-restrictor", "LoadRestrictionsNone"]).arg(folder(app));
        let status = command.current_dir(tree.path()).env_clear().stdout(Stdio::null()).status()?;
        ensure!(status.success(), "kustomize build ended with {status}");
    }
    Ok((start.elapsed(), process::cpu_of_ended()?.saturating_sub(before)))
}

/// How often a folder was rendered.
async fn renders(controller: &Controller) -> Result<u64> {
    let metrics = controller.fetch("/metrics").await?;
    let name = "gitseal_folders_rendered_total{from=\"kustomize\"} ";
    Ok(metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0))
}

/// Processor time of the controller and of its processes that render.
fn cpu(pid: u32) -> Result<Duration> {
    let ended = process::cpu_of_children(pid)?;
    let running: Duration = children(pid).into_iter().filter_map(|child| process::cpu(child).ok()).sum();
    Ok(process::cpu(pid)? + ended + running)
}

/// The processes that `pid` started.
fn children(pid: u32) -> Vec<u32> {
    let parent = |stat: &str| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|child| fs::read_to_string(format!("/proc/{child}/stat")).ok().as_deref().and_then(parent) == Some(pid))
        .collect()
}

/// Waits until the controller and its processes have used no processor time for two seconds.
async fn settle(pid: u32) -> Result<()> {
    let mut last = cpu(pid)?;
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = cpu(pid)?;
        if now.saturating_sub(last) <= Duration::from_millis(20) {
            return Ok(());
        }
        last = now;
    }
}
