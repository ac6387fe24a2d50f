//! Attacks that try to get a service account token by unsealing.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Case, everything_in_its_namespace, plane_of_its_own, seal, sealed_secret, unseal_requests};
use crate::objects::config_map;

/// An account that may write SealedSecrets but no Secrets gets no Secret of any type.
#[tokio::test]
async fn a_token_is_not_unsealed_for_who_may_not_write_secrets() -> Result<()> {
    let (plane, certificate) = plane_of_its_own().await?;
    let case = Case::on(&plane, "escape-token", &certificate).await?;
    let sealed = json!({"a": seal(&certificate, &case.tenant.namespace, "token", "token-value")?});
    let token_of = |account: &str| {
        let annotations = json!({"kubernetes.io/service-account.name": account});
        let template = json!({"type": "kubernetes.io/service-account-token", "metadata": {"annotations": annotations}});
        sealed_secret("token", &json!({}), &sealed, &template)
    };
    everything_in_its_namespace(&case.tenant, "privileged").await?;
    let rules =
        json!([{"apiGroups": ["", "bitnami.com"], "resources": ["configmaps", "sealedsecrets"], "verbs": ["*"]}]);
    case.tenant.account("weak", rules).await?;
    case.tenant.sync("app", "./app", json!({"serviceAccountName": "weak"})).await?;
    let before = unseal_requests(&plane).await?;
    let text = format!("{}---\n{}", token_of("privileged"), config_map("beside", "1"));
    let ended = case.tries("a token of a privileged account by unsealing", &text).await?;
    ensure!(ended.reason == "Forbidden" && ended.message.contains("secrets"), "{}: {}", ended.reason, ended.message);
    ensure!(case.tenant.get("v1", "Secret", "token").await?.is_none(), "a token was made");
    ensure!(unseal_requests(&plane).await? == before, "a private key was used for who may write no Secrets");
    // The SealedSecret belongs to the Sync, so no other part of the controller unseals the SealedSecret, either.
    case.tenant.has("v1", "ConfigMap", "beside", json!({})).await?;
    ensure!(case.tenant.get("v1", "Secret", "token").await?.is_none(), "a token was made");
    case.victim_goes_on().await
}
