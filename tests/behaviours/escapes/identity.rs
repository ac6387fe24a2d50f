//! Attacks with the names in a Sync: service accounts, namespaces, Repositories, other Syncs.

use anyhow::{Context, Result, ensure};
use harness::kubernetes;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{Case, GITSEAL, everything_in_its_namespace, plane_of_its_own, seal, sealed_secret, unseal_requests};
use crate::objects::config_map;

/// Changes the tenant's Sync. Returns the API server's message if it refuses.
async fn edit(case: &Case<'_>, spec: Value) -> Result<Option<String>> {
    let api = case.tenant.api::<crds::Sync>();
    let edited = api.patch("app", &PatchParams::default(), &Patch::Merge(&json!({"spec": spec}))).await;
    Ok(edited.err().map(|error| error.to_string()))
}

#[tokio::test]
async fn accounts_and_namespaces_of_others_are_not_to_be_had_by_name() -> Result<()> {
    let case = Case::new("escape-identity").await?;
    let (theirs, own) = (&case.victim.namespace, &case.tenant.namespace);
    for name in [
        format!("{theirs}:deployer"),
        format!("{theirs}/deployer"),
        format!("system:serviceaccount:{theirs}:deployer"),
        "system:admin".into(),
        "../deployer".into(),
        "deployer\r\nImpersonate-Group: system:masters".into(),
        "Deployer".into(),
        "deployеr".into(),
        String::new(),
    ] {
        let refusal = edit(&case, json!({"serviceAccountName": name}))
            .await?
            .with_context(|| format!("{name:?} was accepted"))?;
        ensure!(refusal.contains("serviceAccountName"), "{name:?}: {refusal}");
    }
    for name in [
        format!("{theirs}/configmaps"),
        format!("../{theirs}"),
        format!("{theirs}?"),
        format!("{theirs}."),
        theirs.to_uppercase(),
        "*".into(),
        String::new(),
        "..".into(),
        format!("{theirs}\n"),
        "kubе-system".into(),
    ] {
        let refusal =
            edit(&case, json!({"targetNamespace": name})).await?.with_context(|| format!("{name:?} was accepted"))?;
        ensure!(refusal.contains("targetNamespace"), "{name:?}: {refusal}");
    }
    // A service account named like the victim's is looked up in the tenant's own namespace. There it does not exist or has
    // no rights.
    ensure!(edit(&case, json!({"serviceAccountName": "deployer"})).await?.is_none());
    let text = config_map("settings", "taken");
    case.is_refused("an account named as the victim's", &text, "ServiceAccountNotFound").await?;
    ensure!(edit(&case, json!({"serviceAccountName": "tenant", "targetNamespace": theirs})).await?.is_none());
    let message = case.is_refused("targetNamespace", &config_map("settings", "taken 2"), "Forbidden").await?;
    ensure!(message.contains(&format!("system:serviceaccount:{own}:tenant")), "{message}");
    for namespace in ["kube-system", "default", "no-such-namespace"] {
        ensure!(edit(&case, json!({"targetNamespace": namespace})).await?.is_none());
        case.is_refused("targetNamespace", &config_map("settings", namespace), "Forbidden").await?;
    }
    case.victim_goes_on().await
}

#[tokio::test]
async fn repositories_dependencies_and_paths_of_others_are_out_of_reach() -> Result<()> {
    let case = Case::new("escape-references").await?;
    let (theirs, own) = (&case.victim.namespace, &case.tenant.namespace);
    case.tenant
        .sync(
            "spy",
            "./app",
            json!({"serviceAccountName": "tenant", "repository": {"name": "repo", "namespace": theirs}}),
        )
        .await?;
    let there = case.tenant.is_not_ready("spy", "AccessDenied").await?;
    case.tenant
        .sync(
            "spy",
            "./app",
            json!({"serviceAccountName": "tenant", "repository": {"name": "none", "namespace": theirs}}),
        )
        .await?;
    let not_there = case.tenant.sync_when("spy", "the other name", |_, ready| ready.message.contains("/none ")).await?;
    ensure!(not_there.metadata.namespace.as_ref() == Some(own) && there.contains("--allow-cross-namespace"), "{there}");
    case.is_harmless("the victim's Repository").await?;

    let mut told = Vec::new();
    for name in ["shop", "none"] {
        let spec = json!({"serviceAccountName": "tenant", "dependsOn": [{"name": name, "namespace": theirs}]});
        case.tenant.sync("waits", "./app", spec).await?;
        let wanted = format!("{theirs}/{name} ");
        let is_told =
            |_: &crds::Sync, ready: &crds::Condition| ready.reason == "AccessDenied" && ready.message.contains(&wanted);
        let sync = case.tenant.sync_when("waits", "AccessDenied", is_told).await?;
        let conditions = sync.status.context("a status")?.conditions;
        let message = crds::find_condition(&conditions, "Ready").context("Ready")?.message.clone();
        told.push(message.replace(&wanted, "X "));
    }
    ensure!(told[0] == told[1], "it tells which Syncs there are: {told:?}");
    case.is_harmless("dependsOn").await?;

    for path in ["../..", "./app/../../..", "/etc", "/", "app/%2e%2e", "..\\..", "app\u{0000}"] {
        let made = case.tenant.sync("walker", path, json!({"serviceAccountName": "tenant"})).await;
        if made.is_ok() {
            let sync = case
                .tenant
                .sync_when("walker", "an answer", |_, ready| ready.status != crds::ConditionStatus::Unknown)
                .await?;
            let inventory = crate::traces::inventory(sync);
            ensure!(inventory.iter().all(|id| id.starts_with(&format!("{own}_"))), "{path:?}: {inventory:?}");
        }
        case.is_harmless(&format!("the path {path:?}")).await?;
    }

    // Credentials are only read from the Repository's own namespace, no matter what the name is.
    let reads = || -> Result<usize> {
        let mut requests = case.plane.cluster.requests()?;
        requests.retain(|request| {
            request.verb == "get"
                && request.namespace == *theirs
                && request.resource == "secrets"
                && request.name == "db"
                && !request.user.starts_with("system:")
        });
        Ok(requests.len())
    };
    let before = reads()?;
    for name in [
        format!("../../{theirs}/secrets/db"),
        format!("..%2F..%2F{theirs}%2Fsecrets%2Fdb"),
        format!("{theirs}/db"),
        "db?x=".into(),
    ] {
        let object = json!({
            "apiVersion": GITSEAL, "kind": "Repository", "metadata": {"name": "thief"},
            "spec": {"url": "https://127.0.0.1:9/repo", "ref": {"branch": "main"}, "secretRef": {"name": name}},
        });
        if kubernetes::apply(&case.tenant.client, own, object).await.is_ok() {
            harness::eventually("the Repository to be refused", || async {
                let thief = case.tenant.api::<crds::Repository>().get("thief").await?;
                let status = thief.status.unwrap_or_default();
                ensure!(status.observed_generation == thief.metadata.generation, "{status:?}");
                let ready = crds::find_condition(&status.conditions, "Ready").context("no answer")?;
                ensure!(ready.status == crds::ConditionStatus::False, "{ready:?}");
                Ok(())
            })
            .await?;
        }
        case.is_harmless(&format!("the credentials {name:?}")).await?;
    }
    ensure!(reads()? == before, "the victim's Secret was read as credentials");
    case.victim_goes_on().await
}

/// A Sync gets a service account with fewer rights. Secrets that the old account could write are not unsealed again for the
/// new one.
#[tokio::test]
async fn a_weaker_account_heals_no_secret() -> Result<()> {
    let (plane, certificate) = plane_of_its_own().await?;
    let case = Case::on(&plane, "escape-weaker", &certificate).await?;
    let own = &case.tenant.namespace;
    let sealed = json!({"a": seal(&certificate, own, "mine", "strong-value")?});
    let ended = case.tries("the strong account", &sealed_secret("mine", &json!({}), &sealed, &json!({}))).await?;
    ensure!(ended.reason == "Applied", "{}: {}", ended.reason, ended.message);
    is_made(&case).await?;

    let rules =
        json!([{"apiGroups": ["", "bitnami.com"], "resources": ["configmaps", "sealedsecrets"], "verbs": ["*"]}]);
    case.tenant.account("weak", rules).await?;
    let secrets = kubernetes::objects(&case.tenant.client, own, "v1", "Secret");
    secrets.delete("mine", &DeleteParams::default()).await?;
    is_made(&case).await?;
    ensure!(edit(&case, json!({"serviceAccountName": "weak"})).await?.is_none());
    case.tenant.is_ready("app").await?;
    let before = unseal_requests(&plane).await?;
    secrets.delete("mine", &DeleteParams::default()).await?;
    let message = case.tenant.is_not_ready("app", "Forbidden").await?;
    ensure!(message.contains(&format!("{own}:weak")) && message.contains("secrets"), "{message}");
    ensure!(case.tenant.get("v1", "Secret", "mine").await?.is_none(), "it was unsealed for the weak account");
    ensure!(unseal_requests(&plane).await? == before, "a private key was used for the weak account");
    let requests = plane.cluster.requests()?;
    let secrets_sent = requests.iter().filter(|request| {
        request.namespace == *own
            && request.resource == "secrets"
            && request.verb == "patch"
            && request.impersonated.as_deref() == Some(&format!("system:serviceaccount:{own}:weak"))
    });
    ensure!(secrets_sent.count() == 0, "a Secret was sent for the weak account");

    // When the account gets the right back, the Secret is made again.
    everything_in_its_namespace(&case.tenant, "weak").await?;
    is_made(&case).await?;
    ensure!(unseal_requests(&plane).await? > before, "the metric shows what is unsealed");
    case.victim_goes_on().await
}

async fn is_made(case: &Case<'_>) -> Result<()> {
    case.tenant.has("v1", "Secret", "mine", json!({"data": {"a": "c3Ryb25nLXZhbHVl"}})).await.map(drop)
}
