//! The demo (`cargo demo`): shows gitseal's main job step by step, with the commands that a person would type.
//!
//! It starts a local control plane, the controller, and a Git repository with a small app whose password is sealed. Every
//! step checks its own result, and the demo fails if one is wrong. With `--once`, everything is stopped at the end.

mod app;
mod narrator;
mod steps;

use std::process::ExitCode;

use clap::Parser;

/// Shows gitseal's main job on a local control plane.
#[derive(Parser)]
#[command(name = "cargo demo")]
struct Arguments {
    /// Stop everything at the end. Otherwise, the cluster keeps running until you stop the demo, so that you can look
    /// around.
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
