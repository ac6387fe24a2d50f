//! No SealedSecret and no Sync can make or change the Secrets from which the controller reads its own keys.

use anyhow::{Context, Result, ensure};
use crds::{SealedSecret, names::SEALING_KEY};
use harness::{Plane, Scene, eventually, kubernetes};
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use sealing::{Certificate, PrivateKey, Scope};
use serde_json::{Value, json};

const OWN: &str = "kube-system";

/// A SealedSecret with the tenant's own key pair, in the form of a sealing key's Secret.
async fn sealed_key(namespace: &str, name: &str, type_: &str, labels: Value) -> Result<Value> {
    let certificate = Certificate::from_pem(Plane::shared().await?.certificate.as_bytes())?;
    let seal = |key: &str, value: &str| {
        sealing::seal(&certificate, Scope::Strict.binding(namespace, name, key), harness::hunt::known(value.as_bytes()))
    };
    let (key, own) = tenants_key()?;
    Ok(json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "encryptedData": {"tls.key": seal("tls.key", &key.to_pem()?)?, "tls.crt": seal("tls.crt", &own.to_pem())?},
            "template": {"type": type_, "metadata": {"labels": labels}},
        },
    }))
}

/// A key pair of the tenant. If the controller read it, its certificate would be the newest.
fn tenants_key() -> Result<(PrivateKey, Certificate)> {
    let key = PrivateKey::generate(2048)?;
    let start = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let certificate = sealing::self_signed(&key, "tenant", start, sealing::DEFAULT_VALIDITY)?;
    Ok((key, certificate))
}

async fn refused(scene: &Scene, namespace: &str, name: &str) -> Result<String> {
    let api = Api::<SealedSecret>::namespaced(scene.client.clone(), namespace);
    eventually(&format!("SealedSecret {name} to be refused"), || async {
        let sealed = api.get(name).await?;
        let status = sealed.status.clone().unwrap_or_default();
        let condition = status.conditions.first().context("not looked at yet")?.clone();
        ensure!(condition.status == crds::ConditionStatus::False, "{condition:?}");
        Ok(condition.message)
    })
    .await
}

#[tokio::test]
async fn names_and_labels_of_the_controllers_own_secrets_are_refused() -> Result<()> {
    let scene = Scene::new("reserved").await?;
    let own = Api::<Secret>::namespaced(scene.client.clone(), OWN);
    let sealed = Api::<SealedSecret>::namespaced(scene.client.clone(), OWN);
    let tag = &scene.namespace;
    let names = [format!("sealed-secrets-key{tag}"), "sealed-secrets-key".into(), "gitseal-new-key".into()];
    for (name, type_) in names.iter().flat_map(|name| [(name, "kubernetes.io/tls"), (name, "Opaque")]) {
        kubernetes::apply(&scene.client, OWN, sealed_key(OWN, name, type_, json!({})).await?).await?;
        let message = refused(&scene, OWN, name).await?;
        assert!(message.contains("read by the controller as one of its own keys"), "{message}");
        assert!(own.get_opt(name).await?.is_none(), "{name} of type {type_}");
        sealed.delete(name, &DeleteParams::default()).await?;
        eventually("it to be gone", || async {
            ensure!(sealed.get_opt(name).await?.is_none(), "it is still there");
            Ok(())
        })
        .await?;
    }
    let name = format!("labelled-{tag}");
    for label in [SEALING_KEY, "gitseal.dev/sealing-key"] {
        let object = sealed_key(OWN, &name, "kubernetes.io/tls", json!({label: "active"})).await?;
        kubernetes::apply(&scene.client, OWN, object).await?;
        let message = refused(&scene, OWN, &name).await?;
        assert!(message.contains(label), "{message}");
        assert!(own.get_opt(&name).await?.is_none());
        sealed.delete(&name, &DeleteParams::default()).await?;
    }

    // With a Sync, the message also names the file and line. The Secret with the key for digests exists, and it stays
    // unchanged even if it is annotated as managed.
    let annotated = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "gitseal-digest-key", "annotations": {"sealedsecrets.bitnami.com/managed": "true"}},
    });
    kubernetes::apply(&scene.client, OWN, annotated).await?;
    let before = own.get("gitseal-digest-key").await?.data;
    let digest_key = sealed_key(OWN, "gitseal-digest-key", "Opaque", json!({})).await?;
    scene.tree.write("app/key.yaml", digest_key.to_string())?;
    scene.publish("a key for digests").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.is_not_ready("app", "UnsealFailed").await?;
    assert!(message.contains("app/key.yaml:1: ") && message.contains("one of its own keys"), "{message}");
    assert_eq!(own.get("gitseal-digest-key").await?.data, before);

    // In another namespace, the name has no special meaning.
    let object = sealed_key(&scene.namespace, "sealed-secrets-key", "kubernetes.io/tls", json!({})).await?;
    kubernetes::apply(&scene.client, &scene.namespace, object).await?;
    scene.has("v1", "Secret", "sealed-secrets-key", json!({"type": "kubernetes.io/tls"})).await?;
    Ok(())
}

#[tokio::test]
async fn no_sync_applies_over_the_controllers_own_secrets_or_prunes_them() -> Result<()> {
    let scene = Scene::new("own-secrets").await?;
    let own = Api::<Secret>::namespaced(scene.client.clone(), OWN);
    let all = own.list(&ListParams::default().labels(SEALING_KEY)).await?.items;
    let key = all.first().and_then(|key| key.metadata.name.clone()).context("a sealing key")?;
    // This Secret has the label of a retired sealing key, but its name is not special, and it contains no key.
    let labelled = format!("labelled-{}", scene.namespace);
    let retired = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": labelled, "labels": {"gitseal.dev/sealing-key": "retired"}}});
    kubernetes::apply(&scene.client, OWN, retired).await?;
    let named = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": OWN, "labels": labels}});
    scene.sync("app", "./app", json!({"prune": true})).await?;
    let makes_one = format!("new-{}", scene.namespace);
    for (name, labels) in [
        (&key, json!({})),
        (&"gitseal-digest-key".to_owned(), json!({})),
        (&labelled, json!({})),
        (&makes_one, json!({SEALING_KEY: "active"})),
    ] {
        let before = own.get_opt(name).await?;
        scene.tree.write("app/own.yaml", named(name, labels).to_string())?;
        scene.publish("one of the controller's own").await?;
        let message = eventually("a refusal", || async {
            let message = scene.is_not_ready("app", "Forbidden").await?;
            ensure!(message.contains(name.as_str()), "{message}");
            Ok(message)
        })
        .await?;
        ensure!(
            message.contains("app/own.yaml:1: ") && message.contains("one of the controller's own Secrets"),
            "{message}"
        );
        ensure!(own.get_opt(name).await? == before, "{name} was changed");
    }
    // An earlier version of the controller could leave an inventory and labels that say that these Secrets belong to
    // the Sync.
    let ours = json!({crds::names::SYNC_NAME: "app", crds::names::SYNC_NAMESPACE: scene.namespace});
    let meta = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": labelled, "labels": ours}});
    kubernetes::apply(&scene.client, OWN, meta).await?;
    scene.tree.remove("app/own.yaml")?;
    scene.tree.write("app/settings.yaml", crate::objects::config_map("settings", "1"))?;
    scene.publish("nothing of them").await?;
    scene.is_ready("app").await?;
    scene.api::<crds::Sync>().delete("app", &DeleteParams::default()).await?;
    eventually("the Sync to be gone", || async {
        ensure!(scene.api::<crds::Sync>().get_opt("app").await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    for name in [&key, &labelled] {
        own.get(name).await?;
    }
    own.delete(&labelled, &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_a_sealed_secret_owns_is_not_read() -> Result<()> {
    let scene = Scene::new("owned-key").await?;
    let plane = Plane::shared().await?;
    let name = format!("owned-{}", scene.namespace);
    // The SealedSecret makes the Secret without the label, and the label is added afterwards.
    kubernetes::apply(&scene.client, OWN, sealed_key(OWN, &name, "kubernetes.io/tls", json!({})).await?).await?;
    let own = Api::<Secret>::namespaced(scene.client.clone(), OWN);
    eventually("the Secret", || async { own.get_opt(&name).await?.context("it is not there") }).await?;
    let labelled =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": {SEALING_KEY: "active"}}});
    kubernetes::apply(&scene.client, OWN, labelled).await?;
    let events = Api::<Event>::namespaced(scene.client.clone(), OWN);
    let event = eventually("an event about the Secret", || async {
        let all = events.list(&ListParams::default()).await?.items;
        let about = |event: &Event| event.regarding.as_ref().is_some_and(|about| about.name.as_ref() == Some(&name));
        all.into_iter().find(|event| about(event) && event.reason.as_deref() == Some("MalformedKey")).context("none")
    })
    .await?;
    assert!(event.note.as_deref().unwrap_or_default().contains("made from a SealedSecret"), "{event:?}");
    let controller = plane.controller.lock().await;
    let served = controller.as_ref().context("a controller")?.fetch("/v1/cert.pem").await?;
    assert_eq!(served, plane.certificate);
    drop(controller);
    let sealed = Api::<SealedSecret>::namespaced(scene.client.clone(), OWN);
    sealed.delete(&name, &DeleteParams::default()).await?;
    // The garbage collector may already have deleted the Secret together with its owner.
    own.delete(&name, &DeleteParams::default()).await.map(drop).or_else(|error| match error {
        kube::Error::Api(status) if status.code == 404 => Ok(()),
        error => Err(error.into()),
    })
}
