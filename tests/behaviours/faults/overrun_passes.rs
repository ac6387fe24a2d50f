//! A pass that makes no progress is stopped. This is a second safeguard besides the timeouts of requests.

use anyhow::{Result, ensure};
use harness::{
    eventually,
    faults::{Fault, Which},
    within,
};
use http::Method;
use serde_json::json;

use super::{Faulty, SOON};
use crate::objects::config_map;

#[tokio::test]
async fn a_pass_that_does_not_get_on_is_cut_and_told_and_begins_anew() -> Result<()> {
    // This controller stops a pass after a few seconds without progress. The timeouts of its requests are the usual ones.
    let faulty = Faulty::start_program("overrun", &["impatient-controller"]).await?;
    let scene = &faulty.scene;
    scene.tree.write("other/other.yaml", config_map("other", "1"))?;
    scene.publish("another folder").await?;
    scene.sync("other", "./other", json!({})).await?;
    scene.is_ready("other").await?;
    let stalled = faulty.proxy.inject(Which::method(Method::PATCH).path("/configmaps/map"), Fault::Stall);
    let revision = faulty.publish("second").await?;
    let message = scene.is_not_ready("app", "PassOverran").await?;
    ensure!(message.contains("at the stage apply") && message.contains("begins again"), "{message}");
    let name = format!("{}/app", scene.namespace);
    eventually("metrics of a pass that takes long and was cut", || async {
        let metrics = faulty.controller.fetch("/metrics").await?;
        ensure!(metrics.contains("PassOverran"), "{metrics}");
        ensure!(faulty.controller.metric::<u64>("gitseal_passes_overdue").await? == Some(1), "{metrics}");
        Ok(())
    })
    .await?;
    let log = faulty.controller.log();
    for text in ["the pass takes long", "the pass makes no progress, so it is stopped and begins again"] {
        let is_told = log.lines().any(|line| line.contains(text) && line.contains(&name) && line.contains("apply"));
        ensure!(is_told, "no {text:?} of {name} in {log}");
    }
    // Other Syncs do not wait for this Sync, and it has not given up its own objects.
    scene.tree.write("other/other.yaml", config_map("other", "2"))?;
    let other = scene.publish("of the other folder").await?;
    scene.is_applied("other", &other).await?;
    scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "first"}})).await?;
    ensure!(stalled.hits() > 1, "it begins anew");
    stalled.lift();
    within(SOON, scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "second"}}))).await?;
    scene
        .sync_when("app", "what was cut to be applied", |sync, ready| {
            let applied = sync.status.as_ref().and_then(|status| status.last_applied_revision.as_ref());
            ready.reason == "Applied" && (applied == Some(&revision) || applied == Some(&other))
        })
        .await?;
    eventually("no pass to be overdue", || async {
        let overdue = faulty.controller.metric::<u64>("gitseal_passes_overdue").await?;
        ensure!(overdue == Some(0), "{overdue:?}");
        Ok(())
    })
    .await
}
