//! A heal whose requests are never answered. The status must not keep saying that everything is Ready.

use anyhow::{Context, Result, ensure};
use harness::{
    eventually,
    faults::{Fault, Which},
    kubernetes, within,
};
use http::Method;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{Faulty, SOON};
use crate::handover::Sealer;

const SEALED: &str = "bitnami.com/v1alpha1";

async fn is_synced(faulty: &Faulty, expected: &str) -> Result<()> {
    eventually(&format!("Synced={expected}"), || async {
        let sealed = faulty.scene.get(SEALED, "SealedSecret", "db").await?.context("SealedSecret")?;
        let synced = &sealed["status"]["conditions"][0];
        ensure!(synced["status"] == expected, "{synced}");
        Ok(())
    })
    .await
}

async fn a_heal_that_hangs_is_not_synced(name: &str, hangs: Which) -> Result<()> {
    let faulty = Faulty::without_work(name).await?;
    let scene = &faulty.scene;
    let sealer = Sealer::new(scene.client.clone(), &scene.namespace, &faulty.controller).await?;
    let sealed = json!({
        "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": "db"},
        "spec": {"encryptedData": {"password": sealer.seal("db", "stalled-value")?}},
    });
    kubernetes::apply(&scene.client, &scene.namespace, sealed).await?;
    is_synced(&faulty, "True").await?;

    let stalled = faulty.proxy.inject(hangs, Fault::Stall);
    let edited = Patch::Merge(json!({"stringData": {"password": "edited"}}));
    scene.api::<Secret>().patch("db", &PatchParams::default(), &edited).await?;
    is_synced(&faulty, "Unknown").await?;
    stalled.lift();
    within(SOON, is_synced(&faulty, "True")).await?;
    scene.has("v1", "Secret", "db", json!({"data": {"password": "c3RhbGxlZC12YWx1ZQ=="}})).await.map(drop)
}

#[tokio::test]
async fn a_secret_is_not_synced_while_its_heal_waits_for_a_read() -> Result<()> {
    a_heal_that_hangs_is_not_synced("stalled-heal-read", Which::method(Method::GET).path("/sealedsecrets/db")).await
}

#[tokio::test]
async fn a_secret_is_not_synced_while_its_heal_waits_for_a_write() -> Result<()> {
    a_heal_that_hangs_is_not_synced("stalled-heal-write", Which::method(Method::PATCH).path("/secrets/db")).await
}
