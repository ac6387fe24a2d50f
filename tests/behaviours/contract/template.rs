//! Fields of the template for which our Secret differs from the one that the Sealed Secrets controller makes.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    side::SEALED,
    whole::{both, same_event, same_secret_but, same_status},
};

#[tokio::test]
async fn what_is_no_string_is_refused() -> Result<()> {
    let mut messages = Vec::new();
    for side in both("no-string").await? {
        let object = json!({
            "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": "db"}, "spec": {"encryptedData": {"a": 5}},
        });
        let refused = side.apply(object).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(refused.contains("spec.encryptedData.a"), "{refused}");
        for kind in [("v1", "Secret"), (SEALED, "SealedSecret")] {
            assert_eq!(side.scene.get(kind.0, kind.1, "db").await?, None);
        }
        messages.push(refused);
    }
    assert_eq!(messages[0], messages[1]);
    Ok(())
}

/// Sets the finalizers of a Secret; an empty list removes the field.
fn set_finalizers(secret: &mut Value, finalizers: &Value) {
    let metadata = secret["metadata"].as_object_mut().unwrap();
    metadata.remove("finalizers");
    if finalizers.as_array().is_some_and(|list| !list.is_empty()) {
        metadata.insert("finalizers".into(), finalizers.clone());
    }
}

#[tokio::test]
async fn finalizers_come_and_go_with_the_template() -> Result<()> {
    let sides = both("finalizers").await?;
    let steps = [json!(["example.com/one"]), json!(["example.com/one", "example.com/two"]), json!([])];
    let at_creation = &steps[0];
    for finalizers in &steps {
        for side in &sides {
            side.put("db", &[("a", "one")], json!({"metadata": {"finalizers": finalizers}})).await?;
        }
        same_status(&sides, "db", "True").await?;
        same_secret_but(&sides, "db", |their| {
            assert_eq!(&their["metadata"]["finalizers"], at_creation);
            set_finalizers(their, finalizers);
        })
        .await?;
    }
    same_event(&sides, "db", "Unsealed").await?;
    // A finalizer that somebody else added stays.
    for side in &sides {
        side.patch_secret("db", json!({"metadata": {"finalizers": ["example.com/theirs"]}})).await?;
        side.put("db", &[("a", "two")], json!({"metadata": {}})).await?;
        side.has("db", &[("a", "two")]).await?;
    }
    same_status(&sides, "db", "True").await?;
    let found = same_secret_but(&sides, "db", |_| ()).await?;
    assert_eq!(found["metadata"]["finalizers"], json!(["example.com/theirs"]));
    for side in &sides {
        side.patch_secret("db", json!({"metadata": {"finalizers": null}})).await?;
    }
    Ok(())
}

#[tokio::test]
async fn owners_in_the_template_are_left_out() -> Result<()> {
    let sides = both("owners").await?;
    let owner =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "0d5cb2c1-7d5f-4f4c-8a0e-2b6f6f6f6f6f"}]);
    // Without `managed`, the Sealed Secrets controller does not recognise the Secret that it has just made.
    let skip = json!({
        "sealedsecrets.bitnami.com/skip-set-owner-references": "true", "sealedsecrets.bitnami.com/managed": "true",
    });
    let template = json!({"metadata": {"annotations": skip, "ownerReferences": owner}});
    for side in &sides {
        side.put("db", &[("a", "one")], template.clone()).await?;
    }
    same_status(&sides, "db", "True").await?;
    let secret = same_secret_but(&sides, "db", |their| {
        let theirs = their["metadata"].as_object_mut().and_then(|metadata| metadata.remove("ownerReferences"));
        assert!(theirs.is_some(), "they name an owner");
    })
    .await?;
    ensure!(secret["metadata"]["ownerReferences"].is_null(), "{secret:#}");
    same_event(&sides, "db", "Unsealed").await.map(drop)
}
