//! Answers that break off, or stop in the middle.

use anyhow::{Result, ensure};
use harness::{
    faults::{Fault, Which},
    within,
};
use http::Method;

use super::{Faulty, SOON};

#[tokio::test]
async fn half_of_an_answer_is_none() -> Result<()> {
    for (name, fault) in [("half", Fault::Half), ("cut", Fault::Cut)] {
        let faulty = Faulty::start(name).await?;
        let applies = faulty.proxy.inject_times(1, Which::method(Method::PATCH).path("/configmaps/"), fault);
        let statuses = faulty.proxy.inject_times(1, Which::method(Method::PATCH).path("/syncs/"), fault);
        let revision = faulty.publish("second").await?;
        // It can take 8 s until a request is sent again, and this happens to two requests, one after the other.
        within(2 * SOON, faulty.is_applied(&revision, "second")).await?;
        ensure!((applies.hits(), statuses.hits()) == (1, 1), "{name}: nothing was cut");
    }
    Ok(())
}

#[tokio::test]
async fn a_start_gets_over_half_lists_and_half_watches() -> Result<()> {
    let mut faulty = Faulty::start("half-lists").await?;
    let cut = faulty.proxy.inject_times(6, Which::method(Method::GET).path("/namespaces/"), Fault::Cut);
    let half = faulty.proxy.inject_times(6, Which::method(Method::GET), Fault::Half);
    faulty.restart().await?;
    ensure!(cut.hits() > 0 && half.hits() > 0, "{} were cut, {} halved", cut.hits(), half.hits());
    let revision = faulty.publish("second").await?;
    within(SOON, faulty.is_applied(&revision, "second")).await
}
