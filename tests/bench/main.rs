//! Benchmarks: compares gitseal with a minimal client and with other programs, on one machine in one run. See
//! docs/benchmarks.md.

mod charts;
mod floor;
mod neighbour;
mod overlays;
mod process;
mod prune;
mod rendering;
mod restart;
mod seal;
mod secrets;
mod syncs;
mod workload;

use anyhow::Result;
use clap::{Parser, Subcommand};
use harness::network;

/// Measures gitseal against a minimal client, the Sealed Secrets controller, and kubeseal.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// N Syncs of one Repository. Each applies a folder with a Deployment, a Service and two ConfigMaps.
    Syncs(syncs::Options),
    /// N Syncs, each a Kustomize overlay on the same base.
    Overlays(overlays::Options),
    /// N Syncs, each with its own values for the same Helm chart.
    Charts(charts::Options),
    /// One Sync with N ConfigMaps. One commit creates them all, the next one removes them all.
    Prune(prune::Options),
    /// How fast a tenant's commits are applied while other tenants' repositories are hostile.
    Neighbour(neighbour::Options),
    /// N SealedSecrets, each with two values sealed with RSA-4096, created at the same time.
    Secrets(secrets::Options),
    /// A restart of the controller when N SealedSecrets are unsealed already.
    Restart(restart::Options),
    /// `gitseal seal` compared with kubeseal: one Secret, and a folder of N files.
    Seal(seal::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Both programs fetch the certificate through the API server's service proxy, and the proxy does not connect to
    // loopback addresses. So this benchmark runs in its own network namespace.
    if matches!(arguments.what, What::Seal(_)) && !network::is_inside() {
        return network::start_again();
    }
    println!("{}\n", process::processor()?);
    match arguments.what {
        What::Syncs(options) => syncs::run(&options).await,
        What::Overlays(options) => overlays::run(&options).await,
        What::Charts(options) => charts::run(&options).await,
        What::Prune(options) => prune::run(&options).await,
        What::Neighbour(options) => neighbour::run(&options).await,
        What::Secrets(options) => secrets::run(&options).await,
        What::Restart(options) => restart::run(&options).await,
        What::Seal(options) => seal::run(&options).await,
    }
}
