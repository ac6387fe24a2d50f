//! An API server that is overloaded, or has lost its etcd.

use anyhow::{Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use crds::{Condition, Sync};
use harness::{
    eventually,
    faults::{Fault, Injected, Which},
    kubernetes, within,
};
use http::Method;
use serde_json::json;

use super::{Faulty, SOON};
use crate::{handover::Sealer, objects::config_map, traces::uid};

#[tokio::test]
async fn refusals_that_pass_are_told_and_pass() -> Result<()> {
    for code in [429, 500, 503] {
        let faulty = Faulty::start(&format!("refused-{code}")).await?;
        let refused = faulty.proxy.inject(Which::method(Method::PATCH).path("/configmaps/"), Fault::Refuse(code));
        let revision = faulty.publish("second").await?;
        let message = faulty.scene.is_not_ready("app", "ApplyFailed").await?;
        assert!(message.contains(&format!("refused on purpose with {code}")), "{message}");
        is_tried_again(&refused).await?;
        refused.lift();
        within(SOON, faulty.is_applied(&revision, "second")).await?;
    }
    Ok(())
}

/// Waits for ten tries. If each pause between tries were twice as long as the last, without a limit, this would take
/// too long.
async fn is_tried_again(refused: &Injected) -> Result<()> {
    eventually("more tries", || async {
        ensure!(refused.hits() > 9, "{}", refused.hits());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_secret_that_could_not_be_written_is_written_as_soon_as_it_can() -> Result<()> {
    let faulty = Faulty::without_work("refused-secret").await?;
    let scene = &faulty.scene;
    let sealer = Sealer::new(scene.client.clone(), &scene.namespace, &faulty.controller).await?;
    let refused = faulty.proxy.inject(Which::method(Method::PATCH).path("/secrets/"), Fault::Refuse(503));
    let sealed = json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": "db"},
        "spec": {"encryptedData": {"password": sealer.seal("db", "refused-value")?}},
    });
    kubernetes::apply(&scene.client, &scene.namespace, sealed).await?;
    is_tried_again(&refused).await?;
    refused.lift();
    let wanted = json!({"data": {"password": STANDARD.encode("refused-value")}});
    within(SOON, scene.has("v1", "Secret", "db", wanted)).await?;
    Ok(())
}

#[tokio::test]
async fn a_sealed_secret_that_was_written_stays_tracked_though_it_could_not_be_taken_over() -> Result<()> {
    let faulty = Faulty::start("refused-take-over").await?;
    let scene = &faulty.scene;
    let sealer = Sealer::new(scene.client.clone(), &scene.namespace, &faulty.controller).await?;
    let mut sealed = json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": "db", "labels": {"by": "kubectl"}},
        "spec": {"encryptedData": {"password": sealer.seal("db", "refused-value")?}},
    });
    kubernetes::apply(&scene.client, &scene.namespace, sealed.clone()).await?;
    // The SealedSecret can be applied, but the request that removes other field managers is refused.
    let which = Which::method(Method::PATCH).path("/sealedsecrets/").without("force=true");
    let refused = faulty.proxy.inject(which, Fault::Refuse(403));
    sealed["metadata"]["labels"] = json!({});
    scene.tree.write("app/db.yaml", sealed.to_string())?;
    scene.publish("the same in Git").await?;
    let message = scene.is_not_ready("app", "ApplyFailed").await?;
    ensure!(message.contains("it was applied, but the fields of other tools"), "{message}");
    let sync = scene.api::<crds::Sync>().get("app").await?;
    let inventory = sync.status.map(|status| status.inventory).unwrap_or_default();
    ensure!(inventory.iter().any(|entry| entry.id.contains("_db_bitnami.com_SealedSecret")), "{inventory:?}");
    scene.tree.remove("app/db.yaml")?;
    let revision = scene.publish("without it").await?;
    scene.is_applied("app", &revision).await?;
    scene.is_gone("bitnami.com/v1alpha1", "SealedSecret", "db").await?;
    refused.lift();
    Ok(())
}

#[tokio::test]
async fn when_nobody_says_who_may_write_what_left_git_the_prune_waits_and_the_rest_goes_on() -> Result<()> {
    let faulty = Faulty::start("refused-review").await?;
    let scene = &faulty.scene;
    scene.account("taker", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}])).await?;
    for name in ["moves", "goes"] {
        scene.tree.write(&format!("app/{name}.yaml"), config_map(name, "1"))?;
    }
    scene.tree.write("other/own.yaml", config_map("own", "1"))?;
    let revision = scene.publish("before").await?;
    scene.is_applied("app", &revision).await?;
    let before = uid(scene, "ConfigMap", "moves").await?;
    // This Sync is suspended, so it does nothing, and the rights of its account were not checked yet.
    scene.sync("other", "./other", json!({"serviceAccountName": "taker", "suspend": true})).await?;

    let refused = faulty.proxy.inject(Which::all().path("selfsubjectaccessreviews"), Fault::Refuse(503));
    scene.tree.remove("app/goes.yaml")?;
    scene.tree.remove("app/moves.yaml")?;
    scene.tree.write("other/moves.yaml", config_map("moves", "1"))?;
    let revision = faulty.publish("second").await?;
    let waits = |_: &Sync, ready: &Condition| {
        ready.reason == "PruneWaitsForSync" && ready.message.contains("refused on purpose with 503")
    };
    scene.sync_when("app", "the prune to wait", waits).await?;
    scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "second"}})).await?;
    is_tried_again(&refused).await?;
    for name in ["moves", "goes"] {
        ensure!(scene.get("v1", "ConfigMap", name).await?.is_some(), "{name} is gone");
    }
    refused.lift();
    within(SOON, scene.is_applied("app", &revision)).await?;
    scene.is_gone("v1", "ConfigMap", "goes").await?;
    ensure!(uid(scene, "ConfigMap", "moves").await? == before, "it was deleted, although another Sync wants it");
    Ok(())
}

#[tokio::test]
async fn when_the_chart_of_another_sync_cannot_be_rendered_the_prune_waits() -> Result<()> {
    let faulty = Faulty::start("refused-version").await?;
    let scene = &faulty.scene;
    scene.tree.write("app/moves.yaml", config_map("moves", "1"))?;
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: other\nversion: 1.0.0\n")?;
    scene.tree.write("chart/templates/own.yaml", config_map("own", "1"))?;
    let revision = scene.publish("before").await?;
    scene.is_applied("app", &revision).await?;
    let before = uid(scene, "ConfigMap", "moves").await?;
    // Templates may ask for the version of the cluster, so no chart is rendered while the version is not known.
    let refused = faulty.proxy.inject(Which::all().path("/version"), Fault::Refuse(503));
    scene.sync("other", "./chart", json!({"helm": {}})).await?;
    scene.tree.remove("app/moves.yaml")?;
    scene.tree.write("chart/templates/moves.yaml", config_map("moves", "1"))?;
    let revision = faulty.publish("second").await?;
    let waits = |_: &Sync, ready: &Condition| {
        let message = &ready.message;
        let is_told = message.contains("refused on purpose with 503") && message.contains("tries again until it knows");
        ready.reason == "PruneWaitsForSync" && is_told
    };
    scene.sync_when("app", "the prune to wait", waits).await?;
    scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "second"}})).await?;
    is_tried_again(&refused).await?;
    refused.lift();
    within(SOON, scene.is_applied("app", &revision)).await?;
    ensure!(uid(scene, "ConfigMap", "moves").await? == before, "it was deleted, although another Sync wants it");
    Ok(())
}

#[tokio::test]
async fn a_watch_that_is_refused_comes_back() -> Result<()> {
    let faulty = Faulty::start("refused-watch").await?;
    // Running watches break, and new ones are refused.
    let refused = faulty.proxy.inject(Which::all().path("/configmaps"), Fault::Refuse(503));
    let maps = faulty.scene.api::<k8s_openapi::api::core::v1::ConfigMap>();
    maps.delete("map", &kube::api::DeleteParams::default()).await?;
    eventually("a few tries", || async {
        ensure!(refused.hits() > 2, "{}", refused.hits());
        Ok(())
    })
    .await?;
    refused.lift();
    within(SOON, faulty.scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "first"}}))).await?;
    Ok(())
}
