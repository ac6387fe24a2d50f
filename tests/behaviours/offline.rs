//! Checks that `gitseal unseal` shows the same Secret as the controller makes.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use harness::{Plane, Scene, eventually, kubernetes, programs};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A Secret without the fields that the cluster adds, and without its owner.
fn comparable(mut secret: Value) -> Value {
    let metadata = secret["metadata"].as_object_mut().unwrap();
    for own in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "ownerReferences"] {
        metadata.remove(own);
    }
    metadata.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
    // The API server sets this default.
    secret.as_object_mut().unwrap().entry("type").or_insert_with(|| "Opaque".into());
    secret
}

/// The cluster's private keys, saved as with `kubectl get -o json`, in a folder that is deleted after the test.
async fn keys(scene: &Scene) -> Result<TempDir> {
    let secrets = Api::<Secret>::namespaced(scene.client.clone(), "kube-system");
    let label = "sealedsecrets.bitnami.com/sealed-secrets-key";
    let keys = secrets.list(&ListParams::default().labels(label)).await?.items;
    let folder = tempfile::tempdir()?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": keys});
    fs::write(folder.path().join("keys.json"), list.to_string())?;
    Ok(folder)
}

/// For each SealedSecret, its name and the fields in `spec` besides the values `user` and `password`.
fn templates() -> Vec<(&'static str, Value)> {
    let annotations = json!({"note": "kept", "sealedsecrets.bitnami.com/skip-set-owner-references": "true"});
    vec![
        ("plain", json!({"metadata": null, "data": null, "type": ""})),
        ("typed", json!({"type": "example.com/login", "immutable": true})),
        ("mutable", json!({"immutable": false})),
        (
            "metadata",
            json!({"metadata": {
                "name": "ignored", "namespace": "ignored", "creationTimestamp": null, "generateName": "ignored",
                "labels": {"team": "a", "gitseal.dev/sync-name": "theirs", "gitseal.dev/sync-namespace": "theirs"},
                "annotations": annotations, "finalizers": ["example.com/keep"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "ignored", "uid": "ignored"}],
            }}),
        ),
        (
            "rendered",
            json!({"data": {
                "url": "https://{{ .user | upper }}:{{ .password | urlquery }}@db/{{ .missing }}",
                "user": "over {{ .user }}", "password": "the template's", "hash": "{{ htpasswd .user .password }}",
                "empty": "",
            }}),
        ),
    ]
}

#[tokio::test]
async fn the_command_and_the_controller_make_the_same_secrets() -> Result<()> {
    let scene = Scene::new("offline").await?;
    let mut objects = Vec::new();
    for (name, template) in templates() {
        let values = json!({"user": scene.seal(name, b"admin").await?, "password": scene.seal(name, b"a b\n").await?});
        objects.push((name, json!({"encryptedData": values, "template": template})));
    }
    let whole = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "example.com/login", "immutable": true,
        "metadata": {"name": "x", "namespace": "y", "labels": {"team": "a"}, "creationTimestamp": null},
        "data": {"user": STANDARD.encode("admin"), "both": STANDARD.encode("loses"), "none": null},
        "stringData": {"both": "wins"},
    });
    let whole = scene.seal("first-form", whole.to_string().as_bytes()).await?;
    objects.push(("first-form", json!({"data": whole, "template": {"type": "ignored", "data": {"ignored": "x"}}})));

    let folder = keys(&scene).await?;
    let plane = Plane::shared().await?;
    for (name, spec) in objects {
        let sealed = json!({
            "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret",
            "metadata": {"name": name, "namespace": scene.namespace}, "spec": spec,
        });
        fs::write(folder.path().join("sealed.json"), sealed.to_string())?;
        kubernetes::apply(&scene.client, &scene.namespace, sealed).await?;
        let made = eventually(&format!("the Secret {name}"), || async {
            scene.get("v1", "Secret", name).await?.context("it is not there")
        })
        .await?;
        let unseal = |arguments: &[&str]| -> Result<Vec<u8>> {
            let mut command: Command = programs::gitseal(plane.cluster.kubeconfig())?;
            command
                .current_dir(folder.path())
                .args(["unseal", "sealed.json", "--private-key", "keys.json"])
                .args(arguments);
            let output = command.output()?;
            ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(output.stdout)
        };
        let shown: Value = serde_json::from_slice(&unseal(&["-o", "json"])?)?;
        let (made, shown) = (comparable(made), comparable(shown));
        ensure!(made == shown, "{name}: the controller made {made:#}\nthe command shows {shown:#}");
        for (key, value) in made["data"].as_object().context("values")? {
            let one = STANDARD.encode(unseal(&["--key-name", key])?);
            ensure!(*value == one, "{name}: the value {key} alone is another one");
        }
    }
    Ok(())
}
