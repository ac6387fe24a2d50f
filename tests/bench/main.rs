//! Benchmarks against floors and peers on one machine in one run: see docs/benchmarks.md.

mod floor;
mod neighbour;
mod process;
mod restart;
mod seal;
mod secrets;
mod syncs;
mod workload;

use anyhow::Result;
use clap::{Parser, Subcommand};
use harness::network;

/// Measures gitseal against a bare client and against the Sealed Secrets controller and kubeseal.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// N Syncs of one Repository, each a folder with a Deployment, a Service and two ConfigMaps.
    Syncs(syncs::Options),
    /// A neighbour's commits beside hostile repositories.
    Neighbour(neighbour::Options),
    /// N SealedSecrets of two RSA-4096 values, created at once.
    Secrets(secrets::Options),
    /// A restart among N SealedSecrets that are unsealed already.
    Restart(restart::Options),
    /// `gitseal seal` beside kubeseal: one Secret, and a folder of N files.
    Seal(seal::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // The API server's service proxy, by which both programs fetch the certificate, dials no loopback address.
    if matches!(arguments.what, What::Seal(_)) && !network::is_inside() {
        return network::start_again();
    }
    println!("{}\n", process::processor()?);
    match arguments.what {
        What::Syncs(options) => syncs::run(&options).await,
        What::Neighbour(options) => neighbour::run(&options).await,
        What::Secrets(options) => secrets::run(&options).await,
        What::Restart(options) => restart::run(&options).await,
        What::Seal(options) => seal::run(&options).await,
    }
}
