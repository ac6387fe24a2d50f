//! The controller with changes for tests:
//!
//! - After a few seconds, it stops a pass that makes no progress. The real controller waits longer, so that it gives up a
//!   request without an answer before it would stop the pass.
//! - With the environment variable `GITSEAL_NO_RETRIES`, it does not stop passes, and tries a Sync again only when something
//!   wakes the Sync. The real controller also tries again after a pause.

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

struct WithoutRetries;

impl StageObserver for WithoutRetries {
    fn begins(&self, _: Stage, _: &ObjectKey) {}

    fn pause(&self, _: Duration) -> Duration {
        Duration::from_secs(3600)
    }
}

fn main() -> Result<ExitCode> {
    if let Some(code) = controller::work_apart() {
        return Ok(code);
    }
    let config = Config::parse();
    controller::logging::start(&config.logs);
    let observer: Arc<dyn StageObserver> =
        if std::env::var_os("GITSEAL_NO_RETRIES").is_some() { Arc::new(WithoutRetries) } else { Arc::new(Impatient) };
    tokio::runtime::Runtime::new()?.block_on(controller::run(config, observer))?;
    Ok(ExitCode::SUCCESS)
}
