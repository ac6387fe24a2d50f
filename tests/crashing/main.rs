//! The controller with one change for tests: it kills itself with SIGKILL when the stage `CRASH_AT` begins for the Sync
//! `CRASH_SYNC`.

use std::{
    process::{Command, ExitCode},
    sync::Arc,
};

use anyhow::{Context, Result};
use clap::Parser;
use controller::{Config, sync::StageObserver};
use crds::ObjectKey;
use pipeline::Stage;

struct Crash {
    stage: Stage,
    sync: String,
}

impl StageObserver for Crash {
    fn begins(&self, stage: Stage, sync: &ObjectKey) {
        if stage == self.stage && sync.to_string() == self.sync {
            // SIGKILL is like a power cut: no destructor runs, and no last request is sent.
            let _ = Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status();
            loop {
                std::thread::park();
            }
        }
    }
}

fn main() -> Result<ExitCode> {
    if let Some(code) = controller::work_apart() {
        return Ok(code);
    }
    tokio::runtime::Runtime::new()?.block_on(run())?;
    Ok(ExitCode::SUCCESS)
}

async fn run() -> Result<()> {
    let wanted = std::env::var("CRASH_AT").context("CRASH_AT")?;
    let stage = Stage::ALL.into_iter().find(|stage| stage.as_str() == wanted).context("no such stage")?;
    let crash = Crash { stage, sync: std::env::var("CRASH_SYNC").context("CRASH_SYNC")? };
    let config = Config::parse();
    controller::logging::start(&config.logs);
    controller::run(config, Arc::new(crash)).await?;
    Ok(())
}
