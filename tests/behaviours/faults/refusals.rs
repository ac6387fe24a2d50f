//! An API server that has too much to do, or no store.

use anyhow::{Result, ensure};
use harness::{
    eventually,
    faults::{Fault, Which},
};
use http::Method;
use serde_json::json;

use super::Faulty;

#[tokio::test]
async fn refusals_that_pass_are_told_and_pass() -> Result<()> {
    for code in [429, 500, 503] {
        let faulty = Faulty::start(&format!("refused-{code}")).await?;
        let refused = faulty.proxy.inject(Which::method(Method::PATCH).path("/configmaps/"), Fault::Refuse(code));
        let revision = faulty.publish("second").await?;
        let message = faulty.scene.is_not_ready("app", "ApplyFailed").await?;
        assert!(message.contains(&format!("refused on purpose with {code}")), "{message}");
        eventually("a few more tries", || async {
            ensure!(refused.hits() > 4, "{}", refused.hits());
            Ok(())
        })
        .await?;
        refused.lift();
        faulty.is_applied(&revision, "second").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_watch_that_is_refused_comes_back() -> Result<()> {
    let faulty = Faulty::start("refused-watch").await?;
    // Those that are under way break, and new ones do not begin.
    let refused = faulty.proxy.inject(Which::all().path("/configmaps"), Fault::Refuse(503));
    let maps = faulty.scene.api::<k8s_openapi::api::core::v1::ConfigMap>();
    maps.delete("map", &kube::api::DeleteParams::default()).await?;
    eventually("a few tries", || async {
        ensure!(refused.hits() > 2, "{}", refused.hits());
        Ok(())
    })
    .await?;
    refused.lift();
    faulty.scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "first"}})).await?;
    Ok(())
}
