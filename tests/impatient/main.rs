//! The controller with one change for tests: after a few seconds, it stops a pass that makes no progress. The real
//! controller waits longer, so that it gives up a request without an answer before it would stop the pass.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Result;
use clap::Parser;
use controller::{Config, Patience, sync::StageObserver};
use crds::ObjectKey;
use pipeline::Stage;

struct Impatient;

impl StageObserver for Impatient {
    fn begins(&self, _: Stage, _: &ObjectKey) {}

    fn patience(&self) -> Patience {
        Patience { told_after: Duration::from_secs(2), cut_after: Duration::from_secs(4) }
    }
}

fn main() -> Result<ExitCode> {
    if let Some(code) = controller::work_apart() {
        return Ok(code);
    }
    let config = Config::parse();
    controller::logging::start(&config.logs);
    tokio::runtime::Runtime::new()?.block_on(controller::run(config, Arc::new(Impatient)))?;
    Ok(ExitCode::SUCCESS)
}
