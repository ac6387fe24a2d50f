//! Measures a restart when N SealedSecrets are unsealed already, for gitseal and for the Sealed Secrets controller.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use crds::{ConditionStatus, SealedSecret};
use harness::{
    Plane,
    programs::{Controller, ControllerOptions, SealedSecretsController},
};
use k8s_openapi::jiff::Timestamp;
use localcluster::{AuditEvent, ClusterOptions};

use crate::{process, secrets, workload};

/// Options of this benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of SealedSecrets.
    #[arg(long, default_value_t = 4000)]
    count: usize,
}

/// Figures of one restart.
struct Figures {
    ready: Duration,
    settled: Duration,
    requests: usize,
    cpu: Duration,
    peak_memory: f64,
}

/// The user name of gitseal in the audit log.
const USER: &str = "gitseal";
/// The user name of the Sealed Secrets controller in the audit log.
const THEIR_USER: &str = "system:serviceaccount:kube-system:sealed-secrets-controller";
/// A controller has settled when it has done nothing for this long. This is not a part of the measured time.
const QUIET: Duration = Duration::from_secs(6);

/// Runs both controllers and prints a Markdown table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    eprintln!("gitseal …");
    let ours = ours(options.count).await?;
    eprintln!("Sealed Secrets controller …");
    let theirs = theirs(options.count).await?;
    println!("| restart among {} SealedSecrets | gitseal | Sealed Secrets v0.36.6 | ratio |", options.count);
    println!("|---|---|---|---|");
    let row = |what: &str, a: Duration, b: Duration| {
        let (a, b) = (a.as_secs_f64(), b.as_secs_f64());
        println!("| {what} | {a:.2} s | {b:.2} s | 1/{:.1} |", b / a);
    };
    row("from the start to ready", ours.ready, theirs.ready);
    row("from the start to settled", ours.settled, theirs.settled);
    println!("| requests to the API server | {} | {} | |", ours.requests, theirs.requests);
    row("processor time of the controller", ours.cpu, theirs.cpu);
    println!("| peak resident memory | {:.1} MiB | {:.1} MiB | |", ours.peak_memory, theirs.peak_memory);
    Ok(())
}

async fn plane() -> Result<Plane> {
    Plane::without_controller(ClusterOptions { audit: true, ..ClusterOptions::default() }).await
}

async fn ours(count: usize) -> Result<Figures> {
    let plane = plane().await?;
    let folder = plane.folder();
    let kubeconfig = plane.cluster.kubeconfig_for(USER, &["system:masters"])?;
    let mut options = ControllerOptions::usual(&kubeconfig, &folder);
    options.arguments = ["--key-size=4096", "--namespace=kube-system"].map(str::to_owned).into();
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    fill(&plane, &controller.fetch("/v1/cert.pem").await?, count).await?;
    quiet(controller.process().pid()).await?;
    controller.kill()?;

    let before = plane.cluster.requests()?.len();
    let start = SystemTime::now();
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let ready = start.elapsed()?;
    measure(&plane, USER, controller.process().pid(), start, ready, before).await
}

async fn theirs(count: usize) -> Result<Figures> {
    let plane = plane().await?;
    let controller = SealedSecretsController::start(&plane).await?;
    fill(&plane, controller.certificate(), count).await?;
    quiet(controller.pid()).await?;
    drop(controller);

    let before = plane.cluster.requests()?.len();
    let start = SystemTime::now();
    let controller = SealedSecretsController::start(&plane).await?;
    let ready = start.elapsed()?;
    measure(&plane, THEIR_USER, controller.pid(), start, ready, before).await
}

/// Waits until the process has nothing more to do. Then all its requests are in the audit log.
async fn measure(
    plane: &Plane,
    user: &str,
    pid: u32,
    start: SystemTime,
    ready: Duration,
    before: usize,
) -> Result<Figures> {
    quiet(pid).await?;
    let (cpu, peak_memory) = (process::cpu(pid)?, process::peak_memory(pid)?);
    let mut requests = plane.cluster.requests()?.split_off(before);
    requests.retain(|request| request.user == user && request.resource != "leases");
    // Watches are not counted, because each is started again every few minutes even if there is nothing to do.
    let worked = requests.iter().filter(|request| request.verb != "watch");
    let last = worked.map(received).collect::<Result<Vec<_>>>()?.into_iter().max();
    let last = last.context("it asked for nothing")?.duration_since(start)?;
    Ok(Figures { ready, settled: ready.max(last), requests: requests.len(), cpu, peak_memory })
}

fn received(request: &AuditEvent) -> Result<SystemTime> {
    let received: Timestamp = request.received.parse()?;
    Ok(received.into())
}

/// Waits until the process has used almost no processor time for a while.
async fn quiet(pid: u32) -> Result<()> {
    // An idle process still renews its lease every two seconds, so a little processor time is ignored.
    process::quiet(QUIET, Duration::from_millis(50), || process::cpu(pid)).await
}

/// Creates the SealedSecrets and waits until all of them have the condition Synced.
async fn fill(plane: &Plane, certificate: &str, count: usize) -> Result<()> {
    let client = plane.cluster.client().await?;
    let certificate = sealing::Certificate::from_pem(certificate.as_bytes())?;
    let objects = (0..count).map(|number| secrets::sealed(&certificate, number)).collect::<Result<Vec<_>>>()?;
    let is_synced = |sealed: &SealedSecret| {
        let synced = sealed.status.as_ref().and_then(|status| status.condition("Synced"));
        synced.is_some_and(|synced| synced.status == ConditionStatus::True)
    };
    let created = workload::apply_all(&client, objects.into_iter());
    let synced = workload::wait_for(&client, count, is_synced);
    tokio::try_join!(created, synced).map(drop)
}
