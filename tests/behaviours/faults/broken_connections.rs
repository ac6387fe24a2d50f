//! Connections that break, all of them, for a while.

use anyhow::{Result, ensure};
use harness::{
    eventually,
    faults::{Fault, Which},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use serde_json::json;

use super::Faulty;

#[tokio::test]
async fn what_happens_while_nothing_gets_through_is_seen_afterwards() -> Result<()> {
    let faulty = Faulty::start("broken").await?;
    let broken = faulty.proxy.inject(Which::all(), Fault::Close);
    faulty.scene.api::<ConfigMap>().delete("map", &DeleteParams::default()).await?;
    eventually("some tries", || async {
        ensure!(broken.hits() > 3, "{}", broken.hits());
        Ok(())
    })
    .await?;
    broken.lift();
    faulty.scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "first"}})).await?;
    let revision = faulty.publish("second").await?;
    faulty.is_applied(&revision, "second").await
}
