//! Attacks on ownership: a tenant who applies an object first, uses the same names, or wants objects of others.

use anyhow::{Result, ensure};
use kube::api::DeleteParams;
use serde_json::json;

use super::{Case, seal, sealed_secret};
use crate::objects::config_map;

#[tokio::test]
async fn what_a_tenant_names_first_is_the_victims_all_the_same() -> Result<()> {
    let case = Case::new("escape-claims").await?;
    let theirs = &case.victim.namespace;
    let elsewhere = |kind: &str, name: &str| {
        let version = if kind == "Secret" || kind == "ConfigMap" { "v1" } else { "gitseal.dev/v1alpha1" };
        format!("{}\n", json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": theirs}}))
    };
    let own = json!({"a": seal(&case.plane.certificate, theirs, "next", "tenants-value")?});
    for (escape, text) in [
        ("an object that the victim is about to have", elsewhere("ConfigMap", "next")),
        (
            "a SealedSecret that the victim is about to have",
            sealed_secret("next", &json!({"namespace": theirs}), &own, &json!({})),
        ),
        ("the name of a Secret that the victim is about to have", elsewhere("Secret", "next")),
        ("an object that the victim has", elsewhere("ConfigMap", "settings")),
        ("the Secret that the victim has", elsewhere("Secret", "db")),
    ] {
        let message = case.is_refused(escape, &text, "Forbidden").await?;
        ensure!(!message.contains("belongs to Sync"), "it tells whose the object is: {message}");
    }
    // The tenant's Git has all these objects before the victim creates them.
    let all = format!(
        "{}---\n{}",
        elsewhere("ConfigMap", "next"),
        sealed_secret("next", &json!({"namespace": theirs}), &own, &json!({}))
    );
    case.is_refused("everything at once", &all, "Forbidden").await?;
    let sealed = json!({"a": seal(&case.plane.certificate, theirs, "next", "victims-value")?});
    case.victim.tree.write(
        "app/next.yaml",
        format!("{}---\n{}", config_map("next", "victims"), sealed_secret("next", &json!({}), &sealed, &json!({}))),
    )?;
    let revision = case.victim.publish("the victim comes").await?;
    case.victim.is_applied("shop", &revision).await?;
    case.victim.has("v1", "ConfigMap", "next", json!({"data": {"value": "victims"}})).await?;
    case.victim.has("v1", "Secret", "next", json!({"data": {"a": "dmljdGltcy12YWx1ZQ=="}})).await?;

    // Objects that leave the victim's Git are pruned, although the tenant wants them. The victim's Sync does not wait for
    // the tenant.
    case.victim.tree.remove("app/next.yaml")?;
    let revision = case.victim.publish("the victim lets go").await?;
    case.victim.is_applied("shop", &revision).await?;
    case.victim.is_gone("v1", "ConfigMap", "next").await?;
    case.victim.is_gone("v1", "Secret", "next").await?;
    case.victim_goes_on().await
}

#[tokio::test]
async fn a_sync_named_as_the_victims_is_another_one() -> Result<()> {
    let case = Case::new("escape-alike").await?;
    let theirs = &case.victim.namespace;
    let spec = json!({"serviceAccountName": "tenant", "wait": false});
    // The tenant's Sync has the same name, the same folder and the same objects.
    case.tenant.tree.write("shop/settings.yaml", config_map("settings", "tenants"))?;
    let revision = case.tenant.publish("alike").await?;
    case.tenant.sync("shop", "./shop", spec.clone()).await?;
    case.tenant.is_applied("shop", &revision).await?;
    case.is_harmless("a Sync named as the victim's").await?;
    let mut there = spec;
    there["targetNamespace"] = theirs.as_str().into();
    case.tenant.sync("shop", "./shop", there).await?;
    case.tenant.is_not_ready("shop", "Forbidden").await?;
    case.is_harmless("a Sync named as the victim's, aimed at its namespace").await?;
    case.tenant.api::<crds::Sync>().delete("shop", &DeleteParams::default()).await?;
    case.tenant.is_gone("gitseal.dev/v1alpha1", "Sync", "shop").await?;
    case.is_harmless("a Sync named as the victim's, deleted").await?;
    case.victim_goes_on().await
}
