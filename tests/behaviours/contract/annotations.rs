//! `managed`, `patch` and `skip-set-owner-references`, where ours does more than the other controller; the rest is
//! compared in `same_secret.rs`.

use anyhow::Result;
use crds::names::{PATCH, SKIP_SET_OWNER_REFERENCES};
use serde_json::json;

use super::{
    side::{Side, data},
    whole::{both, same_secret, same_status},
};

#[tokio::test]
async fn what_leaves_the_sealed_secret_leaves_a_patched_secret() -> Result<()> {
    let sides = both("patched").await?;
    for side in &sides {
        let metadata = json!({"annotations": {PATCH: "true"}, "labels": {"theirs": "kept"}});
        side.create_secret("db", json!({"metadata": metadata, "stringData": {"theirs": "kept"}})).await?;
        let labels = json!({"metadata": {"labels": {"ours": "x"}, "annotations": {"ours": "x"}}});
        side.put("db", &[("a", "one"), ("b", "two")], labels).await?;
        side.has("db", &[("a", "one"), ("b", "two"), ("theirs", "kept")]).await?;
    }
    same_status(&sides, "db", "True").await?;
    same_secret(&sides, "db").await?;
    let [side, _] = &sides;
    side.put("db", &[("b", "three")], json!({})).await?;
    let found = side.has("db", &[("b", "three"), ("theirs", "kept")]).await?;
    assert_eq!(found["metadata"]["labels"], json!({"theirs": "kept"}));
    assert!(found["metadata"]["annotations"]["ours"].is_null(), "{found:#}");
    assert_eq!(found["metadata"]["annotations"][PATCH], "true");
    side.synced("db", "True").await?;
    // What somebody adds to it meanwhile is his.
    side.patch_secret("db", json!({"stringData": {"more": "kept"}})).await?;
    side.put("db", &[("b", "four")], json!({})).await?;
    side.has("db", &[("b", "four"), ("more", "kept"), ("theirs", "kept")]).await?;
    side.synced("db", "True").await.map(drop)
}

#[tokio::test]
async fn a_patched_secret_keeps_its_type() -> Result<()> {
    let side = Side::ours("patched-type").await?;
    let secret = json!({"metadata": {"annotations": {PATCH: "true"}}, "type": "example.com/kind", "stringData": {"theirs": "kept"}});
    side.create_secret("db", secret).await?;
    side.put("db", &[("a", "one")], json!({})).await?;
    let found = side.has("db", &[("a", "one"), ("theirs", "kept")]).await?;
    assert_eq!(found["type"], "example.com/kind");
    side.synced("db", "True").await.map(drop)
}

#[tokio::test]
async fn a_secret_without_owner_follows_its_sealed_secret() -> Result<()> {
    let side = Side::ours("without-owner").await?;
    let skip = json!({"metadata": {"annotations": {SKIP_SET_OWNER_REFERENCES: "true"}}});
    side.put("db", &[("a", "one"), ("b", "two")], skip.clone()).await?;
    side.has("db", &[("a", "one"), ("b", "two")]).await?;
    side.put("db", &[("a", "three")], skip).await?;
    let found = side.has("db", &[("a", "three")]).await?;
    assert!(found["metadata"]["ownerReferences"].is_null(), "{found:#}");
    side.synced("db", "True").await?;
    side.patch_secret("db", json!({"data": data(&[("a", "edited")])})).await?;
    side.has("db", &[("a", "three")]).await.map(drop)
}
