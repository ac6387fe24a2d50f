//! A Secret that somebody deleted or changed.

use anyhow::{Result, ensure};
use crds::names::SKIP_SET_OWNER_REFERENCES;
use harness::{Scene, eventually};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::side::{SEALED, Side, data};
use crate::objects;

#[tokio::test]
async fn a_deleted_secret_is_made_again() -> Result<()> {
    for side in [Side::ours("deleted").await?, Side::theirs("deleted").await?] {
        side.put("db", &[("a", "one")], json!({})).await?;
        side.synced("db", "True").await?;
        let before = side.has("db", &[("a", "one")]).await?;
        side.delete_secret("db").await?;
        let after = side.has("db", &[("a", "one")]).await?;
        assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
        side.synced("db", "True").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_secret_without_owner_is_made_again() -> Result<()> {
    let side = Side::ours("deleted-free").await?;
    side.put("db", &[("a", "one")], json!({"metadata": {"annotations": {SKIP_SET_OWNER_REFERENCES: "true"}}})).await?;
    side.has("db", &[("a", "one")]).await?;
    side.delete_secret("db").await?;
    side.has("db", &[("a", "one")]).await.map(drop)
}

/// Server-side applies a Secret as somebody else.
async fn apply_as_somebody(side: &Side, name: &str, mut secret: Value) -> Result<()> {
    secret["apiVersion"] = "v1".into();
    secret["kind"] = "Secret".into();
    let params = PatchParams::apply("somebody").force();
    side.scene.api::<Secret>().patch(name, &params, &Patch::Apply(&secret)).await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_somebody_added_is_taken_out() -> Result<()> {
    let side = Side::ours("added").await?;
    side.put("db", &[("a", "one")], json!({})).await?;
    side.synced("db", "True").await?;
    let first = side.has("db", &[("a", "one")]).await?;
    side.patch_secret("db", json!({"stringData": {"by-hand": "x", "more": "y"}})).await?;
    let healed = side.has("db", &[("a", "one")]).await?;
    assert_eq!(healed["metadata"]["uid"], first["metadata"]["uid"], "it was changed, not made anew");
    side.synced("db", "True").await?;
    let text = json!({"stringData": {"applied-text": "x", "a": "in the place of ours"}});
    for field in [json!({"data": data(&[("applied", "x")])}), text] {
        apply_as_somebody(&side, "db", field).await?;
        side.has("db", &[("a", "one")]).await?;
        side.synced("db", "True").await?;
    }
    side.event("db", "Drifted").await?;
    // A key that is by hand today and sealed tomorrow is the SealedSecret's.
    side.put("db", &[("a", "one"), ("by-hand", "sealed")], json!({})).await?;
    side.has("db", &[("a", "one"), ("by-hand", "sealed")]).await.map(drop)
}

#[tokio::test]
async fn a_key_that_somebody_added_to_a_secret_of_a_sync_is_taken_out() -> Result<()> {
    let scene = Scene::new("added-sync").await?;
    let value = scene.seal("db", b"from-git").await?;
    scene.tree.write("app/db.yaml", objects::sealed_secret("db", &value))?;
    let revision = scene.publish("a SealedSecret").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    let patch = json!({"stringData": {"by-hand": "x"}});
    scene.api::<Secret>().patch("db", &PatchParams::default(), &Patch::Merge(&patch)).await?;
    eventually("the key to go", || async {
        let found = scene.get("v1", "Secret", "db").await?.unwrap_or_default();
        ensure!(found["data"] == data(&[("password", "from-git")]), "{found:#}");
        Ok(())
    })
    .await?;
    let synced = json!({"status": {"conditions": [{"type": "Synced", "status": "True"}]}});
    eventually("Synced", || async {
        let found = scene.get(SEALED, "SealedSecret", "db").await?.unwrap_or_default();
        let condition = &found["status"]["conditions"][0];
        ensure!(condition["status"] == synced["status"]["conditions"][0]["status"], "{found:#}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn labels_and_annotations_of_others_stay() -> Result<()> {
    let side = Side::ours("labels").await?;
    side.put("db", &[("a", "one")], json!({"metadata": {"labels": {"ours": "x"}}})).await?;
    side.synced("db", "True").await?;
    side.patch_secret("db", json!({"metadata": {"labels": {"theirs": "y"}, "annotations": {"theirs": "y"}}})).await?;
    side.put("db", &[("a", "two")], json!({"metadata": {"labels": {"more": "x"}}})).await?;
    let found = side.has("db", &[("a", "two")]).await?;
    assert_eq!(found["metadata"]["labels"], json!({"theirs": "y", "more": "x"}));
    assert_eq!(found["metadata"]["annotations"]["theirs"], "y");
    side.synced("db", "True").await.map(drop)
}
