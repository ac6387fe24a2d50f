//! Reads that are accepted and never answered.

use anyhow::{Result, ensure};
use harness::{
    faults::{Fault, Which},
    within,
};
use http::Method;

use super::{Faulty, SOON};

#[tokio::test]
async fn a_start_gets_over_reads_that_are_never_answered() -> Result<()> {
    let mut faulty = Faulty::start("stalled-reads").await?;
    // The first reads of all sorts get no answer: kinds, rights, keys, lists and watches. Each is sent again after 8 s, one
    // after the other, so all of them together take longer than 15 s.
    let stalled = faulty.proxy.inject_times(12, Which::method(Method::GET), Fault::Stall);
    let rights =
        faulty.proxy.inject_times(3, Which::method(Method::POST).path("selfsubjectaccessreviews"), Fault::Stall);
    faulty.restart().await?;
    ensure!(stalled.hits() > 0 && rights.hits() > 0, "{} and {} were stalled", stalled.hits(), rights.hits());
    let revision = faulty.publish("second").await?;
    within(SOON, faulty.is_applied(&revision, "second")).await
}

#[tokio::test]
async fn kinds_that_cannot_be_asked_for_hold_nothing_up_for_long() -> Result<()> {
    let faulty = Faulty::start("stalled-kinds").await?;
    let stalled = faulty.proxy.inject_times(1, Which::method(Method::GET).path("/apis/apps/v1"), Fault::Stall);
    faulty.scene.tree.write("app/deployment.yaml", crate::objects::deployment("web", 0))?;
    faulty.scene.publish("a kind that was not there before").await?;
    let applied = faulty.scene.has("apps/v1", "Deployment", "web", serde_json::json!({"spec": {"replicas": 0}}));
    within(SOON, applied).await?;
    ensure!(stalled.hits() > 0, "nothing was stalled");
    Ok(())
}
