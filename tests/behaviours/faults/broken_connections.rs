//! All connections break for a while.

use anyhow::{Result, ensure};
use harness::{
    eventually,
    faults::{Fault, Which},
    within,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use serde_json::json;

use super::{ALONE, Faulty, SOON};
use crate::objects::config_map;

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
    within(SOON, faulty.scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "first"}}))).await?;
    let revision = faulty.publish("second").await?;
    within(SOON, faulty.is_applied(&revision, "second")).await
}

#[tokio::test]
async fn a_controller_that_nobody_answers_is_not_ready_until_somebody_does() -> Result<()> {
    let faulty = Faulty::start_program("unreachable", ALONE).await?;
    let controller = &faulty.controller;
    let readyz = async || -> Result<(u16, String)> { controller.get(controller.probes_port, "/readyz").await };
    faulty.scene.repository(json!({"interval": "1s"})).await?;
    let revision = faulty.publish("second").await?;
    faulty.is_applied(&revision, "second").await?;
    let broken = faulty.proxy.inject(Which::all(), Fault::Close);
    // This commit gives the controller something to write.
    faulty.scene.tree.write("app/map.yaml", config_map("map", "third"))?;
    faulty.scene.tree.publish("third")?;
    eventually("it not to be ready", || async {
        let (code, body) = readyz().await?;
        ensure!(code == 503 && body.contains("api-server"), "{code}: {body}");
        Ok(())
    })
    .await?;
    let (code, body) = controller.get(controller.probes_port, "/healthz").await?;
    ensure!(code == 200, "a restart would mend nothing: {code}: {body}");
    broken.lift();
    let is_ready = eventually("it to be ready", || async {
        let (code, body) = readyz().await?;
        ensure!(code == 200, "{code}: {body}");
        Ok(())
    });
    within(SOON, is_ready).await
}
