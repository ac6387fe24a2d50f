//! The controller's entry point.

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
    sync::Arc,
};

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
    let is_coloured = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(is_coloured);
    match config.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    match controller::run(config, Arc::new(Unobserved)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
