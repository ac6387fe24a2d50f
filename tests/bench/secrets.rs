//! Creates N SealedSecrets at once, and measures how long it takes until all Secrets exist, for gitseal and for the Sealed
//! Secrets controller.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::{
    Plane,
    programs::{Controller, ControllerOptions, SealedSecretsController},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::{process, workload};

/// Options of this benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of SealedSecrets.
    #[arg(long, default_value_t = 1000)]
    count: usize,
}

struct Figures {
    time: Duration,
    cpu: Duration,
    /// How long the RSA decryptions of all values take on one processor.
    private: Duration,
    peak_memory: f64,
}

/// Runs both controllers and prints a Markdown table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    eprintln!("gitseal …");
    let ours = ours(options.count).await?;
    eprintln!("Sealed Secrets controller …");
    let theirs = theirs(options.count).await?;
    println!("| {} SealedSecrets, each with two values | gitseal | Sealed Secrets v0.36.6 | ratio |", options.count);
    println!("|---|---|---|---|");
    let (a, b) = (ours.time.as_secs_f64(), theirs.time.as_secs_f64());
    println!("| from the first create to the last Secret | {a:.2} s | {b:.2} s | 1/{:.1} |", b / a);
    let (a, b) = (ours.cpu.as_secs_f64(), theirs.cpu.as_secs_f64());
    println!("| processor time of the controller | {a:.2} s | {b:.2} s | 1/{:.1} |", b / a);
    let private = ours.private.as_secs_f64();
    println!(
        "| … of which private RSA operations | {private:.2} s ({:.0} %) | | |",
        100.0 * private / ours.cpu.as_secs_f64()
    );
    println!("| peak resident memory | {:.1} MiB | {:.1} MiB | |", ours.peak_memory, theirs.peak_memory);
    Ok(())
}

async fn ours(count: usize) -> Result<Figures> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let folder = plane.folder();
    let mut options = ControllerOptions::usual(plane.cluster.kubeconfig(), &folder);
    options.arguments = ["--key-size=4096", "--namespace=kube-system"].map(str::to_owned).into();
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let certificate = controller.fetch("/v1/cert.pem").await?;
    let pid = controller.process().pid();
    let client = plane.cluster.client().await?;
    let figures = measure(&client, &certificate, count, pid).await?;
    Ok(Figures { private: private_operations(&client, &certificate, 2 * count).await?, ..figures })
}

async fn theirs(count: usize) -> Result<Figures> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let controller = SealedSecretsController::start(&plane).await?;
    let certificate = controller.certificate().to_owned();
    measure(&plane.cluster.client().await?, &certificate, count, controller.pid()).await
}

async fn measure(client: &Client, certificate: &str, count: usize, pid: u32) -> Result<Figures> {
    let certificate = sealing::Certificate::from_pem(certificate.as_bytes())?;
    let objects = (0..count).map(|number| sealed(&certificate, number)).collect::<Result<Vec<_>>>()?;
    let cpu = process::cpu(pid)?;
    let is_there = |secret: &Secret| {
        secret.name_any().starts_with("sealed-") && secret.data.as_ref().is_some_and(|data| data.len() == 2)
    };
    let watching = {
        let client = client.clone();
        tokio::spawn(async move { workload::wait_for(&client, count, is_there).await })
    };
    let start = Instant::now();
    workload::apply_all(client, objects.into_iter()).await?;
    watching.await??;
    let time = start.elapsed();
    let cpu = process::cpu(pid)?.saturating_sub(cpu);
    Ok(Figures { time, cpu, private: Duration::ZERO, peak_memory: process::peak_memory(pid)? })
}

/// How long `count` RSA decryptions take on one processor, estimated from a few with the cluster's own key.
async fn private_operations(client: &Client, certificate: &str, count: usize) -> Result<Duration> {
    const SAMPLE: u32 = 1000;
    let keys = Api::<Secret>::namespaced(client.clone(), "kube-system");
    let active = ListParams::default().labels("sealedsecrets.bitnami.com/sealed-secrets-key=active");
    let key = keys.list(&active).await?.items.into_iter().next().context("no sealing key")?;
    let pem = key.data.and_then(|mut data| data.remove("tls.key")).context("no private key")?;
    let key = sealing::PrivateKey::from_pem(&pem.0)?;
    let certificate = sealing::Certificate::from_pem(certificate.as_bytes())?;
    let binding = sealing::Scope::Strict.binding("default", "sample", "any");
    let value = sealing::seal(&certificate, binding, b"somebody")?;
    let before = process::cpu(std::process::id())?;
    for _ in 0..SAMPLE {
        sealing::unseal([&key], binding, &value)?;
    }
    Ok(process::cpu(std::process::id())?.saturating_sub(before) / SAMPLE * u32::try_from(count)?)
}

pub(crate) fn sealed(certificate: &sealing::Certificate, number: usize) -> Result<Value> {
    let name = format!("sealed-{number}");
    let binding = sealing::Scope::Strict.binding("default", &name, "any");
    let value = |text: &str| sealing::seal(certificate, binding, text.as_bytes());
    Ok(json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"encryptedData": {"username": value("somebody")?, "password": value(&format!("secret {number}"))?}},
    }))
}
