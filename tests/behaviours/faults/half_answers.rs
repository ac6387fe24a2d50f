//! Answers that end in the middle, or never go on.

use anyhow::Result;
use harness::faults::{Fault, Which};
use http::Method;

use super::Faulty;

#[tokio::test]
async fn half_of_an_answer_is_none() -> Result<()> {
    for (name, fault) in [("half", Fault::Half), ("cut", Fault::Cut)] {
        let faulty = Faulty::start(name).await?;
        let _applies = faulty.proxy.inject_times(1, Which::method(Method::PATCH).path("/configmaps/"), fault);
        let _statuses = faulty.proxy.inject_times(1, Which::method(Method::PATCH).path("/syncs/"), fault);
        let revision = faulty.publish("second").await?;
        faulty.is_applied(&revision, "second").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_start_gets_over_half_lists_and_half_watches() -> Result<()> {
    let mut faulty = Faulty::start("half-lists").await?;
    let _cut = faulty.proxy.inject_times(6, Which::method(Method::GET).path("/namespaces/"), Fault::Cut);
    let _half = faulty.proxy.inject_times(6, Which::method(Method::GET), Fault::Half);
    faulty.restart().await?;
    let revision = faulty.publish("second").await?;
    faulty.is_applied(&revision, "second").await
}
