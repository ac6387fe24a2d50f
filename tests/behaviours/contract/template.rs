//! What the template says about the Secret, where ours is not just as the other controller.

use anyhow::Result;
use serde_json::{Value, json};

use super::side::{SEALED, Side};

#[tokio::test]
async fn what_is_no_string_is_refused() -> Result<()> {
    let side = Side::ours("no-string").await?;
    let object = json!({
        "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": "db"}, "spec": {"encryptedData": {"a": 5}},
    });
    let refused = side.apply(object).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(refused.contains("spec.encryptedData.a"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn finalizers_come_and_go_with_the_template() -> Result<()> {
    let side = Side::ours("finalizers").await?;
    let values = [("a", "one")];
    for finalizers in [json!([]), json!(["example.com/one"]), json!(["example.com/one", "example.com/two"]), json!([])]
    {
        side.put("db", &values, json!({"metadata": {"finalizers": finalizers}})).await?;
        side.synced("db", "True").await?;
        let found = side.secret("db").await?["metadata"]["finalizers"].clone();
        assert_eq!(if found == Value::Null { json!([]) } else { found }, finalizers);
    }
    // One of somebody else is his.
    side.patch_secret("db", json!({"metadata": {"finalizers": ["example.com/theirs"]}})).await?;
    side.put("db", &[("a", "two")], json!({})).await?;
    side.has("db", &[("a", "two")]).await?;
    assert_eq!(side.secret("db").await?["metadata"]["finalizers"], json!(["example.com/theirs"]));
    side.patch_secret("db", json!({"metadata": {"finalizers": null}})).await
}

#[tokio::test]
async fn owners_in_the_template_are_left_out() -> Result<()> {
    let side = Side::ours("owners").await?;
    let owner =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "0d5cb2c1-7d5f-4f4c-8a0e-2b6f6f6f6f6f"}]);
    let skip = json!({"sealedsecrets.bitnami.com/skip-set-owner-references": "true"});
    side.put("db", &[("a", "one")], json!({"metadata": {"annotations": skip, "ownerReferences": owner}})).await?;
    side.synced("db", "True").await?;
    let secret = side.secret("db").await?;
    assert!(secret["metadata"]["ownerReferences"].is_null(), "{secret:#}");
    Ok(())
}
