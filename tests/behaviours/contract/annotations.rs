//! The annotations `managed`, `patch` and `skip-set-owner-references`, where our controller does more than the Sealed
//! Secrets controller. What both do in the same way is compared in `same_secret.rs`.

use anyhow::Result;
use crds::names::{PATCH, SKIP_SET_OWNER_REFERENCES};
use serde_json::{Value, json};

use super::{
    side::{SEALED, data, one_more_is_served},
    whole::{both, same_but_synced, same_event, same_secret, same_secret_but, same_status},
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
    // When a key is removed from the SealedSecret, the Sealed Secrets controller leaves it in the Secret.
    let x = &json!("x");
    let left_by_theirs = |their: &mut Value| {
        for (within, key, left) in [
            ("/data", "a", &data(&[("a", "one")])["a"]),
            ("/metadata/labels", "ours", x),
            ("/metadata/annotations", "ours", x),
        ] {
            let within = their.pointer_mut(within).and_then(Value::as_object_mut);
            assert_eq!(within.and_then(|all| all.remove(key)).as_ref(), Some(left), "{key}");
        }
    };
    // The template cannot be empty: the API server would make it null, and the CustomResourceDefinition of Sealed Secrets
    // does not allow that.
    let empty = json!({"metadata": {}});
    for side in &sides {
        side.put("db", &[("b", "three")], empty.clone()).await?;
    }
    same_status(&sides, "db", "True").await?;
    let found = same_secret_but(&sides, "db", left_by_theirs).await?;
    assert_eq!(found["data"], data(&[("b", "three"), ("theirs", "kept")]));
    assert_eq!(found["metadata"]["labels"], json!({"theirs": "kept"}));
    assert_eq!(found["metadata"]["annotations"], json!({PATCH: "true"}));
    // A key that somebody else adds to the Secret stays.
    for side in &sides {
        side.patch_secret("db", json!({"stringData": {"more": "kept"}})).await?;
        side.put("db", &[("b", "four")], empty.clone()).await?;
    }
    same_status(&sides, "db", "True").await?;
    let found = same_secret_but(&sides, "db", left_by_theirs).await?;
    assert_eq!(found["data"], data(&[("b", "four"), ("more", "kept"), ("theirs", "kept")]));
    same_event(&sides, "db", "Unsealed").await.map(drop)
}

#[tokio::test]
async fn a_patched_secret_stays_when_its_sealed_secret_goes() -> Result<()> {
    let sides = both("patched-end").await?;
    for side in &sides {
        let metadata = json!({"annotations": {PATCH: "true"}, "labels": {"theirs": "kept"}});
        side.create_secret("db", json!({"metadata": metadata, "stringData": {"theirs": "kept"}})).await?;
        side.put("db", &[("a", "one")], json!({"metadata": {"labels": {"ours": "x"}}})).await?;
    }
    same_status(&sides, "db", "True").await?;
    let before = same_secret(&sides, "db").await?;
    for side in &sides {
        side.delete(SEALED, "SealedSecret", "db").await?;
        side.scene.is_gone(SEALED, "SealedSecret", "db").await?;
        one_more_is_served(side, "later").await?;
    }
    assert_eq!(same_secret(&sides, "db").await?, before);
    assert_eq!(before["data"], data(&[("a", "one"), ("theirs", "kept")]));
    Ok(())
}

#[tokio::test]
async fn a_patched_secret_keeps_its_type() -> Result<()> {
    let sides = both("patched-type").await?;
    for side in &sides {
        let metadata = json!({"annotations": {PATCH: "true"}});
        let secret = json!({"metadata": metadata, "type": "example.com/kind", "stringData": {"theirs": "kept"}});
        side.create_secret("db", secret).await?;
        side.put("db", &[("a", "one")], json!({})).await?;
    }
    // The Sealed Secrets controller tries to change the type, which the API server refuses.
    let [_, theirs] = &sides;
    same_but_synced(&sides, "db", ["True", "False"]).await?;
    theirs.events("db", &[("Warning", "ErrUpdateFailed")]).await?;
    let found = same_secret_but(&sides, "db", |their| {
        assert_eq!(their["data"], data(&[("theirs", "kept")]));
        their["data"] = data(&[("a", "one"), ("theirs", "kept")]);
    })
    .await?;
    assert_eq!(found["type"], "example.com/kind");
    Ok(())
}

#[tokio::test]
async fn a_secret_without_owner_follows_its_sealed_secret() -> Result<()> {
    let sides = both("without-owner").await?;
    let [ours, theirs] = &sides;
    let skip = json!({"metadata": {"annotations": {SKIP_SET_OWNER_REFERENCES: "true"}}});
    for side in &sides {
        side.put("db", &[("a", "one"), ("b", "two")], skip.clone()).await?;
        side.has("db", &[("a", "one"), ("b", "two")]).await?;
    }
    let first = same_secret(&sides, "db").await?;
    assert!(first["metadata"]["ownerReferences"].is_null(), "{first:#}");
    // The Sealed Secrets controller does not recognise the Secret that it has just made, and reports an error.
    same_but_synced(&sides, "db", ["True", "False"]).await?;
    for side in &sides {
        side.put("db", &[("a", "three")], skip.clone()).await?;
    }
    same_but_synced(&sides, "db", ["True", "False"]).await?;
    theirs.events("db", &[("Warning", "ErrUpdateFailed")]).await?;
    same_secret_but(&sides, "db", |their| {
        assert_eq!(their["data"], data(&[("a", "one"), ("b", "two")]));
        their["data"] = data(&[("a", "three")]);
    })
    .await?;
    ours.patch_secret("db", json!({"data": data(&[("a", "edited")])})).await?;
    ours.has("db", &[("a", "three")]).await.map(drop)
}
