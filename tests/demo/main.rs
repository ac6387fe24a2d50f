//! The main job, step by step, as a person would type it: `cargo demo`.
//!
//! A local control plane, the controller and a Git repository with a small app whose password is sealed. Every step
//! checks what it shows; `--once` takes everything down at the end and fails if a step did not do what it says.

mod app;
mod narrator;
mod steps;

use std::process::ExitCode;

use clap::Parser;

/// Shows gitseal's main job on a local control plane.
#[derive(Parser)]
#[command(name = "cargo demo")]
struct Arguments {
    /// Take everything down at the end instead of staying up to look around.
    #[arg(long)]
    once: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match steps::run(arguments.once).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
