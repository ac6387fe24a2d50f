//! Answers that take long, as with slow admission webhooks.

use std::time::Duration;

use anyhow::Result;
use harness::faults::{Fault, Which};
use http::Method;

use super::Faulty;

#[tokio::test]
async fn a_write_that_takes_twenty_seconds_is_no_failure() -> Result<()> {
    let faulty = Faulty::start("slow").await?;
    let delay = Fault::Delay(Duration::from_secs(20));
    let slow = faulty.proxy.inject(Which::method(Method::PATCH).path("/configmaps/"), delay);
    let revision = faulty.publish("second").await?;
    faulty.is_applied(&revision, "second").await?;
    assert!(slow.hits() > 0, "nothing was delayed");
    let log = faulty.controller.log();
    assert!(!log.contains("stage=apply reason="), "nothing failed: {log}");
    let status = faulty.scene.is_applied("app", &revision).await?.status.unwrap_or_default();
    assert!(status.history.iter().all(|entry| entry.outcome == "Applied"), "{:?}", status.history);
    Ok(())
}
