//! Flags of the controller that change how SealedSecrets are handled.

use anyhow::{Context, Result, ensure};
use harness::{Scene, eventually, git::ServerOptions, kubernetes};
use sealing::Scope;
use serde_json::{Value, json};

use super::{
    own::{self, Own},
    side::{SEALED, Side, data, one_more_is_served},
};

const OWN_NAMESPACE: &str = "--all-namespaces=false";

/// Checks that the controller did nothing for the SealedSecret.
async fn is_passed_over(side: &Side, name: &str) -> Result<()> {
    let sealed = side.scene.get(SEALED, "SealedSecret", name).await?.context("it is there")?;
    ensure!(sealed["status"].is_null(), "{sealed:#}");
    ensure!(side.scene.get("v1", "Secret", name).await?.is_none(), "it has a Secret");
    Ok(())
}

#[tokio::test]
async fn a_label_selector_selects() -> Result<()> {
    let own = Own::start("selector", &[OWN_NAMESPACE, "--label-selector=team=a,!off"]).await?;
    let side = &own.side;
    let labelled = |name: &str, values: &[(&str, &str)], labels: Value| -> Result<Value> {
        let mut sealed = side.sealed(name, values, json!({}))?;
        sealed["metadata"]["labels"] = labels;
        Ok(sealed)
    };
    side.apply(labelled("without", &[("a", "one")], json!({}))?).await?;
    side.apply(labelled("off", &[("a", "one")], json!({"team": "a", "off": ""}))?).await?;
    side.apply(labelled("with", &[("a", "one")], json!({"team": "a"}))?).await?;
    side.has("with", &[("a", "one")]).await?;
    side.synced("with", "True").await?;
    for name in ["without", "off"] {
        is_passed_over(side, name).await?;
    }
    // The Secret is made again, although only the SealedSecret has the label.
    side.delete_secret("with").await?;
    side.has("with", &[("a", "one")]).await?;

    side.patch_sealed("without", json!({"metadata": {"labels": {"team": "a"}}})).await?;
    side.has("without", &[("a", "one")]).await?;
    side.synced("without", "True").await?;
    // A SealedSecret that the selector no longer matches keeps its Secret, and its changes are ignored.
    side.apply(labelled("with", &[("a", "two")], json!({"team": "b"}))?).await?;
    side.apply(labelled("later", &[("a", "one")], json!({"team": "a"}))?).await?;
    side.synced("later", "True").await?;
    assert_eq!(side.secret("with").await?["data"], data(&[("a", "one")]));
    Ok(())
}

#[tokio::test]
async fn skip_recreate_lists_no_secrets() -> Result<()> {
    let plane = own::plane().await?;
    // The test uses another namespace than that of the controller, because the controller watches its sealing keys in
    // its own namespace.
    let there = Scene::on(plane, "skip-there", ServerOptions::default()).await?;
    let additional = format!("--additional-namespaces={}", there.namespace);
    let own = Own::start("skip", &["--skip-recreate", &additional]).await?;
    let side = own.beside(there).await?;
    side.put("db", &[("a", "one")], json!({})).await?;
    side.has("db", &[("a", "one")]).await?;
    side.synced("db", "True").await?;
    side.create_secret("theirs", json!({"stringData": {"theirs": "kept"}})).await?;
    side.put("theirs", &[("a", "one")], json!({})).await?;
    assert!(side.message("theirs", "False").await?.contains("Resource \"theirs\" already exists"));
    assert_eq!(side.secret("theirs").await?["data"], data(&[("theirs", "kept")]));

    side.delete_secret("db").await?;
    side.put("edited", &[("a", "one")], json!({})).await?;
    side.synced("edited", "True").await?;
    side.patch_secret("edited", json!({"data": data(&[("a", "edited")])})).await?;
    one_more_is_served(&side, "later").await?;
    assert!(side.scene.get("v1", "Secret", "db").await?.is_none());
    assert_eq!(side.secret("edited").await?["data"], data(&[("a", "edited")]));

    // The Secret is made again after a change of the SealedSecret, and after a restart.
    side.put("db", &[("a", "two")], json!({})).await?;
    side.has("db", &[("a", "two")]).await?;
    let own = own.restart().await?;
    side.has("edited", &[("a", "one")]).await?;
    drop(own);
    let namespace = &side.scene.namespace;
    let asked = plane.cluster.requests()?.into_iter().filter(|request| request.user != "system:apiserver");
    for request in asked {
        let is_listed = request.resource == "secrets" && ["list", "watch"].contains(&request.verb.as_str());
        let is_elsewhere = !request.namespace.is_empty() && request.namespace != *namespace;
        assert!(!is_listed || is_elsewhere, "{request:?}");
    }
    Ok(())
}

#[tokio::test]
async fn update_status_can_be_switched_off() -> Result<()> {
    let own = Own::start("no-status", &[OWN_NAMESPACE, "--update-status=false"]).await?;
    let side = &own.side;
    side.put("db", &[("a", "one")], json!({})).await?;
    side.has("db", &[("a", "one")]).await?;
    side.event("db", "Unsealed").await?;
    let mut bad = side.sealed("bad", &[], json!({}))?;
    bad["spec"]["encryptedData"]["a"] = side.seal_for(Scope::Strict, "elsewhere", "x")?.into();
    side.apply(bad).await?;
    side.event("bad", "ErrUnsealFailed").await?;
    for name in ["db", "bad"] {
        let sealed = side.scene.get(SEALED, "SealedSecret", name).await?.context("it is there")?;
        assert!(sealed["status"].is_null(), "{sealed:#}");
    }
    Ok(())
}

#[tokio::test]
async fn the_deprecated_first_form_can_be_switched_off() -> Result<()> {
    let own = Own::start("no-v1", &[OWN_NAMESPACE, "--accept-deprecated-v1-data=false"]).await?;
    let side = &own.side;
    let whole = json!({"apiVersion": "v1", "kind": "Secret", "data": data(&[("a", "one")])}).to_string();
    let spec = json!({"data": side.seal_for(Scope::Strict, "db", &whole)?});
    side.apply(json!({"apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": "db"}, "spec": spec})).await?;
    let message = side.message("db", "False").await?;
    assert!(message.contains("--accept-deprecated-v1-data=false"), "{message}");
    assert!(side.scene.get("v1", "Secret", "db").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn metrics_can_omit_names() -> Result<()> {
    let own = Own::start("no-names", &[OWN_NAMESPACE, "--metrics-omit-secret-labels"]).await?;
    own.side.put("a-telling-name", &[("a", "one")], json!({})).await?;
    own.side.synced("a-telling-name", "True").await?;
    assert_eq!(own.controller.metric("sealed_secrets_controller_unseal_requests_total").await?, Some(1));
    let text = own.controller.fetch("/metrics").await?;
    assert!(!text.contains("a-telling-name") && !text.contains("condition_info{"), "{text}");
    Ok(())
}

/// A SealedSecret whose value was sealed for another name.
fn broken(side: &Side, name: &str) -> Result<Value> {
    let mut sealed = side.sealed(name, &[], json!({}))?;
    sealed["spec"]["encryptedData"]["a"] = side.seal_for(Scope::Strict, "elsewhere", "x")?.into();
    Ok(sealed)
}

#[tokio::test]
async fn max_unseal_retries_are_kept() -> Result<()> {
    let own = Own::start("retries", &[OWN_NAMESPACE, "--max-unseal-retries=2"]).await?;
    let side = &own.side;
    let namespace = &side.scene.namespace;
    let errors =
        format!("sealed_secrets_controller_unseal_errors_total{{reason=\"unseal\",namespace=\"{namespace}\"}}");
    let given_up = async |times: usize| {
        eventually("it to be given up", || async {
            let log = own.controller.log();
            ensure!(log.matches("given up until the SealedSecret").count() == times, "{log}");
            Ok(())
        })
        .await
    };
    side.apply(broken(side, "db")?).await?;
    given_up(1).await?;
    assert_eq!(own.controller.metric(&errors).await?, Some(3), "once, and two retries");
    // After a change of the SealedSecret, the retries begin again.
    let mut again = broken(side, "db")?;
    again["spec"]["template"]["type"] = "example.com/kind".into();
    side.apply(again).await?;
    given_up(2).await?;
    assert_eq!(own.controller.metric(&errors).await?, Some(6));
    side.put("db", &[("a", "good")], json!({})).await?;
    side.has("db", &[("a", "good")]).await?;
    side.synced("db", "True").await.map(drop)
}

/// Installs a policy that lets nobody write this Secret.
async fn forbid(side: &Side, name: &str) -> Result<()> {
    let policy = format!("{}-{name}", side.scene.namespace);
    let version = "admissionregistration.k8s.io/v1";
    let namespace = &side.scene.namespace;
    let rule =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"], "operations": ["CREATE", "UPDATE"]});
    let expression = format!("object.metadata.namespace != '{namespace}' || object.metadata.name != '{name}'");
    for object in [
        json!({
            "apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": policy},
            "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": expression}]},
        }),
        json!({
            "apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": policy},
            "spec": {"policyName": policy, "validationActions": ["Deny"]},
        }),
    ] {
        kubernetes::apply_cluster_wide(&side.scene.client, object).await?;
    }
    // The policy takes effect after a moment.
    eventually("the policy", || async {
        let tried = side.create_secret(name, json!({"metadata": {"annotations": {"try": "out"}}})).await;
        if tried.is_ok() {
            side.delete_secret(name).await?;
        }
        ensure!(tried.is_err(), "it may still be written");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_fails_is_tried_for_ever() -> Result<()> {
    let own = Own::start("for-ever", &[OWN_NAMESPACE]).await?;
    let side = &own.side;
    forbid(side, "db").await?;
    side.put("db", &[("a", "one")], json!({})).await?;
    let namespace = &side.scene.namespace;
    let errors =
        format!("sealed_secrets_controller_unseal_errors_total{{reason=\"update\",namespace=\"{namespace}\"}}");
    eventually("more tries than the other controller makes", || async {
        let errors = own.controller.metric::<u64>(&errors).await?.unwrap_or_default();
        ensure!(errors >= 6, "{errors}");
        Ok(())
    })
    .await?;
    assert!(side.message("db", "False").await?.contains("could not be written"));
    // The controller does not see the removal of the policy, so it must try again by itself.
    let policy = format!("{namespace}-db");
    let binding = kubernetes::resource("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding");
    let bindings: kube::Api<kube::api::DynamicObject> = kube::Api::all_with(side.scene.client.clone(), &binding);
    bindings.delete(&policy, &kube::api::DeleteParams::default()).await?;
    side.has("db", &[("a", "one")]).await?;
    side.synced("db", "True").await.map(drop)
}

#[test]
fn version_is_printed() -> Result<()> {
    let program = harness::programs::folder()?.join("gitseal-controller");
    let printed = harness::programs::run(std::process::Command::new(program).arg("--version"))?;
    let version = printed.strip_prefix("controller version: v").context(printed.clone())?;
    assert_eq!(version.trim_end().split('.').count(), 3, "{printed}");
    Ok(())
}
