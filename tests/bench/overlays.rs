//! Measures N Syncs, each an overlay on the same base: the first sync, commits that concern all, one or none of them,
//! and a restart. The rendering is compared with `kustomize build` in a loop.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use harness::{
    Plane,
    git::{GitServer, ServerOptions, WorkTree},
    programs::{self, Controller, ControllerOptions},
};
use localcluster::ClusterOptions;

use crate::{
    floor, process,
    rendering::{applied, children, cpu, fetch, renders, settle},
    workload,
};

const KUSTOMIZE: &str = "kustomize";

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
    workload::create_syncs(&client, &server, "1h", (0..count).map(folder)).await?;
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
    applied(&client, 0..count, &first).await?;
    let cold = Step { took: start.elapsed(), cpu: cpu(pid)?, renders: renders(&controller, KUSTOMIZE).await? };
    settle(pid).await?;

    let commit = async |what: &str, apps: Vec<usize>, controller: &Controller| -> Result<Step> {
        settle(pid).await?;
        let (cpu_before, renders_before) = (cpu(pid)?, renders(controller, KUSTOMIZE).await?);
        let revision = format!("main@sha1:{}", tree.publish(what)?);
        let start = Instant::now();
        fetch(&client, &revision).await?;
        applied(&client, apps.into_iter(), &revision).await?;
        let took = start.elapsed();
        settle(pid).await?;
        let cpu = cpu(pid)?.saturating_sub(cpu_before);
        Ok(Step { took, cpu, renders: renders(controller, KUSTOMIZE).await? - renders_before })
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
    let restart = Step { took: start.elapsed(), cpu: cpu(pid)?, renders: renders(&controller, KUSTOMIZE).await? };

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
        ("a commit outside these folders", &none),
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

/// Writes the base: the objects of [`workload`], without the number of an app in their names.
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
