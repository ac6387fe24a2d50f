//! The program `localcluster`: runs a Kubernetes control plane in the foreground.

use std::io::{Write as _, stdout};

use anyhow::Result;
use clap::{Parser, Subcommand};
use localcluster::{Cluster, ClusterOptions, Program, parts};

/// Runs a real Kubernetes control plane on this machine, without containers and without root.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a control plane, prints the path of its kubeconfig, and runs until Ctrl-C.
    Up(Up),
    /// Builds the programs that are missing, and prints their paths.
    Build,
}

#[derive(clap::Args)]
struct Up {
    /// Does not run kube-controller-manager.
    #[arg(long)]
    no_controller_manager: bool,
    /// Also runs kube-scheduler.
    #[arg(long)]
    scheduler: bool,
    /// Writes an audit log of all requests.
    #[arg(long)]
    audit: bool,
    /// More flags for kube-apiserver.
    #[arg(last = true)]
    api_server_args: Vec<String>,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Up(up) => run(up),
        Command::Build => build(),
    }
}

fn run(up: Up) -> Result<()> {
    let started = std::time::Instant::now();
    let cluster = Cluster::start(ClusterOptions {
        controller_manager: !up.no_controller_manager,
        scheduler: up.scheduler,
        audit: up.audit,
        api_server_args: up.api_server_args,
        ..ClusterOptions::default()
    })?;
    eprintln!("ready after {:.1} s; Ctrl-C ends it", started.elapsed().as_secs_f64());

    let mut out = stdout().lock();
    writeln!(out, "url: {}", cluster.url())?;
    writeln!(out, "kubeconfig: {}", cluster.kubeconfig().display())?;
    if let Some(log) = cluster.audit_log() {
        writeln!(out, "audit log: {}", log.display())?;
    }
    for program in [Program::Etcd, Program::ApiServer, Program::ControllerManager, Program::Scheduler] {
        let log = cluster.log(program);
        if let Some(child) = cluster.program(program) {
            writeln!(out, "process: {} {}", child.pid(), log.display())?;
        }
    }
    // A program that reads this output can wait for this last line.
    writeln!(out, "ready")?;
    out.flush()?;

    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(tokio::signal::ctrl_c())?;
    Ok(())
}

fn build() -> Result<()> {
    let kubernetes = parts::kubernetes()?;
    let mut out = stdout().lock();
    for path in [
        kubernetes.etcd.clone(),
        kubernetes.kube_apiserver.clone(),
        kubernetes.kube_controller_manager()?,
        kubernetes.kube_scheduler()?,
        parts::kubeseal()?,
        parts::sealed_secrets_controller()?,
        parts::templates()?,
        parts::envsubst()?,
        parts::kstatus()?,
        parts::kubectl()?,
    ] {
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}
