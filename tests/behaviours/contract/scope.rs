//! Cases in which the scope could be read from the wrong place, for example from the template.

use anyhow::Result;
use sealing::Scope;
use serde_json::{Value, json};

use super::{
    side::{SEALED, Side, data, one_more_is_served},
    whole::{both, same_but_synced, same_event, same_secret, same_status},
};

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
    let sides = both("wins").await?;
    for side in &sides {
        let both = json!({CLUSTER_WIDE: "true", NAMESPACE_WIDE: "true"});
        let other = json!({CLUSTER_WIDE: "yes", NAMESPACE_WIDE: "true"});
        side.apply(annotated(side, "both", Scope::ClusterWide, &both, &json!({}))?).await?;
        side.apply(annotated(side, "not", Scope::NamespaceWide, &both, &json!({}))?).await?;
        side.apply(annotated(side, "only-true-counts", Scope::NamespaceWide, &other, &json!({}))?).await?;
    }
    for name in ["both", "only-true-counts"] {
        same_status(&sides, name, "True").await?;
        same_secret(&sides, name).await?;
    }
    same_status(&sides, "not", "False").await?;
    same_event(&sides, "not", "ErrUnsealFailed").await.map(drop)
}

#[tokio::test]
async fn annotations_of_the_template_give_no_scope() -> Result<()> {
    let sides = both("template-scope").await?;
    for side in &sides {
        let wide = json!({CLUSTER_WIDE: "true"});
        side.apply(annotated(side, "wide", Scope::ClusterWide, &json!({}), &wide)?).await?;
        side.apply(annotated(side, "strict", Scope::Strict, &json!({}), &wide)?).await?;
        side.synced("wide", "False").await?;
        side.synced("strict", "True").await?;
        assert!(side.scene.get("v1", "Secret", "wide").await?.is_none());
        assert_eq!(side.secret("strict").await?["data"], data(&[("a", "value")]));
    }
    same_secret(&sides, "strict").await?;
    same_status(&sides, "strict", "True").await?;
    same_status(&sides, "wide", "False").await?;
    same_event(&sides, "strict", "Unsealed").await?;
    same_event(&sides, "wide", "ErrUnsealFailed").await.map(drop)
}

/// The Sealed Secrets controller looks at a SealedSecret again only when its spec changes.
#[tokio::test]
async fn a_change_of_the_scope_alone_takes_effect() -> Result<()> {
    let sides = both("scope-alone").await?;
    for side in &sides {
        let wide = json!({NAMESPACE_WIDE: "true"});
        side.apply(annotated(side, "db", Scope::NamespaceWide, &wide, &json!({}))?).await?;
        side.synced("db", "True").await?;
        side.patch_sealed("db", json!({"metadata": {"annotations": {NAMESPACE_WIDE: null}}})).await?;
        one_more_is_served(side, "later").await?;
    }
    same_but_synced(&sides, "db", ["False", "True"]).await?;
    // The Secret that was made before is not deleted.
    same_secret(&sides, "db").await.map(drop)
}
