//! Writes that are accepted and never answered.

use anyhow::{Result, ensure};
use harness::{
    eventually,
    faults::{Fault, Which},
    within,
};
use http::Method;
use kube::api::DeleteParams;

use super::{Faulty, SOON};

#[tokio::test]
async fn an_apply_that_is_never_answered_is_told_and_ends_when_others_are_answered() -> Result<()> {
    let faulty = Faulty::start("stalled").await?;
    let stalled = faulty.proxy.inject(Which::method(Method::PATCH).path("/configmaps/"), Fault::Stall);
    let revision = faulty.publish("second").await?;
    // The Sync is not Ready any more, because the new revision is not applied yet.
    faulty
        .scene
        .sync_when("app", "not to be Ready while it is applied", |_, ready| {
            ready.status == crds::ConditionStatus::Unknown && ready.message.contains("at the stage apply")
        })
        .await?;
    let message = faulty.scene.is_not_ready("app", "ApiServerUnreachable").await?;
    assert!(message.contains("ConfigMap") && message.contains("no answer within 40 s"), "{message}");
    assert!(faulty.controller.metric::<u64>("gitseal_api_unanswered_total").await? > Some(0));
    assert!(faulty.controller.log().contains("no answer within 40 s"), "{}", faulty.controller.log());
    ensure!(stalled.hits() > 1, "it is asked once more");
    stalled.lift();
    within(SOON, faulty.is_applied(&revision, "second")).await
}

#[tokio::test]
async fn drift_is_healed_after_a_heal_was_lost() -> Result<()> {
    let faulty = Faulty::start("stalled-heal").await?;
    let stalled = faulty.proxy.inject_times(1, Which::method(Method::PATCH).path("/configmaps/"), Fault::Stall);
    let maps = faulty.scene.api::<k8s_openapi::api::core::v1::ConfigMap>();
    maps.delete("map", &DeleteParams::default()).await?;
    eventually("the heal to be lost", || async {
        ensure!(stalled.hits() == 1);
        Ok(())
    })
    .await?;
    let healed = faulty.scene.has("v1", "ConfigMap", "map", serde_json::json!({"data": {"value": "first"}}));
    within(SOON, healed).await.map(drop)
}

#[tokio::test]
async fn a_status_that_is_never_answered_holds_nothing_up() -> Result<()> {
    let faulty = Faulty::start("stalled-status").await?;
    let stalled = faulty.proxy.inject(Which::method(Method::PATCH).path("/syncs/app/status"), Fault::Stall);
    let second = faulty.publish("second").await?;
    faulty.scene.has("v1", "ConfigMap", "map", serde_json::json!({"data": {"value": "second"}})).await?;
    stalled.lift();
    within(SOON, faulty.is_applied(&second, "second")).await
}

#[tokio::test]
async fn a_prune_that_is_never_answered_is_made_once_more() -> Result<()> {
    let faulty = Faulty::start("stalled-prune").await?;
    faulty.scene.tree.write("app/other.yaml", crate::objects::config_map("other", "first"))?;
    let revision = faulty.scene.publish("another").await?;
    faulty.scene.is_applied("app", &revision).await?;
    let stalled = faulty.proxy.inject_times(1, Which::method(Method::DELETE).path("/configmaps/"), Fault::Stall);
    faulty.scene.tree.remove("app/other.yaml")?;
    let revision = faulty.scene.publish("one less").await?;
    let pruned = async {
        faulty.scene.is_gone("v1", "ConfigMap", "other").await?;
        faulty.scene.is_applied("app", &revision).await
    };
    within(SOON, pruned).await?;
    assert_eq!(stalled.hits(), 1);
    Ok(())
}
