//! Measures how long a tenant's commit takes while the hostile repositories of another tenant are read again and again. The
//! controller has as much memory as its Pod in `deploy/`.

use std::time::{Duration, Instant};

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
use k8s_openapi::api::core::v1::ConfigMap;
use localcluster::ClusterOptions;
use serde_json::json;

use crate::process;

/// Options of this benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many commits are measured without the hostile repositories, and again with them.
    #[arg(long, default_value_t = 20)]
    commits: usize,
}

const SYNCS: [&str; 4] = ["first", "second", "third", "fourth"];

/// Runs the benchmark and prints a Markdown table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let group = Cgroup::with_memory(hostile::POD)?.context("no control group can be made here")?;
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let folder = plane.folder();
    let mut controller = Controller::start(&ControllerOptions::usual(plane.cluster.kubeconfig(), &folder))?;
    controller.ready().await?;
    let pid = controller.process().pid();
    group.add(pid)?;
    let tenant = Scene::on(&plane, "hostile", ServerOptions::default()).await?;
    let neighbour = Scene::on(&plane, "neighbour", ServerOptions::default()).await?;
    for scene in [&tenant, &neighbour] {
        scene.repository(json!({})).await?;
    }
    neighbour.sync("app", "./app", json!({})).await?;
    eprintln!("the neighbour alone …");
    let alone = commits(&neighbour, options.commits, "alone").await?;

    hostile::write_brackets(&tenant.tree)?;
    hostile::push_deltas(&tenant.tree)?;
    tenant.publish("brackets").await?;
    for name in SYNCS {
        tenant.sync(name, "./hostile", json!({})).await?;
    }
    let deltas = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository", "metadata": {"name": "deltas"},
        "spec": {"url": tenant.server.url("repo"), "interval": "1m", "ref": {"branch": "deltas"}},
    });
    kubernetes::apply(&tenant.client, &tenant.namespace, deltas).await?;
    eprintln!("the neighbour beside hostile repositories …");
    let beside = tokio::select! {
        ended = ask_all_the_time(&tenant) => { ended?; bail!("the tenant gave up") }
        beside = commits(&neighbour, options.commits, "beside") => beside?,
    };
    ensure!(controller.process().try_wait()?.is_none(), "the controller ended");
    ensure!(group.kills()? == 0, "the kernel had to kill");

    println!(
        "| time until a commit of a neighbour is applied ({} commits) | median | longest | target |",
        options.commits
    );
    println!("|---|---|---|---|");
    for (what, times, target) in [("alone", &alone, ""), ("beside hostile repositories", &beside, "≤ 2 s")] {
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        println!("| {what} | {:.2} s | {:.2} s | {target} |", median.as_secs_f64(), longest.as_secs_f64());
    }
    println!("| peak resident memory | {:.0} MiB | | the Pod has 512 |", process::peak_memory(pid)?);
    Ok(())
}

/// Requests again and again that the controller reads the hostile folder and fetches the hostile pack.
async fn ask_all_the_time(tenant: &Scene) -> Result<()> {
    loop {
        for name in SYNCS {
            tenant.request::<Sync>(name).await?;
        }
        tenant.request::<Repository>("deltas").await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The times from the request to fetch until the object is applied, the shortest first.
async fn commits(scene: &Scene, count: usize, name: &str) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    let api = scene.api::<ConfigMap>();
    for number in 0..count {
        let value = format!("{name}-{number}");
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "quiet"}, "data": {"value": value}});
        scene.tree.write("app/a.yaml", format!("{object}\n"))?;
        scene.tree.publish(&value)?;
        let start = Instant::now();
        scene.request::<Repository>("repo").await?;
        eventually("the commit to be applied", || async {
            let data = api.get_opt("quiet").await?.and_then(|map| map.data).unwrap_or_default();
            if data.get("value") == Some(&value) { Ok(()) } else { bail!("{data:?}") }
        })
        .await?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times)
}
