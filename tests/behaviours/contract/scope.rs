//! Scopes, where they could be taken from the wrong place.

use anyhow::Result;
use sealing::Scope;
use serde_json::{Value, json};

use super::side::{SEALED, Side, data};

fn annotated(side: &Side, name: &str, scope: Scope, annotations: &Value, template: &Value) -> Result<Value> {
    Ok(json!({
        "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "encryptedData": {"a": side.seal_for(scope, name, "value")?}, "template": {"metadata": {"annotations": template}},
        },
    }))
}

const NAMESPACE_WIDE: &str = "sealedsecrets.bitnami.com/namespace-wide";
const CLUSTER_WIDE: &str = "sealedsecrets.bitnami.com/cluster-wide";

#[tokio::test]
async fn cluster_wide_wins_over_namespace_wide() -> Result<()> {
    for side in [Side::ours("wins").await?, Side::theirs("wins").await?] {
        let both = json!({CLUSTER_WIDE: "true", NAMESPACE_WIDE: "true"});
        let other = json!({CLUSTER_WIDE: "yes", NAMESPACE_WIDE: "true"});
        side.apply(annotated(&side, "both", Scope::ClusterWide, &both, &json!({}))?).await?;
        side.apply(annotated(&side, "not", Scope::NamespaceWide, &both, &json!({}))?).await?;
        side.apply(annotated(&side, "only-true-counts", Scope::NamespaceWide, &other, &json!({}))?).await?;
        side.synced("both", "True").await?;
        side.synced("not", "False").await?;
        side.synced("only-true-counts", "True").await?;
    }
    Ok(())
}

#[tokio::test]
async fn annotations_of_the_template_give_no_scope() -> Result<()> {
    for side in [Side::ours("template-scope").await?, Side::theirs("template-scope").await?] {
        let wide = json!({CLUSTER_WIDE: "true"});
        side.apply(annotated(&side, "wide", Scope::ClusterWide, &json!({}), &wide)?).await?;
        side.apply(annotated(&side, "strict", Scope::Strict, &json!({}), &wide)?).await?;
        side.synced("wide", "False").await?;
        side.synced("strict", "True").await?;
        assert!(side.scene.get("v1", "Secret", "wide").await?.is_none());
        assert_eq!(side.secret("strict").await?["data"], data(&[("a", "value")]));
    }
    Ok(())
}
