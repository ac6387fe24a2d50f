//! The controller's entry point.

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use controller::{Config, logging, sync::Unobserved};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    if let Some(code) = controller::work_apart() {
        return code;
    }
    let config = Config::parse();
    if config.version {
        println!("controller version: v{}", controller::VERSION);
        return ExitCode::SUCCESS;
    }
    logging::start(&config.logs);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let runtime = Runtime::new().expect("threads can be started");
    let ended = runtime.block_on(controller::run(config, Arc::new(Unobserved)));
    // A fetch that hangs must not delay the end of the process, because the next leader waits for the lease.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", manifests::in_one_line(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}
