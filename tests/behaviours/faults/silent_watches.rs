//! Watches that say nothing any more, and whose connections stay.

use anyhow::{Result, ensure};
use harness::{
    eventually,
    faults::{Fault, Which},
};
use http::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use serde_json::json;

use super::Faulty;

#[tokio::test]
async fn a_watch_that_fell_silent_with_other_requests_begins_anew() -> Result<()> {
    let faulty = Faulty::start("silent").await?;
    // A network that swallows everything, and what it swallowed never comes.
    let silent = faulty.proxy.inject(Which::watches().path("/configmaps"), Fault::Stall);
    let applies = faulty.proxy.inject(Which::method(Method::PATCH).path("/configmaps/"), Fault::Stall);
    let revision = faulty.publish("second").await?;
    eventually("an apply to be swallowed", || async {
        ensure!(applies.hits() > 1);
        Ok(())
    })
    .await?;
    silent.lift();
    applies.lift();
    faulty.is_applied(&revision, "second").await?;
    faulty.scene.api::<ConfigMap>().delete("map", &DeleteParams::default()).await?;
    faulty.scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "second"}})).await?;
    Ok(())
}
