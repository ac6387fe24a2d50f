//! The API server refuses a Secret, and its message may contain a value. Our messages say what is wrong, but never show a
//! value, for any verb.

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use harness::{Plane, Scene, eventually, kubernetes};
use k8s_openapi::api::{
    core::v1::{Event as CoreEvent, Secret},
    events::v1::Event,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::objects::{apply_cluster_wide, sealed_secret};

const ADMISSION: &str = "admissionregistration.k8s.io/v1";

/// A policy that refuses changes of the password, the removal of a key, and deletions. Its message contains the old
/// password and the new one, if there is one.
async fn quoting_policy(scene: &Scene) -> Result<()> {
    let name = format!("quoting-{}", scene.namespace);
    let rule = |operations: &[&str]| json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": operations, "resources": ["secrets"]});
    let quote = "'the old value is ' + string(oldObject.data.password) + (request.operation == 'DELETE' ? '' : ', the new one ' + string(object.data.password))";
    let policy = json!({
        "apiVersion": ADMISSION, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule(&["UPDATE", "DELETE"])]},
            "validations": [{
                "expression": "request.operation != 'DELETE' && object.data.password == oldObject.data.password \
                    && (!('foreign' in oldObject.data) || 'foreign' in object.data)",
                "messageExpression": quote,
            }],
        },
    });
    apply_cluster_wide(&scene.client, policy).await?;
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}});
    let binding = json!({
        "apiVersion": ADMISSION, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": here}},
    });
    apply_cluster_wide(&scene.client, binding).await
}

/// Everything that people can read about the objects of a namespace.
async fn told(scene: &Scene) -> Result<String> {
    let mut text = String::new();
    for (version, kind, name) in
        [("gitseal.dev/v1alpha1", "Sync", "app"), ("bitnami.com/v1alpha1", "SealedSecret", "alone")]
    {
        text += &scene.get(version, kind, name).await?.map_or_else(String::new, |object| object["status"].to_string());
    }
    let all = ListParams::default();
    text += &serde_json::to_string(&scene.api::<Event>().list(&all).await?.items)?;
    text += &serde_json::to_string(&scene.api::<CoreEvent>().list(&all).await?.items)?;
    text += &Plane::shared().await?.log().await;
    Ok(text)
}

fn assert_no_value(told: &str, values: &[&str]) {
    for value in values {
        for trace in [(*value).to_owned(), STANDARD.encode(value)] {
            assert!(!told.contains(&trace), "'{trace}' was told");
        }
    }
}

/// Creates a service account with all rights on Secrets and SealedSecrets in the scene's namespace.
async fn tenant(scene: &Scene) -> Result<()> {
    let rule = json!([{"apiGroups": ["", "bitnami.com"], "resources": ["secrets", "sealedsecrets"], "verbs": ["*"]}]);
    scene.account("tenant", rule).await
}

/// Waits until the policy is in force and its message contains the value.
async fn in_force(scene: &Scene, value: &str) -> Result<()> {
    let change = json!({"stringData": {"password": "another"}});
    let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
    eventually("the policy to be in force", || async {
        let refused = scene.api::<Secret>().patch("db", &dry_run, &Patch::Merge(&change)).await;
        let refused = refused.err().context("it is not in force")?.to_string();
        ensure!(refused.contains(&STANDARD.encode(value)) || refused.contains(value), "{refused}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_policy_that_quotes_values_puts_none_into_a_status() -> Result<()> {
    let scene = Scene::new("quoting").await?;
    tenant(&scene).await?;
    let values = ["Marvin-first-5511", "Marvin-second-5512", "Marvin-foreign-5513"];
    let commit = async |value: &str| -> Result<String> {
        scene.tree.write("app/db.yaml", sealed_secret("db", &scene.seal("db", value.as_bytes()).await?))?;
        scene.publish("another value").await
    };
    let first = commit(values[0]).await?;
    scene.sync("app", "./app", json!({"serviceAccountName": "tenant", "pruneLimit": "100%"})).await?;
    scene.is_applied("app", &first).await?;
    quoting_policy(&scene).await?;
    in_force(&scene, values[0]).await?;

    // Refused apply:
    let second = commit(values[1]).await?;
    let is_refused = |sync: &crds::Sync, ready: &crds::Condition| {
        let attempted = sync.status.as_ref().and_then(|status| status.last_attempted_revision.as_deref());
        attempted == Some(&*second) && ready.reason == "ApplyFailed"
    };
    scene.sync_when("app", "the update to be refused", is_refused).await?;
    let message = scene.is_not_ready("app", "ApplyFailed").await?;
    assert!(message.contains("app/db.yaml:1: ") && message.contains("ValidatingAdmissionPolicy quoting-"), "{message}");
    assert_no_value(&told(&scene).await?, &values);

    // The patch that removes keys of others is refused. It is a separate request, before the apply.
    let first = commit(values[0]).await?;
    scene.is_applied("app", &first).await?;
    let foreign = json!({"stringData": {"foreign": values[2]}});
    scene.api::<Secret>().patch("db", &PatchParams::default(), &Patch::Merge(&foreign)).await?;
    let message = scene.is_not_ready("app", "ApplyFailed").await?;
    assert!(message.contains("ValidatingAdmissionPolicy quoting-"), "{message}");
    assert_no_value(&told(&scene).await?, &values);

    // Refused delete:
    scene.tree.remove("app/db.yaml")?;
    scene.tree.write("app/other.yaml", crate::objects::config_map("other", "1"))?;
    scene.sync("app", "./app", json!({"serviceAccountName": null, "pruneLimit": "100%"})).await?;
    scene.publish("without it").await?;
    let message = scene.is_not_ready("app", "PruneFailed").await?;
    assert!(message.contains("ValidatingAdmissionPolicy quoting-"), "{message}");
    assert_no_value(&told(&scene).await?, &values);
    remove_policy(&scene.client, &scene.namespace).await
}

async fn remove_policy(client: &Client, namespace: &str) -> Result<()> {
    let resource = kubernetes::resource(ADMISSION, "ValidatingAdmissionPolicyBinding");
    let bindings = Api::<kube::api::DynamicObject>::all_with(client.clone(), &resource);
    bindings.delete(&format!("quoting-{namespace}"), &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_a_secret_is_told() -> Result<()> {
    let scene = Scene::new("wrong-secret").await?;
    let sealed = |name: &str, value: String, type_: &str| {
        json!({
            "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": name},
            "spec": {"encryptedData": {"tls.crt": value}, "template": {"type": type_}},
        })
    };
    let value = scene.seal("alone", b"Marvin-certificate-5514").await?;
    kubernetes::apply(&scene.client, &scene.namespace, sealed("alone", value.clone(), "kubernetes.io/tls")).await?;
    let message = refused(&scene, "alone").await?;
    assert!(
        message.contains("Invalid (422): data[tls.key]: required value; the type of the Secret requires this value"),
        "{message}"
    );
    assert_no_value(&told(&scene).await?, &["Marvin-certificate-5514"]);

    // With a Sync, the message is the same, and also names the file and line.
    let value = scene.seal("served", b"Marvin-certificate-5514").await?;
    scene.tree.write("app/served.yaml", sealed("served", value, "kubernetes.io/tls").to_string())?;
    scene.publish("a certificate without its key").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.is_not_ready("app", "ApplyFailed").await?;
    for text in ["app/served.yaml:1: Secret", "data[tls.key]: required value"] {
        assert!(message.contains(text), "{message}");
    }
    assert_no_value(&told(&scene).await?, &["Marvin-certificate-5514"]);
    Ok(())
}

async fn refused(scene: &Scene, name: &str) -> Result<String> {
    eventually(&format!("SealedSecret {name} to be refused"), || async {
        let sealed = scene.get("bitnami.com/v1alpha1", "SealedSecret", name).await?.context("it is gone")?;
        let condition: &Value = &sealed["status"]["conditions"][0];
        ensure!(condition["status"] == "False", "{condition}");
        Ok(condition["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}
