//! Watches that stop sending anything, although their connections stay open.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::names;
use harness::{
    eventually,
    faults::{Fault, Which},
    kubernetes, within,
};
use http::Method;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{Faulty, SOON};
use crate::{handover::Sealer, objects::sealed_secret};

#[tokio::test]
async fn a_watch_that_fell_silent_with_other_requests_begins_anew() -> Result<()> {
    let faulty = Faulty::start("silent").await?;
    // The network drops the events of these watches, and they never arrive.
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
    let is_seen_again = async {
        faulty.is_applied(&revision, "second").await?;
        faulty.scene.api::<ConfigMap>().delete("map", &DeleteParams::default()).await?;
        faulty.scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "second"}})).await
    };
    within(SOON, is_seen_again).await.map(drop)
}

#[tokio::test]
async fn a_secret_that_was_pruned_is_not_put_back_by_a_late_watch() -> Result<()> {
    let faulty = Faulty::start("late-watch").await?;
    let scene = &faulty.scene;
    let sealer = Sealer::new(scene.client.clone(), &scene.namespace, &faulty.controller).await?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &sealer.seal("db", "silent-value")?))?;
    let revision = scene.publish("a SealedSecret").await?;
    scene.is_applied("app", &revision).await?;
    let metric = async |name: &str| -> Result<u64> {
        faulty.controller.metric(name).await?.with_context(|| format!("no {name}"))
    };
    let requests = "sealed_secrets_controller_unseal_requests_total";
    eventually("the status", || async {
        let synced = scene.get("bitnami.com/v1alpha1", "SealedSecret", "db").await?.context("SealedSecret")?;
        ensure!(synced["status"]["conditions"][0]["status"] == "True", "{synced}");
        Ok(())
    })
    .await?;
    let before = metric(requests).await?;

    // The Secret is deleted. The controller does not see yet that its SealedSecret was deleted, too.
    let late = faulty.proxy.inject(Which::watches().path("/sealedsecrets"), Fault::Hold);
    let asked = faulty.proxy.inject(Which::method(Method::GET).path("/sealedsecrets/db"), Fault::Delay(Duration::ZERO));
    scene.tree.remove("app/db.yaml")?;
    let revision = scene.publish("without it").await?;
    scene.is_applied("app", &revision).await?;
    scene.is_gone("v1", "Secret", "db").await?;
    eventually("it to be asked for", || async {
        ensure!(asked.hits() > 1, "{}", asked.hits());
        Ok(())
    })
    .await?;
    late.lift();
    // The watch goes on: what changes afterwards is seen.
    scene.tree.write("app/next.yaml", sealed_secret("next", &sealer.seal("next", "silent-value")?))?;
    let revision = scene.publish("another one").await?;
    within(SOON, scene.is_applied("app", &revision)).await?;
    assert_eq!(metric(requests).await?, before + 1, "nothing is unsealed for what went");
    scene.is_gone("v1", "Secret", "db").await?;
    Ok(())
}

#[tokio::test]
async fn a_secret_that_the_watch_has_not_shown_yet_is_not_written_over() -> Result<()> {
    let faulty = Faulty::start("late-secret").await?;
    let scene = &faulty.scene;
    let sealer = Sealer::new(scene.client.clone(), &scene.namespace, &faulty.controller).await?;
    scene.tree.write("app/first.yaml", sealed_secret("first", &sealer.seal("first", "silent-value")?))?;
    let revision = scene.publish("a SealedSecret, so that Secrets are watched").await?;
    scene.is_applied("app", &revision).await?;

    let late = faulty.proxy.inject(Which::watches().path("/secrets"), Fault::Hold);
    let theirs = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": "theirs"},
    });
    kubernetes::apply(&scene.client, &scene.namespace, theirs).await?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &sealer.seal("db", "value-from-git")?))?;
    scene.publish("a SealedSecret of its name").await?;
    scene.is_not_ready("app", "SecretNotManaged").await?;
    scene.has("v1", "Secret", "db", json!({"data": {"password": "dGhlaXJz"}})).await?;
    late.lift();
    scene.is_not_ready("app", "SecretNotManaged").await?;
    scene.has("v1", "Secret", "db", json!({"data": {"password": "dGhlaXJz"}})).await?;
    // By now, the watch shows the Secret. So it also shows the deletion that follows.
    scene.api::<Secret>().delete("db", &DeleteParams::default()).await?;
    let wanted = json!({"data": {"password": STANDARD.encode("value-from-git")}});
    within(SOON, scene.has("v1", "Secret", "db", wanted)).await.map(drop)
}

#[tokio::test]
async fn a_secret_that_may_not_be_merged_into_any_more_is_left_alone_though_the_watch_is_late() -> Result<()> {
    let faulty = Faulty::start("late-refusal").await?;
    let scene = &faulty.scene;
    let sealer = Sealer::new(scene.client.clone(), &scene.namespace, &faulty.controller).await?;
    let theirs = json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"user": "theirs"},
        "metadata": {"name": "db", "annotations": {names::PATCH: "true"}},
    });
    kubernetes::apply(&scene.client, &scene.namespace, theirs).await?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &sealer.seal("db", "late-first")?))?;
    let revision = scene.publish("a SealedSecret that merges into it").await?;
    scene.is_applied("app", &revision).await?;
    scene.has("v1", "Secret", "db", json!({"data": {"user": "dGhlaXJz", "password": "bGF0ZS1maXJzdA=="}})).await?;

    let _late = faulty.proxy.inject(Which::watches().path("/secrets"), Fault::Hold);
    patch_secret(&faulty, json!({"metadata": {"annotations": {names::PATCH: null}}})).await?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &sealer.seal("db", "late-second")?))?;
    scene.publish("another value").await?;
    scene.is_not_ready("app", "SecretNotManaged").await?;
    scene
        .has("v1", "Secret", "db", json!({"data": {"user": "dGhlaXJz", "password": "bGF0ZS1maXJzdA=="}}))
        .await
        .map(drop)
}

#[tokio::test]
async fn what_others_put_into_a_secret_stays_though_the_watch_is_late() -> Result<()> {
    let faulty = Faulty::start("late-values").await?;
    let scene = &faulty.scene;
    let sealer = Sealer::new(scene.client.clone(), &scene.namespace, &faulty.controller).await?;
    let put = async |value: &str| -> Result<()> {
        let object = json!({
            "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": "db"},
            "spec": {
                "encryptedData": {"password": sealer.seal("db", value)?},
                "template": {"metadata": {"annotations": {names::SKIP_SET_OWNER_REFERENCES: "true"}}},
            },
        });
        kubernetes::apply(&scene.client, &scene.namespace, object).await.map(drop)
    };
    put("late-first").await?;
    scene.has("v1", "Secret", "db", json!({"data": {"password": "bGF0ZS1maXJzdA=="}})).await?;

    // From now on, values are only merged into the Secret. The watch does not show this change of the Secret yet.
    let late = faulty.proxy.inject(Which::watches().path("/secrets"), Fault::Hold);
    let theirs = json!({
        "metadata": {"annotations": {names::PATCH: "true", names::SKIP_SET_OWNER_REFERENCES: null}},
        "stringData": {"admin": "precious"},
    });
    patch_secret(&faulty, theirs).await?;
    put("late-second").await?;
    let both = json!({"data": {"password": "bGF0ZS1zZWNvbmQ=", "admin": "cHJlY2lvdXM="}});
    let metadata = &scene.has("v1", "Secret", "db", both).await?["metadata"];
    // With this annotation, the whole Secret would belong to the SealedSecret.
    ensure!(metadata["annotations"][names::SKIP_SET_OWNER_REFERENCES].is_null(), "{metadata:#}");
    late.lift();
    put("late-third").await?;
    let both = json!({"data": {"password": "bGF0ZS10aGlyZA==", "admin": "cHJlY2lvdXM="}});
    let secret = scene.has("v1", "Secret", "db", both).await?;
    ensure!(secret["metadata"]["ownerReferences"].is_null(), "{}", secret["metadata"]);
    Ok(())
}

#[tokio::test]
async fn a_secret_that_was_deleted_is_made_again_though_the_watch_is_late() -> Result<()> {
    let faulty = Faulty::start("late-deletion").await?;
    let scene = &faulty.scene;
    let sealer = Sealer::new(scene.client.clone(), &scene.namespace, &faulty.controller).await?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &sealer.seal("db", "late-first")?))?;
    let revision = scene.publish("a SealedSecret").await?;
    scene.is_applied("app", &revision).await?;

    let _late = faulty.proxy.inject(Which::watches().path("/secrets"), Fault::Hold);
    scene.api::<Secret>().delete("db", &DeleteParams::default()).await?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &sealer.seal("db", "late-second")?))?;
    let revision = scene.publish("another value").await?;
    scene.is_applied("app", &revision).await?;
    scene.has("v1", "Secret", "db", json!({"data": {"password": "bGF0ZS1zZWNvbmQ="}})).await.map(drop)
}

async fn patch_secret(faulty: &Faulty, patch: Value) -> Result<()> {
    let by = PatchParams { field_manager: Some("somebody".into()), ..PatchParams::default() };
    faulty.scene.api::<Secret>().patch("db", &by, &Patch::Merge(patch)).await?;
    Ok(())
}
