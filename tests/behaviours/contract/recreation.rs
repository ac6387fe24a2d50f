//! Secrets that somebody deleted or changed.

use anyhow::{Result, ensure};
use crds::names::{MANAGED, SKIP_SET_OWNER_REFERENCES};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    side::{Side, data, one_more_is_served},
    whole::{both, same_but_synced, same_event, same_secret, same_secret_but, same_status, same_status_of_a_sync},
};

#[tokio::test]
async fn a_deleted_secret_is_made_again() -> Result<()> {
    let sides = both("deleted").await?;
    for side in &sides {
        side.put("db", &[("a", "one")], json!({"metadata": {"labels": {"team": "a"}}})).await?;
        side.synced("db", "True").await?;
        let before = side.has("db", &[("a", "one")]).await?;
        side.delete_secret("db").await?;
        let after = side.has("db", &[("a", "one")]).await?;
        assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
    }
    same_secret(&sides, "db").await?;
    same_status(&sides, "db", "True").await?;
    same_event(&sides, "db", "Unsealed").await.map(drop)
}

#[tokio::test]
async fn a_secret_without_owner_is_made_again() -> Result<()> {
    let sides = both("deleted-free").await?;
    // Without `managed`, the Sealed Secrets controller does not recognise the Secret that it has just made.
    let annotations = json!({SKIP_SET_OWNER_REFERENCES: "true", MANAGED: "true"});
    for side in &sides {
        side.put("db", &[("a", "one")], json!({"metadata": {"annotations": annotations}})).await?;
        side.synced("db", "True").await?;
    }
    let [ours, theirs] = &sides;
    ours.delete_secret("db").await?;
    ours.has("db", &[("a", "one")]).await?;
    // Only our Secret was deleted, because the Sealed Secrets controller would not make its Secret again.
    let secret = same_secret(&sides, "db").await?;
    ensure!(secret["metadata"]["ownerReferences"].is_null(), "{secret:#}");
    same_status(&sides, "db", "True").await?;
    same_event(&sides, "db", "Unsealed").await?;

    // Our controller also makes a Secret again if the annotation `managed` is missing. The Sealed Secrets controller
    // makes such a Secret once, and then reports that the Secret is not its own.
    for side in &sides {
        let skip = json!({"metadata": {"annotations": {SKIP_SET_OWNER_REFERENCES: "true"}}});
        side.put("free", &[("a", "one")], skip).await?;
        side.has("free", &[("a", "one")]).await?;
    }
    ours.delete_secret("free").await?;
    ours.has("free", &[("a", "one")]).await?;
    ours.synced("free", "True").await?;
    theirs.event("free", "ErrUpdateFailed").await?;
    same_secret(&sides, "free").await.map(drop)
}

/// Applies a Secret with server-side apply, as another field manager.
async fn apply_as_somebody(side: &Side, name: &str, mut secret: Value) -> Result<()> {
    secret["apiVersion"] = "v1".into();
    secret["kind"] = "Secret".into();
    let params = PatchParams::apply("somebody").force();
    side.scene.api::<Secret>().patch(name, &params, &Patch::Apply(&secret)).await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_somebody_added_is_taken_out() -> Result<()> {
    let sides = both("added").await?;
    let [side, theirs] = &sides;
    for side in &sides {
        side.put("db", &[("a", "one")], json!({})).await?;
        side.synced("db", "True").await?;
    }
    let first = same_secret(&sides, "db").await?;
    let uid = side.secret("db").await?["metadata"]["uid"].clone();
    side.patch_secret("db", json!({"stringData": {"by-hand": "x", "more": "y"}})).await?;
    let healed = side.has("db", &[("a", "one")]).await?;
    assert_eq!(healed["metadata"]["uid"], uid, "it was changed, not made anew");
    side.synced("db", "True").await?;
    let text = json!({"stringData": {"applied-text": "x", "a": "in the place of ours"}});
    for field in [json!({"data": data(&[("applied", "x")])}), text] {
        apply_as_somebody(side, "db", field).await?;
        side.has("db", &[("a", "one")]).await?;
        side.synced("db", "True").await?;
    }
    // Our Secret is again the same as before, and the same as the other controller's Secret, which nobody changed.
    assert_eq!(same_secret(&sides, "db").await?, first);
    same_status(&sides, "db", "True").await?;
    side.event("db", "Drifted").await?;
    // If a key that was added by hand is sealed later, it belongs to the SealedSecret.
    theirs.patch_secret("db", json!({"stringData": {"by-hand": "x", "more": "y"}})).await?;
    for side in &sides {
        side.put("db", &[("a", "one"), ("by-hand", "sealed")], json!({})).await?;
        side.has("db", &[("a", "one"), ("by-hand", "sealed")]).await?;
    }
    same_secret(&sides, "db").await?;
    same_status(&sides, "db", "True").await.map(drop)
}

/// The Sealed Secrets controller looks at an existing Secret only when its SealedSecret changes.
#[tokio::test]
async fn an_edited_secret_is_put_back() -> Result<()> {
    let sides = both("edited").await?;
    for side in &sides {
        side.put("db", &[("a", "one")], json!({"metadata": {"labels": {"team": "a"}}})).await?;
        side.synced("db", "True").await?;
    }
    let first = same_secret(&sides, "db").await?;
    let edit =
        json!({"data": data(&[("a", "edited")]), "metadata": {"labels": {"more": "x"}, "ownerReferences": null}});
    let [ours, theirs] = &sides;
    for side in &sides {
        side.patch_secret("db", edit.clone()).await?;
    }
    ours.has("db", &[("a", "one")]).await?;
    one_more_is_served(theirs, "later").await?;
    // Their Secret is still as it was edited, and its SealedSecret is Synced.
    same_status(&sides, "db", "True").await?;
    let healed = same_secret_but(&sides, "db", |their| {
        let edited = (&their["data"], &their["metadata"]["labels"], &their["metadata"]["ownerReferences"]);
        assert_eq!(edited, (&data(&[("a", "edited")]), &json!({"team": "a", "more": "x"}), &Value::Null));
        their["data"] = first["data"].clone();
        their["metadata"]["ownerReferences"] = first["metadata"]["ownerReferences"].clone();
    })
    .await?;
    // A label that somebody else added stays in both Secrets.
    assert_eq!(healed["metadata"]["labels"], json!({"team": "a", "more": "x"}));
    // We apply a change of the SealedSecret to the Secret. The Sealed Secrets controller no longer recognises the Secret as
    // its own.
    for side in &sides {
        side.put("db", &[("a", "two")], json!({"metadata": {"labels": {"team": "a"}}})).await?;
    }
    same_but_synced(&sides, "db", ["True", "False"]).await?;
    ours.has("db", &[("a", "two")]).await?;
    theirs.event("db", "ErrUpdateFailed").await.map(drop)
}

#[tokio::test]
async fn a_key_that_somebody_added_to_a_secret_of_a_sync_is_taken_out() -> Result<()> {
    let sides = both("added-sync").await?;
    let [Side { scene, .. }, theirs] = &sides;
    let values = [("password", "sealed-in-git")];
    theirs.put("db", &values, json!({})).await?;
    theirs.synced("db", "True").await?;
    scene.tree.write("app/db.yaml", sides[0].sealed("db", &values, json!({}))?.to_string())?;
    scene.repository(json!({})).await?;
    let revision = scene.publish("a SealedSecret").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    sides[0].patch_secret("db", json!({"stringData": {"by-hand": "x"}})).await?;
    sides[0].has("db", &values).await?;
    same_status_of_a_sync(&sides, "db", "True").await?;
    same_secret(&sides, "db").await.map(drop)
}

#[tokio::test]
async fn labels_and_annotations_of_others_stay() -> Result<()> {
    let sides = both("labels").await?;
    for side in &sides {
        side.put("db", &[("a", "one")], json!({"metadata": {"labels": {"ours": "x"}}})).await?;
        side.synced("db", "True").await?;
        let others = json!({"labels": {"theirs": "y"}, "annotations": {"theirs": "y"}});
        side.patch_secret("db", json!({"metadata": others})).await?;
        side.put("db", &[("a", "two")], json!({"metadata": {"labels": {"more": "x"}}})).await?;
        side.has("db", &[("a", "two")]).await?;
    }
    same_status(&sides, "db", "True").await?;
    // The Sealed Secrets controller removes labels and annotations that are not in the template.
    let found = same_secret_but(&sides, "db", |their| {
        let metadata = &mut their["metadata"];
        assert_eq!((&metadata["labels"], &metadata["annotations"]), (&json!({"more": "x"}), &Value::Null));
        metadata["labels"]["theirs"] = "y".into();
        metadata["annotations"] = json!({"theirs": "y"});
    })
    .await?;
    assert_eq!(found["metadata"]["labels"], json!({"theirs": "y", "more": "x"}));
    Ok(())
}
