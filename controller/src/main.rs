//! The controller's entry point.

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use controller::{Config, config::LogFormat, pipeline::Unobserved};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    if config.version {
        println!("controller version: v{}", controller::VERSION);
        return ExitCode::SUCCESS;
    }
    let filter = EnvFilter::new(&config.log_level);
    match config.log_format {
        LogFormat::Text => tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init(),
        LogFormat::Json => tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init(),
    }
    match controller::run(config, Arc::new(Unobserved)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
