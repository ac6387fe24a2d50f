//! The controller's entry point.

use std::{
    io::{IsTerminal, stderr, stdout},
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use controller::{
    Config,
    config::{LogFormat, Logs},
    pipeline::Unobserved,
};
use tokio::runtime::Runtime;
use tracing::Level;
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        self,
        writer::{BoxMakeWriter, MakeWriterExt as _},
    },
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let config = Config::parse();
    if config.version {
        println!("controller version: v{}", controller::VERSION);
        return ExitCode::SUCCESS;
    }
    log(&config.logs);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let runtime = Runtime::new().expect("threads can be started");
    let ended = runtime.block_on(controller::run(config, Arc::new(Unobserved)));
    // Nobody waits for a fetch that hangs, least of all whoever holds the lease next.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts logging, and does so before anything has something to say.
fn log(logs: &Logs) {
    let filter = EnvFilter::new(&logs.log_level);
    let (writer, is_terminal) = if logs.log_info_stdout {
        let severe = stderr.with_max_level(Level::WARN);
        (BoxMakeWriter::new(severe.or_else(stdout)), stdout().is_terminal() && stderr().is_terminal())
    } else {
        (BoxMakeWriter::new(stderr), stderr().is_terminal())
    };
    let is_coloured = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = fmt::fmt().with_env_filter(filter).with_writer(writer).with_ansi(is_coloured);
    match logs.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
