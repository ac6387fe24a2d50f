//! Measures N Syncs of one Repository: the first sync, one commit, drift, and how many requests are made while there is
//! nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crds::{Sync, find_condition};
use harness::{
    Plane, eventually,
    git::{GitServer, ServerOptions, WorkTree},
    programs::{self, Controller, ControllerOptions},
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use localcluster::ClusterOptions;
use serde_json::json;

use crate::{floor, process, workload};

/// Options of this benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Numbers of Syncs. There is one run for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [200, 1000])]
    counts: Vec<usize>,
    /// For how many seconds API requests are counted while there is nothing to do.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Number of objects that are changed by hand, to measure how fast drift is healed.
    #[arg(long, default_value_t = 20)]
    drifts: usize,
}

/// The measured values of one run.
struct Figures {
    count: usize,
    floor: floor::Floor,
    ready: Duration,
    /// Processor time of API server, etcd and controller manager.
    plane_cpu: Duration,
    cpu_per_sync: Duration,
    peak_memory: f64,
    commit: Duration,
    commit_cpu: Duration,
    heal: Duration,
    idle_requests: u64,
}

/// Runs the benchmark once for each number of Syncs, and prints the results as a Markdown table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut all = Vec::new();
    for &count in &options.counts {
        all.push(measure(count, options).await?);
    }
    print_table(&all, options.idle);
    Ok(())
}

async fn measure(count: usize, options: &Options) -> Result<Figures> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let client = plane.cluster.client().await?;
    let server = tokio::task::spawn_blocking(|| GitServer::new(ServerOptions::default())).await??;
    let tree = server.create("repo")?;
    for app in 0..count {
        tree.write(&format!("{}/app.yaml", workload::folder(app)), workload::file("default", app, "first"))?;
    }
    tree.publish("all apps")?;
    // The Syncs are created before the controller starts, so that everything that the controller does is counted.
    workload::create_syncs(&client, &server, "1m", (0..count).map(workload::folder)).await?;

    eprintln!("{count} Syncs: the floor …");
    let floor = floor::fastest(&plane.cluster, &client, count).await?;
    process::idle(&plane.cluster).await?;

    eprintln!("{count} Syncs: gitseal …");
    let folder = plane.folder();
    let controller_options = ControllerOptions::usual(plane.cluster.kubeconfig(), &folder);
    programs::folder()?;
    let plane_before = process::plane_cpu(&plane.cluster)?;
    let start = Instant::now();
    let mut controller = Controller::start(&controller_options)?;
    controller.ready().await?;
    let pid = controller.process().pid();
    let is_ready = |sync: &Sync| {
        let ready = sync.status.as_ref().and_then(|status| find_condition(&status.conditions, "Ready"));
        ready.is_some_and(|ready| ready.status == crds::ConditionStatus::True)
    };
    workload::wait_for(&client, count, is_ready).await?;
    let ready = start.elapsed();
    let plane_cpu = process::plane_cpu(&plane.cluster)?.saturating_sub(plane_before);
    let cpu_per_sync = process::cpu(pid)? / u32::try_from(count)?;
    settle(pid).await?;

    let (commit, commit_cpu) = one_commit(&plane, &client, &tree, pid, count).await?;
    let heal = drift(&client, options.drifts.min(count)).await?;
    settle(pid).await?;
    let before = requests(&controller).await?;
    tokio::time::sleep(Duration::from_secs(options.idle)).await;
    let idle_requests = requests(&controller).await? - before;
    let peak_memory = process::peak_memory(pid)?;
    Ok(Figures { count, floor, ready, plane_cpu, cpu_per_sync, peak_memory, commit, commit_cpu, heal, idle_requests })
}

/// Waits until the controller has used no processor time for two seconds.
async fn settle(pid: u32) -> Result<()> {
    process::quiet(Duration::from_secs(2), Duration::from_millis(10), || process::cpu(pid)).await
}

/// Pushes a commit that changes one folder. Returns how long it takes from `gitseal sync` until the object is applied, and
/// the controller's processor time.
async fn one_commit(
    plane: &Plane,
    client: &Client,
    tree: &WorkTree,
    pid: u32,
    count: usize,
) -> Result<(Duration, Duration)> {
    let app = count / 2;
    tree.write(&format!("{}/app.yaml", workload::folder(app)), workload::file("default", app, "second"))?;
    tree.publish("one app")?;
    let before = process::cpu(pid)?;
    let start = Instant::now();
    let mut command = programs::gitseal(plane.cluster.kubeconfig())?;
    command.args(["sync", &format!("app-{app}"), "-n", "default"]);
    let command = tokio::task::spawn_blocking(move || programs::run(&mut command));
    let api = Api::<ConfigMap>::namespaced(client.clone(), "default");
    let name = format!("app-{app}-settings");
    eventually("the commit to be applied", || async {
        let data = api.get(&name).await?.data.unwrap_or_default();
        if data.get("NOTE").is_some_and(|note| note == "second") { Ok(()) } else { bail!("{data:?}") }
    })
    .await?;
    let took = start.elapsed();
    command.await??;
    settle(pid).await?;
    Ok((took, process::cpu(pid)?.saturating_sub(before)))
}

/// Scales Deployments by hand, one after the other. Returns the median time until the controller has healed a
/// Deployment.
async fn drift(client: &Client, count: usize) -> Result<Duration> {
    let api = Api::<Deployment>::namespaced(client.clone(), "default");
    let mut times = Vec::new();
    for app in 0..count {
        let name = format!("app-{app}");
        let patch = json!({"spec": {"replicas": 3}});
        let start = Instant::now();
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        loop {
            let spec = api.get(&name).await?.spec.unwrap_or_default();
            if spec.replicas == Some(0) {
                break;
            }
            if start.elapsed() > Duration::from_secs(60) {
                bail!("{name} was not healed within a minute");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        times.push(start.elapsed());
    }
    times.sort();
    times.get(times.len() / 2).copied().context("no object drifted")
}

/// How many requests the controller made so far, by its own metrics. Watches are not counted.
async fn requests(controller: &Controller) -> Result<u64> {
    let metrics = controller.fetch("/metrics").await?;
    let lines = metrics.lines().filter(|line| line.starts_with("gitseal_api_requests_total{"));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

fn print_table(all: &[Figures], idle: u64) {
    let row = |name: &str, figure: &dyn Fn(&Figures) -> String| {
        let cells: Vec<_> = all.iter().map(figure).collect();
        println!("| {name} | {} |", cells.join(" | "));
    };
    let seconds = |duration: Duration| format!("{:.2} s", duration.as_secs_f64());
    let millis = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1000.0);
    row("Syncs", &|f| f.count.to_string());
    println!("|---|{}", "---|".repeat(all.len()));
    row("floor: a bare client applies the same objects", &|f| seconds(f.floor.took));
    row("… with so many requests at a time", &|f| f.floor.at_once.to_string());
    row("gitseal: from the start of the controller to all Ready", &|f| seconds(f.ready));
    row("ratio", &|f| format!("{:.2} ×", f.ready.as_secs_f64() / f.floor.took.as_secs_f64()));
    row("control plane CPU: floor", &|f| seconds(f.floor.plane_cpu));
    row("control plane CPU: gitseal", &|f| seconds(f.plane_cpu));
    row("controller CPU per Sync", &|f| millis(f.cpu_per_sync));
    row("peak resident memory", &|f| format!("{:.1} MiB", f.peak_memory));
    row("a commit that touches one folder: applied after", &|f| seconds(f.commit));
    row("… controller CPU until settled", &|f| millis(f.commit_cpu));
    row("drift: healed after (median)", &|f| millis(f.heal));
    row(&format!("API requests in {idle} idle seconds, but for watches"), &|f| f.idle_requests.to_string());
}
