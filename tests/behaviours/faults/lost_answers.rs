//! Requests that the API server carries out, but whose answers are lost.

use anyhow::{Result, ensure};
use harness::{
    eventually,
    faults::{Fault, Which},
    within,
};
use http::Method;
use serde_json::json;

use super::{Faulty, SOON};

#[tokio::test]
async fn what_was_applied_without_anybody_knowing_is_no_failure() -> Result<()> {
    let faulty = Faulty::start("lost").await?;
    let lost = faulty.proxy.inject_times(1, Which::method(Method::PATCH).path("/configmaps/"), Fault::LoseAnswer);
    let status = faulty.proxy.inject_times(1, Which::method(Method::PATCH).path("/syncs/"), Fault::LoseAnswer);
    let revision = faulty.publish("second").await?;
    // Two answers are lost, one after the other, so this may take twice as long.
    within(2 * SOON, faulty.is_applied(&revision, "second")).await?;
    eventually("the status to be lost", || async {
        ensure!((lost.hits(), status.hits()) == (1, 1));
        Ok(())
    })
    .await?;
    // What the controller remembers matches the cluster: it still sees a change by others.
    let maps = faulty.scene.api::<k8s_openapi::api::core::v1::ConfigMap>();
    let patch = kube::api::Patch::Merge(json!({"data": {"value": "somebody's"}}));
    maps.patch("map", &kube::api::PatchParams::default(), &patch).await?;
    within(SOON, faulty.scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "second"}}))).await.map(drop)
}

#[tokio::test]
async fn an_object_whose_creation_was_lost_is_tracked_and_pruned() -> Result<()> {
    let faulty = Faulty::start("lost-new").await?;
    let created = faulty.proxy.inject_times(1, Which::method(Method::PATCH).path("/configmaps/new"), Fault::LoseAnswer);
    faulty.scene.tree.write("app/new.yaml", crate::objects::config_map("new", "first"))?;
    let revision = faulty.scene.publish("one more").await?;
    within(SOON, faulty.scene.is_applied("app", &revision)).await?;
    faulty.scene.tree.remove("app/new.yaml")?;
    let deleted = faulty.proxy.inject_times(1, Which::method(Method::DELETE), Fault::LoseAnswer);
    let revision = faulty.scene.publish("one less").await?;
    let pruned = async {
        faulty.scene.is_gone("v1", "ConfigMap", "new").await?;
        faulty.scene.is_applied("app", &revision).await
    };
    within(SOON, pruned).await?;
    assert_eq!((created.hits(), deleted.hits()), (1, 1));
    Ok(())
}
