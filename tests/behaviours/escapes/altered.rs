//! A SealedSecret in the cluster that differs from the one in Git. The rights were checked only for the one in Git, so
//! the one in the cluster must not be unsealed.

use anyhow::{Context, Result, ensure};
use harness::kubernetes;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{Case, SEALED, plane_of_its_own, seal, sealed_secret, unseal_requests};

/// Applies these values to the tenant's SealedSecret `mine` as another tool. Values that this tool applied before and
/// that are not among these values are removed.
async fn others_apply(case: &Case<'_>, encrypted: Value) -> Result<()> {
    let object = json!({
        "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": "mine"},
        "spec": {"encryptedData": encrypted},
    });
    let api = kubernetes::objects(&case.tenant.client, &case.tenant.namespace, SEALED, "SealedSecret");
    api.patch("mine", &PatchParams::apply("another-tool"), &Patch::Apply(&object)).await?;
    Ok(())
}

#[tokio::test]
async fn what_others_add_to_a_sealed_secret_is_not_unsealed() -> Result<()> {
    let (plane, certificate) = plane_of_its_own().await?;
    let case = Case::on(&plane, "escape-altered", &certificate).await?;
    let tenant = &case.tenant;
    let sealed = |value: &str| -> Result<Value> { Ok(seal(&certificate, &tenant.namespace, "mine", value)?.into()) };
    let in_git = |value: &str| -> Result<String> {
        Ok(sealed_secret("mine", &json!({}), &json!({"a": sealed(value)?}), &json!({})))
    };
    let ended = case.tries("a value", &in_git("altered-first")?).await?;
    ensure!(ended.reason == "Applied", "{}: {}", ended.reason, ended.message);
    tenant.has("v1", "Secret", "mine", json!({"data": {"a": "YWx0ZXJlZC1maXJzdA=="}})).await?;

    others_apply(&case, json!({"more": sealed("others")?})).await?;
    let (unsealed, secret) = (unseal_requests(&plane).await?, tenant.get("v1", "Secret", "mine").await?);
    let message = case
        .is_refused("a value beside that of another tool", &in_git("altered-second")?, "SealedSecretAltered")
        .await?;
    ensure!(message.contains("another field manager owns a part of it"), "{message}");
    ensure!(unseal_requests(&plane).await? == unsealed, "a private key was used for it");
    ensure!(tenant.get("v1", "Secret", "mine").await? == secret, "its Secret was changed");
    let there = tenant.get(SEALED, "SealedSecret", "mine").await?.context("the SealedSecret is gone")?;
    ensure!(there["spec"]["encryptedData"]["more"].is_string(), "the value of the other tool is gone: {there:#}");

    others_apply(&case, json!({})).await?;
    tenant.is_ready("app").await?;
    tenant.has("v1", "Secret", "mine", json!({"data": {"a": "YWx0ZXJlZC1zZWNvbmQ="}})).await?;
    ensure!(unseal_requests(&plane).await? > unsealed, "the metric shows what is unsealed");
    case.victim_goes_on().await
}
